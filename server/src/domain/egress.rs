use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

/// What of the network a berth reaches; names resolve in each case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Egress {
    /// Everything that the host reaches, but no other berth.
    All,
    /// No private ranges, no service of the host, no metadata address of a cloud.
    #[default]
    Internet,
    None,
    /// These networks only, also when they are private.
    List(Vec<Cidr>),
}

impl Egress {
    pub const MOST_CIDRS: usize = 64;

    /// Checks what a list must be; its networks are whole by themselves.
    pub fn validate(&self) -> Result<(), InvalidEgress> {
        match self {
            Self::List(cidrs) if cidrs.is_empty() => Err(InvalidEgress::Empty),
            Self::List(cidrs) if cidrs.len() > Self::MOST_CIDRS => Err(InvalidEgress::TooMany(cidrs.len())),
            _ => Ok(()),
        }
    }
}

/// An IPv4 network, written as `192.0.2.0/24`; all bits behind the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: Ipv4Addr,
    prefix: u8,
}

/// An egress policy that no host can follow; each says field and value.
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

impl InvalidEgress {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooMany(_) => "write larger networks that hold several of them",
            Self::Empty => "write none, if nothing is to be reached",
            Self::NotANetwork(_) => "write all, internet, none, or networks such as 192.0.2.0/24",
            Self::HostBits { .. } => "write the network itself, or an address alone",
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

impl TryFrom<String> for Cidr {
    type Error = InvalidEgress;

    fn try_from(text: String) -> Result<Self, InvalidEgress> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(network: Cidr) -> Self {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_strictly_and_written_alike() {
        for (text, shown) in [("0.0.0.0/0", "0.0.0.0/0"), ("10.0.0.0/8", "10.0.0.0/8"), ("192.0.2.7", "192.0.2.7/32")] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), shown);
        }
        for bad in ["", "/", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/008", "10.0.0/8", "::/0", "localhost", "10.0.0.0/8 "] {
            assert!(matches!(bad.parse::<Cidr>(), Err(InvalidEgress::NotANetwork(_))), "{bad}");
        }
        let error = "10.1.2.3/8".parse::<Cidr>().unwrap_err();
        assert_eq!(error.to_string(), r#"egress: "10.1.2.3/8" has bits behind its prefix, the network is 10.0.0.0/8"#);
        let list = Egress::List(vec!["10.0.0.0/8".parse().unwrap()]);
        let text = serde_json::to_string(&list).unwrap();
        assert_eq!((text.as_str(), serde_json::from_str::<Egress>(&text).unwrap()), (r#"{"list":["10.0.0.0/8"]}"#, list));
        assert!(serde_json::from_str::<Egress>(r#"{"list":["10.0.0.1/8"]}"#).is_err());
    }

    #[test]
    fn a_list_holds_one_network_at_least_and_a_bounded_number() {
        let list = |count| Egress::List(vec!["10.0.0.0/8".parse().unwrap(); count]).validate();
        assert_eq!((list(0), list(1), list(64), list(65)), (Err(InvalidEgress::Empty), Ok(()), Ok(()), Err(InvalidEgress::TooMany(65))));
    }
}
