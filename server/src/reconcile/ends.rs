//! What ends by itself: grants, requests that nobody decided on, and assignments. Each is written down like an intent of a person's; the
//! node takes it on with the berth's next generation.

use super::Reconciler;
use crate::{
    domain::{AuditEntry, Berth, BerthId, Problem, Request, RequestState, Subject, Suspension, Wanted},
    store::{self, Connection},
};

/// Carries out what is due; when the next thing is, milliseconds since the epoch.
pub(super) async fn look(reconciler: &Reconciler) -> Result<Option<i64>, store::Error> {
    let now = reconciler.clock.now();
    let mut reader = reconciler.store.reader().await?;
    let requests = store::requests::due(&mut reader, now).await?;
    let berths = store::ends::due(&mut reader, now).await?;
    drop(reader);
    if !requests.is_empty() || !berths.is_empty() {
        let mut tx = reconciler.store.begin().await?;
        for request in requests {
            // Read again: somebody may have decided or cancelled meanwhile.
            if let Some(request) = store::requests::by_id(&mut tx, request.id).await? {
                end(reconciler, &mut tx, request, now).await?;
            }
        }
        for id in store::ends::due(&mut tx, now).await? {
            turn(reconciler, &mut tx, id, now).await?;
        }
        reconciler.store.commit(tx).await?;
    }
    let mut reader = reconciler.store.reader().await?;
    let ends = [store::requests::next(&mut reader).await?, store::ends::next(&mut reader, now).await?];
    Ok(ends.into_iter().flatten().min())
}

async fn end(reconciler: &Reconciler, tx: &mut Connection, mut request: Request, now: i64) -> Result<(), store::Error> {
    let due = match request.state {
        RequestState::Overdue => true,
        state => Request::due(state, request.until, request.attempts, now).is_some_and(|due| due <= now),
    };
    if !due {
        return Ok(());
    }
    let berth = store::berths::by_id(tx, request.berth).await?.filter(|berth| berth.wanted != Wanted::Deleted);
    let (state, action) = match (request.state, &berth) {
        (RequestState::Open, _) => (RequestState::Lapsed, Some("lapse_request")),
        (_, None) => (RequestState::Ended, None),
        (RequestState::Overdue, Some(_)) => (RequestState::Ending, None),
        (_, Some(_)) => (RequestState::Ending, Some("end_request")),
    };
    request.state = state;
    if let (RequestState::Ending, Some(berth)) = (state, &berth) {
        request.generation = Some(store::berths::limit(tx, berth.id, berth.profile_id, &berth.own, now).await?);
    }
    store::requests::update(tx, &request, now).await?;
    if let Some(action) = action {
        let details = serde_json::json!({ "request": request.id, "granted": request.granted, "until": request.until });
        record(reconciler, tx, action, request.user.as_str(), details).await?;
    }
    Ok(())
}

/// Suspends a berth whose assignment has ended, or lets one go whose assignment goes on.
async fn turn(reconciler: &Reconciler, tx: &mut Connection, id: BerthId, now: i64) -> Result<(), store::Error> {
    let Some(berth) = store::berths::by_id(tx, id).await? else { return Ok(()) };
    let suspension = berth.until.filter(|until| *until <= now).map(|until| Suspension {
        reason: format!("the assignment ended on {}", day(until)),
        by: "berth".to_owned(),
        since: now,
    });
    let action = if suspension.is_some() { "end_assignment" } else { "renew_assignment" };
    store::ends::suspend(tx, id, suspension.as_ref(), now).await?;
    record(reconciler, tx, action, berth.user.as_str(), serde_json::json!({ "until": berth.until })).await
}

/// The node has carried out a generation: what it was asked for is so.
pub(super) async fn reached(reconciler: &Reconciler, tx: &mut Connection, berth: &Berth, now: i64) -> Result<(), store::Error> {
    for mut request in store::requests::asked_of_node(tx, berth.id, berth.generation).await? {
        let (state, action) = match request.state {
            RequestState::Approved => (RequestState::Active, "apply_request"),
            _ => (RequestState::Ended, "fall_back"),
        };
        (request.state, request.problem) = (state, None);
        store::requests::update(tx, &request, now).await?;
        let details =
            serde_json::json!({ "request": request.id, "granted": request.granted, "until": request.until, "limits": berth.limits });
        record(reconciler, tx, action, berth.user.as_str(), details).await?;
    }
    Ok(())
}

/// The node has refused a generation: what was approved is open again, and what was to be taken away stays, to be tried again. True when
/// there was any of either.
pub(super) async fn refused(
    reconciler: &Reconciler,
    tx: &mut Connection,
    berth: &Berth,
    problem: &Problem,
    now: i64,
) -> Result<bool, store::Error> {
    let mut any = false;
    for mut request in store::requests::asked_of_node(tx, berth.id, berth.generation).await? {
        any = true;
        let first = request.attempts == 0;
        let since = request.problem.as_ref().map_or(now, |(_, since)| *since);
        request.problem = Some((problem.clone(), since));
        let action = match request.state {
            RequestState::Approved => {
                request.reopen();
                Some("refuse_request")
            }
            _ => {
                request.state = RequestState::Overdue;
                request.attempts += 1;
                // A disk in use keeps nothing but the disk.
                if let Some(granted) = request.granted.as_mut().filter(|granted| problem.code == "disk_below_use" && granted.beyond_disk())
                {
                    *granted = crate::domain::Figures { disk_bytes: granted.disk_bytes, ..Default::default() };
                    store::berths::limit(tx, berth.id, berth.profile_id, &berth.own, now).await?;
                }
                first.then_some("refuse_fall_back")
            }
        };
        store::requests::update(tx, &request, now).await?;
        if let Some(action) = action {
            let details = serde_json::json!({ "request": request.id, "code": problem.code, "detail": problem.detail });
            record(reconciler, tx, action, berth.user.as_str(), details).await?;
        }
    }
    Ok(any)
}

/// The berth is gone, and with it whatever was asked for it.
pub(super) async fn gone(tx: &mut Connection, berth: BerthId, now: i64) -> Result<(), store::Error> {
    for mut request in store::requests::unfinished(tx, berth).await? {
        request.state = match request.state {
            RequestState::Open => RequestState::Cancelled,
            _ => RequestState::Ended,
        };
        request.word = request.word.or_else(|| Some("the berth was deleted".to_owned()));
        store::requests::update(tx, &request, now).await?;
    }
    Ok(())
}

async fn record(
    reconciler: &Reconciler,
    tx: &mut Connection,
    action: &str,
    user: &str,
    details: serde_json::Value,
) -> Result<(), store::Error> {
    let entry = AuditEntry { action, subject: Subject::Berth(user), details, operation: None };
    store::audit::insert(tx, &reconciler.clock, None, entry).await
}

/// The last day of an assignment in the host's time zone: one that ends at midnight ends with the day before.
fn day(until: i64) -> String {
    let moment = jiff::Timestamp::from_millisecond(until - 1).unwrap_or(jiff::Timestamp::MAX);
    jiff::tz::TimeZone::system().to_datetime(moment).date().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_at_midnight_belongs_to_the_day_before() {
        let midnight = jiff::tz::TimeZone::system().to_timestamp(jiff::civil::date(2027, 4, 1).at(0, 0, 0, 0)).unwrap().as_millisecond();
        assert_eq!((day(midnight), day(midnight + 1000)), ("2027-03-31".to_owned(), "2027-04-01".to_owned()));
        assert_eq!(day(i64::MAX).len(), 10, "whatever the database holds");
    }
}
