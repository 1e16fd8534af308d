//! The measuring end: a process with the ids of whoever may use a socket, told by lines on its standard input what to do.
//!
//! | command | answer, one line of JSON |
//! |---|---|
//! | `keep N` | times of N `_ping`s on one connection |
//! | `new N` | times of N `_ping`s on a connection each, from connect(2) to the whole answer |
//! | `get PATH PATIENCE_MS` | one time, from the first connect(2) to the whole answer of a 200; refused connections are tried again |
//! | `up FRAMING BYTES`, `down FRAMING BYTES` | one time, from the request to the peer's word that it has all, or to the last byte |
//! | `put BYTES`, `fetch BYTES` | the same with Docker itself: a file `/x` of that size into the container `bench`, or out of it |
//! | `exec N` | times of N runs of `true` in the container `bench`, as `docker exec` does them |
//! | `read PATH N` | times of N reads of a whole file, from open(2) to close(2); the socket is not used |
//! | `tcp ADDRESS BYTES` | one time, from connect(2) to the sink's word that it has all; the socket is not used |
//!
//! Times are nanoseconds; `{"error": …}` where something failed. Blocking I/O, one thread.

use std::{
    fs,
    io::{self, BufRead, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    flow::{self, Framing, Reader, body, broken, head},
    tcp,
};

const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nUser-Agent: bench\r\n\r\n";
/// Before any time is taken on a connection.
const WARM_UP: usize = 20;
/// Between attempts of `get`.
const PAUSE: Duration = Duration::from_micros(500);

/// Serves commands for the socket at `path` until the input ends. `cpu`: the only one that this process may use.
pub fn serve(path: &Path, cpu: Option<usize>) -> io::Result<()> {
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu).and_then(|()| sched_setaffinity(Pid::this(), &set))?;
    }
    for line in io::stdin().lock().lines() {
        let line = line?;
        let answer = obey(path, &line.split(' ').collect::<Vec<_>>()).unwrap_or_else(|e| json!({ "error": e.to_string() }));
        let mut out = io::stdout().lock();
        writeln!(out, "{answer}").and_then(|()| out.flush())?;
    }
    Ok(())
}

fn obey(path: &Path, words: &[&str]) -> io::Result<Value> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| broken("not a number"));
    match words {
        ["keep", count] => keep(path, number(count)?).map(Value::from),
        ["new", count] => (0..number(count)?).map(|_| once(path)).collect::<io::Result<Vec<u64>>>().map(Value::from),
        ["get", target, patience] => get(path, target, Duration::from_millis(number(patience)?)).map(Value::from),
        ["up", framing, bytes] => up(path, framing.parse().map_err(|e: String| broken(&e))?, number(bytes)?).map(Value::from),
        ["down", framing, bytes] => down(path, framing.parse().map_err(|e: String| broken(&e))?, number(bytes)?).map(Value::from),
        ["put", bytes] => put(path, number(bytes)?).map(Value::from),
        ["fetch", bytes] => fetch(path, number(bytes)?).map(Value::from),
        ["exec", count] => (0..number(count)?).map(|_| exec(path)).collect::<io::Result<Vec<u64>>>().map(Value::from),
        ["read", file, count] => (0..number(count)?).map(|_| read(Path::new(file))).collect::<io::Result<Vec<u64>>>().map(Value::from),
        ["tcp", address, bytes] => tcp::send(address, number(bytes)?).map(Value::from),
        _ => Err(broken("an unknown command")),
    }
}

fn keep(path: &Path, count: u64) -> io::Result<Vec<u64>> {
    let stream = UnixStream::connect(path)?;
    let mut reader = flow::reader(&stream);
    for _ in 0..WARM_UP {
        ping(&stream, &mut reader)?;
    }
    let timed = |_| {
        let began = Instant::now();
        ping(&stream, &mut reader)?;
        Ok(since(began))
    };
    (0..count).map(timed).collect()
}

fn once(path: &Path) -> io::Result<u64> {
    let began = Instant::now();
    let stream = UnixStream::connect(path)?;
    ping(&stream, &mut flow::reader(&stream))?;
    Ok(since(began))
}

fn ping(mut stream: &UnixStream, reader: &mut Reader<'_>) -> io::Result<()> {
    stream.write_all(PING)?;
    let head = expect(reader, "200")?;
    if body(reader, &head)? == b"OK" { Ok(()) } else { Err(broken("_ping did not answer OK")) }
}

