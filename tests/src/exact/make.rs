use super::{
    dice::Dice,
    program::{Op, expected, text},
};

/// One conversation.
#[derive(Clone, Debug)]
pub struct Case {
    /// What kind, for messages.
    pub kind: &'static str,
    /// All that the client has to say.
    pub up: Vec<u8>,
    /// Where the head ends in which the program is.
    pub head: usize,
    /// All that comes back, unless one side resets.
    pub down: Vec<u8>,
    /// Nothing of `up` from here on may go until so much of `down` has come.
    pub gates: Vec<(usize, usize)>,
    /// Where answers end in `down`: the shim may speak in Docker's place there, when Docker goes. Nowhere in noise.
    pub ends: Vec<usize>,
    /// Bytes were altered at random: the shim may see answers end elsewhere.
    pub torn: bool,
    /// The peer resets, or ends its output early.
    pub cut: bool,
    /// The client vanishes when it has sent so much or received so much.
    pub vanishes: Option<(usize, usize)>,
    /// The client ends its output when it has said all; otherwise it waits for the peer's end.
    pub half_closes: bool,
    /// The peer reads until the client's end and only then closes.
    pub reads_all: bool,
    /// Most bytes of one read and one write of the client.
    pub piece: usize,
    /// Reads only when there is no room to write.
    pub lazy: bool,
    /// The peer's report is kept under this name.
    pub name: u32,
    pub seed: u64,
}

impl Case {
    pub fn new(seed: u64, number: u32) -> Self {
        let mut dice = Dice::new(Dice::new(seed ^ (u64::from(number) << 20)).number());
        match dice.below(10) {
            0..3 => noise(&mut dice, number),
            3..8 => calls(&mut dice, number),
            _ => upgrade(&mut dice, number),
        }
    }
}

/// A conversation that is being written.
struct Draft {
    kind: &'static str,
    ops: Vec<Op>,
    /// Before the program, and behind it to the end of the head.
    prefix: Vec<u8>,
    suffix: Vec<u8>,
    /// Behind the head.
    rest: Vec<u8>,
    /// From so many bytes of `rest` on nothing may go until what comes of the operation with this number, and of those before, has come.
    gates: Vec<(usize, usize)>,
    /// Numbers of operations after which an answer is over.
    ends: Vec<usize>,
    half_closes: bool,
    reads_all: bool,
}

impl Draft {
    fn finish(mut self, dice: &mut Dice, name: u32) -> Case {
        let torn = dice.once_in(6);
        if torn {
            self.tear(dice);
        }
        let (mut cut, mut vanishes) = (false, None);
        match dice.below(8) {
            0 => {
                cut = true;
                self.cut_short(dice);
            }
            1 => vanishes = Some(()),
            _ => {}
        }
        let big = self.rest.len() > 64 << 10;
        let piece = |dice: &mut Dice| match dice.below(6) {
            _ if big => 4096 << dice.below(6),
            0 if self.rest.len() < 2048 => 1 + dice.below(16),
            1 | 2 => 64 + dice.below(1000),
            _ => 1 + (1024 << dice.below(7)),
        };
        self.ops.insert(0, Op::Most(piece(dice)));
        let piece = piece(dice);
        let Self { kind, ops, prefix, suffix, rest, gates, ends, half_closes, reads_all } = self;
        let head = prefix.len() + text(&ops, 0, Some(name)).len() + suffix.len();
        let mut up = prefix;
        up.extend(text(&ops, head, Some(name)).into_bytes());
        up.extend(suffix);
        assert_eq!(up.len(), head, "the program's length does not depend on its numbers");
        up.extend(rest);
        // One operation came in front.
        let after = |op: usize| expected(&ops[..op + 2], &up, head).len();
        let gates = gates.into_iter().map(|(rest, op)| (head + rest, after(op))).collect();
        let down = expected(&ops, &up, head);
        let ends = ends.into_iter().map(after).collect();
        let vanishes = vanishes.map(|()| (1 + dice.below(up.len() + 1), 1 + dice.below(down.len() + 1)));
        let lazy = dice.once_in(5);
        Case { kind, up, head, down, gates, ends, torn, cut, vanishes, half_closes, reads_all, piece, lazy, name, seed: dice.number() }
    }

    /// Alters bytes behind the head, in both directions.
    fn tear(&mut self, dice: &mut Dice) {
        for _ in 0..=dice.below(4) {
            let (at, value) = (dice.below(self.rest.len()), dice.number().to_le_bytes()[0]);
            if let Some(byte) = self.rest.get_mut(at) {
                *byte = value;
            }
            let at = dice.below(self.ops.len());
            if let Some(Op::Say(bytes)) = self.ops.get_mut(at)
                && !bytes.is_empty()
            {
                let place = dice.below(bytes.len());
                bytes[place] = value;
            }
        }
    }

