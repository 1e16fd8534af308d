//! Archives of berths.

use axum::{Json as Answer, extract::State, http::StatusCode};
use berth_api as api;
use berth_api::{Accepted, ArchiveList};

use super::{
    AcceptedResponse, Api, convert,
    error::{Error, Failure},
    extract::{Json, Path},
};
use crate::{
    domain::{Archive, Caller},
    service::RestoreBerth,
};

/// Lists the archives of the host, newest first.
#[utoipa::path(get, path = "/archives", tag = "archives", responses((status = 200, body = ArchiveList), Failure))]
pub(super) async fn list_archives(State(api): State<Api>, caller: Caller) -> Result<Answer<ArchiveList>, Error> {
    let archives = api.service.archives(&caller).await?;
    Ok(Answer(ArchiveList { items: archives.into_iter().map(shown).collect() }))
}

/// Removes an archive.
#[utoipa::path(delete, path = "/archives/{name}", tag = "archives", params(("name" = String, Path, description = "Name of the archive")),
    responses((status = 202, body = Accepted), Failure))]
pub(super) async fn remove_archive(State(api): State<Api>, caller: Caller, Path(name): Path<String>) -> Result<AcceptedResponse, Error> {
    let operation = api.service.remove_archive(&caller, &name).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted((operation, Vec::new())))))
}

/// Makes a berth from an archive, with the limits that it had.
#[utoipa::path(post, path = "/archives/{name}/restore", tag = "archives", request_body = api::RestoreBerth,
    params(("name" = String, Path, description = "Name of the archive")), responses((status = 202, body = Accepted), Failure))]
pub(super) async fn restore_berth(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Json(request): Json<api::RestoreBerth>,
) -> Result<AcceptedResponse, Error> {
    let api::RestoreBerth { user, profile, start, allow_system } = request;
    let accepted = api.service.restore_berth(&caller, &name, RestoreBerth { user, profile, start, allow_system }).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted(accepted))))
}

fn shown(archive: Archive) -> api::Archive {
    api::Archive {
        name: archive.name,
        size_bytes: archive.size_bytes,
        user: archive.user,
        created_at: archive.created_at,
        image: archive.image,
        disk_bytes: archive.disk_bytes,
        docker_images: archive.docker_images,
        profile: archive.notes.map(|notes| notes.profile),
    }
}
