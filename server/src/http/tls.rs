//! The certificate: files of the administrator's, read again when they change, or one of our own that is made once.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    chain,
    config::{Listen, Tls},
    domain::Clock,
};

/// Changed files are noticed so soon.
const LOOK: Duration = Duration::from_secs(10);
/// Years that our own certificate lasts: who pins its fingerprint should not have to do it again.
const YEARS: i32 = 10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{} holds no certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("certificate {} and key {} do not go together", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("TLS cannot be set up")]
    Config(#[source] rustls::Error),
}

/// What changes when somebody puts another file there.
type Stamp = [Option<(u64, i64, i64, u64)>; 2];

/// The certificate that is shown now.
#[derive(Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    shown: RwLock<Shown>,
    server: Arc<ServerConfig>,
}

#[derive(Clone, Debug)]
struct Shown {
    key: Arc<CertifiedKey>,
    fingerprint: String,
    stamp: Stamp,
}

/// Gives rustls what is shown at the time.
#[derive(Debug)]
struct Resolver(std::sync::OnceLock<std::sync::Weak<Certificate>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificate = self.0.get()?.upgrade()?;
        let shown = certificate.shown.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&shown.key))
    }
}

impl Certificate {
    /// What the configuration asks for; nothing without TLS. A certificate of our own lies in `directory`.
    pub fn open(listen: &Listen, directory: &Path, clock: &Clock) -> Result<Option<Arc<Self>>, Error> {
        let (certificate, key) = match (listen.tls, &listen.certificate_file, &listen.key_file) {
            (Tls::None, _, _) => return Ok(None),
            (Tls::Files, Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            (Tls::Files | Tls::SelfSigned, _, _) => {
                let paths = (directory.join("certificate.pem"), directory.join("key.pem"));
                if !paths.0.exists() || !paths.1.exists() {
                    make(listen, directory, &paths.0, &paths.1, clock)?;
                }
                paths
            }
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let shown = read(&certificate, &key, &provider)?;
        let resolver = Arc::new(Resolver(std::sync::OnceLock::new()));
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::Config)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Resolver>::clone(&resolver));
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let this = Arc::new(Self { certificate, key, shown: RwLock::new(shown), server: Arc::new(server) });
        // It was made just now.
        let _ = resolver.0.set(Arc::downgrade(&this));
        Ok(Some(this))
    }

    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// SHA-256 of the certificate, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).fingerprint.clone()
    }

    /// Reads the files again if they are others; what is broken leaves the old ones in use.
    pub fn reload(&self) -> Result<bool, Error> {
        let before = self.shown.read().unwrap_or_else(PoisonError::into_inner).stamp;
        if stamp(&self.certificate, &self.key) == before {
            return Ok(false);
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let shown = read(&self.certificate, &self.key, &provider)?;
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(true)
    }
}

/// Reads the certificate again when its files change and at SIGHUP, which ends the service without TLS as little as with it.
pub async fn watch(certificate: Option<Arc<Certificate>>, renewed: impl Fn(String), soft: CancellationToken) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut broken = None;
    loop {
        tokio::select! {
            () = soft.cancelled() => return Ok(()),
            _ = hangup.recv() => broken = None,
            () = tokio::time::sleep(LOOK) => {}
        }
        let Some(certificate) = &certificate else { continue };
        match certificate.reload() {
            Ok(false) => {}
            Ok(true) => {
                broken = None;
                tracing::info!(fingerprint = certificate.fingerprint(), "another certificate");
                renewed(certificate.fingerprint());
            }
            Err(error) => {
                let error = chain(&error);
                // Once for each thing that is wrong.
                if broken.as_ref() != Some(&error) {
                    tracing::warn!(error, "the new certificate cannot be used; the old one stays");
                    broken = Some(error);
                }
            }
        }
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|path| fs::metadata(path).ok().map(|meta| (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len())))
}

fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<Shown, Error> {
    // Taken before the files are read: who changes them meanwhile is noticed at the next look.
    let stamp = stamp(certificate, key);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(certificate).map_err(failed(certificate))?.collect::<Result<_, _>>().map_err(failed(certificate))?;
    let Some(first) = chain.first() else { return Err(Error::NoCertificate { path: certificate.to_owned() }) };
    let fingerprint = Sha256::digest(first).iter().map(|byte| format!("{byte:02x}")).collect();
    let private = PrivateKeyDer::from_pem_file(key).map_err(failed(key))?;
    let pair = |source| Error::Pair { certificate: certificate.to_owned(), key: key.to_owned(), source };
    let key = CertifiedKey::from_der(chain, private, provider).map_err(pair)?;
    Ok(Shown { key: Arc::new(key), fingerprint, stamp })
}

fn make(listen: &Listen, directory: &Path, certificate: &Path, key: &Path, clock: &Clock) -> Result<(), Error> {
    let mut names = listen.host_names();
    names.extend(["127.0.0.1", "::1"].map(str::to_owned));
    if let Some(address) = listen.socket_address().map(|address| address.ip()).filter(|ip: &IpAddr| !ip.is_unspecified()) {
        names.push(address.to_string());
    }
    names.sort();
    names.dedup();
    let pair = rcgen::KeyPair::generate()?;
    let mut wanted = rcgen::CertificateParams::new(names)?;
    wanted.distinguished_name.push(rcgen::DnType::CommonName, "Berth");
    let year = 1970 + i32::try_from(clock.now() / 31_556_952_000).unwrap_or_default();
    // A day before, for clients whose clock is late; the year before that, if today is the first of January.
    wanted.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    wanted.not_after = rcgen::date_time_ymd(year + YEARS, 1, 1);
    let made = wanted.self_signed(&pair)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
    // The key first: a certificate without one is made again.
    for (path, text) in [(key, pair.serialize_pem()), (certificate, made.pem())] {
        write(path, &text).map_err(failed(path))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    let fresh = path.with_added_extension("new");
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn listen(tls: Tls) -> Listen {
        Listen { tls, ..Listen::default() }
    }

    #[test]
    fn a_certificate_of_our_own_is_made_once_and_its_key_is_the_owners() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Certificate::open(&listen(Tls::None), directory.path(), &Clock::SYSTEM).unwrap().is_none());
        let first = Certificate::open(&listen(Tls::SelfSigned), directory.path(), &Clock::SYSTEM).unwrap().unwrap();
        let again = Certificate::open(&listen(Tls::SelfSigned), directory.path(), &Clock::SYSTEM).unwrap().unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_eq!(first.fingerprint().len(), 64);
        let mode = fs::metadata(directory.path().join("key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn another_certificate_is_taken_up_and_a_broken_one_is_not() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shown = Certificate::open(&listen(Tls::SelfSigned), one.path(), &Clock::SYSTEM).unwrap().unwrap();
        let before = shown.fingerprint();
        assert!(!shown.reload().unwrap());
        let next = Certificate::open(&listen(Tls::SelfSigned), other.path(), &Clock::SYSTEM).unwrap().unwrap();
        fs::copy(other.path().join("certificate.pem"), one.path().join("certificate.pem")).unwrap();
        // Half of it: the key is still the old one.
        assert!(matches!(shown.reload(), Err(Error::Pair { .. })));
        assert_eq!(shown.fingerprint(), before);
        fs::copy(other.path().join("key.pem"), one.path().join("key.pem")).unwrap();
        assert!(shown.reload().unwrap());
        assert_eq!(shown.fingerprint(), next.fingerprint());
        fs::write(one.path().join("certificate.pem"), "no certificate").unwrap();
        assert!(shown.reload().is_err());
        assert_eq!(shown.fingerprint(), next.fingerprint());
    }
}
