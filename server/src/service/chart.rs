//! What a berth used over the last day, for charts.

use super::{Error, Service, berths::visible};
use crate::{
    authz::Operation as Op,
    domain::{Caller, UsagePoint, points},
    store,
};

impl Service {
    /// At most `most` points after `since`; none is older than 24 hours.
    pub async fn usage_since(&self, caller: &Caller, user: &str, since: Option<i64>, most: usize) -> Result<Vec<UsagePoint>, Error> {
        let mut reader = self.store.reader().await?;
        let berth = visible(&mut reader, caller, Op::ShowUsage, user).await?;
        let oldest = self.clock.now() - store::samples::KEEP_FOR;
        let samples = store::samples::since(&mut reader, berth.id, since.unwrap_or(oldest).max(oldest)).await?;
        Ok(points(&samples, most))
    }
}
