use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::net::{SocketFlags, accept_with, sockopt};
use tokio::{sync::OwnedSemaphorePermit, task::JoinSet, time::sleep};

use super::{CONNECTIONS, Shared};
use crate::shim::{
    copy::{Stream, relay},
    docker::Reach,
};

/// Accepts until dropped; then its connections end too.
pub(super) async fn serve(listener: Stream, shared: Arc<Shared>, port: u16, reach: Reach) {
    let mut connections = JoinSet::new();
    let mut told = false;
    loop {
        let accepted = tokio::select! {
            biased;
            Some(_) = connections.join_next() => continue,
            ready = listener.readable() => match ready {
                Ok(mut ready) => ready.try_io(|listener| Ok(accept_with(listener.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)),
                Err(_) => return,
            },
        };
        match accepted {
            Err(_) => {}
            Ok(Ok(client)) => match Arc::clone(&shared.connections).try_acquire_owned() {
                Ok(place) => drop(connections.spawn(carry(client, Arc::clone(&shared), port, reach, place))),
                Err(_) => {
                    reset(&client);
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(limit = CONNECTIONS, port, "more connections to published ports than one berth may have");
                    }
                }
            },
            // Shut down, or nothing can be opened for now: the queue keeps the others meanwhile.
            Ok(Err(_)) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn carry(client: OwnedFd, shared: Arc<Shared>, port: u16, reach: Reach, _place: OwnedSemaphorePermit) {
    if carried(&client, &shared, port, reach).await.is_err() {
        // As if the container itself had been asked and nobody had been there.
        reset(&client);
    }
}

async fn carried(client: &OwnedFd, shared: &Shared, port: u16, reach: Reach) -> io::Result<()> {
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    shared.sleeper.awake().await.map_err(|_| refused())?;
    let _use = shared.state.usage.begin();
    sockopt::set_tcp_nodelay(client, true)?;
    let inside = shared.dialer.tcp(port, reach).await?.into();
    match relay(client.try_clone()?, inside, &shared.pipes).await {
        // A reset of one side is passed on. That both are done is no error here, as TCP tells it: nothing is left to carry then.
        Err(error) if error.raw_os_error().is_some() => Err(error),
        _ => Ok(()),
    }
}

fn reset(client: &OwnedFd) {
    let _ = sockopt::set_socket_linger(client, Some(Duration::ZERO));
}
