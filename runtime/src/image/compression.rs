use std::{
    cell::Cell,
    io::{self, BufReader, Chain, Cursor, Read},
    rc::Rc,
};

use flate2::bufread::MultiGzDecoder;

use super::{
    error::{Error, Result, Step},
    limits::{Exceeded, RATIO, RATIO_FREE_BYTES, UNPACKED_BYTES},
};

/// The largest zstd window that is accepted: what a decoder may hold in memory (128 MiB).
const ZSTD_WINDOW_LOG: u32 = 27;
const BUFFER: usize = 128 << 10;

/// How bytes are compressed, told by their first ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn detect(start: &[u8]) -> Result<Self> {
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(Error::NotAnImage("it is compressed with xz".into())),
            [b'B', b'Z', b'h', ..] => Err(Error::NotAnImage("it is compressed with bzip2".into())),
            [b'P', b'K', 3, 4, ..] => Err(Error::NotAnImage("it is a zip archive".into())),
            _ => Ok(Self::None),
        }
    }
}

type Start<R> = Chain<Cursor<Vec<u8>>, R>;

enum Decoder<R: Read> {
    None(BufReader<Counting<Start<R>>>),
    Gzip(Box<MultiGzDecoder<BufReader<Counting<Start<R>>>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Counting<Start<R>>>>>),
}

/// Reads through whatever compression there is, and refuses to expand without bound.
pub(super) struct Decompressed<R: Read> {
    decoder: Decoder<R>,
    taken: Rc<Cell<u64>>,
    given: u64,
}

impl<R: Read> Decompressed<R> {
    pub(super) fn new(mut input: R) -> Result<(Self, Compression)> {
        let mut start = Vec::with_capacity(8);
        input.by_ref().take(6).read_to_end(&mut start).step("read", "the archive")?;
        let compression = Compression::detect(&start)?;
        let taken = Rc::new(Cell::new(0));
        let counting = Counting { inner: Cursor::new(start).chain(input), taken: Rc::clone(&taken) };
        let buffered = BufReader::with_capacity(BUFFER, counting);
        let decoder = match compression {
            Compression::None => Decoder::None(buffered),
            Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(buffered))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered).step("begin to decompress", "the archive")?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).step("bound", "the zstd window")?;
                Decoder::Zstd(Box::new(decoder))
            }
        };
        Ok((Self { decoder, taken, given: 0 }, compression))
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.decoder {
            Decoder::None(reader) => return reader.read(buffer),
            Decoder::Gzip(reader) => reader.read(buffer),
            Decoder::Zstd(reader) => reader.read(buffer),
        }
        .map_err(damaged)?;
        self.given += count as u64;
        if self.given > RATIO_FREE_BYTES && self.given / RATIO > self.taken.get() {
            return Err(io::Error::other(Exceeded(format!(
                "the compressed data expands more than {RATIO} times; repack it without compression"
            ))));
        }
        if self.given > UNPACKED_BYTES {
            return Err(io::Error::other(Exceeded(format!("the compressed data expands to more than {UNPACKED_BYTES} bytes"))));
        }
        Ok(count)
    }
}

/// Decoders report broken data as all kinds of errors; those of the source below keep their own.
fn damaged(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(_) => error,
        None if error.get_ref().is_some_and(|e| e.is::<Exceeded>()) => error,
        None => io::Error::new(io::ErrorKind::InvalidData, format!("the compressed data is damaged: {error}")),
    }
}

struct Counting<R> {
    inner: R,
    taken: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.taken.set(self.taken.get() + count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn through(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let (mut reader, _) = Decompressed::new(bytes).map_err(io::Error::other)?;
        let mut out = Vec::new();
        reader.read_to_end(&mut out).map(|_| out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_compression_is_found_by_its_first_bytes() {
        let text = b"some bytes that are longer than six";
        assert_eq!(through(text).unwrap(), text);
        assert_eq!(through(&gzip(text)).unwrap(), text);
        assert_eq!(through(&[gzip(text), gzip(text)].concat()).unwrap(), text.repeat(2));
        assert_eq!(through(&zstd::encode_all(&text[..], 1).unwrap()).unwrap(), text);
        assert_eq!(through(b"").unwrap(), b"");
        assert!(through(b"\xfd7zXZ\0 and more").unwrap_err().to_string().contains("xz"));
    }

    #[test]
    fn a_bomb_is_stopped_soon_after_the_free_bytes() {
        for bomb in [gzip(&vec![0; 100 << 20]), zstd::encode_all(&vec![0; 100 << 20][..], 1).unwrap()] {
            let (mut reader, _) = Decompressed::new(&bomb[..]).unwrap();
            let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
            assert!(error.get_ref().unwrap().is::<Exceeded>(), "{error}");
            assert!(reader.given < RATIO_FREE_BYTES + (1 << 20));
        }
    }

    #[test]
    fn damaged_data_is_the_inputs_fault() {
        let mut data = gzip(&[7; 10_000]);
        data.truncate(data.len() - 9);
        let error = Err::<(), _>(through(&data).unwrap_err()).step("read", "it").unwrap_err();
        assert!(error.is_input(), "{error:?}");
    }
}
