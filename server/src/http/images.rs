//! Images.

use std::io;

use axum::{Json as Answer, body::Body, extract::State, http::StatusCode};
use berth_api::{Accepted, BuildImage, DefaultImage, Image, ImageList, Problem};
use futures_util::TryStreamExt;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    AcceptedResponse, Api, convert,
    error::Error,
    extract::{Json, Path, Query},
};
use crate::domain::Caller;

/// Lists images, newest first.
#[utoipa::path(get, path = "/images", tag = "images", responses((status = 200, body = ImageList), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_images(State(api): State<Api>, caller: Caller) -> Result<Answer<ImageList>, Error> {
    let images = api.service.images(&caller).await?;
    Ok(Answer(ImageList { items: images.into_iter().map(convert::image).collect() }))
}

/// Builds an image from Debian packages by the fixed recipe.
#[utoipa::path(post, path = "/images/build", tag = "images", request_body = BuildImage, responses((status = 202, body = Accepted), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn build_image(State(api): State<Api>, caller: Caller, Json(build): Json<BuildImage>) -> Result<AcceptedResponse, Error> {
    let operation = api.service.build_image(&caller, &build.name, &build.suite).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted((operation, Vec::new())))))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportQuery {
    /// Name of the image.
    name: String,
}

/// Takes a root tar or an OCI layout as it streams in; answers once all of it has been passed on.
#[utoipa::path(post, path = "/images/import", tag = "images", params(ImportQuery),
    request_body(content = Vec<u8>, content_type = "application/x-tar"), responses((status = 202, body = Accepted), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn import_image(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ImportQuery>,
    body: Body,
) -> Result<AcceptedResponse, Error> {
    let tar = Box::pin(body.into_data_stream().map_err(io::Error::other));
    let operation = api.service.import_image(&caller, &query.name, tar).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted((operation, Vec::new())))))
}

/// Names the image of berths that name none.
#[utoipa::path(put, path = "/images/default", tag = "images", request_body = DefaultImage, responses((status = 200, body = Image), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn set_default_image(
    State(api): State<Api>,
    caller: Caller,
    Json(default): Json<DefaultImage>,
) -> Result<Answer<Image>, Error> {
    Ok(Answer(convert::image(api.service.set_default_image(&caller, &default.image).await?)))
}

/// Removes an image that no berth stands on.
#[utoipa::path(delete, path = "/images/{image}", tag = "images", params(("image" = String, Path, description = "Name or digest")),
    responses((status = 202, body = Accepted), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn remove_image(State(api): State<Api>, caller: Caller, Path(image): Path<String>) -> Result<AcceptedResponse, Error> {
    let operation = api.service.remove_image(&caller, &image).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted((operation, Vec::new())))))
}
