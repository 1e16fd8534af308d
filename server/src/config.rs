//! `server.toml`: unknown keys are refused, and all problems are told at once. An absent file means the defaults.

pub mod explain;

use std::{
    fmt::{self, Write},
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

mod listen;

pub use listen::{Listen, Tls};

use crate::domain::{AccountRules, UserName};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Socket of the API; everybody on the host may connect, the kernel says who it is.
    pub api_socket: PathBuf,
    /// Socket of berth-node.
    pub node_socket: PathBuf,
    /// Directory of the database; must belong to the server's user.
    pub state_dir: PathBuf,
    pub database: Database,
    pub policy: Policy,
    pub audit: Audit,
    pub metrics: Metrics,
    pub log: Log,
    pub accounts: Accounts,
    pub listen: Listen,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `sqlite:PATH`, or `postgres://USER@HOST:PORT/NAME` (`postgres:///NAME?user=USER&host=/DIRECTORY` for a socket); empty means the file
    /// `berth.db` in `state_dir`. The password is not part of it.
    pub url: String,
    /// File that holds PostgreSQL's password and nothing else. Without it PGPASSFILE and `~/.pgpass` are looked at.
    pub password_file: Option<PathBuf>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL that holds a password is refused, after it was read.
        f.debug_struct("Database").field("url", &without_password(&self.url)).field("password_file", &self.password_file).finish()
    }
}

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Sqlite(PathBuf),
    Postgres { url: String, password_file: Option<PathBuf> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// All berths together may be promised this many times the CPUs of the host; absent: any number, with a warning beyond what it has.
    pub cpu_overcommit: Option<f64>,
    /// Likewise of its memory.
    pub memory_overcommit: Option<f64>,
    /// The disks of all berths together may have this many times the size of their file system.
    pub disk_overcommit: f64,
}

/// How long Docker API calls are kept; what the first of the two bounds passes goes, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Days that a call stays in the audit trail. What administrators did stays for 400.
    pub keep_days: u32,
    /// Bytes that all calls may occupy in the database, about. The file does not shrink; what becomes free is used again.
    pub keep_bytes: u64,
}

/// A listener for monitoring systems, beside `GET /metrics` of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Address and port, loopback only, at which whoever reaches it reads `/metrics`, with the names of users; none unless set.
    pub listen: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `journal`, `text` or `json` (both to standard error), or `auto`: the journal where systemd started the service with one, text elsewhere.
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Auto,
    Journal,
    Text,
    Json,
}

/// When berths are suspended because of their accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Accounts {
    /// How often the host is asked about all accounts that have a berth.
    pub check_seconds: u32,
    /// An account is gone when it was not found so often in a row while a known account of its source was found.
    pub gone_checks: u32,
    /// Seconds from the first of them on.
    pub gone_seconds: u32,
    /// From the first sign (not found, locked, expired) to the suspension.
    pub grace_seconds: u32,
    /// More than so many at once are an alarm, and nobody is suspended; 0: the larger of 3 and 2 % of the berths.
    pub max_at_once: u32,
    /// Accounts of the host's directory that are always there, besides those that have a berth: found, they show that it answers.
    pub known: Vec<String>,
}

impl Accounts {
    pub fn check(&self) -> Duration {
        Duration::from_secs(self.check_seconds.into())
    }

