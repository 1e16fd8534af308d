//! What the inner Docker holds, and how room is made in it: asked for when somebody wants to know, never while the berth rests, and bounded
//! like everything that the tenant's Docker says.

use std::time::Duration;

use berth_protocol::{Inside, InsideContainer, InsideDisk, InsideImage, InsideVolume, Prune, Taken};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    super::{
        inner::Inner,
        sleep::Sleeper,
        state::{Engine, State, now_ms},
    },
    Failed, http, printable,
};

const HELD: &str = "/system/df";
/// Longest answer in bytes.
const MOST_ANSWER: usize = 2 << 20;
/// Sizes of volumes are counted file by file.
const PATIENCE: Duration = Duration::from_secs(25);
/// Layers are taken away one by one.
const PRUNE_PATIENCE: Duration = Duration::from_secs(120);

/// Why there is no answer: a sentence.
pub(crate) async fn look(inner: &Inner, state: &State, sleeper: &Sleeper) -> Result<Inside, String> {
    let _look = ready(state, sleeper)?;
    let asked = async { Ok::<_, Failed>(http::get(inner.connect().await?, HELD).await?.body(MOST_ANSWER).await?) };
    let body = timeout(PATIENCE, asked).await.map_err(|_| "the inner Docker is too slow with its answer".to_owned())?;
    let held: Held =
        serde_json::from_slice(&body.map_err(told)?).map_err(|_| "the inner Docker's answer is no list of what it holds".to_owned())?;
    Ok(inside(held, now_ms()))
}

/// Takes away what is in no use; how many bytes that gave, as the inner Docker says.
pub(crate) async fn prune(inner: &Inner, state: &State, sleeper: &Sleeper, what: Prune) -> Result<u64, String> {
    let _look = ready(state, sleeper)?;
    let path = match what {
        Prune::Containers => "/containers/prune",
        Prune::Images => "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D",
        Prune::BuildCache => "/build/prune?all=1",
    };
    let asked = async { Ok::<_, Failed>(http::post(inner.connect().await?, path).await?.body(MOST_ANSWER).await?) };
    let body = timeout(PRUNE_PATIENCE, asked).await.map_err(|_| "the inner Docker is still at it; look again later".to_owned())?;
    let pruned: Reclaimed = serde_json::from_slice(&body.map_err(told)?).unwrap_or_default();
    Ok(size(pruned.space))
}

fn ready<'a>(state: &State, sleeper: &'a Sleeper) -> Result<super::super::sleep::Look<'a>, String> {
    match state.engine() {
        Engine::Ready if !sleeper.asleep() => Ok(sleeper.look()),
        Engine::Ready => Err("the berth rests; it is not woken to be looked at".to_owned()),
        Engine::Starting => Err("Docker is starting".to_owned()),
        Engine::Down(reason) | Engine::Failed(reason) => Err(reason),
    }
}

fn told(error: Failed) -> String {
    berth_runtime::error::chain(&error)
}

#[derive(Debug, Default, Deserialize)]
struct Reclaimed {
    #[serde(rename = "SpaceReclaimed", default)]
    space: f64,
}

/// Of `GET /system/df`. Numbers are read as floats: a size that is none must not spoil the others.
#[derive(Debug, Deserialize)]
struct Held {
    #[serde(rename = "LayersSize", default)]
    layers: f64,
    #[serde(rename = "Images", default)]
    images: Option<Vec<HeldImage>>,
    #[serde(rename = "Containers", default)]
    containers: Option<Vec<HeldContainer>>,
    #[serde(rename = "Volumes", default)]
    volumes: Option<Vec<HeldVolume>>,
    #[serde(rename = "BuildCache", default)]
    cache: Option<Vec<HeldCache>>,
}

#[derive(Debug, Deserialize)]
struct HeldImage {
    #[serde(rename = "Id", default)]
    id: String,
    #[serde(rename = "RepoTags", default)]
    tags: Option<Vec<String>>,
    #[serde(rename = "Created", default)]
    created: f64,
    #[serde(rename = "Size", default)]
    size: f64,
    #[serde(rename = "SharedSize", default)]
    shared: f64,
    #[serde(rename = "Containers", default)]
    containers: f64,
}

#[derive(Debug, Deserialize)]
struct HeldContainer {
    #[serde(rename = "Names", default)]
    names: Option<Vec<String>>,
    #[serde(rename = "Image", default)]
    image: String,
    #[serde(rename = "State", default)]
    state: String,
    #[serde(rename = "Status", default)]
    status: String,
    #[serde(rename = "SizeRw", default)]
    written: f64,
}

#[derive(Debug, Deserialize)]
struct HeldVolume {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "UsageData", default)]
    usage: Option<VolumeUsage>,
}

#[derive(Debug, Deserialize)]
struct VolumeUsage {
    #[serde(rename = "Size", default)]
    size: f64,
    #[serde(rename = "RefCount", default)]
    users: f64,
}

#[derive(Debug, Deserialize)]
struct HeldCache {
    #[serde(rename = "Size", default)]
    size: f64,
    #[serde(rename = "InUse", default)]
    used: bool,
    #[serde(rename = "Shared", default)]
    shared: bool,
}

/// -1 is what Docker does not know; a float beyond what is saturates.
fn size(value: f64) -> u64 {
    value.max(0.0) as u64
}

