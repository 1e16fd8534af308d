//! Streams of JSON lines.

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::Error;

/// A status is some hundred bytes, a line of a build's output at most a few thousand.
const MAX_LINE: usize = 1 << 20;

/// Decodes one value per line; an error ends the stream.
pub(super) fn decode<T: DeserializeOwned>(
    what: &'static str,
    body: hyper::body::Incoming,
) -> impl Stream<Item = Result<T, Error>> + Send + use<T> {
    stream::unfold(Some((body, BytesMut::new())), move |state| async move {
        let (mut body, mut buffer) = state?;
        loop {
            if let Some(line) = take_line(&mut buffer) {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Some(match serde_json::from_slice(&line) {
                    Ok(value) => (Ok(value), Some((body, buffer))),
                    Err(error) => (Err(Error::Answer { what: what.to_owned(), reason: error.to_string() }), None),
                });
            }
            if buffer.len() > MAX_LINE {
                return Some((Err(Error::Answer { what: what.to_owned(), reason: format!("a line passes {MAX_LINE} bytes") }), None));
            }
            match body.frame().await {
                Some(Ok(frame)) => buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(source)) => return Some((Err(Error::Connection { what: what.to_owned(), source }), None)),
                None if buffer.is_empty() => return None,
                // The last line may lack its end.
                None => buffer.extend_from_slice(b"\n"),
            }
        }
    })
}

fn take_line(buffer: &mut BytesMut) -> Option<Bytes> {
    let end = buffer.iter().position(|byte| *byte == b'\n')?;
    Some(buffer.split_to(end + 1).freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_one_by_one() {
        let mut buffer = BytesMut::from(&b"{}\n[1]\n[2"[..]);
        assert_eq!(take_line(&mut buffer).unwrap(), "{}\n");
        assert_eq!(take_line(&mut buffer).unwrap(), "[1]\n");
        assert_eq!(take_line(&mut buffer), None);
        assert_eq!(buffer, "[2");
    }
}
