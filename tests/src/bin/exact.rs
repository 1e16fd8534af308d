//! Plays random conversations with `berth-probe echo` through a stream socket, many at once, and compares every byte in both directions.
//! Prints one line of JSON; a case that fails is named with the seed, to be played again alone.
#![forbid(unsafe_code)]

use std::{
    env,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use berth_tests::exact::{Case, Played, play};
use serde_json::json;

const THREADS: usize = 64;
/// Failures after which no new case begins.
const ENOUGH: usize = 5;

#[derive(Default)]
struct Sums {
    cases: u32,
    sent: usize,
    received: usize,
    cut: u32,
    cut_and_whole: u32,
    vanished: u32,
    spoken_for: u32,
    failures: Vec<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    let (Some(socket), Some(cases), Some(seed)) = (words.first().map(PathBuf::from), number(1), number(2)) else {
        eprintln!("usage: berth-tests-exact SOCKET CASES SEED [CASE]   (CASE: only this one)");
        return ExitCode::from(2);
    };
    let (first, last) = number(3).map_or((0, cases), |only| (only, only + 1));
    let (next, last) = (AtomicU32::new(u32::try_from(first).unwrap_or(0)), u32::try_from(last).unwrap_or(u32::MAX));
    let sums = Mutex::new(Sums::default());
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= last || sums.lock().unwrap_or_else(PoisonError::into_inner).failures.len() >= ENOUGH {
                        return;
                    }
                    let case = Case::new(seed, number);
                    let played = play(&case, &socket);
                    sums.lock().unwrap_or_else(PoisonError::into_inner).add(&case, played, seed);
                }
            });
        }
    });
    let Sums { cases, sent, received, cut, cut_and_whole, vanished, spoken_for, failures } =
        sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    for failure in &failures {
        eprintln!("{failure}");
    }
    println!(
        "{}",
        json!({
            "seed": seed, "cases": cases, "sent": sent, "received": received, "cut": cut, "cut_and_whole": cut_and_whole,
            "vanished": vanished, "spoken_for": spoken_for, "failures": failures.len(), "seconds": began.elapsed().as_secs_f64(),
        })
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Sums {
    fn add(&mut self, case: &Case, played: Result<Played, String>, seed: u64) {
        self.cases += 1;
        match played {
            Ok(played) => {
                self.sent += played.sent;
                self.received += played.received;
                self.cut += u32::from(case.cut);
                self.cut_and_whole += u32::from(case.cut && played.whole);
                self.vanished += u32::from(played.vanished);
                self.spoken_for += u32::from(played.spoken_for);
            }
            Err(why) => {
                let Case { kind, name, torn, cut, vanishes, half_closes, reads_all, piece, lazy, .. } = case;
                self.failures.push(format!(
                    "case {name} of seed {seed} ({kind}, torn {torn}, cut {cut}, vanishes {vanishes:?}, half-closes {half_closes}, \
                     peer reads all {reads_all}, pieces of {piece}, lazy {lazy}): {why}"
                ));
            }
        }
    }
}
