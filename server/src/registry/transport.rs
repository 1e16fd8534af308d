//! One request of HTTP/1.1 over TLS, or in the clear on the loopback; every wait has its end.

use std::{
    collections::HashSet,
    fmt,
    io::{self, ErrorKind},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header::{HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::Error;

/// Where distributions keep the certificates that programs trust.
const SYSTEM: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];
/// Addresses of one host that are tried.
const ADDRESSES: usize = 4;
/// Addresses that are remembered.
const KNOWN: usize = 64;

/// How long is waited, and how often tried.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes.
    pub silence: Duration,
    /// Tries in a row that bring nothing.
    pub tries: u32,
    /// Before the next try; twice as long before each further one.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), silence: Duration::from_secs(20), tries: 3, pause: Duration::from_secs(1) }
    }
}

/// Who is asked. A login is for one of them and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) tls: bool,
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Who is asked for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) origin: Origin,
    /// With the query.
    pub(super) path: String,
}

impl Place {
    /// A URL that `origin` gave. Out of TLS nobody is led, and to plain HTTP nowhere but on the loopback.
    pub(super) fn of(url: &str, origin: &Origin) -> Result<Self, Error> {
        let refused = |reason: &str| Error::Answer { host: origin.to_string(), reason: reason.to_owned() };
        let uri: Uri = url.parse().map_err(|_| refused("it leads to what is no URL"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let Some(host) = uri.host() else {
            return match path.starts_with('/') && !path.starts_with("//") {
                true => Ok(Self { origin: origin.clone(), path }),
                false => Err(refused("it leads to what is no URL")),
            };
        };
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if !origin.tls => false,
            _ => return Err(refused("it leads away from TLS")),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        Ok(Self { origin: Origin { tls, host, port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }) }, path })
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

pub(super) struct Transport {
    tls: Arc<ClientConfig>,
    pub(super) patience: Patience,
    /// Addresses that took a connection, to be tried first: where IPv6 leads nowhere, that is found out once.
    known: Mutex<HashSet<SocketAddr>>,
}

impl Transport {
    /// `certificates` in PEM are trusted besides those of the host: layers often lie elsewhere.
    pub(super) fn new(certificates: Option<&str>, patience: Patience) -> Result<Self, Error> {
        let unusable = |error: String| Error::Certificates(error);
        let parsed = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let mut store = RootCertStore::empty();
        // Without any, plain HTTP still works and everything else is not trusted.
        if let Some(path) = SYSTEM.iter().map(Path::new).find(|path| path.exists()) {
            let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
            // A bundle may hold some that rustls does not take.
            store.add_parsable_certificates(parsed(&pem).map_err(|error| unusable(error.to_string()))?);
        }
        if let Some(pem) = certificates {
            let own = parsed(pem.as_bytes()).map_err(|error| unusable(error.to_string()))?;
            if store.add_parsable_certificates(own).0 == 0 {
                return Err(unusable("none of them is one".to_owned()));
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.map_err(|error| unusable(error.to_string()))?.with_root_certificates(store).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(config), patience, known: Mutex::default() })
    }

    /// Sends a GET on a connection of its own, which lives as long as the answer's body.
    pub(super) async fn get(&self, place: &Place, headers: &[(HeaderName, HeaderValue)]) -> Result<Answer, Error> {
        let host = place.origin.to_string();
        let broken = |source| Error::Broken { host: host.clone(), source };
        let stream = self.connect(&place.origin).await?;
        let exchange = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
            // An error of the connection reaches the caller through the answer or its body.
            tokio::spawn(async move { drop(connection.await) });
            let mut request = Request::builder().method(Method::GET).uri(place.path.as_str());
            request = request.header(HOST, host.as_str()).header(USER_AGENT, concat!("berth/", env!("CARGO_PKG_VERSION")));
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let request = request.body(Empty::<Bytes>::new());
            let request = request.map_err(|error| Error::Answer { host: host.clone(), reason: error.to_string() })?;
            sender.send_request(request).await.map_err(broken)
        };
        let response = self.within(&host, exchange).await?;
        let (parts, body) = response.into_parts();
        Ok(Answer { origin: place.origin.clone(), status: parts.status, headers: parts.headers, body, silence: self.patience.silence })
    }

    async fn connect(&self, origin: &Origin) -> Result<Box<dyn Stream>, Error> {
        let host = origin.to_string();
        let unreachable = |source| Error::Unreachable { host: host.clone(), source };
        let late = || io::Error::new(ErrorKind::TimedOut, format!("no connection within {} s", self.patience.connect.as_secs()));
        let looked_up = tokio::time::timeout(self.patience.connect, tokio::net::lookup_host((origin.host.as_str(), origin.port))).await;
        let found = looked_up.map_err(|_| unreachable(late()))?.map_err(unreachable)?;
        // Whatever a name is said to be: in the clear nothing leaves this host.
        let mut addresses: Vec<SocketAddr> = found.filter(|address| origin.tls || address.ip().is_loopback()).take(ADDRESSES).collect();
        addresses.sort_by_key(|address| !self.lock().contains(address));
        let mut failure = io::Error::new(ErrorKind::NotFound, "it has no address that may be used");
        for address in addresses {
            let stream = match tokio::time::timeout(self.patience.connect, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    failure = error;
                    continue;
                }
                Err(_) => {
                    failure = late();
                    continue;
                }
            };
            self.remember(address);
            if !origin.tls {
                return Ok(Box::new(stream));
            }
            let name = ServerName::try_from(origin.host.clone());
            let name = name.map_err(|error| unreachable(io::Error::new(ErrorKind::InvalidInput, error)))?;
            let shaking = async { Ok(TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await) };
            let secured: io::Result<_> = self.within(&host, shaking).await?;
            return match secured {
                Ok(stream) => Ok(Box::new(stream)),
                Err(source) if is_distrust(&source) => Err(Error::Untrusted { host: host.clone(), source }),
                Err(source) => Err(unreachable(source)),
            };
        }
        Err(unreachable(failure))
    }

