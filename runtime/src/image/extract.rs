//! Unpacks the layers of an image into a [`Tree`].

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr, futimens,
        linkat, mkdirat, mknodat, openat, symlinkat, utimensat,
    },
    io::Errno,
};

use super::{
    archive::{Archive, Entry, Kind, show},
    error::{Error, Result, Step},
    limits::{ENTRIES, UNPACKED_BYTES},
    tree::{Missing, Tree, components, kind_of, name, open_dir},
};

/// Ids that exist inside a berth are 0 to 65535.
const LAST_ID: u64 = 65535;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names of aufs' own bookkeeping, which means nothing here.
const AUFS: &[u8] = b".wh..wh.";
/// Skipped entries that are named one by one.
const SKIPPED_SHOWN: u64 = 5;
/// Memory for the times of directories; those past it keep the time of their making.
const TIMES_BYTES: usize = 64 << 20;
const COPY: usize = 256 << 10;

/// Unpacks layer after layer, and counts against the bounds of the whole image.
pub(super) struct Extractor<'a> {
    tree: Tree,
    bytes: u64,
    entries: u64,
    skipped: u64,
    /// Directories get their times last: making something in them changes those.
    times: Vec<(Vec<u8>, i64)>,
    times_bytes: usize,
    buffer: Vec<u8>,
    progress: &'a mut dyn FnMut(&str),
}

/// What `.wh.` names mean in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A whole root file system: ordinary files.
    Root,
    /// One layer of several: removals from the layers below.
    Layer,
}

impl<'a> Extractor<'a> {
    pub(super) fn new(tree: Tree, progress: &'a mut dyn FnMut(&str)) -> Self {
        Self { tree, bytes: 0, entries: 0, skipped: 0, times: Vec::new(), times_bytes: 0, buffer: vec![0; COPY], progress }
    }

