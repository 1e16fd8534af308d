//! A registry of one image on the loopback, which lies as it is told.

use std::sync::{Arc, Mutex};

use berth_server::domain::{Reference, RegistryAccess};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

pub const USER: &str = "alice";
pub const WORD: &str = "hemp rope 31";
/// `alice:hemp rope 31`
const BASIC: &str = "authorization: Basic YWxpY2U6aGVtcCByb3BlIDMx\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It says the truth.
    None,
    /// An index before the manifest, and schema 1 instead of it.
    Index,
    Schema1,
    /// Bytes of the layer, and of the manifest, that their digests do not fit.
    Layer,
    Manifest,
    /// A layer that says another length than the manifest, that comes to an end before it, and that never ends.
    Length,
    Short,
    Endless,
    /// 100 GiB in the manifest; a manifest without end.
    Huge,
    EndlessManifest,
    /// Nothing more after a part of the layer: each time, once, and once by a registry that knows no ranges.
    Stall,
    Once,
    OnceWithoutRanges,
    /// Answers nothing at all.
    Mute,
    /// From one address to the next without end, and to a place without TLS that is not of this host.
    Circle,
    Away,
    /// Wants a name and a password; wants a token for them.
    Basic,
    Token,
    /// Fails itself.
    Broken,
    /// Of another platform.
    Foreign,
}

#[derive(Clone)]
pub struct Registry {
    pub address: String,
    pub lie: Arc<Mutex<Lie>>,
    /// Heads of requests, in small letters.
    pub seen: Arc<Mutex<Vec<String>>>,
    pub layer: Arc<Vec<u8>>,
    /// Where blobs are, if not here.
    elsewhere: Option<String>,
}

impl Registry {
    pub async fn start(lie: Lie) -> Self {
        Self::with(lie, None).await
    }

