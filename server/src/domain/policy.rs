//! How a berth joins its host: what of the host's files it gets, which ports appear there, what of the network it reaches, when it falls
//! asleep. Comes from the profile.

use serde::{Deserialize, Serialize};

use super::{Egress, InvalidEgress};

/// The node holds the same defaults (`berth_protocol::Policy`); a test compares them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPolicy {
    pub home: HomeAccess,
    pub paths: Vec<SharedPath>,
    pub ports: Option<PortRange>,
    pub ports_open_to: OpenTo,
    /// Seconds; nothing: never.
    pub freeze_after: Option<u32>,
    pub stop_after: Option<u32>,
    pub egress: Egress,
    pub restart: Restart,
}

/// The user's home inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HomeAccess {
    Rw,
    Ro,
    None,
}

/// A directory of the host, at the same path inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedPath {
    pub path: String,
    pub read_only: bool,
}

/// Ports that may appear at the host's 127.0.0.1, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// Who on the host reaches published ports, and the berth's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenTo {
    /// The user and root.
    User,
    Host,
}

/// What becomes of a berth that ended unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    OnFailure,
    /// It waits for the next connection.
    Never,
}

/// What a change of a profile says of it; what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyChange {
    pub home: Option<HomeAccess>,
    pub paths: Option<Vec<SharedPath>>,
    pub ports: Option<Option<PortRange>>,
    pub ports_open_to: Option<OpenTo>,
    pub freeze_after: Option<Option<u32>>,
    pub stop_after: Option<Option<u32>>,
    pub egress: Option<Egress>,
    pub restart: Option<Restart>,
}

/// A value that no host could follow; each says field, value, limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    #[error("paths has {0} entries, the most is {most}", most = HostPolicy::MOST_PATHS)]
    TooManyPaths(usize),
    #[error("paths: {path:?} {reason}")]
    Path { path: String, reason: &'static str },
    #[error("paths: {0:?} is listed twice")]
    Twice(String),
    #[error("ports begin at {0}, the least is {least}", least = HostPolicy::LEAST_PORT)]
    LowPort(u16),
    #[error("ports {first}–{last} end before they begin")]
    Backwards { first: u16, last: u16 },
    #[error("{field} is {value} s, the least is {bound} s", bound = HostPolicy::LEAST_IDLE)]
    TooSoon { field: &'static str, value: u32 },
    #[error("{field} is {value} s, the most is {bound} s (a year)", bound = HostPolicy::MOST_IDLE)]
    TooLate { field: &'static str, value: u32 },
    #[error(transparent)]
    Egress(#[from] InvalidEgress),
}

impl InvalidPolicy {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooManyPaths(_) => "share a directory that holds several of them",
            Self::Path { .. } => "name a directory by its absolute path, without . and .., for instance /data/projects",
            Self::Twice(_) => "leave one of them out",
            Self::LowPort(_) | Self::Backwards { .. } => "write FIRST-LAST between 1024 and 65535, or none",
            Self::TooSoon { .. } | Self::TooLate { .. } => "write for instance 15m or 12h, or never",
            Self::Egress(error) => error.hint(),
        }
    }
}

impl HostPolicy {
    pub const MOST_PATHS: usize = 16;
    /// Longer ones would leave no room for what lies below (PATH_MAX is 4096).
    pub const LONGEST_PATH: usize = 1024;
    pub const LEAST_PORT: u16 = 1024;
    pub const LEAST_IDLE: u32 = 10;
    pub const MOST_IDLE: u32 = 366 * 86_400;

    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        if self.paths.len() > Self::MOST_PATHS {
            return Err(InvalidPolicy::TooManyPaths(self.paths.len()));
        }
        for (at, shared) in self.paths.iter().enumerate() {
            check_path(&shared.path)?;
            if self.paths[..at].iter().any(|other| other.path == shared.path) {
                return Err(InvalidPolicy::Twice(shared.path.clone()));
            }
        }
        match self.ports {
            Some(PortRange { first, .. }) if first < Self::LEAST_PORT => return Err(InvalidPolicy::LowPort(first)),
            Some(PortRange { first, last }) if last < first => return Err(InvalidPolicy::Backwards { first, last }),
            _ => {}
        }
        for (field, value) in [("freeze_after", self.freeze_after), ("stop_after", self.stop_after)] {
            match value {
                Some(value) if value < Self::LEAST_IDLE => return Err(InvalidPolicy::TooSoon { field, value }),
                Some(value) if value > Self::MOST_IDLE => return Err(InvalidPolicy::TooLate { field, value }),
                _ => {}
            }
        }
        Ok(self.egress.validate()?)
    }
}