fn get(path: &Path, target: &str, patience: Duration) -> io::Result<u64> {
    let began = Instant::now();
    loop {
        let attempt = UnixStream::connect(path).and_then(|mut stream| {
            stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: docker\r\nUser-Agent: bench\r\n\r\n").as_bytes())?;
            let mut reader = flow::reader(&stream);
            let head = expect(&mut reader, "200")?;
            body(&mut reader, &head)
        });
        match attempt {
            Ok(_) => return Ok(since(began)),
            Err(error) if began.elapsed() >= patience => return Err(error),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// The requests are ones that Docker has, so that whoever reads them on the way reads what it knows: load, save, attach.
fn up(path: &Path, framing: Framing, bytes: u64) -> io::Result<u64> {
    let stream = UnixStream::connect(path)?;
    let mut reader = flow::reader(&stream);
    let began = Instant::now();
    let request = match framing {
        Framing::Length => format!("POST /v1.45/images/load HTTP/1.1\r\nHost: docker\r\nContent-Length: {bytes}\r\n\r\n"),
        Framing::Chunked => "POST /v1.45/images/load HTTP/1.1\r\nHost: docker\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        Framing::Upgraded => attach("in", bytes),
    };
    (&stream).write_all(request.as_bytes())?;
    if framing == Framing::Upgraded {
        expect(&mut reader, "101")?;
    }
    flow::send(&stream, framing, bytes)?;
    let came = match framing {
        // A line behind the upgrade, where no head can be.
        Framing::Upgraded => {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            line.into_bytes()
        }
        _ => {
            let head = expect(&mut reader, "200")?;
            body(&mut reader, &head)?
        }
    };
    let time = since(began);
    let came = String::from_utf8_lossy(&came).trim().parse::<u64>();
    if came == Ok(bytes) { Ok(time) } else { Err(broken(&format!("{bytes} bytes were sent, the peer had {came:?}"))) }
}

fn down(path: &Path, framing: Framing, bytes: u64) -> io::Result<u64> {
    let stream = UnixStream::connect(path)?;
    let mut reader = flow::reader(&stream);
    let began = Instant::now();
    let request = match framing {
        Framing::Upgraded => attach("out", bytes),
        _ => format!("GET /v1.45/images/get?names=x&framing={framing}&bytes={bytes} HTTP/1.1\r\nHost: docker\r\n\r\n"),
    };
    (&stream).write_all(request.as_bytes())?;
    let head = expect(&mut reader, if framing == Framing::Upgraded { "101" } else { "200" })?;
    if framing != Framing::Upgraded && head.chunked != (framing == Framing::Chunked) {
        return Err(broken("the answer has another framing"));
    }
    let came = flow::receive(&mut reader, framing, bytes)?;
    let time = since(began);
    if came == bytes { Ok(time) } else { Err(broken(&format!("{came} of {bytes} bytes came"))) }
}

/// As `docker cp` does.
fn put(path: &Path, bytes: u64) -> io::Result<u64> {
    let mut stream = UnixStream::connect(path)?;
    let began = Instant::now();
    stream.write_all(b"PUT /v1.41/containers/bench/archive?path=%2F HTTP/1.1\r\nHost: docker\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let mut header = tar::Header::new_ustar();
    header.set_path("x")?;
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_cksum();
    stream.write_all(&[b"200\r\n", &header.as_bytes()[..], b"\r\n"].concat())?;
    flow::send(&stream, Framing::Chunked, bytes)?;
    let mut reader = flow::reader(&stream);
    let head = expect(&mut reader, "200")?;
    body(&mut reader, &head)?;
    Ok(since(began))
}

fn fetch(path: &Path, bytes: u64) -> io::Result<u64> {
    let stream = UnixStream::connect(path)?;
    let mut reader = flow::reader(&stream);
    let began = Instant::now();
    (&stream).write_all(b"GET /v1.41/containers/bench/archive?path=%2Fx HTTP/1.1\r\nHost: docker\r\n\r\n")?;
    let head = expect(&mut reader, "200")?;
    if !head.chunked {
        return Err(broken("an archive with a length"));
    }
    let came = flow::receive(&mut reader, Framing::Chunked, 0)?;
    let time = since(began);
    if came > bytes { Ok(time) } else { Err(broken(&format!("an archive of {came} bytes cannot hold {bytes}"))) }
}

/// Two connections, as the Docker client: one for what has an answer, one that becomes the command's streams.
fn exec(path: &Path) -> io::Result<u64> {
    let began = Instant::now();
    let stream = UnixStream::connect(path)?;
    let mut reader = flow::reader(&stream);
    let request = r#"{"AttachStdout":true,"AttachStderr":true,"Cmd":["true"]}"#;
    post(&stream, "/v1.41/containers/bench/exec", "", request)?;
    let created = json_of(&mut reader, "201")?;
    let id = created["Id"].as_str().ok_or_else(|| broken("no id of the exec"))?;
    {
        let mut streams = UnixStream::connect(path)?;
        post(&streams, &format!("/v1.41/exec/{id}/start"), "Upgrade: tcp\r\nConnection: Upgrade\r\n", r#"{"Detach":false,"Tty":false}"#)?;
        expect(&mut flow::reader(&streams), "101")?;
        io::copy(&mut streams, &mut io::sink())?;
    }
    (&stream).write_all(format!("GET /v1.41/exec/{id}/json HTTP/1.1\r\nHost: docker\r\n\r\n").as_bytes())?;
    let ended = json_of(&mut reader, "200")?;
    let time = since(began);
    if ended["ExitCode"] == 0 { Ok(time) } else { Err(broken(&format!("true did not end well: {ended}"))) }
}

fn post(mut stream: &UnixStream, target: &str, headers: &str, json: &str) -> io::Result<()> {
    let length = json.len();
    let head =
        format!("POST {target} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n");
    stream.write_all(format!("{head}{json}").as_bytes())
}

fn json_of(reader: &mut Reader<'_>, status: &str) -> io::Result<Value> {
    let head = expect(reader, status)?;
    serde_json::from_slice(&body(reader, &head)?).map_err(io::Error::from)
}

fn read(file: &Path) -> io::Result<u64> {
    let began = Instant::now();
    let bytes = fs::read(file)?;
    let time = since(began);
    if bytes.is_empty() { Err(broken("an empty file")) } else { Ok(time) }
}

fn attach(way: &str, bytes: u64) -> String {
    format!(
        "POST /v1.45/containers/x/attach?stream=1&std{way}=1&bytes={bytes} HTTP/1.1\r\nHost: docker\r\nUpgrade: tcp\r\n\
         Connection: Upgrade\r\nContent-Length: 0\r\n\r\n"
    )
}

fn expect(reader: &mut Reader<'_>, status: &str) -> io::Result<flow::Head> {
    let head = head(reader)?.ok_or_else(|| broken("the connection ended without an answer"))?;
    if head.first.split(' ').nth(1) == Some(status) {
        return Ok(head);
    }
    let said = body(reader, &head).unwrap_or_default();
    Err(broken(&format!("not {status}: {} {}", head.first.trim_end(), String::from_utf8_lossy(&said))))
}

fn since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::{super::peer, *};

    /// The two programs against each other, as they meet inside a berth.
    #[test]
    fn client_and_peer_understand_each_other_in_every_framing() {
        let path = std::env::temp_dir().join(format!("berth-bench-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || peer::serve(&listener));
        let obeyed = |line: &str| obey(&path, &line.split(' ').collect::<Vec<_>>());
        assert_eq!(obeyed("keep 3").unwrap().as_array().unwrap().len(), 3);
        assert_eq!(obeyed("new 2").unwrap().as_array().unwrap().len(), 2);
        assert!(obeyed("get /_ping 0").unwrap().as_u64().unwrap() > 0);
        for framing in Framing::ALL {
            for way in ["up", "down"] {
                assert!(obeyed(&format!("{way} {framing} 1000000")).unwrap().as_u64().unwrap() > 0, "{way} {framing}");
            }
        }
        assert_eq!(obeyed("read /proc/meminfo 2").unwrap().as_array().unwrap().len(), 2);
        let refused = obeyed("get /nothing 0").unwrap_err().to_string();
        assert!(refused.contains("404"), "{refused}");
        assert!(obeyed("up sideways 1").is_err() && obeyed("dance").is_err());
        fs::remove_file(path).unwrap();
    }
}
