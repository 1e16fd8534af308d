//! Images of registries, as the streams that the node takes.
//!
//! The server is the process that talks to a registry: it has no privilege to lose. What comes from there is bounded and held against its
//! digests here, passed on as an OCI layout in a tar without touching a disk, and held against them once more by the node, which believes
//! nobody and unpacks only what is whole.
//!
//! ```text
//! reference → manifest (index → that for this host) → configuration → layers, each resumed where it broke off → tar
//! ```
//!
//! A login goes to the registry itself, and to the service that it names for tokens; never where a redirect leads. Nobody is led from TLS to
//! plain HTTP. Deliberately absent: proxies, HTTP/2, pushing, signatures.

mod error;
mod layout;
mod login;
mod manifest;
mod transport;

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::{Stream, stream};
use hyper::{
    StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, RANGE},
};
use sha2::{Digest as _, Sha256};

pub use error::Error;
pub use transport::Patience;

use crate::domain::{Reference, RegistryAccess};
use layout::Piece;
use manifest::{DOCUMENT_BYTES, Descriptor, Document, Manifest, digest, short};
use transport::{Answer, Origin, Place, Transport};

/// Redirects that are followed for one request.
const REDIRECTS: usize = 5;
/// Indexes may lead to indexes; real ones do so once at most.
const INDEXES: usize = 3;
/// Times that one layer is taken up again, whatever each brought.
const TAKEN_UP: u32 = 50;
/// Bytes of what is passed on: the node takes no more of an archive.
const MOST_BYTES: u64 = 32 << 30;

/// One repository of a registry.
struct Registry {
    transport: Transport,
    origin: Origin,
    repository: String,
    access: RegistryAccess,
    authorization: Option<HeaderValue>,
}

/// An image that is found and may be passed on.
pub struct Pull {
    registry: Registry,
    digest: String,
    total: u64,
    pieces: VecDeque<Piece>,
    blob: Option<Blob>,
}

/// Asks the registry what the image is made of.
pub async fn find(reference: &Reference, access: RegistryAccess, patience: Patience) -> Result<Pull, Error> {
    let transport = Transport::new(access.certificates.as_deref(), patience)?;
    let tls = !access.plain;
    let origin = Origin { tls, host: reference.host.clone(), port: reference.port.unwrap_or(if tls { 443 } else { 80 }) };
    let mut registry = Registry { transport, origin, repository: reference.repository.clone(), access, authorization: None };
    let (found, bytes, manifest) = registry.manifest(reference).await?;
    let config = registry.document(&manifest.config).await?;
    manifest::check_platform(&config)?;
    let (pieces, total) = layout::pieces(&found, bytes, config, &manifest);
    if total > MOST_BYTES {
        return Err(Error::TooLarge { what: "the image".to_owned(), bytes: total, most: MOST_BYTES });
    }
    Ok(Pull { registry, digest: found, total, pieces, blob: None })
}

impl Pull {
    /// `sha256:…` of the manifest: the image's address on the node, too.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Bytes of the whole stream.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// An OCI layout as a tar. Whoever reads slowly slows the registry down.
    pub fn stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        stream::try_unfold(self, |mut pull| async move { Ok(pull.next().await?.map(|part| (part, pull))) })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(blob) = &mut self.blob {
                match blob.next(&mut self.registry).await? {
                    Some(part) => return Ok(Some(part)),
                    None => self.blob = None,
                }
            }
            match self.pieces.pop_front() {
                Some(Piece::Bytes(bytes)) => return Ok(Some(bytes)),
                Some(Piece::Blob(wanted)) => self.blob = Some(Blob::new(wanted)),
                None => return Ok(None),
            }
        }
    }
}

