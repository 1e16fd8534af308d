//! Programs that tests run: always with a deadline, always with everything they said in the message of a failure.

use std::{
    ffi::OsStr,
    fmt::{self, Write as _},
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use crate::wait::{patient, within};

/// How long a program may take unless told otherwise.
const LIMIT: Duration = Duration::from_secs(60);

/// A program about to run.
pub struct Run {
    command: Command,
    input: Option<Vec<u8>>,
    limit: Duration,
}

/// What a program did. Signals count as in a shell: 128 + n.
#[derive(Clone, PartialEq, Eq)]
pub struct Output {
    pub command: String,
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        write!(f, "{command}\n  status {status}\n  stdout: {}\n  stderr: {}", stdout.trim_end(), stderr.trim_end())
    }
}

impl Output {
    pub fn success(&self) -> bool {
        self.status == 0
    }

    /// Both streams together, for messages whose place is not promised.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl Run {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), input: None, limit: LIMIT }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn env_clear(mut self) -> Self {
        self.command.env_clear();
        self
    }

    pub fn current_dir(mut self, dir: impl AsRef<std::path::Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// What the program reads; without it the input is empty.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end; past the deadline it is killed and the test fails.
    #[track_caller]
    pub fn output(self) -> Output {
        let limit = self.limit;
        match self.output_within() {
            Ok(output) => output,
            Err(output) => panic!("killed after {:.0} s: {output:?}", limit.as_secs_f64()),
        }
    }

    /// Like [`Run::output`]; the error is what a program said that had to be killed.
    #[track_caller]
    pub fn output_within(mut self) -> Result<Output, Output> {
        let shown = show(&self.command);
        let begun = Instant::now();
        self.command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|e| panic!("cannot run {shown}: {e}"));
        let feeder = child.stdin.take().map(|mut pipe| {
            let bytes = self.input.take().unwrap_or_default();
            // A program may end without having read its input.
            thread::spawn(move || drop(pipe.write_all(&bytes)))
        });
        let stdout = gather(child.stdout.take());
        let stderr = gather(child.stderr.take());
        let status = within(self.limit, || child.try_wait().expect("wait"));
        if status.is_none() {
            let _ = child.kill();
        }
        let ended = status.is_some();
        let status = code(status.unwrap_or_else(|| child.wait().expect("wait")));
        if let Some(feeder) = feeder {
            let _ = feeder.join();
        }
        // A grandchild may hold a pipe open: what came until a while after the end is what counts.
        let grace = Instant::now() + Duration::from_secs(5);
        let output = Output { command: shown, status, stdout: collect(&stdout, grace), stderr: collect(&stderr, grace) };
        if std::env::var_os("BERTH_TEST_TRACE").is_some() {
            eprintln!("{:7.3} s  {}", begun.elapsed().as_secs_f64(), output.command);
        }
        if ended { Ok(output) } else { Err(output) }
    }

    /// Runs it, fails the test unless it ends with 0; its standard output without the final newline.
    #[track_caller]
    pub fn ok(self) -> String {
        let output = self.output();
        assert!(output.success(), "{output:?}");
        output.stdout.trim_end_matches('\n').to_owned()
    }

    /// Runs it, fails the test when it ends with 0.
    #[track_caller]
    pub fn fails(self) -> Output {
        let output = self.output();
        assert!(!output.success(), "should have failed: {output:?}");
        output
    }

    /// Runs it, expects JSON on standard output.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let output = self.output();
        assert!(output.success(), "{output:?}");
        serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {output:?}"))
    }

    /// Starts it in the background, its input a pipe, its output read line by line. Killed when dropped.
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        let shown = show(&self.command);
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|e| panic!("cannot run {shown}: {e}"));
        let mut stdin = child.stdin.take();
        if let Some(bytes) = self.input.take()
            && let Some(mut pipe) = stdin.take()
        {
            thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().expect("piped");
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        Running { command: shown, stderr: gather(child.stderr.take()), child, stdin, lines }
    }
}

/// A program in the background.
pub struct Running {
    command: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Receiver<Vec<u8>>,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of standard output; `None` at its end. Panics after `limit`.
    #[track_caller]
    pub fn line(&mut self, limit: Duration) -> Option<String> {
        match self.lines.recv_timeout(patient(limit)) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no line within {:.1} s from {}\n  stderr: {}", limit.as_secs_f64(), self.command, self.stderr_so_far())
            }
        }
    }

    /// Reads lines until one holds `part`. Panics after `limit` or at the end of the output.
    #[track_caller]
    pub fn line_with(&mut self, part: &str, limit: Duration) -> String {
        let end = Instant::now() + patient(limit);
        let mut seen = String::new();
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => drop(writeln!(seen, "    {line}")),
                Err(why) => panic!("no line with {part:?} from {} ({why})\n{seen}  stderr: {}", self.command, self.stderr_so_far()),
            }
        }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let pipe = self.stdin.as_mut().expect("input is closed");
        pipe.write_all(bytes.as_ref()).and_then(|()| pipe.flush()).unwrap_or_else(|e| panic!("writing to {}: {e}", self.command));
    }

    /// Ends its input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id().cast_signed()), signal);
    }

    /// True while it runs.
    pub fn alive(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Waits for its end; what it printed and was not read yet is the output. Panics after `limit`.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> Output {
        self.stdin = None;
        let status = within(limit, || self.child.try_wait().expect("wait"));
        let Some(status) = status else { panic!("still runs after {:.1} s: {}", limit.as_secs_f64(), self.command) };
        let mut stdout = String::new();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            stdout.push_str(&line);
            stdout.push('\n');
        }
        let stderr = collect(&self.stderr, Instant::now() + Duration::from_secs(5));
        Output { command: self.command.clone(), status: code(status), stdout, stderr }
    }

    fn stderr_so_far(&self) -> String {
        collect(&self.stderr, Instant::now() + Duration::from_millis(50))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn show(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        let _ = write!(text, " {}", arg.to_string_lossy());
    }
    text
}

/// Reads a pipe to its end in the background.
fn gather(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    if let Some(mut pipe) = pipe {
        thread::spawn(move || {
            let mut buffer = [0; 64 * 1024];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

fn collect(parts: &Receiver<Vec<u8>>, until: Instant) -> String {
    let mut bytes = Vec::new();
    while let Ok(part) = parts.recv_timeout(until.saturating_duration_since(Instant::now())) {
        bytes.extend(part);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
