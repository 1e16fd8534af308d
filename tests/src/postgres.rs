//! Debian's PostgreSQL, started by tests on a socket in a directory of its own, with a password: no other account of the host gets in.
//!
//! It refuses to run as root, so that root starts it as the account `postgres`, which the package makes. [`shared`] is one server for all
//! test processes of a run, which a keeper ends seconds after the last of them; [`Own`] is one test's. Knows nothing but std: the
//! tests of the server's crate include this file.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// The role that owns everything, and the name of the socket.
const ROLE: &str = "berth";
const SOCKET: &str = ".s.PGSQL.5432";
const START: Duration = Duration::from_secs(60);
/// Speed before safety: for what is thrown away with the test.
const FAST: &[&str] = &["fsync=off", "synchronous_commit=off", "full_page_writes=off"];

/// Ends the server $2 (its directory) once nobody has held the lock $1 for five seconds, and removes what it leaves: $2, $3.
const KEEPER: &str = r#"
exec 9<"$1"
free=0
while :; do
    sleep 1
    if flock -n 9; then
        free=$((free + 1))
        [ $free -lt 5 ] || break
        flock -u 9
    else
        free=0
    fi
done
pid=$(head -n 1 "$2/data/postmaster.pid")
kill -QUIT "$pid"
while kill -0 "$pid"; do sleep 0.1; done
rm -rf -- "$2" "$3"
"#;

/// A server of PostgreSQL: its directory, which holds the socket too, and its password.
#[derive(Clone, Debug)]
pub struct Cluster {
    directory: PathBuf,
    password: String,
    settings: &'static [&'static str],
}

/// A database that goes with its last user.
#[derive(Debug)]
pub struct Database {
    cluster: Cluster,
    name: String,
}

impl Database {
    /// Without the password, which is in [`Database::password_file`].
    pub fn url(&self) -> String {
        format!("postgres:///{}?user={ROLE}&host={}", self.name, self.cluster.directory.display())
    }

    /// For root and the account that runs the server.
    pub fn password_file(&self) -> PathBuf {
        self.cluster.directory.join("password")
    }

    pub fn password(&self) -> &str {
        &self.cluster.password
    }

    /// Runs what psql reads from `input`.
    pub fn feed(&self, input: impl Into<Stdio>) {
        let mut psql = self.cluster.command(&bin("psql"));
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &self.name]).stdin(input.into()).stdout(Stdio::null());
        assert!(psql.status().expect("psql runs").success(), "psql failed");
    }

    /// What a statement of the test's own answers.
    pub fn ask(&self, statement: &str) -> String {
        self.cluster.psql(&self.name, statement)
    }

    /// Ends the sessions that hold an advisory lock of this database; how many.
    pub fn cut_lock(&self, key: i64) -> String {
        self.ask(&format!(
            "SELECT sum(CAST(cut AS int)) FROM (SELECT pg_terminate_backend(pid) AS cut FROM pg_locks WHERE granted AND locktype = 'advisory'
             AND objid = {key} & 4294967295 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS holders"
        ))
    }

    /// A session that takes the lock as soon as it gets it, and gives it back so many seconds later.
    pub fn hold_lock(&self, key: i64, seconds: u32) -> Child {
        let mut psql = self.cluster.command(&bin("psql"));
        psql.args([
            "-X",
            "-q",
            "-d",
            &self.name,
            "-c",
            &format!("SELECT pg_advisory_lock({key})"),
            "-c",
            &format!("SELECT pg_sleep({seconds})"),
        ]);
        quiet(&mut psql).spawn().expect("psql runs")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A server that is gone took it along; a database in use goes with its connections.
        let _ = self
            .cluster
            .command(&bin("psql"))
            .args(["-X", "-q", "-d", "postgres", "-c"])
            .arg(format!("DROP DATABASE \"{}\" WITH (FORCE)", self.name))
            .output();
    }
}

/// A server for one test, ended by [`Own`]'s drop.
#[derive(Debug)]
pub struct Own(Cluster);

impl Own {
    /// With `durable` it keeps its promises over a crash.
    pub fn start(durable: Durability) -> Self {
        let settings = match durable {
            Durability::Kept => &[][..],
            Durability::None => FAST,
        };
        Self(Cluster::make(settings))
    }

    pub fn database(&self) -> Database {
        self.0.database()
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&self) {
        self.0.end("-QUIT");
    }

