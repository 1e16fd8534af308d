//! The audit trail.

use axum::{Json as Answer, extract::State};
use berth_api::AuditList;

use super::{
    Api, convert,
    error::{Error, Failure},
    extract::{Query, SubjectQuery},
    paged,
};
use crate::domain::Caller;

/// Lists the audit trail, newest first; a user without a role sees what was done about him.
#[utoipa::path(get, path = "/audit", tag = "audit", params(SubjectQuery), responses((status = 200, body = AuditList), Failure))]
pub(super) async fn list_audit(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<SubjectQuery>,
) -> Result<Answer<AuditList>, Error> {
    let (page, limit, subject) = query.page()?;
    let records = api.service.audit(&caller, subject.as_deref(), &page).await?;
    let (items, next) = paged(records, limit, |record| record.id.to_string(), convert::audit);
    Ok(Answer(AuditList { items, next }))
}
