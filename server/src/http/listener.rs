//! The unix socket: accepts, asks the kernel who is there; and what every connection has: bounds, and a drain at the end.

use std::{
    collections::HashMap,
    fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::domain::Source;

/// The caller's uid, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerUid(pub u32);

/// A request came over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Of the client; behind a proxy that the configuration names, the one that it tells.
    pub address: IpAddr,
    /// With TLS.
    pub secure: bool,
    /// Over loopback, whose the other end is.
    pub uid: Option<u32>,
}

impl Remote {
    /// As what it is counted.
    pub(super) fn source(self) -> Source {
        match self.uid {
            Some(uid) if self.address.is_loopback() => Source::Local(uid),
            _ => Source::Address(self.address),
        }
    }
}

/// Connections of one user other than root or one address, and of all together.
pub(super) const MOST_EACH: u32 = 64;
const MOST: u32 = 1_024;
/// A request's head must be there so soon.
pub(super) const HEAD: Duration = Duration::from_secs(10);
const MAX_HEAD: usize = 64 * 1024;

/// Binds the socket beside its place and moves it there, so that a client never finds none; everybody may connect.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let fresh = path.with_added_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o666))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Serves until `soft` is cancelled; open requests then end by themselves or when `hard` is cancelled.
pub async fn serve(listener: UnixListener, router: Router, tasks: TaskTracker, soft: CancellationToken, hard: CancellationToken) {
    let places = Arc::new(Places::default());
    loop {
        let stream = tokio::select! {
            () = soft.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pause(&error).await;
                    continue;
                }
            },
        };
        let Ok(credential) = stream.peer_cred() else { continue };
        let peer = PeerUid(credential.uid());
        // Who holds too many gets no answer on the next, like with a full backlog.
        let Some(place) = Places::take(&places, Source::Uid(peer.0), MOST_EACH) else {
            tracing::debug!(uid = peer.0, "too many connections");
            continue;
        };
        let (router, soft, hard) = (router.clone(), soft.clone(), hard.clone());
        tasks.spawn(async move {
            let _place = place;
            connection(stream, peer, router, soft, hard).await;
        });
    }
}

/// Out of descriptors, most likely: open connections must end before there is room.
pub(super) async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Serves one connection; each of its requests is marked with `peer`.
pub(super) async fn connection<S, P>(stream: S, peer: P, router: Router, soft: CancellationToken, hard: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Clone + Send + Sync + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    let drained = tokio::select! {
        result = serving.as_mut() => Some(result),
        () = soft.cancelled() => {
            serving.as_mut().graceful_shutdown();
            hard.run_until_cancelled(serving).await
        }
    };
    if let Some(Err(error)) = drained {
        tracing::debug!(error = crate::chain(&error), "a connection broke");
    }
}

/// Who holds how many connections.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<Source, u32>>);

/// One connection, as long as it lives.
pub(super) struct Place {
    places: Arc<Places>,
    source: Source,
}

impl Places {
    /// With at most `most` for one source.
    pub(super) fn take(places: &Arc<Self>, source: Source, most: u32) -> Option<Place> {
        let source = source.group();
        let mut taken = places.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: u32 = taken.values().sum();
        let own = taken.get(&source).copied().unwrap_or_default();
        // Root is never locked out by users.
        if source != Source::Uid(0) && (own >= most || all >= MOST) || own >= MOST {
            return None;
        }
        taken.insert(source, own + 1);
        Some(Place { places: Arc::clone(places), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_all_places_and_root_always_has_some() {
        let places = Arc::new(Places::default());
        let held: Vec<_> = (0..MOST_EACH).map(|_| Places::take(&places, Source::Uid(1000), MOST_EACH).unwrap()).collect();
        assert!(Places::take(&places, Source::Uid(1000), MOST_EACH).is_none());
        assert!(Places::take(&places, Source::Uid(1001), MOST_EACH).is_some());
        let others: Vec<_> = (2000..2016)
            .flat_map(|uid| (0..MOST_EACH).map(move |_| uid))
            .map(|uid| Places::take(&places, Source::Uid(uid), MOST_EACH))
            .collect();
        assert!(others.iter().any(Option::is_none));
        assert!(Places::take(&places, Source::Uid(0), MOST_EACH).is_some());
        drop((held, others));
        assert!(places.0.lock().unwrap().is_empty());
    }
}
