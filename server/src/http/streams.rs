//! What streams through: a command in a berth, and its console.

use axum::{
    body::Body,
    extract::{FromRequest, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use berth_api::{ExecBerth, frame};
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api,
    error::{Error, Failure},
    extract::{Json, Path, Query},
    terminal::signed_out,
};
use crate::{
    chain,
    domain::{Caller, ExecCommand, Refusal},
};

/// Bytes held of each direction.
const BUFFER: usize = 64 * 1024;

/// Runs a command in a running berth: the connection is upgraded and carries frames both ways.
#[utoipa::path(post, path = "/berths/{user}/exec", tag = "berths", params(("user" = String, Path, description = "Name of the host account")),
    request_body = ExecBerth, responses((status = 101, description = "Upgraded to berth-exec"), Failure))]
pub(super) async fn exec_berth(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<String>,
    mut request: Request,
) -> Result<Response, Error> {
    if request.headers().get(header::UPGRADE).is_none_or(|value| value != frame::UPGRADE) {
        return Err(upgrade_required());
    }
    let client = hyper::upgrade::on(&mut request);
    let Json(exec) = Json::<ExecBerth>::from_request(request, &api).await?;
    let node = api.service.exec(&caller, &user, &command(exec)).await?;
    let hard = api.hard.clone();
    api.tasks.clone().spawn(async move {
        let copy = async {
            let mut client = TokioIo::new(client.await.map_err(std::io::Error::other)?);
            tokio::io::copy_bidirectional_with_sizes(&mut client, &mut TokioIo::new(node), BUFFER, BUFFER).await
        };
        tokio::select! {
            copied = hard.run_until_cancelled(copy) => {
                if let Some(Err(error)) = copied {
                    tracing::debug!(error = chain(&error), "an exec stream broke");
                }
            }
            () = signed_out(&api.service, &caller) => {}
        }
    });
    Ok((StatusCode::SWITCHING_PROTOCOLS, [(header::CONNECTION, "upgrade"), (header::UPGRADE, frame::UPGRADE)]).into_response())
}

fn upgrade_required() -> Error {
    let detail = format!("exec needs a connection that is upgraded to {}", frame::UPGRADE);
    Error::new(StatusCode::UPGRADE_REQUIRED, Refusal::Invalid, "upgrade_required", detail).hint("use berth exec")
}

fn command(exec: ExecBerth) -> ExecCommand {
    ExecCommand {
        argv: exec.argv,
        env: exec.env,
        cwd: exec.cwd,
        uid: exec.uid,
        gid: exec.gid,
        tty: exec.tty,
        size: exec.columns.zip(exec.rows),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    /// Lines from the end; all unless set.
    tail: Option<u32>,
    /// Go on with what comes.
    #[serde(default)]
    follow: bool,
}

/// Reads the berth's console.
#[utoipa::path(get, path = "/berths/{user}/logs", tag = "berths",
    params(("user" = String, Path, description = "Name of the host account"), LogsQuery),
    responses((status = 200, body = String, content_type = "text/plain"), Failure))]
pub(super) async fn read_logs(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Error> {
    let stream = api.service.logs(&caller, &user, query.tail, query.follow).await?;
    // What would go on for ever ends when the server does; its end is no error to the client, who asks the successor.
    let until = async move {
        match query.follow {
            true => api.soft.cancelled().await,
            false => std::future::pending().await,
        }
    };
    let stream = stream.take_until(Box::pin(until));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(stream)).into_response())
}
