use std::{
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, Signal, kill_process_group},
};

use super::{
    Image, Store,
    error::{Error, Result, Step},
    import::{self, check_name},
};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Of one line of the recipe's.
const LINE_BYTES: usize = 1000;
/// Lines kept for the error.
const LAST_LINES: usize = 5;

/// A fixed recipe of the installation, and what of it to build.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Holds the program `build`.
    pub dir: PathBuf,
    /// `bookworm`, `trixie`, `sid`; the recipe refuses others.
    pub suite: String,
}

impl Store {
    /// Runs `<recipe>/build SUITE OUT.tar` as root with a clean environment and imports what it made. Its error output goes to
    /// `progress` line by line. It runs in a pid namespace of its own: when `cancel` becomes readable or its other end is closed,
    /// or this process dies, nothing of it stays.
    pub fn build(&self, name: &str, recipe: &Recipe, now_ms: i64, cancel: BorrowedFd<'_>, progress: &mut dyn FnMut(&str)) -> Result<Image> {
        check_name(name)?;
        let work = self.work()?;
        let out = work.join("image.tar");
        let temporary = work.join("tmp");
        std::fs::create_dir(&temporary).step("make", temporary.display())?;
        run(recipe, &out, &temporary, cancel, progress)?;
        progress("importing");
        let spooled = import::adopt(&out)?;
        let image = import::import(self, &work, spooled, name, now_ms, progress);
        let closed = work.close();
        image.and_then(|image| closed.map(|()| image))
    }
}

fn run(recipe: &Recipe, out: &Path, temporary: &Path, cancel: BorrowedFd<'_>, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let program = recipe.dir.join("build");
    // setpriv ties unshare to this process, unshare ties everything else to itself; killing the group kills both.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"])
        .arg(&program)
        .arg(&recipe.suite)
        .arg(out)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", temporary)
        .env("TMPDIR", temporary)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut running = Running(command.spawn().step("run", program.display())?);
    let last_lines = running.follow(cancel, progress)?;
    let status = running.0.wait().step("wait for", program.display())?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Recipe { recipe: program, status: describe(status), last_lines: last_lines.join("; ") })
}

/// Ends with everything it started when it is let go.
struct Running(Child);

impl Running {
    /// Passes lines on until there will be no more; the last of them.
    fn follow(&mut self, cancel: BorrowedFd<'_>, progress: &mut dyn FnMut(&str)) -> Result<Vec<String>> {
        let Some(mut stderr) = self.0.stderr.take() else { return Ok(Vec::new()) };
        let mut lines = Lines { partial: Vec::new(), last: Vec::new() };
        let mut buffer = [0; 4096];
        loop {
            let mut ready = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::IN), PollFd::from_borrowed_fd(cancel, PollFlags::IN)];
            match poll(&mut ready, None) {
                Err(Errno::INTR) => continue,
                done => done.step("wait for", "the recipe")?,
            };
            if !ready[1].revents().is_empty() {
                return Err(Error::Cancelled);
            }
            match stderr.read(&mut buffer).step("read", "the recipe's output")? {
                0 => {
                    lines.end(progress);
                    return Ok(lines.last);
                }
                count => buffer[..count].iter().for_each(|&byte| lines.push(byte, progress)),
            }
        }
    }
}

/// Cuts output into lines, and remembers the last few.
struct Lines {
    partial: Vec<u8>,
    last: Vec<String>,
}

impl Lines {
    fn push(&mut self, byte: u8, progress: &mut dyn FnMut(&str)) {
        match byte {
            b'\n' | b'\r' => self.end(progress),
            byte => {
                self.partial.push(byte);
                if self.partial.len() >= LINE_BYTES {
                    self.end(progress);
                }
            }
        }
    }

    fn end(&mut self, progress: &mut dyn FnMut(&str)) {
        let line = String::from_utf8_lossy(&self.partial).trim_end().replace(|c: char| c.is_control(), " ");
        self.partial.clear();
        if line.is_empty() {
            return;
        }
        progress(&line);
        if self.last.len() == LAST_LINES {
            self.last.remove(0);
        }
        self.last.push(line);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}
