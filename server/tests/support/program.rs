//! The program `berth` as people run it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The problem document on stderr.
    pub fn problem(&self) -> Value {
        serde_json::from_str(&self.err).unwrap_or_else(|error| panic!("{error}: {}", self.err))
    }
}

/// The program: that of BERTH_TEST_PROGRAMS, or our own, built when it is not as its sources are. It belongs to another package, which
/// cargo does not build for these tests.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(directory) = std::env::var_os("BERTH_TEST_PROGRAMS") {
            return Path::new(&directory).join("berth");
        }
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "berth-cli"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "berth-cli cannot be built");
        // target/<profile>/deps/cli-… of this test
        std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("berth")
    })
}

/// The program against one socket.
pub struct Berth(pub PathBuf);

impl Berth {
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        self.fed(arguments, b"").await
    }

    pub async fn fed(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut child = Command::new(program())
            .args(arguments)
            .env("BERTH_SOCKET", &self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeding = tokio::spawn(async move { stdin.write_all(&input).await });
        let output = tokio::time::timeout(std::time::Duration::from_secs(30), child.wait_with_output()).await.unwrap().unwrap();
        // A program that reads no input closes it.
        let _ = feeding.await;
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
