//! The shim: parent of one container, owner of all of it that must not break.
//!
//! Started by the node as root with one message on its standard input ([`crate::link`]), it starts the container, becomes the
//! berth's base id for good, and only then speaks to anybody. From there on it needs neither node nor server: it owns the user's
//! listening socket ([`proxy`]), DNS ([`dns`]), the console log ([`console`]), and the end of PID 1 ([`life`]); nodes come and go
//! ([`control`]). One thread for all of that, others where waiting is for the kernel only: for the disk when the spool of [`calls`] is
//! synced, and for readers of the emulated files of `/proc` and `/sys` ([`emulate`]). One failure domain: what a tenant does to his shim
//! reaches his berth alone.
//!
//! ```text
//! Start ──► container::start ──► confine ──► Started ──► PID 1 ends ──► drain ──► exit record, Exited, exit 0
//!                  │ undone          │
//!                  └──► Failed, exit 1
//! ```

mod answer;
mod calls;
mod channel;
mod console;
mod control;
mod copy;
mod dns;
mod docker;
mod emulate;
mod http;
mod inner;
mod life;
mod lingering;
mod packet;
mod pipe;
mod ports;
mod proxy;
mod pulse;
mod scratch;
mod sleep;
mod state;
mod tap;
mod usage;
mod visitor;

pub(crate) use answer::Answer;
pub(crate) use visitor::Visitor;

use std::{
    fs::File,
    io::{self, Write},
    mem,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use berth_protocol::{Idle, Ports};
use berth_runtime::{
    cgroup::{Freezer, View},
    container::{self, Started},
    error::chain,
    fault, idmap,
    net::Link,
    procfs::Source,
    undo::Undo,
};
use rustix::{
    fs::{fstat, major, minor},
    io::{fcntl_dupfd_cloexec, ioctl_fionbio},
    process::{Resource, Rlimit, getrlimit, setrlimit},
    stdio::{dup2_stdin, dup2_stdout},
};
use tokio::{runtime, sync::watch, time::timeout};
use tokio_util::task::TaskTracker;

use self::{
    calls::Calls,
    control::Control,
    inner::Inner,
    life::Init,
    proxy::{Hold, Parts, Proxy},
    sleep::Sleeper,
    state::{State, now_ms},
};
use crate::{
    descriptor::watch_socket,
    link::{Event, ExitRecord, FromShim, MAX_MESSAGE, Owner, Start, ToShim, VERSION},
};

/// How long clients may take to fetch what was answered before the berth ended.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a node may take to fetch the last event.
const FAREWELL: Duration = Duration::from_secs(1);
/// Descriptors that are not for connections to Docker: two for DNS and its queries, logs, control, pipes; published ports.
const OWN_DESCRIPTORS: u64 = 512 + ports::DESCRIPTORS;

/// What the node hands over with [`ToShim::Start`], in this order.
struct Handed {
    user: OwnedFd,
    control: OwnedFd,
    console: File,
    older_console: File,
    exit_record: File,
    calls: File,
    /// Mounts of the bundle's shares.
    mounts: Vec<OwnedFd>,
}

/// The whole life of a shim.
pub fn run() -> ExitCode {
    // Out of the node's session: a terminal that closes, or its Ctrl-C, is for the daemon. Fails where it leads one already.
    let _ = rustix::process::setsid();
    let (node, start, mut handed) = match receive_start() {
        Ok(received) => received,
        Err(error) => {
            tracing::error!(%error, "no start message on standard input; berth-node starts this program, nobody else does");
            return ExitCode::from(64);
        }
    };
    let started = match start.version {
        VERSION => start_berth(&start, mem::take(&mut handed.mounts)),
        other => Err(format!("node and shim are of different versions ({other} and {VERSION}); install both from one release")),
    };
    let ended = match started {
        Ok(started) => live(node, start, handed, started),
        Err(error) => {
            tracing::error!(error, "berth not started");
            let _ = packet::send(&node, &FromShim::Event(Event::Failed { error }), &[]);
            return ExitCode::FAILURE;
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The berth ends with this process; the node sees the connection end.
            tracing::error!(%error, "the shim cannot go on");
            ExitCode::FAILURE
        }
    }
}

fn receive_start() -> io::Result<(OwnedFd, Start, Handed)> {
    let node = fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let (message, mut descriptors) =
        packet::receive(&node, &mut vec![0; MAX_MESSAGE])?.ok_or_else(|| invalid("the node closed the connection"))?;
    let ToShim::Start(start) = message else { return Err(invalid("the first message is not a start")) };
    let mounts = descriptors.split_off(descriptors.len().min(6));
    let Ok([user, control, console, older, exit, calls]) = <[OwnedFd; 6]>::try_from(descriptors) else {
        return Err(invalid("the start message comes with six descriptors and those of the shares"));
    };
    let handed = Handed {
        user,
        control,
        console: console.into(),
        older_console: older.into(),
        exit_record: exit.into(),
        calls: calls.into(),
        mounts,
    };
    Ok((node, *start, handed))
}

/// Starts the container and gives up every right. After an error nothing is left, or the error says what.
fn start_berth(start: &Start, mounts: Vec<OwnedFd>) -> Result<(Started, Freezer, View), String> {
    let mut undo = Undo::new();
    let started = container::start(&start.bundle, mounts, &mut undo).and_then(|started| {
        raise_descriptor_limit();
        let (freezer, view) = (start.bundle.cgroup.freezer()?, start.bundle.cgroup.view()?);
        fault::point("confine the shim")?;
        container::confine(start.bundle.id_base)?;
        Ok((started, freezer, view))
    });
    match started {
        Ok(started) => {
            undo.commit();
            Ok(started)
        }
        Err(error) => Err(chain(&undo.fail(error))),
    }
}

/// As many descriptors as the hard limit allows: each connection takes two, and two more once a receiver had no room.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Connections that fit below the descriptor limit, at most `wanted`.
fn connection_limit(wanted: u32) -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(u64::from(wanted).min(descriptors.saturating_sub(OWN_DESCRIPTORS) / 4).max(1)).unwrap_or(usize::MAX)
}

