//! Typed client of berth-node over its unix socket: the only place that knows the node's wire.
//!
//! Every call has a deadline; streams (console, watch, builds) have one for their head only. One connection per call.

mod accounts;
mod archives;
mod calls;
mod convert;
mod inside;
mod lines;
mod transport;
mod uploads;
mod usage;

use std::{
    fmt::Write,
    io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use berth_protocol as wire;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{Method, StatusCode, body::Frame, upgrade::Upgraded};
use serde::{Serialize, de::DeserializeOwned};

pub use archives::ArchiveStream;
pub use uploads::{Sent, Upload, Uploads};

use crate::domain::{
    BerthId, Check, Clock, Ensure, ExecCommand, HostUser, Image, Member, NodeInfo, Problem, Progress, Refusal, Sample, Status, UserName,
    Waits,
};

/// A question.
const ASK: Duration = Duration::from_secs(10);
/// One about many accounts; the node gives up on the name service before.
const ASK_MANY: Duration = Duration::from_secs(40);
/// A change; the node answers once the wanted state is reached, a start waits for the inner Docker.
const ACT: Duration = Duration::from_secs(240);
/// A throw-away berth; the node gives up on it, and on its removal, before.
const DEEP: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot reach berth-node at {}", socket.display())]
    Unreachable { socket: PathBuf, source: io::Error },
    #[error("the connection to berth-node broke during {what}")]
    Connection { what: String, source: hyper::Error },
    #[error("berth-node did not finish {what} within {} s", after.as_secs())]
    Timeout { what: String, after: Duration },
    #[error("berth-node's answer to {what} is not understood: {reason}")]
    Answer { what: String, reason: String },
    #[error("{what} cannot be asked of berth-node")]
    Request { what: String, source: hyper::http::Error },
    /// The node refused, or tried and failed.
    #[error("berth-node: {0}")]
    Problem(String, Problem),
}

impl Error {
    /// What a person is told.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Problem(_, problem) => problem.clone(),
            Self::Timeout { .. } => Problem::new(Refusal::TimedOut, "node_timeout", self.to_string()).hint("see the log of berth-node"),
            Self::Unreachable { .. } | Self::Connection { .. } => Problem::new(Refusal::Unavailable, "node_unreachable", self.to_string())
                .hint("see whether berth-node runs (systemctl status berth-node), and its log"),
            Self::Answer { .. } | Self::Request { .. } => Problem::new(Refusal::Failed, "node_not_understood", self.to_string())
                .hint("run the same version of berth-server and berth-node"),
        }
    }

    /// True when the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Connection { .. } | Self::Timeout { .. } => true,
            Self::Problem(_, problem) => problem.refusal == Refusal::Unavailable,
            Self::Answer { .. } | Self::Request { .. } => false,
        }
    }
}

/// Client of one node.
pub struct NodeClient {
    socket: PathBuf,
    clock: Clock,
    down_since: Mutex<Option<i64>>,
}

/// Output of a running build or import.
pub type ProgressStream = BoxStream<'static, Result<Progress, Error>>;

impl NodeClient {
    pub fn new(socket: PathBuf, clock: Clock) -> Self {
        Self { socket, clock, down_since: Mutex::new(None) }
    }

