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
    docker::inside,
    packet,
    proxy::Proxy,
    scratch,
    sleep::{Rest, Sleeper},
    state::{Engine, State},
    usage::Use,
};
use crate::{
    descriptor::watch_socket,
    link::{Event, FromShim, Status, ToShim, VERSION},
};

/// Connections at once; more are closed.
const MOST: usize = 8;
/// How long a node that does not read is waited for before its connection is dropped.
const STUCK: Duration = Duration::from_secs(10);

/// What the connections act on.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) state: Arc<State>,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) sleeper: Arc<Sleeper>,
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
        let mut told = false;
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
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "cannot accept on the control socket for now");
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Talks to one node until it goes, misbehaves, or the last event is told. Its end is no reason for anything.
    pub(crate) async fn connection(&self, node: OwnedFd, mut events: broadcast::Receiver<Event>) {
        let Ok(node) = watch_socket(node) else { return };
        let mut commands = None;
        loop {
            let done = tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok(last @ Event::Exited { .. }) => return drop(send(&node, &FromShim::Event(last), &[]).await),
                    Ok(event) => send(&node, &FromShim::Event(event), &[]).await,
                    Err(_) => return,
                },
                request = receive(&node) => match request {
                    Ok(Some(request)) => self.answer(&node, request, &mut commands).await,
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

    /// `commands` is held while the node has commands running inside.
    async fn answer<'a>(&'a self, node: &Stream, request: ToShim, commands: &mut Option<Use<'a>>) -> io::Result<()> {
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
            // Asleep, nobody uses it either: an older shim is replaced then.
            ToShim::Retire { deadline_ms } => {
                match self.sleeper.idle_too_long().is_some() || matches!(self.sleeper.rest(), Rest::Asleep(_)) {
                    true => {
                        send(node, &FromShim::Ok, &[]).await?;
                        self.state.ask_stop(Duration::from_millis(deadline_ms));
                        Ok(())
                    }
                    false => refuse(node, "somebody uses it again".into()).await,
                }
            }
            ToShim::Suspend { reason } => done(node, self.sleeper.suspend(reason).await).await,
            ToShim::Resume => done(node, self.sleeper.resume()).await,
            ToShim::Use => match self.sleeper.awake().await {
                Ok(()) => {
                    self.state.usage.touch();
                    send(node, &FromShim::Ok, &[]).await
                }
                Err(answer) => refuse(node, answer.message).await,
            },
            ToShim::Commands { open } => {
                // The new one begins before the old one ends: no moment without a use between two commands.
                *commands = (open > 0).then(|| self.state.usage.begin());
                send(node, &FromShim::Ok, &[]).await
            }
            ToShim::Policy { ports, idle } => {
                self.sleeper.set_idle(idle);
                self.state.ports.set_rules(ports);
                send(node, &FromShim::Ok, &[]).await
            }
            ToShim::Held(port) => match self.state.ports.show(&port) {
                Some(socket) => send(node, &FromShim::Fd, &[socket.as_fd()]).await,
                None => refuse(node, format!("{} {} is not held", port.protocol, port.port)).await,
            },
            ToShim::Guarded { ports } => {
                self.state.ports.set_guarded(&ports);
                send(node, &FromShim::Ok, &[]).await
            }
            ToShim::Inside => match inside::look(self.proxy.inner(), &self.state, &self.sleeper).await {
                Ok(inside) => send(node, &FromShim::Inside(Box::new(inside)), &[]).await,
                Err(detail) => refuse(node, detail).await,
            },
            ToShim::Prune { what } => match inside::prune(self.proxy.inner(), &self.state, &self.sleeper, what).await {
                Ok(bytes) => send(node, &FromShim::Pruned { bytes }, &[]).await,
                Err(detail) => refuse(node, detail).await,
            },
            ToShim::CallsTaken { position } => {
                self.proxy.calls.taken(position);
                send(node, &FromShim::Ok, &[]).await
            }
        }
    }

    fn status(&self) -> Status {
        let (engine, rest) = (self.state.engine(), self.sleeper.rest());
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
            sleep: match &rest {
                Rest::Asleep(since) => Some(since.clone()),
                _ => None,
            },
            idle_too_long: self.sleeper.idle_too_long(),
            suspended: rest.suspended().map(str::to_owned),
            last_used_at: self.state.usage.last(),
            running_containers: self.state.containers.borrow().running,
            ports: self.state.containers.borrow().ports.clone(),
            calls_end: self.proxy.calls.end(),
        }
    }
}

