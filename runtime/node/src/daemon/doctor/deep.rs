//! `berth doctor --deep`: a container in a throw-away berth, made, started and taken away on the same path as everybody's.
//!
//! Its user is [`DOCTOR`], a name that no account can have, with a uid of the pool of ids, which is refused to every account. So nobody
//! reaches its socket, it has nothing of the host in it and no way out, and the node tells no server of it. Whoever ends meanwhile, it is
//! taken away: the work goes on without its client only to do that, a node that stops does it, and one that was killed leaves a record
//! whose name says what the next has to do.

use std::{fs, io, sync::Arc, time::Duration};

use berth_protocol::{
    BerthId, Check, Egress, Ensure, ExecRequest, HomeAccess, HostUser, Idle, Limits, Policy, Ports, Problem, Restart, Wanted, frame,
};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{failed, ok};
use crate::daemon::{
    berth::{Berth, Request, Unmet},
    exec,
    logs::Console,
    node::{Node, until_ready},
    record::DOCTOR,
    refusal::Refusal,
};

/// For all but the removal.
const DEADLINE: Duration = Duration::from_secs(180);
const REMOVAL: Duration = Duration::from_secs(60);
/// Enough for one small container.
const LIMITS: Limits = Limits { cpu_millis: 1000, cpu_weight: Limits::USUAL_WEIGHT, memory_bytes: 512 << 20, pids: 512, ..Limits::LEAST };
/// What the container may use: it has to find this limit.
const MEMORY: u64 = 64 << 20;
/// Bytes of a command's output that are kept.
const MOST: usize = 16 * 1024;
/// The last lines of the log that are told.
const TAIL: usize = 4;
const IMAGE: &str = "berth-doctor";
const PROGRAM: &str = "berth-init";

const BERTH: &str = "deep: berth";
const DOCKER: &str = "deep: docker";
const CONTAINER: &str = "deep: container";
const REMOVED: &str = "deep: removal";

/// Tries it with the image of this digest: a line for each step, up to the one that failed, and one for the removal.
pub(crate) async fn examine(node: Arc<Node>, image: String, gone: CancellationToken) -> Vec<Check> {
    let Ok(_one) = node.doctor.try_lock() else {
        return vec![failed(BERTH, "another deep check is under way", "ask again when it has ended")];
    };
    if node.find(DOCTOR).is_some() {
        let removed = remove(&node).await;
        if removed.fix.is_some() {
            return vec![removed];
        }
    }
    let mut checks = Vec::new();
    let tried = tokio::select! {
        biased;
        () = node.stop.cancelled() => Err(failed(BERTH, "the node is stopping", "ask again when it is back")),
        () = gone.cancelled() => Err(failed(BERTH, "nobody waits for the answer any more", "ask again")),
        tried = timeout(DEADLINE, attempt(&node, image, &mut checks)) => tried.unwrap_or_else(|_| {
            let late = format!("it has not ended within {} s", DEADLINE.as_secs());
            Err(failed(BERTH, late, "look at the load of this host, and at the log of berth-node"))
        }),
    };
    checks.extend(tried.err());
    checks.push(remove(&node).await);
    for check in checks.iter().filter(|check| check.fix.is_some()) {
        tracing::warn!(name = check.name, detail = check.detail, "deep check failed");
    }
    checks
}

async fn attempt(node: &Arc<Node>, image: String, checks: &mut Vec<Check>) -> Result<(), Check> {
    let began = Instant::now();
    let (berth, ready) = begin(node, &image).await.map_err(|refusal| refused(BERTH, &refusal))?;
    checks.push(ok(BERTH, format!("a throw-away berth of {image} was made and started, {}", took(began))));
    if let Err(why) = ready {
        let console = Console { older: node.host.layout.older_console(berth.id), current: node.host.layout.console(berth.id) };
        let lines = console.read(Some(TAIL)).map(|(text, _)| last(&text)).unwrap_or_default();
        let detail = format!("no Docker answers in it: {why}. Its log ends: {lines}");
        return Err(failed(DOCKER, detail, "give berths an image with a Docker engine: berth image build, berth image default NAME"));
    }
    let version = ["version", "--format", "{{range .Server.Components}}{{.Name}} {{.Version}}, {{end}}"];
    let version = docker(node, &berth, DOCKER, &version, Vec::new()).await?;
    let info = docker(node, &berth, DOCKER, &["info", "--format", "{{.Driver}}, cgroup v{{.CgroupVersion}}"], Vec::new()).await?;
    checks.push(ok(DOCKER, format!("{}{} answered, {}", version.trim_start(), info.trim(), took(began))));
    let began = Instant::now();
    let program = node.host.layout.init_program();
    let tar = fs::read(&program).and_then(|bytes| tar(&bytes)).map_err(|error| {
        failed(CONTAINER, format!("{}: {error}", program.display()), "run deploy/up again, or set programs_dir in node.toml")
    })?;
    docker(node, &berth, CONTAINER, &["import", "-", IMAGE], tar).await?;
    let (memory, program) = (MEMORY.to_string(), format!("/{PROGRAM}"));
    let run = ["run", "--rm", "--pull", "never", "--memory", &memory, IMAGE, &program, "--nested"];
    let said = docker(node, &berth, CONTAINER, &run, Vec::new()).await?;
    let found = Found::of(&said).map_err(|why| {
        failed(CONTAINER, format!("a container ran, but {why}"), "read berth doctor's other lines, and the log of berth-node")
    })?;
    checks.push(ok(CONTAINER, format!("an image was imported and a container of it ran ({found}), {}", took(began))));
    Ok(())
}

