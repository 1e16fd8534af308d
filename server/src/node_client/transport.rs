//! HTTP/1.1 over the node's unix socket.

use std::{io, path::Path};

use berth_protocol as wire;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{Error, convert};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Largest answer that is not a stream.
const MAX_ANSWER: usize = 64 << 20;

/// Sends one request on a connection of its own, which lives as long as the answer's body.
pub(super) async fn request(
    socket: &Path,
    what: &str,
    method: Method,
    path: &str,
    body: Option<(&'static str, Body)>,
    upgrade: bool,
) -> Result<Response<Incoming>, Error> {
    let broken = |source| Error::Connection { what: what.to_owned(), source };
    let stream = UnixStream::connect(socket).await.map_err(|source| Error::Unreachable { socket: socket.to_owned(), source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // An error of the connection reaches the caller through the answer or its body.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let mut request = Request::builder().method(method).uri(path).header(HOST, "berth-node");
    if upgrade {
        request = request.header(CONNECTION, "upgrade").header(UPGRADE, wire::frame::UPGRADE);
    }
    let body = match body {
        Some((kind, body)) => {
            request = request.header(CONTENT_TYPE, kind);
            body
        }
        None => Empty::new().map_err(|never| match never {}).boxed_unsync(),
    };
    let request = request.body(body).map_err(|source| Error::Request { what: what.to_owned(), source })?;
    sender.send_request(request).await.map_err(broken)
}

/// Passes a success on; turns anything else into the problem it holds.
pub(super) async fn accept(what: &str, response: Response<Incoming>) -> Result<Response<Incoming>, Error> {
    let status = response.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let bytes = collect(what, response).await?;
    match serde_json::from_slice::<wire::Problem>(&bytes) {
        Ok(problem) => Err(Error::Problem(what.to_owned(), convert::problem(status.as_u16(), problem))),
        Err(_) => Err(Error::Answer { what: what.to_owned(), reason: format!("status {status} without a reason") }),
    }
}

/// The whole body, as far as [`MAX_ANSWER`].
pub(super) async fn collect(what: &str, response: Response<Incoming>) -> Result<Bytes, Error> {
    match Limited::new(response.into_body(), MAX_ANSWER).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(source) => Error::Connection { what: what.to_owned(), source: *source },
            Err(_) => Error::Answer { what: what.to_owned(), reason: format!("it passes {MAX_ANSWER} bytes") },
        }),
    }
}
