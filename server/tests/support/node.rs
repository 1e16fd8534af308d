//! A stand-in for berth-node on a socket of its own: holds what it was told, and can be made to fail.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path as Segment, Query, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use berth_protocol::{
    Account, AccountState, Archive, Asked, BerthId, BerthStatus, BerthUsage, BuildRequest, CallPage, CallRecord, CallsAt, CallsTaken,
    Check, CheckLevel, Ensure, ExecRequest, HostUser, ImageInfo, ImageProgress, Member, NodeInfo, Problem, Usage, Waits, Wanted, frame,
};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    sync::broadcast,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
pub struct FakeNode {
    pub inner: Arc<Mutex<Inner>>,
    changes: broadcast::Sender<BerthStatus>,
    grown: broadcast::Sender<CallsAt>,
    socket: PathBuf,
    life: Arc<Mutex<CancellationToken>>,
}

#[derive(Default)]
pub struct Inner {
    pub berths: BTreeMap<String, BerthStatus>,
    pub images: Vec<ImageInfo>,
    /// Answers of the next calls that change a berth, before anything is done.
    pub refusals: VecDeque<(u16, Problem)>,
    pub refused_suspension: Option<(u16, Problem)>,
    /// Every call that changes something, in order.
    pub calls: Vec<String>,
    pub imported: usize,
    /// What was last asked for each user.
    pub asked: BTreeMap<String, Ensure>,
    /// How often it was asked what berths use.
    pub usage_asked: usize,
    pub archives: BTreeMap<String, Archive>,
    /// What the host says of accounts that are not present.
    pub accounts: BTreeMap<String, AccountState>,
    /// Rounds of questions about accounts.
    pub rounds: usize,
    /// Changes wait until it is false again.
    pub slow: bool,
    /// Every start hangs, as one does whose Docker never answers; so does every build.
    pub hangs: bool,
    /// Calls that are not confirmed yet; a position is ten times the number of calls before it.
    pub spools: BTreeMap<BerthId, Spool>,
    /// Members of the host's groups.
    pub groups: BTreeMap<String, Vec<String>>,
    /// How often it was asked about many accounts.
    pub looked_up: usize,
    /// The directory does not answer.
    pub lost: bool,
    /// Confirmations are answered and forgotten.
    pub deaf: bool,
    /// Start times, so that a restart can be told from none.
    clock: i64,
}

#[derive(Default)]
pub struct Spool {
    pub records: Vec<CallRecord>,
    pub taken: u64,
}

impl Spool {
    fn end(&self) -> u64 {
        10 * self.records.len() as u64
    }
}

/// Calls of one page.
const PAGE: usize = 500;

const GIB: u64 = 1 << 30;

pub fn problem(code: &str, detail: &str) -> Problem {
    Problem { code: code.to_owned(), detail: detail.to_owned(), hint: None }
}

