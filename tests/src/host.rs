//! An instance of Berth of its own: node as root, server as an unprivileged account, accounts, addresses, ids.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs,
    os::unix::{
        fs::{chown, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    account::User,
    berth::Berth,
    cache::Cache,
    daemon::Daemon,
    dns::Dns,
    http,
    name_service::NameService,
    programs,
    run::Run,
    slot::Slot,
    wait::{until, within},
};

/// How long a daemon may take to be ready or to end.
const DAEMON: Duration = Duration::from_secs(30);

/// What a test may want to be different.
#[derive(Clone, Debug)]
pub struct Options {
    /// Give the instance the default image; otherwise its store is empty.
    pub images: bool,
    pub quarantine_days: u32,
    pub disk_overcommit: f64,
    /// Environment of both daemons, for instance `BERTH_FAULT`.
    pub env: Vec<(String, String)>,
    /// Users that only a name service knows ([`Host::name_service`]).
    pub nss_users: Vec<&'static str>,
    /// The rest of node.toml: keys of `[network]`, then further sections.
    pub node_config: String,
    /// The rest of server.toml: keys of `[policy]`, then further sections.
    pub server_config: String,
    /// A network namespace for the node, its berths and the way to the [`crate::Outside`]: for tests that change firewalls or routes.
    pub network: bool,
    /// A shell script that the node is started by, in a mount namespace of its own: it ends in `exec "$0" "$@"`.
    pub node_enters: Option<&'static str>,
    /// Id ranges of the pool, at most those of the slot.
    pub id_ranges: u32,
    /// Some 300 ranges instead, for one test at a time ([`Slot::many_ids`]).
    pub many_ids: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            images: true,
            quarantine_days: 30,
            disk_overcommit: 1.0,
            env: Vec::new(),
            nss_users: Vec::new(),
            node_config: "[disk]\ntrim_interval_seconds = 1\n".into(),
            server_config: String::new(),
            network: false,
            node_enters: None,
            id_ranges: u32::MAX,
            many_ids: false,
        }
    }
}

/// The instance; dropped, it is gone.
pub struct Host {
    pub slot: Slot,
    pub run_dir: PathBuf,
    pub state_dir: PathBuf,
    pub log_dir: PathBuf,
    /// The unprivileged account of the server.
    pub server_user: User,
    pub dns: Dns,
    pub cache: Option<Cache>,
    pub name_service: Option<NameService>,
    options: Options,
    node: Mutex<Option<Daemon>>,
    server: Mutex<Option<Daemon>>,
}

impl Host {
    /// Node and server are ready, the default image is there, no berth yet.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    #[track_caller]
    pub fn with(mut options: Options) -> Self {
        let cache = options.images.then(Cache::open);
        let slot = Slot::take();
        let server_user = User::create_system(&format!("{}srv", slot.account_prefix()));
        let name_service = (!options.nss_users.is_empty()).then(|| NameService::create(&slot, &options.nss_users));
        options.env.extend(name_service.iter().flat_map(|service| service.env.clone()));
        let host = Self {
            run_dir: slot.run_dir(),
            state_dir: slot.dir.join("state"),
            log_dir: slot.dir.join("log"),
            server_user,
            dns: Dns::start(),
            cache,
            name_service,
            options,
            node: Mutex::new(None),
            server: Mutex::new(None),
            slot,
        };
        if host.options.network {
            let network = host.slot.network();
            Run::new("ip").args(["netns", "add", &network]).ok();
            Run::new("ip").args(["-n", &network, "link", "set", "lo", "up"]).ok();
            // A new one has what the host has.
            host.run("sysctl").args(["-qw", "net.ipv4.ip_forward=0"]).ok();
        }
        host.configure();
        if let Some(cache) = &host.cache {
            cache.give_images(&host.state_dir);
        }
        host.start_node();
        host.start_server();
        host
    }

    fn configure(&self) {
        let server_dir = self.state_dir.join("server");
        fs::create_dir_all(&server_dir).expect("make directory");
        chown(&server_dir, Some(self.server_user.uid), Some(self.server_user.gid)).expect("give directory");
        let (first, last) = if self.options.many_ids { Slot::many_ids() } else { self.slot.ids() };
        let Options { quarantine_days, disk_overcommit, id_ranges, .. } = self.options;
        let last = last.min(first.saturating_add(id_ranges.saturating_mul(65_536)) - 1);
        let node = format!(
            "run_dir = {:?}\nstate_dir = {:?}\nlog_dir = {:?}\nprograms_dir = {:?}\nrecipe_dir = {:?}\nserver_user = {:?}\ninstance = {:?}\n\
             link_prefix = {:?}\n[ids]\nfirst = {first}\nlast = {last}\nquarantine_days = {quarantine_days}\n\
             [network]\npool = {:?}\ndns = [\"{}\"]\n{}",
            self.run_dir,
            self.state_dir,
            self.log_dir,
            self.programs(),
            programs::repository().join("deploy/image"),
            self.server_user.name,
            self.slot.instance(),
            self.slot.link_prefix(),
            self.slot.pool(),
            self.dns.address,
            self.options.node_config,
        );
        fs::write(self.slot.node_config(), node).expect("write node.toml");
        let server = format!(
            "api_socket = {:?}\nnode_socket = {:?}\nstate_dir = {server_dir:?}\n[listen]\naddress = \"\"\n[policy]\ndisk_overcommit = {disk_overcommit:?}\n{}",
            self.run_dir.join("server/api.sock"),
            self.node_socket(),
            self.options.server_config,
        );
        fs::write(self.server_config(), server).expect("write server.toml");
    }

