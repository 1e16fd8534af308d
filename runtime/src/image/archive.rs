//! Reads a tar archive entry by entry, with every extension bounded before it is read. The crate `tar` interprets the header fields;
//! its own iterator reads long names and extended headers of any length into memory, so the walk is ours.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::{
    error::{Error, Result, Step},
    limits::{ENTRIES, EXTENSION_BYTES, PATH_BYTES, UNPACKED_BYTES},
};

const BLOCK: usize = 512;

/// One entry of an archive; its bytes are read from the [`Archive`] itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// As written, neither checked nor normalised.
    pub(super) path: Vec<u8>,
    /// Target of a link, as written.
    pub(super) link: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Seconds since the epoch.
    pub(super) mtime: i64,
    pub(super) size: u64,
    /// Where the bytes begin in the (decompressed) archive.
    pub(super) offset: u64,
    /// Extended attributes: name, value.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Directory,
    Fifo,
    Device,
}

/// A tar archive that is read once, from front to back.
#[derive(Debug)]
pub(super) struct Archive<R> {
    input: R,
    position: u64,
    /// Bytes of the present entry that are still to come, then its padding.
    left: u64,
    padding: u64,
    entries: u64,
    ended: bool,
}

/// What extension entries say about the entry after them.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, position: 0, left: 0, padding: 0, entries: 0, ended: false }
    }

    /// The next entry; what was not read of the last one is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extension = Extension::default();
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else { return Ok(None) };
            self.count()?;
            let number = |field: io::Result<u64>, name: &str| field.map_err(|e| Error::Damaged(format!("{name} of an entry: {e}")));
            let size = number(header.entry_size(), "size")?;
            let kind = header.entry_type();
            // POSIX pax 3: the size record of an extended header stands for the entry's own.
            let own = extension.size.filter(|_| !is_extension(kind)).unwrap_or(size);
            if own > UNPACKED_BYTES {
                return Err(Error::TooMuch { what: format!("an entry of {own} bytes"), limit: UNPACKED_BYTES });
            }
            self.left = own;
            self.padding = own.next_multiple_of(BLOCK as u64) - own;
            match kind {
                EntryType::XHeader => read_pax(&self.extension()?, &mut extension)?,
                EntryType::GNULongName => extension.path = Some(until_nul(self.extension()?)),
                EntryType::GNULongLink => extension.link = Some(until_nul(self.extension()?)),
                // A global header (git puts one first) and a volume label say nothing about files.
                EntryType::XGlobalHeader => {}
                kind if kind.as_byte() == b'V' => {}
                kind => return self.entry(&header, kind, extension).map(Some),
            }
        }
    }

    /// Reads on to the end of the input, so that whoever hashes it has seen everything.
    pub(super) fn finish(mut self) -> Result<R> {
        self.skip_rest()?;
        let after = io::copy(&mut self.input.by_ref().take(UNPACKED_BYTES + 1), &mut io::sink()).step("read", "the archive")?;
        if after > UNPACKED_BYTES {
            return Err(Error::TooMuch { what: "what follows the end of the archive".into(), limit: UNPACKED_BYTES });
        }
        Ok(self.input)
    }

    fn entry(&self, header: &Header, kind: EntryType, extension: Extension) -> Result<Entry> {
        let path = extension.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extension.link.or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
        let shown = || show(&path);
        if path.len() > PATH_BYTES || link.len() > PATH_BYTES {
            return Err(Error::TooMuch { what: format!("a path of {} bytes", path.len().max(link.len())), limit: PATH_BYTES as u64 });
        }
        let kind = match kind {
            // Archives older than POSIX mark a directory by its last character.
            EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Link => Kind::HardLink,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Directory => Kind::Directory,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => Kind::Device,
            EntryType::GNUSparse => return Err(Error::Entry { path: shown(), reason: "it is sparse; pack it without --sparse".into() }),
            other => return Err(Error::Entry { path: shown(), reason: format!("its type {:?} is unknown", char::from(other.as_byte())) }),
        };
        let field = |given: Option<u64>, read: io::Result<u64>, name: &str| match given {
            Some(value) => Ok(value),
            None => read.map_err(|_| Error::Entry { path: shown(), reason: format!("its {name} is not readable") }),
        };
        Ok(Entry {
            kind,
            mode: header.mode().map_err(|_| Error::Entry { path: shown(), reason: "its mode is not readable".into() })? & 0o7777,
            uid: field(extension.uid, header.uid(), "owner")?,
            gid: field(extension.gid, header.gid(), "group")?,
            mtime: extension.mtime.unwrap_or_else(|| header.mtime().ok().and_then(|t| t.try_into().ok()).unwrap_or(0)),
            size: self.left,
            offset: self.position,
            xattrs: extension.xattrs,
            path,
            link,
        })
    }

    /// None at the end: two blocks of zeros, or the end of the input between two entries.
    fn header(&mut self) -> Result<Option<Header>> {
        if self.ended {
            return Ok(None);
        }
        let mut header = Header::new_old();
        let count = read_full(&mut self.input, header.as_mut_bytes())?;
        self.position += count as u64;
        if count == 0 && self.entries > 0 || count == BLOCK && header.as_bytes().iter().all(|&b| b == 0) {
            self.ended = true;
            return Ok(None);
        }
        let first = self.entries == 0;
        let broken = |text: &str| if first { Error::NotAnImage("it is not a tar archive".into()) } else { Error::Damaged(text.into()) };
        if count < BLOCK {
            return Err(broken("it ends in the middle of a header"));
        }
        let bytes = header.as_bytes();
        // The checksum's own field counts as spaces. Two old programs summed signed bytes.
        let sum = |signed: bool| -> i64 {
            let value = |b: u8| if signed { i64::from(b as i8) } else { i64::from(b) };
            bytes.iter().enumerate().map(|(at, &b)| if (148..156).contains(&at) { 32 } else { value(b) }).sum()
        };
        match header.cksum().map(i64::from) {
            Ok(stated) if stated == sum(false) || stated == sum(true) => Ok(Some(header)),
            _ => Err(broken("the checksum of a header is wrong")),
        }
    }

    fn count(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > ENTRIES {
            return Err(Error::TooMuch { what: format!("an archive of more than {ENTRIES} entries"), limit: ENTRIES });
        }
        Ok(())
    }

    fn extension(&mut self) -> Result<Vec<u8>> {
        if self.left > EXTENSION_BYTES {
            return Err(Error::TooMuch { what: format!("a name or attribute header of {} bytes", self.left), limit: EXTENSION_BYTES });
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).step("read", "the archive")?;
        Ok(bytes)
    }

    fn skip_rest(&mut self) -> Result<()> {
        let rest = self.left + self.padding;
        let skipped = io::copy(&mut self.input.by_ref().take(rest), &mut io::sink()).step("read", "the archive")?;
        self.position += skipped;
        // The padding of the very last entry may be missing.
        if skipped < self.left {
            return Err(Error::Damaged("it ends in the middle of a file".into()));
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

/// The bytes of the present entry.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the archive ends in the middle of a file"));
        }
        self.left -= count as u64;
        self.position += count as u64;
        Ok(count)
    }
}

