//! What the peer is told to do, and what has to come of it.

use std::fmt::Write as _;

/// One operation of `berth-probe echo`, whose numbers these are.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Most(usize),
    /// Takes, or sends back, everything up to the end of the head that holds the program.
    Head {
        back: bool,
    },
    Echo(usize),
    Take(usize),
    Say(Vec<u8>),
    EchoAll,
    TakeAll,
    HalfClose,
    Pause(usize),
    Reset,
}

/// The program as text; always of the same length for the same operations, whatever `head` is.
pub(super) fn text(ops: &[Op], head: usize, name: Option<u32>) -> String {
    let mut text = String::from("=");
    if let Some(name) = name {
        let _ = write!(text, "I{name:08x}");
    }
    for op in ops {
        let _ = match op {
            Op::Most(most) => write!(text, "C{most:08x}"),
            Op::Head { back: true } => write!(text, "E{head:08x}"),
            Op::Head { back: false } => write!(text, "T{head:08x}"),
            Op::Echo(length) => write!(text, "E{length:08x}"),
            Op::Take(length) => write!(text, "T{length:08x}"),
            Op::Say(bytes) => {
                let _ = write!(text, "S{:08x}", bytes.len());
                bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}"))
            }
            Op::EchoAll => write!(text, "F"),
            Op::TakeAll => write!(text, "D"),
            Op::HalfClose => write!(text, "W"),
            Op::Pause(length) => write!(text, "P{length:08x}"),
            Op::Reset => write!(text, "R"),
        };
    }
    text.push(';');
    text
}

/// What the peer sends when it gets all of `up`.
pub(super) fn expected(ops: &[Op], up: &[u8], head: usize) -> Vec<u8> {
    let (mut at, mut down) = (0, Vec::new());
    for op in ops {
        match op {
            Op::Head { back } => {
                if *back {
                    down.extend_from_slice(&up[..head]);
                }
                at = head;
            }
            Op::Echo(length) => {
                down.extend_from_slice(&up[at..at + length]);
                at += length;
            }
            Op::Take(length) => at += length,
            Op::Say(bytes) => down.extend_from_slice(bytes),
            Op::EchoAll => {
                down.extend_from_slice(&up[at..]);
                break;
            }
            Op::TakeAll | Op::Reset | Op::HalfClose => break,
            Op::Most(_) | Op::Pause(_) => {}
        }
    }
    down
}
