//! The audit trail.

use std::time::Duration;

use axum::{Json as Answer, extract::State, http::StatusCode};
use berth_api::AuditList;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api, convert,
    error::{Error, Failure},
    extract::{Query, page},
    paged,
};
use crate::{
    domain::{AuditId, Caller, Refusal, TrailFilter, TrailHead, TrailKind},
    service::Followed,
};

/// Longest path or name in a query.
const LONGEST: usize = 1024;
/// A long poll ends before clients and what is between give up.
const LONGEST_WAIT: u64 = 50;

#[derive(Clone, Copy, Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Action,
    Call,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// Rows of a page: 1 to 500, 100 unless set.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only what was asked of Berth, or only calls of users' Dockers.
    #[param(inline)]
    kind: Option<Kind>,
    /// Only calls of this user, and what was done about his berth.
    user: Option<String>,
    /// Only records about this user, profile or image.
    subject: Option<String>,
    /// From this time on; milliseconds since the epoch.
    since: Option<i64>,
    /// Before this time; milliseconds since the epoch.
    until: Option<i64>,
    /// Only calls whose path, without the version, begins so: `/containers`.
    path: Option<String>,
    /// Only calls with at least this status.
    #[param(minimum = 100, maximum = 599)]
    status: Option<u16>,
    /// `follow` of an earlier answer: what was added since, oldest first.
    after: Option<String>,
    /// With `after`: seconds to wait for something to be added, 50 at most.
    wait: Option<u64>,
}

/// Lists the audit trail: what was asked of Berth, and the calls of users' Dockers. Newest first; with `after`, what was added since. A user without a role sees what is his.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditQuery), responses((status = 200, body = AuditList), Failure))]
pub(super) async fn list_audit(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Answer<AuditList>, Error> {
    let after = query.after.as_deref().map(|text| head(text).ok_or_else(|| invalid("invalid_cursor", "after is not what an answer gave")));
    let (after, wait) = (after.transpose()?, Duration::from_secs(query.wait.unwrap_or_default().min(LONGEST_WAIT)));
    let (page, limit) = page(query.limit, query.cursor.clone())?;
    let filter = query.filter()?;
    let Some(after) = after else {
        let listed = api.service.audit(&caller, filter, &page).await?;
        let follow = text(listed.head);
        let (items, next) = paged(listed.records, limit, |record| record.id().to_string(), convert::audit);
        return Ok(Answer(AuditList { items, next, follow }));
    };
    let following = api.service.follow_audit(&caller, filter, after, limit, wait);
    // A server that is about to end answers at once: whoever waits asks its successor.
    let nothing = Followed { records: Vec::new(), head: after };
    let Followed { records, head } = api.soft.run_until_cancelled(following).await.unwrap_or(Ok(nothing))?;
    Ok(Answer(AuditList { items: records.into_iter().map(convert::audit).collect(), next: None, follow: text(head) }))
}

impl AuditQuery {
    fn filter(self) -> Result<TrailFilter, Error> {
        let long = |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() > LONGEST || text.contains('\0'));
        if [&self.user, &self.subject, &self.path].into_iter().any(long) {
            return Err(invalid("invalid_query", "user, subject and path have at most 1024 bytes, and no zero byte"));
        }
        if self.path.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(invalid("invalid_query", "path begins with a slash"));
        }
        Ok(TrailFilter {
            kind: self.kind.map(|kind| match kind {
                Kind::Action => TrailKind::Action,
                Kind::Call => TrailKind::Call,
            }),
            user: self.user,
            subject: self.subject,
            uid: None,
            since: self.since,
            until: self.until,
            path: self.path,
            status: self.status,
        })
    }
}

fn text(head: TrailHead) -> String {
    format!("{}.{}", head.seq, head.action)
}

fn head(text: &str) -> Option<TrailHead> {
    let (seq, action) = text.split_once('.')?;
    Some(TrailHead { seq: seq.parse().ok()?, action: AuditId(action.parse().ok()?) })
}

fn invalid(code: &str, detail: &str) -> Error {
    Error::new(StatusCode::BAD_REQUEST, Refusal::Invalid, code, detail)
}
