//! What sysinfo(2) answers, as it lies in the caller's memory.

use super::figures::Memory;

/// How wide the caller's machine words are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    Bits32,
    Bits64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sysinfo {
    /// Seconds.
    pub(super) uptime: u64,
    pub(super) loads: [f64; 3],
    pub(super) memory: Totals,
    pub(super) shared: u64,
    pub(super) threads: u64,
}

/// In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) total: u64,
    pub(super) free: u64,
    pub(super) swap: u64,
    pub(super) swap_free: u64,
}

impl Totals {
    /// `host`: its memory and swap.
    pub(super) fn new(host: (u64, u64), memory: &Memory) -> Self {
        let total = memory.limit.min(host.0);
        // What is there already of a limit that was lowered since is shown, rather than more used than there is.
        let swap = memory.swap_limit.max(memory.swap_used).min(host.1);
        Self { total, free: total.saturating_sub(memory.used), swap, swap_free: swap.saturating_sub(memory.swap_used) }
    }
}

/// `struct sysinfo` of `linux/sysinfo.h`: 112 bytes, or 64.
pub(super) fn image(info: &Sysinfo, words: Words) -> Vec<u8> {
    let Totals { total, free, swap, swap_free } = info.memory;
    // As the kernel does for narrow callers: a unit with which the largest fits.
    let mut unit = 1;
    while words == Words::Bits32 && total.max(swap) / unit > u64::from(u32::MAX) && unit < 1 << 31 {
        unit *= 2;
    }
    let mut bytes = Vec::with_capacity(112);
    let word = |bytes: &mut Vec<u8>, value: u64| match words {
        Words::Bits32 => bytes.extend(u32::try_from(value).unwrap_or(u32::MAX).to_ne_bytes()),
        Words::Bits64 => bytes.extend(value.to_ne_bytes()),
    };
    word(&mut bytes, info.uptime);
    // Fixed point, 16 bits behind it.
    info.loads.iter().for_each(|load| word(&mut bytes, (load.max(0.0) * 65_536.0) as u64));
    [total, free, info.shared, 0, swap, swap_free].iter().for_each(|value| word(&mut bytes, value / unit));
    bytes.extend(u16::try_from(info.threads).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.extend([0; 2]);
    if words == Words::Bits64 {
        bytes.extend([0; 4]);
    }
    // High memory: none.
    (0..2).for_each(|_| word(&mut bytes, 0));
    bytes.extend(u32::try_from(unit).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.resize(if words == Words::Bits64 { 112 } else { 64 }, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(total: u64) -> Sysinfo {
        let memory = Totals { total, free: total / 2, swap: 0, swap_free: 0 };
        Sysinfo { uptime: 77, loads: [0.5, 1.0, 2.0], memory, shared: 4096, threads: 9 }
    }

    #[test]
    fn p03_both_layouts_are_the_kernels() {
        let wide = image(&info(1 << 30), Words::Bits64);
        let word = |n: usize| u64::from_ne_bytes(wide[8 * n..8 * n + 8].try_into().unwrap());
        assert_eq!(
            (wide.len(), (0..10).map(word).collect::<Vec<_>>()),
            (112, vec![77, 32_768, 65_536, 131_072, 1 << 30, 1 << 29, 4096, 0, 0, 0])
        );
        assert_eq!((&wide[80..82], &wide[104..108]), (&9_u16.to_ne_bytes()[..], &1_u32.to_ne_bytes()[..]));

        let narrow = image(&info(1 << 30), Words::Bits32);
        let word = |bytes: &[u8], n: usize| u32::from_ne_bytes(bytes[4 * n..4 * n + 4].try_into().unwrap());
        assert_eq!((narrow.len(), word(&narrow, 0), word(&narrow, 4), word(&narrow, 13)), (64, 77, 1 << 30, 1));
        // 64 GiB in units of 32 bytes.
        let large = image(&info(64 << 30), Words::Bits32);
        assert_eq!(u64::from(word(&large, 4)) * u64::from(word(&large, 13)), 64 << 30);
    }
}
