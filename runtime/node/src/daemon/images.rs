//! Images of this node: the store's blocking work, its progress as lines, and who stands on what.

use std::{
    io::{self, Read},
    os::fd::AsFd,
    sync::{Arc, PoisonError},
};

use axum::{body::Bytes, http::StatusCode};
use berth_protocol::{BuildRequest, ImageInfo, ImageProgress};
use berth_runtime::{
    error::chain,
    image::{self, Image, Recipe},
};
use tokio::sync::{Mutex, RwLock, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{host::now_ms, node::Node, refusal::Refusal};

/// Imports at once; each unpacks a whole image.
const IMPORTS_AT_ONCE: usize = 2;
/// What the recipe can build.
pub(crate) const SUITES: [&str; 3] = ["bookworm", "trixie", "sid"];
/// Lines and pieces on their way.
const QUEUE: usize = 16;

/// What keeps the work on images apart.
pub(crate) struct Work {
    /// One build at a time.
    build: Mutex<()>,
    /// The build that runs: the image's name, and what ends it.
    building: std::sync::Mutex<Option<(String, CancellationToken)>>,
    imports: Arc<Semaphore>,
    /// Read while a new berth is tied to its image, written while an image is removed.
    pub(crate) tying: RwLock<()>,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            build: Mutex::default(),
            building: std::sync::Mutex::default(),
            imports: Arc::new(Semaphore::new(IMPORTS_AT_ONCE)),
            tying: RwLock::default(),
        }
    }
}

pub(crate) fn valid_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

fn info(node: &Node, image: Image) -> ImageInfo {
    let used_by = node.users_of(&image.digest);
    ImageInfo { digest: image.digest, name: image.name, created_at: image.created_ms, size_bytes: image.size_bytes, used_by }
}

fn refused(what: &str, error: &image::Error) -> Refusal {
    if error.is_input() {
        return Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "image_refused", format!("{what}: {}", chain(error)))
            .hint("give a root file system as tar, an OCI layout, or the output of docker save");
    }
    Refusal::failed("image_failed", what, error)
}

/// Blocking.
pub(crate) fn list(node: &Node) -> Result<Vec<ImageInfo>, Refusal> {
    let images = node.host.images.list().map_err(|e| refused("the images cannot be listed", &e))?;
    Ok(images.into_iter().map(|image| info(node, image)).collect())
}

/// Removes an image that no berth stands on; gone already is success.
pub(crate) async fn remove(node: Arc<Node>, digest: String) -> Result<(), Refusal> {
    if !valid_digest(&digest) {
        return Err(Refusal::bad_request(format!("{digest:?} is no image digest")).hint("sha256: and 64 hexadecimal digits"));
    }
    let removed = tokio::spawn(async move {
        let _untied = node.images.tying.write().await;
        let users = node.users_of(&digest);
        if !users.is_empty() {
            let detail = format!("the berths of {} stand on image {digest}", users.join(", "));
            return Err(Refusal::conflict("image_in_use", detail).hint("delete those berths first"));
        }
        let host = Arc::clone(&node);
        let done = tokio::task::spawn_blocking(move || host.host.images.remove(&digest)).await;
        done.map_err(|_| Refusal::stopping())?.map_err(|e| refused("the image cannot be removed", &e))
    });
    removed.await.unwrap_or_else(|_| Err(Refusal::stopping()))
}

