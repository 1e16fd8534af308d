//! Figures as people write and read them: Docker's 1024-based sizes, CPUs with decimals, ages.

use std::{fmt, str::FromStr};

use berth_api::Egress;

/// Thousandths of a CPU, written as `1.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpus(pub u32);

/// Bytes, written as `512m` or `4g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub u64);

/// Seconds, written as `90s`, `15m`, `12h` or `7d`; nothing: the word `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub Option<u32>);

/// First and last port, written as `8000-8999`; nothing: the word `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports(pub Option<(u16, u16)>);

/// Docker's relative weight of CPU, of which 1024 is usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares(u32);

/// Bits per second, written as `100mbit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(pub u64);

/// A value, or the word `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrNone<T>(pub Option<T>);

/// `all`, `internet`, `none`, or networks with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EgressWord(pub Egress);

impl Shares {
    /// On the scale of cgroup v2, where 100 is usual.
    pub(crate) fn weight(self) -> u32 {
        (u64::from(self.0) * 100 / 1024).clamp(1, 10_000) as u32
    }
}

/// As requests have it, where 0 is none.
impl<T: Into<u64>> From<OrNone<T>> for u64 {
    fn from(value: OrNone<T>) -> Self {
        value.0.map_or(0, Into::into)
    }
}

impl From<Size> for u64 {
    fn from(size: Size) -> Self {
        size.0
    }
}

impl From<Rate> for u64 {
    fn from(rate: Rate) -> Self {
        rate.0
    }
}

/// A value, or the word `profile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OrProfile<T> {
    Profile,
    Value(T),
}

impl<T> OrProfile<T> {
    /// For a change: `None` inside goes back to the profile.
    pub(crate) fn into_change<U>(self, value: impl FnOnce(T) -> U) -> Option<U> {
        match self {
            Self::Profile => None,
            Self::Value(inner) => Some(value(inner)),
        }
    }
}

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is no number of CPUs; write for instance 2 or 1.5");
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        if part.len() > 3 || (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) {
            return Err(error());
        }
        let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| error())? };
        let part: u32 = format!("{part:0<3}").parse().map_err(|_| error())?;
        whole.checked_mul(1000).and_then(|millis| millis.checked_add(part)).map(Self).ok_or_else(error)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is no size; write for instance 512m, 4g or 1.5t");
        let split = text.find(|c: char| c.is_ascii_alphabetic() || c == ' ').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let unit = unit.trim().to_ascii_lowercase();
        let power = match unit.strip_suffix('b').unwrap_or(&unit).trim_end_matches('i') {
            "" => 0,
            "k" => 1,
            "m" => 2,
            "g" => 3,
            "t" => 4,
            "p" => 5,
            _ => return Err(error()),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || !digits(whole) || !digits(part) {
            return Err(error());
        }
        let whole: u64 = whole.parse().map_err(|_| error())?;
        let scale = 1_u64 << (10 * power);
        // Beyond nine decimals nothing changes that anybody meant.
        let part: u64 = format!("{:0<9}", &part[..part.len().min(9)]).parse().map_err(|_| error())?;
        let fraction = u64::try_from(u128::from(part) * u128::from(scale) / 1_000_000_000).map_err(|_| error())?;
        whole.checked_mul(scale).and_then(|bytes| bytes.checked_add(fraction)).map(Self).ok_or_else(error)
    }
}

impl FromStr for Shares {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shares = text.parse().ok().filter(|shares| digits(text) && (2..=262_144).contains(shares));
        shares.map(Self).ok_or_else(|| format!("{text:?} is no number of shares; write 2 to 262144, where 1024 is usual"))
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is no rate; write for instance 500kbit, 100mbit or 1.5gbit");
        let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(error)?;
        let (number, unit) = text.split_at(split);
        let decimals = match unit.to_ascii_lowercase().as_str() {
            "bit" => 0,
            "kbit" => 3,
            "mbit" => 6,
            "gbit" => 9,
            "tbit" => 12,
            _ => return Err(error()),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > decimals {
            return Err(error());
        }
        format!("{whole}{part:0<decimals$}").parse().map(Self).map_err(|_| error())
    }
}

impl FromStr for EgressWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "all" => Egress::All,
            "internet" => Egress::Internet,
            "none" => Egress::None,
            // The service knows what a network is.
            _ if text.contains(|c: char| c.is_ascii_digit()) => Egress::List(text.split(',').map(|one| one.trim().to_owned()).collect()),
            _ => return Err(format!("{text:?} is no egress; write all, internet, none, or networks such as 192.0.2.0/24")),
        }))
    }
}

impl<T: FromStr<Err: fmt::Display>> FromStr for OrNone<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            _ => text.parse().map(|value| Self(Some(value))).map_err(|error: T::Err| error.to_string()),
        }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is no time; write for instance 90s, 15m, 12h, 7d, or never");
        if text == "never" {
            return Ok(Self(None));
        }
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(error)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(error()),
        };
        if number.is_empty() || !digits(number) {
            return Err(error());
        }
        number.parse::<u32>().ok().and_then(|number| number.checked_mul(seconds)).map(|span| Self(Some(span))).ok_or_else(error)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(seconds) = self.0 else { return f.write_str("never") };
        let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
        match units.into_iter().find(|(size, _)| seconds >= *size && seconds % size == 0) {
            Some((size, unit)) => write!(f, "{}{unit}", seconds / size),
            None => write!(f, "{seconds}s"),
        }
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is no range of ports; write for instance 8000-8999, or none");
        if text == "none" {
            return Ok(Self(None));
        }
        let (first, last) = text.split_once('-').ok_or_else(error)?;
        let port = |text: &str| text.parse::<u16>().ok().filter(|_| digits(text));
        port(first).zip(port(last)).map(|range| Self(Some(range))).ok_or_else(error)
    }
}