    /// Since when the node has not been reached, milliseconds since the epoch; nothing while it answers.
    pub fn down_since(&self) -> Option<i64> {
        *self.down_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn node(&self) -> Result<NodeInfo, Error> {
        let info: wire::NodeInfo = self.ask("GET node", "/v1/node").await?;
        if info.protocol != wire::VERSION {
            let reason = format!("it speaks protocol {}, this server {}", info.protocol, wire::VERSION);
            return Err(Error::Answer { what: "GET node".to_owned(), reason });
        }
        Ok(info.into())
    }

    /// The host account of this name, looked up by the node.
    pub async fn user(&self, name: &UserName) -> Result<Option<HostUser>, Error> {
        let user: Option<wire::HostUser> = found(self.ask("look-up of the user", &format!("/v1/users/{}", segment(name.as_str()))).await)?;
        Ok(user.map(HostUser::from))
    }

    /// The accounts of these names, in their order, and which of `groups` each belongs to; asks for as many at a time as the node takes.
    pub async fn members(&self, names: &[UserName], groups: &[String]) -> Result<Vec<Member>, Error> {
        let mut all = Vec::with_capacity(names.len());
        for part in names.chunks(wire::Asked::MOST_NAMES) {
            let asked = wire::Asked { names: part.iter().map(ToString::to_string).collect(), groups: groups.to_vec() };
            let what = "look-up of users";
            let told: Vec<wire::Member> = self.send(what, Method::POST, "/v1/users", Some(&asked), ASK_MANY).await?;
            if told.len() != part.len() {
                let reason = format!("it told of {} accounts, {} were asked for", told.len(), part.len());
                return Err(Error::Answer { what: what.to_owned(), reason });
            }
            all.extend(told.into_iter().map(Member::from));
        }
        Ok(all)
    }

    pub async fn berths(&self) -> Result<Vec<Status>, Error> {
        let all: Vec<wire::BerthStatus> = self.ask("list of berths", "/v1/berths").await?;
        Ok(all.into_iter().map(Status::from).collect())
    }

    pub async fn berth(&self, user: &UserName) -> Result<Option<Status>, Error> {
        let status: Option<wire::BerthStatus> = found(self.ask("look at the berth", &berth_path(user, "")).await)?;
        Ok(status.map(Status::from))
    }

    pub async fn ensure(&self, user: &UserName, ensure: &Ensure) -> Result<Status, Error> {
        let body = wire::Ensure::from(ensure);
        let status: wire::BerthStatus = self.send("set-up of the berth", Method::PUT, &berth_path(user, ""), Some(&body), ACT).await?;
        Ok(status.into())
    }

    /// What of a change would wait for a restart; fails as the change itself would.
    pub async fn preview(&self, user: &UserName, ensure: &Ensure) -> Result<Vec<Waits>, Error> {
        let body = wire::Ensure::from(ensure);
        let path = berth_path(user, "/preview");
        let waits: Vec<wire::Waits> = self.send("preview of the change", Method::POST, &path, Some(&body), ASK).await?;
        Ok(waits.into_iter().map(Waits::from).collect())
    }

    /// What the berths that are up use now, or that of one user.
    pub async fn usage(&self, user: Option<&UserName>) -> Result<Vec<Sample>, Error> {
        let path = user.map_or_else(|| "/v1/usage".to_owned(), |user| format!("/v1/usage?user={}", segment(user.as_str())));
        let all: Option<Vec<wire::BerthUsage>> = found(self.ask("use of the host", &path).await)?;
        Ok(all.into_iter().flatten().map(Sample::from).collect())
    }

    pub async fn stop(&self, user: &UserName) -> Result<Status, Error> {
        let status: wire::BerthStatus = self.send("stop of the berth", Method::POST, &berth_path(user, "/stop"), None::<&()>, ACT).await?;
        Ok(status.into())
    }

    /// Also succeeds when there is none.
    pub async fn delete(&self, user: &UserName, id: BerthId) -> Result<(), Error> {
        self.collect("removal of the berth", Method::DELETE, &berth_path(user, &format!("?id={}", id.0)), None::<&()>, ACT).await.map(drop)
    }

    /// Runs a command; the stream that comes back carries the protocol's frames.
    pub async fn exec(&self, user: &UserName, command: &ExecCommand) -> Result<Upgraded, Error> {
        let what = "exec";
        let body = json(&wire::ExecRequest::from(command));
        let response = self.within(what, ASK, self.open(what, Method::POST, &berth_path(user, "/exec"), Some(body), true)).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let reason = format!("status {} instead of an upgrade", response.status());
            return Err(Error::Answer { what: what.to_owned(), reason });
        }
        hyper::upgrade::on(response).await.map_err(|source| Error::Connection { what: what.to_owned(), source })
    }

