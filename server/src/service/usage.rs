//! What berths use right now. The node reads it from the kernel when asked, so that nobody pays for berths at which nobody looks; however
//! many look at all of them at once, the node is asked once in [`FRESH`].

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use super::{Error, Service, authorise, berths::visible};
use crate::{
    authz::{Access, Operation as Op},
    domain::{Caller, Limits, Sample, UserName},
    store,
};

/// Figures are never older when they leave here.
const FRESH: Duration = Duration::from_millis(500);

/// What a berth that is up uses, and of how much.
#[derive(Clone, Debug)]
pub struct BerthUse {
    pub sample: Sample,
    pub limits: Limits,
}

/// The last answer of the node. Whoever finds it too old asks anew; the others wait for him.
#[derive(Default)]
pub(super) struct Latest(Mutex<Option<(Instant, Arc<[Sample]>)>>);

impl Service {
    /// Of the berths that are up and that the caller may see, or of one user's.
    pub async fn usage(&self, caller: &Caller, user: Option<&str>) -> Result<Vec<BerthUse>, Error> {
        let access = authorise(caller, Op::ListUsage)?;
        let mut reader = self.store.reader().await?;
        let berths = match (user, access) {
            (Some(user), _) => vec![visible(&mut reader, caller, Op::ListUsage, user).await?],
            (None, Access::All) => store::berths::all(&mut reader).await?,
            (None, _) => match caller.name.parse::<UserName>() {
                Ok(own) => store::berths::by_user(&mut reader, &own).await?.into_iter().collect(),
                Err(_) => Vec::new(),
            },
        };
        drop(reader);
        let samples: Arc<[Sample]> = match (berths.as_slice(), user, access) {
            ([], ..) => Arc::new([]),
            ([berth], Some(_), _) | ([berth], None, Access::Own) => self.node.usage(Some(&berth.user)).await?.into(),
            _ => self.usage_of_all().await?,
        };
        let limits: HashMap<_, _> = berths.iter().map(|berth| (berth.id, berth.limits)).collect();
        let known = |sample: &Sample| Some(BerthUse { limits: *limits.get(&sample.id)?, sample: sample.clone() });
        Ok(samples.iter().filter_map(known).collect())
    }

    pub(super) async fn usage_of_all(&self) -> Result<Arc<[Sample]>, Error> {
        let mut latest = self.usage.0.lock().await;
        if let Some((_, samples)) = latest.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(Arc::clone(samples));
        }
        let asked = Instant::now();
        let samples: Arc<[Sample]> = self.node.usage(None).await?.into();
        *latest = Some((asked, Arc::clone(&samples)));
        Ok(samples)
    }
}
