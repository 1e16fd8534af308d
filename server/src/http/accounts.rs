//! Accounts that hold berths.

use axum::{Json as Answer, extract::State};
use berth_api as api;

use super::{
    Api,
    error::{Error, Failure},
    extract::{PageQuery, Query},
    paged,
};
use crate::{
    domain::{AccountState, Caller},
    service::HolderState,
};

/// Lists the accounts of berths in the order of their names, with what the host last said of them.
#[utoipa::path(get, path = "/accounts", tag = "users", params(PageQuery), responses((status = 200, body = api::AccountList), Failure))]
pub(super) async fn list_accounts(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Answer<api::AccountList>, Error> {
    let (page, limit) = query.page()?;
    let (accounts, alarms) = api.service.accounts(&caller, &page).await?;
    let (items, next) = paged(accounts, limit, |one| one.berth.user.to_string(), shown);
    let alarms = alarms.into_iter().map(|alarm| api::AccountAlarm { code: alarm.code, detail: alarm.detail }).collect();
    Ok(Answer(api::AccountList { items, next, alarms }))
}

fn shown(HolderState { berth, watch }: HolderState) -> api::Account {
    let status = berth.status.as_ref();
    api::Account {
        user: berth.user.to_string(),
        uid: berth.uid,
        state: watch.as_ref().map_or(api::AccountState::Unknown, |watch| match watch.state {
            AccountState::Present => api::AccountState::Present,
            AccountState::Vanished => api::AccountState::Vanished,
            AccountState::Locked => api::AccountState::Locked,
            AccountState::Expired => api::AccountState::Expired,
            AccountState::Renamed => api::AccountState::Renamed,
            AccountState::Unknown => api::AccountState::Unknown,
        }),
        since: watch.as_ref().map(|watch| watch.since),
        last_used_at: watch.as_ref().and_then(|watch| watch.last_used_at).max(status.and_then(|status| status.last_used_at)),
        created_at: berth.created_at,
        suspended: berth.suspension.map(|suspension| suspension.reason),
        disk_bytes: status.and_then(|status| status.usage).map(|usage| usage.disk_bytes),
        detail: watch.map(|watch| watch.detail).unwrap_or_default(),
    }
}
