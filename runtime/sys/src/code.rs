//! The program's own code in memory.

use std::{ffi::c_void, fs, io, ptr};

/// Gives back the pages that hold this process's code, its libraries' included: what is needed again is mapped again from the page cache,
/// where it stays. `/proc` has to be there, and this process dumpable or root.
pub fn forget() -> io::Result<()> {
    for mapping in fs::read_to_string("/proc/self/maps")?.lines().filter_map(code) {
        // SAFETY: a private mapping of a file that is not writable holds what the file does, and nobody takes the mapping away.
        let done = unsafe { libc::madvise(ptr::with_exposed_provenance_mut::<c_void>(mapping.start), mapping.len(), libc::MADV_DONTNEED) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Addresses of a line of proc_pid_maps(5), if it is code of a file. Read-only data is not: relocations were written there.
fn code(line: &str) -> Option<std::ops::Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights, file) = (words.next()?, words.next()?, words.nth(3)?);
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    (rights == "r-xp" && file.starts_with('/')).then_some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_code_of_files_is_meant() {
        let text = "7f0000001000-7f0000003000 r-xp 00001000 08:01 12 /usr/lib/x.so";
        assert_eq!(code(text), Some(0x7f00_0000_1000..0x7f00_0000_3000));
        assert_eq!(code("7f0000001000-7f0000003000 r-xp 00000000 00:00 0"), None);
        assert_eq!(code("7f0000001000-7f0000003000 r-xp 00000000 00:00 0 [vdso]"), None);
        for rights in ["r--p", "rwxp", "rw-p", "r-xs"] {
            assert_eq!(code(&text.replace("r-xp", rights)), None, "{rights}");
        }
    }

    #[test]
    fn a_program_goes_on_without_its_code() {
        forget().unwrap();
        assert_eq!(format!("{}", 6 * 7), "42");
    }
}