impl FakeNode {
    pub fn new(directory: &Path) -> Self {
        let image = ImageInfo {
            digest: format!("sha256:{}", "ab".repeat(32)),
            name: "default".to_owned(),
            created_at: 1,
            size_bytes: GIB,
            used_by: Vec::new(),
        };
        let inner = Inner { images: vec![image], ..Inner::default() };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            changes: broadcast::Sender::new(64),
            grown: broadcast::Sender::new(64),
            socket: directory.join("node.sock"),
            life: Arc::default(),
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Listens until the task is aborted.
    pub fn start(&self) -> JoinHandle<()> {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).unwrap();
        let router = Router::new()
            .route("/v1/node", get(node))
            .route("/v1/users", post(users))
            .route("/v1/users/{name}", get(user))
            .route("/v1/accounts", get(accounts))
            .route("/v1/archives", get(super::archives::list))
            .route("/v1/archives/{name}", get(super::archives::show).delete(super::archives::remove))
            .route("/v1/berths/{user}/archive", post(super::archives::write))
            .route("/v1/berths/{user}/restore", post(super::archives::restore))
            .route("/v1/berths", get(berths))
            .route("/v1/berths/{user}", get(berth).put(ensure).delete(remove))
            .route("/v1/berths/{user}/preview", post(preview))
            .route("/v1/berths/{user}/stop", post(stop))
            .route("/v1/usage", get(usage))
            .route("/v1/berths/{user}/exec", post(exec))
            .route("/v1/berths/{user}/logs", get(logs))
            .route("/v1/berths/{user}/inside", get(|| async { Json(berth_protocol::Inside::default()) }))
            .route("/v1/berths/{user}/prune", post(|| async { Json(berth_protocol::Pruned::default()) }))
            .route("/v1/watch", get(watch))
            .route("/v1/calls/watch", get(watch_calls))
            .route("/v1/calls/{id}", get(calls))
            .route("/v1/calls/{id}/taken", post(taken))
            .route("/v1/images", get(images))
            .route("/v1/images/build", post(build).delete(stop_build))
            .route("/v1/images/import", post(import))
            .route("/v1/images/{digest}", delete(remove_image))
            .route("/v1/doctor", get(doctor).post(deep_doctor))
            .with_state(self.clone());
        *self.life.lock().unwrap() = CancellationToken::new();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
    }

    /// Ends the open streams, as a killed node would.
    pub fn hang_up(&self) {
        self.life.lock().unwrap().cancel();
    }

    /// Members of a group, and no others.
    pub fn group(&self, name: &str, members: &[&str]) {
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        self.inner.lock().unwrap().groups.insert(name.to_owned(), members);
    }

    pub fn refuse(&self, status: u16, problem: Problem) {
        self.inner.lock().unwrap().refusals.push_back((status, problem));
    }

    /// The same for the next suspension alone: what the reconciler asks for again meanwhile is not refused in its place.
    pub fn refuse_suspension(&self, status: u16, problem: Problem) {
        self.inner.lock().unwrap().refused_suspension = Some((status, problem));
    }

    pub fn calls(&self) -> Vec<String> {
        self.inner.lock().unwrap().calls.clone()
    }

    /// Appends to a berth's spool, as its shim would.
    pub fn append(&self, id: BerthId, records: impl IntoIterator<Item = CallRecord>) {
        let mut inner = self.inner.lock().unwrap();
        let spool = inner.spools.entry(id).or_default();
        spool.records.extend(records);
        let _ = self.grown.send(CallsAt { id, taken: spool.taken, end: spool.end() });
    }

    /// Changes a berth behind the server's back, as a wake or a crash would.
    pub fn change(&self, user: &str, change: impl FnOnce(&mut BerthStatus)) {
        let mut inner = self.inner.lock().unwrap();
        let status = inner.berths.get_mut(user).unwrap();
        change(status);
        let _ = self.changes.send(status.clone());
    }
}

type Answer = Result<Response, Response>;

fn refusal(status: u16, problem: &Problem) -> Response {
    (StatusCode::from_u16(status).unwrap(), Json(problem)).into_response()
}

pub fn missing(code: &str) -> Response {
    refusal(404, &problem(code, "there is none"))
}

async fn node() -> Json<NodeInfo> {
    Json(NodeInfo {
        protocol: berth_protocol::VERSION,
        version: "0.1.0".to_owned(),
        hostname: "pier".to_owned(),
        kernel: "6.12".to_owned(),
        cgroup: "v2".to_owned(),
        cpus: 4,
        memory_bytes: 8 * GIB,
        disk_bytes: 100 * GIB,
        disk_free_bytes: 90 * GIB,
        run_dir: "/run/berth".to_owned(),
    })
}

