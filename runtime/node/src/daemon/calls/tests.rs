use std::{io::Write, os::unix::fs::MetadataExt};

use berth_protocol::{Call, CallRecord, Outcome};

use super::*;

fn id(number: u128) -> BerthId {
    BerthId(uuid::Uuid::from_u128(number))
}

fn line(number: u64) -> String {
    let call = Call {
        at: 1_795_000_000_000,
        user: "alice".into(),
        uid: 1000,
        pid: 1,
        command: "docker".into(),
        method: "GET".into(),
        path: format!("/v1.45/containers/{number}/json"),
        image: None,
        container: Some(number.to_string()),
        status: Some(200),
        request_bytes: number,
        response_bytes: 0,
        duration_ms: 0,
        outcome: Outcome::Answered,
    };
    serde_json::to_string(&CallRecord::Call(call)).unwrap() + "\n"
}

fn numbers(page: &CallPage) -> Vec<u64> {
    let number = |record: &CallRecord| match record {
        CallRecord::Call(call) => call.request_bytes,
        CallRecord::Lost { count, .. } => panic!("{count} lost"),
    };
    page.records.iter().map(number).collect()
}

/// A server: knows its position, takes page by page.
#[derive(Default)]
struct Server {
    position: u64,
    seen: Vec<u64>,
}

impl Server {
    fn fetch(&mut self, calls: &Calls) -> bool {
        let page = calls.page(id(1), self.position).unwrap();
        self.seen.extend(numbers(&page));
        self.position = page.next;
        page.more
    }

    fn drain(&mut self, calls: &Calls) {
        while self.fetch(calls) {}
        calls.take(id(1), self.position);
    }
}

fn names(calls: &Calls) -> Vec<String> {
    fs::read_dir(&calls.dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn append(mut file: &File, numbers: std::ops::Range<u64>) {
    for number in numbers {
        file.write_all(line(number).as_bytes()).unwrap();
    }
}

#[test]
fn x11_each_line_comes_once_over_runs_restarts_of_the_node_and_lost_confirmations() {
    let dir = tempfile::tempdir().unwrap();
    let calls = Calls::open(dir.path().into()).unwrap();
    let mut server = Server::default();
    let (file, taken) = calls.begin(id(1)).unwrap();
    assert_eq!((taken, calls.waiting()), (0, vec![]));
    append(&file, 0..3000);
    calls.grown(id(1));
    assert_eq!(calls.waiting().len(), 1);
    // A page is stored, the confirmation never comes, and node and server are killed.
    assert!(server.fetch(&calls));
    assert_eq!(server.seen.len(), 500);
    let calls = Calls::open(dir.path().into()).unwrap();
    calls.retain(&BTreeSet::from([id(1)]));
    calls.adopt(id(1));
    append(&file, 3000..3001);
    server.drain(&calls);
    assert_eq!(calls.waiting(), []);
    assert!(file.metadata().unwrap().blocks() * 512 <= 8192, "what was taken occupies nothing");
    append(&file, 3001..3002);
    drop(file);
    calls.ended(id(1));
    let (file, _) = calls.begin(id(1)).unwrap();
    append(&file, 3002..3003);
    assert_eq!(names(&calls).len(), 2);
    // The node forgets how far it was, to a block; the server does not.
    let calls = Calls::open(dir.path().into()).unwrap();
    calls.retain(&BTreeSet::from([id(1)]));
    calls.adopt(id(1));
    server.drain(&calls);
    assert_eq!(names(&calls).len(), 1);
    assert_eq!(server.seen, (0..3003).collect::<Vec<_>>());
    calls.ended(id(1));
    assert_eq!(names(&calls), [""; 0]);
}

#[test]
fn torn_and_foreign_lines_are_passed_over_and_those_around_them_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let calls = Calls::open(dir.path().into()).unwrap();
    let mut server = Server::default();
    let (mut file, _) = calls.begin(id(1)).unwrap();
    append(&file, 0..1);
    file.write_all(b"{\"kind\":\"noise\"}\n\0\0\n").unwrap();
    writeln!(file, "{}", line(7).replace("docker", &"x".repeat(segment::LINE)).trim_end()).unwrap();
    append(&file, 1..2);
    file.write_all(&vec![b'x'; 3 << 20]).unwrap();
    file.write_all(b"\n").unwrap();
    append(&file, 2..3);
    let half = line(3);
    file.write_all(&half.as_bytes()[..40]).unwrap();
    server.drain(&calls);
    assert_eq!(server.seen, [0, 1, 2], "half a line waits for its end");
    file.write_all(&half.as_bytes()[40..]).unwrap();
    file.write_all(b"{\"kind\":\"ca").unwrap();
    server.drain(&calls);
    assert_eq!(server.seen, [0, 1, 2, 3]);
    calls.ended(id(1));
    server.drain(&calls);
    assert_eq!((server.seen.len(), names(&calls).len()), (4, 0), "nobody writes the end of a line any more");
}

#[test]
fn a_host_that_lost_power_or_its_state_does_not_hide_new_lines() {
    let dir = tempfile::tempdir().unwrap();
    let calls = Calls::open(dir.path().into()).unwrap();
    let mut server = Server::default();
    let (file, _) = calls.begin(id(1)).unwrap();
    append(&file, 0..100);
    server.drain(&calls);
    // The end of the file was never synced.
    file.set_len(line(0).len() as u64 * 50).unwrap();
    let calls = Calls::open(dir.path().into()).unwrap();
    calls.retain(&BTreeSet::from([id(1)]));
    calls.ended(id(1));
    let (file, _) = calls.begin(id(1)).unwrap();
    append(&file, 100..101);
    server.drain(&calls);
    // All of it is gone.
    fs::remove_dir_all(dir.path()).unwrap();
    fs::create_dir(dir.path()).unwrap();
    let calls = Calls::open(dir.path().into()).unwrap();
    let (file, _) = calls.begin(id(1)).unwrap();
    append(&file, 101..102);
    server.drain(&calls);
    assert_eq!(server.seen, (0..102).collect::<Vec<_>>());
}

#[test]
fn l04_the_spool_of_a_deleted_berth_goes_with_its_last_line_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let calls = Calls::open(dir.path().into()).unwrap();
    let (file, _) = calls.begin(id(1)).unwrap();
    append(&file, 0..10);
    calls.orphan(id(1));
    assert_eq!((names(&calls).len(), calls.waiting().len()), (1, 1));
    let calls = Calls::open(dir.path().into()).unwrap();
    calls.retain(&BTreeSet::new());
    let mut server = Server::default();
    server.drain(&calls);
    assert_eq!((server.seen.len(), names(&calls).len()), (10, 0));
    // One without a line goes at once.
    drop(calls.begin(id(2)).unwrap());
    calls.orphan(id(2));
    assert_eq!((names(&calls).len(), calls.spools().len()), (0, 0));
}

