//! `[listen]`: where browsers and remote clients reach the API.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// IP address and port; empty: none, the API is on the unix socket alone. Other addresses than loopback need TLS.
    pub address: String,
    /// `none`, `self-signed` (a certificate that is made at the first start), or `files`.
    pub tls: Tls,
    /// PEM: the certificate, then what leads to its root. With `tls = "files"`; read again when it changes, and at SIGHUP.
    pub certificate_file: Option<PathBuf>,
    /// PEM: its key.
    pub key_file: Option<PathBuf>,
    /// Names by which clients may call this server, besides the host's own name, `localhost` and addresses.
    pub names: Vec<String>,
    /// What links begin with; empty: made of the first name, or the address.
    pub url: String,
    /// Addresses of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.
    pub trusted_proxies: Vec<IpAddr>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    #[default]
    None,
    SelfSigned,
    Files,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:8470".to_owned(),
            tls: Tls::None,
            certificate_file: None,
            key_file: None,
            names: Vec::new(),
            url: String::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

impl Listen {
    /// Nothing when there is to be no listener.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        self.address.parse().ok()
    }

    /// All names that are no addresses, in lower case.
    pub fn host_names(&self) -> Vec<String> {
        let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).filter(|name| is_name(name));
        let names = self.names.iter().cloned().chain(own).chain(["localhost".to_owned()]);
        names.map(|name| name.trim_end_matches('.').to_lowercase()).collect()
    }

    /// Where a browser finds a server that listens at `address`.
    pub fn public_url(&self, address: SocketAddr) -> String {
        if !self.url.is_empty() {
            return self.url.trim_end_matches('/').to_owned();
        }
        let scheme = if self.tls == Tls::None { "http" } else { "https" };
        let host = match (self.names.first(), address.ip()) {
            (Some(name), _) => name.clone(),
            (None, ip) if ip.is_unspecified() => self.host_names().into_iter().next().unwrap_or_default(),
            (None, IpAddr::V6(ip)) => format!("[{ip}]"),
            (None, IpAddr::V4(ip)) => ip.to_string(),
        };
        format!("{scheme}://{host}:{}", address.port())
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match self.socket_address() {
            None if !self.address.is_empty() => {
                problems.push(format!("listen.address must be an IP address and a port, or empty; it is {:?}", self.address));
            }
            Some(address) if !address.ip().is_loopback() && self.tls == Tls::None => {
                problems.push(format!("listen.address {address} is not loopback and needs listen.tls: \"self-signed\" or \"files\""));
            }
            _ => {}
        }
        let files = [("certificate_file", &self.certificate_file), ("key_file", &self.key_file)];
        for (key, file) in files {
            match (self.tls, file) {
                (Tls::Files, None) => problems.push(format!("listen.tls = \"files\" needs listen.{key}")),
                (Tls::Files, Some(path)) if path.is_relative() => {
                    problems.push(format!("listen.{key} must be an absolute path, it is {path:?}"));
                }
                (Tls::None | Tls::SelfSigned, Some(_)) => problems.push(format!("listen.{key} needs listen.tls = \"files\"")),
                _ => {}
            }
        }
        for name in self.names.iter().filter(|name| !is_name(name)) {
            problems.push(format!("listen.names holds {name:?}, which is no host name"));
        }
        if !(self.url.is_empty() || self.url.starts_with("https://") || self.url.starts_with("http://")) {
            problems.push(format!("listen.url must begin with https:// or http://, it is {:?}", self.url));
        }
        problems
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 253 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_nobody_but_this_host_is_listened_to() {
        let listen = |address: &str, tls| Listen { address: address.to_owned(), tls, ..Listen::default() }.problems();
        for good in ["127.0.0.1:8470", "127.1.2.3:1", "[::1]:8470", ""] {
            assert!(listen(good, Tls::None).is_empty(), "{good}");
        }
        for bad in ["0.0.0.0:8470", "[::]:8470", "192.0.2.1:8470", "localhost:8470", "127.0.0.1", "8470"] {
            assert_eq!(listen(bad, Tls::None).len(), 1, "{bad}");
        }
        assert!(listen("0.0.0.0:8470", Tls::SelfSigned).is_empty());
        assert_eq!(listen("0.0.0.0:8470", Tls::Files).len(), 2);
    }

    #[test]
    fn links_begin_with_what_a_browser_can_reach() {
        let listen = Listen::default();
        assert_eq!(listen.public_url("127.0.0.1:8470".parse().unwrap()), "http://127.0.0.1:8470");
        let listen = Listen { names: vec!["berth.example.org".to_owned()], tls: Tls::SelfSigned, ..listen };
        assert_eq!(listen.public_url("0.0.0.0:443".parse().unwrap()), "https://berth.example.org:443");
        let listen = Listen { url: "https://b.example.org/".to_owned(), ..listen };
        assert_eq!(listen.public_url("0.0.0.0:443".parse().unwrap()), "https://b.example.org");
    }
}
