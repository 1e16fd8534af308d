use serde::{Deserialize, Serialize};

/// One table of all limits: those that are always there, with least and most, and those that may be absent, with the least and most of one
/// that is not.
macro_rules! limits {
    (
        always { $($(#[$always_meta:meta])* $always:ident: $kind:ty, $always_least:expr, $always_most:expr;)* }
        optional { $($(#[$optional_meta:meta])* $optional:ident, $optional_least:expr, $optional_most:expr;)* }
    ) => {
        /// Quota of one berth.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Limits {
            $($(#[$always_meta])* pub $always: $kind,)*
            $($(#[$optional_meta])* #[serde(default)] pub $optional: Option<u64>,)*
        }

        /// The limits in which a berth differs from its profile. One that a profile may leave out is 0 where the berth has none whatever
        /// the profile says: 0 is no limit's value.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct OwnLimits {
            $(pub $always: Option<$kind>,)*
            $(pub $optional: Option<u64>,)*
        }

        /// What a change says of each: nothing (it stays), `Some(None)` (the profile's again), or a value.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct LimitChange {
            $(pub $always: Option<Option<$kind>>,)*
            $(pub $optional: Option<Option<u64>>,)*
        }

        impl Limits {
            pub const LEAST: Limits = Limits { $($always: $always_least,)* $($optional: None,)* };
            /// 4096 CPUs, 16 TiB of memory and of swap, the kernel's PID_MAX_LIMIT, 1 PiB of disk, ext4's count of inodes, 1 TiB/s, a
            /// thousand million operations and a Tbit/s: sums over 8,000 berths still fit a BIGINT.
            pub const MOST: Limits = Limits { $($always: $always_most,)* $($optional: Some($optional_most),)* };

            /// Name, value, least and most of each; no value where there is none. The node holds the same figures
            /// (`berth_protocol::Limits::bounds`); a test compares them.
            pub fn bounds(&self) -> Vec<(&'static str, Option<u64>, u64, u64)> {
                vec![
                    $((stringify!($always), Some(u64::from(self.$always)), u64::from(Self::LEAST.$always), u64::from(Self::MOST.$always)),)*
                    $((stringify!($optional), self.$optional, $optional_least, $optional_most),)*
                ]
            }
        }

        impl OwnLimits {
            /// The profile's limits with these in their place.
            pub fn over(&self, profile: Limits) -> Limits {
                Limits {
                    $($always: self.$always.unwrap_or(profile.$always),)*
                    $($optional: self.$optional.or(profile.$optional).filter(|limit| *limit > 0),)*
                }
            }

            /// These, and `kept` wherever it differs from `wanted`: what a node that took none of `wanted` still has.
            pub fn keeping(self, kept: Limits, wanted: Limits) -> OwnLimits {
                OwnLimits {
                    $($always: if kept.$always == wanted.$always { self.$always } else { Some(kept.$always) },)*
                    $($optional: if kept.$optional == wanted.$optional { self.$optional } else { Some(kept.$optional.unwrap_or(0)) },)*
                }
            }

            /// Names of the limits that are set.
            pub fn names(&self) -> Vec<&'static str> {
                let all = [
                    $((stringify!($always), self.$always.is_some()),)*
                    $((stringify!($optional), self.$optional.is_some()),)*
                ];
                all.into_iter().filter_map(|(name, set)| set.then_some(name)).collect()
            }
        }

        impl LimitChange {
            /// What a berth has of its own after the change.
            pub fn over(self, old: OwnLimits) -> OwnLimits {
                OwnLimits {
                    $($always: self.$always.unwrap_or(old.$always),)*
                    $($optional: self.$optional.unwrap_or(old.$optional),)*
                }
            }
        }
    };
}

const MIB: u64 = 1 << 20;
const MOST_MEMORY: u64 = 1 << 44;

limits! {
    always {
        /// Thousandths of a CPU.
        cpu_millis: u32, 50, 4_096_000;
        /// Share of a busy host against other berths.
        #[serde(default = "usual_weight")]
        cpu_weight: u32, 1, 10_000;
        memory_bytes: u64, 256 * MIB, MOST_MEMORY;
        /// On top of the memory.
        #[serde(default)]
        swap_bytes: u64, 0, MOST_MEMORY;
        pids: u32, 64, 1 << 22;
        disk_bytes: u64, 1 << 30, 1 << 50;
    }
    optional {
        /// Above it the berth is throttled and its memory reclaimed.
        memory_high_bytes, 128 * MIB, MOST_MEMORY;
        /// Files and directories; absent: as many as the disk's size gives.
        inodes, 16_384, u32::MAX as u64;
        /// Per second.
        io_read_bps, MIB, 1 << 40;
        io_write_bps, MIB, 1 << 40;
        io_read_iops, 50, 1_000_000_000;
        io_write_iops, 50, 1_000_000_000;
        /// Bits per second, from the berth and to it.
        network_egress_bits, 100_000, 1_000_000_000_000;
        network_ingress_bits, 100_000, 1_000_000_000_000;
    }
}

fn usual_weight() -> u32 {
    Limits::USUAL_WEIGHT
}

/// A limit outside of what a Docker daemon can live with, or a kernel can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimits {
    #[error("{field} is {value}, the least is {bound}")]
    TooLow { field: &'static str, value: u64, bound: u64 },
    #[error("{field} is {value}, the most is {bound}")]
    TooHigh { field: &'static str, value: u64, bound: u64 },
    #[error("memory_high_bytes is {high}, more than the memory_bytes of {memory}")]
    HighAboveMemory { high: u64, memory: u64 },
}

impl Limits {
    /// Of a berth of which nothing else was said.
    pub const USUAL_WEIGHT: u32 = 100;

    pub fn validate(&self) -> Result<(), InvalidLimits> {
        for (field, value, least, most) in self.bounds() {
            match value {
                Some(value) if value < least => return Err(InvalidLimits::TooLow { field, value, bound: least }),
                Some(value) if value > most => return Err(InvalidLimits::TooHigh { field, value, bound: most }),
                _ => {}
            }
        }
        match self.memory_high_bytes {
            Some(high) if high > self.memory_bytes => Err(InvalidLimits::HighAboveMemory { high, memory: self.memory_bytes }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_name_the_field() {
        assert_eq!(Limits::LEAST.validate(), Ok(()));
        assert_eq!(Limits::MOST.validate(), Ok(()));
        let low = Limits { memory_bytes: 1, ..Limits::LEAST };
        assert_eq!(low.validate().unwrap_err().to_string(), "memory_bytes is 1, the least is 268435456");
        let high = Limits { disk_bytes: u64::MAX, ..Limits::LEAST };
        assert!(matches!(high.validate(), Err(InvalidLimits::TooHigh { field: "disk_bytes", .. })));
        let slow = Limits { io_read_iops: Some(49), ..Limits::LEAST };
        assert!(matches!(slow.validate(), Err(InvalidLimits::TooLow { field: "io_read_iops", bound: 50, .. })));
        let throttled = Limits { memory_high_bytes: Some(257 * MIB), ..Limits::LEAST };
        assert!(matches!(throttled.validate(), Err(InvalidLimits::HighAboveMemory { .. })));
    }

    #[test]
    fn own_limits_win_over_the_profile() {
        let own = OwnLimits { pids: Some(100), ..OwnLimits::default() };
        assert_eq!(own.over(Limits::LEAST), Limits { pids: 100, ..Limits::LEAST });
        assert_eq!(own.names(), ["pids"]);
    }

    #[test]
    fn a_berth_may_be_free_of_what_its_profile_limits() {
        let profile = Limits { io_read_bps: Some(MIB), inodes: Some(20_000), ..Limits::LEAST };
        let own = OwnLimits { io_read_bps: Some(0), ..OwnLimits::default() };
        assert_eq!(own.over(profile), Limits { io_read_bps: None, ..profile });
        assert_eq!(own.names(), ["io_read_bps"]);
    }

    #[test]
    fn what_a_node_kept_becomes_the_berths_own() {
        let own = OwnLimits { pids: Some(100), ..OwnLimits::default() };
        let kept = Limits { pids: 100, disk_bytes: 2 << 30, ..Limits::LEAST };
        let wanted = Limits { pids: 100, io_read_bps: Some(MIB), ..Limits::LEAST };
        let expected = OwnLimits { disk_bytes: Some(2 << 30), io_read_bps: Some(0), ..own };
        assert_eq!(own.keeping(kept, wanted), expected);
        assert_eq!(expected.over(wanted), kept);
    }

    #[test]
    fn a_change_keeps_sets_and_gives_back() {
        let old = OwnLimits { pids: Some(100), io_read_bps: Some(MIB), inodes: Some(20_000), ..OwnLimits::default() };
        let change = LimitChange { pids: Some(None), io_read_bps: Some(Some(0)), ..LimitChange::default() };
        let after = OwnLimits { io_read_bps: Some(0), inodes: Some(20_000), ..OwnLimits::default() };
        assert_eq!((change.over(old), LimitChange::default().over(old)), (after, old));
    }

    #[test]
    fn what_was_stored_before_there_were_more_limits_is_read() {
        let old = r#"{"cpu_millis":50,"memory_bytes":268435456,"pids":64,"disk_bytes":1073741824}"#;
        let read: Limits = serde_json::from_str(old).unwrap();
        assert_eq!(read, Limits { cpu_weight: 100, ..Limits::LEAST });
        let own: OwnLimits = serde_json::from_str(r#"{"cpu_millis":null,"memory_bytes":null,"pids":100,"disk_bytes":null}"#).unwrap();
        assert_eq!(own, OwnLimits { pids: Some(100), ..OwnLimits::default() });
    }
}
