//! Figures of the whole, for what watches the host.

use super::{Error, Service, authorise};
use crate::{
    authz::Operation as Op,
    chain,
    domain::{Caller, ReconcileReport, Sample},
    store::{self, figures::Counts},
};

/// What is read at one scrape: one call to the node, and some statements.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Of the berths that are up; nothing when the node does not answer.
    pub usage: Option<Vec<Sample>>,
    pub counts: Counts,
    pub reconciler: ReconcileReport,
    /// Open streams of events.
    pub streams: u32,
    pub now: i64,
}

impl Service {
    pub async fn figures_for(&self, caller: &Caller) -> Result<Figures, Error> {
        authorise(caller, Op::ReadMetrics)?;
        self.figures().await
    }

    /// For whoever reaches the listener that the configuration opens for them.
    pub async fn figures(&self) -> Result<Figures, Error> {
        let usage = match self.usage_of_all().await {
            Ok(samples) => Some(samples.to_vec()),
            Err(error) => {
                tracing::debug!(error = chain(&error), "no figures of use");
                None
            }
        };
        let mut reader = self.store.reader().await?;
        let counts = store::figures::counts(&mut reader).await?;
        drop(reader);
        let reconciler = self.reconciler.borrow().clone();
        Ok(Figures { usage, counts, reconciler, streams: self.feed.open(), now: self.clock.now() })
    }
}