impl Default for HostPolicy {
    fn default() -> Self {
        Self {
            home: HomeAccess::Rw,
            paths: Vec::new(),
            ports: Some(PortRange { first: Self::LEAST_PORT, last: u16::MAX }),
            ports_open_to: OpenTo::User,
            freeze_after: Some(15 * 60),
            stop_after: Some(12 * 3600),
            egress: Egress::Internet,
            restart: Restart::OnFailure,
        }
    }
}

impl PolicyChange {
    /// The old policy with these values in their place.
    pub fn over(self, old: HostPolicy) -> HostPolicy {
        HostPolicy {
            home: self.home.unwrap_or(old.home),
            paths: self.paths.unwrap_or(old.paths),
            ports: self.ports.unwrap_or(old.ports),
            ports_open_to: self.ports_open_to.unwrap_or(old.ports_open_to),
            freeze_after: self.freeze_after.unwrap_or(old.freeze_after),
            stop_after: self.stop_after.unwrap_or(old.stop_after),
            egress: self.egress.unwrap_or(old.egress),
            restart: self.restart.unwrap_or(old.restart),
        }
    }
}

impl HomeAccess {
    pub const ALL: [HomeAccess; 3] = [Self::Rw, Self::Ro, Self::None];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rw => "rw",
            Self::Ro => "ro",
            Self::None => "none",
        }
    }
}

impl Restart {
    pub const ALL: [Restart; 2] = [Self::OnFailure, Self::Never];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnFailure => "on_failure",
            Self::Never => "never",
        }
    }
}

impl OpenTo {
    pub const ALL: [OpenTo; 2] = [Self::User, Self::Host];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Host => "host",
        }
    }
}

fn check_path(path: &str) -> Result<(), InvalidPolicy> {
    let reason = if path.len() > HostPolicy::LONGEST_PATH {
        "is too long (1024 bytes at most)"
    } else if path.chars().any(char::is_control) {
        "holds control characters"
    } else {
        match path.strip_prefix('/') {
            None => "is not absolute",
            Some("") => "is the whole host",
            Some(rest) if rest.split('/').any(|part| matches!(part, "" | "." | "..")) => "is not clean (an empty component, . or ..)",
            Some(_) => return Ok(()),
        }
    };
    Err(InvalidPolicy::Path { path: path.chars().take(100).collect(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sharing(paths: &[&str]) -> HostPolicy {
        let paths = paths.iter().map(|path| SharedPath { path: (*path).to_owned(), read_only: false }).collect();
        HostPolicy { paths, ..HostPolicy::default() }
    }

    #[test]
    fn paths_are_absolute_clean_and_few() {
        assert_eq!(sharing(&["/data", "/srv/a b", "/srv/..a/.b"]).validate(), Ok(()));
        let long = format!("/{}", "a".repeat(1024));
        for bad in ["", "data", "./data", "/", "//", "/data/", "/a//b", "/a/../b", "/a/.", "/a\nb", "/a\0b", &long] {
            let error = sharing(&[bad]).validate().unwrap_err();
            assert!(matches!(error, InvalidPolicy::Path { .. }), "{bad:?}: {error}");
            assert!(error.to_string().len() < 200, "{error}");
        }
        assert_eq!(sharing(&["/a", "/b", "/a"]).validate(), Err(InvalidPolicy::Twice("/a".to_owned())));
        let many: Vec<_> = (0..17).map(|n| format!("/p{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(sharing(&many[..16]).validate(), Ok(()));
        assert_eq!(sharing(&many).validate().unwrap_err().to_string(), "paths has 17 entries, the most is 16");
    }

    #[test]
    fn ranges_and_times_have_bounds() {
        let ports = |first, last| HostPolicy { ports: Some(PortRange { first, last }), ..HostPolicy::default() };
        assert_eq!((ports(1024, 1024).validate(), ports(8000, 65535).validate()), (Ok(()), Ok(())));
        assert_eq!(ports(1023, 2000).validate(), Err(InvalidPolicy::LowPort(1023)));
        assert_eq!(ports(3000, 2000).validate(), Err(InvalidPolicy::Backwards { first: 3000, last: 2000 }));
        let idle = |freeze_after, stop_after| HostPolicy { freeze_after, stop_after, ..HostPolicy::default() };
        assert_eq!((idle(Some(10), None).validate(), idle(None, Some(366 * 86_400)).validate()), (Ok(()), Ok(())));
        assert_eq!(idle(Some(9), None).validate().unwrap_err().to_string(), "freeze_after is 9 s, the least is 10 s");
        assert!(matches!(idle(None, Some(u32::MAX)).validate(), Err(InvalidPolicy::TooLate { field: "stop_after", .. })));
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let change = PolicyChange { ports: Some(None), freeze_after: Some(Some(60)), ..PolicyChange::default() };
        let expected = HostPolicy { ports: None, freeze_after: Some(60), ..HostPolicy::default() };
        assert_eq!(change.over(HostPolicy::default()), expected);
        assert_eq!(PolicyChange::default().over(expected.clone()), expected);
    }
}