    /// One directory with shim and init, wherever they were built.
    fn programs(&self) -> PathBuf {
        let dir = self.slot.dir.join("programs");
        fs::create_dir_all(&dir).expect("make directory");
        for program in ["berth-shim", "berth-init", "berth-runc"] {
            symlink(programs::find(program), dir.join(program)).expect("link program");
        }
        dir
    }

    pub fn server_config(&self) -> PathBuf {
        self.slot.dir.join("server.toml")
    }

    pub fn node_socket(&self) -> PathBuf {
        self.run_dir.join("node.sock")
    }

    pub fn api_socket(&self) -> PathBuf {
        self.run_dir.join("api.sock")
    }

    /// Starts the node and waits until its socket answers.
    #[track_caller]
    pub fn start_node(&self) {
        let program = programs::find("berth-node");
        let mut command = match self.options.node_enters {
            None if self.options.network => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{}", self.slot.network())).arg(program);
                command
            }
            None => Command::new(program),
            // Neither of the two forks: the pid is the node's in the end.
            Some(script) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation", "private", "sh", "-ec", script]).arg(program);
                command
            }
        };
        command
            .arg("--config")
            .arg(self.slot.node_config())
            .env("BERTH_LOG", "debug,sqlx=warn,hyper=info,h2=info")
            .envs(self.options.env.clone());
        let mut held = lock(&self.node);
        assert!(held.is_none(), "the node runs already");
        let node = held.insert(Daemon::start("node", &self.slot.dir, command));
        self.await_socket(node, "node", &self.node_socket());
    }

    /// Starts the server and waits until its socket answers.
    #[track_caller]
    pub fn start_server(&self) {
        let User { uid, gid, .. } = self.server_user;
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups"])
            .args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"])
            .arg(programs::find("berth-server"))
            .arg("--config")
            .arg(self.server_config())
            .env("BERTH_LOG", "debug,sqlx=warn,hyper=info,h2=info")
            .envs(self.options.env.clone());
        let mut held = lock(&self.server);
        assert!(held.is_none(), "the server runs already");
        let server = held.insert(Daemon::start("server", &self.slot.dir, command));
        self.await_socket(server, "server", &self.api_socket());
    }

    #[track_caller]
    fn await_socket(&self, daemon: &mut Daemon, name: &str, socket: &Path) {
        let ready = within(DAEMON, || match UnixStream::connect(socket) {
            Ok(_) => Some(true),
            Err(_) => (!daemon.alive()).then_some(false),
        });
        assert!(ready == Some(true), "berth-{name} is not ready\n{}", self.log_tail(name));
    }

    /// Kills the node with SIGKILL; berths go on.
    pub fn kill_node(&self) {
        if let Some(node) = lock(&self.node).take() {
            node.kill();
        }
    }

    pub fn kill_server(&self) {
        if let Some(server) = lock(&self.server).take() {
            server.kill();
        }
    }

    /// Ends the node with SIGTERM; berths go on.
    #[track_caller]
    pub fn stop_node(&self) {
        if let Some(node) = lock(&self.node).take() {
            assert!(node.stop(DAEMON), "berth-node did not end well\n{}", self.log_tail("node"));
        }
    }

    #[track_caller]
    pub fn stop_server(&self) {
        if let Some(server) = lock(&self.server).take() {
            assert!(server.stop(DAEMON), "berth-server did not end well\n{}", self.log_tail("server"));
        }
    }

    /// The node has died by itself (a fault struck); afterwards it can be started again. False after `limit`.
    pub fn node_died(&self, limit: Duration) -> bool {
        let mut held = lock(&self.node);
        let died = held.as_mut().is_none_or(|node| within(limit, || (!node.alive()).then_some(())).is_some());
        if died && let Some(node) = held.take() {
            node.kill();
        }
        died
    }

    #[track_caller]
    pub fn node_pid(&self) -> u32 {
        lock(&self.node).as_ref().expect("the node runs").pid()
    }

    #[track_caller]
    pub fn server_pid(&self) -> u32 {
        lock(&self.server).as_ref().expect("the server runs").pid()
    }

    /// A program in the network that the node is in.
    pub fn run(&self, program: impl AsRef<OsStr>) -> Run {
        self.slot.run(program)
    }

    /// The program `berth` as root.
    pub fn berth(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        Run::new(programs::find("berth")).args(args).env("BERTH_SOCKET", self.api_socket()).limit(Duration::from_secs(120))
    }

    /// The program `berth` as a host user.
    #[track_caller]
    pub fn berth_as(&self, user: &User, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        let program = programs::find("berth");
        user.run(&program.to_string_lossy()).args(args).env("BERTH_SOCKET", self.api_socket()).limit(Duration::from_secs(120))
    }

    /// A request to the API as root; `path` begins with `/api/v1`.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: Option<&str>) -> http::Answer {
        http::request(&self.api_socket(), method, path, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// A request to the node as root; `path` begins with `/v1`.
    #[track_caller]
    pub fn node_api(&self, method: &str, path: &str, body: Option<&str>) -> http::Answer {
        http::request(&self.node_socket(), method, path, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// Makes the host user `<prefix><name>`, in no group but his own, with a home.
    #[track_caller]
    pub fn user(&self, name: &str) -> User {
        let homes = self.slot.dir.join("home");
        fs::create_dir_all(&homes).expect("make directory");
        User::create(&format!("{}{name}", self.slot.account_prefix()), homes.join(name))
    }

    /// Makes a host user and gives him a berth whose Docker is ready: 2 CPUs, 1 GiB, 1024 processes, 4 GiB of disk.
    #[track_caller]
    pub fn new_berth(&self, name: &str) -> Berth<'_> {
        self.assign(&self.user(name), &[])
    }

    /// Assigns a berth and waits for its Docker. `args` come before the defaults of [`Host::new_berth`] and replace them.
    #[track_caller]
    pub fn assign(&self, user: &User, args: &[&str]) -> Berth<'_> {
        self.assign_command(user, args).ok();
        let berth = Berth::new(self, user.clone());
        if !args.contains(&"--no-start") {
            berth.await_docker();
        }
        berth
    }

    /// The command of [`Host::assign`], not run yet.
    pub fn assign_command(&self, user: &User, args: &[&str]) -> Run {
        let defaults = [("--cpus", "2"), ("--memory", "1g"), ("--pids-limit", "1024"), ("--disk", "4g")];
        let missing = defaults.into_iter().filter(|(flag, _)| !args.contains(flag)).flat_map(|(flag, value)| [flag, value]);
        self.berth(["assign", &user.name]).args(args).args(missing.collect::<Vec<_>>())
    }

    /// A handle on the berth of a user who has one already.
    pub fn berth_of(&self, user: &User) -> Berth<'_> {
        Berth::new(self, user.clone())
    }

    /// `berth list --json`.
    #[track_caller]
    pub fn list(&self) -> Value {
        self.berth(["list", "--json"]).json()
    }

    /// Waits until `look` at a berth's state gives something.
    #[track_caller]
    pub fn until<T>(&self, what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
        until(what, limit, look)
    }

    /// The end of a daemon's log: `node` or `server`.
    pub fn log_tail(&self, name: &str) -> String {
        let text = fs::read(self.slot.dir.join(format!("{name}.log"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let mut tail = format!("--- end of {name}.log ---\n");
        for line in &lines[lines.len().saturating_sub(60)..] {
            let _ = writeln!(tail, "{line}");
        }
        tail
    }

    /// The whole log of a daemon.
    pub fn log(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.slot.dir.join(format!("{name}.log"))).unwrap_or_default()).into_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if thread::panicking() {
            // What tells most comes first: a report may be cut.
            eprintln!("--- what the kernel said of late ---\n{}", kernel_tail());
            for console in consoles(&self.log_dir) {
                eprintln!("--- {} ---\n{}", console.display(), tail(&fs::read(&console).unwrap_or_default()));
            }
            eprintln!("{}{}", self.log_tail("node"), self.log_tail("server"));
        }
        let server = lock(&self.server).take().is_none_or(|s| s.stop(DAEMON));
        let node = lock(&self.node).take().is_none_or(|n| n.stop(DAEMON));
        // The order in which a berth stops has tests of its own; here it would only take time.
        self.slot.kill_payloads();
        let teardown = self.run(programs::find("berth-node")).args(["teardown", "--all", "--yes", "--config"]).arg(self.slot.node_config());
        let teardown = teardown.limit(Duration::from_secs(120)).output_within();
        let left = self.slot.left();
        if !thread::panicking() {
            let good = teardown.as_ref().is_ok_and(|t| t.success());
            if !(server && node && good && left.is_empty()) {
                let logs = format!("{}{}", self.log_tail("server"), self.log_tail("node"));
                self.slot.sweep();
                panic!("end of the instance: server ended {server}, node ended {node}, {teardown:?}, left: {left:#?}\n{logs}");
            }
        }
        self.slot.sweep();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn consoles(log_dir: &Path) -> Vec<PathBuf> {
    let berths = fs::read_dir(log_dir.join("berths")).into_iter().flatten().flatten();
    berths.map(|e| e.path().join("console.log")).filter(|p| p.is_file()).collect()
}

/// Whom it killed for want of memory, what failed on a disk.
fn kernel_tail() -> String {
    let said = Command::new("dmesg").output().map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().filter(|line| !line.contains("EXT4-fs") && !line.contains("capacity change")).collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn tail(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4096)..]).into_owned()
}
