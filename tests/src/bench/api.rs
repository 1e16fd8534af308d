//! `deploy/bench api`: the server with many users and a long trail, on SQLite and on PostgreSQL.
//!
//! Requests come at a steady rate whatever the answers take, and each one's time counts from when it was due: a stall is felt by all that
//! came meanwhile. The reconciler stands still because the node takes requests and answers none.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::{
    Progress, Settings,
    figures::Samples,
    table::{Report, Row, Table, Target, Unit},
};
use crate::{
    postgres::{Database, Durability, Own},
    programs,
};

const USERS: u64 = 10_000;
/// Together a million.
const CALLS: u64 = 900_000;
const ACTIONS: u64 = 100_000;
/// Requests a second of each kind: 180 that read, 20 that write an intent.
const KINDS: [(Kind, u64); 5] =
    [(Kind::List, 40), (Kind::FilterCalls, 40), (Kind::FilterActions, 40), (Kind::Show, 60), (Kind::Intent, 20)];
/// Connections of each kind; each request takes the first that is free.
const CONNECTIONS: u64 = 4;
const ROUND: Duration = Duration::from_secs(10);
const ROUNDS: usize = 6;
/// What is measured comes after so much that is not.
const WARM_UP: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_secs(10);
/// `nobody`: the server refuses to be root.
const ACCOUNT: u32 = 65_534;

const READ: f64 = 10e6;
const WRITE: f64 = 30e6;
const MEMORY: f64 = 64.0 * 1024.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    List,
    FilterCalls,
    FilterActions,
    Show,
    Intent,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::List => "list of berths",
            Self::FilterCalls => "trail of a user",
            Self::FilterActions => "trail, actions alone",
            Self::Show => "one berth",
            Self::Intent => "intent",
        }
    }

    /// The `number`th request: method, path and body. Users come in an order that is none.
    fn request(self, number: u64) -> (&'static str, String, String) {
        let user = format!("user{:05}", number * 6_151 % USERS);
        match self {
            Self::List if number.is_multiple_of(2) => ("GET", format!("/api/v1/berths?limit=50&user={}", &user[..7]), String::new()),
            Self::List => ("GET", format!("/api/v1/berths?limit=50&state=stopped&sort=memory&search={}", &user[6..]), String::new()),
            Self::FilterCalls => ("GET", format!("/api/v1/audit?limit=50&user={user}"), String::new()),
            Self::FilterActions => ("GET", format!("/api/v1/audit?limit=50&kind=action&subject={user}"), String::new()),
            Self::Show => ("GET", format!("/api/v1/berths/{user}"), String::new()),
            Self::Intent => ("POST", format!("/api/v1/berths/{user}/suspend"), r#"{"reason":"bench"}"#.to_owned()),
        }
    }
}

/// Measures and takes everything away again.
#[track_caller]
pub fn run(settings: Settings) -> Report {
    let progress = Progress::new();
    progress.warn_of_load();
    let rounds = settings.rounds.unwrap_or(ROUNDS);
    progress.say(&format!("{rounds} rounds of {} s on each database, after some minutes of filling them", ROUND.as_secs()));
    let mut report = Report::default();
    for name in ["SQLite", "PostgreSQL"] {
        let own = (name == "PostgreSQL").then(|| Own::start(Durability::Kept));
        let database = own.as_ref().map(Own::database);
        let mut server = Server::configure(database.as_ref());
        // Makes the tables.
        server.start();
        server.stop();
        progress.say(&format!("{name}: {USERS} users, {} rows of the trail", CALLS + ACTIONS));
        server.seed(database.as_ref());
        server.start();
        report.tables.push(measure(name, &server, rounds, &progress));
        server.stop();
    }
    let rates: Vec<String> = KINDS.iter().map(|(kind, rate)| format!("{} {rate}", kind.name())).collect();
    report.notes.push(format!("Requests a second: {}. Times count from when a request was due.", rates.join(", ")));
    report
}

fn measure(name: &str, server: &Server, rounds: usize, progress: &Progress) -> Table {
    thread::sleep(REST);
    let fresh = server.memory();
    load(&server.socket, 0, WARM_UP);
    let mut samples = vec![Samples::default(); KINDS.len()];
    for round in 1..=rounds {
        for (all, one) in samples.iter_mut().zip(load(&server.socket, round as u64, ROUND)) {
            all.push(one);
        }
    }
    thread::sleep(REST);
    let rest = server.memory();
    progress.say(&format!("{name}: measured"));
    let mut rows: Vec<Row> = KINDS
        .iter()
        .zip(&samples)
        .map(|((kind, _), samples)| {
            let (limit, shown) = if *kind == Kind::Intent { (WRITE, "30 ms") } else { (READ, "10 ms") };
            let figures = [samples.p50(), samples.p99(), samples.percentile(100.0), samples.count() as f64];
            let targets = vec![Target::at_most("p99", samples.p99(), limit, shown)];
            Row::new(kind.name(), figures.into_iter().map(Some).chain([None]).collect(), targets)
        })
        .collect();
    for (name, memory) in [("memory after start", fresh), ("memory after the load", rest)] {
        let targets = vec![Target::at_most("memory", memory, MEMORY, "64 MiB")];
        rows.push(Row::new(name, vec![None, None, None, None, Some(memory)], targets));
    }
    let columns = vec![("p50", Unit::Millis), ("p99", Unit::Millis), ("slowest", Unit::Millis), ("n", Unit::Count), ("memory", Unit::Kib)];
    Table { title: name.to_owned(), columns, rows }
}

