//! PID 1 of a berth.
//!
//! ```text
//! berth-init --channel 3 --docker-socket PATH --user-name NAME [--dockerd-arg ARG]… [-- ENTRY ARG…]
//! ```
//!
//! Prepares `/run` and the control groups, then either becomes the image's own init (`ENTRY`) or runs containerd and dockerd side by
//! side, restarts them with back-off, reaps everything, and stops them in order on SIGTERM or SIGINT. Single-threaded, one poll loop;
//! it sleeps unless a signal, `/run`, a dockerd that is starting, or a restart's time wakes it.
//!
//! It tells the shim what happens by lines on the channel: `handover`, `listening`, `ready`, `down DAEMON STATUS`, `failed REASON`,
//! `stopping`. The channel is one way, and a shim that is gone or does not read changes nothing here. Nothing in an image is trusted,
//! and nothing an image lacks ends this program: `berth shell` must work in the poorest of them.
#![forbid(unsafe_code)]

mod arguments;
mod backoff;
mod cgroup;
mod channel;
mod console;
mod cover;
mod engine;
mod nested;
mod readiness;
mod run_dir;
mod supervisor;

use std::{env, os::unix::process::CommandExt, path::Path, process::Command, process::ExitCode};

use arguments::Arguments;
use channel::Channel;
use supervisor::Supervisor;

/// What programs are found by when the image sets no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn main() -> ExitCode {
    if cover::is_asked_for() {
        return match cover::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                console::say(&format!("emulated files: {error}"));
                ExitCode::FAILURE
            }
        };
    }
    if nested::is_asked_for() {
        return nested::run();
    }
    // Killing "everything" is part of stopping: outside a pid namespace of its own this program would end the machine.
    if !rustix::process::getpid().is_init() {
        console::say("berth-init is the first process of a berth and runs nowhere else");
        return ExitCode::from(64);
    }
    let arguments = match Arguments::parse(env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(reason) => {
            console::say(&reason);
            return ExitCode::from(64);
        }
    };
    let channel = Channel::inherited(arguments.channel);
    run_dir::prepare(&arguments);
    let entry_is_init = arguments.entry.first().is_some_and(|program| cgroup::wants_root(Path::new(program)));
    if let Err(error) = cgroup::prepare(Path::new("/sys/fs/cgroup"), entry_is_init) {
        console::say(&format!("control groups: {error}; limits of inner containers may not work"));
    }
    match arguments.entry.is_empty() {
        true => {
            drop(cover::start());
            supervise(&arguments, channel)
        }
        false => {
            cover::start_and_wait();
            hand_over(&arguments, channel)
        }
    }
}

/// Becomes the image's own init. A failed exec leaves a reaper, so that `berth shell` can find out why.
fn hand_over(arguments: &Arguments, mut channel: Channel) -> ExitCode {
    channel.tell("handover");
    let mut command = Command::new(&arguments.entry[0]);
    command.args(&arguments.entry[1..]);
    if env::var_os("PATH").is_none() {
        command.env("PATH", DEFAULT_PATH);
    }
    let error = command.exec();
    let reason = format!("cannot run the image's entry point {}: {error}", Path::new(&arguments.entry[0]).display());
    console::say(&reason);
    channel.tell(&format!("failed {reason}"));
    run(Supervisor::reaper(channel))
}

fn supervise(arguments: &Arguments, mut channel: Channel) -> ExitCode {
    let path = env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned());
    let supervisor = match engine::find(&path) {
        Ok(programs) => Supervisor::engine(channel, engine::launch(programs, arguments, &path)),
        Err(reason) => {
            console::say(&reason);
            channel.tell(&format!("failed {reason}"));
            Supervisor::reaper(channel)
        }
    };
    run(supervisor)
}

fn run(supervisor: std::io::Result<Supervisor>) -> ExitCode {
    match supervisor.and_then(Supervisor::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::say(&format!("berth-init cannot go on: {error}"));
            ExitCode::FAILURE
        }
    }
}
