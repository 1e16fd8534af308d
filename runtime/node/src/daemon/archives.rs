//! Archives of berths in `archive_dir`: what there is, and their making and taking up with progress. The names are the server's, checked here;
//! no path of anybody's is followed.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use berth_protocol::{Archive, ArchiveProgress, ArchiveRequest, RestoreRequest, valid_archive_name};
use berth_runtime::{
    archive::{self, Manifest, Progress},
    error::chain,
};
use tokio::sync::mpsc;

use super::{
    berth::{Request, Unmet},
    host::Host,
    listener::make_dir,
    node::Node,
    refusal::Refusal,
};

/// Lines on their way.
const QUEUE: usize = 16;
/// Progress is told at most so often.
const TELL: Duration = Duration::from_millis(300);
const MOST_NOTES: usize = 64 << 10;
/// Archives that are listed.
const MOST: usize = 10_000;
/// What is left free beside an archive.
const LEAST_FREE: u64 = 64 << 20;
/// Archives written or read at once; each keeps a processor busy.
pub(crate) const AT_ONCE: usize = 2;

/// Somebody waits for a piece of work; when he goes it is given up.
pub(crate) struct Job {
    pub(crate) lines: mpsc::Sender<ArchiveProgress>,
    pub(crate) cancel: Arc<AtomicBool>,
}

impl Job {
    /// To be called with the progress of the work; `of` is what the disk uses.
    pub(crate) fn teller(&self, of: u64) -> impl FnMut(Progress) + Send + 'static {
        let lines = self.lines.clone();
        let mut told: Option<Instant> = None;
        move |progress| {
            if told.is_none_or(|at| at.elapsed() >= TELL) {
                told = Some(Instant::now());
                // Whoever is behind hears the next one.
                let _ = lines.try_send(ArchiveProgress::Bytes { done: progress.tree, of });
            }
        }
    }

    pub(crate) fn give_up(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }
}

impl Host {
    /// The file of an archive; its name must be a valid one.
    pub(crate) fn archive_file(&self, name: &str) -> PathBuf {
        self.layout.archives.join(name)
    }

    /// Makes the directory, and takes away what a killed daemon had begun to write. Blocking.
    pub(crate) fn open_archives(&self) -> berth_runtime::error::Result<()> {
        let dir = &self.layout.archives;
        if let Some(parent) = dir.parent() {
            let _ = fs::create_dir_all(parent);
        }
        make_dir(dir, 0o700)?;
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with(".berth.part") {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Refuses what plainly will not fit: a tree is hardly ever packed to less than a quarter. Blocking.
    pub(crate) fn room_for_archive(&self, bytes: u64) -> Result<(), Refusal> {
        let stat = rustix::fs::statvfs(&self.layout.archives).map_err(|e| failed("the file system of the archives", &e))?;
        let free = stat.f_bavail * stat.f_frsize;
        let needed = bytes / 4 + LEAST_FREE;
        if free >= needed {
            return Ok(());
        }
        let detail =
            format!("{free} bytes are free in {}, an archive of {bytes} bytes needs about {needed}", self.layout.archives.display());
        Err(Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "archive_disk_full", detail)
            .hint("remove archives (berth archive list), or set archive_dir in node.toml to another file system"))
    }

    fn archive(&self, name: &str) -> Result<Archive, Refusal> {
        let file = self.archive_file(name);
        let manifest = archive::manifest(&file).map_err(|error| match file.exists() {
            true => damaged(&error),
            false => missing(name),
        })?;
        let size = fs::metadata(&file).map_err(|e| failed(name, &e))?.len();
        Ok(told(name, size, manifest))
    }
}

pub(crate) fn told(name: &str, size_bytes: u64, manifest: Manifest) -> Archive {
    let Manifest { user, created_at, image, bytes, docker_images, notes, .. } = manifest;
    Archive { name: name.to_owned(), size_bytes, user, created_at, image, disk_bytes: bytes, docker_images, notes }
}

fn missing(name: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "archive_not_found", format!("this node has no archive {name}")).hint("berth archive list")
}

fn damaged(error: &berth_runtime::Error) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "archive_damaged", chain(error)).hint("copy it again from where it came from")
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Refusal {
    Refusal::failed("archive_failed", what, error)
}

fn check_name(name: &str) -> Result<(), Refusal> {
    match valid_archive_name(name) {
        true => Ok(()),
        false => {
            let shown: String = name.chars().take(64).collect();
            Err(Refusal::bad_request(format!("{shown:?} cannot be the name of an archive"))
                .hint("up to 128 ASCII letters, digits and _ . @ + -, ending in .berth"))
        }
    }
}

/// Newest first. What is no archive is left out. Blocking.
pub(crate) fn list(node: &Node) -> Result<Vec<Archive>, Refusal> {
    let dir = &node.host.layout.archives;
    let entries = fs::read_dir(dir).map_err(|e| failed("the archives cannot be listed", &e))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| valid_archive_name(name));
    let mut all: Vec<Archive> = names.take(MOST).filter_map(|name| node.host.archive(&name).ok()).collect();
    all.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.name.cmp(&b.name)));
    Ok(all)
}

