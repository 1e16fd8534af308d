//! `/proc/diskstats`, Documentation/admin-guide/iostats.rst: the berth's own disk, and no other.

use super::figures::Io;

/// A whole device that is the berth's alone, or a part of one that others use too: then its own counts are shown for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    Own(u32, u32),
    Shared(u32, u32, Io),
}

const SECTOR: u64 = 512;

pub(super) fn render(host: &str, disk: Option<Disk>) -> String {
    let line = |major: u32, minor: u32| {
        let (major, minor) = (major.to_string(), minor.to_string());
        host.lines().find(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(&major) && words.next() == Some(&minor)
        })
    };
    match disk {
        None => String::new(),
        Some(Disk::Own(major, minor)) => line(major, minor).map(|line| format!("{line}\n")).unwrap_or_default(),
        Some(Disk::Shared(major, minor, io)) => {
            let name = line(major, minor).and_then(|line| line.split_whitespace().nth(2));
            let (read, written) = (io.read_bytes / SECTOR, io.written_bytes / SECTOR);
            let counts = format!("{} 0 {read} 0 {} 0 {written} 0 0 0 0 0 0 0 0 0 0", io.reads, io.writes);
            name.map(|name| format!("{major:>4} {minor:>7} {name} {counts}\n")).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "   7       0 loop0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n   7       1 loop1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n \
                        254       0 vda 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n";

    #[test]
    fn p02_only_the_berths_own_disk_is_shown() {
        assert_eq!(render(HOST, Some(Disk::Own(7, 0))), "   7       0 loop0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n");
        assert_eq!(render(HOST, Some(Disk::Own(7, 2))), "");
        assert_eq!(render(HOST, None), "");
    }

    #[test]
    fn of_a_disk_that_others_use_too_only_its_own_share_is_shown() {
        let io = Io { reads: 3, read_bytes: 4096, writes: 5, written_bytes: 1024 };
        let text = render(HOST, Some(Disk::Shared(254, 0, io)));
        assert_eq!(text, " 254       0 vda 3 0 8 0 5 0 2 0 0 0 0 0 0 0 0 0 0\n");
        assert_eq!(text.split_whitespace().count(), HOST.lines().last().unwrap().split_whitespace().count());
        assert_eq!(render(HOST, Some(Disk::Shared(0, 45, io))), "");
    }
}
