//! Accounts, between the node's wire types and the domain.

use std::time::Duration;

use berth_protocol as wire;
use hyper::Method;

use super::{Error, NodeClient, segment};
use crate::domain::{AccountState, Observed};

/// Each that does not answer takes the node seconds, and there may be a thousand.
const ASK: Duration = Duration::from_secs(120);

impl NodeClient {
    /// What the host says of the accounts of all berths, and of those that are `known` to be there.
    pub async fn accounts(&self, known: &[String]) -> Result<Vec<Observed>, Error> {
        // Every host has root in its own files.
        let names: Vec<String> = ["root"].into_iter().chain(known.iter().map(String::as_str)).map(segment).collect();
        let path = format!("/v1/accounts?known={}", names.join(","));
        let all: Vec<wire::Account> = self.send("look at accounts", Method::GET, &path, None::<&()>, ASK).await?;
        Ok(all.into_iter().map(Observed::from).collect())
    }
}

impl From<wire::Account> for Observed {
    fn from(account: wire::Account) -> Self {
        let state = match account.state {
            wire::AccountState::Present => AccountState::Present,
            wire::AccountState::Vanished => AccountState::Vanished,
            wire::AccountState::Locked => AccountState::Locked,
            wire::AccountState::Expired => AccountState::Expired,
            wire::AccountState::Renamed => AccountState::Renamed,
            wire::AccountState::Unknown => AccountState::Unknown,
        };
        Self { name: account.name, state, detail: account.detail, local: account.local }
    }
}
