use proptest::prelude::*;

use super::{head::MOST_HEAD, *};

fn now() -> Now {
    Now { wall: 1_700_000_000_000, clock: Instant::now() }
}

/// What one side says, in the order in which it passes.
#[derive(Clone, Copy, Debug)]
enum Part<'t> {
    Up(&'t [u8]),
    Down(&'t [u8]),
}
use Part::{Down as D, Up as U};

/// Plays a connection, every part cut by `cut` (sizes, taken in turn), then ended; by `ended` the inner Docker said all.
fn play(parts: &[Part<'_>], cut: &[usize], ended: bool) -> Vec<Finished> {
    let budget = Budget::default();
    let mut conversation = Conversation::new(&budget);
    let mut calls = Vec::new();
    let mut sizes = cut.iter().copied().cycle();
    for part in parts {
        let (U(bytes) | D(bytes)) = part;
        let mut rest = *bytes;
        while !rest.is_empty() {
            let length = sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len());
            let (piece, up) = (&rest[..length], matches!(part, U(_)));
            let unseen = if up { conversation.unseen_up() } else { conversation.unseen_down() };
            // Every other piece goes by unseen where that is allowed.
            match (up, length % 2 == 0 && unseen >= length as u64) {
                (true, true) => conversation.sent_unseen(length as u64),
                (true, false) => conversation.sent(piece, now()),
                (false, true) => conversation.received_unseen(length as u64, now(), |call| calls.push(call)),
                (false, false) => conversation.received(piece, now(), |call| calls.push(call)),
            }
            rest = &rest[length..];
        }
    }
    if ended {
        conversation.said_all(now(), |call| calls.push(call));
    }
    conversation.end(now(), |call| calls.push(call));
    drop(conversation);
    assert_eq!(budget.used(), 0, "nothing stays on the account");
    calls
}

/// Method, path, status, bytes each way, outcome.
type Told<'c> = (&'c str, &'c str, Option<u16>, u64, u64, Outcome);

fn told(calls: &[Finished]) -> Vec<Told<'_>> {
    calls.iter().map(|c| (c.method.as_str(), c.path.as_str(), c.status, c.request_bytes, c.response_bytes, c.outcome)).collect()
}

fn cuts() -> [Vec<usize>; 5] {
    [vec![usize::MAX], vec![1], vec![2], vec![3, 1, 4, 1, 5, 9, 2, 6], vec![64, 17]]
}

const PING: &[u8] = b"HEAD /_ping HTTP/1.1\r\nHost: docker\r\n\r\n";
const PONG: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
const INFO: &[u8] = b"GET /v1.41/info HTTP/1.1\r\nHost: docker\r\n\r\n";
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

#[test]
fn x07_keep_alive_and_pipelined_calls_are_told_one_by_one() {
    let parts = [U(PING), D(PONG), U(INFO), U(PING), U(INFO), D(CHUNKED), D(PONG), D(CHUNKED)];
    for cut in cuts() {
        let calls = play(&parts, &cut, true);
        let ping = ("HEAD", "/_ping", Some(200), PING.len() as u64, PONG.len() as u64, Outcome::Answered);
        let info = ("GET", "/v1.41/info", Some(200), INFO.len() as u64, CHUNKED.len() as u64, Outcome::Answered);
        assert_eq!(told(&calls), [ping, info, ping, info], "{cut:?}");
    }
}

#[test]
fn x07_after_the_last_answer_none_is_made_up() {
    let empty = b"HTTP/1.1 204 No Content\r\n\r\n";
    let closing = b"HTTP/1.1 400 Bad Request\r\nConnection: keep, Close\r\nContent-Length: 2\r\n\r\nno";
    let endless = b"HTTP/1.1 400 Bad Request\r\n\r\nno";
    for (answer, made_up) in [(PONG, true), (&empty[..], true), (&closing[..], false), (&endless[..], false)] {
        let mut conversation = Conversation::new(&Budget::default());
        conversation.sent(INFO, now());
        conversation.sent(PING, now());
        assert!(conversation.unanswered());
        let answer = if answer == PONG { CHUNKED } else { answer };
        conversation.received(answer, now(), |_| ());
        conversation.said_all(now(), |_| ());
        assert_eq!(conversation.unanswered(), made_up, "{}", String::from_utf8_lossy(answer));
    }
}

