//! The accounts that hold berths: asks the node about them now and then, decides ([`decide`], pure), and suspends or resumes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::Reconciler;
use crate::{
    chain,
    config::Accounts,
    domain::{
        ACCOUNT_WATCH, AccountState, Alarm, AuditEntry, Barred, Berth, BerthId, EventKind, Holder, NewEvent, Subject, Suspension, Verdict,
        decide,
    },
    node_client, store,
};

/// A node that could not be asked is asked again sooner.
const AGAIN: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot ask the node about accounts")]
    Node(#[from] node_client::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Looks for as long as the server runs.
pub(super) async fn follow(reconciler: Arc<Reconciler>, rules: Accounts, soft: CancellationToken) {
    let work = async {
        loop {
            let pause = match round(&reconciler, &rules).await {
                Ok(()) => rules.check(),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "accounts were not looked at");
                    rules.check().min(AGAIN)
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    soft.run_until_cancelled(work).await;
}

async fn round(reconciler: &Reconciler, rules: &Accounts) -> Result<(), Error> {
    reconciler.store.lead()?;
    let seen = reconciler.node.accounts(&rules.known).await?;
    let now = reconciler.clock.now();
    let mut tx = reconciler.store.begin().await?;
    let berths = store::berths::all(&mut tx).await?;
    let (mut watches, calls) = (store::accounts::all(&mut tx).await?, store::accounts::last_calls(&mut tx).await?);
    let before: HashMap<BerthId, AccountState> = watches.iter().map(|(id, watch)| (*id, watch.state)).collect();
    let holders: Vec<Holder> = berths
        .iter()
        .map(|berth| Holder {
            id: berth.id,
            user: berth.user.to_string(),
            barred: barred(berth),
            last_used_at: last_used(berth).max(calls.get(&berth.id).copied()),
            watch: watches.remove(&berth.id),
        })
        .collect();
    let verdict = decide(&rules.rules(), now, &holders, &seen);
    let changed = !verdict.suspend.is_empty() || !verdict.resume.is_empty();
    apply(reconciler, &mut tx, &berths, &verdict, now).await?;
    tell(&mut tx, &berths, &before, &verdict, now).await?;
    alarm(reconciler, &mut tx, &verdict.alarms, now).await?;
    store::accounts::prune(&mut tx).await?;
    reconciler.store.commit(tx).await?;
    if changed {
        reconciler.store.announce();
    }
    Ok(())
}

/// For those who watch: whose account is in another state than before.
async fn tell(
    tx: &mut store::Transaction,
    berths: &[Berth],
    before: &HashMap<BerthId, AccountState>,
    verdict: &Verdict,
    now: i64,
) -> Result<(), store::Error> {
    for (id, watch) in &verdict.watches {
        let was = before.get(id).copied().unwrap_or(AccountState::Present);
        let berth = berths.iter().find(|berth| berth.id == *id && was != watch.state);
        if let Some(berth) = berth {
            let event = NewEvent { state: Some(watch.state.as_str()), ..NewEvent::own(EventKind::AccountChanged, berth.user.as_str()) };
            store::events::note(tx, now, event).await?;
        }
    }
    Ok(())
}

fn barred(berth: &Berth) -> Barred {
    match &berth.suspension {
        None => Barred::No,
        Some(suspension) if suspension.by == ACCOUNT_WATCH => Barred::ByThis,
        Some(_) => Barred::ByOthers,
    }
}

/// As far as the node remembers.
fn last_used(berth: &Berth) -> Option<i64> {
    berth.status.as_ref().and_then(|status| status.last_used_at.max(status.started_at))
}

async fn apply(
    reconciler: &Reconciler,
    tx: &mut store::Transaction,
    berths: &[Berth],
    verdict: &Verdict,
    now: i64,
) -> Result<(), store::Error> {
    for (id, watch) in &verdict.watches {
        store::accounts::keep(tx, *id, watch).await?;
    }
    let named = |id| berths.iter().find(|berth| berth.id == id);
    for (id, reason) in &verdict.suspend {
        let Some(berth) = named(*id) else { continue };
        let suspension = Suspension { reason: reason.clone(), by: ACCOUNT_WATCH.to_owned(), since: now };
        store::berths::suspend(tx, *id, Some(&suspension), now).await?;
        tracing::warn!(user = %berth.user, reason, "the berth is suspended because of its account");
        note(reconciler, tx, "suspend_account", berth, serde_json::json!({ "reason": reason })).await?;
    }
    for id in &verdict.resume {
        let Some(berth) = named(*id) else { continue };
        store::berths::suspend(tx, *id, None, now).await?;
        tracing::info!(user = %berth.user, "the account is back, and its berth is let go");
        let was = berth.suspension.as_ref().map(|suspension| &suspension.reason);
        note(reconciler, tx, "resume_account", berth, serde_json::json!({ "was": was })).await?;
    }
    Ok(())
}

async fn note(
    reconciler: &Reconciler,
    tx: &mut store::Transaction,
    action: &str,
    berth: &Berth,
    details: serde_json::Value,
) -> Result<(), store::Error> {
    let entry = AuditEntry { action, subject: Subject::Berth(berth.user.as_str()), details, operation: None };
    store::audit::insert(tx, &reconciler.clock, None, entry).await
}

/// Keeps what is wrong for whoever asks; in the trail and the log once, when it begins and when it ends.
async fn alarm(reconciler: &Reconciler, tx: &mut store::Transaction, alarms: &[Alarm], now: i64) -> Result<(), store::Error> {
    let before = store::settings::get(tx, store::settings::ACCOUNT_ALARMS).await?;
    let known: Vec<Alarm> = before.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    if known != alarms {
        let text = serde_json::to_string(alarms).unwrap_or_default();
        store::settings::set(tx, store::settings::ACCOUNT_ALARMS, &text, now).await?;
    }
    if known.iter().map(|alarm| &alarm.code).eq(alarms.iter().map(|alarm| &alarm.code)) {
        return Ok(());
    }
    for alarm in alarms {
        tracing::error!(code = alarm.code, detail = alarm.detail, "accounts");
    }
    if alarms.is_empty() {
        tracing::info!("accounts: all is as it should be again");
    }
    let entry = AuditEntry {
        action: if alarms.is_empty() { "account_alarm_over" } else { "account_alarm" },
        subject: Subject::Accounts,
        details: serde_json::json!({ "alarms": alarms }),
        operation: None,
    };
    store::audit::insert(tx, &reconciler.clock, None, entry).await
}
