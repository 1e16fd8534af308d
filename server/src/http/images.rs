//! Images.

use std::io;

use axum::{
    Json as Answer,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use berth_api::{Accepted, BuildImage, Image, ImageList, PullImage};
use futures_util::TryStreamExt;

use super::{
    AcceptedResponse, Api, convert,
    error::{Error, Failure},
    extract::{Json, Path},
};
use crate::domain::{Caller, Login, RegistryAccess};

/// Lists images, newest first.
#[utoipa::path(get, path = "/images", tag = "images", responses((status = 200, body = ImageList), Failure))]
pub(super) async fn list_images(State(api): State<Api>, caller: Caller) -> Result<Answer<ImageList>, Error> {
    let images = api.service.images(&caller).await?;
    Ok(Answer(ImageList { items: images.into_iter().map(convert::image).collect() }))
}

/// Builds an image from Debian packages by the fixed recipe.
#[utoipa::path(post, path = "/images", tag = "images", request_body = BuildImage, responses((status = 202, body = Accepted), Failure))]
pub(super) async fn build_image(State(api): State<Api>, caller: Caller, Json(build): Json<BuildImage>) -> Result<AcceptedResponse, Error> {
    let operation = api.service.build_image(&caller, &build.name, &build.suite).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted((operation, Vec::new())))))
}

/// Takes a root tar or an OCI layout as it streams in; answers once all of it has been passed on.
#[utoipa::path(put, path = "/images/{image}", tag = "images", params(("image" = String, Path, description = "Name of the image")),
    request_body(content = Vec<u8>, content_type = "application/x-tar"), responses((status = 202, body = Accepted), Failure))]
pub(super) async fn import_image(
    State(api): State<Api>,
    caller: Caller,
    Path(image): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<AcceptedResponse, Error> {
    let tar = Box::pin(body.into_data_stream().map_err(io::Error::other));
    let total = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let operation = api.service.import_image(&caller, &image, tar, total).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted((operation, Vec::new())))))
}

/// Fetches an image from a registry, layer by layer, for this host's architecture.
#[utoipa::path(post, path = "/images/{image}/pull", tag = "images", params(("image" = String, Path, description = "Name of the image")),
    request_body = PullImage, responses((status = 202, body = Accepted), Failure))]
pub(super) async fn pull_image(
    State(api): State<Api>,
    caller: Caller,
    Path(image): Path<String>,
    Json(pull): Json<PullImage>,
) -> Result<AcceptedResponse, Error> {
    let login = pull.login.map(|login| Login { username: login.username, password: login.password.0 });
    let access = RegistryAccess { login, certificates: pull.certificates, plain: pull.plain_http };
    let operation = api.service.pull_image(&caller, &image, &pull.reference, access).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted((operation, Vec::new())))))
}

/// Makes it the image of berths that name none.
#[utoipa::path(post, path = "/images/{image}/default", tag = "images",
    params(("image" = String, Path, description = "Name or digest; a name follows the newest image of that name")),
    responses((status = 200, body = Image), Failure))]
pub(super) async fn set_default_image(State(api): State<Api>, caller: Caller, Path(image): Path<String>) -> Result<Answer<Image>, Error> {
    Ok(Answer(convert::image(api.service.set_default_image(&caller, &image).await?)))
}

/// Removes an image that no berth stands on.
#[utoipa::path(delete, path = "/images/{image}", tag = "images", params(("image" = String, Path, description = "Name or digest")),
    responses((status = 202, body = Accepted), Failure))]
pub(super) async fn remove_image(State(api): State<Api>, caller: Caller, Path(image): Path<String>) -> Result<AcceptedResponse, Error> {
    let operation = api.service.remove_image(&caller, &image).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted((operation, Vec::new())))))
}