#[test]
fn x07_interim_answers_empty_answers_and_those_that_last_until_the_end() {
    let load = b"POST /images/load HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n";
    let loaded = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    let old = b"HTTP/1.0 200 OK\r\n\r\neverything until the end";
    for cut in cuts() {
        let calls = play(&[U(load), D(loaded), U(INFO), D(old)], &cut, true);
        let expected = [
            ("POST", "/images/load", Some(204), load.len() as u64, loaded.len() as u64, Outcome::Answered),
            ("GET", "/v1.41/info", Some(200), INFO.len() as u64, old.len() as u64, Outcome::Answered),
        ];
        assert_eq!(told(&calls), expected, "{cut:?}");
    }
    assert_eq!(play(&[U(INFO), D(old)], &[9], false)[0].outcome, Outcome::Cut, "without its end it is not all");
}

#[test]
fn x02_reading_stops_at_an_upgrade_and_at_an_old_clients_hijack() {
    let attach =
        b"POST /containers/web/attach?stream=1&stdin=1 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}";
    let old = b"POST /v1.18/exec/e/start HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
    let switched = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    let hijacked = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nGET";
    let typed = b"early bytes, GET / HTTP/1.1\r\n\r\n";
    for cut in cuts() {
        for (request, answer, status) in [(&attach[..], &switched[..], 101), (old, hijacked, 200)] {
            let calls = play(&[U(request), U(typed), D(answer), U(typed), D(b"\r\n\r\n")], &cut, true);
            assert_eq!(calls.len(), 1, "{cut:?}: {calls:?}");
            let bytes = ((request.len() + 2 * typed.len()) as u64, answer.len() as u64 + 4);
            assert_eq!((calls[0].status, calls[0].outcome), (Some(status), Outcome::Upgraded));
            assert_eq!((calls[0].request_bytes, calls[0].response_bytes), bytes);
        }
        // Refused, it is a call like others, and the next one is followed.
        let refused = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
        let calls = play(&[U(attach), D(refused), U(PING), D(PONG)], &cut, true);
        assert_eq!(
            calls.iter().map(|c| (c.status, c.outcome)).collect::<Vec<_>>(),
            [(Some(404), Outcome::Answered), (Some(200), Outcome::Answered)]
        );
        assert_eq!(calls[0].container.as_deref(), Some("web"));
        // But what was sent in the belief that it is a stream cannot be understood.
        let calls = play(&[U(attach), U(typed), D(refused), U(PING), D(PONG)], &cut, true);
        assert_eq!(calls.iter().map(|c| c.outcome).collect::<Vec<_>>(), [Outcome::Answered, Outcome::Unparsed]);
    }
}