fn sum(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

fn inside(held: Held, at: i64) -> Inside {
    let (images, containers) = (held.images.unwrap_or_default(), held.containers.unwrap_or_default());
    let (volumes, cache) = (held.volumes.unwrap_or_default(), held.cache.unwrap_or_default());
    let of_volume = |volume: &HeldVolume| volume.usage.as_ref().map_or((0, 0), |usage| (size(usage.size), size(usage.users)));
    let own = |image: &HeldImage| size(image.size).saturating_sub(size(image.shared));
    let cached = || cache.iter().filter(|entry| !entry.shared);
    let disk = InsideDisk {
        images: Taken { bytes: size(held.layers), unused_bytes: sum(images.iter().filter(|i| size(i.containers) == 0).map(own)) },
        containers: Taken {
            bytes: sum(containers.iter().map(|c| size(c.written))),
            unused_bytes: sum(containers
                .iter()
                .filter(|c| !matches!(c.state.as_str(), "running" | "paused" | "restarting"))
                .map(|c| size(c.written))),
        },
        volumes: Taken {
            bytes: sum(volumes.iter().map(|v| of_volume(v).0)),
            unused_bytes: sum(volumes.iter().map(of_volume).filter(|(_, users)| *users == 0).map(|(size, _)| size)),
        },
        build_cache: Taken {
            bytes: sum(cached().map(|c| size(c.size))),
            unused_bytes: sum(cached().filter(|c| !c.used).map(|c| size(c.size))),
        },
    };
    Inside {
        at,
        container_count: containers.len() as u64,
        image_count: images.len() as u64,
        volume_count: volumes.len() as u64,
        containers: largest(containers.iter().map(container).collect(), |one| one.size_bytes),
        images: largest(images.iter().map(image).collect(), |one| one.size_bytes),
        volumes: largest(
            volumes
                .iter()
                .map(|volume| {
                    let (size_bytes, containers) = of_volume(volume);
                    InsideVolume { name: printable(&volume.name), size_bytes, containers }
                })
                .collect(),
            |one| one.size_bytes,
        ),
        disk,
    }
}

fn container(one: &HeldContainer) -> InsideContainer {
    // Further names are links of other containers: `/other/alias`.
    let name = one.names.iter().flatten().map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/')).unwrap_or_default();
    InsideContainer {
        name: printable(name),
        image: printable(&one.image),
        state: printable(&one.state),
        status: printable(&one.status),
        size_bytes: size(one.written),
    }
}

fn image(one: &HeldImage) -> InsideImage {
    let tag = one.tags.iter().flatten().find(|tag| !tag.starts_with("<none>"));
    let id: String = one.id.trim_start_matches("sha256:").chars().take(12).collect();
    InsideImage {
        name: printable(tag.map_or(&id, |tag| tag)),
        size_bytes: size(one.size),
        created: one.created as i64,
        containers: size(one.containers),
    }
}

fn largest<T>(mut all: Vec<T>, of: impl Fn(&T) -> u64) -> Vec<T> {
    all.sort_by_key(|one| std::cmp::Reverse(of(one)));
    all.truncate(Inside::MOST);
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Inside {
        inside(serde_json::from_value(value).unwrap(), 7)
    }

    #[test]
    fn what_is_held_and_what_of_it_is_in_no_use() {
        let found = read(json!({
            "LayersSize": 1000,
            "Images": [
                { "Id": "sha256:0123456789abcdef", "RepoTags": ["<none>:<none>"], "Size": 400, "SharedSize": 100, "Containers": 0, "Created": 5 },
                { "Id": "sha256:ff", "RepoTags": ["busybox:latest"], "Size": 700, "SharedSize": 100, "Containers": 1, "Created": 6 },
            ],
            "Containers": [
                { "Names": ["/other/alias", "/web"], "Image": "busybox", "State": "running", "Status": "Up 3 hours", "SizeRw": 10 },
                { "Names": ["/old"], "Image": "busybox", "State": "exited", "Status": "Exited (0)", "SizeRw": 20 },
            ],
            "Volumes": [
                { "Name": "data", "UsageData": { "Size": 50, "RefCount": 1 } },
                { "Name": "left", "UsageData": { "Size": 60, "RefCount": 0 } },
                { "Name": "unknown", "UsageData": { "Size": -1, "RefCount": -1 } },
            ],
            "BuildCache": [{ "Size": 5, "InUse": false, "Shared": false }, { "Size": 9, "InUse": false, "Shared": true }, { "Size": 1, "InUse": true }],
        }));
        let taken = |bytes, unused_bytes| Taken { bytes, unused_bytes };
        let disk = InsideDisk { images: taken(1000, 300), containers: taken(30, 20), volumes: taken(110, 60), build_cache: taken(6, 5) };
        assert_eq!((found.at, found.disk), (7, disk));
        assert_eq!(found.images.iter().map(|image| &*image.name).collect::<Vec<_>>(), ["busybox:latest", "0123456789ab"]);
        assert_eq!(found.containers.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["old", "web"]);
        assert_eq!((found.container_count, found.image_count, found.volume_count), (2, 2, 3));
    }

    #[test]
    fn a_docker_that_lies_fills_nothing_and_breaks_nothing() {
        let names: Vec<_> = (0..5_000)
            .map(|n| json!({ "Names": [format!("/{n}{}", "x".repeat(500))], "Image": "\u{202e}\n<b>", "SizeRw": 1e300 }))
            .collect();
        let found = read(json!({ "LayersSize": -5, "Containers": names, "Images": null, "Volumes": [{ "UsageData": null }] }));
        assert_eq!((found.container_count, found.containers.len(), found.disk.containers.bytes), (5_000, Inside::MOST, u64::MAX));
        assert_eq!((&*found.containers[0].image, found.disk.images.bytes), ("??<b>", 0));
        assert!(serde_json::to_vec(&found).unwrap().len() < crate::link::MAX_MESSAGE / 2);
        assert!(serde_json::from_value::<Held>(json!({ "Containers": "many" })).is_err());
    }
}
