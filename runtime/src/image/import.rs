use std::{
    fs::{self, DirBuilder, File},
    io::{self, BufReader, ErrorKind, Read, Seek, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use rustix::fs::{CWD, OFlags};

use super::{
    Image, RECORD, ROOTFS, Store, Work,
    archive::Archive,
    compression::{Compression, Decompressed},
    digest::{Digest, Hashing},
    error::{Error, Result, Step},
    extract::{Extractor, Form},
    layout::{self, Config, Content, Plan},
    limits::{IMAGE_NAME_CHARS, INPUT_BYTES, UNPACKED_BYTES},
    mounts,
    tree::{Tree, open_dir},
};

const BUFFER: usize = 256 << 10;
/// A line of progress for each so many bytes received.
const PROGRESS_BYTES: u64 = 128 << 20;

/// An archive in the work directory.
#[derive(Debug)]
pub(super) struct Spooled {
    file: File,
    digest: Digest,
}

/// Refuses a name that would not be one word on a command line or in a list.
pub(super) fn check_name(name: &str) -> Result<()> {
    let good = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= IMAGE_NAME_CHARS
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:@".contains(c));
    if good { Ok(()) } else { Err(Error::Name { name: name.chars().take(IMAGE_NAME_CHARS).collect() }) }
}

/// Writes an archive down: what it is can be told only from its end, and the same content need not be unpacked twice.
pub(super) fn spool(mut reader: impl Read, work: &Work, progress: &mut dyn FnMut(&str)) -> Result<Spooled> {
    let path = work.join("archive");
    let mut file = Hashing::new(new_file(&path)?);
    let mut buffer = vec![0; BUFFER];
    let mut told = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).step("receive", "the archive"),
        };
        if file.passed() + count as u64 > INPUT_BYTES {
            return Err(Error::TooMuch { what: "the archive".into(), limit: INPUT_BYTES });
        }
        file.write_all(&buffer[..count]).step("store", "the archive")?;
        if file.passed() / PROGRESS_BYTES > told {
            told = file.passed() / PROGRESS_BYTES;
            progress(&format!("received {} MiB", file.passed() >> 20));
        }
    }
    Ok(Spooled { file: File::open(&path).step("open", "the archive")?, digest: file.finish() })
}

/// Takes an archive that is a file already.
pub(super) fn adopt(path: &Path) -> Result<Spooled> {
    let mut file = File::open(path).step("open", path.display())?;
    let mut bytes = Hashing::new(&file);
    io::copy(&mut bytes, &mut io::sink()).step("read", path.display())?;
    let digest = bytes.finish();
    file.rewind().step("rewind", path.display())?;
    Ok(Spooled { file, digest })
}

/// Unpacks an archive into the store.
pub(super) fn import(
    store: &Store,
    work: &Work,
    spooled: Spooled,
    name: &str,
    now_ms: i64,
    progress: &mut dyn FnMut(&str),
) -> Result<Image> {
    let Spooled { file, digest } = spooled;
    if let Some(image) = already(store, &digest, name)? {
        return Ok(image);
    }
    let (reader, compression) = from_start(&file)?;
    let content = layout::look(&mut Archive::new(BufReader::with_capacity(BUFFER, reader)))?;
    let target = work.join("image");
    DirBuilder::new().mode(0o700).create(&target).step("make", target.display())?;
    DirBuilder::new().mode(0o755).create(target.join(ROOTFS)).step("make", target.join(ROOTFS).display())?;
    let image = |digest: &Digest, size_bytes, config| Image {
        name: name.to_owned(),
        digest: digest.to_string(),
        created_ms: now_ms,
        size_bytes,
        config,
    };
    match content {
        Content::Root => {
            progress("unpacking the root file system");
            let size = unpack(&target, None, progress, |extractor| {
                let (reader, _) = from_start(&file)?;
                extractor.unpack(&mut Archive::new(BufReader::with_capacity(BUFFER, reader)), Form::Root)
            })?;
            finish(store, &target, &digest, &image(&digest, size, None))
        }
        Content::Layout(members) => {
            let plain = match compression {
                Compression::None => file,
                Compression::Gzip | Compression::Zstd => decompress(&file, work)?,
            };
            let plan = layout::plan(&plain, &members)?;
            if let Some(image) = already(store, &plan.digest, name)? {
                return Ok(image);
            }
            let size = unpack(&target, Some(&plan.config), progress, |extractor| unpack_layers(&plain, &plan, extractor))?;
            finish(store, &target, &plan.digest, &image(&plan.digest, size, Some(plan.config)))
        }
    }
}

