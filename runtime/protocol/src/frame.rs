//! Frames of an `exec` after the upgrade: `[kind: u8][length: u32 big endian][payload]`, payload at most [`MAX_PAYLOAD`] bytes.
//!
//! Towards the node: [`STDIN`] (empty payload: end of input), [`RESIZE`] (columns, rows as two big endian u16), [`SIGNAL`] (one byte).
//! Towards the client: [`STDOUT`], [`STDERR`], then exactly one of [`EXIT`] (i32 big endian; 128 + n after signal n) or
//! [`ERROR`] (JSON [`Problem`](crate::Problem)), and the end of the stream.

pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
pub const RESIZE: u8 = 3;
pub const SIGNAL: u8 = 4;
pub const EXIT: u8 = 5;
pub const ERROR: u8 = 6;

/// Value of the `Upgrade` header.
pub const UPGRADE: &str = "berth-exec";
pub const MAX_PAYLOAD: usize = 64 * 1024;
pub const HEADER: usize = 5;

/// A frame whose header promises more than [`MAX_PAYLOAD`], or an unknown kind.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {0} bytes, the limit is {MAX_PAYLOAD}")]
    TooLong(usize),
    #[error("unknown frame kind {0}")]
    Kind(u8),
}

/// Header of a frame with `length` bytes of payload; `length` must not pass [`MAX_PAYLOAD`].
pub fn header(kind: u8, length: usize) -> [u8; HEADER] {
    debug_assert!(length <= MAX_PAYLOAD);
    let [a, b, c, d] = (length as u32).to_be_bytes();
    [kind, a, b, c, d]
}

/// Kind and payload length of a header.
pub fn parse(header: [u8; HEADER]) -> Result<(u8, usize), FrameError> {
    let [kind, length @ ..] = header;
    if kind > ERROR {
        return Err(FrameError::Kind(kind));
    }
    match u32::from_be_bytes(length) as usize {
        length if length > MAX_PAYLOAD => Err(FrameError::TooLong(length)),
        length => Ok((kind, length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_round_trip_and_bounds_hold() {
        assert_eq!(parse(header(STDERR, 513)), Ok((STDERR, 513)));
        assert_eq!(parse([STDOUT, 0, 1, 0, 1]), Err(FrameError::TooLong(65537)));
        assert_eq!(parse([9, 0, 0, 0, 0]), Err(FrameError::Kind(9)));
    }
}
