//! `node.toml`. Unknown keys are refused, and all problems are told at once.

use std::{
    fs,
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use berth_runtime::{
    idmap::COUNT,
    net::source_ports::{Block, LEAST},
};

/// Where the file is looked for when none is named.
pub const DEFAULT_FILE: &str = "/etc/berth/node.toml";

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Sockets; gone at reboot.
    pub run_dir: PathBuf,
    /// Records, disks and images.
    pub state_dir: PathBuf,
    /// Console logs of berths.
    pub log_dir: PathBuf,
    /// Holds `berth-shim` and `berth-init`; empty: the directory of the running program.
    pub programs_dir: Option<PathBuf>,
    /// Holds the recipe of the default image.
    pub recipe_dir: PathBuf,
    /// Archives of berths; empty: `archives` in `state_dir`. Belongs to root alone.
    pub archive_dir: Option<PathBuf>,
    /// Besides root the only account that may use `node.sock`.
    pub server_user: String,
    /// Tells two nodes on one host apart: suffix of control group, slice and nft table. Lower-case letters and digits.
    pub instance: String,
    /// Host ends of the berths' links are called `<link_prefix><index>`.
    pub link_prefix: String,
    /// Raise kernel limits of the host that many berths need (inotify, keys, neighbours, …) and put them back at teardown.
    pub tune_host: bool,
    pub ids: Ids,
    pub network: Network,
    pub disk: Disk,
    pub sleep: Sleep,
    pub accounts: Accounts,
}

/// How the host's accounts are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Accounts {
    /// The PAM service whose account stage says who is locked or has expired; where there is no such file, shadow entries say it alone.
    pub pam: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ids {
    /// First and last host id that berths may have.
    pub first: u32,
    pub last: u32,
    /// How long nobody gets the range of a deleted berth.
    pub quarantine_days: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// IPv4 network of the berths' addresses; empty: the first candidate that no route of the host overlaps, kept from then on.
    pub pool: String,
    /// Upstream resolvers, `ip:port`; empty: those of the host's /etc/resolv.conf.
    pub dns: Vec<SocketAddr>,
    /// Ports, none below 1024, by which berths leave the host, each by a block of its own. What the kernel gives to the host's own
    /// connections (net.ipv4.ip_local_port_range) is left out.
    pub source_ports: String,
    /// How many connections one berth can have at once to the same address and port. At least 16.
    pub source_ports_per_berth: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// How the disks of new berths are made; those that are there stay as they are.
    pub backend: Backend,
    /// Makes directories without any limit where the file system keeps none: for measurements, never for users.
    pub without_quota: bool,
    /// Share of the file system that holds the disks, `"5%"`: with less free, users are told; half of it berths never take.
    pub low_water: LowWater,
    /// How often a running berth's free space goes back to the host, besides after it has deleted much.
    pub trim_interval_seconds: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// A directory where the file system keeps project quotas, else an image.
    #[default]
    Auto,
    /// An ext4 image on a loop device.
    Loop,
    /// A directory under ext4's or XFS's project quota.
    Directory,
}

/// Hundredths of a percent; in the file a number with a percent sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct LowWater(pub u32);

impl TryFrom<String> for LowWater {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let percent = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok()).filter(|p| (0.1..=50.0).contains(p));
        percent.map(|p| Self((p * 100.0).round() as u32)).ok_or_else(|| format!("{text:?} is no share of \"0.1%\" to \"50%\""))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sleep {
    /// Whether the memory of sleeping berths is taken back: `auto` (where the host has swap or zram), `never`, `always`.
    pub reclaim: Reclaim,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reclaim {
    /// Without swap only page cache could be had, which costs more at the next wake than it gives.
    #[default]
    Auto,
    Never,
    Always,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            run_dir: "/run/berth".into(),
            state_dir: "/var/lib/berth".into(),
            log_dir: "/var/log/berth".into(),
            programs_dir: None,
            recipe_dir: "/usr/local/share/berth/image".into(),
            archive_dir: None,
            server_user: "berth".into(),
            instance: String::new(),
            link_prefix: "bt".into(),
            tune_host: true,
            ids: Ids::default(),
            network: Network::default(),
            disk: Disk::default(),
            sleep: Sleep::default(),
            accounts: Accounts::default(),
        }
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self { first: 2_000_224_256, last: 2_147_418_111, quarantine_days: 30 }
    }
}