impl Registry {
    /// The manifest for this host: its digest, its bytes, and what they say.
    async fn manifest(&mut self, reference: &Reference) -> Result<(String, Bytes, Manifest), Error> {
        let mut wanted = reference.wanted().to_owned();
        let mut size = None;
        for _ in 0..INDEXES {
            let path = format!("/v2/{}/manifests/{wanted}", self.repository);
            let accept = [(ACCEPT, HeaderValue::from_static(manifest::ACCEPT))];
            let answer = self.get(&path, &accept, &format!("image {}:{wanted}", self.repository)).await?;
            let header = |name: HeaderName| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
            let (kind, said) = (header(CONTENT_TYPE), header(HeaderName::from_static("docker-content-digest")));
            let bytes = answer.whole("the manifest", DOCUMENT_BYTES).await?;
            let found = digest(&bytes);
            // A tag has no digest but the one that the registry gives with it.
            let asked = if wanted.starts_with("sha256:") { wanted.as_str() } else { said.as_str() };
            if !asked.is_empty() && asked != found {
                return Err(mismatch("the manifest", &short(asked), &found));
            }
            if let Some(size) = size.filter(|size| *size != bytes.len() as u64) {
                return Err(mismatch("the size of the manifest", &size, &bytes.len()));
            }
            match manifest::read(&kind, &bytes)? {
                Document::Manifest(manifest) => return Ok((found, bytes, manifest)),
                Document::Index(entry) => (wanted, size) = (entry.digest, Some(entry.size)),
            }
        }
        Err(Error::Image(format!("its indexes lead to each other more than {INDEXES} times")))
    }

    /// A small blob, whole.
    async fn document(&mut self, wanted: &Descriptor) -> Result<Bytes, Error> {
        let mut blob = Blob::new(wanted.clone());
        let mut bytes = bytes::BytesMut::new();
        while let Some(part) = blob.next(self).await? {
            bytes.extend_from_slice(&part);
        }
        Ok(bytes.freeze())
    }

    /// The answer to a GET: redirects followed, a login given where it is wanted.
    async fn get(&mut self, path: &str, headers: &[(HeaderName, HeaderValue)], what: &str) -> Result<Answer, Error> {
        let mut fresh = false;
        loop {
            let answer = self.follow(path, headers).await?;
            let host = answer.origin.to_string();
            let repository = || self.repository.clone();
            let ours = answer.origin == self.origin;
            match answer.status {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => return Ok(answer),
                // Tokens grow old while layers are long.
                StatusCode::UNAUTHORIZED if ours && !fresh => {
                    let login = self.access.login.as_ref();
                    let value = login::answer(&self.transport, &self.origin, &self.repository, &answer.headers, login).await?;
                    self.authorization = Some(value);
                    fresh = true;
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if ours => {
                    return Err(match self.access.login {
                        Some(_) => Error::LoginRefused { host, repository: repository() },
                        None => Error::LoginWanted { host, repository: repository() },
                    });
                }
                StatusCode::NOT_FOUND => return Err(Error::Missing { host, what: what.to_owned() }),
                status => return Err(Error::Status { host, status: status.as_u16() }),
            }
        }
    }

    async fn follow(&self, path: &str, headers: &[(HeaderName, HeaderValue)]) -> Result<Answer, Error> {
        let mut place = Place { origin: self.origin.clone(), path: path.to_owned() };
        for _ in 0..=REDIRECTS {
            let mut headers = headers.to_vec();
            if place.origin == self.origin {
                headers.extend(self.authorization.clone().map(|value| (AUTHORIZATION, value)));
            }
            let answer = self.transport.get(&place, &headers).await?;
            match answer.leads_to() {
                None => return Ok(answer),
                Some(next) => place = next?,
            }
        }
        Err(Error::Redirects { host: self.origin.to_string(), most: REDIRECTS })
    }
}

/// A blob on its way. What has been passed on cannot be taken back: a connection that breaks is followed by one that asks for the rest.
struct Blob {
    wanted: Descriptor,
    hash: Sha256,
    done: u64,
    answer: Option<Answer>,
    /// Bytes that come once more, from a registry that knows no ranges.
    skip: u64,
    /// Tries in a row that brought nothing, and all of them.
    idle: u32,
    tries: u32,
}

impl Blob {
    fn new(wanted: Descriptor) -> Self {
        Self { wanted, hash: Sha256::new(), done: 0, answer: None, skip: 0, idle: 0, tries: 0 }
    }

