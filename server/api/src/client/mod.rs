//! Client of the API over its unix socket, or over TCP with a token. One connection per request: connecting costs microseconds on the
//! host, and an idle client holds nothing.

mod exec;
mod people;
mod remote;
mod sign_in;
mod transport;

use std::{fmt::Write, io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Method, StatusCode, body::Frame};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

pub use remote::{Remote, RemoteError, Trust};

pub use exec::{Exec, ExecError, ExecFrame, ExecReader, ExecWriter};

use crate::{
    Accepted, AccountList, AllAccepted, ArchiveList, AuditList, Berth, BerthChange, BerthList, BuildImage, ChangePreview, Doctor,
    ExecBerth, Image, ImageList, NewBerth, NewProfile, Node, Operation, OperationList, PREFIX, Problem, Profile, ProfileChange,
    ProfileList, PullImage, RebuildBerth, RestoreBerth, SuspendBerth, UsageList, User,
};

/// A request body: JSON or a stream of bytes.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How long a request without a body stream may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than the server waits for its node.
const DEEP: Duration = Duration::from_secs(400);
/// Largest answer that is not a stream.
pub(crate) const MAX_ANSWER: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot reach the Berth service at {service}")]
    Connect { service: String, source: io::Error },
    #[error("the connection to the Berth service broke")]
    Connection(#[source] hyper::Error),
    #[error("no answer to {method} {path} within {} s", TIMEOUT.as_secs())]
    Timeout { method: Method, path: String },
    #[error("answer to {method} {path} is not understood")]
    Decode { method: Method, path: String, source: serde_json::Error },
    #[error("{what} is not a valid request")]
    Request { what: String, source: hyper::http::Error },
    #[error("the service did not take over the connection for exec")]
    NoUpgrade,
    /// The service refused; the problem says why.
    #[error(transparent)]
    Problem(#[from] Problem),
}

/// Which records of the audit trail are wanted.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// `action` or `call`.
    pub kind: Option<String>,
    pub user: Option<String>,
    /// From, before; milliseconds since the epoch.
    pub since: Option<i64>,
    pub until: Option<i64>,
    /// Beginning of the path of a call, without the version.
    pub path: Option<String>,
    /// Least status of a call.
    pub status: Option<u16>,
}

/// Which berths, in what order; the words of `GET /berths`.
#[derive(Clone, Debug, Default)]
pub struct BerthQuery {
    pub state: Option<String>,
    pub profile: Option<String>,
    /// Beginning of the name.
    pub user: Option<String>,
    /// Part of the name.
    pub search: Option<String>,
    pub condition: Option<String>,
    pub sort: Option<String>,
    pub order: Option<String>,
}

/// Which operations; the words of `GET /operations`.
#[derive(Clone, Debug)]
pub struct OperationQuery {
    pub subject: Option<String>,
    pub state: Option<String>,
    pub kind: Option<String>,
    pub limit: u32,
}

impl AuditFilter {
    fn query(&self) -> String {
        let number = |n: i64| n.to_string();
        let parts = [
            ("kind", self.kind.clone()),
            ("user", self.user.clone()),
            ("since", self.since.map(number)),
            ("until", self.until.map(number)),
            ("path", self.path.clone()),
            ("status", self.status.map(|status| number(status.into()))),
        ];
        parts.iter().fold(String::new(), |mut query, (name, value)| {
            if let Some(value) = value {
                let _ = write!(query, "&{name}={}", segment(value));
            }
            query
        })
    }
}

/// Where the API is.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    Socket(PathBuf),
    Remote(Arc<Remote>),
}

/// Client of one service.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
}