/// Blocking.
pub(crate) fn show(node: &Node, name: &str) -> Result<Archive, Refusal> {
    check_name(name)?;
    node.host.archive(name)
}

/// Gone already is success. Blocking.
pub(crate) fn remove(node: &Node, name: &str) -> Result<(), Refusal> {
    check_name(name)?;
    super::listener::gone(fs::remove_file(node.host.archive_file(name))).map_err(|e| failed("the archive cannot be removed", &e))
}

/// Writes the archive of a berth; lines until it is done or has failed.
pub(crate) fn write(node: Arc<Node>, user: String, request: ArchiveRequest) -> mpsc::Receiver<ArchiveProgress> {
    work(node, move |node, job| async move {
        check_name(&request.archive)?;
        let notes = serde_json::to_vec(&request.notes).unwrap_or_default().len();
        if notes > MOST_NOTES {
            return Err(Refusal::bad_request(format!("the notes have {notes} bytes, the most is {MOST_NOTES}")));
        }
        let berth = node.find(&user).ok_or_else(|| node.not_there(&user))?;
        let name = request.archive.clone();
        ask(&node, &user, &berth, |reply| Request::Archive { request: Box::new(request), job, reply }).await?;
        let host = Arc::clone(&node);
        tokio::task::spawn_blocking(move || host.host.archive(&name)).await.unwrap_or_else(|_| Err(Refusal::stopping()))
    })
}

/// Makes a berth from an archive; lines until it is done or has failed.
pub(crate) fn restore(node: Arc<Node>, user: String, request: RestoreRequest) -> mpsc::Receiver<ArchiveProgress> {
    work(node, move |node, job| async move {
        check_name(&request.archive)?;
        let (host, name) = (Arc::clone(&node), request.archive.clone());
        let found = tokio::task::spawn_blocking(move || host.host.archive(&name)).await.unwrap_or_else(|_| Err(Refusal::stopping()))?;
        let limit = request.ensure.limits.disk_bytes;
        if found.disk_bytes > limit {
            let detail = format!("the archive holds {} bytes, and the disk is to have {limit}", found.disk_bytes);
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "archive_does_not_fit", detail).hint("give it a larger disk"));
        }
        let (berth, account) = node.place(&user, &request.ensure).await?;
        let archive = request.archive.clone();
        let ensure = Box::new(request.ensure);
        ask(&node, &user, &berth, |reply| Request::Restore { ensure, account, archive, of: found.disk_bytes, job, reply }).await?;
        Ok(found)
    })
}

async fn ask(
    node: &Node,
    user: &str,
    berth: &super::berth::Berth,
    request: impl FnOnce(super::berth::Reply) -> Request,
) -> Result<(), Refusal> {
    match berth.ask(request).await {
        Ok(_) => Ok(()),
        Err(Unmet::Refused(refusal)) => Err(refusal),
        Err(Unmet::Gone) if node.stop.is_cancelled() => Err(Refusal::stopping()),
        Err(Unmet::Gone) => Err(Refusal::no_berth(user)),
    }
}

/// Runs a piece of work for whoever listens; it is given up when he goes, or the node stops.
fn work<F>(node: Arc<Node>, act: impl FnOnce(Arc<Node>, Job) -> F + Send + 'static) -> mpsc::Receiver<ArchiveProgress>
where
    F: Future<Output = Result<Archive, Refusal>> + Send + 'static,
{
    let (lines, receiver) = mpsc::channel(QUEUE);
    let cancel = Arc::new(AtomicBool::new(false));
    let tracked = Arc::clone(&node);
    tracked.owners.spawn(async move {
        let turn = tokio::select! {
            turn = Arc::clone(&node.archiving).acquire_owned() => turn,
            () = lines.closed() => return,
            () = node.stop.cancelled() => return,
        };
        let Ok(_turn) = turn else { return };
        let job = Job { lines: lines.clone(), cancel: Arc::clone(&cancel) };
        let mut acting = tokio::spawn(act(Arc::clone(&node), job));
        let done = tokio::select! {
            done = &mut acting => done,
            () = async { tokio::select! { () = lines.closed() => {} () = node.stop.cancelled() => {} } } => {
                cancel.store(true, Ordering::Relaxed);
                acting.await
            }
        };
        let last = match done {
            Ok(Ok(archive)) => ArchiveProgress::Done { archive },
            Ok(Err(refusal)) => ArchiveProgress::Failed { problem: refusal.problem },
            Err(_) => ArchiveProgress::Failed { problem: Refusal::stopping().problem },
        };
        let _ = lines.send(last).await;
    });
    receiver
}

/// What an error of packing or filling is told as.
pub(crate) fn told_error(code: &str, what: String, error: &berth_runtime::Error) -> Refusal {
    match error {
        berth_runtime::Error::Invalid(detail) if detail.contains("no whole archive") => damaged(error),
        // For a suspension, for the end of the daemon, or because nobody listens any more.
        berth_runtime::Error::Invalid(detail) if detail == archive::GIVEN_UP => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "berth_busy", format!("{what}: it was given up for something else"))
                .hint("ask again")
        }
        _ => Refusal::failed(code, what, error),
    }
}
