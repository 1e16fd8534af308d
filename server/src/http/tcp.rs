//! The listener for browsers and remote clients: TCP, with TLS or on loopback alone. It has the bounds of the unix socket.
//!
//! That it cannot listen ends nothing: a local user who took the port first would else keep the whole service down. It is tried again, and
//! the doctor tells.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    listener::{HEAD, MOST_EACH, Places, Remote, connection, pause},
    local,
    tls::Certificate,
};
use crate::{chain, config::Listen, domain::Source, service::Listening};

/// Connections of one proxy that the configuration names, and of loopback before it is known whose they are.
const MOST_SHARED: u32 = 512;
/// After a failure it is tried again so soon.
const AGAIN: Duration = Duration::from_secs(5);

/// What a listener needs.
pub struct Front {
    pub address: SocketAddr,
    pub listen: Listen,
    /// Nothing: plain HTTP.
    pub certificate: Option<Arc<Certificate>>,
    pub listening: Arc<Listening>,
}

/// Listens and serves until `soft` is cancelled; open requests then end by themselves or when `hard` is cancelled.
pub async fn serve_tcp(front: Front, router: Router, tasks: TaskTracker, soft: CancellationToken, hard: CancellationToken) {
    let Some(listener) = soft.run_until_cancelled(bind(&front)).await else { return };
    let acceptor = front.certificate.as_ref().map(|certificate| TlsAcceptor::from(certificate.server()));
    let (places, owners) = (Arc::new(Places::default()), Arc::new(Places::default()));
    loop {
        let (stream, peer) = tokio::select! {
            () = soft.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause(&error).await;
                    continue;
                }
            },
        };
        let address = peer.ip().to_canonical();
        let proxy = front.listen.trusted_proxies.contains(&address);
        let most = if proxy || address.is_loopback() { MOST_SHARED } else { MOST_EACH };
        let Some(place) = Places::take(&places, Source::Address(address), most) else {
            tracing::debug!(%address, "too many connections");
            continue;
        };
        let (router, soft, hard, acceptor, owners) = (router.clone(), soft.clone(), hard.clone(), acceptor.clone(), Arc::clone(&owners));
        tasks.spawn(async move {
            let uid = if address.is_loopback() && !proxy { whose(&stream, peer).await } else { None };
            // By its owner from here on; what another user's connections hold is no matter.
            let place = match uid {
                Some(uid) => {
                    drop(place);
                    Places::take(&owners, Source::Local(uid), MOST_EACH)
                }
                None => Some(place),
            };
            let Some(_place) = place else { return };
            // Small answers wait for nothing.
            let _ = stream.set_nodelay(true);
            let remote = Remote { address, secure: acceptor.is_some(), uid };
            match acceptor {
                Some(acceptor) => secured(acceptor, stream, remote, router, soft, hard).await,
                None => connection(stream, remote, router, soft, hard).await,
            }
        });
    }
}

async fn secured(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    remote: Remote,
    router: Router,
    soft: CancellationToken,
    hard: CancellationToken,
) {
    // Whoever does not shake hands holds his place no longer than one who sends no request.
    let shaken = tokio::time::timeout(HEAD, acceptor.accept(stream));
    match soft.run_until_cancelled(shaken).await {
        Some(Ok(Ok(stream))) => connection(stream, remote, router, soft, hard).await,
        Some(Ok(Err(error))) => tracing::debug!(address = %remote.address, %error, "no TLS"),
        Some(Err(_)) => tracing::debug!(address = %remote.address, "TLS took too long"),
        None => {}
    }
}

/// Whose the other end is; nothing when it has gone already.
async fn whose(stream: &TcpStream, peer: SocketAddr) -> Option<u32> {
    let ours = stream.local_addr().ok()?;
    match tokio::task::spawn_blocking(move || local::owner(peer, ours)).await {
        Ok(Ok(uid)) => uid,
        Ok(Err(error)) => {
            tracing::debug!(%error, "the kernel's list of connections cannot be read");
            None
        }
        Err(_) => None,
    }
}

async fn bind(front: &Front) -> TcpListener {
    let fingerprint = front.certificate.as_ref().map(|certificate| certificate.fingerprint());
    let mut told = false;
    loop {
        let bound = TcpListener::bind(front.address).await;
        match bound.and_then(|listener| listener.local_addr().map(|address| (listener, address))) {
            Ok((listener, address)) => {
                let url = front.listen.public_url(address);
                tracing::info!(%address, url, fingerprint, "listening");
                front.listening.at(url, fingerprint);
                return listener;
            }
            Err(error) => {
                if !told {
                    tracing::error!(address = %front.address, error = chain(&error), "cannot listen; trying again");
                    told = true;
                }
                front.listening.failed(front.address.to_string(), error.to_string());
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}