/// All kinds at their rates for `time`; nanoseconds of each request, by kind.
fn load(socket: &Path, round: u64, time: Duration) -> Vec<Vec<u64>> {
    let began = Instant::now();
    let kinds: Vec<_> = KINDS
        .iter()
        .map(|(kind, rate)| {
            let count = rate * time.as_secs();
            let taken = Arc::new(Mutex::new(0));
            let workers: Vec<_> = (0..CONNECTIONS)
                .map(|_| {
                    let (taken, socket, kind, rate) = (Arc::clone(&taken), socket.to_owned(), *kind, *rate);
                    thread::spawn(move || {
                        let mut connection = Connection::open(&socket);
                        let mut times = Vec::new();
                        loop {
                            let number = {
                                let mut taken = taken.lock().expect("no worker panics with it");
                                *taken += 1;
                                *taken - 1
                            };
                            if number >= count {
                                return times;
                            }
                            let due = began + Duration::from_nanos(1_000_000_000 * number / rate);
                            thread::sleep(due.saturating_duration_since(Instant::now()));
                            let (method, path, body) = kind.request(round * 100_000 + number);
                            let (status, answer) = connection.ask(method, &path, &body);
                            assert!(status == 200 || status == 202, "{method} {path}: {status} {answer}");
                            times.push(u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX));
                        }
                    })
                })
                .collect();
            workers
        })
        .collect();
    kinds.into_iter().map(|workers| workers.into_iter().flat_map(|worker| worker.join().expect("a worker failed")).collect()).collect()
}

/// One that is kept, as clients do.
struct Connection(BufReader<UnixStream>);

impl Connection {
    fn open(socket: &Path) -> Self {
        Self(BufReader::new(UnixStream::connect(socket).expect("the server listens")))
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let text =
            format!("{method} {path} HTTP/1.1\r\nHost: berth\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(text.as_bytes()).expect("send");
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).expect("an answer") > 0, "the server closed the connection");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().expect("a status");
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the whole answer");
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

/// The program, on a directory of its own.
struct Server {
    directory: PathBuf,
    socket: PathBuf,
    child: Option<Child>,
}

impl Server {
    fn configure(database: Option<&Database>) -> Self {
        let directory = std::env::temp_dir().join(format!("berth-bench-api-{}-{}", std::process::id(), database.is_some()));
        let at = |name: &str| directory.join(name);
        fs::create_dir(&directory).expect("a directory for the server");
        fs::create_dir(at("state")).expect("a directory for its state");
        let socket = at("state/api.sock");
        let mut text = format!("api_socket = {socket:?}\nnode_socket = {:?}\nstate_dir = {:?}\n", at("node.sock"), at("state"));
        if let Some(database) = database {
            fs::write(at("state/password"), database.password()).expect("write the password");
            text += &format!("[database]\nurl = {:?}\npassword_file = {:?}\n", database.url(), at("state/password"));
            chown(at("state/password"), Some(ACCOUNT), Some(ACCOUNT)).expect("this runs as root");
        }
        fs::write(at("server.toml"), text).expect("write the configuration");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("it is ours");
        chown(at("state"), Some(ACCOUNT), Some(ACCOUNT)).expect("this runs as root");
        let node = UnixListener::bind(at("node.sock")).expect("listen as the node");
        fs::set_permissions(at("node.sock"), fs::Permissions::from_mode(0o777)).expect("it is ours");
        thread::spawn(move || node.incoming().flatten().for_each(std::mem::forget));
        Self { directory, socket, child: None }
    }

    fn start(&mut self) {
        let id = ACCOUNT.to_string();
        let child = Command::new("setpriv")
            .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
            .arg(programs::find("berth-server"))
            .arg("--config")
            .arg(self.directory.join("server.toml"))
            .env("BERTH_LOG", "error")
            .stdin(Stdio::null())
            .spawn()
            .expect("setpriv is there");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(&self.socket).is_err() {
            assert!(Instant::now() < deadline, "berth-server is not ready");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            child.wait().expect("it is our child");
        }
    }

    fn seed(&self, database: Option<&Database>) {
        let mut python = Command::new("python3");
        python.args(["-c", include_str!("seed.py")]);
        python.arg(if database.is_some() { "copy" } else { "sqlite" });
        python.args([USERS, CALLS, ACTIONS].map(|count| count.to_string()));
        match database {
            None => assert!(python.arg(self.directory.join("state/berth.db")).status().expect("python3 is there").success(), "seed"),
            Some(database) => {
                let mut python = python.stdout(Stdio::piped()).spawn().expect("python3 is there");
                database.feed(python.stdout.take().expect("it is piped"));
                assert!(python.wait().expect("it is our child").success(), "seed");
            }
        }
    }

    /// KiB that the process holds in memory.
    fn memory(&self) -> f64 {
        let pid = self.child.as_ref().expect("it runs").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has one");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