impl Client {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { endpoint: Endpoint::Socket(socket.into()) }
    }

    /// Over TCP, as the owner of a token.
    pub fn remote(remote: Remote) -> Self {
        Self { endpoint: Endpoint::Remote(Arc::new(remote)) }
    }

    /// All berths that the caller may see, page by page.
    pub async fn all_berths(&self) -> Result<Vec<Berth>, Error> {
        self.berths(&BerthQuery::default()).await
    }

    /// All berths that the query takes, in its order, page by page.
    pub async fn berths(&self, query: &BerthQuery) -> Result<Vec<Berth>, Error> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let parts = [
                ("state", &query.state),
                ("profile", &query.profile),
                ("user", &query.user),
                ("search", &query.search),
                ("condition", &query.condition),
                ("sort", &query.sort),
                ("order", &query.order),
                ("cursor", &cursor),
            ];
            let page: BerthList = self.get(&narrowed("/berths?limit=200", &parts)).await?;
            all.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(all),
            }
        }
    }

    pub async fn berth(&self, user: &str) -> Result<Berth, Error> {
        self.get(&format!("/berths/{}", segment(user))).await
    }

    pub async fn assign(&self, berth: &NewBerth) -> Result<Accepted, Error> {
        self.send(Method::POST, "/berths", berth).await
    }

    pub async fn change(&self, user: &str, change: &BerthChange) -> Result<Accepted, Error> {
        self.send(Method::PATCH, &format!("/berths/{}", segment(user)), change).await
    }

    /// What the change would do; refused as the change would be.
    pub async fn preview(&self, user: &str, change: &BerthChange) -> Result<ChangePreview, Error> {
        self.send(Method::POST, &format!("/berths/{}/preview", segment(user)), change).await
    }

    /// What the berths that are up use now: all that the caller may see, or one user's.
    pub async fn usage(&self, user: Option<&str>) -> Result<UsageList, Error> {
        let path = user.map_or_else(|| "/usage".to_owned(), |user| format!("/usage?user={}", segment(user)));
        self.get(&path).await
    }

    /// Deletes a berth once its archive is written; an empty name: after the user and the time.
    pub async fn delete_into_archive(&self, user: &str, archive: &str) -> Result<Accepted, Error> {
        self.call(Method::DELETE, &format!("/berths/{}?archive={}", segment(user), segment(archive))).await
    }

    pub async fn archives(&self) -> Result<ArchiveList, Error> {
        self.get("/archives").await
    }

    pub async fn remove_archive(&self, archive: &str) -> Result<Accepted, Error> {
        self.call(Method::DELETE, &format!("/archives/{}", segment(archive))).await
    }

    pub async fn restore(&self, archive: &str, request: &RestoreBerth) -> Result<Accepted, Error> {
        self.send(Method::POST, &format!("/archives/{}/restore", segment(archive)), request).await
    }

    /// The accounts of all berths, and what is wrong with the whole.
    pub async fn all_accounts(&self) -> Result<AccountList, Error> {
        let mut all: AccountList = self.get("/accounts?limit=500").await?;
        while let Some(cursor) = all.next.take() {
            let page: AccountList = self.get(&format!("/accounts?limit=500&cursor={}", segment(&cursor))).await?;
            all.items.extend(page.items);
            all.next = page.next;
        }
        Ok(all)
    }

    pub async fn start(&self, user: &str) -> Result<Accepted, Error> {
        self.call(Method::POST, &format!("/berths/{}/start", segment(user))).await
    }

    pub async fn stop(&self, user: &str) -> Result<Accepted, Error> {
        self.call(Method::POST, &format!("/berths/{}/stop", segment(user))).await
    }

    pub async fn restart(&self, user: &str) -> Result<Accepted, Error> {
        self.call(Method::POST, &format!("/berths/{}/restart", segment(user))).await
    }

    pub async fn rebuild(&self, user: &str, wipe: bool) -> Result<Accepted, Error> {
        self.send(Method::POST, &format!("/berths/{}/rebuild", segment(user)), &RebuildBerth { wipe }).await
    }

    pub async fn suspend(&self, user: &str, reason: &str) -> Result<Accepted, Error> {
        let body = SuspendBerth { reason: reason.to_owned() };
        self.send(Method::POST, &format!("/berths/{}/suspend", segment(user)), &body).await
    }

    pub async fn resume(&self, user: &str) -> Result<Accepted, Error> {
        self.call(Method::POST, &format!("/berths/{}/resume", segment(user))).await
    }

    pub async fn suspend_all(&self, reason: &str) -> Result<AllAccepted, Error> {
        self.send(Method::POST, "/berths:suspend", &SuspendBerth { reason: reason.to_owned() }).await
    }

    pub async fn resume_all(&self) -> Result<AllAccepted, Error> {
        self.call(Method::POST, "/berths:resume").await
    }

    pub async fn delete(&self, user: &str) -> Result<Accepted, Error> {
        self.call(Method::DELETE, &format!("/berths/{}", segment(user))).await
    }

    /// Runs a command inside the berth; the answer carries frames both ways.
    pub async fn exec(&self, user: &str, request: &ExecBerth) -> Result<Exec, Error> {
        let path = format!("{PREFIX}/berths/{}/exec", segment(user));
        let response = transport::request(&self.endpoint, Method::POST, &path, Some(json(request)), true).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(match decode_problem(response).await {
                Err(error) => error,
                Ok(_) => Error::NoUpgrade,
            });
        }
        hyper::upgrade::on(response).await.map(Exec::new).map_err(Error::Connection)
    }

    /// The berth's console, `tail` lines back; with `follow` the stream goes on until either side ends it.
    pub async fn logs(
        &self,
        user: &str,
        tail: Option<u32>,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + use<>, Error> {
        let mut path = format!("{PREFIX}/berths/{}/logs?follow={follow}", segment(user));
        if let Some(tail) = tail {
            let _ = write!(path, "&tail={tail}");
        }
        let response = transport::request(&self.endpoint, Method::GET, &path, None, false).await?;
        let response = decode_problem(response).await?;
        Ok(response.into_body().into_data_stream().map(|part| part.map_err(Error::Connection)))
    }

    pub async fn profiles(&self) -> Result<ProfileList, Error> {
        self.get("/profiles?limit=500").await
    }

    pub async fn profile(&self, name: &str) -> Result<Profile, Error> {
        self.get(&format!("/profiles/{}", segment(name))).await
    }

    pub async fn create_profile(&self, profile: &NewProfile) -> Result<Profile, Error> {
        self.send(Method::POST, "/profiles", profile).await
    }

    pub async fn change_profile(&self, name: &str, change: &ProfileChange) -> Result<Profile, Error> {
        self.send(Method::PATCH, &format!("/profiles/{}", segment(name)), change).await
    }

    pub async fn delete_profile(&self, name: &str) -> Result<(), Error> {
        let path = format!("/profiles/{}", segment(name));
        self.answer(Method::DELETE, &path, None, TIMEOUT).await.map(drop)
    }

    pub async fn images(&self) -> Result<ImageList, Error> {
        self.get("/images").await
    }

    pub async fn build_image(&self, build: &BuildImage) -> Result<Accepted, Error> {
        self.send(Method::POST, "/images", build).await
    }

    /// Sends a root tar or an OCI layout; answers once all of it has arrived. The stream is read as fast as the node writes.
    pub async fn import_image<S>(&self, name: &str, tar: S) -> Result<Accepted, Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let path = format!("/images/{}", segment(name));
        let body = StreamBody::new(tar.map(|part| part.map(Frame::data))).boxed_unsync();
        let bytes = self.answer(Method::PUT, &path, Some(("application/x-tar", body)), Duration::MAX).await?;
        decode(Method::PUT, &path, &bytes)
    }

    pub async fn pull_image(&self, name: &str, pull: &PullImage) -> Result<Accepted, Error> {
        self.send(Method::POST, &format!("/images/{}/pull", segment(name)), pull).await
    }

    pub async fn remove_image(&self, image: &str) -> Result<Accepted, Error> {
        self.call(Method::DELETE, &format!("/images/{}", segment(image))).await
    }

    pub async fn set_default_image(&self, image: &str) -> Result<Image, Error> {
        self.call(Method::POST, &format!("/images/{}/default", segment(image))).await
    }

    /// The newest operations that the query takes.
    pub async fn operations(&self, query: &OperationQuery) -> Result<OperationList, Error> {
        let parts = [("subject", &query.subject), ("state", &query.state), ("kind", &query.kind)];
        self.get(&narrowed(&format!("/operations?limit={}", query.limit), &parts)).await
    }

    pub async fn cancel_operation(&self, id: Uuid) -> Result<Operation, Error> {
        self.call(Method::POST, &format!("/operations/{id}/cancel")).await
    }

    pub async fn operation(&self, id: Uuid) -> Result<Operation, Error> {
        self.get(&format!("/operations/{id}")).await
    }

    /// The operation as soon as it has finished or its revision is not `revision` any more; at the latest after `timeout`.
    pub async fn wait(&self, id: Uuid, timeout: Duration, revision: Option<u64>) -> Result<Operation, Error> {
        let mut path = format!("/operations/{id}/wait?timeout={}", timeout.as_secs().min(50));
        if let Some(revision) = revision {
            let _ = write!(path, "&revision={revision}");
        }
        self.get(&path).await
    }

    /// A page of the audit trail, newest first.
    pub async fn audit(&self, filter: &AuditFilter, limit: u32, cursor: Option<&str>) -> Result<AuditList, Error> {
        let mut path = format!("/audit?limit={limit}{}", filter.query());
        if let Some(cursor) = cursor {
            let _ = write!(path, "&cursor={}", segment(cursor));
        }
        self.get(&path).await
    }

    /// What was added to the audit trail since an answer's `follow`: as soon as there is something, at the latest after `wait`.
    pub async fn follow_audit(&self, filter: &AuditFilter, after: &str, wait: Duration) -> Result<AuditList, Error> {
        let (after, wait) = (segment(after), wait.as_secs().min(50));
        self.get(&format!("/audit?limit=500&after={after}&wait={wait}{}", filter.query())).await
    }

    pub async fn node(&self) -> Result<Node, Error> {
        self.get("/node").await
    }

    pub async fn doctor(&self) -> Result<Doctor, Error> {
        self.get("/doctor").await
    }

    /// Takes seconds; minutes where something hangs.
    pub async fn deep_doctor(&self) -> Result<Doctor, Error> {
        let bytes = self.answer(Method::POST, "/doctor/deep", None, DEEP).await?;
        decode(Method::POST, "/doctor/deep", &bytes)
    }

    pub async fn user(&self, name: &str) -> Result<User, Error> {
        self.get(&format!("/users/{}", segment(name))).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::GET, path).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, Error> {
        let bytes = self.answer(method.clone(), path, None, TIMEOUT).await?;
        decode(method, path, &bytes)
    }

    async fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Result<T, Error> {
        let bytes = self.answer(method.clone(), path, Some(json(body)), TIMEOUT).await?;
        decode(method, path, &bytes)
    }

    async fn answer(&self, method: Method, path: &str, body: Option<(&'static str, Body)>, limit: Duration) -> Result<Bytes, Error> {
        let full = format!("{PREFIX}{path}");
        let exchange = async {
            let response = transport::request(&self.endpoint, method.clone(), &full, body, false).await?;
            transport::collect(decode_problem(response).await?).await
        };
        tokio::time::timeout(limit, exchange).await.map_err(|_| Error::Timeout { method: method.clone(), path: full.clone() })?
    }
}