    /// The berth's console.
    pub async fn logs(&self, user: &UserName, tail: Option<u32>, follow: bool) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let mut path = berth_path(user, &format!("/logs?follow={follow}"));
        if let Some(tail) = tail {
            let _ = write!(path, "&tail={tail}");
        }
        let what = "logs";
        let response = self.within(what, ASK, self.open(what, Method::GET, &path, None, false)).await?;
        let stream = response.into_body().into_data_stream();
        Ok(stream.map(|part| part.map_err(|source| Error::Connection { what: "logs".to_owned(), source })).boxed())
    }

    /// Every status once, then each change; ends when the node does.
    pub async fn watch(&self) -> Result<impl Stream<Item = Result<Status, Error>> + use<>, Error> {
        let response = self.within("watch", ASK, self.open("watch", Method::GET, "/v1/watch", None, false)).await?;
        Ok(lines::decode::<wire::BerthStatus>("watch", response.into_body()).map(|status| status.map(Status::from)))
    }

    pub async fn images(&self) -> Result<Vec<Image>, Error> {
        let all: Vec<wire::ImageInfo> = self.ask("list of images", "/v1/images").await?;
        Ok(all.into_iter().map(Image::from).collect())
    }

    pub async fn build_image(&self, name: &str, suite: &str) -> Result<ProgressStream, Error> {
        let body = json(&wire::BuildRequest { name: name.to_owned(), suite: suite.to_owned() });
        let what = "image build";
        let response = self.within(what, ASK, self.open(what, Method::POST, "/v1/images/build", Some(body), false)).await?;
        Ok(progress(what, response))
    }

    /// Ends the build of an image of this name, if there is one; also succeeds when there is none.
    pub async fn stop_build(&self, name: &str) -> Result<(), Error> {
        let path = format!("/v1/images/build?name={}", segment(name));
        self.collect("end of the build", Method::DELETE, &path, None::<&()>, ASK).await.map(drop)
    }

    /// Sends a root tar or an OCI layout.
    pub async fn import_image(&self, name: &str, tar: BoxStream<'static, io::Result<Bytes>>) -> Result<ProgressStream, Error> {
        let body = StreamBody::new(tar.map(|part| part.map(Frame::data))).boxed_unsync();
        let path = format!("/v1/images/import?name={}", segment(name));
        let response = self.open("image import", Method::POST, &path, Some(("application/x-tar", body)), false).await?;
        Ok(progress("image import", response))
    }

    /// Also succeeds when there is none.
    pub async fn remove_image(&self, digest: &str) -> Result<(), Error> {
        let path = format!("/v1/images/{}", segment(digest));
        match self.collect("removal of the image", Method::DELETE, &path, None::<&()>, ACT).await {
            Err(Error::Problem(_, problem)) if problem.refusal == Refusal::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    pub async fn doctor(&self) -> Result<Vec<Check>, Error> {
        let checks: Vec<wire::Check> = self.send("doctor", Method::GET, "/v1/doctor", None::<&()>, Duration::from_secs(30)).await?;
        Ok(checks.into_iter().map(Check::from).collect())
    }

    /// A container in a throw-away berth of this image; the node takes it away again also when nobody waits any more.
    pub async fn deep_doctor(&self, digest: &str) -> Result<Vec<Check>, Error> {
        let asked = wire::DeepCheck { image: digest.to_owned() };
        let checks: Vec<wire::Check> = self.send("deep doctor", Method::POST, "/v1/doctor", Some(&asked), DEEP).await?;
        Ok(checks.into_iter().map(Check::from).collect())
    }

    fn note(&self, unreachable: bool) {
        let mut down = self.down_since.lock().unwrap_or_else(PoisonError::into_inner);
        match unreachable {
            true => drop(down.get_or_insert_with(|| self.clock.now())),
            false => *down = None,
        }
    }

    async fn ask<T: DeserializeOwned>(&self, what: &str, path: &str) -> Result<T, Error> {
        self.send(what, Method::GET, path, None::<&()>, ASK).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        limit: Duration,
    ) -> Result<T, Error> {
        let bytes = self.collect(what, method, path, body, limit).await?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Answer { what: what.to_owned(), reason: error.to_string() })
    }

    async fn collect(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        limit: Duration,
    ) -> Result<Bytes, Error> {
        let exchange = async {
            let response = self.open(what, method, path, body.map(json), false).await?;
            transport::collect(what, response).await
        };
        self.within(what, limit, exchange).await
    }

    async fn within<T>(&self, what: &str, limit: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(Error::Timeout { what: what.to_owned(), after: limit }))
    }

    /// Sends the request and keeps note of whether the node could be reached.
    async fn open(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: Option<(&'static str, transport::Body)>,
        upgrade: bool,
    ) -> Result<hyper::Response<hyper::body::Incoming>, Error> {
        let result = transport::request(&self.socket, what, method, path, body, upgrade).await;
        self.note(matches!(result, Err(Error::Unreachable { .. } | Error::Connection { .. })));
        transport::accept(what, result?).await
    }
}

fn json(body: &impl Serialize) -> (&'static str, transport::Body) {
    // The protocol's types hold strings and numbers only, so that serialising them cannot fail.
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    ("application/json", Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync())
}

fn progress(what: &'static str, response: hyper::Response<hyper::body::Incoming>) -> ProgressStream {
    lines::decode::<wire::ImageProgress>(what, response.into_body()).map(|line| line.map(Progress::from)).boxed()
}

/// Turns the node's "there is none" into nothing.
fn found<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Problem(_, problem)) if matches!(problem.code.as_str(), "berth_not_found" | "user_not_found") => Ok(None),
        Err(error) => Err(error),
    }
}

fn berth_path(user: &UserName, tail: &str) -> String {
    format!("/v1/berths/{}{tail}", segment(user.as_str()))
}

/// One path segment or query value, percent-encoded.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}
