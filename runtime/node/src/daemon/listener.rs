//! The user's Docker socket while nobody else serves it: `run_dir/users/<uid>/docker.sock`, and the name as a symbolic link.
//!
//! The socket is bound under a temporary name, given to the user and then renamed, so that it is never there with wrong rights, and a
//! socket whose server died is replaced without a gap. A waiting connection is seen by polling; nothing is accepted but to be refused.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{PermissionsExt, chown, symlink},
            net::UnixListener,
        },
    },
    path::Path,
    sync::Arc,
};

use berth_protocol::BerthId;
use berth_runtime::{
    error::{Result, Step},
    fault,
};
use rustix::net::{SocketFlags, accept_with};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Semaphore,
    task::spawn_blocking,
};

use super::{calls::Calls, layout::Layout, record::Record};
use crate::{
    descriptor::{watch, watch_socket},
    link::Owner,
    shim::{Answer, Visitor},
};

/// Refused connections of one berth whose requests are read at once; more are answered without.
const ANSWERED_AT_ONCE: usize = 64;
/// And that are accepted in one go.
const ACCEPTED_AT_ONCE: usize = 1024;

pub(crate) struct Listener {
    socket: OwnedFd,
    answering: Arc<Semaphore>,
    trail: Trail,
}

/// Where what is refused here is written down.
#[derive(Clone)]
struct Trail {
    calls: Arc<Calls>,
    id: BerthId,
    owner: Owner,
}

impl Listener {
    /// Makes the socket, or replaces the one that is there.
    pub(crate) fn bind(layout: &Layout, record: &Record, calls: &Arc<Calls>) -> Result<Self> {
        let dir = layout.user_dir(record.uid);
        fault::point("make socket directory")?;
        make_dir(&dir, 0o711)?;
        let socket = layout.user_socket(record.uid);
        let temporary = dir.join(".docker.sock");
        fault::point("bind user socket")?;
        gone(fs::remove_file(&temporary)).step("remove", temporary.display())?;
        let listener = UnixListener::bind(&temporary).step("bind", temporary.display())?;
        let placed = chown(&temporary, Some(record.uid), Some(record.gid))
            .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)))
            .and_then(|()| listener.set_nonblocking(true))
            .and_then(|()| fs::rename(&temporary, &socket))
            .step("place", socket.display());
        if let Err(error) = placed {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        if let Some(link) = layout.user_link(&record.user) {
            let target = record.uid.to_string();
            if fs::read_link(&link).ok().as_deref() != Some(Path::new(&target)) {
                fault::point("link user name")?;
                gone(fs::remove_file(&link)).step("remove", link.display())?;
                symlink(&target, &link).step("link", link.display())?;
            }
        }
        Ok(Self::adopt(listener.into(), record, calls))
    }

    /// Takes over a listening socket that a shim kept.
    pub(crate) fn adopt(socket: OwnedFd, record: &Record, calls: &Arc<Calls>) -> Self {
        let owner = Owner { name: record.user.clone(), uid: record.uid, gid: record.gid };
        let trail = Trail { calls: Arc::clone(calls), id: record.id, owner };
        Self { socket, answering: Arc::new(Semaphore::new(ANSWERED_AT_ONCE)), trail }
    }

    /// For the shim, which accepts from then on.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Readable when a connection waits. To be dropped while a shim accepts: every connection would wake the node.
    pub(crate) fn watch(&self) -> io::Result<AsyncFd<OwnedFd>> {
        watch(self.socket.try_clone()?, Interest::READABLE)
    }

    /// Accepts what waits and answers it as dockerd would, with `message`.
    pub(crate) fn refuse_waiting(&self, message: &str) {
        self.answer_waiting(&Answer::new(503, message));
    }

    /// The same for what an administrator forbids.
    pub(crate) fn bar_waiting(&self, message: &str) {
        self.answer_waiting(&Answer::new(403, message));
    }

    fn answer_waiting(&self, answer: &Answer) {
        for _ in 0..ACCEPTED_AT_ONCE {
            let Ok(client) = accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else { return };
            let Ok(visitor) = Visitor::new(&client) else { continue };
            let (answer, trail) = (answer.clone(), self.trail.clone());
            let slot = Arc::clone(&self.answering).try_acquire_owned();
            if slot.is_err() {
                answer.send_now(&client);
            }
            tokio::spawn(async move {
                let head = match slot {
                    Ok(_slot) => match watch_socket(client) {
                        Ok(client) => answer.send(&client).await,
                        Err(_) => return,
                    },
                    Err(_) => Vec::new(),
                };
                let record = visitor.refused(&trail.owner, &head, answer.status);
                let _ = spawn_blocking(move || trail.calls.note(trail.id, &record)).await;
            });
        }
    }
}

