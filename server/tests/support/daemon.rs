//! The real program berth-server, which can be killed; without a node.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::chown, net::UnixStream, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use berth_server::config::Location;
use serde_json::Value;
use tempfile::TempDir;

use super::Database;

/// `nobody` of every Debian host: the program refuses to be root.
const ACCOUNT: u32 = 65_534;
const START: Duration = Duration::from_secs(60);

pub struct Daemon {
    pub directory: TempDir,
    child: Option<Child>,
    /// Command that the program is put behind.
    pub before: Vec<String>,
    /// Variables of its environment alone, not of that command.
    pub variables: Vec<String>,
}

impl Daemon {
    /// Configured, not started. The file of SQLite lies in `state`, which is the account's.
    pub fn on(database: &Database) -> Self {
        let directory = tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("state")).unwrap();
        let mut text =
            format!("api_socket = {:?}\nnode_socket = {:?}\nstate_dir = {:?}\n", at("state/api.sock"), at("node.sock"), at("state"));
        match database.location() {
            // In a directory that only the program's account gets at.
            Location::Sqlite(_) => {}
            Location::Postgres { url, password_file } => {
                fs::copy(password_file.unwrap(), at("state/password")).unwrap();
                text += &format!("[database]\nurl = {url:?}\npassword_file = {:?}\n", at("state/password"));
            }
        }
        fs::write(at("server.toml"), text).unwrap();
        assert!(nix::unistd::geteuid().is_root(), "the program takes its administrator from the socket's peer: run this test as root");
        for name in ["state", "state/password"] {
            if at(name).exists() {
                chown(at(name), Some(ACCOUNT), Some(ACCOUNT)).unwrap();
            }
        }
        Self { directory, child: None, before: Vec::new(), variables: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("state/api.sock")
    }

    /// The program with other words after its own.
    pub fn command(&self, words: &[&str]) -> Command {
        let id = ACCOUNT.to_string();
        let setpriv = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"].map(str::to_owned);
        let mut all = self.before.iter().cloned().chain(setpriv);
        let mut command = Command::new(all.next().unwrap());
        command
            .args(all)
            .arg("env")
            .args(&self.variables)
            .arg(program())
            .arg("--config")
            .arg(self.path("server.toml"))
            .args(words)
            .stdin(Stdio::null());
        command
    }

    /// Starts it and waits until it answers.
    pub fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let _ = fs::remove_file(self.socket());
        let mut child = self.command(&[]).stderr(log).spawn().unwrap();
        let deadline = Instant::now() + START;
        while UnixStream::connect(self.socket()).is_err() {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child = Some(child);
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        let status: ExitStatus = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it ended before it was killed: {}", self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// One request as root; the status and the JSON of the answer, or what broke.
pub fn send(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<(u16, Value)> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: berth\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let broken = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(broken)?;
    match serde_json::from_str(body) {
        Ok(body) => Ok((status, body)),
        Err(_) if body.is_empty() => Ok((status, Value::Null)),
        Err(_) => Err(broken()),
    }
}

fn program() -> PathBuf {
    match std::env::var_os("BERTH_TEST_PROGRAMS") {
        Some(directory) => Path::new(&directory).join("berth-server"),
        None => env!("CARGO_BIN_EXE_berth-server").into(),
    }
}
