//! HTTP/1.1 over a unix socket.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{Body, Error, MAX_ANSWER};
use crate::{Problem, frame};

/// Sends one request on a connection of its own, which lives as long as the answer's body.
pub(super) async fn request(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<(&'static str, Body)>,
    upgrade: bool,
) -> Result<Response<Incoming>, Error> {
    let stream = UnixStream::connect(socket).await.map_err(|source| Error::Connect { socket: socket.to_owned(), source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Error::Connection)?;
    // An error of the connection reaches the caller through the answer or its body.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let mut request = Request::builder().method(method).uri(path).header(HOST, "berth");
    if upgrade {
        request = request.header(CONNECTION, "upgrade").header(UPGRADE, frame::UPGRADE);
    }
    let body = match body {
        Some((kind, body)) => {
            request = request.header(CONTENT_TYPE, kind);
            body
        }
        None => Empty::new().map_err(|never| match never {}).boxed_unsync(),
    };
    let request = request.body(body).map_err(|source| Error::Request { what: path.to_owned(), source })?;
    sender.send_request(request).await.map_err(Error::Connection)
}

/// The whole body, as far as [`MAX_ANSWER`].
pub(super) async fn collect(response: Response<Incoming>) -> Result<Bytes, Error> {
    match Limited::new(response.into_body(), MAX_ANSWER).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => Error::Connection(*error),
            Err(_) => Error::Problem(Problem {
                status: 502,
                code: "answer_too_large".to_owned(),
                detail: format!("the service's answer passes {MAX_ANSWER} bytes"),
                hint: None,
                request_id: None,
            }),
        }),
    }
}
