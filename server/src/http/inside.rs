//! What a berth's Docker holds.

use axum::{Json as Answer, extract::State, http::StatusCode};
use berth_api as api;

use super::{
    Api,
    error::{Error, Failure},
    extract::{Json, Path},
};
use crate::domain::{Caller, Inside, InsideContainer, InsideImage, InsideVolume, Prune, Refusal, Taken};

/// Shows containers, images and volumes of a berth with their sizes, as last seen. A berth that rests is not woken for it. What is told is the
/// tenant's word.
#[utoipa::path(get, path = "/berths/{user}/inside", tag = "berths", params(("user" = String, Path, description = "Name of the host account")),
    responses((status = 200, body = api::Inside), Failure))]
pub(super) async fn show_inside(State(api): State<Api>, caller: Caller, Path(user): Path<String>) -> Result<Answer<api::Inside>, Error> {
    Ok(Answer(inside(api.service.inside(&caller, &user).await?)))
}

/// Takes away what is in no use in a running berth: stopped containers, images without containers, build cache.
#[utoipa::path(post, path = "/berths/{user}/prune", tag = "berths", request_body = api::PruneBerth,
    params(("user" = String, Path, description = "Name of the host account")), responses((status = 200, body = api::Pruned), Failure))]
pub(super) async fn prune_berth(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<String>,
    Json(request): Json<api::PruneBerth>,
) -> Result<Answer<api::Pruned>, Error> {
    if request.what.is_empty() || request.what.len() > 3 {
        return Err(Error::new(StatusCode::BAD_REQUEST, Refusal::Invalid, "invalid_body", "what holds one to three kinds"));
    }
    let what: Vec<Prune> = request.what.into_iter().map(kind).collect();
    Ok(Answer(api::Pruned { bytes: api.service.prune(&caller, &user, &what).await? }))
}

fn kind(kind: api::PruneKind) -> Prune {
    match kind {
        api::PruneKind::Containers => Prune::Containers,
        api::PruneKind::Images => Prune::Images,
        api::PruneKind::BuildCache => Prune::BuildCache,
    }
}

fn inside(seen: Inside) -> api::Inside {
    let taken = |taken: Taken| api::Taken { bytes: taken.bytes, unused_bytes: taken.unused_bytes };
    api::Inside {
        at: seen.at,
        disk: api::InsideDisk {
            images: taken(seen.disk_images),
            containers: taken(seen.disk_containers),
            volumes: taken(seen.disk_volumes),
            build_cache: taken(seen.disk_build_cache),
        },
        container_count: seen.container_count,
        containers: seen.containers.into_iter().map(container).collect(),
        image_count: seen.image_count,
        images: seen.images.into_iter().map(image).collect(),
        volume_count: seen.volume_count,
        volumes: seen.volumes.into_iter().map(volume).collect(),
    }
}

fn container(one: InsideContainer) -> api::InsideContainer {
    let InsideContainer { name, image, state, status, size_bytes } = one;
    api::InsideContainer { name, image, state, status, size_bytes }
}

fn image(one: InsideImage) -> api::InsideImage {
    let InsideImage { name, size_bytes, created_at, containers } = one;
    api::InsideImage { name, size_bytes, created_at, containers }
}

fn volume(one: InsideVolume) -> api::InsideVolume {
    let InsideVolume { name, size_bytes, containers } = one;
    api::InsideVolume { name, size_bytes, containers }
}
