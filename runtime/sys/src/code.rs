//! The program's own code in memory.

use std::{ffi::c_void, fs, io, ops::Range, ptr, sync::OnceLock};

/// Where the code lay at the first call. What is loaded at the start of a program is never unloaded.
static CODE: OnceLock<Vec<Range<usize>>> = OnceLock::new();

/// Gives back the pages that hold this process's code, its libraries' included: what is needed again is mapped again from the page cache,
/// where it stays. At the first call `/proc` has to be there, and this process dumpable or root.
pub fn forget() -> io::Result<()> {
    let code = match CODE.get() {
        Some(code) => code,
        None => {
            let maps = fs::read_to_string("/proc/self/maps")?;
            CODE.get_or_init(|| maps.lines().filter_map(code).collect())
        }
    };
    for mapping in code {
        // SAFETY: a private mapping of a file that never was writable holds what the file does, and nobody takes the mapping away.
        let done = unsafe { libc::madvise(ptr::with_exposed_provenance_mut::<c_void>(mapping.start), mapping.len(), libc::MADV_DONTNEED) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Addresses of a line of proc_pid_maps(5), if it is code of a file, or what stands before it from the file's first byte on: headers,
/// relocations, texts. Other read-only data is not: relocations were written there.
fn code(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights, offset, file) = (words.next()?, words.next()?, words.next()?, words.nth(2)?);
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let unwritten = rights == "r-xp" || rights == "r--p" && number(offset)? == 0;
    (unwritten && file.starts_with('/')).then_some(number(start)?..number(end)?)
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
        let first = text.replace("r-xp 00001000", "r--p 00000000");
        assert_eq!(code(&first), Some(0x7f00_0000_1000..0x7f00_0000_3000));
        assert_eq!(code(&first.replace("r--p", "rw-p")), None);
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
