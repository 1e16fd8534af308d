//! How what is free on the host is divided among berths. Pure.
//!
//! Nothing may be promised twice: what a berth has taken inside (written and not yet on the host, or only allocated) cannot be refused
//! to it any more, and would be an I/O error in its file system, and in its neighbours', where the host has no block for it. So at
//! every moment `committed` of all and the room of all together are no more than what the host has free, less a floor that is left.
//! That holds without anybody looking: looking only moves room to who needs it.

/// One berth, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// What its limit leaves it.
    pub(super) own: u64,
    /// What it has taken and the host has not given yet.
    pub(super) committed: u64,
    /// Its room is what it is: nobody can lower it just now.
    pub(super) fixed: bool,
}

/// What came of it, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Division {
    /// Free on the host when all that was taken is written.
    pub(super) free: u64,
    /// Below so much free, users are told.
    pub(super) mark: u64,
    /// What all rooms together may be.
    pub(super) budget: u64,
    /// Room of each, in the order of the claims.
    pub(super) rooms: Vec<u64>,
}

/// `total` and `free` of the host's file system; `low_water` in hundredths of a percent. Half of the mark is left to the host.
pub(super) fn divide(total: u64, free: u64, low_water: u32, claims: &[Claim]) -> Division {
    let committed: u64 = claims.iter().map(|claim| claim.committed).sum();
    let fixed: u64 = claims.iter().filter(|claim| claim.fixed).map(|claim| claim.own).sum();
    let mark = (u128::from(total) * u128::from(low_water) / 10_000) as u64;
    let free = free.saturating_sub(committed);
    let budget = free.saturating_sub(mark / 2);
    let level = level(budget.saturating_sub(fixed), claims.iter().filter(|claim| !claim.fixed).map(|claim| claim.own).collect());
    let rooms = claims.iter().map(|claim| if claim.fixed { claim.own } else { claim.own.min(level) }).collect();
    Division { free, mark, budget, rooms }
}

/// The most that each may get so that the sum fits: whoever wants less leaves the rest to the others.
fn level(mut budget: u64, mut wanted: Vec<u64>) -> u64 {
    wanted.sort_unstable();
    for (index, &want) in wanted.iter().enumerate() {
        let share = budget / (wanted.len() - index) as u64;
        if want > share {
            return share;
        }
        budget -= want;
    }
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn berth(own: u64, committed: u64) -> Claim {
        Claim { own, committed, fixed: false }
    }

    #[test]
    fn where_all_fits_nobody_is_cut() {
        let division = divide(100 * GIB, 50 * GIB, 500, &[berth(10 * GIB, 0), berth(20 * GIB, GIB)]);
        assert_eq!(division.rooms, [10 * GIB, 20 * GIB]);
        assert_eq!((division.mark, division.free), (5 * GIB, 49 * GIB));
    }

    #[test]
    fn q08_what_does_not_fit_is_shared_and_who_wants_little_gets_it() {
        let claims = [berth(4 * GIB, 0), berth(4 * GIB, 0), berth(GIB, 0)];
        let division = divide(6 * GIB, 6 * GIB, 500, &claims);
        assert_eq!(division.rooms[2], GIB);
        assert_eq!(division.rooms[0], division.rooms[1]);
        let all: u64 = division.rooms.iter().sum();
        let left = 6 * GIB - all;
        assert!(all <= division.budget && left >= division.mark / 2 && left < division.mark / 2 + 4, "{division:?}");
    }

    #[test]
    fn q08_what_is_taken_and_not_written_is_nobodys_room() {
        let division = divide(6 * GIB, 6 * GIB, 500, &[berth(4 * GIB, 3 * GIB), berth(4 * GIB, 2 * GIB)]);
        assert_eq!(division.free, GIB);
        assert!(division.rooms.iter().sum::<u64>() <= GIB - division.mark / 2);
        let full = divide(6 * GIB, 6 * GIB, 500, &[berth(4 * GIB, 4 * GIB), berth(4 * GIB, 4 * GIB)]);
        assert_eq!((full.free, full.rooms), (0, vec![0, 0]));
    }

    #[test]
    fn who_cannot_be_cut_is_left_what_it_has_and_the_others_make_room() {
        let start = Claim { own: 2 * GIB, committed: 0, fixed: true };
        let division = divide(6 * GIB, 3 * GIB, 500, &[start, berth(4 * GIB, 0)]);
        assert_eq!(division.rooms[0], 2 * GIB);
        assert!(division.rooms[1] <= GIB);
    }

    #[test]
    fn whatever_the_claims_the_rooms_fit() {
        let mut state = 1_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 20) % below
        };
        for _ in 0..2_000 {
            let claims: Vec<Claim> = (0..next(12)).map(|_| berth(next(8 * GIB), next(GIB))).collect();
            let (free, total) = (next(40 * GIB), 40 * GIB);
            let Division { rooms, mark, .. } = divide(total, free, 500, &claims);
            let promised: u64 = rooms.iter().sum::<u64>();
            let committed: u64 = claims.iter().map(|c| c.committed).sum();
            assert!(promised == 0 || promised + committed + mark / 2 <= free, "{claims:?} {free}");
            assert!(rooms.iter().zip(&claims).all(|(room, claim)| *room <= claim.own));
        }
    }
}
