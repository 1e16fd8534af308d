//! What narrows and orders lists.

use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{error::Error, extract::page};
use crate::{
    domain::{BerthFilter, BerthSort, Kind, OperationFilter, OperationState, Refusal, State},
    service::Page,
};

/// Longest name in a query.
const LONGEST: usize = 256;

/// Which berths, in what order.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct BerthsQuery {
    /// Rows of a page: 1 to 500, 100 unless set.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before, with the same `sort` and `order`.
    cursor: Option<String>,
    /// Only berths in this state.
    #[param(inline)]
    state: Option<StateWord>,
    /// Only berths of this profile.
    profile: Option<String>,
    /// Only users whose names begin so.
    user: Option<String>,
    /// Only users whose names hold this.
    search: Option<String>,
    /// Only berths with this condition, for instance `PendingRestart`.
    condition: Option<String>,
    /// By the name of the user unless set; `memory` and `disk` by what is in use.
    #[param(inline)]
    sort: Option<SortWord>,
    /// `asc` unless set.
    #[param(inline)]
    order: Option<OrderWord>,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StateWord {
    Stopped,
    Starting,
    Running,
    Frozen,
    Stopping,
    Suspended,
    Failed,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SortWord {
    User,
    State,
    Memory,
    Disk,
    LastUsed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OrderWord {
    Asc,
    Desc,
}

impl BerthsQuery {
    pub(super) fn read(self) -> Result<(BerthFilter, Page, u32), Error> {
        names([&self.profile, &self.user, &self.search, &self.condition])?;
        let (page, limit) = page(self.limit, self.cursor)?;
        let filter = BerthFilter {
            state: self.state.map(|state| match state {
                StateWord::Stopped => State::Stopped,
                StateWord::Starting => State::Starting,
                StateWord::Running => State::Running,
                StateWord::Frozen => State::Frozen,
                StateWord::Stopping => State::Stopping,
                StateWord::Suspended => State::Suspended,
                StateWord::Failed => State::Failed,
            }),
            profile: self.profile,
            user: self.user,
            search: self.search,
            condition: self.condition,
            owner: None,
            sort: match self.sort.unwrap_or(SortWord::User) {
                SortWord::User => BerthSort::User,
                SortWord::State => BerthSort::State,
                SortWord::Memory => BerthSort::Memory,
                SortWord::Disk => BerthSort::Disk,
                SortWord::LastUsed => BerthSort::LastUsed,
            },
            descending: self.order == Some(OrderWord::Desc),
        };
        Ok((filter, page, limit))
    }
}

/// Which operations; newest first.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct OperationsQuery {
    /// Rows of a page: 1 to 500, 100 unless set.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only operations on this user's berth, or this image.
    subject: Option<String>,
    /// Only operations in this state.
    #[param(inline)]
    state: Option<OperationStateWord>,
    /// Only operations of this kind: `berth_start`.
    kind: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OperationStateWord {
    Pending,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl OperationsQuery {
    pub(super) fn read(self) -> Result<(Option<String>, OperationFilter, Page, u32), Error> {
        names([&self.subject, &self.kind])?;
        let kind = self.kind.as_deref().map(|text| {
            let known = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
            known.ok_or_else(|| invalid("there is no such kind of operation"))
        });
        let state = self.state.map(|state| match state {
            OperationStateWord::Pending => OperationState::Pending,
            OperationStateWord::Running => OperationState::Running,
            OperationStateWord::Succeeded => OperationState::Succeeded,
            OperationStateWord::Failed => OperationState::Failed,
            OperationStateWord::Cancelled => OperationState::Cancelled,
        });
        let filter = OperationFilter { state, kind: kind.transpose()? };
        let (page, limit) = page(self.limit, self.cursor)?;
        Ok((self.subject, filter, page, limit))
    }
}

fn names<'a>(names: impl IntoIterator<Item = &'a Option<String>>) -> Result<(), Error> {
    let bad = |text: &String| text.len() > LONGEST || text.contains('\0');
    match names.into_iter().flatten().any(bad) {
        true => Err(invalid("a name has at most 256 bytes, and no zero byte")),
        false => Ok(()),
    }
}

fn invalid(detail: &str) -> Error {
    Error::new(StatusCode::BAD_REQUEST, Refusal::Invalid, "invalid_query", detail)
}