/// A path of an archive for a message: printable, and not longer than a line.
pub(super) fn show(path: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(path).chars().take(120).flat_map(char::escape_debug).collect();
    if path.len() > 120 { format!("{text}…") } else { text }
}

fn is_extension(kind: EntryType) -> bool {
    matches!(kind, EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink)
        || kind.as_byte() == b'V'
}

fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).step("read", "the archive"),
        }
    }
    Ok(filled)
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&b| b == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// Records `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record; values are any bytes.
fn read_pax(mut bytes: &[u8], extension: &mut Extension) -> Result<()> {
    let damaged = || Error::Damaged("an extended header is malformed".into());
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|&b| b == b' ').ok_or_else(damaged)?;
        let length = number(&bytes[..space]).and_then(|n| usize::try_from(n).ok()).ok_or_else(damaged)?;
        let record = bytes.get(space + 1..length).and_then(|r| r.strip_suffix(b"\n")).ok_or_else(damaged)?;
        let equals = record.iter().position(|&b| b == b'=').ok_or_else(damaged)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => extension.path = Some(value.to_vec()),
            b"linkpath" => extension.link = Some(value.to_vec()),
            b"size" => extension.size = Some(number(value).ok_or_else(damaged)?),
            b"uid" => extension.uid = Some(number(value).ok_or_else(damaged)?),
            b"gid" => extension.gid = Some(number(value).ok_or_else(damaged)?),
            b"mtime" => extension.mtime = seconds(value),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(Error::Damaged("it has sparse files; pack it without --sparse".into()));
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    extension.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        bytes = &bytes[length..];
    }
    Ok(())
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