/// `root`, the system accounts `daemon` and `bin`, and every name that begins with `user`, `alice` or `bob`.
fn account(name: &str) -> Option<HostUser> {
    let (uid, system) = match name {
        "root" => (0, true),
        "daemon" => (1, true),
        "bin" => (2, true),
        "nobody" => (65_534, false),
        "games" => (5, false),
        _ if ["user", "alice", "bob"].iter().any(|start| name.starts_with(start)) => (1000 + name.len() as u32, false),
        _ => return None,
    };
    Some(HostUser { name: name.to_owned(), uid, gid: uid, home: format!("/home/{name}"), system })
}

async fn user(Segment(name): Segment<String>) -> Answer {
    account(&name).map(|user| Json(user).into_response()).ok_or_else(|| missing("user_not_found"))
}

/// All berths' accounts, and root; all but root are of a directory.
async fn accounts(State(node): State<FakeNode>) -> Json<Vec<Account>> {
    let mut inner = node.inner.lock().unwrap();
    inner.rounds += 1;
    let names: Vec<String> = inner.berths.keys().cloned().chain(["root".to_owned()]).collect();
    let told = names.into_iter().map(|name| {
        let state = inner.accounts.get(&name).copied().unwrap_or(AccountState::Present);
        Account { detail: format!("{name} is {state:?}"), local: name == "root", name, state }
    });
    Json(told.collect())
}

async fn users(State(node): State<FakeNode>, Json(asked): Json<Asked>) -> Json<Vec<Member>> {
    let mut inner = node.inner.lock().unwrap();
    inner.looked_up += 1;
    let lost = inner.lost.then(|| problem("directory_unavailable", "the directory does not answer"));
    let told = asked.names.into_iter().map(|name| Member {
        user: account(&name).filter(|_| lost.is_none()),
        groups: asked.groups.iter().filter(|group| inner.groups.get(*group).is_some_and(|all| all.contains(&name))).cloned().collect(),
        problem: lost.clone(),
        name,
    });
    Json(told.collect())
}

async fn berths(State(node): State<FakeNode>) -> Json<Vec<BerthStatus>> {
    Json(node.inner.lock().unwrap().berths.values().cloned().collect())
}

async fn berth(State(node): State<FakeNode>, Segment(user): Segment<String>) -> Answer {
    let inner = node.inner.lock().unwrap();
    inner.berths.get(&user).map(|status| Json(status).into_response()).ok_or_else(|| missing("berth_not_found"))
}

