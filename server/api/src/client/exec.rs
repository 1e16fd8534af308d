//! The frames of an exec, after the upgrade.

use std::io;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::frame;

#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("the stream of the command broke")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
    #[error("unexpected frame of {length} bytes and kind {kind}")]
    Unexpected { kind: u8, length: usize },
    /// The command could not be run.
    #[error("{0}")]
    Failed(String),
}

/// What the command says.
#[derive(Debug, PartialEq, Eq)]
pub enum ExecFrame {
    Stdout(Bytes),
    Stderr(Bytes),
    /// Exit status; 128 + n after signal n.
    Exit(i32),
}

/// A running command.
#[derive(Debug)]
pub struct Exec {
    io: TokioIo<Upgraded>,
}

impl Exec {
    pub(super) fn new(upgraded: Upgraded) -> Self {
        Self { io: TokioIo::new(upgraded) }
    }

    pub fn split(self) -> (ExecReader, ExecWriter) {
        let (read, write) = tokio::io::split(self.io);
        (ExecReader { read }, ExecWriter { write })
    }
}

#[derive(Debug)]
pub struct ExecReader {
    read: ReadHalf<TokioIo<Upgraded>>,
}

impl ExecReader {
    /// The next frame; an end of the stream before [`ExecFrame::Exit`] is an error.
    pub async fn next(&mut self) -> Result<ExecFrame, ExecError> {
        let mut header = [0; frame::HEADER];
        self.read.read_exact(&mut header).await?;
        let (kind, length) = frame::parse(header)?;
        let mut payload = vec![0; length];
        self.read.read_exact(&mut payload).await?;
        match (kind, payload.as_slice()) {
            (frame::STDOUT, _) => Ok(ExecFrame::Stdout(payload.into())),
            (frame::STDERR, _) => Ok(ExecFrame::Stderr(payload.into())),
            (frame::EXIT, &[a, b, c, d]) => Ok(ExecFrame::Exit(i32::from_be_bytes([a, b, c, d]))),
            (frame::ERROR, json) => Err(ExecError::Failed(match serde_json::from_slice::<berth_protocol::Problem>(json) {
                Ok(problem) => problem.detail,
                Err(_) => String::from_utf8_lossy(json).into_owned(),
            })),
            _ => Err(ExecError::Unexpected { kind, length }),
        }
    }
}

#[derive(Debug)]
pub struct ExecWriter {
    write: WriteHalf<TokioIo<Upgraded>>,
}

impl ExecWriter {
    /// Input for the command; an empty slice is the end of input.
    pub async fn stdin(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return self.send(frame::STDIN, bytes).await;
        }
        for part in bytes.chunks(frame::MAX_PAYLOAD) {
            self.send(frame::STDIN, part).await?;
        }
        Ok(())
    }

    pub async fn resize(&mut self, columns: u16, rows: u16) -> io::Result<()> {
        let ([a, b], [c, d]) = (columns.to_be_bytes(), rows.to_be_bytes());
        self.send(frame::RESIZE, &[a, b, c, d]).await
    }

    pub async fn signal(&mut self, signal: u8) -> io::Result<()> {
        self.send(frame::SIGNAL, &[signal]).await
    }

    async fn send(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(frame::HEADER + payload.len());
        bytes.extend_from_slice(&frame::header(kind, payload.len()));
        bytes.extend_from_slice(payload);
        self.write.write_all(&bytes).await?;
        self.write.flush().await
    }
}