    /// The peer resets, or ends its output and reads on, at a random point.
    fn cut_short(&mut self, dice: &mut Dice) {
        let at = dice.below(self.ops.len() + 1);
        let last = self.ops.get(at).cloned();
        let behind = self.ops.split_off(at);
        let used: usize = self.ops.iter().map(|op| if let Op::Echo(length) | Op::Take(length) = op { *length } else { 0 }).sum();
        // Less than the operation would have done, or all of it.
        let part = match last {
            Some(Op::Echo(length) | Op::Take(length)) => dice.below(length + 1),
            Some(Op::Say(ref bytes)) => dice.below(bytes.len() + 1),
            Some(Op::EchoAll) => dice.below((self.rest.len() - used).min(1000) + 1),
            _ => 0,
        };
        let (op, whole) = match last {
            Some(Op::Echo(length)) => (Some(Op::Echo(part)), part == length),
            Some(Op::Take(length)) => (Some(Op::Take(part)), part == length),
            Some(Op::Say(bytes)) => (Some(Op::Say(bytes[..part].to_vec())), part == bytes.len()),
            Some(Op::EchoAll) => (Some(Op::Echo(part)), false),
            _ => (None, false),
        };
        self.ops.extend(op);
        // What has nothing to do is done with what comes before it.
        let nothing = |op: &&Op| matches!(op, Op::Echo(0) | Op::Take(0));
        let more: Vec<Op> = if whole { behind.iter().skip(1).take_while(nothing).cloned().collect() } else { Vec::new() };
        let done = at + usize::from(whole) + more.len();
        self.ops.extend(more);
        if dice.once_in(2) {
            self.ops.push(Op::Reset);
            self.reads_all = false;
        } else {
            self.ops.extend([Op::HalfClose, Op::TakeAll]);
            (self.half_closes, self.reads_all) = (true, true);
        }
        self.gates.retain(|(_, op)| *op < done);
        self.ends.retain(|op| *op < done);
    }
}

fn noise(dice: &mut Dice, name: u32) -> Case {
    let length = dice.below(200);
    let prefix = dice.bytes(length).into_iter().filter(|byte| !matches!(byte, b'=' | b';' | b'\r')).collect();
    let length = dice.length();
    let rest = dice.bytes(length);
    let mut ops = vec![Op::Head { back: true }];
    let mut left = length;
    for _ in 0..dice.below(8) {
        match dice.below(4) {
            0 => {
                let length = dice.below(300);
                ops.push(Op::Say(dice.bytes(length)));
            }
            1 => ops.push(Op::Pause(dice.below(4))),
            2 => {
                let length = dice.below(left + 1);
                left -= length;
                ops.push(Op::Take(length));
            }
            _ => {
                let length = dice.below(left + 1);
                left -= length;
                ops.push(Op::Echo(length));
            }
        }
    }
    let reads_all = !dice.once_in(4);
    if reads_all {
        ops.push(if dice.once_in(8) { Op::TakeAll } else { Op::EchoAll });
    } else {
        ops.push(Op::Echo(left));
    }
    let (gates, ends) = (Vec::new(), Vec::new());
    Draft { kind: "noise", ops, prefix, suffix: Vec::new(), rest, gates, ends, half_closes: reads_all, reads_all }.finish(dice, name)
}

const JUNK: &[&str] =
    &["", "Host: docker\r\n", "X-Registry-Auth: eyJh\r\nUser-Agent: a/1 (b)\r\n", "Content-Type: application/json\r\nhost: x\r\n"];

fn junk(dice: &mut Dice) -> &'static str {
    JUNK[dice.below(JUNK.len())]
}

/// `bytes` in chunks: each piece and what stands in front of it; the end of the last.
fn chunks(dice: &mut Dice, length: usize) -> (Vec<(String, usize)>, &'static str) {
    let mut pieces = Vec::new();
    let mut left = length;
    while left > 0 {
        let most = left.min(2 << dice.below(20));
        let piece = if pieces.len() > 20 { left } else { 1 + dice.below(most) };
        let extension = if dice.once_in(10) { ";name=value" } else { "" };
        let ended = if pieces.is_empty() { "" } else { "\r\n" };
        pieces.push((if dice.once_in(2) { format!("{ended}{piece:x}{extension}\r\n") } else { format!("{ended}{piece:04X}\r\n") }, piece));
        left -= piece;
    }
    let end = match (pieces.is_empty(), dice.once_in(5)) {
        (true, true) => "0\r\nX-Trailer: y\r\n\r\n",
        (true, false) => "0\r\n\r\n",
        (false, true) => "\r\n0\r\nX-Trailer: y\r\n\r\n",
        (false, false) => "\r\n0\r\n\r\n",
    };
    (pieces, end)
}

/// The body of a request, with its header.
fn body(dice: &mut Dice) -> (String, Vec<u8>) {
    let length = dice.length() / 2;
    match dice.below(3) {
        0 => (String::new(), Vec::new()),
        1 => (format!("Content-Length: {length}\r\n"), dice.bytes(length)),
        _ => {
            let mut bytes = Vec::new();
            let (pieces, end) = chunks(dice, length);
            for (front, length) in pieces {
                bytes.extend(front.into_bytes());
                bytes.extend(dice.bytes(length));
            }
            bytes.extend_from_slice(end.as_bytes());
            ("Transfer-Encoding: chunked\r\n".to_owned(), bytes)
        }
    }
}

