//! The way into the berth: Docker's socket inside, reached without ever following a path of the tenant out of it.

use std::{
    io,
    ops::RangeInclusive,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};
use tokio::time::sleep;

use super::copy::Stream;
use crate::descriptor::watch_socket;

/// Relative to the berth's root.
const SOCKET: &str = "run/docker.sock";
/// How long a full accept queue inside is waited for.
const QUEUE: Duration = Duration::from_secs(10);

/// One berth's inside, as the shim may reach it.
#[derive(Debug)]
pub(crate) struct Inner {
    /// `O_PATH` on the berth's `/`.
    pub(crate) root: OwnedFd,
    /// Host ids of the berth: only they may answer.
    pub(crate) ids: RangeInclusive<u32>,
}

/// Why the inner Docker cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    #[error("nothing listens at /run/docker.sock inside the berth")]
    Absent,
    #[error("/run/docker.sock inside the berth is {0}, not Docker's socket")]
    NotDocker(&'static str),
    #[error("the socket at /run/docker.sock inside the berth is served from outside of it")]
    Outside,
    /// dockerd opens it a moment after it is bound.
    #[error("the rights of /run/docker.sock inside the berth let nobody connect")]
    Closed,
    #[error("the accept queue of /run/docker.sock inside the berth is full")]
    Busy,
    #[error("cannot {operation} /run/docker.sock inside the berth")]
    Failed {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
}

impl Inner {
    /// Connects. Never waits for the tenant but for room in the accept queue, and that at most 10 s.
    pub(crate) async fn connect(&self) -> Result<Stream, Unreachable> {
        watch_socket(self.connect_unwatched().await?).map_err(failed("wait for"))
    }

    /// The same, not watched by the event loop yet.
    pub(crate) async fn connect_unwatched(&self) -> Result<OwnedFd, Unreachable> {
        let socket = self.dial().await?;
        // The listener's ids at the time of listen(2); the range is this berth's alone, so no socket of the host can pass.
        let peer = getsockopt(&socket, PeerCredentials).map_err(|e| failed("identify the listener of")(e.into()))?;
        if !self.ids.contains(&peer.uid()) {
            return Err(Unreachable::Outside);
        }
        Ok(socket)
    }

    async fn dial(&self) -> Result<OwnedFd, Unreachable> {
        let place = self.open()?;
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", place.as_raw_fd())).map_err(|e| failed("name")(e.into()))?;
        let began = Instant::now();
        loop {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
                .map_err(|e| failed("make a socket for")(e.into()))?;
            match connect(&socket, &address) {
                Ok(()) => return Ok(socket),
                Err(Errno::INTR) => {}
                Err(Errno::CONNREFUSED) => return Err(Unreachable::Absent),
                Err(Errno::ACCESS) => return Err(Unreachable::Closed),
                Err(Errno::PROTOTYPE) => return Err(Unreachable::NotDocker("a socket of another type")),
                Err(Errno::AGAIN) if began.elapsed() < QUEUE => sleep(Duration::from_millis(5)).await,
                Err(Errno::AGAIN) => return Err(Unreachable::Busy),
                Err(error) => return Err(failed("connect to")(error.into())),
            }
        }
    }

    /// The socket itself, by an `O_PATH` descriptor.
    ///
    /// Only cached names are looked at: a bound socket pins its own name, and a lookup that must ask a file system could be held up for
    /// ever by one that the tenant serves (FUSE), and with it the whole shim.
    fn open(&self) -> Result<OwnedFd, Unreachable> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::CACHED;
        let mut tries = 3;
        let place = loop {
            match openat2(&self.root, SOCKET, flags, Mode::empty(), resolve) {
                Ok(place) => break place,
                Err(Errno::INTR) => {}
                // Also when another task renames something at this moment.
                Err(Errno::AGAIN) if tries > 0 => tries -= 1,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::AGAIN) => return Err(Unreachable::Absent),
                Err(Errno::LOOP) => return Err(Unreachable::NotDocker("behind a loop of symbolic links")),
                Err(error) => return Err(failed("open")(error.into())),
            }
        };
        let at = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let status = statx(&place, "", at, StatxFlags::TYPE).map_err(|e| failed("examine")(e.into()))?;
        match FileType::from_raw_mode(status.stx_mode.into()) {
            FileType::Socket => Ok(place),
            FileType::Symlink => Err(Unreachable::NotDocker("a symbolic link")),
            FileType::Directory => Err(Unreachable::NotDocker("a directory")),
            FileType::Fifo => Err(Unreachable::NotDocker("a fifo")),
            FileType::RegularFile => Err(Unreachable::NotDocker("a file")),
            _ => Err(Unreachable::NotDocker("a device")),
        }
    }
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> Unreachable {
    move |source| Unreachable::Failed { operation, source }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::{fs::symlink, net::UnixListener},
        path::Path,
    };

    use nix::{sys::stat::Mode as NixMode, unistd::mkfifo};

    use super::*;

    fn berth(dir: &Path) -> Inner {
        fs::create_dir_all(dir.join("run")).unwrap();
        Inner { root: File::open(dir).unwrap().into(), ids: 0..=u32::MAX }
    }

    #[tokio::test]
    async fn x09_whatever_replaces_the_inner_socket_is_named_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("host.sock");
        let host_listener = UnixListener::bind(&host).unwrap();
        host_listener.set_nonblocking(true).unwrap();
        let inner = berth(&dir.path().join("root"));
        let socket = dir.path().join("root/run/docker.sock");

        assert!(matches!(inner.connect().await, Err(Unreachable::Absent)));
        symlink(&host, &socket).unwrap();
        assert!(matches!(inner.connect().await, Err(Unreachable::NotDocker("a symbolic link"))));
        fs::remove_file(&socket).unwrap();
        mkfifo(&socket, NixMode::S_IRWXU).unwrap();
        assert!(matches!(inner.connect().await, Err(Unreachable::NotDocker("a fifo"))));
        fs::remove_file(&socket).unwrap();
        fs::create_dir(&socket).unwrap();
        assert!(matches!(inner.connect().await, Err(Unreachable::NotDocker("a directory"))));
        fs::remove_dir(&socket).unwrap();
        File::create(&socket).unwrap();
        assert!(matches!(inner.connect().await, Err(Unreachable::NotDocker("a file"))));
        fs::remove_file(&socket).unwrap();
        let _datagram = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
        assert!(matches!(inner.connect().await, Err(Unreachable::NotDocker("a socket of another type"))));
        assert_eq!(host_listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn x09_an_absolute_directory_link_stays_inside_the_berth() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let _host = UnixListener::bind(outside.join("docker.sock")).unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        symlink(&outside, root.join("run")).unwrap();
        let inner = Inner { root: File::open(&root).unwrap().into(), ids: 0..=u32::MAX };
        assert!(matches!(inner.connect().await, Err(Unreachable::Absent)));
    }

    #[tokio::test]
    async fn x09_a_listener_with_an_id_outside_the_range_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut inner = berth(dir.path());
        let listener = UnixListener::bind(dir.path().join("run/docker.sock")).unwrap();
        inner.connect().await.unwrap();
        inner.ids = 4_000_000_000..=4_000_065_535;
        assert!(matches!(inner.connect().await, Err(Unreachable::Outside)));
        drop(listener);
        assert!(matches!(inner.connect().await, Err(Unreachable::Absent)));
    }
}
