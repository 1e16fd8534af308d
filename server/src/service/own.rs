//! What the doctor finds at the server itself: its directory, its socket, its clock.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::sys::statvfs::statvfs;

use super::{Error, Service, quota};
use crate::{domain::Check, store};

/// With less free the database cannot take much more, with this little it may stop at any moment.
const LOW: u64 = 1 << 30;
const LEAST: u64 = 64 << 20;
/// A clock may be set back so far without a word.
const SLACK: i64 = 60_000;

/// Where the server lives.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    state_dir: Option<PathBuf>,
    api_socket: Option<PathBuf>,
}

impl Service {
    /// Tells the doctor where to look.
    pub fn living_at(mut self, state_dir: &Path, api_socket: &Path) -> Self {
        self.places = Places { state_dir: Some(state_dir.to_owned()), api_socket: Some(api_socket.to_owned()) };
        self
    }

    pub(super) async fn check_own(&self) -> Result<Vec<Check>, Error> {
        let mut checks = Vec::new();
        checks.extend(self.places.state_dir.as_deref().map(check_room));
        checks.extend(self.places.api_socket.as_deref().map(check_socket));
        let mut reader = self.store.reader().await?;
        let last = store::events::last_at(&mut reader).await?;
        checks.push(check_clock(last, self.clock.now()));
        Ok(checks)
    }
}

fn check_room(directory: &Path) -> Check {
    const NAME: &str = "state directory";
    let fix = "free space on its file system, or move state_dir (server.toml) to another";
    let free = match statvfs(directory) {
        Ok(figures) => figures.blocks_available() * figures.fragment_size(),
        Err(error) => return Check::failed(NAME, format!("{}: {}", directory.display(), error.desc()), "see state_dir in server.toml"),
    };
    let detail = format!("{} has {} free", directory.display(), quota::bytes(free));
    match free {
        0..LEAST => Check::failed(NAME, detail, fix),
        LEAST..LOW => Check::warning(NAME, detail, fix),
        _ => Check::ok(NAME, detail),
    }
}

fn check_socket(path: &Path) -> Check {
    const NAME: &str = "API socket";
    match fs::metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            Check::failed(NAME, format!("{} is no socket", path.display()), "remove it, and restart berth-server")
        }
        Ok(found) if found.permissions().mode() & 0o666 != 0o666 => {
            let detail = format!("{} is not open to everybody (mode {:o})", path.display(), found.permissions().mode() & 0o777);
            Check::warning(NAME, detail, "restart berth-server; the kernel tells it who connects")
        }
        Ok(_) => Check::ok(NAME, path.display().to_string()),
        Err(error) => Check::failed(NAME, format!("{}: {error}", path.display()), "restart berth-server"),
    }
}

fn check_clock(last: Option<i64>, now: i64) -> Check {
    const NAME: &str = "clock";
    match last.map(|last| last - now).filter(|ahead| *ahead > SLACK) {
        Some(ahead) => {
            let detail = format!("the last event lies {} s in the future: the clock was set back", ahead / 1000);
            Check::warning(NAME, detail, "see that the host's time is right (timedatectl); what was written meanwhile keeps its times")
        }
        None => Check::ok(NAME, "not behind what was written"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CheckLevel;

    #[test]
    fn what_is_not_well_is_said_with_what_helps() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(check_room(Path::new("/nonexistent")).level, CheckLevel::Failed);
        assert_ne!(check_room(directory.path()).detail, "");
        let path = directory.path().join("api.sock");
        assert_eq!(check_socket(&path).level, CheckLevel::Failed);
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(check_socket(&path).level, CheckLevel::Warning);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(check_socket(&path).level, CheckLevel::Ok);
        assert_eq!(check_clock(Some(100_000), 10_000).level, CheckLevel::Warning);
        assert_eq!(check_clock(Some(100_000), 90_000).level, CheckLevel::Ok);
        assert_eq!(check_clock(None, 0).level, CheckLevel::Ok);
    }
}