    /// The next bytes; nothing once all of them were right.
    async fn next(&mut self, registry: &mut Registry) -> Result<Option<Bytes>, Error> {
        loop {
            if self.done == self.wanted.size {
                let found = manifest::written(self.hash.clone());
                return match found == self.wanted.digest {
                    true => Ok(None),
                    false => Err(mismatch(&self.name(), &self.wanted.digest, &found)),
                };
            }
            match self.part(registry).await {
                Ok(Some(part)) => return Ok(Some(part)),
                Ok(None) => {}
                Err(error) if error.is_passing() => self.pause(error, registry.transport.patience).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// The next bytes of the answer, which is asked for where there is none; nothing where there is more to read.
    async fn part(&mut self, registry: &mut Registry) -> Result<Option<Bytes>, Error> {
        let name = self.name();
        let answer = match &mut self.answer {
            Some(answer) => answer,
            None => {
                let answer = self.open(registry).await?;
                self.answer.insert(answer)
            }
        };
        let Some(mut part) = answer.part().await? else {
            return Err(mismatch(&format!("the size of {name}"), &self.wanted.size, &self.done));
        };
        if self.skip > 0 {
            let again = self.skip.min(part.len() as u64);
            // At most the length of a slice.
            drop(part.split_to(again as usize));
            self.skip -= again;
            if part.is_empty() {
                return Ok(None);
            }
        }
        if part.len() as u64 > self.wanted.size - self.done {
            return Err(mismatch(&format!("the size of {name}"), &self.wanted.size, &"more"));
        }
        self.hash.update(&part);
        self.done += part.len() as u64;
        self.idle = 0;
        Ok(Some(part))
    }

    async fn open(&mut self, registry: &mut Registry) -> Result<Answer, Error> {
        let path = format!("/v2/{}/blobs/{}", registry.repository, self.wanted.digest);
        let range = HeaderValue::try_from(format!("bytes={}-", self.done)).ok().filter(|_| self.done > 0);
        let headers: Vec<_> = range.map(|value| (RANGE, value)).into_iter().collect();
        let answer = registry.get(&path, &headers, &self.name()).await?;
        let begins = answer.headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()?.strip_prefix("bytes ")?.split_once('-'));
        let begins = begins.and_then(|(start, _)| start.trim().parse().ok());
        let expected = match answer.status {
            StatusCode::OK => {
                self.skip = self.done;
                self.wanted.size
            }
            StatusCode::PARTIAL_CONTENT if begins == Some(self.done) && self.done > 0 => {
                self.skip = 0;
                self.wanted.size - self.done
            }
            _ => {
                return Err(Error::Answer {
                    host: answer.origin.to_string(),
                    reason: "it gives other bytes than were asked for".to_owned(),
                });
            }
        };
        match answer.length() {
            Some(length) if length != expected => Err(mismatch(&format!("the size of {}", self.name()), &expected, &length)),
            _ => Ok(answer),
        }
    }

    async fn pause(&mut self, error: Error, patience: Patience) -> Result<(), Error> {
        self.answer = None;
        self.idle += 1;
        self.tries += 1;
        if self.idle >= patience.tries || self.tries >= TAKEN_UP {
            let (done, of) = (self.done, self.wanted.size);
            return Err(Error::GivenUp { what: self.name(), done, of, tries: self.idle - 1, source: Box::new(error) });
        }
        tracing::info!(blob = self.wanted.digest, done = self.done, error = crate::chain(&error), "a layer is taken up again");
        tokio::time::sleep(patience.pause.saturating_mul(1 << (self.idle - 1).min(6))).await;
        Ok(())
    }

    fn name(&self) -> String {
        format!("blob {}", self.wanted.digest)
    }
}

fn mismatch(what: &str, expected: &dyn std::fmt::Display, found: &dyn std::fmt::Display) -> Error {
    Error::Mismatch { what: what.to_owned(), expected: expected.to_string(), found: found.to_string() }
}
