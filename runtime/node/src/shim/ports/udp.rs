use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::OwnedSemaphorePermit,
    task::{AbortHandle, JoinSet, consume_budget},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{CONNECTIONS, Shared, inside::Datagrams};
use crate::shim::{docker::Reach, scratch};

/// How long a client that says and hears nothing is remembered.
const IDLE: Duration = Duration::from_secs(60);

pub(super) fn socket(bound: OwnedFd) -> io::Result<UdpSocket> {
    UdpSocket::from_std(bound.into())
}

/// How long room for the first datagram is waited for.
const PATIENCE: Duration = Duration::from_millis(100);

/// One client of a port.
#[derive(Clone)]
struct Flow {
    inside: Arc<Datagrams>,
    heard: Arc<Mutex<Instant>>,
}

/// The clients of one port, each with the task that brings him his answers.
#[derive(Default)]
struct Flows {
    known: HashMap<SocketAddr, (Flow, AbortHandle)>,
    answers: JoinSet<SocketAddr>,
}

/// Carries datagrams until dropped. A datagram that cannot be passed on now is lost, as datagrams are.
pub(super) async fn serve(socket: UdpSocket, shared: Arc<Shared>, port: u16, reach: Reach) {
    let socket = Arc::new(socket);
    let mut flows = Flows::default();
    let mut told = false;
    loop {
        consume_budget().await;
        let ready = tokio::select! {
            biased;
            Some(ended) = flows.answers.join_next() => {
                ended.ok().and_then(|client| flows.known.remove(&client));
                continue;
            }
            ready = socket.readable() => ready,
        };
        let asleep = ready.is_err() || shared.sleeper.awake().await.is_err();
        let received = scratch::with(|buffer| {
            let (length, client) = socket.try_recv_from(buffer)?;
            // What knows its way is not copied.
            let passed = flows.known.get(&client).map(|(flow, _)| flow.pass(&buffer[..length]));
            Ok::<_, io::Error>(passed.is_none().then(|| (client, buffer[..length].to_vec())))
        });
        let first = match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => {
                sleep(Duration::from_millis(100)).await;
                continue;
            }
            Ok(_) if asleep => continue,
            Ok(first) => first,
        };
        shared.state.usage.touch();
        let Some((client, datagram)) = first else { continue };
        let Ok(place) = Arc::clone(&shared.flows).try_acquire_owned() else {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(limit = CONNECTIONS, port, "more UDP clients of published ports than one berth may have");
            }
            continue;
        };
        let mut dialed = shared.dialer.udp(port, reach).await;
        if dialed.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) && flows.forget_one().await {
            dialed = shared.dialer.udp(port, reach).await;
        }
        let Ok(inside) = dialed else { continue };
        let flow = Flow { inside: Arc::new(inside), heard: Arc::new(Mutex::new(Instant::now())) };
        // A fresh socket is not known to be writable yet.
        let _ = timeout(PATIENCE, flow.inside.send(&datagram)).await;
        let task = flows.answers.spawn(answer(flow.clone(), Arc::clone(&socket), client, place));
        flows.known.insert(client, (flow, task));
    }
}

impl Flows {
    /// Gives up the client who has been silent for longest; false when there is none.
    async fn forget_one(&mut self) -> bool {
        let Some(client) = self.known.iter().min_by_key(|(_, (flow, _))| flow.end()).map(|(client, _)| *client) else { return false };
        if let Some((_, task)) = self.known.remove(&client) {
            task.abort();
        }
        // His socket is back with the end of his task, or somebody else's is.
        let Some(ended) = self.answers.join_next().await else { return false };
        ended.ok().and_then(|client| self.known.remove(&client));
        true
    }
}

impl Flow {
    fn pass(&self, datagram: &[u8]) {
        self.renew();
        if self.inside.try_send(datagram).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
            // That was the answer to an earlier one; this one has not been sent yet.
            let _ = self.inside.try_send(datagram);
        }
    }

    fn renew(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn end(&self) -> Instant {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) + IDLE
    }
}

/// Brings back what the berth says, until neither side says anything for a while.
async fn answer(flow: Flow, socket: Arc<UdpSocket>, client: SocketAddr, _place: OwnedSemaphorePermit) -> SocketAddr {
    loop {
        consume_budget().await;
        match timeout_at(flow.end(), flow.inside.readable()).await {
            Ok(Ok(())) => {}
            // A word of the client may have come meanwhile.
            Err(_) if flow.end() > Instant::now() => continue,
            Ok(Err(_)) | Err(_) => return client,
        }
        let sent = scratch::with(|buffer| {
            let length = flow.inside.try_recv(buffer)?;
            socket.try_send_to(&buffer[..length], client)
        });
        if sent.is_ok() {
            flow.renew();
        }
    }
}