    /// One whose blobs lie with another.
    pub async fn with(lie: Lie, elsewhere: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let layer = (0..400_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let address = listener.local_addr().unwrap().to_string();
        let registry = Self { address, lie: Arc::new(Mutex::new(lie)), seen: Arc::default(), layer: Arc::new(layer), elsewhere };
        let served = registry.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let served = served.clone();
                // Whoever has heard enough hangs up.
                tokio::spawn(async move { drop(served.serve(stream).await) });
            }
        });
        registry
    }

    pub fn reference(&self) -> Reference {
        format!("{}/team/base:1", self.address).parse().unwrap()
    }

    pub fn plain(&self) -> RegistryAccess {
        RegistryAccess { plain: true, ..RegistryAccess::default() }
    }

    pub fn asked(&self, what: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|head| head.contains(what)).count()
    }

    pub fn tell(&self, lie: Lie) {
        *self.lie.lock().unwrap() = lie;
    }

    fn config(&self) -> Vec<u8> {
        let architecture = match std::env::consts::ARCH {
            _ if *self.lie.lock().unwrap() == Lie::Foreign => "s390x",
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let ids = [digest(&self.layer)];
        json!({ "os": "linux", "architecture": architecture, "rootfs": { "type": "layers", "diff_ids": ids } }).to_string().into_bytes()
    }

    pub fn manifest(&self) -> Vec<u8> {
        let config = self.config();
        let size = if *self.lie.lock().unwrap() == Lie::Huge { 100 << 30 } else { self.layer.len() as u64 };
        let kind = "application/vnd.oci.image.config.v1+json";
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": kind, "digest": digest(&config), "size": config.len() },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(&self.layer), "size": size }],
        })
        .to_string()
        .into_bytes()
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while stream.read_line(&mut head).await? > 2 {}
        // The case of a name and a password counts.
        let named = head.contains(BASIC);
        let head = head.to_lowercase();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        self.seen.lock().unwrap().push(head.clone());
        let lie = *self.lie.lock().unwrap();
        let stream = stream.get_mut();
        let layer = format!("/v2/team/base/blobs/{}", digest(&self.layer));
        match (lie, path.as_str()) {
            (Lie::Mute, _) => std::future::pending().await,
            (Lie::Broken, _) => answer(stream, "503 Service Unavailable", "", b"").await,
            (Lie::Circle, path) if path.contains("/blobs/") => {
                let next = format!("location: http://{}{path}x\r\n", self.address);
                answer(stream, "307 Temporary Redirect", &next, b"").await
            }
            (Lie::Away, _) => answer(stream, "302 Found", "location: http://192.0.2.1/x\r\n", b"").await,
            (Lie::Basic, _) if !named => answer(stream, "401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n", b"").await,
            (Lie::Token, path) if path.starts_with("/token") => match named {
                true => answer(stream, "200 OK", "", b"{\"token\":\"sesame\"}").await,
                false => answer(stream, "401 Unauthorized", "", b"").await,
            },
            (Lie::Token, _) if !head.contains("authorization: bearer sesame") => {
                let wanted = format!("www-authenticate: Bearer realm=\"http://{}/token\",service=\"it\"\r\n", self.address);
                answer(stream, "401 Unauthorized", &wanted, b"").await
            }
            (_, path) if path.contains("/blobs/") && self.elsewhere.is_some() => {
                let next = format!("location: http://{}{path}\r\n", self.elsewhere.as_deref().unwrap());
                answer(stream, "307 Temporary Redirect", &next, b"").await
            }
            (Lie::EndlessManifest, path) if path.contains("/manifests/") => endless(stream).await,
            (Lie::Schema1, path) if path.contains("/manifests/") => answer(stream, "200 OK", "", b"{\"schemaVersion\":1}").await,
            (Lie::Manifest, path) if path.contains("/manifests/") => {
                let said = format!("docker-content-digest: {}\r\n", digest(b"another"));
                answer(stream, "200 OK", &said, &self.manifest()).await
            }
            (Lie::Index, "/v2/team/base/manifests/1") => {
                let manifest = self.manifest();
                let entry = json!({ "digest": digest(&manifest), "size": manifest.len() });
                answer(stream, "200 OK", "", json!({ "manifests": [entry] }).to_string().as_bytes()).await
            }
            (_, path) if path.contains("/manifests/1") || path.ends_with(&digest(&self.manifest())) => {
                answer(stream, "200 OK", &format!("docker-content-digest: {}\r\n", digest(&self.manifest())), &self.manifest()).await
            }
            (_, path) if path.ends_with(&digest(&self.config())) => answer(stream, "200 OK", "", &self.config()).await,
            (lie, path) if path == layer => self.blob(stream, lie, &head).await,
            _ => answer(stream, "404 Not Found", "", b"").await,
        }
    }

    async fn blob(&self, stream: &mut TcpStream, lie: Lie, head: &str) -> std::io::Result<()> {
        let range = head.split("range: bytes=").nth(1).and_then(|rest| rest.split('-').next()?.parse::<usize>().ok());
        let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", self.layer.len());
        match (lie, range) {
            (Lie::Layer, _) => answer(stream, "200 OK", "", &vec![7; self.layer.len()]).await,
            (Lie::Length, _) => answer(stream, "200 OK", "", &self.layer[1..]).await,
            (Lie::Endless, _) => endless(stream).await,
            (Lie::Short, _) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
                stream.write_all(b"4\r\n1234\r\n0\r\n\r\n").await
            }
            (Lie::Stall, _) | (Lie::Once | Lie::OnceWithoutRanges, None) => {
                let from = range.unwrap_or(0);
                let status = match range {
                    Some(from) => format!(
                        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{}/{}\r\ncontent-length: {}\r\n\r\n",
                        self.layer.len() - 1,
                        self.layer.len(),
                        self.layer.len() - from
                    ),
                    None => whole,
                };
                stream.write_all(status.as_bytes()).await?;
                if from == 0 {
                    stream.write_all(&self.layer[..150_000]).await?;
                }
                std::future::pending().await
            }
            (Lie::OnceWithoutRanges, Some(_)) | (_, None) => answer(stream, "200 OK", "", &self.layer).await,
            (_, Some(from)) => {
                let said = format!("content-range: bytes {from}-{}/{}\r\n", self.layer.len() - 1, self.layer.len());
                answer(stream, "206 Partial Content", &said, &self.layer[from..]).await
            }
        }
    }
}

async fn answer(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await
}

async fn endless(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    loop {
        stream.write_all(&[0; 65_536]).await?;
    }
}

pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
