//! An end of a connection that `deploy/bench` measures: `client SOCKET [CPU]` or `peer SOCKET`. Built static, for it runs inside berths too.
#![forbid(unsafe_code)]

use std::{env, path::Path, process::ExitCode};

use berth_tests::bench::{client, peer};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let done = match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["client", socket] => client::serve(Path::new(socket), None),
        ["client", socket, cpu] if cpu.parse::<usize>().is_ok() => client::serve(Path::new(socket), cpu.parse().ok()),
        ["peer", socket] => peer::listen(Path::new(socket)),
        _ => {
            eprintln!("usage: berth-bench-end client SOCKET [CPU] | peer SOCKET");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-bench-end: {error}");
            ExitCode::FAILURE
        }
    }
}
