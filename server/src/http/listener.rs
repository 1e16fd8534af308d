//! The unix socket: accepts, asks the kernel who is there, bounds connections, drains at the end.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

/// The caller's uid, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerUid(pub u32);

/// Connections of one user other than root, and of all together.
const MOST_PER_USER: u32 = 64;
const MOST: u32 = 1_024;
/// A request's head must be there so soon.
const HEAD: Duration = Duration::from_secs(10);
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
                    // Out of descriptors, most likely: open connections must end before there is room.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let Ok(credential) = stream.peer_cred() else { continue };
        let peer = PeerUid(credential.uid());
        // Who holds too many gets no answer on the next, like with a full backlog.
        let Some(place) = Places::take(&places, peer.0) else {
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

async fn connection(stream: UnixStream, peer: PeerUid, router: Router, soft: CancellationToken, hard: CancellationToken) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
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

#[derive(Default)]
struct Places(Mutex<HashMap<u32, u32>>);

struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    fn take(places: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut taken = places.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: u32 = taken.values().sum();
        let own = taken.get(&uid).copied().unwrap_or_default();
        // Root is never locked out by users.
        if uid != 0 && (own >= MOST_PER_USER || all >= MOST) || own >= MOST {
            return None;
        }
        taken.insert(uid, own + 1);
        Some(Place { places: Arc::clone(places), uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.uid);
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
        let held: Vec<_> = (0..MOST_PER_USER).map(|_| Places::take(&places, 1000).unwrap()).collect();
        assert!(Places::take(&places, 1000).is_none());
        assert!(Places::take(&places, 1001).is_some());
        let others: Vec<_> =
            (2000..2016).flat_map(|uid| (0..MOST_PER_USER).map(move |_| uid)).map(|uid| Places::take(&places, uid)).collect();
        assert!(others.iter().any(Option::is_none));
        assert!(Places::take(&places, 0).is_some());
        drop((held, others));
        assert!(places.0.lock().unwrap().is_empty());
    }
}
