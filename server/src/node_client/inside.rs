//! What a berth's Docker holds, between the node's wire types and the domain.

use std::time::Duration;

use berth_protocol as wire;
use hyper::Method;

use super::{Error, NodeClient, berth_path};
use crate::domain::{Inside, InsideContainer, InsideImage, InsideVolume, Prune, Taken, UserName};

/// Longer than the node waits for the shim.
const LOOK: Duration = Duration::from_secs(35);
const PRUNE: Duration = Duration::from_secs(400);

impl NodeClient {
    /// As last seen; the berth is not woken for it.
    pub async fn inside(&self, user: &UserName) -> Result<Inside, Error> {
        let told: wire::Inside = self.send("look inside", Method::GET, &berth_path(user, "/inside"), None::<&()>, LOOK).await?;
        Ok(told.into())
    }

    /// Takes away what is in no use; how many bytes that gave.
    pub async fn prune(&self, user: &UserName, what: &[Prune]) -> Result<u64, Error> {
        let body = wire::PruneRequest { what: what.iter().copied().map(wire::Prune::from).collect() };
        let pruned: wire::Pruned = self.send("prune", Method::POST, &berth_path(user, "/prune"), Some(&body), PRUNE).await?;
        Ok(pruned.bytes)
    }
}

impl From<Prune> for wire::Prune {
    fn from(what: Prune) -> Self {
        match what {
            Prune::Containers => Self::Containers,
            Prune::Images => Self::Images,
            Prune::BuildCache => Self::BuildCache,
        }
    }
}

impl From<wire::Inside> for Inside {
    fn from(told: wire::Inside) -> Self {
        let taken = |taken: wire::Taken| Taken { bytes: taken.bytes, unused_bytes: taken.unused_bytes };
        Self {
            at: told.at,
            container_count: told.container_count,
            containers: told.containers.into_iter().map(container).collect(),
            image_count: told.image_count,
            images: told.images.into_iter().map(image).collect(),
            volume_count: told.volume_count,
            volumes: told.volumes.into_iter().map(volume).collect(),
            disk_images: taken(told.disk.images),
            disk_containers: taken(told.disk.containers),
            disk_volumes: taken(told.disk.volumes),
            disk_build_cache: taken(told.disk.build_cache),
        }
    }
}

fn container(told: wire::InsideContainer) -> InsideContainer {
    let wire::InsideContainer { name, image, state, status, size_bytes } = told;
    InsideContainer { name, image, state, status, size_bytes }
}

fn image(told: wire::InsideImage) -> InsideImage {
    let wire::InsideImage { name, size_bytes, created, containers } = told;
    InsideImage { name, size_bytes, created_at: created.saturating_mul(1000), containers }
}

fn volume(told: wire::InsideVolume) -> InsideVolume {
    let wire::InsideVolume { name, size_bytes, containers } = told;
    InsideVolume { name, size_bytes, containers }
}
