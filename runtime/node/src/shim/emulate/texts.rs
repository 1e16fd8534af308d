//! Texts as they are handed out: whole to each reader, never older than a tenth of a second when he begins, and no more of them than
//! fit. Pure but for what makes a text.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_runtime::{cgroup::Place, procfs::File};

/// For so long a text serves whoever begins to read.
const FRESH: Duration = Duration::from_millis(100);
/// Bytes of fresh texts, and of those that open files are in the middle of. A host of 512 CPUs has a `cpuinfo` of a megabyte.
const MOST_BYTES: usize = 8 << 20;
/// Texts of either kind.
const MOST: usize = 1024;

/// What is held of one berth's texts.
#[derive(Debug, Default)]
pub(super) struct Texts {
    fresh: HashMap<(File, Place), (Instant, Arc<str>)>,
    /// What an open file was given at its beginning, so that the rest fits to it.
    begun: HashMap<u64, Arc<str>>,
    begun_bytes: usize,
    last_handle: u64,
}

impl Texts {
    /// A handle for a file just opened.
    pub(super) fn open(&mut self) -> u64 {
        self.last_handle += 1;
        self.last_handle
    }

    pub(super) fn close(&mut self, handle: u64) {
        if let Some(text) = self.begun.remove(&handle) {
            self.begun_bytes -= text.len();
        }
    }

    /// The text for a read at `offset`: at the beginning what is so now, further on what the beginning was of. Where too many files are
    /// open at once, the rest of some is of a newer text.
    pub(super) fn read(
        &mut self,
        handle: u64,
        file: File,
        offset: u64,
        now: Instant,
        place: impl FnOnce() -> Place,
        make: impl FnOnce(&Place) -> io::Result<String>,
    ) -> io::Result<Arc<str>> {
        if offset > 0
            && let Some(text) = self.begun.get(&handle)
        {
            return Ok(Arc::clone(text));
        }
        let text = self.current(file, place(), now, make)?;
        self.close(handle);
        if self.begun.len() < MOST && self.begun_bytes + text.len() <= MOST_BYTES {
            self.begun_bytes += text.len();
            self.begun.insert(handle, Arc::clone(&text));
        }
        Ok(text)
    }

    /// A text that would serve whoever begins to read now, if there is one.
    pub(super) fn fresh(&self, file: File, place: &Place, now: Instant) -> Option<Arc<str>> {
        let (made, text) = self.fresh.get(&(file, place.clone()))?;
        is_fresh(*made, now).then(|| Arc::clone(text))
    }

    fn current(&mut self, file: File, place: Place, now: Instant, make: impl FnOnce(&Place) -> io::Result<String>) -> io::Result<Arc<str>> {
        if let Some(text) = self.fresh(file, &place, now) {
            return Ok(text);
        }
        let text: Arc<str> = make(&place)?.into();
        self.fresh.retain(|_, (made, _)| is_fresh(*made, now));
        let held: usize = self.fresh.values().map(|(_, text)| text.len()).sum();
        if self.fresh.len() < MOST && held + text.len() <= MOST_BYTES {
            self.fresh.insert((file, place), (now, Arc::clone(&text)));
        }
        Ok(text)
    }
}

fn is_fresh(made: Instant, now: Instant) -> bool {
    now.saturating_duration_since(made) < FRESH
}

/// At most `size` bytes from `offset` on.
pub(super) fn part(text: &str, offset: u64, size: u32) -> &[u8] {
    let bytes = text.as_bytes();
    let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let end = begin.saturating_add(usize::try_from(size).unwrap_or(usize::MAX)).min(bytes.len());
    &bytes[begin..end]
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Reads with a text that says how often one was made.
    struct Reader {
        texts: Texts,
        made: Cell<u32>,
        began: Instant,
    }

    impl Reader {
        fn new() -> Self {
            Self { texts: Texts::default(), made: Cell::new(0), began: Instant::now() }
        }

        fn read(&mut self, handle: u64, file: File, offset: u64, after_ms: u64) -> String {
            let now = self.began + Duration::from_millis(after_ms);
            let make = |_: &Place| {
                self.made.set(self.made.get() + 1);
                Ok(format!("text {}", self.made.get()))
            };
            self.texts.read(handle, file, offset, now, Place::default, make).unwrap().to_string()
        }
    }

    #[test]
    fn p02_nothing_is_older_than_a_tenth_of_a_second_where_reading_begins() {
        let mut reader = Reader::new();
        let (a, b) = (reader.texts.open(), reader.texts.open());
        assert_eq!(reader.read(a, File::Meminfo, 0, 0), "text 1");
        assert_eq!(reader.read(b, File::Meminfo, 0, 99), "text 1");
        assert_eq!(reader.read(b, File::Stat, 0, 99), "text 2");
        assert_eq!(reader.read(a, File::Meminfo, 0, 100), "text 3");
        // In the middle of a text it stays the same, however long that takes.
        assert_eq!((reader.read(a, File::Meminfo, 3, 10_000), reader.read(b, File::Stat, 3, 10_000)), ("text 3".into(), "text 2".into()));
        assert_eq!(reader.read(a, File::Meminfo, 0, 10_000), "text 4");
    }

    #[test]
    fn what_is_held_is_bounded_and_reading_goes_on_beyond() {
        let mut texts = Texts::default();
        let (now, large) = (Instant::now(), "x".repeat(1 << 20));
        let mut read = |handle: u64, after: u64, offset: u64| {
            let now = now + FRESH * u32::try_from(after).unwrap();
            texts.read(handle, File::Cpuinfo, offset, now, Place::default, |_| Ok(large.clone())).unwrap().len()
        };
        for handle in 1..=100 {
            assert_eq!((read(handle, handle, 0), read(handle, handle, 5)), (large.len(), large.len()));
        }
        assert!(texts.begun.len() <= 8 && texts.begun_bytes <= MOST_BYTES && texts.fresh.len() <= 8, "{}", texts.begun.len());
        (1..=100).for_each(|handle| texts.close(handle));
        assert_eq!((texts.begun.len(), texts.begun_bytes), (0, 0));
        for handle in 0..3000 {
            texts.read(handle, File::Stat, 0, now, Place::default, |_| Ok("s".into())).unwrap();
        }
        assert_eq!(texts.begun.len(), MOST);
        // A text that cannot be made is an error of its reader, and leaves nothing.
        let failed = texts.read(7, File::Swaps, 0, now, Place::default, |_| Err(io::Error::other("no")));
        assert!(failed.is_err() && !texts.fresh.contains_key(&(File::Swaps, Place::default())));
    }

    #[test]
    fn a_part_ends_with_the_text() {
        assert_eq!(part("abcdef", 0, 4), b"abcd");
        assert_eq!(part("abcdef", 4, 4), b"ef");
        assert_eq!((part("abcdef", 6, 4), part("abcdef", u64::MAX, u32::MAX)), (&b""[..], &b""[..]));
    }
}
