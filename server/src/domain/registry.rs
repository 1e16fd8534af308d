//! What an image is called in a registry, and what it takes to get there.

use std::{fmt, net::IpAddr, str::FromStr};

use super::{Problem, Refusal};

/// Where Docker looks for images that name no registry, and the host that serves them.
const HUB: [&str; 2] = ["docker.io", "index.docker.io"];
const HUB_HOST: &str = "registry-1.docker.io";
/// As Docker has them.
const MOST_REPOSITORY: usize = 255;
const MOST_TAG: usize = 128;
const MOST_USERNAME: usize = 255;
const MOST_PASSWORD: usize = 16 << 10;
const MOST_CERTIFICATES: usize = 128 << 10;

/// `[REGISTRY[:PORT]/]NAME[:TAG][@sha256:…]`, with what Docker would add to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// A name, or an address without brackets.
    pub host: String,
    pub port: Option<u16>,
    pub repository: String,
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
}

/// Never says what it was given: somebody may have put a password there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this names no image of a registry: {0}")]
pub struct InvalidReference(&'static str);

impl Reference {
    /// True where plain HTTP leaves the host for nobody to read.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    /// What the registry is asked for.
    pub fn wanted(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// The registry, as URLs and the header `Host` have it.
    pub fn registry(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        self.port.map_or(host.clone(), |port| format!("{host}:{port}"))
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.contains("://") {
            return Err(InvalidReference("write it without https://"));
        }
        let (text, digest) = match text.split_once('@') {
            Some((text, digest)) if is_digest(digest) => (text, Some(digest.to_owned())),
            Some(_) => return Err(InvalidReference("after @ stands sha256: and 64 hexadecimal digits")),
            None => (text, None),
        };
        let registry = text.split_once('/').filter(|(first, _)| first.contains(['.', ':']) || *first == "localhost");
        let (registry, path) = registry.map_or((HUB[0], text), |(registry, path)| (registry, path));
        let (path, tag) = match path.split_once(':') {
            Some((path, tag)) if is_tag(tag) => (path, Some(tag.to_owned())),
            Some(_) => return Err(InvalidReference("a tag has up to 128 letters, digits and . _ -")),
            None => (path, None),
        };
        if path.len() > MOST_REPOSITORY || !path.split('/').all(is_component) {
            return Err(InvalidReference("a name has small letters and digits, with single . _ - between them"));
        }
        let (host, port) = host(registry).ok_or(InvalidReference("the registry is no HOST or HOST:PORT"))?;
        let hub = HUB.contains(&host.as_str());
        let repository = if hub && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { host: if hub { HUB_HOST.to_owned() } else { host }, port, repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry(), self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

/// `sha256:` and 64 hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

fn is_tag(tag: &str) -> bool {
    (1..=MOST_TAG).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// A part of a repository's name; no dots alone, so that no path is climbed.
fn is_component(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = part.bytes().next().is_some_and(plain) && part.bytes().last().is_some_and(plain);
    ends && part.bytes().all(|b| plain(b) || b"._-".contains(&b)) && !part.contains("..") && !part.contains("___")
}

fn host(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            let good = (1..=253).contains(&host.len()) && !host.starts_with(['.', '-']);
            (good && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b))).then_some(())?;
            (host, port)
        }
    };
    let port = match port {
        // As it is written usually: no sign, no zeros before it.
        Some(text) => Some(text.parse().ok().filter(|port: &u16| *port > 0 && port.to_string() == text)?),
        None => None,
    };
    Some((host.to_ascii_lowercase(), port))
}

/// A name and a password for a registry. They are kept in memory until the image is there, and nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(secret)")
    }
}

/// How a registry is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryAccess {
    pub login: Option<Login>,
    /// In PEM; they are trusted besides those of the host.
    pub certificates: Option<String>,
    /// Without TLS: loopback addresses only.
    pub plain: bool,
}

impl RegistryAccess {
    /// True when it cannot be had again after a restart.
    pub fn is_private(&self) -> bool {
        self.login.is_some() || self.certificates.is_some()
    }

