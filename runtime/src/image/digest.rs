use std::{
    fmt,
    io::{self, Read, Write},
};

use sha2::{Digest as _, Sha256};

use super::error::{Error, Result};

/// A SHA-256, the content address of an image or blob; written `sha256:<64 hexadecimal digits>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Digest(String);

impl Digest {
    /// Takes `sha256:<hex>` or the hexadecimal digits alone.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let good = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if good { Ok(Self(hex.to_owned())) } else { Err(Error::NoDigest { text: text.chars().take(100).collect() }) }
    }

    pub(super) fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    fn finish(hash: Sha256) -> Self {
        Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    pub(super) fn hex(&self) -> &str {
        &self.0
    }

    /// An error unless `found` is the same.
    pub(super) fn expect(&self, found: &Self, object: impl ToString) -> Result<()> {
        if self == found {
            return Ok(());
        }
        Err(Error::Digest { object: object.to_string(), expected: self.to_string(), found: found.to_string() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Passes bytes on and hashes them, reading or writing.
#[derive(Debug)]
pub(super) struct Hashing<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Hashing<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    /// Bytes passed on so far.
    pub(super) fn passed(&self) -> u64 {
        self.bytes
    }

    pub(super) fn finish(self) -> Digest {
        Digest::finish(self.hash)
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sixty_four_lower_case_digits() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").hex(), empty);
        assert_eq!(Digest::parse(&format!("sha256:{empty}")).unwrap(), Digest::parse(empty).unwrap());
        for bad in ["", "sha256:", "sha512:00", &empty.to_uppercase(), &empty[1..], "../../../../../etc", &format!("sha256:sha256:{empty}")]
        {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }
}