    pub fn rules(&self) -> AccountRules {
        let ms = |seconds: u32| i64::from(seconds) * 1000;
        AccountRules {
            gone_checks: self.gone_checks,
            gone_after: ms(self.gone_seconds),
            grace: ms(self.grace_seconds),
            max_at_once: (self.max_at_once > 0).then_some(self.max_at_once),
        }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self { check_seconds: 1200, gone_checks: 3, gone_seconds: 3600, grace_seconds: 86_400, max_at_once: 0, known: Vec::new() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            api_socket: "/run/berth/server/api.sock".into(),
            node_socket: "/run/berth/node.sock".into(),
            state_dir: "/var/lib/berth/server".into(),
            database: Database::default(),
            policy: Policy::default(),
            audit: Audit::default(),
            metrics: Metrics::default(),
            log: Log::default(),
            accounts: Accounts::default(),
            listen: Listen::default(),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self { cpu_overcommit: None, memory_overcommit: None, disk_overcommit: 1.0 }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self { keep_days: 90, keep_bytes: 2 << 30 }
    }
}

/// sun_path holds 107 bytes; four of them are for the name under which a new socket is made.
const MAX_SOCKET_PATH: usize = 103;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not understood", path.display())]
    Parse { path: PathBuf, source: toml::de::Error },
    #[error("{}:{}", path.display(), listed(problems))]
    Invalid { path: PathBuf, problems: Vec<String> },
}

impl Config {
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
        };
        let config: Self = toml::from_str(&text).map_err(|source| Error::Parse { path: path.to_owned(), source })?;
        match config.validate() {
            problems if problems.is_empty() => Ok(config),
            problems => Err(Error::Invalid { path: path.to_owned(), problems }),
        }
    }

    /// Where the database is.
    pub fn location(&self) -> Location {
        let Database { url, password_file } = &self.database;
        match url.as_str() {
            "" => Location::Sqlite(self.state_dir.join("berth.db")),
            url if is_postgres(url) => Location::Postgres { url: url.to_owned(), password_file: password_file.clone() },
            url => {
                let path = url.strip_prefix("sqlite:").unwrap_or(url);
                Location::Sqlite(path.strip_prefix("//").unwrap_or(path).into())
            }
        }
    }

    fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, path) in [("api_socket", &self.api_socket), ("node_socket", &self.node_socket), ("state_dir", &self.state_dir)] {
            if !path.is_absolute() {
                problems.push(format!("{key} must be an absolute path, it is {:?}", path));
            }
        }
        for (key, path) in [("api_socket", &self.api_socket), ("node_socket", &self.node_socket)] {
            let length = path.as_os_str().len();
            if length > MAX_SOCKET_PATH {
                problems.push(format!("{key} has {length} bytes, the most is {MAX_SOCKET_PATH}"));
            }
        }
        problems.extend(self.database_problems());
        let Policy { cpu_overcommit, memory_overcommit, disk_overcommit } = self.policy;
        let ratios = [("cpu", cpu_overcommit), ("memory", memory_overcommit), ("disk", Some(disk_overcommit))];
        for (resource, ratio) in ratios.into_iter().filter_map(|(resource, ratio)| ratio.map(|ratio| (resource, ratio))) {
            if !(0.01..=1000.0).contains(&ratio) {
                problems.push(format!("policy.{resource}_overcommit must lie between 0.01 and 1000, it is {ratio}"));
            }
        }
        let Audit { keep_days, keep_bytes } = self.audit;
        if !(1..=36_500).contains(&keep_days) {
            problems.push(format!("audit.keep_days must lie between 1 and 36500, it is {keep_days}"));
        }
        if let Some(listen) = self.metrics.listen.filter(|listen| !listen.ip().is_loopback()) {
            problems
                .push(format!("metrics.listen must be a loopback address, it is {listen}; from elsewhere use GET /metrics with a token"));
        }
        let Accounts { check_seconds, gone_checks, known, .. } = &self.accounts;
        if *check_seconds == 0 || *gone_checks == 0 {
            problems.push("accounts.check_seconds and accounts.gone_checks must be at least 1".to_owned());
        }
        if known.len() > MOST_KNOWN || known.iter().any(|name| name.parse::<UserName>().is_err()) {
            problems.push(format!("accounts.known takes up to {MOST_KNOWN} names of accounts, it is {known:?}"));
        }
        if keep_bytes < LEAST_AUDIT {
            problems.push(format!("audit.keep_bytes must be at least {LEAST_AUDIT}, it is {keep_bytes}"));
        }
        problems.extend(self.listen.problems());
        problems
    }

    fn database_problems(&self) -> Vec<String> {
        let Database { url, password_file } = &self.database;
        let mut problems = Vec::new();
        let shown = without_password(url);
        match self.location() {
            Location::Sqlite(path) if !url.is_empty() && (!url.starts_with("sqlite:") || path.is_relative()) => {
                problems.push(format!(
                    "database.url must be sqlite: and an absolute path, postgres:// and a database, or empty; it is {shown:?}"
                ));
            }
            Location::Sqlite(_) if password_file.is_some() => {
                problems.push("database.password_file is for PostgreSQL; SQLite knows no password".to_owned());
            }
            Location::Postgres { .. } if shown != *url || url.contains("password=") => {
                problems.push(
                    "database.url must not hold the password; write it into a file and name that as database.password_file".to_owned(),
                );
            }
            _ => {}
        }
        if let Some(path) = password_file.as_ref().filter(|path| !path.is_absolute()) {
            problems.push(format!("database.password_file must be an absolute path, it is {path:?}"));
        }
        problems
    }
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres:") || url.starts_with("postgresql:")
}

