//! Who a berth is, and what of the host it is not.

use std::{collections::BTreeSet, fs, time::Duration};

use berth_tests::{Berth, Host, Run, until};
use serde_json::Value;

/// Lines of `[inside, outside, count]`.
fn map(berth: &Berth, file: &str) -> Vec<[u32; 3]> {
    let text = berth.exec(&["cat", &format!("/proc/self/{file}")]).ok();
    let line = |line: &str| -> [u32; 3] {
        let words: Vec<u32> = line.split_whitespace().map(|w| w.parse().expect("a number")).collect();
        words.try_into().expect("three numbers")
    };
    text.lines().map(line).collect()
}

#[test]
fn i01_uid_and_gid_map_are_one_line_from_0() {
    let host = Host::start();
    let a = host.new_berth("a");
    for file in ["uid_map", "gid_map"] {
        let lines = map(&a, file);
        let [[inside, outside, count]] = lines[..] else { panic!("{file} is not one line: {lines:?}") };
        assert_eq!((inside, outside), (0, a.id_base()), "{file}");
        assert!(outside > 0 && count >= 65_536, "{file}: {lines:?}");
    }
}
