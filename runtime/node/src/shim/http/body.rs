//! Where a message's body ends.

/// Longest line before a chunk, and all trailers together, in bytes; dockerd itself takes no more.
const MOST_LINE: u32 = 4096;
const MOST_TRAILER: u32 = 64 * 1024;

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    Chunked(Chunked),
    /// Everything until the sender ends.
    UntilEnd,
}

/// Place within a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    /// In the line before a chunk.
    Size {
        size: u64,
        digits: u32,
        line: u32,
        extension: bool,
    },
    Data(u64),
    /// In the line end behind a chunk; how much of it was there.
    DataEnd(u32),
    /// In the trailers.
    Trailer {
        line: u32,
        total: u32,
        return_only: bool,
    },
}

/// These bytes are not what a chunked body is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Chunked {
    pub(super) const START: Chunked = Chunked::Size { size: 0, digits: 0, line: 0, extension: false };
}

impl Body {
    pub(super) fn ended(self) -> bool {
        self == Body::Length(0)
    }

    /// Bytes that can pass without being looked at.
    pub(super) fn unseen(self) -> u64 {
        match self {
            Body::Length(rest) => rest,
            Body::UntilEnd => u64::MAX,
            Body::Chunked(_) => 0,
        }
    }

    /// Follows the beginning of `bytes`, at most to the end of the body ([`Body::ended`] then); `data` gets what the body holds. Returns how
    /// many bytes belonged to it.
    pub(super) fn follow(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Malformed> {
        match self {
            Body::UntilEnd => {
                data(bytes);
                Ok(bytes.len())
            }
            Body::Length(rest) => {
                let length = within(*rest, bytes);
                data(&bytes[..length]);
                *rest -= length as u64;
                Ok(length)
            }
            Body::Chunked(chunked) => {
                let mut used = 0;
                while used < bytes.len() {
                    if let Chunked::Data(rest) = chunked {
                        let length = within(*rest, &bytes[used..]);
                        data(&bytes[used..used + length]);
                        used += length;
                        *rest -= length as u64;
                        if *rest == 0 {
                            *chunked = Chunked::DataEnd(0);
                        }
                        continue;
                    }
                    used += 1;
                    match chunked.step(bytes[used - 1])? {
                        Some(next) => *chunked = next,
                        None => {
                            *self = Body::Length(0);
                            break;
                        }
                    }
                }
                Ok(used)
            }
        }
    }
}

impl Chunked {
    /// One byte that is no data; `None` at the end of the body.
    fn step(self, byte: u8) -> Result<Option<Chunked>, Malformed> {
        Ok(Some(match self {
            Chunked::Size { size, digits, line, extension } => {
                let line = line + 1;
                if line > MOST_LINE {
                    return Err(Malformed);
                }
                match (byte, char::from(byte).to_digit(16)) {
                    (b'\n', _) if digits == 0 => return Err(Malformed),
                    (b'\n', _) if size == 0 => Chunked::Trailer { line: 0, total: 0, return_only: false },
                    (b'\n', _) => Chunked::Data(size),
                    (_, Some(digit)) if !extension && digits < 15 => {
                        Chunked::Size { size: size << 4 | u64::from(digit), digits: digits + 1, line, extension }
                    }
                    (b' ' | b'\t' | b';' | b'\r', _) if digits > 0 => Chunked::Size { size, digits, line, extension: true },
                    _ if extension => Chunked::Size { size, digits, line, extension },
                    _ => return Err(Malformed),
                }
            }
            Chunked::DataEnd(0) if byte == b'\r' => Chunked::DataEnd(1),
            Chunked::DataEnd(1) if byte == b'\n' => Chunked::START,
            Chunked::Trailer { line, total, return_only } => match byte {
                b'\n' if line == 0 || return_only => return Ok(None),
                b'\n' => Chunked::Trailer { line: 0, total: total + 1, return_only: false },
                _ if total >= MOST_TRAILER => return Err(Malformed),
                _ => Chunked::Trailer { line: line + 1, total: total + 1, return_only: line == 0 && byte == b'\r' },
            },
            Chunked::Data(_) | Chunked::DataEnd(_) => return Err(Malformed),
        }))
    }
}

fn within(rest: u64, bytes: &[u8]) -> usize {
    usize::try_from(rest).map_or(bytes.len(), |rest| rest.min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All data, and how many bytes belonged to the body.
    fn all(mut body: Body, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let (mut data, mut used) = (Vec::new(), 0);
        for part in bytes.chunks(piece) {
            if body.ended() {
                break;
            }
            used += body.follow(part, |d| data.extend_from_slice(d))?;
        }
        Ok((data, used, body.ended()))
    }

    #[test]
    fn a_chunked_body_ends_behind_its_trailers_however_it_is_cut() {
        let text = b"5\r\nhello\r\n1;ext=\"1;2\"\r\n \r\n00A \r\n0123456789\r\n0\r\nDigest: x\r\nMore: y\r\n\r\nGET / HTTP/1.1\r\n";
        for piece in 1..text.len() {
            let (data, used, ended) = all(Body::Chunked(Chunked::START), text, piece).unwrap();
            assert_eq!((&data[..], ended), (&b"hello 0123456789"[..], true));
            assert_eq!(&text[used..], b"GET / HTTP/1.1\r\n", "cut into pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_chunked_body_is_malformed() {
        let long = [b"1;".as_slice(), &[b'x'; 5000]].concat();
        let trailer = [b"0\r\n".as_slice(), &[b'x'; 70_000]].concat();
        for text in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b" 1\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n",
            b"fffffffffffffffff\r\n",
            &long,
            &trailer,
        ] {
            assert_eq!(
                all(Body::Chunked(Chunked::START), text, 7),
                Err(Malformed),
                "{:?}",
                String::from_utf8_lossy(&text[..text.len().min(20)])
            );
        }
    }

    #[test]
    fn a_known_length_ends_where_it_says() {
        assert_eq!(all(Body::Length(3), b"abcd", 2).unwrap(), (b"abc".to_vec(), 3, true));
        assert_eq!(all(Body::UntilEnd, b"abcd", 3).unwrap(), (b"abcd".to_vec(), 4, false));
    }
}
