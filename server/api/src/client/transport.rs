//! HTTP/1.1 over a unix socket, or over TCP with TLS.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    client::conn::http1,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

use super::{Body, Endpoint, Error, MAX_ANSWER};
use crate::{Problem, frame};

/// What HTTP is spoken over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Endpoint {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Socket(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Remote(remote) => remote.connect().await,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Remote(remote) => remote.to_string(),
        }
    }
}

/// Sends one request on a connection of its own, which lives as long as the answer's body.
pub(super) async fn request(
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    body: Option<(&'static str, Body)>,
    upgrade: bool,
) -> Result<Response<Incoming>, Error> {
    let stream = endpoint.connect().await.map_err(|source| Error::Connect { service: endpoint.name(), source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Error::Connection)?;
    // An error of the connection reaches the caller through the answer or its body.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let mut request = Request::builder().method(method).uri(path);
    request = match endpoint {
        Endpoint::Socket(_) => request.header(HOST, "berth"),
        Endpoint::Remote(remote) => request.header(HOST, remote.authority()).header(AUTHORIZATION, format!("Bearer {}", remote.token.0)),
    };
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