async fn ensure(State(node): State<FakeNode>, Segment(user): Segment<String>, Json(ensure): Json<Ensure>) -> Answer {
    let hangs = node.inner.lock().unwrap().hangs && ensure.wanted == Wanted::Running && ensure.suspended.is_none();
    if hangs {
        std::future::pending::<()>().await;
    }
    while node.inner.lock().unwrap().slow {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut inner = node.inner.lock().unwrap();
    let word = if ensure.suspended.is_some() { "suspend".to_owned() } else { format!("{:?}", ensure.wanted) };
    inner.calls.push(format!("ensure {user} {word}"));
    inner.asked.insert(user.clone(), ensure.clone());
    let refused = ensure.suspended.as_ref().and_then(|_| inner.refused_suspension.take());
    if let Some((status, problem)) = refused.or_else(|| inner.refusals.pop_front()) {
        return Err(refusal(status, &problem));
    }
    inner.clock += 1;
    let started = super::now() + inner.clock;
    let status = inner.berths.entry(user.clone()).or_insert_with(|| resting(&user, &ensure));
    status.limits = ensure.limits;
    let was = status.state;
    status.suspended.clone_from(&ensure.suspended);
    if ensure.suspended.is_some() {
        status.state = berth_protocol::State::Suspended;
    } else if was == berth_protocol::State::Suspended {
        status.state = if status.started_at.is_some() { berth_protocol::State::Running } else { berth_protocol::State::Stopped };
    }
    match ensure.wanted {
        _ if ensure.suspended.is_some() => {}
        Wanted::Present => {}
        Wanted::Running if status.state == berth_protocol::State::Running => {}
        Wanted::Running => {
            status.state = berth_protocol::State::Running;
            status.docker_ready = true;
            status.started_at = Some(started);
            status.usage = Some(Usage { memory_bytes: GIB, pids: 30, cpu_usec: 1_000_000, disk_bytes: GIB, ..Usage::default() });
        }
        Wanted::Stopped => halt(status),
    }
    let _ = node.changes.send(status.clone());
    Ok(Json(status.clone()).into_response())
}

/// A berth that does nothing yet.
pub fn resting(user: &str, ensure: &Ensure) -> BerthStatus {
    let uid = account(user).unwrap().uid;
    BerthStatus {
        user: user.to_owned(),
        id: ensure.id,
        state: berth_protocol::State::Stopped,
        docker_ready: false,
        conditions: Vec::new(),
        image: ensure.image.clone(),
        limits: ensure.limits,
        uid,
        id_base: 2_000_224_256,
        id_count: 65_536,
        address: "10.213.0.2".to_owned(),
        socket: format!("/run/berth/users/{uid}/docker.sock"),
        pid: None,
        started_at: None,
        usage: None,
        suspended: None,
        sleep: None,
        last_used_at: None,
        running_containers: None,
        ports: Vec::new(),
        source_ports: None,
    }
}

fn halt(status: &mut BerthStatus) {
    status.state = berth_protocol::State::Stopped;
    status.docker_ready = false;
    status.started_at = None;
}

/// A disk that grows waits for a restart.
async fn preview(State(node): State<FakeNode>, Segment(user): Segment<String>, Json(ensure): Json<Ensure>) -> Answer {
    let mut inner = node.inner.lock().unwrap();
    if let Some((status, problem)) = inner.refusals.pop_front() {
        return Err(refusal(status, &problem));
    }
    let status = inner.berths.get(&user).ok_or_else(|| missing("berth_not_found"))?;
    let grows = ensure.limits.disk_bytes > status.limits.disk_bytes;
    let waits = grows.then(|| Waits { field: "disk_bytes".to_owned(), reason: "this kernel grows no mounted disk".to_owned() });
    Ok(Json(Vec::from_iter(waits)).into_response())
}

#[derive(serde::Deserialize)]
struct Whose {
    user: Option<String>,
}

async fn usage(State(node): State<FakeNode>, Query(Whose { user }): Query<Whose>) -> Json<Vec<BerthUsage>> {
    let mut inner = node.inner.lock().unwrap();
    inner.usage_asked += 1;
    let up = inner.berths.values().filter(|status| status.started_at.is_some() && user.as_ref().is_none_or(|user| *user == status.user));
    let told = up.map(|status| BerthUsage {
        user: status.user.clone(),
        id: status.id,
        state: status.state,
        at: super::now(),
        usage: status.usage.unwrap_or_default(),
    });
    Json(told.collect())
}

async fn stop(State(node): State<FakeNode>, Segment(user): Segment<String>) -> Answer {
    let mut inner = node.inner.lock().unwrap();
    inner.calls.push(format!("stop {user}"));
    let status = inner.berths.get_mut(&user).ok_or_else(|| missing("berth_not_found"))?;
    halt(status);
    let _ = node.changes.send(status.clone());
    Ok(Json(status.clone()).into_response())
}

async fn remove(State(node): State<FakeNode>, Segment(user): Segment<String>) -> Answer {
    let mut inner = node.inner.lock().unwrap();
    inner.calls.push(format!("delete {user}"));
    if let Some((status, problem)) = inner.refusals.pop_front() {
        return Err(refusal(status, &problem));
    }
    inner.berths.remove(&user);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `cat` sends its input back, `exit N` ends with N, `size` tells the terminal's, anything else cannot be run.
async fn exec(mut request: Request) -> Answer {
    let upgrade = hyper::upgrade::on(&mut request);
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let exec: ExecRequest = serde_json::from_slice(&body).unwrap();
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        let code = match exec.argv[0].as_str() {
            "cat" => loop {
                let mut head = [0; frame::HEADER];
                io.read_exact(&mut head).await.unwrap();
                let (kind, length) = frame::parse(head).unwrap();
                let mut payload = vec![0; length];
                io.read_exact(&mut payload).await.unwrap();
                match kind {
                    frame::STDIN if length == 0 => break 0,
                    frame::STDIN => put(&mut io, frame::STDOUT, &payload).await,
                    _ => {}
                }
            },
            "exit" => exec.argv[1].parse().unwrap(),
            "size" => {
                put(&mut io, frame::STDERR, format!("{:?} {:?}", exec.tty, exec.size).as_bytes()).await;
                0
            }
            // A shell that says what it is told, until the end of input is typed.
            "/bin/sh" if exec.tty => loop {
                let mut head = [0; frame::HEADER];
                if io.read_exact(&mut head).await.is_err() {
                    return;
                }
                let (kind, length) = frame::parse(head).unwrap();
                let mut payload = vec![0; length];
                io.read_exact(&mut payload).await.unwrap();
                match (kind, payload.as_slice()) {
                    (frame::STDIN, [4]) => break 7,
                    (frame::STDIN, typed) => put(&mut io, frame::STDOUT, typed).await,
                    (frame::RESIZE, size) => put(&mut io, frame::STDOUT, format!("{size:?}").as_bytes()).await,
                    _ => {}
                }
            },
            program => {
                let problem = problem("not_executable", &format!("{program} cannot be run"));
                put(&mut io, frame::ERROR, &serde_json::to_vec(&problem).unwrap()).await;
                return;
            }
        };
        put(&mut io, frame::EXIT, &i32::to_be_bytes(code)).await;
    });
    Ok((StatusCode::SWITCHING_PROTOCOLS, [(header::CONNECTION, "upgrade"), (header::UPGRADE, frame::UPGRADE)]).into_response())
}

