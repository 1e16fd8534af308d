//! Administrators.

use axum::{Json as Answer, extract::State, http::StatusCode};
use berth_api::{Admin, AdminChange, AdminList, NewAdmin, NewPassword};

use super::{
    Api,
    convert::sign_in as convert,
    error::{Error, Failure},
    extract::{Json, PageQuery, Path, Query},
    paged,
};
use crate::{
    domain::Caller,
    service::{Browser, ChangeAdministrator, NewAdministrator},
};

/// Lists administrators by name.
#[utoipa::path(get, path = "/admins", tag = "accounts", params(PageQuery), responses((status = 200, body = AdminList), Failure))]
pub(super) async fn list_admins(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Answer<AdminList>, Error> {
    let (page, limit) = query.page()?;
    let found = api.service.administrators(&caller, &page).await?;
    let (items, next) = paged(found, limit, |found| found.name.clone(), convert::admin);
    Ok(Answer(AdminList { items, next }))
}

/// Makes an administrator.
#[utoipa::path(post, path = "/admins", tag = "accounts", request_body = NewAdmin, responses((status = 201, body = Admin), Failure))]
pub(super) async fn create_admin(
    State(api): State<Api>,
    caller: Caller,
    Json(new): Json<NewAdmin>,
) -> Result<(StatusCode, Answer<Admin>), Error> {
    let NewAdmin { name, role, password, host_user } = new;
    let request = NewAdministrator { name, role: convert::role_asked(role), password: password.0, host_user };
    let created = api.service.create_administrator(&caller, request).await?;
    Ok((StatusCode::CREATED, Answer(convert::admin(created))))
}

/// Shows an administrator.
#[utoipa::path(get, path = "/admins/{admin}", tag = "accounts", params(("admin" = String, Path, description = "His name")),
    responses((status = 200, body = Admin), Failure))]
pub(super) async fn show_admin(State(api): State<Api>, caller: Caller, Path(admin): Path<String>) -> Result<Answer<Admin>, Error> {
    Ok(Answer(convert::admin(api.service.administrator(&caller, &admin).await?)))
}

/// Changes an administrator's role or host account, disables or enables him. The last one who can sign in stays.
#[utoipa::path(patch, path = "/admins/{admin}", tag = "accounts", params(("admin" = String, Path, description = "His name")),
    request_body = AdminChange, responses((status = 200, body = Admin), Failure))]
pub(super) async fn change_admin(
    State(api): State<Api>,
    caller: Caller,
    Path(admin): Path<String>,
    Json(change): Json<AdminChange>,
) -> Result<Answer<Admin>, Error> {
    let AdminChange { role, enabled, host_user } = change;
    let change = ChangeAdministrator { role: role.map(convert::role_asked), enabled, host_user };
    Ok(Answer(convert::admin(api.service.change_administrator(&caller, &admin, change).await?)))
}

/// Deletes an administrator with his sessions and tokens. The last one who can sign in stays.
#[utoipa::path(delete, path = "/admins/{admin}", tag = "accounts", params(("admin" = String, Path, description = "His name")),
    responses((status = 204), Failure))]
pub(super) async fn delete_admin(State(api): State<Api>, caller: Caller, Path(admin): Path<String>) -> Result<StatusCode, Error> {
    api.service.delete_administrator(&caller, &admin).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets a password; all sessions of the account end.
#[utoipa::path(post, path = "/admins/{admin}/password", tag = "accounts", params(("admin" = String, Path, description = "His name")),
    request_body = NewPassword, responses((status = 204), Failure))]
pub(super) async fn set_password(
    State(api): State<Api>,
    caller: Caller,
    browser: Browser,
    Path(admin): Path<String>,
    Json(new): Json<NewPassword>,
) -> Result<StatusCode, Error> {
    let current = new.current.as_ref().map(|current| current.0.as_str());
    api.service.set_password(&caller, &admin, current, &new.password.0, browser.source).await?;
    Ok(StatusCode::NO_CONTENT)
}
