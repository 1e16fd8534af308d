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
    task::{JoinSet, consume_budget},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{CONNECTIONS, Shared};
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
    inside: Arc<UdpSocket>,
    heard: Arc<Mutex<Instant>>,
}

/// Carries datagrams until dropped. A datagram that cannot be passed on now is lost, as datagrams are.
pub(super) async fn serve(socket: UdpSocket, shared: Arc<Shared>, port: u16, reach: Reach) {
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut answers: JoinSet<SocketAddr> = JoinSet::new();
    let mut told = false;
    loop {
        consume_budget().await;
        let ready = tokio::select! {
            biased;
            Some(ended) = answers.join_next() => {
                ended.ok().and_then(|client| flows.remove(&client));
                continue;
            }
            ready = socket.readable() => ready,
        };
        let asleep = ready.is_err() || shared.sleeper.awake().await.is_err();
        let received = scratch::with(|buffer| {
            let (length, client) = socket.try_recv_from(buffer)?;
            // What knows its way is not copied.
            let passed = flows.get(&client).map(|flow| flow.pass(&buffer[..length]));
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
        let Ok(inside) = shared.dialer.udp(port, reach).await else { continue };
        let flow = Flow { inside: Arc::new(inside), heard: Arc::new(Mutex::new(Instant::now())) };
        // A fresh socket is not known to be writable yet.
        let _ = timeout(PATIENCE, flow.inside.send(&datagram)).await;
        answers.spawn(answer(flow.clone(), Arc::clone(&socket), client, place));
        flows.insert(client, flow);
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