/// Requests and answers on one connection, in turn or pipelined.
fn calls(dice: &mut Dice, name: u32) -> Case {
    let in_turn = dice.once_in(2);
    let count = if dice.once_in(50) { 60 + dice.below(10) } else { dice.below(6) };
    let (header, mut rest) = body(dice);
    let prefix = [&b"POST"[..], b"PUT", b"DELETE"][dice.below(3)].iter().chain(b" /v1.41/containers/").copied().collect();
    let suffix = format!("/x?y=z HTTP/1.1\r\n{}{header}\r\n", junk(dice)).into_bytes();
    let mut ops = vec![Op::Head { back: false }];
    let first = rest.len();
    let (mut gates, mut ends) = (Vec::new(), Vec::new());
    let reads_all = dice.once_in(2);
    answer(dice, &mut ops, first, false, !reads_all && count == 0);
    ends.push(ops.len() - 1);
    for number in 1..=count {
        let begun = rest.len();
        if in_turn {
            gates.push((begun, ops.len() - 1));
        }
        let without_body = dice.once_in(6);
        let (header, bytes) = if without_body || count > 50 { (String::new(), Vec::new()) } else { body(dice) };
        let method = if without_body { "HEAD" } else { ["GET", "POST"][dice.below(2)] };
        rest.extend(format!("{method} /containers/json?a={} HTTP/1.1\r\n{}{header}\r\n", dice.below(1000), junk(dice)).into_bytes());
        rest.extend(bytes);
        answer(dice, &mut ops, rest.len() - begun, without_body, !reads_all && number == count);
        ends.push(ops.len() - 1);
    }
    if reads_all {
        ops.push(Op::TakeAll);
    }
    let kind = if in_turn { "calls in turn" } else { "calls in a pipeline" };
    let half_closes = reads_all || dice.once_in(2);
    Draft { kind, ops, prefix, suffix, rest, gates, ends, half_closes, reads_all }.finish(dice, name)
}

/// An answer that holds the next `length` bytes of what the client says, or takes them. `last`: the peer closes behind it.
fn answer(dice: &mut Dice, ops: &mut Vec<Op>, length: usize, head_only: bool, last: bool) {
    if dice.once_in(10) {
        ops.push(Op::Say(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()));
    }
    if dice.once_in(10) {
        ops.push(Op::Pause(dice.below(3)));
    }
    let header = junk(dice);
    if head_only {
        ops.push(Op::Take(length));
        ops.push(Op::Say(format!("HTTP/1.1 200 OK\r\n{header}Content-Length: {}\r\n\r\n", dice.below(9999)).into_bytes()));
        return;
    }
    match dice.below(5) {
        _ if last && dice.once_in(2) => {
            ops.push(Op::Say(format!("HTTP/1.1 200 OK\r\n{header}Connection: close\r\n\r\n").into_bytes()));
            ops.push(Op::Echo(length));
        }
        0 => {
            ops.push(Op::Take(length));
            ops.push(Op::Say(format!("HTTP/1.1 204 No Content\r\n{header}\r\n").into_bytes()));
        }
        1 | 2 => {
            ops.push(Op::Say(format!("HTTP/1.1 200 OK\r\n{header}Content-Length: {length}\r\n\r\n").into_bytes()));
            ops.push(Op::Echo(length));
        }
        _ => {
            ops.push(Op::Say(format!("HTTP/1.1 201 Created\r\n{header}Transfer-Encoding: chunked\r\n\r\n").into_bytes()));
            let (pieces, end) = chunks(dice, length);
            for (front, length) in pieces {
                ops.push(Op::Say(front.into_bytes()));
                ops.push(Op::Echo(length));
            }
            ops.push(Op::Say(end.as_bytes().to_vec()));
        }
    }
}

/// A call that becomes a stream, with and without the client's asking for it; or is refused that.
fn upgrade(dice: &mut Dice, name: u32) -> Case {
    let asked = !dice.once_in(3);
    let prefix = b"POST /v1.41/containers/abc/attach?".to_vec();
    let upgrade = if asked { "Upgrade: tcp\r\nConnection: Upgrade\r\n" } else { "" };
    let suffix = format!("&stream=1&stdin=1 HTTP/1.1\r\n{}{upgrade}Content-Length: 0\r\n\r\n", junk(dice)).into_bytes();
    let length = dice.length();
    let mut ops = vec![Op::Head { back: false }];
    let head = match (dice.below(6), asked) {
        (0, _) => "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n",
        (_, true) => {
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        }
        (_, false) => "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n",
    };
    ops.push(Op::Say(head.as_bytes().to_vec()));
    let (gates, ends) = (if dice.once_in(2) { vec![(0, 1)] } else { Vec::new() }, vec![1]);
    if dice.once_in(3) {
        let length = dice.below(2000);
        ops.push(Op::Say(dice.bytes(length)));
    }
    ops.push(Op::EchoAll);
    let rest = dice.bytes(length);
    Draft { kind: "stream", ops, prefix, suffix, rest, gates, ends, half_closes: true, reads_all: true }.finish(dice, name)
}
