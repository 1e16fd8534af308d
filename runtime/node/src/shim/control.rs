//! The node's way to talk to the shim: any number of connections (few), root only, none of them needed for the berth to run.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{SocketFlags, accept_with};
use tokio::{
    sync::{Semaphore, broadcast},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    copy::Stream,
    packet,
    proxy::Proxy,
    scratch,
    state::{Engine, State},
};
use crate::descriptor::watch_socket;
use crate::link::{Event, FromShim, Status, ToShim, VERSION};

/// Connections at once; more are closed.
const MOST: usize = 8;
/// How long a node that does not read is waited for before its connection is dropped.
const STUCK: Duration = Duration::from_secs(10);

/// What the connections act on.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) state: Arc<State>,
    pub(crate) proxy: Arc<Proxy>,
    /// Host pid of PID 1.
    pub(crate) pid: u32,
    /// A duplicate of the user's listening socket, for a node that comes back.
    pub(crate) listener: OwnedFd,
    /// The berth's disk.
    pub(crate) disk: OwnedFd,
    /// The only uid that is listened to.
    pub(crate) root: u32,
    pub(crate) connections: TaskTracker,
}

impl Control {
    /// Accepts connections for ever.
    pub(crate) async fn serve(self: Arc<Self>, listener: Stream) {
        let places = Arc::new(Semaphore::new(MOST));
        loop {
            let Ok(mut ready) = listener.readable().await else { return };
            let accepted = ready.try_io(|listener| Ok(accept_with(listener.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?));
            match accepted {
                Ok(Ok(node)) if getsockopt(&node, PeerCredentials).is_ok_and(|peer| peer.uid() == self.root) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    let events = self.state.listen();
                    let control = Arc::clone(&self);
                    self.connections.spawn(async move {
                        control.connection(node, events).await;
                        drop(place);
                    });
                }
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot accept on the control socket");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Talks to one node until it goes, misbehaves, or the last event is told. Its end is no reason for anything.
    pub(crate) async fn connection(&self, node: OwnedFd, mut events: broadcast::Receiver<Event>) {
        let Ok(node) = watch_socket(node) else { return };
        loop {
            let done = tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok(last @ Event::Exited { .. }) => return drop(send(&node, &FromShim::Event(last), &[]).await),
                    Ok(event) => send(&node, &FromShim::Event(event), &[]).await,
                    Err(_) => return,
                },
                request = receive(&node) => match request {
                    Ok(Some(request)) => self.answer(&node, request).await,
                    Ok(None) => return,
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => refuse(&node, error.to_string()).await,
                    Err(_) => return,
                },
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, node: &Stream, request: ToShim) -> io::Result<()> {
        match request {
            ToShim::Start(_) => refuse(node, "this shim has started its berth already".into()).await,
            ToShim::Status => send(node, &FromShim::Status(self.status()), &[]).await,
            ToShim::Listener => send(node, &FromShim::Fd, &[self.listener.as_fd()]).await,
            ToShim::Disk => send(node, &FromShim::Fd, &[self.disk.as_fd()]).await,
            ToShim::Stop { deadline_ms } => {
                send(node, &FromShim::Ok, &[]).await?;
                self.state.ask_stop(Duration::from_millis(deadline_ms));
                Ok(())
            }
        }
    }

    fn status(&self) -> Status {
        let engine = self.state.engine();
        Status {
            version: VERSION,
            pid: Some(self.pid),
            ready: engine == Engine::Ready,
            reason: match engine {
                Engine::Ready => None,
                Engine::Starting => Some("Docker is starting".into()),
                Engine::Down(reason) | Engine::Failed(reason) => Some(reason),
            },
            stopping: self.state.stopping(),
            connections: self.proxy.open(),
            started_at: self.state.started_at,
        }
    }
}

async fn refuse(node: &Stream, detail: String) -> io::Result<()> {
    send(node, &FromShim::Refused { detail }, &[]).await
}

async fn send(node: &Stream, message: &FromShim, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let sending = async {
        loop {
            let mut ready = node.writable().await?;
            if let Ok(done) = ready.try_io(|node| packet::send(node.get_ref(), message, descriptors)) {
                return done;
            }
        }
    };
    timeout(STUCK, sending).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn receive(node: &Stream) -> io::Result<Option<ToShim>> {
    loop {
        let mut ready = node.readable().await?;
        if let Ok(received) = ready.try_io(|node| scratch::with(|buffer| packet::receive::<ToShim>(node.get_ref(), buffer))) {
            return Ok(received?.map(|(request, _)| request));
        }
    }
}