/// Builds the default image by the node's own recipe. The build goes on when nobody listens any more; it ends with the node.
pub(crate) fn build(node: Arc<Node>, request: BuildRequest) -> mpsc::Receiver<ImageProgress> {
    let (lines, receiver) = mpsc::channel(QUEUE);
    let tracked = Arc::clone(&node);
    tracked.owners.spawn(async move {
        let Ok(_turn) = node.images.build.try_lock() else {
            let problem =
                Refusal::conflict("build_running", "an image is being built already").hint("wait for it; berth image list").problem;
            let _ = lines.send(ImageProgress::Failed { problem }).await;
            return;
        };
        let Ok((cancel, running)) = io::pipe() else { return };
        let ended = node.stop.child_token();
        *node.images.building.lock().unwrap_or_else(PoisonError::into_inner) = Some((request.name.clone(), ended.clone()));
        let (host, told) = (Arc::clone(&node), lines.clone());
        let work = tokio::task::spawn_blocking(move || {
            let recipe = Recipe { dir: host.host.layout.recipe.clone(), suite: request.suite };
            let mut progress = |line: &str| drop(told.blocking_send(ImageProgress::Log { line: line.to_owned() }));
            host.host.images.build(&request.name, &recipe, now_ms(), cancel.as_fd(), &mut progress)
        });
        tokio::pin!(work);
        let built = tokio::select! {
            built = &mut work => built,
            () = ended.cancelled() => {
                drop(running);
                work.await
            }
        };
        *node.images.building.lock().unwrap_or_else(PoisonError::into_inner) = None;
        finish(&node, &lines, "the image was not built", built.ok()).await;
    });
    receiver
}

/// Ends the build of an image of this name, if one runs; what it had made goes.
pub(crate) fn stop_build(node: &Node, name: &str) {
    let building = node.images.building.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, ended)) = building.as_ref().filter(|(building, _)| building == name) {
        ended.cancel();
    }
}

/// Takes an archive from `body`.
pub(crate) fn import(node: Arc<Node>, name: String, body: mpsc::Receiver<io::Result<Bytes>>) -> mpsc::Receiver<ImageProgress> {
    let (lines, receiver) = mpsc::channel(QUEUE);
    let tracked = Arc::clone(&node);
    tracked.owners.spawn(async move {
        let Ok(_turn) = Arc::clone(&node.images.imports).try_acquire_owned() else {
            let detail = format!("{IMPORTS_AT_ONCE} images are being imported already");
            let problem = Refusal::conflict("import_running", detail).hint("ask again when one is done").problem;
            let _ = lines.send(ImageProgress::Failed { problem }).await;
            return;
        };
        let (host, told) = (Arc::clone(&node), lines.clone());
        let work = tokio::task::spawn_blocking(move || {
            let mut reader = BodyReader { body, piece: Bytes::new() };
            let mut progress = |line: &str| drop(told.blocking_send(ImageProgress::Log { line: line.to_owned() }));
            let imported = host.host.images.import(&name, &mut reader, now_ms(), &mut progress);
            // A client that is still sending must come to its end before it hears why not.
            let _ = io::copy(&mut reader, &mut io::sink());
            imported
        });
        finish(&node, &lines, "the image was not imported", work.await.ok()).await;
    });
    receiver
}

async fn finish(node: &Node, lines: &mpsc::Sender<ImageProgress>, what: &str, done: Option<image::Result<Image>>) {
    let last = match done {
        Some(Ok(image)) => {
            tracing::info!(digest = image.digest, name = image.name, "image is there");
            ImageProgress::Done { image: info(node, image) }
        }
        Some(Err(error)) => {
            tracing::warn!(error = chain(&error), what, "image");
            ImageProgress::Failed { problem: refused(what, &error).problem }
        }
        None => ImageProgress::Failed { problem: Refusal::stopping().problem },
    };
    let _ = lines.send(last).await;
}

/// The pieces of a request's body, for a blocking reader. A body that broke off is an error, never an end.
struct BodyReader {
    body: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.body.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.piece = piece?,
            }
        }
        let length = buffer.len().min(self.piece.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_digest_is_one() {
        assert!(valid_digest(&format!("sha256:{:064x}", 7)));
        for bad in ["", "sha256:", "sha256:../../etc", &format!("sha256:{:063x}", 7), &format!("sha256:{:0>64}", "G")] {
            assert!(!valid_digest(bad), "{bad}");
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_no_end() {
        let (send, body) = mpsc::channel(4);
        send.blocking_send(Ok(Bytes::from_static(b"ab"))).unwrap();
        send.blocking_send(Err(io::ErrorKind::UnexpectedEof.into())).unwrap();
        let mut reader = BodyReader { body, piece: Bytes::new() };
        let mut two = [0; 2];
        reader.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"ab");
        assert!(reader.read(&mut two).is_err());
    }
}
