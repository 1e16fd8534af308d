//! `deploy/bench footprint`: what a berth takes of the disk before anybody pulled anything, and how large the programs are.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::{
    Progress, Settings,
    figures::Samples,
    table::{Report, Row, Table, Target, Unit},
};
use crate::programs;

const BERTHS: usize = 3;
/// In KiB.
const NEW: f64 = 8.0 * 1024.0;
const PROGRAMS: [&str; 6] = ["berth", "berth-server", "berth-node", "berth-shim", "berth-init", "berth-runc"];

/// Measures and takes everything away again.
#[track_caller]
pub fn run(settings: Settings) -> Report {
    let progress = Progress::new();
    let host = super::host();
    let count = settings.rounds.unwrap_or(BERTHS);
    progress.say(&format!("{count} new berths"));
    let mut sizes = Samples::default();
    for number in 0..count {
        let berth = host.assign(&host.user(&format!("p{number}")), &["--disk", "20g"]);
        rustix::fs::sync();
        sizes.push(vec![allocated_kib(&host.state_dir.join("berths").join(berth.id()))]);
        berth.delete().ok();
    }
    progress.say("taking everything away again");
    let largest = sizes.percentile(100.0);
    let row = Row::new(
        "new berth, Docker ready, nothing pulled",
        vec![Some(sizes.p50()), Some(largest), Some(sizes.count() as f64)],
        vec![Target::at_most("largest", largest, NEW, "8 MiB")],
    );
    let columns = vec![("median", Unit::Kib), ("largest", Unit::Kib), ("n", Unit::Count)];
    let disk = Table { title: "disk".into(), columns, rows: vec![row] };
    let mut rows: Vec<Row> = PROGRAMS.map(|name| Row::new(name, vec![Some(size_kib(&programs::find(name)))], vec![])).into();
    rows.push(Row::new("together", vec![Some(rows.iter().filter_map(|row| row.figures[0]).sum())], vec![]));
    let sizes = Table { title: "programs".into(), columns: vec![("size", Unit::Kib)], rows };
    let note = "Footprint: what is allocated below the berth's directory once its Docker is ready, with a disk of 20 GiB; the image is shared by all.";
    Report { tables: vec![disk, sizes], notes: vec![note.into()] }
}

fn size_kib(file: &Path) -> f64 {
    fs::metadata(file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).len() as f64 / 1024.0
}

/// Blocks of a directory and all below it; holes are none.
fn allocated_kib(path: &Path) -> u64 {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let below =
        if meta.is_dir() { fs::read_dir(path).expect("read directory").flatten().map(|e| allocated_kib(&e.path())).sum() } else { 0 };
    meta.blocks() / 2 + below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_take_no_room() {
        let dir = std::env::temp_dir().join(format!("berth-footprint-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let empty = allocated_kib(&dir);
        fs::File::create(dir.join("sparse")).unwrap().set_len(1 << 30).unwrap();
        fs::write(dir.join("full"), vec![1; 64 * 1024]).unwrap();
        fs::File::open(dir.join("full")).unwrap().sync_all().unwrap();
        let full = allocated_kib(&dir) - empty;
        assert!((64..1024).contains(&full), "{full} KiB");
        fs::remove_dir_all(dir).unwrap();
    }
}
