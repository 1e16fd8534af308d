//! Profiles.

use axum::{Json as Answer, extract::State, http::StatusCode};
use berth_api::{NewProfile, Profile, ProfileChange, ProfileList};

use super::{
    Api, convert,
    error::{Error, Failure},
    etag::{IfMatch, Tagged},
    extract::{Json, PageQuery, Path, Query},
    limits::named,
    paged, policy,
};
use crate::{
    domain::{Caller, OwnLimits},
    service::{ChangeProfile, CreateProfile},
};

/// Lists profiles by name.
#[utoipa::path(get, path = "/profiles", tag = "profiles", params(PageQuery), responses((status = 200, body = ProfileList), Failure))]
pub(super) async fn list_profiles(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Answer<ProfileList>, Error> {
    let (page, limit) = query.page()?;
    let profiles = api.service.profiles(&caller, &page).await?;
    let (items, next) = paged(profiles, limit, |profile| profile.name.clone(), convert::profile);
    Ok(Answer(ProfileList { items, next }))
}

/// Makes a profile.
#[utoipa::path(post, path = "/profiles", tag = "profiles", request_body = NewProfile, responses((status = 201, body = Profile), Failure))]
pub(super) async fn create_profile(
    State(api): State<Api>,
    caller: Caller,
    Json(new): Json<NewProfile>,
) -> Result<(StatusCode, Answer<Profile>), Error> {
    let limits = named!(OwnLimits, new);
    let request = CreateProfile { name: new.name, description: new.description, limits, policy: policy::asked(new.policy)? };
    let profile = api.service.create_profile(&caller, request).await?;
    Ok((StatusCode::CREATED, Answer(convert::profile(profile))))
}

/// Shows a profile.
#[utoipa::path(get, path = "/profiles/{profile}", tag = "profiles", params(("profile" = String, Path, description = "Its name")),
    responses((status = 200, body = Profile), Failure))]
pub(super) async fn show_profile(State(api): State<Api>, caller: Caller, Path(profile): Path<String>) -> Result<Tagged<Profile>, Error> {
    let profile = api.service.profile(&caller, &profile).await?;
    Ok(Tagged(profile.revision(), convert::profile(profile)))
}

/// Changes a profile; every berth that uses it takes on its limits and its policy.
#[utoipa::path(patch, path = "/profiles/{profile}", tag = "profiles", params(("profile" = String, Path, description = "Its name")),
    request_body = ProfileChange, responses((status = 200, body = Profile), Failure))]
pub(super) async fn change_profile(
    State(api): State<Api>,
    caller: Caller,
    Path(profile): Path<String>,
    IfMatch(expected): IfMatch,
    Json(change): Json<ProfileChange>,
) -> Result<Tagged<Profile>, Error> {
    let limits = named!(OwnLimits, change);
    let change = ChangeProfile { description: change.description, limits, policy: policy::asked(change.policy)?, expected };
    let profile = api.service.change_profile(&caller, &profile, change).await?;
    Ok(Tagged(profile.revision(), convert::profile(profile)))
}

/// Deletes a profile that no berth uses.
#[utoipa::path(delete, path = "/profiles/{profile}", tag = "profiles", params(("profile" = String, Path, description = "Its name")),
    responses((status = 204), Failure))]
pub(super) async fn delete_profile(
    State(api): State<Api>,
    caller: Caller,
    Path(profile): Path<String>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Error> {
    api.service.delete_profile(&caller, &profile, &expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