    fn remember(&self, address: SocketAddr) {
        let mut known = self.lock();
        if known.len() < KNOWN {
            known.insert(address);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<SocketAddr>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn within<T>(&self, host: &str, wait: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let silence = self.patience.silence;
        tokio::time::timeout(silence, wait).await.unwrap_or_else(|_| Err(silent(host, silence)))
    }
}

fn silent(host: &str, silence: Duration) -> Error {
    Error::Silent { host: host.to_owned(), seconds: silence.as_secs() }
}

fn is_distrust(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented))
}

/// An answer whose body is read piece by piece.
pub(super) struct Answer {
    pub(super) origin: Origin,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Incoming,
    silence: Duration,
}

impl Answer {
    /// Where a redirect leads to.
    pub(super) fn leads_to(&self) -> Option<Result<Place, Error>> {
        if ![301, 302, 303, 307, 308].contains(&self.status.as_u16()) {
            return None;
        }
        let text = self.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Some(Place::of(text, &self.origin))
    }

    /// What the answer says of its length.
    pub(super) fn length(&self) -> Option<u64> {
        self.headers.get(hyper::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// The next bytes; nothing at the end.
    pub(super) async fn part(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match tokio::time::timeout(self.silence, self.body.frame()).await {
                Err(_) => return Err(silent(&self.origin.to_string(), self.silence)),
                Ok(None) => return Ok(None),
                Ok(Some(Err(source))) => return Err(Error::Broken { host: self.origin.to_string(), source }),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(part) if !part.is_empty() => return Ok(Some(part)),
                    _ => {}
                },
            }
        }
    }

    /// All of it, up to `most` bytes.
    pub(super) async fn whole(mut self, what: &str, most: u64) -> Result<Bytes, Error> {
        let too_large = |bytes| Error::TooLarge { what: what.to_owned(), bytes, most };
        if let Some(length) = self.length().filter(|length| *length > most) {
            return Err(too_large(length));
        }
        let mut bytes = BytesMut::new();
        while let Some(part) = self.part().await? {
            bytes.extend_from_slice(&part);
            if bytes.len() as u64 > most {
                return Err(too_large(bytes.len() as u64));
            }
        }
        Ok(bytes.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_out_of_tls() {
        let secure = Origin { tls: true, host: "r.example.org".to_owned(), port: 443 };
        let plain = Origin { tls: false, host: "localhost".to_owned(), port: 5000 };
        let to = |url: &str, origin: &Origin| Place::of(url, origin).map(|place| (place.origin.to_string(), place.path));
        assert_eq!(to("/v2/x?y=1", &secure).unwrap(), ("r.example.org:443".to_owned(), "/v2/x?y=1".to_owned()));
        assert_eq!(to("https://Cdn.example.org/b?s=1", &secure).unwrap(), ("cdn.example.org:443".to_owned(), "/b?s=1".to_owned()));
        assert_eq!(to("http://127.0.0.1:1/b", &plain).unwrap(), ("127.0.0.1:1".to_owned(), "/b".to_owned()));
        for bad in ["http://r.example.org/x", "ftp://x/y", "", "//x/y", "x/y", "file:///etc/passwd"] {
            assert!(to(bad, &secure).is_err(), "{bad}: {:?}", to(bad, &secure));
        }
    }
}
