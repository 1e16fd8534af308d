//! A service on another host: TLS, a token, and what makes its certificate good.

use std::{fmt, io, net::IpAddr, path::PathBuf, sync::Arc};

use hyper::Uri;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::transport::Stream;
use crate::Secret;

/// Where distributions keep the certificates that programs trust.
const SYSTEM: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];
const PORT: u16 = 8470;

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("{0:?} is no URL of a service; write https://HOST:PORT")]
    Url(String),
    #[error("over http:// a token could be read on its way; use https://, or an address of this host")]
    Plain,
    #[error("cannot read certificates from {}", path.display())]
    Certificates { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("no certificates are trusted on this host")]
    NoRoots,
    #[error("{0:?} is no SHA-256 fingerprint: 64 hexadecimal digits")]
    Fingerprint(String),
    #[error("the token is not one")]
    Token,
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// What makes the service's certificate good.
#[derive(Clone, Debug)]
pub enum Trust {
    /// What this host trusts.
    System,
    /// Certificates in PEM, and nothing else.
    File(PathBuf),
    /// The certificate with this SHA-256, whatever is in it.
    Fingerprint(String),
}

/// A service that is reached over TCP.
pub struct Remote {
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub(super) token: Secret,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl Remote {
    /// `url` is `https://HOST[:PORT]`, or `http://` with a loopback address.
    pub fn new(url: &str, token: Secret, trust: &Trust) -> Result<Self, RemoteError> {
        let bad = || RemoteError::Url(url.chars().take(200).collect());
        let parsed: Uri = url.parse().map_err(|_| bad())?;
        let host = parsed.host().ok_or_else(bad)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() {
            return Err(bad());
        }
        if token.0.is_empty() || !token.0.chars().all(|c| c.is_ascii_graphic()) {
            return Err(RemoteError::Token);
        }
        let port = parsed.port_u16().unwrap_or(PORT);
        let tls = match parsed.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
                Some((Arc::new(config(trust)?), name))
            }
            Some("http") if host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()) => None,
            Some("http") => return Err(RemoteError::Plain),
            _ => return Err(bad()),
        };
        Ok(Self { host, port, tls, token })
    }

    /// As the header `Host` has it.
    pub(super) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    pub(super) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        // A request that waits for an acknowledgement waits for nothing.
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((config, name)) => {
                let stream = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream).await?;
                Ok(Box::new(stream))
            }
        }
    }
}

fn config(trust: &Trust) -> Result<ClientConfig, RemoteError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::System => {
            let path = SYSTEM.iter().map(PathBuf::from).find(|path| path.exists()).ok_or(RemoteError::NoRoots)?;
            builder.with_root_certificates(roots(path)?)
        }
        Trust::File(path) => builder.with_root_certificates(roots(path.clone())?),
        Trust::Fingerprint(text) => {
            let wanted = fingerprint(text).ok_or_else(|| RemoteError::Fingerprint(text.chars().take(200).collect()))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Pinned { wanted, provider }))
        }
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(path: PathBuf) -> Result<RootCertStore, RemoteError> {
    let failed = |source| RemoteError::Certificates { path: path.clone(), source };
    let mut roots = RootCertStore::empty();
    let certificates: Vec<_> = CertificateDer::pem_file_iter(&path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    // A bundle may hold some that rustls does not take; with none left nothing would ever be trusted.
    match roots.add_parsable_certificates(certificates) {
        (0, _) => Err(RemoteError::NoRoots),
        _ => Ok(roots),
    }
}

/// 32 bytes of hexadecimal text, with or without colons and `sha256:`.
fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.trim().trim_start_matches("sha256:").chars().filter(|c| *c != ':').collect();
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Takes one certificate and no other; that the service has its key, the handshake proves as always.
#[derive(Debug)]
struct Pinned {
    wanted: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match Sha256::digest(end_entity)[..] == self.wanted {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str) -> Result<Remote, RemoteError> {
        Remote::new(url, Secret("berth_x".to_owned()), &Trust::Fingerprint("ab".repeat(32)))
    }

    #[test]
    fn a_token_goes_in_the_clear_to_nobody_but_this_host() {
        for good in ["https://h", "https://h:1", "https://192.0.2.1:8470/", "http://127.0.0.1:8470", "http://[::1]:1", "http://localhost"] {
            assert!(remote(good).is_ok(), "{good}: {:?}", remote(good).err());
        }
        assert!(matches!(remote("http://h:8470"), Err(RemoteError::Plain)));
        for bad in ["", "h:8470", "ftp://h", "https://h/x", "https://h/?q", "/run/x"] {
            assert!(matches!(remote(bad), Err(RemoteError::Url(_))), "{bad}");
        }
        assert_eq!(remote("https://h").unwrap().to_string(), "https://h:8470");
        let broken = Remote::new("https://h", Secret("a\nb".to_owned()), &Trust::System);
        assert!(matches!(broken, Err(RemoteError::Token)));
    }

    #[test]
    fn a_fingerprint_is_read_as_tools_print_it() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(fingerprint(&plain), Some([0xab; 32]));
        assert_eq!(fingerprint(&colons), fingerprint(&plain));
        assert_eq!(fingerprint(&format!("sha256:{plain}")), fingerprint(&plain));
        for bad in ["", "ab", &"zz".repeat(32), &"é".repeat(32)] {
            assert_eq!(fingerprint(bad), None, "{bad}");
        }
    }
}