    /// Refuses what makes no sense.
    pub fn check(&self, reference: &Reference) -> Result<(), Problem> {
        if self.plain && !reference.is_loopback() {
            let detail = "plain HTTP is for loopback addresses: whoever is between could read and change it";
            return Err(
                Problem::new(Refusal::Invalid, "plain_http_refused", detail).hint("use TLS; for an own certificate authority: --ca FILE")
            );
        }
        if let Some(Login { username, password }) = &self.login {
            let named = (1..=MOST_USERNAME).contains(&username.len()) && !username.contains(|c: char| c == ':' || c.is_control());
            if !named || !(1..=MOST_PASSWORD).contains(&password.len()) {
                let detail =
                    format!("a login has a name of up to {MOST_USERNAME} bytes without colon and a password of up to {MOST_PASSWORD}");
                return Err(Problem::new(Refusal::Invalid, "invalid_login", detail));
            }
        }
        match &self.certificates {
            Some(pem) if pem.len() > MOST_CERTIFICATES || !pem.contains("-----BEGIN CERTIFICATE-----") => {
                let detail = format!("these are no certificates in PEM of up to {MOST_CERTIFICATES} bytes");
                Err(Problem::new(Refusal::Invalid, "invalid_certificates", detail))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_as_docker_reads_it() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, whole) in [
            ("debian", "registry-1.docker.io/library/debian:latest".to_owned()),
            ("debian:trixie", "registry-1.docker.io/library/debian:trixie".to_owned()),
            ("docker.io/debian", "registry-1.docker.io/library/debian:latest".to_owned()),
            ("team/app:1", "registry-1.docker.io/team/app:1".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("R.example.org:5000/a/b_c/d-e:V1", "r.example.org:5000/a/b_c/d-e:V1".to_owned()),
            ("[::1]:5000/app:1", "[::1]:5000/app:1".to_owned()),
            (&format!("r.example.org/app@{digest}"), format!("r.example.org/app@{digest}")),
            (&format!("r.example.org/app:2@{digest}"), format!("r.example.org/app:2@{digest}")),
        ] {
            assert_eq!(text.parse::<Reference>().map(|reference| reference.to_string()), Ok(whole), "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_and_not_repeated() {
        for bad in [
            "",
            "/",
            "UPPER",
            "r.x/../a",
            "r.x/a/",
            "r.x//a",
            "r.x/.a",
            "r.x/a:",
            "r.x/a:-t",
            "https://r.x/a",
            "user:word@r.x/a",
            "a@sha256:1",
            "r.x:0/a",
            "r.x:99999/a",
            "r.x:+1/a",
            "r.x:05/a",
            "[::1/a",
            "[r.x]/a",
            "r.x/a b",
            "r.x/a?b",
            "r.x/a#b",
            "r.x/a%2e",
            "r.x/a\nb",
            "-r.x/a",
        ] {
            let refused = bad.parse::<Reference>().expect_err(bad);
            assert!(!refused.to_string().contains("word"), "{refused}");
        }
    }

    #[test]
    fn only_this_host_is_reached_in_the_clear() {
        let check = |text: &str| RegistryAccess { plain: true, ..RegistryAccess::default() }.check(&text.parse().unwrap());
        for good in ["localhost:5000/a", "127.0.0.1/a", "127.9.9.9:1/a", "[::1]:1/a"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["r.example.org/a", "192.0.2.1/a", "localhost.example.org/a", "a"] {
            assert_eq!(check(bad).unwrap_err().code, "plain_http_refused", "{bad}");
        }
    }

    #[test]
    fn a_login_shows_itself_nowhere() {
        let login = Login { username: "alice".to_owned(), password: "word".to_owned() };
        let access = RegistryAccess { login: Some(login.clone()), ..RegistryAccess::default() };
        assert!(!format!("{access:?}").contains("word") && access.is_private());
        let reference = "r.example.org/a".parse().unwrap();
        for login in [
            Login { username: String::new(), ..login.clone() },
            Login { username: "a:b".to_owned(), ..login.clone() },
            Login { password: String::new(), ..login },
        ] {
            assert_eq!(
                RegistryAccess { login: Some(login), ..RegistryAccess::default() }.check(&reference).unwrap_err().code,
                "invalid_login"
            );
        }
    }
}
