//! A shell in a berth, for a terminal in a browser.
//!
//! A WebSocket. Binary messages are bytes: what is typed towards the berth, what the shell says towards the browser. Text messages are
//! JSON: `{"resize":{"columns":80,"rows":24}}` towards the berth; `{"exit":0}` or `{"error":{"code":…,"detail":…}}` towards the browser,
//! after which the socket is closed.

use std::{io, time::Duration};

use axum::{
    extract::{
        FromRequestParts, Request, State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::StatusCode,
    response::Response,
};
use berth_api::frame;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use utoipa::IntoParams;

use super::{
    Api,
    error::{Error, Failure},
    extract::{Path, Query},
    security,
};
use crate::{
    domain::{Caller, Refusal, Via},
    service::Service,
};

/// Largest message of a browser: a paste.
const MAX_MESSAGE: usize = 1 << 20;
/// Whether the caller is still signed in is looked at so often.
const LOOK: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct TerminalQuery {
    /// Width of the terminal; 80 unless set.
    #[param(minimum = 1, maximum = 1000)]
    columns: Option<u16>,
    /// Height of the terminal; 24 unless set.
    #[param(minimum = 1, maximum = 1000)]
    rows: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Control {
    Resize { columns: u16, rows: u16 },
}

/// Opens a shell in a running berth: a WebSocket. Binary messages carry bytes both ways; text messages are JSON, `resize` towards the berth,
/// `exit` or `error` from it.
#[utoipa::path(get, path = "/berths/{user}/terminal", tag = "berths",
    params(("user" = String, Path, description = "Name of the host account"), TerminalQuery),
    responses((status = 101, description = "Upgraded to a WebSocket"), Failure))]
pub(super) async fn open_terminal(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<String>,
    Query(query): Query<TerminalQuery>,
    request: Request,
) -> Result<Response, Error> {
    let (mut parts, _) = request.into_parts();
    security::check_origin(&parts.uri, &parts.headers, matches!(caller.via, Via::Session(_)))?;
    // Whom it does not concern is told nothing of how it is asked for.
    api.service.may_open_terminal(&caller, &user).await?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &api).await.map_err(|_| upgrade_required())?;
    let size = (query.columns.unwrap_or(80).clamp(1, 1000), query.rows.unwrap_or(24).clamp(1, 1000));
    let node = api.service.terminal(&caller, &user, size).await?;
    let (hard, tasks) = (api.hard.clone(), api.tasks.clone());
    Ok(upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE).on_upgrade(move |socket| async move {
        // Tracked, so that the end of the service waits for it or cuts it.
        let bridge = tasks.track_future(async move { hard.run_until_cancelled(bridge(socket, node, &api.service, &caller)).await });
        if let Some(Err(error)) = bridge.await {
            tracing::debug!(%error, "a terminal broke");
        }
    }))
}

fn upgrade_required() -> Error {
    let detail = "a terminal needs a connection that is upgraded to a WebSocket";
    Error::new(StatusCode::UPGRADE_REQUIRED, Refusal::Invalid, "upgrade_required", detail).hint("use the dashboard, or berth shell")
}

/// Carries both ways until either side ends, or the caller is signed out.
async fn bridge(socket: WebSocket, node: Upgraded, service: &Service, caller: &Caller) -> io::Result<()> {
    let (mut to_browser, from_browser) = socket.split();
    let (from_node, to_node) = tokio::io::split(TokioIo::new(node));
    let last = tokio::select! {
        said = say(from_node, &mut to_browser) => said?,
        typed = listen(from_browser, to_node) => {
            typed?;
            None
        }
        () = signed_out(service, caller) => Some(r#"{"error":{"code":"session_ended","detail":"you were signed out"}}"#.to_owned()),
    };
    if let Some(last) = last {
        to_browser.send(Message::text(last)).await.map_err(io::Error::other)?;
    }
    to_browser.close().await.map_err(io::Error::other)
}

/// From the berth: bytes as they come, and how it ended.
async fn say(mut from: ReadHalf<TokioIo<Upgraded>>, to: &mut SplitSink<WebSocket, Message>) -> io::Result<Option<String>> {
    loop {
        let mut header = [0; frame::HEADER];
        from.read_exact(&mut header).await?;
        let (kind, length) = frame::parse(header).map_err(io::Error::other)?;
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).await?;
        match (kind, payload.as_slice()) {
            (frame::STDOUT | frame::STDERR, _) => to.send(Message::binary(payload)).await.map_err(io::Error::other)?,
            (frame::EXIT, &[a, b, c, d]) => return Ok(Some(format!(r#"{{"exit":{}}}"#, i32::from_be_bytes([a, b, c, d])))),
            (frame::ERROR, json) => {
                let problem: serde_json::Value = serde_json::from_slice(json)?;
                return Ok(Some(serde_json::json!({ "error": { "code": problem["code"], "detail": problem["detail"] } }).to_string()));
            }
            _ => return Err(io::Error::other("unexpected frame")),
        }
    }
}

/// From the browser: what is typed, and the size of the window.
async fn listen(mut from: SplitStream<WebSocket>, mut to: WriteHalf<TokioIo<Upgraded>>) -> io::Result<()> {
    while let Some(message) = from.next().await {
        match message.map_err(io::Error::other)? {
            Message::Binary(bytes) => {
                for part in bytes.chunks(frame::MAX_PAYLOAD) {
                    put(&mut to, frame::STDIN, part).await?;
                }
            }
            Message::Text(text) => {
                let Ok(Control::Resize { columns, rows }) = serde_json::from_str(&text) else { continue };
                let ([a, b], [c, d]) = (columns.clamp(1, 1000).to_be_bytes(), rows.clamp(1, 1000).to_be_bytes());
                put(&mut to, frame::RESIZE, &[a, b, c, d]).await?;
            }
            Message::Close(_) => break,
            // Answered by the library.
            Message::Ping(_) | Message::Pong(_) => {}
        }
    }
    Ok(())
}

async fn put(to: &mut WriteHalf<TokioIo<Upgraded>>, kind: u8, payload: &[u8]) -> io::Result<()> {
    to.write_all(&frame::header(kind, payload.len())).await?;
    to.write_all(payload).await?;
    to.flush().await
}

/// Returns when what the caller came with no longer counts.
pub(super) async fn signed_out(service: &Service, caller: &Caller) {
    loop {
        tokio::time::sleep(LOOK).await;
        // A database that does not answer signs nobody out.
        if let Ok(false) = service.still_proven(caller).await {
            return;
        }
    }
}