/// Removes socket, directory and symbolic link; gone already is success.
pub(crate) fn remove(layout: &Layout, uid: u32, user: Option<&str>) -> Result<()> {
    if let Some(link) = user.and_then(|u| layout.user_link(u))
        && fs::read_link(&link).is_ok_and(|target| target == Path::new(&uid.to_string()))
    {
        fault::point("unlink user name")?;
        gone(fs::remove_file(&link)).step("remove", link.display())?;
    }
    let dir = layout.user_dir(uid);
    fault::point("remove user socket")?;
    gone(fs::remove_dir_all(&dir)).step("remove", dir.display())
}

/// Makes one directory with exactly this mode; there already is success.
pub(crate) fn make_dir(dir: &Path, mode: u32) -> Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => made.step("make", dir.display())?,
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).step("set the mode of", dir.display())
}

/// Turns "not there" into success.
pub(crate) fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::{fs::MetadataExt, net::UnixStream},
    };

    use berth_protocol::{CallRecord, Outcome};

    use super::*;
    use crate::daemon::record::tests::record;

    fn layout(dir: &Path) -> Layout {
        let of = |name: &str| dir.join(name);
        fs::create_dir_all(of("run/users")).unwrap();
        Layout { run: of("run"), state: of("state"), log: of("log"), programs: of("p"), recipe: of("r"), archives: of("a") }
    }

    #[tokio::test]
    async fn x11_a_refused_client_reads_a_docker_style_message_and_is_written_down() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let mine = record("alice", nix::unistd::geteuid().as_raw().max(1), 0);
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP: only root may give a socket away");
            return;
        }
        fs::create_dir(dir.path().join("calls")).unwrap();
        let calls = Arc::new(Calls::open(dir.path().join("calls")).unwrap());
        let listener = Listener::bind(&layout, &mine, &calls).unwrap();
        assert_eq!(fs::metadata(layout.user_socket(mine.uid)).unwrap().mode() & 0o777, 0o600);
        let mut client = UnixStream::connect(layout.users().join("alice/docker.sock")).unwrap();
        client.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let watch = listener.watch().unwrap();
        let _ = watch.readable().await.unwrap();
        listener.refuse_waiting("the image is missing: ask your administrator");
        let answer = spawn_blocking(move || {
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            text
        });
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.trim_end().ends_with(r#"{"message":"the image is missing: ask your administrator"}"#), "{answer}");
        let mut news = calls.news();
        while calls.waiting().is_empty() {
            news.changed().await.unwrap();
        }
        let page = calls.page(mine.id, 0).unwrap();
        let [CallRecord::Call(told)] = &page.records[..] else { panic!("{:?}", page.records) };
        assert_eq!((told.path.as_str(), told.status, told.outcome), ("/_ping", Some(503), Outcome::Refused));

        let again = Listener::bind(&layout, &mine, &calls).unwrap();
        drop(again);
        remove(&layout, mine.uid, Some("alice")).unwrap();
        remove(&layout, mine.uid, Some("alice")).unwrap();
        assert_eq!(fs::read_dir(layout.users()).unwrap().count(), 0);
    }
}