/// `1700000000.123`, or negative; the fraction is let go.
fn seconds(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryType, path: &str, body: &[u8]) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_path(path).unwrap();
        header.set_entry_type(kind);
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        let mut bytes = [header.as_bytes(), body].concat();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..).find(|l| rest + l.to_string().len() == *l).unwrap();
            body.extend(format!("{length} {key}=").bytes().chain(value.iter().copied()).chain([b'\n']));
        }
        entry(EntryType::XHeader, "pax", &body)
    }

    fn all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
        let mut archive = Archive::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = archive.next()? {
            let mut body = Vec::new();
            archive.read_to_end(&mut body).step("read", "body")?;
            found.push((entry, body));
        }
        archive.finish()?;
        Ok(found)
    }

    #[test]
    fn extended_headers_speak_for_the_next_entry_only() {
        let header = pax(&[("path", b"a/\xff"), ("uid", b"70000"), ("mtime", b"12.5"), ("SCHILY.xattr.user.x", b"a\nb=c\0")]);
        let bytes = [header, entry(EntryType::Regular, "short", b"one"), entry(EntryType::Regular, "next", b"two"), vec![0; 1024]].concat();
        let found = all(&bytes).unwrap();
        let (first, body) = &found[0];
        assert_eq!((first.path.as_slice(), first.uid, first.mtime, body.as_slice()), (&b"a/\xff"[..], 70000, 12, &b"one"[..]));
        assert_eq!(first.xattrs, [(b"user.x".to_vec(), b"a\nb=c\0".to_vec())]);
        assert_eq!(&bytes[first.offset as usize..][..3], b"one");
        assert_eq!((found[1].0.path.as_slice(), found[1].0.uid, found[1].1.as_slice()), (&b"next"[..], 0, &b"two"[..]));
    }

    #[test]
    fn long_names_of_gnu_tar_are_read() {
        let long = "d/".repeat(150) + "file";
        let bytes =
            [entry(EntryType::GNULongName, "././@LongLink", format!("{long}\0").as_bytes()), entry(EntryType::Regular, "d", b"")].concat();
        assert_eq!(all(&bytes).unwrap()[0].0.path, long.as_bytes());
    }

    #[test]
    fn what_is_no_archive_is_told_from_what_is_damaged() {
        assert!(matches!(all(b""), Err(Error::NotAnImage(_))));
        assert!(matches!(all(&[b'x'; 700]), Err(Error::NotAnImage(_))));
        assert!(all(&[0; 1024]).unwrap().is_empty());
        let good = entry(EntryType::Regular, "a", &[1; 600]);
        assert!(matches!(all(&good[..700]), Err(Error::Damaged(_) | Error::Io { .. })));
        assert!(matches!(all(&[good.clone(), vec![b'x'; 512]].concat()), Err(Error::Damaged(_))));
        assert_eq!(all(&good).unwrap().len(), 1);
    }

    #[test]
    fn hostile_headers_are_bounded_before_they_are_read() {
        let mut header = Header::new_ustar();
        header.set_path("x").unwrap();
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        for (kind, size) in [(EntryType::GNULongName, 1 << 33), (EntryType::XHeader, 1 << 40), (EntryType::Regular, 1 << 60)] {
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_cksum();
            assert!(matches!(all(header.as_bytes()), Err(Error::TooMuch { .. })), "{kind:?}");
        }
        for records in [&b"9999999999999999999999 a=b\n"[..], b"5 a=", b"3 a", b"1000 a=b\n", b"0 =\n"] {
            assert!(all(&[entry(EntryType::XHeader, "x", records), entry(EntryType::Regular, "a", b"")].concat()).is_err());
        }
        let sparse = [pax(&[("GNU.sparse.major", b"1")]), entry(EntryType::Regular, "a", b"")].concat();
        assert!(all(&sparse).unwrap_err().to_string().contains("sparse"));
    }
}