    /// Applies only the removals of a layer. They concern the layers below, wherever in the archive they stand, so this runs before
    /// [`Extractor::unpack`] of the same layer.
    pub(super) fn remove_whiteouts<R: Read>(&mut self, archive: &mut Archive<R>) -> Result<()> {
        while let Some(entry) = archive.next()? {
            let parts = components(&entry.path)?;
            let Some((last, parents)) = parts.split_last() else { continue };
            let Some(hidden) = last.strip_prefix(WHITEOUT) else { continue };
            let opaque = *last == OPAQUE;
            if last.starts_with(AUFS) && !opaque {
                continue;
            }
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(Error::Entry { path: show(&entry.path), reason: "it removes no name".into() });
            }
            let done = if opaque { self.tree.clear(parents) } else { self.tree.remove(parents, hidden) };
            match done {
                // Nothing below to remove it from.
                Err(Error::Entry { .. }) => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Unpacks what an archive holds.
    pub(super) fn unpack<R: Read>(&mut self, archive: &mut Archive<R>, form: Form) -> Result<()> {
        while let Some(entry) = archive.next()? {
            self.entries += 1;
            if self.entries > ENTRIES {
                return Err(Error::TooMuch { what: format!("an image of more than {ENTRIES} files"), limit: ENTRIES });
            }
            self.unpack_entry(&entry, archive, form)?;
        }
        self.set_directory_times()
    }

    /// A line for people.
    pub(super) fn say(&mut self, line: &str) {
        (self.progress)(line);
    }

    /// The finished tree and the bytes of its files.
    pub(super) fn finish(self) -> (Tree, u64) {
        if self.skipped > SKIPPED_SHOWN {
            (self.progress)(&format!("{} device nodes skipped: a berth has its own /dev", self.skipped));
        }
        (self.tree, self.bytes)
    }

    fn unpack_entry<R: Read>(&mut self, entry: &Entry, archive: &mut Archive<R>, form: Form) -> Result<()> {
        let parts = components(&entry.path)?;
        if entry.uid > LAST_ID || entry.gid > LAST_ID {
            let reason = format!("its owner {}:{} does not exist in a berth, whose ids end at {LAST_ID}", entry.uid, entry.gid);
            return Err(Error::Entry { path: show(&entry.path), reason });
        }
        let Some((last, parents)) = parts.split_last() else {
            return match entry.kind {
                Kind::Directory => self.set_directory(entry, None),
                _ => Err(Error::Entry { path: show(&entry.path), reason: "it would take the place of the root directory".into() }),
            };
        };
        if form == Form::Layer && last.starts_with(WHITEOUT) {
            return Ok(());
        }
        if entry.kind == Kind::Device {
            self.skip_device(entry);
            return Ok(());
        }
        // What a hard link names is looked at before anything of its name is replaced.
        if entry.kind == Kind::HardLink && self.links_to_itself(entry, &parts)? {
            return Ok(());
        }
        self.make_room(parents, last, entry.kind)?;
        match entry.kind {
            Kind::Directory => {
                let parent = self.tree.directory(parents, Missing::Make)?;
                match mkdirat(parent, name(last), Mode::RWXU) {
                    Err(Errno::EXIST) => {}
                    done => {
                        done.step("make", show(&entry.path))?;
                        self.tree.check_depth(&entry.path)?;
                    }
                }
                self.set_directory(entry, Some((parents, last)))
            }
            Kind::File => self.make_file(entry, parents, last, archive),
            Kind::HardLink => self.make_hard_link(entry, parents, last),
            Kind::Symlink => {
                let parent = self.tree.directory(parents, Missing::Make)?;
                if entry.link.is_empty() {
                    return Err(Error::Entry { path: show(&entry.path), reason: "a symlink to nothing".into() });
                }
                symlinkat(name(&entry.link), parent, name(last)).step("make symlink", show(&entry.path))?;
                own_by_name(parent, name(last), entry)
            }
            Kind::Fifo => {
                let parent = self.tree.directory(parents, Missing::Make)?;
                mknodat(parent, name(last), FileType::Fifo, Mode::RUSR, 0).step("make fifo", show(&entry.path))?;
                own_by_name(parent, name(last), entry)?;
                chmodat(parent, name(last), Mode::from_raw_mode(entry.mode & 0o777), AtFlags::empty())
                    .step("set the mode of", show(&entry.path))
            }
            Kind::Device => Ok(()),
        }
    }

    fn skip_device(&mut self, entry: &Entry) {
        self.skipped += 1;
        if self.skipped <= SKIPPED_SHOWN {
            (self.progress)(&format!("device node {} skipped", show(&entry.path)));
        }
    }

    /// An entry replaces what has its name, but a directory stays a directory with what is in it.
    fn make_room(&mut self, parents: &[&[u8]], last: &[u8], kind: Kind) -> Result<()> {
        let parent = self.tree.directory(parents, Missing::Make)?;
        match kind_of(parent, name(last)).step("look at", show(last))? {
            None => Ok(()),
            Some(FileType::Directory) if kind == Kind::Directory => Ok(()),
            Some(_) => self.tree.remove(parents, last),
        }
    }

    fn make_file<R: Read>(&mut self, entry: &Entry, parents: &[&[u8]], last: &[u8], archive: &mut Archive<R>) -> Result<()> {
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.bytes > UNPACKED_BYTES {
            return Err(Error::TooMuch { what: format!("an image of {} bytes", self.bytes), limit: UNPACKED_BYTES });
        }
        let parent = self.tree.directory(parents, Missing::Make)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(parent, name(last), flags, Mode::RUSR | Mode::WUSR).step("make", show(&entry.path))?);
        copy(archive, &mut file, &mut self.buffer).step("write", show(&entry.path))?;
        own(file.as_fd(), entry)?;
        futimens(&file, &times(entry.mtime)).step("set the time of", show(&entry.path))
    }

    fn make_hard_link(&mut self, entry: &Entry, parents: &[&[u8]], last: &[u8]) -> Result<()> {
        let refuse = |reason: String| Err(Error::Entry { path: show(&entry.path), reason });
        let target = components(&entry.link)?;
        let Some((target_last, target_parents)) = target.split_last() else { return refuse("a hard link to the root directory".into()) };
        let from = self.tree.directory(target_parents, Missing::Refuse)?.try_clone_to_owned().step("hold", show(&entry.link))?;
        let parent = self.tree.directory(parents, Missing::Make)?;
        match linkat(&from, name(target_last), parent, name(last), AtFlags::empty()) {
            Err(Errno::NOENT) => refuse(format!("it is a hard link to {}, which is not in the image", show(&entry.link))),
            Err(Errno::PERM) => refuse(format!("it is a hard link to the directory {}", show(&entry.link))),
            done => done.step("link", show(&entry.path)),
        }
    }

    fn links_to_itself(&self, entry: &Entry, parts: &[&[u8]]) -> Result<bool> {
        Ok(components(&entry.link)? == parts)
    }

    /// Owner, mode, attributes and, later, times. `place` is None for the root itself.
    fn set_directory(&mut self, entry: &Entry, place: Option<(&[&[u8]], &[u8])>) -> Result<()> {
        let dir = match place {
            None => open_dir(self.tree.root(), OsStr::new("."), OFlags::RDONLY),
            Some((parents, last)) => open_dir(self.tree.directory(parents, Missing::Refuse)?, name(last), OFlags::RDONLY),
        }
        .step("open", show(&entry.path))?;
        own(dir.as_fd(), entry)?;
        self.times_bytes += entry.path.len() + size_of::<(Vec<u8>, i64)>();
        if self.times_bytes <= TIMES_BYTES {
            self.times.push((entry.path.clone(), entry.mtime));
        }
        Ok(())
    }

    fn set_directory_times(&mut self) -> Result<()> {
        self.times_bytes = 0;
        for (path, mtime) in std::mem::take(&mut self.times) {
            let parts = components(&path)?;
            let (parent, last) = match parts.split_last() {
                None => (self.tree.root(), OsStr::new(".")),
                Some((last, parents)) => match self.tree.directory(parents, Missing::Refuse) {
                    Ok(parent) => (parent, name(last)),
                    // Replaced by a later entry.
                    Err(_) => continue,
                },
            };
            match utimensat(parent, last, &times(mtime), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                done => done.step("set the time of", show(&path))?,
            }
        }
        Ok(())
    }
}

fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// Owner first: a change of owner takes setuid bits and file capabilities away again, chown(2).
fn own(file: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
    fchown(file, Some(uid(entry)), Some(gid(entry))).step("set the owner of", show(&entry.path))?;
    fchmod(file, Mode::from_raw_mode(entry.mode)).step("set the mode of", show(&entry.path))?;
    for (key, value) in entry.xattrs.iter().filter(|(key, value)| keep_xattr(key, value)) {
        fsetxattr(file, name(key), value, XattrFlags::empty()).step("set an attribute of", show(&entry.path))?;
    }
    Ok(())
}

fn own_by_name(parent: BorrowedFd<'_>, last: &OsStr, entry: &Entry) -> Result<()> {
    chownat(parent, last, Some(uid(entry)), Some(gid(entry)), AtFlags::SYMLINK_NOFOLLOW).step("set the owner of", show(&entry.path))?;
    utimensat(parent, last, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).step("set the time of", show(&entry.path))
}

fn uid(entry: &Entry) -> Uid {
    Uid::from_raw(entry.uid as u32)
}

fn gid(entry: &Entry) -> Gid {
    Gid::from_raw(entry.gid as u32)
}

/// Attributes of the image's own files that mean nothing to the host. Overlay reads `user.overlay.*` of its layers as instructions;
/// `trusted.*` and `security.*` are the host's, but for file capabilities without a user namespace's id (version 2), capabilities(7).
fn keep_xattr(key: &[u8], value: &[u8]) -> bool {
    const VERSION_2: u32 = 0x0200_0000;
    match key {
        b"security.capability" => {
            value.len() == 20 && u32::from_le_bytes([value[0], value[1], value[2], value[3]]) & 0xff00_0000 == VERSION_2
        }
        _ => key.starts_with(b"user.") && !key.starts_with(b"user.overlay.") && key.len() <= 255 && !key.contains(&0),
    }
}

fn copy(from: &mut impl Read, to: &mut File, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match from.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