fn json(body: &impl Serialize) -> (&'static str, Body) {
    // The request types hold strings and numbers only, so that serialising them cannot fail.
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    ("application/json", Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync())
}

fn decode<T: DeserializeOwned>(method: Method, path: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Decode { method, path: path.to_owned(), source })
}

/// Passes a success on; turns anything else into the problem it holds.
async fn decode_problem(response: hyper::Response<hyper::body::Incoming>) -> Result<hyper::Response<hyper::body::Incoming>, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let bytes = transport::collect(response).await?;
    Err(Error::Problem(serde_json::from_slice(&bytes).unwrap_or_else(|_| Problem {
        status: status.as_u16(),
        code: "unexpected_answer".to_owned(),
        detail: format!("the service answered {status} without saying why"),
        hint: None,
        request_id: None,
    })))
}

fn narrowed(path: &str, parts: &[(&str, &Option<String>)]) -> String {
    parts.iter().fold(path.to_owned(), |mut path, (name, value)| {
        if let Some(value) = value {
            let _ = write!(path, "&{name}={}", segment(value));
        }
        path
    })
}

/// One path segment or query value, percent-encoded.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => out.push(char::from(byte)),
            // A lone "." or ".." would be taken for a relative path by some software on the way.
            b'.' if text.bytes().any(|b| b != b'.') => out.push('.'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_stay_one_segment() {
        assert_eq!(segment("alice.b"), "alice.b");
        assert_eq!(segment(".."), "%2E%2E");
        assert_eq!(segment("a/b?c\0é"), "a%2Fb%3Fc%00%C3%A9");
    }

    #[tokio::test]
    async fn a_missing_socket_is_named() {
        let error = Client::new("/nonexistent/api.sock").node().await.unwrap_err();
        assert_eq!(error.to_string(), "cannot reach the Berth service at /nonexistent/api.sock");
    }
}