/// The URL with what stands between the user's name and the host left out.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    match authority.rsplit_once('@').and_then(|(login, _)| login.split_once(':')) {
        Some((user, secret)) => format!("{scheme}://{user}:…{}", &rest[user.len() + 1 + secret.len()..]),
        None => url.to_owned(),
    }
}

/// Besides root, which every host has.
const MOST_KNOWN: usize = 15;
/// Some minutes of a busy host.
const LEAST_AUDIT: u64 = 1 << 20;

fn listed(problems: &[String]) -> String {
    problems.iter().fold(String::new(), |mut text, problem| {
        let _ = write!(text, "\n  {problem}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.toml");
        fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn an_absent_file_means_the_defaults() {
        assert_eq!(Config::load(Path::new("/nonexistent/server.toml")).unwrap(), Config::default());
        assert_eq!(load("").unwrap().location(), Location::Sqlite("/var/lib/berth/server/berth.db".into()));
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let Err(Error::Parse { source, .. }) = load("[policy]\ndisk_overcomit = 2.0\n") else { panic!("accepted") };
        assert!(source.to_string().contains("disk_overcomit"), "{source}");
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let error = load(
            "api_socket = \"x\"\n[database]\nurl = \"mysql://h/d\"\n[policy]\ndisk_overcommit = -1.0\ncpu_overcommit = nan\nmemory_overcommit = 0\n\
                          [audit]\nkeep_days = 0\nkeep_bytes = 5\n[listen]\naddress = \"0.0.0.0:8470\"\n",
        )
        .unwrap_err();
        let text = error.to_string();
        let words = [
            "api_socket",
            "database.url",
            "disk_overcommit",
            "cpu_overcommit",
            "memory_overcommit",
            "keep_days",
            "keep_bytes",
            "listen.address",
        ];
        for word in words {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(load("[database]\nurl = \"sqlite:///x/y.db\"\n").unwrap().location(), Location::Sqlite("/x/y.db".into()));
    }

    #[test]
    fn a_password_stands_in_a_file_and_is_never_shown() {
        let url = "postgres://berth@db.example:5433/berth";
        let config = load(&format!("[database]\nurl = \"{url}\"\npassword_file = \"/etc/berth/database.password\"\n")).unwrap();
        assert_eq!(
            config.location(),
            Location::Postgres { url: url.to_owned(), password_file: Some("/etc/berth/database.password".into()) }
        );
        for text in ["postgres://berth:hunter@2@db.example/berth", "postgres:///berth?user=berth&password=hunter@2"] {
            let error = load(&format!("[database]\nurl = \"{text}\"\n")).unwrap_err().to_string();
            assert!(error.contains("database.password_file") && !error.contains("hunter"), "{error}");
        }
        let shown = format!("{:?}", Database { url: "postgres://berth:hunter@2@db.example/berth".to_owned(), password_file: None });
        assert!(shown.contains("postgres://berth:…@db.example/berth") && !shown.contains("hunter"), "{shown}");
    }
}