fn live(node: OwnedFd, start: Start, handed: Handed, (mut started, freezer, view): (Started, Freezer, View)) -> io::Result<()> {
    // First: what the berth does now may wait for it.
    let disk = fstat(&started.disk).map(|disk| (major(disk.st_dev), minor(disk.st_dev))).ok();
    emulate::start(started.emulated.take(), started.heard.take(), Source::new(view, disk, started.booted));
    for socket in [node.as_fd(), handed.user.as_fd(), handed.control.as_fd(), started.console.as_fd(), started.channel.as_fd()] {
        ioctl_fionbio(socket, true)?;
    }
    let first_id = start.bundle.id_base;
    let link = start.bundle.net;
    let Start { owner, dns, max_connections, ports, idle, covers, calls_taken, .. } = start;
    let calls = Arc::new(Calls::open(handed.calls.try_clone()?, owner.clone(), calls_taken)?);
    let limit = connection_limit(max_connections);
    let berth = Berth { node, owner, dns, limit, first_id, handed, started, freezer, ports, idle, link, covers, calls };
    // The one further thread waits for the disk when the spool of calls is synced.
    let mut runtime = runtime::Builder::new_current_thread();
    // A stream that always has something to carry does not keep the others from being looked at.
    runtime.enable_all().max_blocking_threads(1).event_interval(8).build()?.block_on(berth.live())
}

/// A running berth, before its tasks take their parts of it.
struct Berth {
    node: OwnedFd,
    owner: Owner,
    dns: Vec<std::net::SocketAddr>,
    limit: usize,
    first_id: u32,
    handed: Handed,
    started: Started,
    freezer: Freezer,
    ports: Ports,
    idle: Idle,
    link: Link,
    covers: Vec<http::Cover>,
    calls: Arc<Calls>,
}

