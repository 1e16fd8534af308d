//! HTTP on `node.sock`. The peer's uid is checked before a byte is read: root and the server's account only.

mod archives;
mod berths;
mod calls;
mod extract;
mod host;
mod images;

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{PermissionsExt, chown},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::DefaultBodyLimit,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
    serve::Listener,
};
use serde::Serialize;
use tokio::{
    net::{UnixListener, UnixStream, unix::SocketAddr},
    sync::mpsc,
};

use super::{listener::gone, node::Node, refusal::Refusal};

/// Largest body of a request that is read into memory.
pub(crate) const MAX_BODY: usize = 256 * 1024;

/// Everything this node answers to.
pub(crate) fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/v1/node", get(host::info))
        .route("/v1/doctor", get(host::doctor).post(host::deep_doctor))
        .route("/v1/users", post(host::users))
        .route("/v1/users/{name}", get(host::user))
        .route("/v1/accounts", get(host::accounts))
        .route("/v1/berths", get(berths::list))
        .route("/v1/berths/{user}", get(berths::show).put(berths::ensure).delete(berths::delete))
        .route("/v1/berths/{user}/preview", post(berths::preview))
        .route("/v1/berths/{user}/stop", post(berths::stop))
        .route("/v1/berths/{user}/exec", post(berths::exec))
        .route("/v1/berths/{user}/logs", get(berths::logs))
        .route("/v1/berths/{user}/archive", post(archives::write))
        .route("/v1/berths/{user}/restore", post(archives::restore))
        .route("/v1/archives", get(archives::list))
        .route("/v1/archives/{name}", get(archives::show).delete(archives::remove))
        .route("/v1/berths/{user}/inside", get(berths::inside))
        .route("/v1/berths/{user}/prune", post(berths::prune))
        .route("/v1/usage", get(berths::usage))
        .route("/v1/watch", get(berths::watch))
        .route("/v1/calls/watch", get(calls::watch))
        .route("/v1/calls/{id}", get(calls::page))
        .route("/v1/calls/{id}/taken", post(calls::taken))
        .route("/v1/images", get(images::list))
        .route("/v1/images/build", post(images::build).delete(images::stop_build))
        .route("/v1/images/import", post(images::import).layer(DefaultBodyLimit::disable()))
        .route("/v1/images/{digest}", delete(images::remove))
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "no_such_route", "the node has no such route") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this route does not know that method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(node)
}

/// The socket, and who may use it.
pub(crate) struct NodeSocket {
    listener: UnixListener,
    allowed: Vec<u32>,
}

impl NodeSocket {
    /// Binds under another name and renames: a name that is there always answers.
    pub(crate) fn bind(node: &Node, server: Option<(u32, u32)>) -> io::Result<Self> {
        let path = node.host.layout.node_socket();
        let temporary = path.with_extension("new");
        gone(fs::remove_file(&temporary))?;
        let listener = UnixListener::bind(&temporary)?;
        chown(&temporary, Some(0), server.map(|(_, gid)| gid))?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o660))?;
        fs::rename(&temporary, &path)?;
        Ok(Self { listener, allowed: server.map(|(uid, _)| uid).into_iter().chain([0]).collect() })
    }
}

impl Listener for NodeSocket {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => match stream.peer_cred() {
                    Ok(peer) if self.allowed.contains(&peer.uid()) => return (stream, address),
                    peer => {
                        tracing::warn!(uid = ?peer.map(|p| p.uid()), "refused at node.sock");
                        turn_away(stream);
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Says why without reading anything; what does not fit the socket's buffer is not sent.
fn turn_away(stream: UnixStream) {
    let body = r#"{"code":"peer_refused","detail":"only root and the account of berth-server may use this socket"}"#;
    let head =
        format!("HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    }
}

/// Values as they come, one JSON line each.
fn json_lines<T: Serialize + Send + 'static>(values: mpsc::Receiver<T>) -> Response {
    let lines = futures_util::stream::unfold(values, |mut values| async {
        let value = values.recv().await?;
        let mut line = serde_json::to_vec(&value).unwrap_or_default();
        line.push(b'\n');
        Some((Ok::<_, io::Error>(line), values))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// Runs blocking work for a request.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a request's work ended");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the node failed; its log says more")
    })
}