async fn put(io: &mut (impl AsyncWriteExt + Unpin), kind: u8, payload: &[u8]) {
    io.write_all(&frame::header(kind, payload.len())).await.unwrap();
    io.write_all(payload).await.unwrap();
    io.flush().await.unwrap();
}

async fn logs(Query(query): Query<BTreeMap<String, String>>) -> String {
    format!("tail {:?} follow {:?}\n", query.get("tail"), query.get("follow"))
}

async fn watch(State(node): State<FakeNode>) -> Body {
    let receiver = node.changes.subscribe();
    let first: Vec<_> = node.inner.lock().unwrap().berths.values().cloned().collect();
    let later = stream::unfold(receiver, |mut receiver| async move {
        loop {
            match receiver.recv().await {
                Ok(status) => return Some((status, receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    let life = node.life.lock().unwrap().clone();
    let statuses = stream::iter(first).chain(later).take_until(life.cancelled_owned());
    Body::from_stream(statuses.map(|status| Ok::<_, std::io::Error>(line(&status))))
}

async fn watch_calls(State(node): State<FakeNode>) -> Body {
    let receiver = node.grown.subscribe();
    let inner = node.inner.lock().unwrap();
    let first: Vec<_> = inner.spools.iter().map(|(id, s)| CallsAt { id: *id, taken: s.taken, end: s.end() }).collect();
    drop(inner);
    let later = stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.ok().map(|at| (at, receiver)) });
    let life = node.life.lock().unwrap().clone();
    let all = stream::iter(first.into_iter().filter(|at| at.end > at.taken)).chain(later).take_until(life.cancelled_owned());
    Body::from_stream(all.map(|at| Ok::<_, std::io::Error>(line(&at))))
}

async fn calls(State(node): State<FakeNode>, Segment(id): Segment<BerthId>, Query(query): Query<BTreeMap<String, u64>>) -> Json<CallPage> {
    let inner = node.inner.lock().unwrap();
    let Some(spool) = inner.spools.get(&id) else {
        return Json(CallPage { id, next: query["after"], more: false, records: Vec::new() });
    };
    let from = query["after"].max(spool.taken) / 10;
    let records: Vec<_> = spool.records.iter().skip(from as usize).take(PAGE).cloned().collect();
    let next = (10 * (from + records.len() as u64)).max(query["after"]);
    Json(CallPage { id, next, more: next < spool.end(), records })
}

async fn taken(State(node): State<FakeNode>, Segment(id): Segment<BerthId>, Json(body): Json<CallsTaken>) -> StatusCode {
    let mut inner = node.inner.lock().unwrap();
    if !inner.deaf
        && let Some(spool) = inner.spools.get_mut(&id)
    {
        spool.taken = spool.taken.max(body.position);
    }
    StatusCode::NO_CONTENT
}

pub fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap() + "\n"
}

async fn images(State(node): State<FakeNode>) -> Json<Vec<ImageInfo>> {
    Json(node.inner.lock().unwrap().images.clone())
}

async fn build(State(node): State<FakeNode>, Json(build): Json<BuildRequest>) -> Body {
    let mut lines: Vec<_> = (1..=150).map(|n| ImageProgress::Log { line: format!("step {n}") }).collect();
    lines.push(match build.suite.as_str() {
        "sid" => ImageProgress::Failed { problem: problem("mirror_unreachable", "the mirror does not answer") },
        _ => ImageProgress::Done { image: node.add(&build.name, "cd") },
    });
    if node.inner.lock().unwrap().hangs {
        lines.pop();
        let lines = stream::iter(lines).chain(stream::pending());
        return Body::from_stream(lines.map(|progress| Ok::<_, std::io::Error>(line(&progress))));
    }
    Body::from_stream(stream::iter(lines).map(|progress| Ok::<_, std::io::Error>(line(&progress))))
}

async fn stop_build(State(node): State<FakeNode>, Query(query): Query<BTreeMap<String, String>>) -> StatusCode {
    node.inner.lock().unwrap().calls.push(format!("stop build {}", query["name"]));
    StatusCode::NO_CONTENT
}

async fn import(State(node): State<FakeNode>, Query(query): Query<BTreeMap<String, String>>, body: Body) -> Answer {
    let Ok(body) = body.collect().await else { return Err(refusal(400, &problem("broken_body", "it broke off"))) };
    let bytes = body.to_bytes();
    node.inner.lock().unwrap().imported = bytes.len();
    let end = match bytes.is_empty() {
        true => ImageProgress::Failed { problem: problem("empty_image", "there is nothing in it") },
        false => ImageProgress::Done { image: node.add(&query["name"], "ef") },
    };
    Ok(line(&end).into_response())
}

impl FakeNode {
    fn add(&self, name: &str, digits: &str) -> ImageInfo {
        let image = ImageInfo {
            digest: format!("sha256:{}", digits.repeat(32)),
            name: name.to_owned(),
            created_at: 2,
            size_bytes: 1,
            used_by: Vec::new(),
        };
        self.inner.lock().unwrap().images.push(image.clone());
        image
    }
}

async fn remove_image(State(node): State<FakeNode>, Segment(digest): Segment<String>) -> StatusCode {
    tokio::time::sleep(Duration::from_millis(5)).await;
    node.inner.lock().unwrap().images.retain(|image| image.digest != digest);
    StatusCode::NO_CONTENT
}

async fn doctor() -> Json<Vec<Check>> {
    Json(vec![Check { name: "kernel".to_owned(), level: CheckLevel::Ok, detail: "6.12".to_owned(), fix: None }])
}

async fn deep_doctor(State(node): State<FakeNode>, Json(asked): Json<berth_protocol::DeepCheck>) -> Json<Vec<Check>> {
    let known = node.inner.lock().unwrap().images.iter().any(|image| image.digest == asked.image);
    let level = if known { CheckLevel::Ok } else { CheckLevel::Failed };
    Json(vec![Check { name: "deep: container".to_owned(), level, detail: asked.image, fix: None }])
}