/// A berth that runs, and why its Docker does not answer.
async fn begin(node: &Arc<Node>, image: &str) -> Result<(Arc<Berth>, Result<(), String>), Refusal> {
    let id = node.host.config.ids.last;
    let account = HostUser { name: DOCTOR.into(), uid: id, gid: id, home: "/nonexistent".into(), system: true };
    let policy = Policy {
        home: HomeAccess::None,
        paths: Vec::new(),
        ports: Ports { range: None, ..Ports::default() },
        idle: Idle { freeze_after: None, stop_after: None },
        egress: Egress::None,
        restart: Restart::Never,
    };
    let ensure = Ensure {
        id: BerthId(uuid::Uuid::now_v7()),
        image: image.to_owned(),
        limits: LIMITS,
        wanted: Wanted::Running,
        allow_system: true,
        policy,
        suspended: None,
        rebuild: None,
    };
    let berth = node.place_throw_away(&account, &ensure).await?;
    let request = |reply| Request::Ensure { ensure: Box::new(ensure), account: Some(account), bar: None, reply };
    let status = match berth.ask(request).await {
        Ok(status) => status,
        Err(Unmet::Refused(refusal)) => return Err(refusal),
        Err(Unmet::Gone) => return Err(Refusal::stopping()),
    };
    let status = until_ready(&berth, status).await;
    let ready = match status.docker_ready {
        true => Ok(()),
        false => Err(match status.conditions.as_slice() {
            [] => format!("it is {:?}", status.state),
            told => told.iter().map(|c| c.message.clone()).collect::<Vec<_>>().join("; "),
        }),
    };
    Ok((berth, ready))
}

async fn remove(node: &Arc<Node>) -> Check {
    let began = Instant::now();
    let fix = "the next deep check and the next start of berth-node try again; see the log of berth-node";
    match timeout(REMOVAL, node.delete_berth(DOCTOR, None)).await {
        Ok(Ok(())) => ok(REMOVED, format!("nothing of it is left, {}", took(began))),
        Ok(Err(refusal)) => failed(REMOVED, refusal.problem.detail, fix),
        Err(_) => failed(REMOVED, format!("it is not removed after {} s", REMOVAL.as_secs()), fix),
    }
}

/// The image's own client, inside; what it prints.
async fn docker(node: &Node, berth: &Berth, step: &str, words: &[&str], input: Vec<u8>) -> Result<String, Check> {
    let argv = ["docker"].iter().chain(words).map(|&word| word.to_owned()).collect();
    let request = ExecRequest { argv, env: Vec::new(), cwd: None, uid: 0, gid: 0, tty: false, size: None };
    let (child, _command) = exec::start(node, berth, request).await.map_err(|refusal| refused(step, &refusal))?;
    let (client, server) = tokio::io::duplex(frame::MAX_PAYLOAD);
    // Ends the command when `client` is dropped.
    tokio::spawn(exec::serve(server, child));
    let said = format!("docker {}", words.first().unwrap_or(&""));
    let Output { status, out, errors } =
        converse(client, &input).await.map_err(|e| failed(step, format!("{said}: {e}"), "see the log of berth-node"))?;
    match status {
        0 => Ok(out),
        125..=127 if errors.is_empty() => Err(failed(step, format!("{said} ended with status {status}"), "berth image build")),
        _ => {
            let fix = "read what Docker says; an engine that this host's kernel is too new or too old for is replaced by berth image build \
                       --suite SUITE";
            Err(failed(step, format!("{said} ended with status {status}: {}", last(errors.as_bytes())), fix))
        }
    }
}

struct Output {
    status: i32,
    out: String,
    errors: String,
}

