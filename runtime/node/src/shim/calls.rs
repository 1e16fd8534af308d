//! The spool of calls: one line of JSON for each, in the file within two [moments](super::pulse) of its end, so that nothing is lost whichever
//! daemon is killed. Lines are written in batches: a write for each would stand before the client's next call. The node takes what is there
//! and says so; what it took it punches out of the file, whose positions only grow.
//!
//! Bounds: [`MOST`] bytes between what was taken and the end; calls beyond are counted, and told as one [`CallRecord::Lost`] as soon as there
//! is room again. A write that fails (a full disk) counts the same way, for every line of its batch.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use berth_protocol::{Call, CallRecord};
use tokio::{sync::Notify, task::spawn_blocking, time::sleep};

use super::{
    http::Finished,
    pulse::Pulse,
    state::{State, now_ms},
};
use crate::link::{Event, Owner};

/// Most bytes that wait to be taken.
const MOST: u64 = 16 << 20;
/// Kept free for the line that tells how many calls were lost.
const RESERVE: u64 = 4096;
/// Most bytes that wait to be written.
const BATCH: usize = 64 << 10;
/// Least time between two reports of the end, and between two syncs.
const PACE: Duration = Duration::from_millis(100);
const SYNC_PACE: Duration = Duration::from_secs(1);

/// Who called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) pid: u32,
    /// `comm`; empty when it was not there any more.
    pub(crate) command: String,
}

/// One berth's spool.
#[derive(Debug)]
pub(crate) struct Calls {
    owner: Owner,
    file: File,
    spool: Mutex<Spool>,
    waiting: Notify,
    grown: Notify,
    dirty: AtomicBool,
    written: Notify,
    pub(crate) pulse: Pulse,
}

#[derive(Debug, Default)]
struct Spool {
    /// Positions in the file.
    taken: u64,
    end: u64,
    /// Calls that were not written, and when the first of them was.
    lost: u64,
    lost_at: i64,
    /// Half a line is at the end of the file and could not be taken back.
    torn: bool,
    /// Lines that are to be written, and how many.
    lines: Vec<u8>,
    count: u64,
}

impl Calls {
    /// `file` is open for reading and appending; everything before `taken` was stored elsewhere.
    pub(crate) fn open(file: File, owner: Owner, taken: u64) -> io::Result<Self> {
        let mut end = file.metadata()?.len();
        if end < taken {
            // The file was lost; positions only grow all the same.
            file.set_len(taken)?;
            end = taken;
        }
        let mut last = [0];
        let torn = end > taken && (file.read_exact_at(&mut last, end - 1).is_err() || last[0] != b'\n');
        let spool = Mutex::new(Spool { taken, end, torn, ..Spool::default() });
        let calls = Self {
            owner,
            file,
            spool,
            waiting: Notify::new(),
            grown: Notify::new(),
            dirty: AtomicBool::new(false),
            written: Notify::new(),
            pulse: Pulse::new()?,
        };
        calls.lock().mend(&calls.file);
        Ok(calls)
    }

    /// Where the spool ends.
    pub(crate) fn end(&self) -> u64 {
        self.lock().end
    }

    /// Everything before `position` was stored elsewhere.
    pub(crate) fn taken(&self, position: u64) {
        let mut spool = self.lock();
        spool.taken = position.clamp(spool.taken, spool.end);
        if spool.lost > 0 {
            self.tell_lost(&mut spool);
            self.write(&mut spool);
        }
    }

    /// Has one call written.
    pub(crate) fn record(&self, caller: &Caller, call: Finished) {
        let record = line(&self.owner, caller, call);
        let mut spool = self.lock();
        let first = spool.lines.is_empty();
        self.tell_lost(&mut spool);
        if spool.lost > 0 || !spool.add(&record, RESERVE) {
            spool.lose(1);
        }
        if spool.lines.len() >= BATCH {
            self.write(&mut spool);
        } else if first {
            self.waiting.notify_one();
        }
    }

    /// Writes what waits to be written.
    fn write(&self, spool: &mut Spool) {
        if spool.write(&self.file) {
            self.dirty.store(true, Ordering::Relaxed);
            self.grown.notify_one();
            self.written.notify_one();
        }
    }

    /// Writes lines a moment after the first of them, for ever.
    pub(crate) async fn write_for_ever(&self) {
        let writing = async {
            loop {
                self.waiting.notified().await;
                self.pulse.beat().await;
                self.write(&mut self.lock());
            }
        };
        tokio::select! {
            ended = self.pulse.run() => tracing::error!(?ended, "calls are written when there are many, and at the end"),
            () = writing => {}
        }
    }