async fn done(node: &Stream, outcome: Result<(), String>) -> io::Result<()> {
    match outcome {
        Ok(()) => send(node, &FromShim::Ok, &[]).await,
        Err(detail) => refuse(node, detail).await,
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketType, bind, connect, listen, recv, socket_with, socketpair};

    use super::*;
    use crate::{
        link::Owner,
        shim::{
            calls::Calls,
            inner::Inner,
            proxy::{Hold, Parts},
            sleep::tests::fake_freezer,
        },
    };

    fn control(root: u32) -> Arc<Control> {
        let state = Arc::new(State::new());
        let here = || -> OwnedFd { File::open("/").unwrap().into() };
        let owner = Owner { name: "alice".into(), uid: 4711, gid: 4711 };
        let inner = Arc::new(Inner { root: here(), ids: 0..=0 });
        let sleeper = Arc::new(Sleeper::new(Arc::clone(&state), "alice", fake_freezer().0, berth_protocol::Idle::default()));
        let spool = tempfile::tempfile().unwrap();
        let parts = Parts {
            inner,
            state: Arc::clone(&state),
            sleeper: Arc::clone(&sleeper),
            calls: Arc::new(Calls::open(spool, owner.clone(), 0).unwrap()),
            covers: Vec::new(),
        };
        let proxy = Arc::new(Proxy::new(owner, parts, 10, Hold::default()));
        Arc::new(Control { state, proxy, sleeper, pid: 42, listener: here(), disk: here(), root, connections: TaskTracker::new() })
    }

    fn pair() -> (OwnedFd, Stream) {
        let (shim, node) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None).unwrap();
        (shim, watch_socket(node).unwrap())
    }

    async fn next(node: &Stream) -> Option<(FromShim, usize)> {
        let receiving = async {
            loop {
                let mut ready = node.readable().await.unwrap();
                if let Ok(received) = ready.try_io(|node| packet::receive::<FromShim>(node.get_ref(), &mut [0; 4096])) {
                    return received.unwrap().map(|(message, descriptors)| (message, descriptors.len()));
                }
            }
        };
        timeout(STUCK, receiving).await.expect("a message in time")
    }

    #[tokio::test]
    async fn requests_are_answered_and_events_told_until_the_last() {
        let control = control(0);
        let (shim, node) = pair();
        let events = control.state.listen();
        let talking = tokio::spawn({
            let control = Arc::clone(&control);
            async move { control.connection(shim, events).await }
        });
        packet::send(node.get_ref(), &ToShim::Status, &[]).unwrap();
        let (FromShim::Status(status), 0) = next(&node).await.unwrap() else { panic!() };
        assert_eq!((status.pid, status.ready, status.reason.as_deref()), (Some(42), false, Some("Docker is starting")));
        for request in [ToShim::Listener, ToShim::Disk] {
            packet::send(node.get_ref(), &request, &[]).unwrap();
            assert!(matches!(next(&node).await, Some((FromShim::Fd, 1))));
        }
        packet::send(node.get_ref(), &"nonsense", &[]).unwrap();
        assert!(matches!(next(&node).await, Some((FromShim::Refused { .. }, 0))));
        packet::send(node.get_ref(), &ToShim::Stop { deadline_ms: 60_000 }, &[]).unwrap();
        assert!(matches!(next(&node).await, Some((FromShim::Ok, 0))));
        assert!(matches!(next(&node).await, Some((FromShim::Event(Event::Stopping), 0))));
        assert!(control.state.stopping());
        control.state.tell(Event::Exited { status: "PID 1 exited with status 0".into() });
        assert!(matches!(next(&node).await, Some((FromShim::Event(Event::Exited { .. }), 0))));
        assert!(next(&node).await.is_none());
        talking.await.unwrap();
    }

    #[tokio::test]
    async fn l01_a_node_that_dies_or_does_not_read_is_dropped_and_nothing_else_happens() {
        let control = control(0);
        let (shim, node) = pair();
        drop(node);
        control.connection(shim, control.state.listen()).await;

        let (shim, node) = pair();
        let events = control.state.listen();
        for n in 0..1000 {
            control.state.tell(Event::NotReady { reason: n.to_string() });
        }
        control.connection(shim, events).await;
        assert!(next(&node).await.is_none(), "events were lost, so the connection ends");
        assert!(!control.state.stopping());
    }

    #[tokio::test]
    async fn only_root_is_listened_to() {
        let dir = tempfile::tempdir().unwrap();
        let me = nix::unistd::getuid().as_raw();
        for (name, root, served) in [("a", me, true), ("b", me + 1, false)] {
            let address = SocketAddrUnix::new(dir.path().join(name)).unwrap();
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
            bind(&listener, &address).unwrap();
            listen(&listener, 5).unwrap();
            let serving = tokio::spawn(control(root).serve(watch_socket(listener).unwrap()));
            let node = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
            connect(&node, &address).unwrap();
            let _ = packet::send(&node, &ToShim::Status, &[]);
            let node = watch_socket(node).unwrap();
            let answered = timeout(STUCK, node.readable()).await.unwrap();
            drop(answered);
            // A connection closed with our request unread reads as a reset.
            let length = recv(node.get_ref(), &mut [0; 4096], RecvFlags::DONTWAIT).map_or(0, |(_, length)| length);
            assert_eq!(length > 0, served);
            serving.abort();
        }
    }
}
