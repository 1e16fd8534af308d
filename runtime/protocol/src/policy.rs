use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

/// How a berth joins its host; comes from the profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    pub home: HomeAccess,
    /// Further directories of the host, at the same path inside.
    pub paths: Vec<SharedPath>,
    pub ports: Ports,
    pub idle: Idle,
    pub egress: Egress,
    pub restart: Restart,
}

/// What becomes of a berth that ended unasked: its shim was killed, its PID 1 died. One that was switched off from inside stays off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// It is started again, after a pause that grows from 1 s to 64 s while it keeps ending within five minutes.
    #[default]
    OnFailure,
    /// It waits for the next connection.
    Never,
}

/// What of the network a berth reaches. Names resolve in each case: the shim answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Egress {
    /// Everything that the host reaches, but no other berth.
    All,
    /// No private ranges, no service of the host, no metadata address of a cloud.
    #[default]
    Internet,
    None,
    /// These networks only, also when they are private.
    List {
        /// `192.0.2.0/24`; an address alone is a network of one.
        cidrs: Vec<String>,
    },
}

/// An IPv4 network, written as `192.0.2.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// All bits behind the prefix are zero.
    pub address: Ipv4Addr,
    /// 0–32.
    pub prefix: u8,
}

/// An egress policy that no host can follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEgress {
    #[error("egress lists {0} networks, the most is {most}", most = Egress::MOST_CIDRS)]
    TooMany(usize),
    #[error("egress lists no network")]
    Empty,
    #[error("egress: {0:?} is no IPv4 network")]
    NotANetwork(String),
    #[error("egress: {text:?} has bits behind its prefix, the network is {network}")]
    HostBits { text: String, network: Cidr },
}

impl Policy {
    /// Checks what the node cannot check against its host alone.
    pub fn validate(&self) -> Result<(), InvalidEgress> {
        self.egress.networks().map(drop)
    }
}

impl Egress {
    pub const MOST_CIDRS: usize = 64;

    /// The networks of a list; none for the other policies.
    pub fn networks(&self) -> Result<Vec<Cidr>, InvalidEgress> {
        match self {
            Self::List { cidrs } if cidrs.is_empty() => Err(InvalidEgress::Empty),
            Self::List { cidrs } if cidrs.len() > Self::MOST_CIDRS => Err(InvalidEgress::TooMany(cidrs.len())),
            Self::List { cidrs } => cidrs.iter().map(|text| text.parse()).collect(),
            Self::All | Self::Internet | Self::None => Ok(Vec::new()),
        }
    }
}

impl FromStr for Cidr {
    type Err = InvalidEgress;

    fn from_str(text: &str) -> Result<Self, InvalidEgress> {
        let error = || InvalidEgress::NotANetwork(text.chars().take(64).collect());
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| error())?;
        if prefix.is_empty() || prefix.len() > 2 || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(error());
        }
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or_else(error)?;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let network = Cidr { address: Ipv4Addr::from_bits(address.to_bits() & mask), prefix };
        match network.address == address {
            true => Ok(network),
            false => Err(InvalidEgress::HostBits { text: text.to_owned(), network }),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The user's home inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HomeAccess {
    #[default]
    Rw,
    Ro,
    None,
}

/// A directory of the host that the user's berth gets too, as far as the user may use it himself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedPath {
    /// Absolute, without `.` and `..`; no component of it may be a symbolic link.
    pub path: String,
    pub read_only: bool,
}

/// Published container ports on the host's 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ports {
    /// First and last port, both ≥ 1024; `None`: no port appears on the host.
    pub range: Option<(u16, u16)>,
    pub open_to: OpenTo,
}

impl Default for Ports {
    fn default() -> Self {
        Self { range: Some((1024, 65535)), open_to: OpenTo::User }
    }
}

/// Who on the host reaches published ports, and the berth's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenTo {
    /// The user and root.
    #[default]
    User,
    /// Every account of the host.
    Host,
}

/// When a berth that nobody uses, and in which no container runs, goes to sleep. Seconds; `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Idle {
    pub freeze_after: Option<u32>,
    pub stop_after: Option<u32>,
}

impl Default for Idle {
    fn default() -> Self {
        Self { freeze_after: Some(15 * 60), stop_after: Some(12 * 3600) }
    }
}

/// A port that a container in the berth publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// At the berth's own address.
    pub port: u16,
    /// Name of the container.
    pub container: String,
    pub container_port: u16,
    /// At the host's 127.0.0.1, same number.
    pub host: HostPort,
}

/// Whether a published port is at the host's 127.0.0.1 too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum HostPort {
    Open,
    /// Waits for the node.
    Pending,
    /// Something else has it: a sentence.
    Taken {
        detail: String,
    },
    /// The profile does not allow it: a sentence.
    NotAllowed {
        detail: String,
    },
}

/// Why a berth sleeps, is frozen or was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sleep {
    /// Milliseconds since the epoch.
    pub since: i64,
    /// A sentence.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_strictly() {
        for (text, shown) in [("0.0.0.0/0", "0.0.0.0/0"), ("10.0.0.0/8", "10.0.0.0/8"), ("192.0.2.7", "192.0.2.7/32")] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), shown);
        }
        for bad in ["", "/", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/008", "10.0.0/8", "::/0", "localhost", "10.0.0.0/8 "] {
            assert!(matches!(bad.parse::<Cidr>(), Err(InvalidEgress::NotANetwork(_))), "{bad}");
        }
        let error = "10.1.2.3/8".parse::<Cidr>().unwrap_err();
        assert_eq!(error.to_string(), r#"egress: "10.1.2.3/8" has bits behind its prefix, the network is 10.0.0.0/8"#);
    }

    #[test]
    fn a_list_holds_one_network_at_least_and_a_bounded_number() {
        let list = |count| Policy { egress: Egress::List { cidrs: vec!["10.0.0.0/8".into(); count] }, ..Policy::default() }.validate();
        assert_eq!((list(0), list(1), list(64)), (Err(InvalidEgress::Empty), Ok(()), Ok(())));
        assert_eq!(list(65).unwrap_err().to_string(), "egress lists 65 networks, the most is 64");
    }

    #[test]
    fn policies_of_before_reach_the_internet() {
        let old: Policy = serde_json::from_str(r#"{"home":"ro"}"#).unwrap();
        assert_eq!(old.egress, Egress::Internet);
        let list = Egress::List { cidrs: vec!["10.0.0.0/8".into()] };
        let text = serde_json::to_string(&list).unwrap();
        assert_eq!(text, r#"{"list":{"cidrs":["10.0.0.0/8"]}}"#);
        assert_eq!(serde_json::from_str::<Egress>(&text).unwrap(), list);
        assert_eq!(serde_json::to_string(&Egress::None).unwrap(), r#""none""#);
    }
}
