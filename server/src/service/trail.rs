//! The audit trail: what was asked of Berth, and what users asked of their Dockers, as one.

use std::time::Duration;

use super::{Error, Page, Service, authorise};
use crate::{
    authz::{Access, Operation as Op},
    domain::{Caller, TrailFilter, TrailHead, TrailKind, TrailRecord},
    store,
};

/// New records come in lots; a follower is not woken for each of them.
const PACE: Duration = Duration::from_millis(50);

/// Readings of the trail at a time: half of the connections for reading.
pub(super) const AT_ONCE: usize = 2;

/// A page of the trail, newest first, and its end when it was read.
#[derive(Clone, Debug)]
pub struct Listed {
    pub records: Vec<TrailRecord>,
    pub head: TrailHead,
}

/// What came to the trail, and up to where that is all of it.
#[derive(Clone, Debug)]
pub struct Followed {
    pub records: Vec<TrailRecord>,
    pub head: TrailHead,
}

impl Service {
    pub async fn audit(&self, caller: &Caller, filter: TrailFilter, page: &Page) -> Result<Listed, Error> {
        let filter = narrowed(caller, filter)?;
        let before = page.before()?.map(crate::domain::AuditId);
        let _place = self.trail.acquire().await;
        let mut reader = self.store.snapshot().await?;
        let head = TrailHead { action: store::audit::head(&mut reader).await?, seq: store::calls::head(&mut reader).await? };
        let Some(filter) = filter else { return Ok(Listed { records: Vec::new(), head }) };
        let mut records = Vec::new();
        if wants(&filter, TrailKind::Action) {
            let actions = store::audit::page(&mut reader, &filter, before, page.limit).await?;
            records.extend(actions.into_iter().map(TrailRecord::Action));
        }
        if wants(&filter, TrailKind::Call) {
            let calls = store::calls::page(&mut reader, &filter, before, page.limit).await?;
            records.extend(calls.into_iter().map(TrailRecord::Call));
        }
        records.sort_unstable_by_key(|record| std::cmp::Reverse(record.id()));
        records.truncate(page.limit as usize);
        Ok(Listed { records, head })
    }

    /// What was added after `after`, in the order of storing: as soon as there is something, after `wait` in any case. At most about
    /// `limit` of each kind; the head tells where to go on.
    pub async fn follow_audit(
        &self,
        caller: &Caller,
        filter: TrailFilter,
        after: TrailHead,
        limit: u32,
        wait: Duration,
    ) -> Result<Followed, Error> {
        let filter = narrowed(caller, filter)?;
        let deadline = tokio::time::Instant::now() + wait;
        let mut changes = self.store.changes();
        let mut at = after;
        loop {
            changes.mark_unchanged();
            if let Some(filter) = &filter {
                let found = self.added(filter, at, limit).await?;
                if !found.records.is_empty() {
                    return Ok(found);
                }
                at = found.head;
            }
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => tokio::time::sleep(PACE).await,
                _ => return Ok(Followed { records: Vec::new(), head: at }),
            }
        }
    }

    async fn added(&self, filter: &TrailFilter, after: TrailHead, limit: u32) -> Result<Followed, Error> {
        let _place = self.trail.acquire().await;
        let mut reader = self.store.snapshot().await?;
        let mut head = TrailHead {
            action: store::audit::head(&mut reader).await?.max(after.action),
            seq: store::calls::head(&mut reader).await?.max(after.seq),
        };
        let mut records = Vec::new();
        if wants(filter, TrailKind::Action) && head.action > after.action {
            let actions = store::audit::between(&mut reader, filter, after.action, head.action, limit).await?;
            if let Some(last) = actions.last().filter(|_| actions.len() == limit as usize) {
                head.action = last.id;
            }
            records.extend(actions.into_iter().map(TrailRecord::Action));
        }
        if wants(filter, TrailKind::Call) && head.seq > after.seq {
            let calls = store::calls::stored_between(&mut reader, filter, after.seq, head.seq, limit).await?;
            if let Some(last) = calls.last().filter(|_| calls.len() == limit as usize) {
                head.seq = last.seq;
            }
            records.extend(calls.into_iter().map(TrailRecord::Call));
        }
        Ok(Followed { records, head })
    }
}

/// What the caller may see of what he asks for; nothing when all of it is another's.
fn narrowed(caller: &Caller, mut filter: TrailFilter) -> Result<Option<TrailFilter>, Error> {
    if authorise(caller, Op::ListAudit)? == Access::All {
        return Ok(Some(filter));
    }
    if [&filter.user, &filter.subject].into_iter().flatten().any(|name| *name != caller.name) {
        return Ok(None);
    }
    filter.user = Some(caller.name.clone());
    // Somebody else may have had the name before.
    filter.uid = caller.uid;
    Ok(Some(filter))
}

/// Path and status are those of calls.
fn wants(filter: &TrailFilter, kind: TrailKind) -> bool {
    let of_calls = filter.path.is_some() || filter.status.is_some();
    filter.kind.is_none_or(|wanted| wanted == kind) && (kind == TrailKind::Call || !of_calls)
}
