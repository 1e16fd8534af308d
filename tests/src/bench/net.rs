//! `deploy/bench net`: one TCP stream from a berth, and from a container in it, to the host, against a plain veth pair and rootless Docker.

use std::{fs, time::Duration};

use super::{
    Progress, Settings,
    compare::{self, Limit, Own, Peer, had},
    ends::{self, Client, INSIDE},
    rootfs,
    rootless::Rootless,
    table::{Report, Unit},
    tcp,
};
use crate::{Host, Outside, Run, berth::BUSYBOX, daemon::Daemon, http, until};

const ROUNDS: usize = 8;
const BYTES: u64 = 512 << 20;
const READY: Duration = Duration::from_secs(30);
/// From the inside of a berth or of rootless Docker to a container of it.
const VOLUME: &str = "/usr/local/bin/berth-bench-end:/end:ro";

/// Measures and takes everything away again.
#[track_caller]
pub fn run(settings: Settings) -> Report {
    let progress = Progress::new();
    progress.warn_of_load();
    let host = super::host();
    let berth = host.assign(&host.user("net"), &["--egress", "all"]);
    let outside = Outside::create(&host);
    let port = tcp::sink().expect("listen").port();
    progress.say("starting the senders, rootless Docker too");
    let rootless = had(|| Container::start(&host, &rootfs::daemons(&berth)));
    berth.load_busybox();
    let mut pair = Client::without_socket(outside.run(&ends::program(&host).to_string_lossy()));
    let mut ours = Client::inside(&berth);
    let mut inner = Client::without_socket(berth.docker(&["run", "-i", "--rm", "-v", VOLUME, BUSYBOX, "/end"]));
    let command = format!("tcp {}:{port} {BYTES}", outside.host_address);
    let rounds = settings.rounds.unwrap_or(ROUNDS);
    progress.say(&format!("{rounds} rounds of {} MiB", BYTES >> 20));
    let speed = |client: &mut Client| vec![(u128::from(BYTES) * 1_000_000_000 / u128::from(client.time(&command))) as u64];
    let mut theirs = None;
    let peers = vec![
        Peer { name: "veth pair into a network namespace", ratio: "× veth", measure: Ok(Box::new(|| speed(&mut pair))) },
        Peer::new("container in rootless Docker", "× rootless", &rootless, |rootless| {
            speed(theirs.get_or_insert_with(|| rootless.client(&host)))
        }),
    ];
    let limits = vec![Limit::AtLeast(0.9), Limit::None];
    let own = vec![
        Own { name: "Berth", limits: limits.clone(), measure: Box::new(|| speed(&mut ours)) },
        Own { name: "container in Berth", limits, measure: Box::new(|| speed(&mut inner)) },
    ];
    let table = compare::run("net: one TCP stream to the host", Unit::BytesPerSecond, rounds, peers, own);
    drop((pair, ours, inner, theirs, rootless));
    progress.say("taking everything away again");
    let note = format!(
        "Net: {} MiB a round to one address of the host, by the same program, from connect(2) to the sink's word that it has all.",
        BYTES >> 20
    );
    Report { tables: vec![table], notes: vec![note] }
}

/// Rootless Docker that runs and has an image.
struct Container {
    rootless: Rootless,
    daemon: Option<Daemon>,
}

impl Container {
    #[track_caller]
    fn start(host: &Host, daemons: &rootfs::Daemons) -> Self {
        let rootless = Rootless::create(host, &rootfs::image(host), daemons, "rootless");
        rootless.add(&ends::program(host), INSIDE);
        let daemon = Some(rootless.start());
        let container = Self { rootless, daemon };
        let socket = container.rootless.socket();
        until("rootless Docker answers", READY, || http::request(&socket, "GET", "/info", None).ok().filter(|answer| answer.status == 200));
        let tar = fs::read(host.cache.as_ref().expect("the instance has images").busybox()).expect("read busybox.tar");
        container.docker(host).args(["import", "-", BUSYBOX]).input(tar).ok();
        container
    }

    #[track_caller]
    fn client(&self, host: &Host) -> Client {
        Client::without_socket(self.docker(host).args(["run", "-i", "--rm", "-v", VOLUME, BUSYBOX, "/end"]))
    }

    fn docker(&self, host: &Host) -> Run {
        let program = host.cache.as_ref().expect("the instance has images").client().join("docker");
        Run::new(program).env("DOCKER_HOST", format!("unix://{}", self.rootless.socket().display()))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            self.rootless.stop(daemon);
        }
    }
}
