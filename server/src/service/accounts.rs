//! The accounts that hold berths, as the last round of look-ups left them.

use super::{Error, Service, authorise, history::Page};
use crate::{
    authz::Operation as Op,
    domain::{Alarm, Berth, Caller, Check, Watch},
    store,
};

/// A berth and what is known of its account.
#[derive(Clone, Debug)]
pub struct HolderState {
    pub berth: Berth,
    /// Nothing before the first look.
    pub watch: Option<Watch>,
}

impl Service {
    /// Accounts in the order of their names, and what is wrong with the whole.
    pub async fn accounts(&self, caller: &Caller, page: &Page) -> Result<(Vec<HolderState>, Vec<Alarm>), Error> {
        authorise(caller, Op::ListAccounts)?;
        let mut reader = self.store.reader().await?;
        let mut watches = store::accounts::all(&mut reader).await?;
        let berths = store::berths::page(&mut reader, page.after(), page.limit).await?;
        let holders = berths.into_iter().map(|berth| HolderState { watch: watches.remove(&berth.id), berth }).collect();
        Ok((holders, alarms(&mut reader).await?))
    }

    /// A line for what is wrong, or for accounts that need attention.
    pub(super) async fn check_accounts(&self) -> Result<Vec<Check>, Error> {
        use crate::domain::AccountState as State;
        let mut reader = self.store.reader().await?;
        let alarms = alarms(&mut reader).await?;
        let watches = store::accounts::all(&mut reader).await?;
        let fix = "see what getent passwd says on the host, and berth offboard --vanished --dry-run; nobody is suspended meanwhile";
        let mut checks: Vec<Check> = alarms.iter().map(|alarm| Check::failed("accounts", alarm.detail.clone(), fix)).collect();
        let mut bad: Vec<&Watch> = watches.values().filter(|watch| !matches!(watch.state, State::Present | State::Unknown)).collect();
        bad.sort_by(|a, b| a.detail.cmp(&b.detail));
        if !bad.is_empty() {
            const SHOWN: usize = 5;
            let mut detail = bad.iter().take(SHOWN).map(|watch| watch.detail.as_str()).collect::<Vec<_>>().join("; ");
            if bad.len() > SHOWN {
                detail = format!("{detail}; and {} more", bad.len() - SHOWN);
            }
            checks.push(Check::warning("accounts", detail, "berth offboard --dry-run shows what it would do; or give the account back"));
        }
        if checks.is_empty() {
            checks.push(match watches.is_empty() {
                true => Check::ok("accounts", "none has been looked at yet"),
                false => Check::ok("accounts", format!("all {} that have a berth are there", watches.len())),
            });
        }
        Ok(checks)
    }
}

async fn alarms(reader: &mut store::Connection) -> Result<Vec<Alarm>, Error> {
    let text = store::settings::get(reader, store::settings::ACCOUNT_ALARMS).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}