impl<T: FromStr<Err: fmt::Display>> FromStr for OrProfile<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "profile" => Ok(Self::Profile),
            _ => text.parse().map(Self::Value).map_err(|error: T::Err| error.to_string()),
        }
    }
}

/// `UID` or `UID:GID`; without a gid it is the same number as the uid.
pub(crate) fn parse_user(text: &str) -> Result<(u32, u32), String> {
    let error = |_| format!("{text:?} is no uid; write for instance 1000 or 1000:1000");
    match text.split_once(':') {
        Some((uid, gid)) => Ok((uid.parse().map_err(error)?, gid.parse().map_err(error)?)),
        None => text.parse().map(|uid| (uid, uid)).map_err(error),
    }
}

fn digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Bytes in 1024-based units.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match value.fract() < 0.05 || unit == 0 {
        true => format!("{value:.0} {}", UNITS[unit]),
        false => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// Bits per second in 1000-based units.
pub(crate) fn bits(count: u64) -> String {
    const UNITS: [&str; 5] = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match value.fract() < 0.05 || unit == 0 {
        true => format!("{value:.0} {}", UNITS[unit]),
        false => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// Thousandths as CPUs.
pub(crate) fn cpus(millis: u64) -> String {
    format!("{}", millis as f64 / 1000.0)
}

/// Time since, in the largest unit that fits.
pub(crate) fn age(since: i64, now: i64) -> String {
    let seconds = (now - since).max(0) / 1000;
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    match count {
        1 => format!("1 {unit}"),
        _ => format!("{count} {unit}s"),
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, count) in [
            ("0", 0),
            ("17", 17),
            ("32b", 32),
            ("1k", 1024),
            ("4g", 4 << 30),
            ("4GB", 4 << 30),
            ("4GiB", 4 << 30),
            ("1.5m", 1_572_864),
            ("2 t", 2 << 40),
        ] {
            assert_eq!(text.parse::<Size>(), Ok(Size(count)), "{text}");
        }
        for bad in ["", "g", "-1g", "1x", "1..2g", "1e3", "99999999999999999999", "20000p", ".5g", "1ggb"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn cpus_have_three_decimals() {
        for (text, millis) in [("1", 1000), ("1.5", 1500), (".25", 250), ("0.125", 125), ("2.", 2000)] {
            assert_eq!(text.parse::<Cpus>(), Ok(Cpus(millis)), "{text}");
        }
        for bad in ["", ".", "-1", "1.2345", "a", "5000000", "nan", "+1"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_ranges_have_a_word_for_nothing() {
        for (text, seconds) in [("90s", Some(90)), ("15m", Some(900)), ("12h", Some(43_200)), ("7d", Some(604_800)), ("never", None)] {
            assert_eq!(text.parse::<Span>(), Ok(Span(seconds)), "{text}");
            assert_eq!(Span(seconds).to_string(), text);
        }
        for bad in ["", "s", "15", "-1m", "+1m", "1.5h", "m15", "1w", "99999999999s", "4294967295m", "15ä"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        assert_eq!(("8000-8999".parse(), "none".parse()), (Ok(Ports(Some((8000, 8999)))), Ok(Ports(None))));
        for bad in ["", "8000", "-", "8000-", "8000-70000", "+80-90", "a-b", "1-2-3"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_written_as_tc_writes_them() {
        for (text, count) in
            [("1bit", 1), ("500kbit", 500_000), ("100mbit", 100_000_000), ("1.5gbit", 1_500_000_000), ("1Tbit", 1_000_000_000_000)]
        {
            assert_eq!(text.parse::<Rate>(), Ok(Rate(count)), "{text}");
        }
        for bad in ["", "100", "mbit", "-1mbit", "1.5bit", "1mbyte", "100mbps", "1e3kbit", ".5gbit", "99999999999tbit"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
        assert_eq!((bits(999), bits(100_000_000), bits(1_500_000_000)), ("999 bit/s".into(), "100 Mbit/s".into(), "1.5 Gbit/s".into()));
    }

    #[test]
    fn words_stand_for_what_has_no_figure() {
        assert_eq!("none".parse::<OrNone<Size>>().map(u64::from), Ok(0));
        assert_eq!("none".parse::<OrProfile<OrNone<Rate>>>(), Ok(OrProfile::Value(OrNone(None))));
        assert_eq!("profile".parse::<OrProfile<OrNone<u64>>>(), Ok(OrProfile::Profile));
        let list = Egress::List(vec!["10.0.0.0/8".to_owned(), "192.0.2.7".to_owned()]);
        for (text, egress) in [("all", Egress::All), ("internet", Egress::Internet), ("none", Egress::None), ("10.0.0.0/8,192.0.2.7", list)]
        {
            assert_eq!(text.parse(), Ok(EgressWord(egress)));
        }
        assert!("some".parse::<EgressWord>().is_err() && "1".parse::<Shares>().is_err() && "+5".parse::<Shares>().is_err());
    }

    #[test]
    fn figures_read_back_the_same() {
        assert_eq!(bytes(4 << 30), "4 GiB");
        assert_eq!(bytes(1_610_612_736), "1.5 GiB");
        assert_eq!((cpus(1500), cpus(2000)), ("1.5".to_owned(), "2".to_owned()));
        assert_eq!((age(0, 61_000), age(0, 7_200_000), age(5, 0)), ("1 minute".to_owned(), "2 hours".to_owned(), "0 seconds".to_owned()));
        assert_eq!("profile".parse::<OrProfile<Size>>(), Ok(OrProfile::Profile));
        assert_eq!((parse_user("5"), parse_user("5:6")), (Ok((5, 5)), Ok((5, 6))));
    }
}
