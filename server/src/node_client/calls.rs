//! Spools of Docker API calls: what waits on the node, page by page, and what is stored.

use berth_protocol as wire;
use futures_util::{Stream, StreamExt};
use hyper::Method;

use super::{ASK, Error, NodeClient, lines};
use crate::domain::{BerthId, Call, CallOutcome, CallPage, CallsAt, split_version};

impl NodeClient {
    /// Every spool that holds something, then each growth, until the connection ends.
    pub async fn calls_watch(&self) -> Result<impl Stream<Item = Result<CallsAt, Error>> + Send + use<>, Error> {
        let what = "watch of calls";
        let response = self.within(what, ASK, self.open(what, Method::GET, "/v1/calls/watch", None, false)).await?;
        Ok(lines::decode::<wire::CallsAt>(what, response.into_body())
            .map(|at| at.map(|wire::CallsAt { id, end, .. }| CallsAt { id: BerthId(id.0), end })))
    }

    /// Calls behind a position of a spool.
    pub async fn calls(&self, id: BerthId, after: u64) -> Result<CallPage, Error> {
        let page: wire::CallPage = self.ask("page of calls", &format!("/v1/calls/{id}?after={after}")).await?;
        Ok(CallPage { next: page.next, more: page.more, calls: page.records.into_iter().map(Call::from).collect() })
    }

    /// Everything before `position` is stored here.
    pub async fn calls_taken(&self, id: BerthId, position: u64) -> Result<(), Error> {
        let path = format!("/v1/calls/{id}/taken");
        self.collect("confirmation of calls", Method::POST, &path, Some(&wire::CallsTaken { position }), ASK).await.map(drop)
    }
}

impl From<wire::CallRecord> for Call {
    fn from(record: wire::CallRecord) -> Self {
        match record {
            wire::CallRecord::Call(call) => {
                let (version, path) = split_version(&call.path);
                Self {
                    at: call.at,
                    user: call.user,
                    uid: call.uid,
                    pid: call.pid,
                    command: call.command,
                    method: call.method,
                    version: version.map(str::to_owned),
                    path: path.to_owned(),
                    image: call.image,
                    container: call.container,
                    status: call.status,
                    request_bytes: call.request_bytes,
                    response_bytes: call.response_bytes,
                    duration_ms: call.duration_ms,
                    outcome: match call.outcome {
                        wire::Outcome::Answered => CallOutcome::Answered,
                        wire::Outcome::Upgraded => CallOutcome::Upgraded,
                        wire::Outcome::Refused => CallOutcome::Refused,
                        wire::Outcome::Cut => CallOutcome::Cut,
                        wire::Outcome::Unparsed => CallOutcome::Unparsed,
                    },
                    lost: 0,
                }
            }
            wire::CallRecord::Lost { at, user, uid, count } => Self {
                at,
                user,
                uid,
                pid: 0,
                command: String::new(),
                method: String::new(),
                version: None,
                path: String::new(),
                image: None,
                container: None,
                status: None,
                request_bytes: 0,
                response_bytes: 0,
                duration_ms: 0,
                outcome: CallOutcome::Lost,
                lost: count,
            },
        }
    }
}
