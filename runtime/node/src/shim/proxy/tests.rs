use std::{fs::File, path::PathBuf};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::timeout,
};

use berth_protocol::{Call, CallRecord, Outcome};

use super::*;
use crate::shim::sleep::tests::sleeper;

mod rest;

const SOON: Duration = Duration::from_secs(20);

/// A proxy on a socket of its own, before a "berth" that is a directory.
struct Rig {
    dir: TempDir,
    state: Arc<State>,
    proxy: Arc<Proxy>,
    /// Keeps the queue of the user's socket, as the node does.
    _queue: OwnedFd,
    serving: JoinHandle<()>,
    /// Writes lines of calls, as in the shim.
    writing: JoinHandle<()>,
    /// In place of the kernel's, for the freezer.
    _freezer: TempDir,
}

impl Rig {
    fn new(change: impl FnOnce(&mut Proxy)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/run")).unwrap();
        let root = File::open(dir.path().join("root")).unwrap().into();
        let state = Arc::new(State::new());
        let owner = Owner { name: "alice".into(), uid: 4711, gid: 4711 };
        let hold = Hold { starting: SOON, ready: SOON };
        let spool = File::options().read(true).append(true).create(true).open(dir.path().join("calls")).unwrap();
        let (sleeper, freezer) = sleeper(&state);
        let calls = Arc::new(Calls::open(spool, owner.clone(), 0).unwrap());
        let parts = Parts {
            inner: Arc::new(Inner { root, ids: 0..=u32::MAX }),
            state: Arc::clone(&state),
            sleeper: Arc::new(sleeper),
            calls: Arc::clone(&calls),
            covers: Vec::new(),
        };
        let mut proxy = Proxy::new(owner, parts, 100, hold);
        proxy.identify = |_| Ok((4711, std::process::id()));
        change(&mut proxy);
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("user.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let queue = listener.try_clone().unwrap().into();
        let proxy = Arc::new(proxy);
        let serving = tokio::spawn(Arc::clone(&proxy).serve(watch_socket(listener.into()).unwrap()));
        let writing = tokio::spawn(async move { calls.write_for_ever().await });
        Self { dir, state, proxy, _queue: queue, serving, writing, _freezer: freezer }
    }

    fn inner_path(&self) -> PathBuf {
        self.dir.path().join("root/run/docker.sock")
    }

    fn inner(&self) -> UnixListener {
        UnixListener::bind(self.inner_path()).unwrap()
    }

    /// What was written down, once that are `count` calls.
    async fn calls(&self, count: usize) -> Vec<Call> {
        let read = async {
            loop {
                let text = std::fs::read_to_string(self.dir.path().join("calls")).unwrap();
                let calls: Vec<Call> = text
                    .lines()
                    .map(|line| match serde_json::from_str(line).unwrap() {
                        CallRecord::Call(call) => call,
                        lost => panic!("{lost:?}"),
                    })
                    .collect();
                if calls.len() >= count {
                    return calls;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, read).await.expect("calls in time")
    }

    async fn client(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("user.sock")).await.unwrap()
    }

    /// Sends a request and reads until the end.
    async fn ask(&self, request: &str) -> String {
        let mut client = self.client().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        timeout(SOON, client.read_to_string(&mut text)).await.expect("an answer in time").unwrap();
        text
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.serving.abort();
        self.writing.abort();
    }
}

/// Reads to the end, or to a reset.
async fn read_all(mut stream: impl AsyncReadExt + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("an end in time");
    bytes
}

#[tokio::test]
async fn x01_root_and_strangers_get_a_403_that_names_the_owner_and_reach_nothing() {
    for (uid, hint) in [(|_: BorrowedFd<'_>| Ok((0, 1))) as fn(BorrowedFd<'_>) -> io::Result<(u32, u32)>, |_| Ok((4712, 1))]
        .into_iter()
        .zip(["berth exec alice", "berth env"])
    {
        let rig = Rig::new(|proxy| proxy.identify = uid);
        let inner = rig.inner();
        let answer = rig.ask("GET /v1.41/containers/json HTTP/1.1\r\nHost: docker\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n"), "{answer}");
        assert!(answer.contains("{\"message\":\"this Docker socket belongs to alice"), "{answer}");
        assert!(answer.contains(hint), "{answer}");
        let head = rig.ask("HEAD /_ping HTTP/1.1\r\nHost: docker\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 403") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(timeout(Duration::from_millis(100), inner.accept()).await.is_err());
    }
}

#[tokio::test]
async fn x01_the_kernel_says_who_connects() {
    let (here, _there) = UnixStream::pair().unwrap();
    assert_eq!(peer(here.as_fd()).unwrap(), (nix::unistd::getuid().as_raw(), std::process::id()));
    assert!(!tap::command(&here.into_std().unwrap().into(), std::process::id()).is_empty());
}

#[tokio::test]
async fn x03_half_close_reaches_the_other_side_in_both_directions() {
    let rig = Rig::new(|_| {});
    let inner = rig.inner();
    let mut client = rig.client().await;
    let (mut docker, _) = inner.accept().await.unwrap();
    client.write_all(b"all of stdin").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut docker).await, b"all of stdin");
    docker.write_all(b"all of stdout").await.unwrap();
    drop(docker);
    assert_eq!(read_all(&mut client).await, b"all of stdout");

    let mut client = rig.client().await;
    let (mut docker, _) = inner.accept().await.unwrap();
    docker.write_all(b"first").await.unwrap();
    docker.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, b"first");
    client.write_all(b"last").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut docker).await, b"last");
}