/// Speaks [`frame`]s with a command: all of `input`, then everything that it says.
async fn converse(client: DuplexStream, input: &[u8]) -> io::Result<Output> {
    let (mut from, mut to) = tokio::io::split(client);
    let give = async {
        for piece in input.chunks(frame::MAX_PAYLOAD).chain([&[][..]]) {
            to.write_all(&frame::header(frame::STDIN, piece.len())).await?;
            to.write_all(piece).await?;
        }
        Ok::<_, io::Error>(())
    };
    let hear = async {
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        loop {
            let mut header = [0; frame::HEADER];
            from.read_exact(&mut header).await?;
            let (kind, length) = frame::parse(header).map_err(io::Error::other)?;
            let mut payload = vec![0; length];
            from.read_exact(&mut payload).await?;
            let kept = match (kind, payload.as_slice()) {
                (frame::STDOUT, _) => &mut out,
                (frame::STDERR, _) => &mut errors,
                (frame::EXIT, &[a, b, c, d]) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    return Ok(Output { status: i32::from_be_bytes([a, b, c, d]), out: text(&out), errors: text(&errors) });
                }
                _ => {
                    let problem = serde_json::from_slice::<Problem>(&payload).map(|problem| problem.detail);
                    return Err(io::Error::other(problem.unwrap_or_else(|_| "the command's end is not understood".into())));
                }
            };
            let room = MOST - kept.len().min(MOST);
            kept.extend_from_slice(&payload[..payload.len().min(room)]);
        }
    };
    // A command that ends without reading all breaks the one way, and says on the other why.
    let (_, heard) = tokio::join!(give, hear);
    heard
}

/// An image's root: one static program.
fn tar(program: &[u8]) -> io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::with_capacity(program.len() + 4096));
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    builder.append_data(&mut header, PROGRAM, program)?;
    builder.into_inner()
}

/// What `berth-init --nested` found.
#[derive(Debug, Deserialize)]
struct Found {
    pid: u32,
    not_written: Option<String>,
    memory_bytes: Option<u64>,
    links: Vec<String>,
}

impl Found {
    /// Nothing amiss; else why, as half a sentence.
    fn of(said: &str) -> Result<Self, String> {
        let found: Self = serde_json::from_str(said.trim()).map_err(|e| format!("it said {:?} ({e})", last(said.as_bytes())))?;
        match &found {
            Self { not_written: Some(why), .. } => Err(format!("it cannot write to its root: {why}")),
            Self { memory_bytes, .. } if *memory_bytes != Some(MEMORY) => {
                Err(format!("it has a memory limit of {memory_bytes:?} bytes, and {MEMORY} were asked for"))
            }
            Self { links, .. } if !links.iter().any(|link| link == "eth0") => {
                Err(format!("it has no network: its links are {}", links.join(", ")))
            }
            Self { pid, .. } if *pid != 1 => Err(format!("its first process is {pid}")),
            _ => Ok(found),
        }
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pid {}, a memory limit of {} MiB, its own root, links {}", self.pid, MEMORY >> 20, self.links.join(" and "))
    }
}

fn refused(step: &str, refusal: &Refusal) -> Check {
    let problem = &refusal.problem;
    // The usual hint of a start is to look here.
    let hint = problem.hint.as_deref().filter(|hint| !hint.contains("berth doctor"));
    failed(step, problem.detail.clone(), hint.unwrap_or("mend what the lines above name; else see the log of berth-node"))
}

fn took(began: Instant) -> String {
    format!("{:.1} s", began.elapsed().as_secs_f32())
}

/// The last lines of what a program said, in one.
fn last(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL)..].join(" | ").chars().filter(|c| !c.is_control()).take(1024).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_container_lacks_is_named() {
        let said = |memory: u64, links: &str| format!(r#"{{"pid":1,"not_written":null,"memory_bytes":{memory},"links":[{links}]}}"#);
        assert!(Found::of(&said(MEMORY, r#""lo","eth0""#)).is_ok());
        assert!(Found::of(&said(1, r#""eth0""#)).unwrap_err().contains("memory limit"));
        assert!(Found::of(&said(MEMORY, r#""lo""#)).unwrap_err().contains("no network"));
        assert!(Found::of("exec format error").unwrap_err().contains("exec format error"));
    }

    #[test]
    fn the_last_lines_are_told_in_one() {
        assert_eq!(last(b"a\n\nb\x1b\nc\nd\ne\n"), "b | c | d | e");
    }

    #[tokio::test]
    async fn a_command_gets_all_input_and_is_heard_to_its_end() {
        let (client, server) = tokio::io::duplex(64);
        let (mut from, mut to) = tokio::io::split(server);
        let command = async move {
            let mut input = vec![0; 2 * frame::HEADER + 3];
            from.read_exact(&mut input).await.unwrap();
            assert_eq!(input[frame::HEADER..frame::HEADER + 3], *b"abc");
            for (kind, payload) in [(frame::STDOUT, &b"out"[..]), (frame::STDERR, b"err"), (frame::EXIT, &[0, 0, 0, 3])] {
                to.write_all(&frame::header(kind, payload.len())).await.unwrap();
                to.write_all(payload).await.unwrap();
            }
        };
        let (output, ()) = tokio::join!(converse(client, b"abc"), command);
        let output = output.unwrap();
        assert_eq!((output.status, output.out.as_str(), output.errors.as_str()), (3, "out", "err"));
    }
}
