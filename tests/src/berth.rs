//! One berth, seen from inside, from its user, and from the host.

use std::{fs, path::PathBuf, sync::OnceLock, time::Duration};

use serde_json::Value;

use crate::{
    account::User,
    host::Host,
    http, programs,
    run::{Output, Run, Running},
    wait::{until, within},
};

/// Where the probe lies inside.
const PROBE: &str = "/usr/local/bin/berth-probe";
/// Name of the test image in a berth's Docker.
pub const BUSYBOX: &str = "busybox";

/// A user's berth. All methods ask anew; nothing is kept but whether the probe was copied.
pub struct Berth<'h> {
    pub host: &'h Host,
    pub user: User,
    probe: OnceLock<()>,
}

impl<'h> Berth<'h> {
    pub(crate) fn new(host: &'h Host, user: User) -> Self {
        Self { host, user, probe: OnceLock::new() }
    }

    pub fn name(&self) -> &str {
        &self.user.name
    }

    /// `berth show USER --json`.
    #[track_caller]
    pub fn show(&self) -> Value {
        self.host.berth(["show", self.name(), "--json"]).json()
    }

    /// What the node says, unchanged by the server.
    #[track_caller]
    pub fn status(&self) -> Value {
        let answer = self.host.node_api("GET", &format!("/v1/berths/{}", self.name()), None);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    #[track_caller]
    fn text(&self, field: &str) -> String {
        let status = self.status();
        status[field].as_str().unwrap_or_else(|| panic!("no {field} in {status}")).to_owned()
    }

    #[track_caller]
    fn number(&self, field: &str) -> u32 {
        let status = self.status();
        status[field].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or_else(|| panic!("no {field} in {status}"))
    }

    #[track_caller]
    pub fn id(&self) -> String {
        self.text("id")
    }

    /// Host pid of PID 1.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.number("pid")
    }

    #[track_caller]
    pub fn id_base(&self) -> u32 {
        self.number("id_base")
    }

    #[track_caller]
    pub fn address(&self) -> String {
        self.text("address")
    }

    #[track_caller]
    pub fn state(&self) -> String {
        self.text("state")
    }

    /// The user's Docker socket on the host.
    pub fn socket(&self) -> PathBuf {
        self.host.run_dir.join("users").join(self.user.uid.to_string()).join("docker.sock")
    }

    /// The disk on the host: an image, or a directory.
    #[track_caller]
    pub fn disk(&self) -> PathBuf {
        let dir = self.host.state_dir.join("berths").join(self.id());
        let directory = dir.join("disk");
        if directory.is_dir() { directory } else { dir.join("disk.img") }
    }

    /// Host pids in one part of the berth's control group, `shim` or `payload` with all below.
    #[track_caller]
    pub fn group_pids(&self, part: &str) -> Vec<u32> {
        let id = self.id();
        let mut pids = Vec::new();
        for group in self.host.slot.groups() {
            for name in [id.clone(), format!("berth-{id}.scope")] {
                gather_pids(&group.join(name).join(part), &mut pids);
            }
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Host pid of the shim.
    #[track_caller]
    pub fn shim_pid(&self) -> u32 {
        match self.group_pids("shim")[..] {
            [pid] => pid,
            ref pids => panic!("not one process in the shim's control group but {pids:?}"),
        }
    }

    /// A command inside as root, by `berth exec`.
    pub fn exec(&self, argv: &[&str]) -> Run {
        self.host.berth(["exec", self.name(), "--"]).args(argv)
    }

    /// A command inside as root with the caller's input, by `berth exec -i`.
    pub fn exec_input(&self, argv: &[&str], input: impl Into<Vec<u8>>) -> Run {
        self.host.berth(["exec", "-i", self.name(), "--"]).args(argv).input(input)
    }

    /// A shell script inside as root.
    pub fn sh(&self, script: &str) -> Run {
        self.exec(&["sh", "-c", script])
    }

    /// A shell script inside as uid and gid 1000.
    pub fn sh_as_user(&self, script: &str) -> Run {
        self.host.berth(["exec", "-u", "1000:1000", self.name(), "--", "sh", "-c", script])
    }

    /// The probe inside as root.
    #[track_caller]
    pub fn probe(&self, args: &[&str]) -> Run {
        self.copy_probe();
        self.exec(&[PROBE]).args(args)
    }

    /// The probe inside as uid and gid 1000.
    #[track_caller]
    pub fn probe_as_user(&self, args: &[&str]) -> Run {
        self.copy_probe();
        self.host.berth(["exec", "-u", "1000:1000", self.name(), "--", PROBE]).args(args)
    }

    /// What the probe says as root: one JSON object.
    #[track_caller]
    pub fn tells(&self, args: &[&str]) -> Value {
        self.probe(args).json()
    }

    /// The probe inside as root, in the background until its input is closed, and its first line.
    #[track_caller]
    pub fn hold(&self, args: &[&str]) -> (Running, Value) {
        self.copy_probe();
        let mut running = self.host.berth(["exec", "-i", self.name(), "--", PROBE]).args(args).spawn();
        let line = running.line(Duration::from_secs(60)).unwrap_or_else(|| panic!("the probe said nothing: {args:?}"));
        let value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("no JSON ({e}): {line}"));
        (running, value)
    }

    /// Puts the probe inside, once; for scripts that call `berth-probe`.
    #[track_caller]
    pub fn copy_probe(&self) {
        self.probe.get_or_init(|| {
            let bytes = fs::read(programs::find("berth-probe")).expect("read the probe");
            self.exec_input(&["sh", "-c", &format!("cat > {PROBE} && chmod 0755 {PROBE}")], bytes).ok();
        });
    }

    /// The Docker client as the user, on the host, with nothing but `DOCKER_HOST`.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> Run {
        self.docker_as(&self.user, args)
    }