#[tokio::test]
async fn x03_a_receiver_that_closed_makes_the_senders_write_fail() {
    let rig = Rig::new(|_| {});
    let inner = rig.inner();
    let mut client = rig.client().await;
    let (mut docker, _) = inner.accept().await.unwrap();
    // dockerd answers before it has read the body, and closes.
    docker.write_all(b"413").await.unwrap();
    drop(docker);
    let written = timeout(SOON, async { while client.write_all(&[0; 65536]).await.is_ok() {} }).await;
    assert!(written.is_ok());
    assert_eq!(read_all(client).await, b"413");
}

#[tokio::test]
async fn x10_a_client_that_is_gone_frees_its_place_whatever_docker_does() {
    let rig = Rig::new(|_| {});
    let held = rig.client().await;
    while rig.proxy.open() == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    drop(held);
    timeout(SOON, async {
        while rig.proxy.open() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("a place held for nobody");

    let inner = rig.inner();
    let mut client = rig.client().await;
    let (mut silent, _) = inner.accept().await.unwrap();
    client.write_all(b"attach").await.unwrap();
    drop(client);
    assert_eq!(read_all(&mut silent).await, b"attach");
    assert!(silent.write_all(b"too late").await.is_err());
    assert_eq!(rig.proxy.open(), 0);
}

#[tokio::test]
async fn x06_a_client_that_never_reads_holds_the_sender_back() {
    let rig = Rig::new(|_| {});
    let inner = rig.inner();
    let _client = rig.client().await;
    let (mut docker, _) = inner.accept().await.unwrap();
    let mut taken = 0;
    while let Ok(written) = timeout(Duration::from_millis(300), docker.write(&[0; 65536])).await {
        taken += written.unwrap();
        assert!(taken < 4 << 20, "the proxy buffers without bound");
    }
}

#[tokio::test]
async fn x06_a_large_upload_is_spliced_and_arrives_whole() {
    let rig = Rig::new(|_| {});
    let inner = rig.inner();
    let (up, none) = (Script { seed: 3, length: 48 << 20, reset: false }, Script { seed: 4, length: 0, reset: false });
    let client = tokio::spawn(play(rig.client().await, up, none, 7));
    let (docker, _) = inner.accept().await.unwrap();
    assert_eq!(play(docker, none, up, 8).await, up.length);
    client.await.unwrap();
    while !rig.proxy.pipes.keeps_some() {
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn x07_a_head_of_64_kib_odd_hosts_and_what_follows_an_upgrade_pass_unchanged() {
    let rig = Rig::new(|_| {});
    let inner = rig.inner();
    let mut request = b"POST /v1.41/images/a%2Fb/push HTTP/1.1\r\nHost: %2Frun%2Fx.sock\r\nX-Registry-Auth: ".to_vec();
    request.extend(vec![b'a'; 64 * 1024]);
    request.extend(b"\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n\x00\xff early bytes GET / HTTP/1.1\r\n\r\n");
    let mut client = rig.client().await;
    let (mut docker, _) = inner.accept().await.unwrap();
    client.write_all(&request).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut docker).await, request);
}

#[tokio::test]
async fn x08_a_client_is_held_until_docker_listens() {
    let rig = Rig::new(|_| {});
    let asking = rig.ask("GET /_ping HTTP/1.1\r\n\r\n");
    let docker = async {
        sleep(Duration::from_millis(100)).await;
        let (mut docker, _) = rig.inner().accept().await.unwrap();
        docker.write_all(b"OK").await.unwrap();
    };
    assert_eq!(tokio::join!(asking, docker).0, "OK");
}

#[tokio::test]
async fn x08_what_cannot_be_reached_is_answered_with_the_reason_and_never_hangs() {
    let rig = Rig::new(|proxy| proxy.hold.starting = Duration::from_millis(50));
    let answer = rig.ask("GET /info HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("berth logs"), "{answer}");
    rig.state.set_engine(Engine::Failed("no dockerd in this image".into()));
    let answer = rig.ask("GET /info HTTP/1.1\r\n\r\n").await;
    assert!(answer.contains("no dockerd in this image"), "{answer}");
    // Silence is answered too, once the time for a head is over; here the client's end comes first.
    let mut client = rig.client().await;
    client.shutdown().await.unwrap();
    assert!(read_all(client).await.starts_with(b"HTTP/1.1 503"));
}

#[tokio::test]
async fn x09_a_link_in_place_of_the_inner_socket_is_an_error_that_says_so() {
    let rig = Rig::new(|_| {});
    let host = UnixListener::bind(rig.dir.path().join("host.sock")).unwrap();
    std::os::unix::fs::symlink(rig.dir.path().join("host.sock"), rig.inner_path()).unwrap();
    let answer = rig.ask("GET /info HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("a symbolic link, not Docker's socket"), "{answer}");
    assert!(timeout(Duration::from_millis(50), host.accept()).await.is_err());
}

#[tokio::test]
async fn x10_past_the_limit_a_connection_is_refused_with_the_limit_and_a_free_place_counts_again() {
    let rig = Rig::new(|proxy| {
        proxy.limit = 2;
        proxy.places = Arc::new(Semaphore::new(2));
    });
    let inner = rig.inner();
    let first = rig.client().await;
    let _second = rig.client().await;
    let (docker, _) = inner.accept().await.unwrap();
    let _other = inner.accept().await.unwrap();
    assert_eq!(rig.proxy.open(), 2);
    let answer = rig.ask("GET /info HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("2 connections"), "{answer}");
    drop((first, docker));
    while rig.proxy.open() == 2 {
        sleep(Duration::from_millis(5)).await;
    }
    let _third = rig.client().await;
    timeout(SOON, inner.accept()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_answers_the_held_and_leaves_newcomers_in_the_queue() {
    let rig = Rig::new(|_| {});
    let stop = async {
        sleep(Duration::from_millis(50)).await;
        rig.state.ask_stop(SOON);
    };
    let (answer, ()) = tokio::join!(rig.ask("GET /info HTTP/1.1\r\n\r\n"), stop);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("being stopped"), "{answer}");
    let mut late = rig.client().await;
    assert!(timeout(Duration::from_millis(100), late.read_u8()).await.is_err());
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}

fn byte_at(seed: usize, at: usize) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8) ^ (at >> 17) ^ seed) as u8
}

/// What one side does: sends `length` bytes in random pieces, then half-closes, or drops everything after `reset` bytes.
#[derive(Clone, Copy)]
struct Script {
    seed: usize,
    length: usize,
    reset: bool,
}

/// Plays one side; returns how many bytes came from the other, all checked.
async fn play(stream: UnixStream, mine: Script, theirs: Script, dice: u64) -> usize {
    let (mut read, mut write) = stream.into_split();
    let (mut dice, mut other_dice) = (Dice(dice | 1), Dice(dice | 2));
    let sending = async move {
        let mut sent = 0;
        while sent < mine.length {
            let piece: Vec<u8> = (sent..mine.length.min(sent + 1 + dice.below(40_000))).map(|at| byte_at(mine.seed, at)).collect();
            if write.write_all(&piece).await.is_err() {
                break;
            }
            sent += piece.len();
            if dice.below(8) == 0 {
                yield_now().await;
            }
        }
        if !mine.reset {
            let _ = write.shutdown().await;
        }
    };
    let receiving = async {
        let mut got = 0;
        let mut buffer = vec![0; 50_000];
        loop {
            let room = 1 + other_dice.below(buffer.len());
            match read.read(&mut buffer[..room]).await {
                Ok(0) | Err(_) => return got,
                Ok(length) => {
                    for (n, &byte) in buffer[..length].iter().enumerate() {
                        assert_eq!(byte, byte_at(theirs.seed, got + n), "byte {}", got + n);
                    }
                    got += length;
                }
            }
        }
    };
    if !mine.reset {
        return tokio::join!(sending, receiving).1;
    }
    // A reset ends the side at once, with whatever it has not read.
    tokio::select! {
        biased;
        () = sending => 0,
        got = receiving => got,
    }
}

/// Random chunk sizes, half-closes and resets: what went in comes out, all of it, or a prefix where one side reset.
#[tokio::test]
async fn x03_bytes_are_exact_through_random_chunks_half_closes_and_resets() {
    let cases = std::env::var("BERTH_COPY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let rig = Rig::new(|_| {});
    let inner = rig.inner();
    for case in 0..cases {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (case as u64 + 1));
        for _ in 0..4 {
            dice.below(1);
        }
        let mut script = |seed: usize| {
            let most = match dice.below(60) {
                0 => 3 << 20,
                1..10 => 300_000,
                10..15 => 1,
                _ => 5_000,
            };
            Script { seed: case * 2 + seed, length: dice.below(most), reset: dice.below(6) == 0 }
        };
        let (up, down) = (script(0), script(1));
        let client = rig.client().await;
        let (docker, _) = inner.accept().await.unwrap();
        let seed = case as u64 * 77 + 5;
        let client = tokio::spawn(play(client, up, down, seed));
        let docker = tokio::spawn(play(docker, down, up, seed ^ 0xffff));
        let (got_down, got_up) =
            timeout(SOON, async { tokio::join!(client, docker) }).await.unwrap_or_else(|_| panic!("case {case} hangs"));
        let (got_down, got_up) = (got_down.unwrap(), got_up.unwrap());
        if !up.reset && !down.reset {
            assert_eq!((got_up, got_down), (up.length, down.length), "case {case}");
        }
        assert!(got_up <= up.length && got_down <= down.length, "case {case}");
    }
    timeout(SOON, async {
        while rig.proxy.open() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("no connection is left over");
}

const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n";
const PONG: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";

async fn exchange(client: &mut UnixStream, docker: &mut UnixStream, request: &[u8], answer: &[u8]) {
    let mut read = vec![0; request.len().max(answer.len())];
    client.write_all(request).await.unwrap();
    docker.read_exact(&mut read[..request.len()]).await.unwrap();
    assert_eq!(&read[..request.len()], request);
    docker.write_all(answer).await.unwrap();
    client.read_exact(&mut read[..answer.len()]).await.unwrap();
    assert_eq!(&read[..answer.len()], answer);
}

#[tokio::test]
async fn x11_every_call_is_written_down_when_its_answer_has_passed() {
    let rig = Rig::new(|_| {});
    let inner = rig.inner();
    let mut client = rig.client().await;
    let (mut docker, _) = inner.accept().await.unwrap();
    for n in 1..=3 {
        exchange(&mut client, &mut docker, PING, PONG).await;
        // Without any wait on our side but for the file.
        assert_eq!(rig.calls(n).await.len(), n);
    }
    client.write_all(b"POST /containers/web/wait HTTP/1.1\r\n\r\n").await.unwrap();
    let mut byte = [0];
    docker.read_exact(&mut byte).await.unwrap();
    rest::until("in use", || rig.state.usage.under_way()).await;
    drop(client);
    let calls = rig.calls(4).await;
    assert_eq!(
        (calls[0].path.as_str(), calls[0].status, calls[0].outcome, calls[0].pid),
        ("/_ping", Some(200), Outcome::Answered, std::process::id())
    );
    assert_eq!((calls[0].request_bytes, calls[0].response_bytes), (PING.len() as u64, PONG.len() as u64));
    assert!(!calls[0].command.is_empty());
    assert_eq!((calls[3].container.as_deref(), calls[3].status, calls[3].outcome), (Some("web"), None, Outcome::Cut));
    assert!(!rig.state.usage.under_way());
}

#[tokio::test]
async fn x11_refusals_and_what_a_stop_cuts_are_written_down_too() {
    let rig = Rig::new(|proxy| {
        proxy.limit = 1;
        proxy.places = Arc::new(Semaphore::new(1));
    });
    let inner = rig.inner();
    let mut client = rig.client().await;
    let (mut docker, _) = inner.accept().await.unwrap();
    client.write_all(b"GET /events HTTP/1.1\r\n\r\n").await.unwrap();
    docker.read_exact(&mut [0; 10]).await.unwrap();
    assert!(rig.ask("GET /info HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 429"));
    let calls = rig.calls(1).await;
    assert_eq!((calls[0].path.as_str(), calls[0].status, calls[0].outcome), ("/info", Some(429), Outcome::Refused));
    rig.proxy.cut.cancel();
    assert!(read_all(client).await.is_empty());
    let calls = rig.calls(2).await;
    assert_eq!((calls[1].path.as_str(), calls[1].status, calls[1].outcome), ("/events", None, Outcome::Cut));
}

#[tokio::test]
async fn a_docker_that_goes_without_a_word_is_answered_for() {
    let rig = Rig::new(|_| {});
    let inner = rig.inner();
    // What it leaves unread makes a reset of its end.
    for read in [PING.len(), 1] {
        let mut client = rig.client().await;
        let (mut docker, _) = inner.accept().await.unwrap();
        client.write_all(PING).await.unwrap();
        docker.read_exact(&mut vec![0; read]).await.unwrap();
        drop(docker);
        let answer = String::from_utf8(read_all(client).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("ended before it answered"), "{answer}");
    }
    assert!(rig.calls(2).await.iter().all(|call| call.status == Some(502) && call.outcome == Outcome::Refused));
    // One that has begun to answer is not spoken for.
    let mut client = rig.client().await;
    let (mut docker, _) = inner.accept().await.unwrap();
    client.write_all(PING).await.unwrap();
    docker.read_exact(&mut vec![0; PING.len()]).await.unwrap();
    docker.write_all(b"HTTP/1.1 200").await.unwrap();
    drop(docker);
    assert_eq!(read_all(client).await, b"HTTP/1.1 200");
    assert_eq!(rig.calls(3).await[2].outcome, Outcome::Cut);
}

#[tokio::test]
async fn h02_a_bind_of_what_is_not_there_is_refused_before_docker_sees_it() {
    let rig = Rig::new(|proxy| proxy.covers = vec![("/home/alice".into(), "it lies on NFS".into())]);
    let inner = rig.inner();
    let mut client = rig.client().await;
    let (mut docker, _) = inner.accept().await.unwrap();
    exchange(&mut client, &mut docker, PING, PONG).await;
    let body = r#"{"Image":"busybox","HostConfig":{"Binds":["/home/alice/w:/w"]}}"#;
    let create = format!("POST /v1.41/containers/create HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    client.write_all(create.as_bytes()).await.unwrap();
    let answer = String::from_utf8(read_all(client).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request") && answer.contains("it lies on NFS"), "{answer}");
    assert!(read_all(docker).await.is_empty(), "nothing was forwarded");
    let calls = rig.calls(2).await;
    assert_eq!((calls[1].image.as_deref(), calls[1].status, calls[1].outcome), (Some("busybox"), Some(400), Outcome::Refused));
}