#[test]
fn x11_a_create_call_is_told_with_its_image_and_the_container_that_came_of_it() {
    let body = r#"{"Image":"busybox","Env":["PASSWORD=secret"]}"#;
    for name in ["", "?name=web"] {
        let request = format!(
            "POST /v1.41/containers/create{name} HTTP/1.1\r\nX-Registry-Auth: secret\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = r#"{"Id":"0123abc","Warnings":[]}"#;
        let answer = format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        for cut in cuts() {
            let calls = play(&[U(request.as_bytes()), D(answer.as_bytes())], &cut, true);
            let container = if name.is_empty() { "0123abc" } else { "web" };
            assert_eq!((calls[0].image.as_deref(), calls[0].container.as_deref()), (Some("busybox"), Some(container)), "{cut:?}");
            assert!(!format!("{calls:?}").contains("secret"));
        }
    }
}

#[test]
fn x11_what_cannot_be_framed_is_one_unparsed_call_with_all_its_bytes() {
    let long = [b"GET /".as_slice(), &vec![b'x'; MOST_HEAD]].concat();
    let both = b"POST /a HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n";
    let bad_chunk = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nGET /hidden HTTP/1.1\r\n\r\n";
    let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    for cut in cuts() {
        for garbage in
            [&b"\x16\x03\x01\x02\x00\x01\r\n\r\n"[..], b"half a head", &long, both, bad_chunk, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
        {
            let calls = play(&[U(PING), D(PONG), U(garbage), D(answer)], &cut, true);
            let what = String::from_utf8_lossy(&garbage[..garbage.len().min(60)]).into_owned();
            assert_eq!((calls.len(), calls[0].outcome, calls[1].outcome), (2, Outcome::Answered, Outcome::Unparsed), "{what} {cut:?}");
            assert_eq!((calls[1].request_bytes, calls[1].response_bytes), (garbage.len() as u64, answer.len() as u64), "{what} {cut:?}");
        }
        // The other way round: nobody knows any more what belongs to which call.
        for garbage in [&b"not HTTP\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
            let calls = play(&[U(INFO), U(PING), D(garbage), D(garbage)], &cut, true);
            assert_eq!(calls.iter().map(|c| c.outcome).collect::<Vec<_>>(), [Outcome::Unparsed; 2], "{cut:?}");
            assert_eq!((calls[0].path.as_str(), calls[0].response_bytes), ("/v1.41/info", 2 * garbage.len() as u64));
        }
        let calls = play(&[D(b"HTTP/1.1 200 OK\r\n\r\n")], &cut, true);
        assert_eq!((calls.len(), calls[0].outcome), (1, Outcome::Unparsed), "an answer to nothing");
    }
}

#[test]
fn the_pipeline_and_all_that_is_kept_have_a_bound() {
    let many = INFO.repeat(10_000);
    let calls = play(&[U(&many)], &[1000], true);
    assert_eq!(calls.len(), MOST_OPEN + 1);
    assert_eq!(calls.last().unwrap().outcome, Outcome::Unparsed);
    assert_eq!(calls.iter().map(|c| c.request_bytes).sum::<u64>(), many.len() as u64);

    let budget = Budget::default();
    let mut all: Vec<Conversation> = (0..2000).map(|_| Conversation::new(&budget)).collect();
    for conversation in &mut all {
        conversation.sent(&[b'x'; 60_000], now());
    }
    assert!(budget.used() <= 2 << 20, "{} bytes", budget.used());
    assert!(all.iter().any(Conversation::blind) && !all[0].blind());
}

#[test]
fn a_call_that_looks_is_no_use_and_one_that_streams_is_one_until_it_ends() {
    let budget = Budget::default();
    let mut conversation = Conversation::new(&budget);
    conversation.sent(PING, now());
    assert_eq!((conversation.uses(), conversation.busy(), conversation.unanswered()), (false, true, true));
    conversation.received(PONG, now(), drop);
    assert!(!conversation.busy());
    conversation.sent(b"GET /containers/a/logs?follow=1 HTTP/1.1\r\n\r\n", now());
    conversation.received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", now(), drop);
    assert!(conversation.uses() && !conversation.unanswered());
    conversation.received(b"0\r\n\r\n", now(), drop);
    assert!(!conversation.uses());
}

proptest! {
    /// However the bytes are cut, the calls are the same.
    #[test]
    fn x07_the_cut_of_the_bytes_makes_no_difference(cut in prop::collection::vec(1usize..40, 1..20), seed in 0usize..4) {
        let old = b"POST /containers/x/attach HTTP/1.1\r\n\r\n".as_slice();
        let create = b"POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n{\"Image\":\"image\"}\r\n0\r\n\r\n".as_slice();
        let ends: [(&[u8], &[u8]); 4] = [
            (old, b"HTTP/1.1 200 OK\r\n\r\nstream"), (old, b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"),
            (b"nonsense\r\n\r\n", b"HTTP/1.1 400 Bad\r\n\r\n"), (INFO, b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\nhalf"),
        ];
        let parts = [U(PING), U(create), U(INFO), D(PONG), D(b"HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{\"Id\":\"1\"}"), D(CHUNKED), U(ends[seed].0), D(ends[seed].1)];
        let bare = |calls: Vec<Finished>| calls.into_iter().map(|c| Finished { duration: Duration::ZERO, at: 0, ..c }).collect::<Vec<_>>();
        prop_assert_eq!(bare(play(&parts, &cut, true)), bare(play(&parts, &[usize::MAX], true)));
    }

    /// Nothing that anybody sends makes it panic or lose count.
    #[test]
    fn hostile_bytes_are_counted(
        up in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), any::<u8>()], 0..300),
        down in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), any::<u8>()], 0..300),
        cut in prop::collection::vec(1usize..40, 1..20),
        order in any::<bool>(),
    ) {
        let begin: &[u8] = b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let parts = if order { [U(begin), U(&up), D(answer), D(&down)] } else { [U(begin), D(answer), D(&down), U(&up)] };
        let calls = play(&parts, &cut, true);
        prop_assert!(calls.iter().map(|c| c.request_bytes).sum::<u64>() <= (begin.len() + up.len()) as u64);
        prop_assert!(calls.iter().map(|c| c.response_bytes).sum::<u64>() <= (answer.len() + down.len()) as u64);
    }
}