impl Berth {
    async fn live(self) -> io::Result<()> {
        let Self { node, owner, dns, limit, first_id, handed, started, freezer, ports, idle, link, covers, calls } = self;
        let state = Arc::new(State::new());
        let sleeper = Arc::new(Sleeper::new(Arc::clone(&state), &owner.name, freezer, idle));
        let inner = Arc::new(Inner { root: started.root, ids: first_id..=first_id + (idmap::COUNT - 1) });
        let owner_uid = owner.uid;
        let parts = Parts {
            inner: Arc::clone(&inner),
            state: Arc::clone(&state),
            sleeper: Arc::clone(&sleeper),
            calls: Arc::clone(&calls),
            covers,
        };
        let proxy = Arc::new(Proxy::new(owner, parts, limit, Hold::default()));
        let control = Arc::new(Control {
            state: Arc::clone(&state),
            proxy: Arc::clone(&proxy),
            sleeper: Arc::clone(&sleeper),
            pid: started.pid,
            listener: handed.user.try_clone()?,
            disk: started.disk,
            root: 0,
            connections: TaskTracker::new(),
        });
        let log = console::Log::new(handed.console, handed.older_console);
        let (user, control_listener) = (watch_socket(handed.user)?, watch_socket(handed.control)?);
        let upstreams = Arc::new(dns::Upstreams::new(dns, dns::host_file()));

        let (first, events) = (Arc::clone(&control), state.listen());
        control.connections.spawn(async move { first.connection(node, events).await });
        state.tell(Event::Started { pid: started.pid });
        tokio::spawn(Arc::clone(&proxy).serve(user));
        tokio::spawn(Arc::clone(&control).serve(control_listener));
        tokio::spawn(channel::follow(started.channel, Arc::clone(&state), Arc::clone(&inner)));
        state.ports.set_rules(ports);
        let (published, looks) = watch::channel(Vec::new());
        let dialer = ports::Dialer { address: link.address, link: link.name, inside: ports::Inside::new(started.loopback)? };
        let (address, both) = (link.address, (Arc::clone(&state), Arc::clone(&sleeper)));
        tokio::spawn(ports::Ports::new(both.0, both.1, dialer, owner_uid, first_id, looks).serve());
        let follower = docker::Follower { inner, state: Arc::clone(&state), sleeper: Arc::clone(&sleeper), address, published };
        tokio::spawn(follower.follow());
        tokio::spawn(dns::serve_udp(started.dns_udp, Arc::clone(&upstreams)));
        tokio::spawn(dns::serve_tcp(started.dns_tcp, upstreams));
        let console = tokio::spawn(console::record(started.console, log));
        let reported = Arc::clone(&state);
        tokio::spawn(async move { reported.report_engine().await });

        let (spool, told) = (Arc::clone(&calls), Arc::clone(&state));
        tokio::spawn(async move { spool.report(&told).await });
        let spool = Arc::clone(&calls);
        tokio::spawn(async move { spool.write_for_ever().await });
        let spool = Arc::clone(&calls);
        tokio::spawn(async move { spool.sync_for_ever().await });

        let watched = Arc::clone(&sleeper);
        tokio::spawn(async move { watched.watch_over().await });
        tokio::spawn(life::serve_signals(started.pid, Arc::clone(&state)));
        let status = life::until_the_end(Init { pid: started.pid, pidfd: started.pidfd }, &state, &sleeper).await?;

        proxy.connections.close();
        let _ = timeout(DRAIN, proxy.connections.wait()).await;
        // What is open now is cut, and written down as that.
        proxy.cut.cancel();
        let _ = timeout(FAREWELL, proxy.connections.wait()).await;
        let _ = timeout(FAREWELL, calls.sync()).await;
        state.tell(Event::Calls { end: calls.end() });
        let _ = timeout(FAREWELL, console).await;
        if let Err(error) = write_record(handed.exit_record, &status, state.stopping()) {
            tracing::error!(%error, "the exit record was not written");
        }
        state.tell(Event::Exited { status });
        control.connections.close();
        let _ = timeout(FAREWELL, control.connections.wait()).await;
        Ok(())
    }
}

fn write_record(mut file: File, status: &str, asked: bool) -> io::Result<()> {
    fault::point("write the exit record").map_err(io::Error::other)?;
    let record = ExitRecord { status: status.to_owned(), asked, at: now_ms() };
    file.set_len(0)?;
    file.write_all(&serde_json::to_vec(&record)?)?;
    file.sync_all()
}
