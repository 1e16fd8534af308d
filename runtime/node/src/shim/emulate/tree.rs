//! One directory with the emulated files, as FUSE asks for it. Nothing in it ever changes but what is read.

use std::{
    ffi::OsStr,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use berth_runtime::procfs::{File, Source};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig, LockOwner, OpenAccMode, OpenFlags,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, Request,
};

use super::texts::{Texts, part};

/// Names stay as they are for ever; the size of a file is asked for each time.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);
const NOT_KEPT: Duration = Duration::ZERO;
/// Inode of the first file; the directory has 1.
const FIRST: u64 = 2;
/// Bytes of a request that writes: none is taken.
const LONGEST_WRITE: u32 = 4096;
const BACKGROUND: u16 = 4;

pub(super) struct Tree {
    source: Arc<Source>,
    texts: Mutex<Texts>,
    mounted: SystemTime,
}

impl Tree {
    pub(super) fn new(source: Arc<Source>) -> Self {
        Self { source, texts: Mutex::default(), mounted: SystemTime::now() }
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The size is that of the text which whoever asks would read now. One of 0, as the kernel's own files have, would be taken for the end
    /// by sendfile(2), without a question to here.
    fn attributes(&self, request: &Request, ino: INodeNo) -> Option<FileAttr> {
        let (kind, perm, nlink, size) = match (ino, file(ino)) {
            (INodeNo::ROOT, _) => (FileType::Directory, 0o555, 2, 0),
            (_, Some(file)) => {
                let place = self.source.place(request.pid());
                let fresh = self.texts().fresh(file, &place, Instant::now()).map(|text| text.len());
                // Not kept for who reads next: runc looks at the files before it sets the limits of the container in which it does.
                let size = fresh.or_else(|| self.source.text(file, &place).map(|text| text.len()).ok());
                (FileType::RegularFile, 0o444, 1, size.map_or(0, |size| size as u64))
            }
            _ => return None,
        };
        let at = self.mounted;
        Some(FileAttr {
            ino,
            size,
            blocks: 0,
            atime: at,
            mtime: at,
            ctime: at,
            crtime: at,
            kind,
            perm,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

fn file(ino: INodeNo) -> Option<File> {
    File::ALL.get(usize::try_from(ino.0.checked_sub(FIRST)?).ok()?).copied()
}

impl Filesystem for Tree {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.set_max_write(LONGEST_WRITE);
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let index = File::ALL.iter().position(|file| parent == INodeNo::ROOT && name == file.name());
        match index.and_then(|index| self.attributes(request, INodeNo(FIRST + index as u64))) {
            Some(found) => reply.entry_with_ttls(&NOT_KEPT, &FOR_EVER, &found, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(request, ino) {
            Some(found) => reply.attr(if ino == INodeNo::ROOT { &FOR_EVER } else { &NOT_KEPT }, &found),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match file(ino) {
            _ if flags.acc_mode() != OpenAccMode::O_RDONLY => reply.error(Errno::EROFS),
            // Nothing is kept by the kernel: each read comes here.
            Some(_) => reply.opened(FileHandle(self.texts().open()), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(file) = file(ino) else { return reply.error(Errno::ENOENT) };
        // One without is for the page cache, which all readers share whatever their limits: sendfile(2) and mmap(2) do that. Who hears this
        // of sendfile reads instead.
        if owner.is_none() {
            return reply.error(Errno::EINVAL);
        }
        // Whoever asks waits for this answer: the number is his until he has it.
        let place = || self.source.place(request.pid());
        let text = self.texts().read(handle.0, file, offset, Instant::now(), place, |place| self.source.text(file, place));
        match text {
            Ok(text) => reply.data(part(&text, offset, size)),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn release(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, _: Option<LockOwner>, _: bool, reply: ReplyEmpty) {
        self.texts().close(handle.0);
        reply.ok();
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if ino != INodeNo::ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        let own = [(INodeNo::ROOT, FileType::Directory, "."), (INodeNo::ROOT, FileType::Directory, "..")];
        let files = File::ALL.iter().enumerate().map(|(index, file)| (INodeNo(FIRST + index as u64), FileType::RegularFile, file.name()));
        let entries = own.into_iter().chain(files).zip(1..).skip(usize::try_from(offset).unwrap_or(usize::MAX));
        for ((ino, kind, name), next) in entries {
            if reply.add(ino, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
