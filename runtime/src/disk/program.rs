//! Programs of e2fsprogs and rm, with a bound on their time.

use std::{
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::error::{Error, Result, Step};

/// For millions of files.
pub(super) const REMOVE: Duration = Duration::from_secs(3600);

/// Runs it to its end; past `limit` it is killed. `good` are the exit codes that are no failure.
pub(super) fn run(program: &'static str, arguments: &[&str], files: &[&Path], limit: Duration, good: &[i32]) -> Result<()> {
    run_on(Stdio::null(), program, arguments, files, limit, good)
}

/// Removes what is called so in `dir`, which may be mounted nowhere: the program's standard input stands for it.
pub(super) fn remove(dir: &OwnedFd, names: &[&str]) -> Result<()> {
    let input = dir.try_clone().step("duplicate", "the descriptor of a disk")?;
    let paths: Vec<PathBuf> = names.iter().map(|name| Path::new("/proc/self/fd/0").join(name)).collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    run_on(Stdio::from(input), "rm", &["-rf", "--one-file-system", "--"], &paths, REMOVE, &[0])
}

fn run_on(input: Stdio, program: &'static str, arguments: &[&str], files: &[&Path], limit: Duration, good: &[i32]) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .args(files)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(input)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .step("run", program)?;
    let ended = i32::try_from(child.id()).ok().and_then(Pid::from_raw).map(|pid| within(pid, limit));
    if !matches!(ended, Some(Ok(true))) {
        let _ = child.kill();
    }
    let mut stderr = String::new();
    if let Some(pipe) = child.stderr.take() {
        let _ = pipe.take(4096).read_to_string(&mut stderr);
    }
    let status = child.wait().step("await", program)?;
    match status.code() {
        Some(code) if good.contains(&code) => Ok(()),
        Some(_) => Err(Error::Program { program, status: status.to_string(), stderr: stderr.trim().to_owned() }),
        None => {
            let stderr = format!("it was to take no more than {} s; {}", limit.as_secs(), stderr.trim());
            Err(Error::Program { program, status: status.to_string(), stderr })
        }
    }
}

/// True when our child `pid`, not reaped yet, ended in time.
fn within(pid: Pid, limit: Duration) -> Result<bool> {
    let child = pidfd_open(pid, PidfdFlags::empty()).step("open", "a child")?;
    let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    loop {
        match poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).step("await", "a child"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_program_that_takes_too_long_is_ended_and_its_exit_code_is_judged() {
        let begun = Instant::now();
        let told = run("sleep", &["60"], &[], Duration::from_millis(50), &[0]).unwrap_err().to_string();
        assert!(told.contains("no more than") && begun.elapsed() < Duration::from_secs(30), "{told}");
        assert!(run("sh", &["-c", "exit 1"], &[], Duration::from_secs(30), &[0, 1]).is_ok());
        assert!(run("sh", &["-c", "echo why >&2; exit 4"], &[], Duration::from_secs(30), &[0, 1]).unwrap_err().to_string().contains("why"));
    }
}