    /// The Docker client as another host user, at this berth's socket.
    #[track_caller]
    pub fn docker_as(&self, user: &User, args: &[&str]) -> Run {
        let client = self.host.cache.as_ref().expect("the instance has images").client();
        let plugins = user.home.join(".docker/cli-plugins");
        if !plugins.exists() && user.home.is_dir() {
            user.run("mkdir").arg("-p").arg(user.home.join(".docker")).ok();
            user.run("ln").arg("-s").arg(client.join("cli-plugins")).arg(&plugins).ok();
        }
        let program = client.join("docker");
        user.run(&program.to_string_lossy()).env("DOCKER_HOST", format!("unix://{}", self.socket().display())).args(args)
    }

    /// A request to the inner Docker through the user's socket, made by root: only for errors; use [`Berth::docker`] otherwise.
    pub fn socket_request(&self, method: &str, path: &str) -> std::io::Result<http::Answer> {
        http::request(&self.socket(), method, path, None)
    }

    /// Loads the image [`BUSYBOX`] unless it is there. Its containers are stopped by SIGKILL: their PID 1 is mostly one that does not
    /// heed SIGTERM, for which Docker would wait ten seconds; say `--stop-signal TERM` where it matters.
    #[track_caller]
    pub fn load_busybox(&self) {
        if self.docker(&["image", "inspect", "--format", "{{.Id}}", BUSYBOX]).output().success() {
            return;
        }
        self.import(&self.host.cache.as_ref().expect("the instance has images").busybox(), BUSYBOX);
    }

    /// An inner image from a tar of its root, whose containers are killed when they are to stop.
    #[track_caller]
    pub fn import(&self, tar: &std::path::Path, name: &str) {
        let bytes = fs::read(tar).unwrap_or_else(|e| panic!("{}: {e}", tar.display()));
        let limit = Duration::from_secs(120);
        let signal = self.docker(&["import", "--change", "STOPSIGNAL SIGKILL", "-", name]).input(bytes.clone()).limit(limit).output();
        if !signal.success() {
            // Old engines (20.10) know no such change: their containers are waited for.
            self.docker(&["import", "-", name]).input(bytes).limit(limit).ok();
        }
    }

    /// `docker run --rm ARGS busybox sh -c SCRIPT`, the output.
    #[track_caller]
    pub fn docker_run(&self, args: &[&str], script: &str) -> Output {
        self.docker(&["run", "--rm"]).args(args).args([BUSYBOX, "sh", "-c", script]).output()
    }

    /// Changes limits and policy as the node is told them, behind the back of the server, which must be stopped or it changes them back.
    /// What is not changed stays, but for the policy, which begins as the default.
    #[track_caller]
    pub fn ensure(&self, change: impl FnOnce(&mut Value)) -> http::Answer {
        let status = self.status();
        let mut ensure = serde_json::json!({
            "id": status["id"], "image": status["image"], "limits": status["limits"], "wanted": "running", "allow_system": false,
            "policy": {},
        });
        change(&mut ensure);
        self.host.node_api("PUT", &format!("/v1/berths/{}", self.name()), Some(&ensure.to_string()))
    }

    pub fn start(&self) -> Run {
        self.host.berth(["start", self.name()])
    }

    pub fn stop(&self) -> Run {
        self.host.berth(["stop", self.name()])
    }

    pub fn restart(&self) -> Run {
        self.host.berth(["restart", self.name()])
    }

    pub fn delete(&self) -> Run {
        self.host.berth(["delete", self.name(), "--yes"])
    }

    /// Waits until the node reports `state`.
    #[track_caller]
    pub fn await_state(&self, state: &str) {
        until(&format!("{} is {state}", self.name()), Duration::from_secs(30), || (self.state() == state).then_some(()));
    }

    /// Waits until the inner Docker answers.
    #[track_caller]
    pub fn await_docker(&self) {
        let ready = within(Duration::from_secs(30), || {
            let status = self.status();
            (status["state"] == "running" && status["docker_ready"] == true).then_some(())
        });
        assert!(ready.is_some(), "Docker of {} is not ready: {}", self.name(), self.status());
    }
}

fn gather_pids(group: &std::path::Path, pids: &mut Vec<u32>) {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|p| p.parse::<u32>().ok()));
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            gather_pids(&entry.path(), pids);
        }
    }
}
