//! `server.toml`: unknown keys are refused, and all problems are told at once. An absent file means the defaults.

use std::{
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Deserialize)]
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
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `sqlite:PATH`; empty means the file `berth.db` in `state_dir`.
    pub url: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The disks of all berths together may have this many times the size of their file system.
    pub disk_overcommit: f64,
}

/// How long Docker API calls are kept; what the first of the two bounds passes goes, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Days that a call stays in the audit trail. What administrators did stays for 400.
    pub keep_days: u32,
    /// Bytes that all calls may occupy in the database, about. The file does not shrink; what becomes free is used again.
    pub keep_bytes: u64,
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
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self { disk_overcommit: 1.0 }
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

    /// The file of the database.
    pub fn database_file(&self) -> PathBuf {
        match self.database.url.as_str() {
            "" => self.state_dir.join("berth.db"),
            url => {
                let path = url.strip_prefix("sqlite:").unwrap_or(url);
                PathBuf::from(path.strip_prefix("//").unwrap_or(path))
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
        let url = &self.database.url;
        if !url.is_empty() && (!url.starts_with("sqlite:") || self.database_file().is_relative()) {
            problems.push(format!("database.url must be sqlite: and an absolute path, or empty; it is {url:?}"));
        }
        if !(0.01..=1000.0).contains(&self.policy.disk_overcommit) {
            problems.push(format!("policy.disk_overcommit must lie between 0.01 and 1000, it is {}", self.policy.disk_overcommit));
        }
        let Audit { keep_days, keep_bytes } = self.audit;
        if !(1..=36_500).contains(&keep_days) {
            problems.push(format!("audit.keep_days must lie between 1 and 36500, it is {keep_days}"));
        }
        if keep_bytes < LEAST_AUDIT {
            problems.push(format!("audit.keep_bytes must be at least {LEAST_AUDIT}, it is {keep_bytes}"));
        }
        problems
    }
}

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
        assert_eq!(load("").unwrap().database_file(), Path::new("/var/lib/berth/server/berth.db"));
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let Err(Error::Parse { source, .. }) = load("[policy]\ndisk_overcomit = 2.0\n") else { panic!("accepted") };
        assert!(source.to_string().contains("disk_overcomit"), "{source}");
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let error = load(
            "api_socket = \"x\"\n[database]\nurl = \"postgres://h/d\"\n[policy]\ndisk_overcommit = -1.0\n\
                          [audit]\nkeep_days = 0\nkeep_bytes = 5\n",
        )
        .unwrap_err();
        let text = error.to_string();
        for word in ["api_socket", "database.url", "disk_overcommit", "keep_days", "keep_bytes"] {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(load("[database]\nurl = \"sqlite:///x/y.db\"\n").unwrap().database_file(), Path::new("/x/y.db"));
    }
}