    pub fn again(&self) {
        self.0.run();
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.0.end("-QUIT");
        let _ = fs::remove_dir_all(&self.0.directory);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Kept,
    None,
}

/// A fresh database on the server that all tests share.
pub fn database() -> Database {
    shared().database()
}

fn shared() -> &'static Cluster {
    static SHARED: OnceLock<(Cluster, fs::File)> = OnceLock::new();
    let (cluster, _) = SHARED.get_or_init(|| {
        let program = std::env::current_exe().expect("a program has a path");
        let place = |name: &str| program.with_file_name(name);
        let lock = |path: &Path| {
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .read(true)
                .open(path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let starting = lock(&place("postgres.starting"));
        starting.lock().expect("locks work");
        let users = lock(&place("postgres.users"));
        // Waits for a keeper that is just ending the server.
        users.lock_shared().expect("locks work");
        let note = place("postgres.at");
        let running = fs::read_to_string(&note).ok().and_then(|text| {
            let (directory, password) = text.split_once('\n')?;
            let cluster = Cluster { directory: directory.into(), password: password.to_owned(), settings: FAST };
            cluster.answers().then_some(cluster)
        });
        let cluster = running.unwrap_or_else(|| {
            let cluster = Cluster::make(FAST);
            write(&note, &format!("{}\n{}", cluster.directory.display(), cluster.password));
            let mut keeper = Command::new("setsid");
            keeper.args(["sh", "-c", KEEPER, "keeper"]).arg(place("postgres.users")).arg(&cluster.directory).arg(&note);
            let mut keeper = quiet(&mut keeper).spawn().expect("setsid is there");
            // Both outlive this process; while it is there, it takes note of their end.
            std::thread::spawn(move || keeper.wait());
            cluster
        });
        (cluster, users)
    });
    cluster
}

impl Cluster {
    fn make(settings: &'static [&'static str]) -> Self {
        let random = random();
        let directory = std::env::temp_dir().join(format!("berth-pg-{}", &random[..12]));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o711)).unwrap();
        let cluster = Self { directory, password: random, settings };
        write(&cluster.directory.join("password"), &cluster.password);
        if let Some((uid, gid)) = account() {
            for path in [&cluster.directory, &cluster.directory.join("password")] {
                chown(path, Some(uid), Some(gid)).unwrap();
            }
        }
        let made = as_account(&bin("initdb"))
            .args(["--no-sync", "--no-instructions", "--locale=C", "--encoding=UTF8", "--auth=password", "-U", ROLE])
            .arg("--pwfile")
            .arg(cluster.directory.join("password"))
            .arg("-D")
            .arg(cluster.directory.join("data"))
            .current_dir(&cluster.directory)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        cluster.run();
        cluster
    }

    fn run(&self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log")).unwrap();
        let mut command = as_account("setsid");
        command.arg(bin("postgres")).arg("-D").arg(self.directory.join("data")).arg("-k").arg(&self.directory);
        let common = ["listen_addresses=", "unix_socket_permissions=0777", "max_connections=200", "shared_buffers=32MB"];
        for setting in common.iter().chain(self.settings) {
            command.args(["-c", setting]);
        }
        let mut server = quiet(&mut command).stderr(log).current_dir(&self.directory).spawn().expect("postgres runs");
        std::thread::spawn(move || server.wait());
        let deadline = Instant::now() + START;
        while !self.answers() {
            assert!(
                Instant::now() < deadline,
                "PostgreSQL does not start: {}",
                fs::read_to_string(self.directory.join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn answers(&self) -> bool {
        UnixStream::connect(self.directory.join(SOCKET)).is_ok()
            && self
                .command(&bin("psql"))
                .args(["-X", "-q", "-d", "postgres", "-c", "SELECT 1"])
                .output()
                .is_ok_and(|done| done.status.success())
    }

    fn end(&self, signal: &str) {
        let Ok(text) = fs::read_to_string(self.directory.join("data/postmaster.pid")) else { return };
        let pid = text.lines().next().unwrap_or_default().to_owned();
        let _ = Command::new("kill").args([signal, &pid]).output();
        let deadline = Instant::now() + START;
        // The file goes with the process, or stays when it is killed; another process may be its parent.
        while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn database(&self) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // A process of this id may have been killed before.
        self.psql("postgres", &format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"));
        self.psql("postgres", &format!("CREATE DATABASE \"{name}\""));
        Database { cluster: self.clone(), name }
    }

    fn psql(&self, database: &str, statement: &str) -> String {
        let done =
            self.command(&bin("psql")).args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement]).output();
        let done = done.expect("psql runs");
        assert!(done.status.success(), "{statement}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-h").arg(&self.directory).args(["-U", ROLE]).env("PGPASSWORD", &self.password).env_remove("PGOPTIONS");
        command
    }
}

/// A program of the newest PostgreSQL that Debian has installed.
fn bin(name: &str) -> String {
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    versions.sort_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    let found = versions.into_iter().rev().map(|path| path.join("bin").join(name)).find(|path| path.exists());
    let found = found.unwrap_or_else(|| panic!("no {name} below /usr/lib/postgresql: apt-get install postgresql"));
    found.to_str().expect("Debian's paths are text").to_owned()
}

/// The account for it where it cannot run as ours.
fn account() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let id = |flag: &str| {
        let done = Command::new("id").args([flag, "postgres"]).output().expect("id is there");
        let text = String::from_utf8(done.stdout).unwrap();
        text.trim().parse().unwrap_or_else(|_| panic!("no account postgres, which Debian's package makes"))
    };
    Some((id("-u"), id("-g")))
}

fn as_account(program: &str) -> Command {
    match account() {
        None => Command::new(program),
        Some((uid, gid)) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups", "--", program]);
            command
        }
    }
}

/// Holds on to nothing of the test that starts it.
fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn random() -> String {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).expect("the kernel has random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// For its owner alone.
fn write(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