impl Default for Network {
    fn default() -> Self {
        // 248 blocks below the usual ip_local_port_range.
        Self { pool: String::new(), dns: Vec::new(), source_ports: "1024-32767".into(), source_ports_per_berth: 128 }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self { pam: "/etc/pam.d/berth".into() }
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self { backend: Backend::Auto, without_quota: false, low_water: LowWater(500), trim_interval_seconds: 600 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is not what a node.toml holds", file.display())]
    Parse {
        file: PathBuf,
        #[source]
        source: toml::de::Error,
    },
    #[error("{} has {} problem(s): {}", file.display(), problems.len(), problems.join("; "))]
    Invalid { file: PathBuf, problems: Vec<String> },
}

/// The longest path that a socket may have (sun_path, with its final NUL).
const SOCKET_PATH: usize = 107;
/// The longest path that the node makes a socket at, below its run_dir.
const LONGEST_SOCKET: &str = "/shims/00000000-0000-0000-0000-000000000000/control.sock";

impl Config {
    /// Reads `file`; when it is the default one it may be absent.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == ErrorKind::NotFound && file == Path::new(DEFAULT_FILE) => String::new(),
            Err(source) => return Err(ConfigError::Read { file: file.into(), source }),
            Ok(text) => text,
        };
        let config: Self = toml::from_str(&text).map_err(|source| ConfigError::Parse { file: file.into(), source })?;
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid { file: file.into(), problems }) }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |good: bool, problem: String| {
            if !good {
                problems.push(problem);
            }
        };
        let programs = self.programs_dir.as_deref().unwrap_or(Path::new("/"));
        for (key, path) in [
            ("run_dir", self.run_dir.as_path()),
            ("state_dir", &self.state_dir),
            ("log_dir", &self.log_dir),
            ("programs_dir", programs),
            ("recipe_dir", &self.recipe_dir),
            ("accounts.pam", &self.accounts.pam),
            ("archive_dir", self.archive_dir.as_deref().unwrap_or(Path::new("/"))),
        ] {
            require(path.is_absolute(), format!("{key} must be an absolute path, not {:?}", path.display()));
        }
        let room = SOCKET_PATH - LONGEST_SOCKET.len();
        require(
            self.run_dir.as_os_str().len() <= room,
            format!("run_dir has {} bytes, a socket path leaves room for {room}", self.run_dir.as_os_str().len()),
        );
        require(!self.server_user.is_empty(), "server_user is empty".into());
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        require(self.instance.len() <= 16 && plain(&self.instance), "instance may hold up to 16 lower-case letters and digits".into());
        let letters = self.link_prefix.bytes().all(|b| b.is_ascii_lowercase());
        require((1..=8).contains(&self.link_prefix.len()) && letters, "link_prefix must be 1 to 8 lower-case letters".into());
        let Ids { first, last, quarantine_days } = self.ids;
        require(first >= COUNT, format!("ids.first is {first}, the least is {COUNT}"));
        require(last < i32::MAX as u32, format!("ids.last is {last}, the most is {}: some programs take ids as signed", i32::MAX - 1));
        require(first <= last && last - first >= COUNT - 1, format!("ids.first to ids.last must hold at least {COUNT} ids"));
        require(quarantine_days <= 36_500, "ids.quarantine_days may be up to 36500".into());
        if !self.network.pool.is_empty() {
            let prefix = self.network.pool.parse::<berth_runtime::net::Network>().map(|n| n.prefix);
            require(
                prefix.as_ref().is_ok_and(|p| (8..=29).contains(p)),
                format!("network.pool {:?} must be an IPv4 network of /8 to /29, like 10.213.0.0/16", self.network.pool),
            );
        }
        let Network { source_ports, source_ports_per_berth, .. } = &self.network;
        match source_ports.parse::<Block>() {
            Ok(Block(first, last)) => require(
                *source_ports_per_berth >= LEAST && last - first >= *source_ports_per_berth - 1,
                format!("network.source_ports_per_berth must be {LEAST} to the number of ports in {source_ports}"),
            ),
            Err(error) => require(false, format!("network.source_ports: {error}")),
        }
        require(self.network.dns.len() <= 8, "network.dns may hold up to 8 resolvers".into());
        require(
            !self.disk.without_quota || self.disk.backend == Backend::Directory,
            "disk.without_quota means directories: set disk.backend = \"directory\" with it".into(),
        );
        require(self.disk.trim_interval_seconds >= 1, "disk.trim_interval_seconds must be at least 1".into());
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_an_empty_file_gives_them() {
        assert_eq!(Config::default().problems(), Vec::<String>::new());
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(toml::from_str::<Config>("[ids]\nfrist = 1\n").is_err());
    }

    #[test]
    fn a_low_water_mark_is_a_share() {
        let read = |text: &str| toml::from_str::<Config>(&format!("[disk]\nlow_water = {text}\n")).map(|config| config.disk.low_water.0);
        assert_eq!((read("\"5%\""), read("\"0.5 %\""), read("\"50%\"")), (Ok(500), Ok(50), Ok(5000)));
        for wrong in ["\"5\"", "\"0%\"", "\"51%\"", "\"x%\"", "\"NaN%\"", "5"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let config: Config = toml::from_str(
            "run_dir = \"x\"\ninstance = \"a-b\"\nlink_prefix = \"bt1\"\n[network]\npool = \"10.0.0.1/16\"\nsource_ports = \"80-90\"",
        )
        .unwrap();
        let problems = config.problems();
        assert_eq!(problems.len(), 5, "{problems:?}");
    }
}
