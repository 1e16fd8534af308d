//! What a berth's Docker holds, as last seen, and making room in it.

use super::{Error, Service, berths::visible, suspension::check_not_suspended};
use crate::{
    authz::Operation as Op,
    domain::{AuditEntry, Caller, Inside, Prune, Subject},
    store,
};

impl Service {
    /// The berth is not woken for it.
    pub async fn inside(&self, caller: &Caller, user: &str) -> Result<Inside, Error> {
        let mut reader = self.store.reader().await?;
        let berth = visible(&mut reader, caller, Op::ShowInside, user).await?;
        drop(reader);
        Ok(self.node.inside(&berth.user).await?)
    }

    /// Takes away what is in no use in a running berth; how many bytes that gave, as its Docker says.
    pub async fn prune(&self, caller: &Caller, user: &str, what: &[Prune]) -> Result<u64, Error> {
        let mut tx = self.store.begin().await?;
        let berth = visible(&mut tx, caller, Op::PruneBerth, user).await?;
        check_not_suspended(caller, &berth)?;
        let details = serde_json::json!({ "what": what.iter().map(|one| one.as_str()).collect::<Vec<_>>() });
        let entry = AuditEntry { action: Op::PruneBerth.id(), subject: Subject::Berth(berth.user.as_str()), details, operation: None };
        store::audit::insert(&mut tx, &self.clock, Some(caller), entry).await?;
        self.store.commit(tx).await?;
        Ok(self.node.prune(&berth.user, what).await?)
    }
}