#[test]
fn a_spool_that_nobody_takes_stays_within_its_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let calls = Calls::open(dir.path().into()).unwrap();
    for run in 0..2 * SEGMENTS as u64 {
        let (mut file, taken) = calls.begin(id(1)).unwrap();
        append(&file, run..run + 1);
        file.write_all(b"{\"torn").unwrap();
        assert_eq!(taken, 0);
        calls.ended(id(1));
    }
    assert_eq!(names(&calls).len(), SEGMENTS);
    // Of deleted berths, the oldest go: by their age, then by their bytes.
    fs::write(dir.path().join(format!("{}.{}.jsonl", id(2), 1)), line(0)).unwrap();
    for number in [3, 4] {
        let (file, _) = calls.begin(id(number)).unwrap();
        append(&file, 0..ORPHANS_BYTES * 2 / 3 / line(0).len() as u64);
    }
    let calls = Calls::open(dir.path().into()).unwrap();
    calls.retain(&BTreeSet::from([id(1)]));
    assert_eq!(calls.waiting().iter().map(|at| at.id).collect::<Vec<_>>(), [id(1), id(4)]);
    let mut server = Server::default();
    server.drain(&calls);
    assert_eq!(server.seen, (0..2 * SEGMENTS as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_shim_is_told_what_was_taken_as_an_offset_in_its_own_file() {
    let dir = tempfile::tempdir().unwrap();
    let calls = Calls::open(dir.path().into()).unwrap();
    let mut taken = calls.taken_of(id(1));
    let (file, _) = calls.begin(id(1)).unwrap();
    append(&file, 0..10);
    let mut server = Server::default();
    server.drain(&calls);
    taken.changed().await.unwrap();
    assert_eq!(*taken.borrow_and_update(), file.metadata().unwrap().len());
    calls.ended(id(1));
    let (file, _) = calls.begin(id(1)).unwrap();
    assert_eq!((*taken.borrow_and_update(), file.metadata().unwrap().len()), (0, 0));
}