/// Runs `fill` over a fresh root, then makes it fit to be mounted; bytes of its files.
fn unpack(
    target: &Path,
    config: Option<&Config>,
    progress: &mut dyn FnMut(&str),
    fill: impl FnOnce(&mut Extractor<'_>) -> Result<()>,
) -> Result<u64> {
    let path = target.join(ROOTFS);
    let root = open_dir(CWD, path.as_os_str(), OFlags::RDONLY).step("open", path.display())?;
    let mut extractor = Extractor::new(Tree::new(root), progress);
    fill(&mut extractor)?;
    let (mut tree, bytes) = extractor.finish();
    let runs = config.is_some_and(|c| !c.entrypoint.is_empty() || !c.cmd.is_empty());
    if !runs && !mounts::has_programs(&mut tree) {
        return Err(Error::NotAnImage("there is no bin or sbin folder in it".into()));
    }
    mounts::prepare(&mut tree, progress)?;
    Ok(bytes)
}

fn unpack_layers(file: &File, plan: &Plan, extractor: &mut Extractor<'_>) -> Result<()> {
    for (number, layer) in plan.layers.iter().enumerate() {
        extractor.say(&format!("unpacking layer {} of {}", number + 1, plan.layers.len()));
        layout::verify(file, layer)?;
        if number > 0 {
            let (reader, _) = Decompressed::new(layout::open(file, layer)?)?;
            extractor.remove_whiteouts(&mut Archive::new(BufReader::with_capacity(BUFFER, reader)))?;
        }
        let (reader, _) = Decompressed::new(layout::open(file, layer)?)?;
        let mut archive = Archive::new(BufReader::with_capacity(BUFFER, Hashing::new(reader)));
        extractor.unpack(&mut archive, Form::Layer)?;
        let found = archive.finish()?.into_inner().finish();
        layer.diff_id.expect(&found, format!("layer {} of {}, decompressed,", number + 1, plan.layers.len()))?;
    }
    Ok(())
}

/// Makes the unpacked image durable and gives it its name.
fn finish(store: &Store, target: &Path, digest: &Digest, image: &Image) -> Result<Image> {
    let record = target.join(RECORD);
    let text = serde_json::to_vec_pretty(image).map_err(|source| Error::Record { path: record.clone(), source })?;
    new_file(&record)?.write_all(&text).step("write", record.display())?;
    let dir = File::open(target).step("open", target.display())?;
    rustix::fs::syncfs(&dir).step("make durable", target.display())?;
    match fs::rename(target, store.dir(digest)) {
        // Another import of the same content was first.
        Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {}
        done => done.step("give its name to image", digest)?,
    }
    store.sync()?;
    store.read(digest)?.ok_or_else(|| Error::Io {
        operation: "find",
        object: format!("image {digest}, just imported"),
        source: ErrorKind::NotFound.into(),
    })
}

/// The image of a digest, under its new name.
fn already(store: &Store, digest: &Digest, name: &str) -> Result<Option<Image>> {
    let Some(mut image) = store.read(digest)? else { return Ok(None) };
    if image.name != name {
        image.name = name.to_owned();
        rename_record(store, digest, &image)?;
    }
    Ok(Some(image))
}

fn rename_record(store: &Store, digest: &Digest, image: &Image) -> Result<()> {
    let dir = store.dir(digest);
    let (record, next) = (dir.join(RECORD), dir.join("image.json.new"));
    let text = serde_json::to_vec_pretty(image).map_err(|source| Error::Record { path: record.clone(), source })?;
    let mut file = File::create(&next).step("write", next.display())?;
    file.write_all(&text).and_then(|()| file.sync_all()).step("write", next.display())?;
    fs::rename(&next, &record).step("replace", record.display())?;
    File::open(&dir).and_then(|dir| dir.sync_all()).step("make durable", dir.display())
}

fn from_start(mut file: &File) -> Result<(Decompressed<&File>, Compression)> {
    file.rewind().step("rewind", "the archive")?;
    Decompressed::new(file)
}

/// Layouts are read here and there, so a compressed one is written down decompressed.
fn decompress(file: &File, work: &Work) -> Result<File> {
    let path = work.join("layout");
    let (mut reader, _) = from_start(file)?;
    let mut plain = new_file(&path)?;
    let count = io::copy(&mut reader.by_ref().take(UNPACKED_BYTES + 1), &mut plain).step("decompress", "the archive")?;
    if count > UNPACKED_BYTES {
        return Err(Error::TooMuch { what: "the decompressed archive".into(), limit: UNPACKED_BYTES });
    }
    File::open(&path).step("open", "the archive")
}

fn new_file(path: &Path) -> Result<File> {
    File::create_new(path).step("make", path.display())
}