    fn tell_lost(&self, spool: &mut Spool) {
        if spool.lost == 0 || spool.taken + MOST < spool.whole() + 2 * RESERVE {
            return;
        }
        let Owner { name, uid, .. } = &self.owner;
        let count = spool.lost;
        let record = CallRecord::Lost { at: spool.lost_at, user: name.clone(), uid: *uid, count };
        if spool.add(&record, 0) {
            spool.lost = 0;
            // Should that line be lost, so are they.
            spool.count += count - 1;
        }
    }

    /// Tells every node of a new end, for ever.
    pub(crate) async fn report(&self, state: &State) {
        let mut told = self.end();
        loop {
            self.grown.notified().await;
            let end = self.end();
            if end != told {
                told = end;
                state.tell(Event::Calls { end });
                sleep(PACE).await;
            }
        }
    }

    /// Syncs what was written, in batches, for ever.
    pub(crate) async fn sync_for_ever(&self) {
        loop {
            self.written.notified().await;
            self.sync().await;
            sleep(SYNC_PACE).await;
        }
    }

    /// Writes what waits, and syncs it. The disk may take its time: not on the shim's one thread.
    pub(crate) async fn sync(&self) {
        self.write(&mut self.lock());
        if self.dirty.swap(false, Ordering::Relaxed)
            && let Ok(file) = self.file.try_clone()
        {
            let _ = spawn_blocking(move || file.sync_data()).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is written of one call.
pub(super) fn line(owner: &Owner, caller: &Caller, call: Finished) -> CallRecord {
    let Finished { at, method, path, image, container, status, request_bytes, response_bytes, duration, outcome } = call;
    CallRecord::Call(Call {
        at,
        user: owner.name.clone(),
        uid: caller.uid,
        pid: caller.pid,
        command: caller.command.clone(),
        method,
        path,
        image,
        container,
        status,
        request_bytes,
        response_bytes,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        outcome,
    })
}

impl Spool {
    /// Where the spool ends when all is written.
    fn whole(&self) -> u64 {
        self.end + self.lines.len() as u64
    }

    /// Adds a line to what is to be written, if that leaves `reserve` bytes of the bound.
    fn add(&mut self, record: &CallRecord, reserve: u64) -> bool {
        let before = self.lines.len();
        let done = serde_json::to_writer(&mut self.lines, record).is_ok() && {
            self.lines.push(b'\n');
            self.whole() + reserve <= self.taken + MOST
        };
        if done {
            self.count += 1;
        } else {
            self.lines.truncate(before);
        }
        done
    }

    /// Writes what waits to be written, or counts it as lost; false when nothing was written.
    fn write(&mut self, file: &File) -> bool {
        if self.lines.is_empty() {
            return false;
        }
        self.mend(file);
        let lines = std::mem::take(&mut self.lines);
        let count = std::mem::take(&mut self.count);
        let done = !self.torn && self.append(file, &lines);
        if !done {
            self.lose(count);
        }
        self.lines = lines;
        self.lines.clear();
        self.lines.shrink_to(BATCH);
        done
    }

    fn lose(&mut self, count: u64) {
        if self.lost == 0 {
            self.lost_at = now_ms();
        }
        self.lost += count;
    }

    /// Ends a line of which only a part is there: readers skip it.
    fn mend(&mut self, file: &File) {
        if self.torn {
            self.torn = !self.append(file, b"\n");
        }
    }

    fn append(&mut self, mut file: &File, bytes: &[u8]) -> bool {
        match file.write(bytes) {
            Ok(written) if written == bytes.len() => {
                self.end += written as u64;
                true
            }
            Ok(0) | Err(_) => false,
            Ok(written) => {
                // Nobody was told of this part yet.
                if file.set_len(self.end).is_err() {
                    self.end += written as u64;
                    self.torn = true;
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Instant};

    use berth_protocol::Outcome;
    use tempfile::tempdir;

    use super::*;
    use crate::shim::http::{self, Now};

    fn owner() -> Owner {
        Owner { name: "alice".into(), uid: 4711, gid: 4711 }
    }

    fn open(path: &Path, taken: u64) -> Calls {
        let file = File::options().read(true).append(true).create(true).open(path).unwrap();
        Calls::open(file, owner(), taken).unwrap()
    }

    /// As if its time had come.
    fn write(calls: &Calls) {
        calls.write(&mut calls.lock());
    }

    fn call(target: &str) -> Finished {
        let now = Now { wall: 1_700_000_000_000, clock: Instant::now() };
        http::refused(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes(), 503, now, now)
    }

    fn records(path: &Path) -> Vec<CallRecord> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    #[test]
    fn x11_a_call_is_one_line_and_positions_are_those_of_the_file() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("calls");
        let calls = open(&path, 0);
        let caller = Caller { uid: 4711, pid: 42, command: "docker".into() };
        calls.record(&caller, call("/info"));
        write(&calls);
        assert_eq!(calls.end(), fs::metadata(&path).unwrap().len());
        let [CallRecord::Call(told)] = &records(&path)[..] else { panic!("not one call") };
        assert_eq!((told.user.as_str(), told.uid, told.pid, told.command.as_str()), ("alice", 4711, 42, "docker"));
        assert_eq!((told.path.as_str(), told.status, told.outcome), ("/info", Some(503), Outcome::Refused));
        let before = calls.end();
        let again = open(&path, before);
        again.record(&caller, call("/version"));
        write(&again);
        assert!(again.end() > before && records(&path).len() == 2);
    }

    #[test]
    fn x11_a_torn_last_line_is_ended_and_skipped() {
        let dir = tempdir().unwrap();
        for torn in [&b"{\"kind\":\"call\",\"at\":17"[..], b"\0\0\0\0"] {
            let path = dir.path().join("calls");
            fs::write(&path, torn).unwrap();
            let calls = open(&path, 0);
            assert_eq!(calls.end(), torn.len() as u64 + 1);
            calls.record(&Caller::default(), call("/info"));
            write(&calls);
            assert_eq!(records(&path).len(), 1);
            // What was taken needs no end; a file that was lost goes on where it was.
            assert_eq!(open(&path, calls.end()).end(), calls.end());
            fs::remove_file(&path).unwrap();
            assert_eq!(open(&path, 1000).end(), 1000);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn x11_past_the_bound_calls_are_counted_and_told_as_soon_as_there_is_room() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("calls");
        let calls = open(&path, 0);
        let long = format!("/{}", "x".repeat(2000));
        let mut written = 0;
        while calls.lock().lost == 0 {
            calls.record(&Caller::default(), call(&long));
            written += 1;
            assert!(calls.lock().whole() <= MOST);
        }
        for _ in 0..99 {
            calls.record(&Caller::default(), call("/short"));
        }
        write(&calls);
        let full = calls.end();
        assert!(full > MOST - 2 * RESERVE - 3000);
        assert_eq!(records(&path).len(), written - 1);
        calls.taken(full);
        let told = records(&path);
        assert!(matches!(told.last(), Some(CallRecord::Lost { count: 100, uid: 4711, .. })), "{:?}", told.last());
        calls.record(&Caller::default(), call("/again"));
        write(&calls);
        assert_eq!(records(&path).len(), written + 1);
        // A wrong word of the node moves nothing back, and nothing past the end.
        calls.taken(u64::MAX);
        calls.taken(0);
        let end = calls.end();
        assert_eq!(calls.lock().taken, end);
    }

    #[test]
    fn x11_a_full_disk_loses_calls_and_says_so_later() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("calls");
        let mut calls = open(&path, 0);
        let good = std::mem::replace(&mut calls.file, File::options().write(true).open("/dev/full").unwrap());
        for _ in 0..3 {
            calls.record(&Caller::default(), call("/info"));
        }
        write(&calls);
        assert_eq!((calls.end(), calls.lock().lost), (0, 3));
        // What was to tell of them is lost too.
        calls.record(&Caller::default(), call("/info"));
        write(&calls);
        assert_eq!((calls.end(), calls.lock().lost), (0, 4));
        calls.file = good;
        calls.record(&Caller::default(), call("/info"));
        write(&calls);
        assert!(matches!(records(&path)[..], [CallRecord::Lost { count: 4, .. }, CallRecord::Call(_)]));
    }

    #[tokio::test]
    async fn x11_the_end_is_told_at_most_ten_times_a_second() {
        let dir = tempdir().unwrap();
        let calls = open(&dir.path().join("calls"), 0);
        let state = State::new();
        let mut events = state.listen();
        let work = async {
            let until = Instant::now() + Duration::from_millis(1000);
            while Instant::now() < until {
                calls.record(&Caller::default(), call("/info"));
                sleep(Duration::from_millis(1)).await;
            }
            sleep(PACE * 3).await;
        };
        tokio::select! {
            () = calls.report(&state) => {}
            () = calls.sync_for_ever() => {}
            () = calls.write_for_ever() => {}
            () = work => {}
        }
        let told: Vec<Event> = std::iter::from_fn(|| events.try_recv().ok()).collect();
        assert!((5..=14).contains(&told.len()), "{} times", told.len());
        assert_eq!(*told.last().unwrap(), Event::Calls { end: calls.end() });
    }
}
