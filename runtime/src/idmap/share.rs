//! Id maps of mounts by which a berth sees directories of the host. Pure: which ids on disk are which ids of the host's kernel.
//!
//! One bijection each for uids and gids. On disk the user's own id stands for one id of the berth's range, his supplementary groups for
//! reserved ids at the top of the range, and the rest of the range for itself; everything else on disk is nobody inside, and cannot be
//! made. A file of the base id itself never appears on disk: base always stands for the user, or is not mapped.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::COUNT;

/// Supplementary groups that are mapped; further ones are nobody inside.
pub const MOST_GROUPS: usize = 64;
/// The first supplementary group inside; the others count down from it. 65534 is nobody, 65535 is no id for 16-bit programs.
const TOP_GROUP: u32 = 65533;
/// The user inside, when his own number is too large for that or reserved.
const RESERVED: u32 = TOP_GROUP - MOST_GROUPS as u32;

/// Whose directories they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups that are mapped, in order; see [`Account::new`].
    groups: Vec<u32>,
}

/// What the user's own id is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// Container root is the user.
    Root,
    /// The user has his own number, or the reserved one; container root is not mapped.
    Own,
    /// The same with root's group, for those who name a user and no group.
    OwnInRootsGroup,
}

/// Files of the range that are to become the user's before the range may be another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiveBack {
    pub uid: u32,
    pub gid: u32,
    pub id_base: u32,
    /// Directories that were mapped for writing, and whether that is the home.
    pub directories: Vec<(PathBuf, bool)>,
}

/// One line of a map: first id on disk, first id of the kernel, count.
pub type Line = (u32, u32, u32);

impl Account {
    /// Drops from `groups` what stands for itself already or must not be mapped: the primary group, doubles, group 0, ids of the range.
    pub fn new(uid: u32, gid: u32, groups: &[u32], base: u32) -> Self {
        let mut kept: Vec<u32> = Vec::new();
        for &group in groups {
            if group != 0 && group != gid && !in_range(group, base) && !kept.contains(&group) && kept.len() < MOST_GROUPS {
                kept.push(group);
            }
        }
        Self { uid, gid, groups: kept }
    }

    /// The supplementary groups as they are inside.
    pub fn groups_inside(&self) -> Vec<u32> {
        (0..self.groups.len()).map(|n| TOP_GROUP - n as u32).collect()
    }

    /// The uid map, for a berth whose range begins at `base`.
    pub fn uid_map(&self, base: u32, role: As) -> Vec<Line> {
        let inside = if role == As::Root { 0 } else { inside(self.uid) };
        lines(base, &[(self.uid, inside)])
    }

    pub fn gid_map(&self, base: u32, role: As) -> Vec<Line> {
        let own = if role == As::Own { inside(self.gid) } else { 0 };
        let groups = self.groups.iter().copied().zip(self.groups_inside());
        lines(base, &[(self.gid, own)].into_iter().chain(groups).collect::<Vec<_>>())
    }
}

/// What a uid or gid of the host is inside where it keeps its number: itself, or the reserved one.
pub fn inside(id: u32) -> u32 {
    if (1..RESERVED).contains(&id) { id } else { RESERVED }
}

/// True for the ids of the berth.
pub fn in_range(id: u32, base: u32) -> bool {
    (base..base + COUNT).contains(&id)
}

/// The pairs (id on disk, id inside), and around them the range standing for itself. Base is in it only as one of the pairs.
fn lines(base: u32, pairs: &[(u32, u32)]) -> Vec<Line> {
    let mut lines: Vec<Line> = pairs.iter().map(|&(on_disk, inside)| (on_disk, base + inside, 1)).collect();
    let mut taken: Vec<u32> = pairs.iter().map(|&(_, inside)| inside).chain([0, COUNT]).collect();
    taken.sort_unstable();
    taken.dedup();
    for gap in taken.windows(2) {
        let (first, count) = (gap[0] + 1, gap[1] - gap[0] - 1);
        if count > 0 {
            lines.push((base + first, base + first, count));
        }
    }
    lines
}

/// The text for `uid_map` or `gid_map` of the user namespace that a mount is id-mapped with: there "inside" is the disk.
pub(crate) fn text(lines: &[Line]) -> String {
    lines.iter().map(|(on_disk, kernel, count)| format!("{on_disk} {kernel} {count}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u32 = 2_000_224_256;

    fn all_maps(account: &Account) -> Vec<Vec<Line>> {
        let roles = [As::Root, As::Own, As::OwnInRootsGroup];
        roles.iter().flat_map(|role| [account.uid_map(BASE, *role), account.gid_map(BASE, *role)]).collect()
    }

    fn on_disk(lines: &[Line], kernel: u32) -> Option<u32> {
        lines.iter().find(|(_, k, count)| (*k..k + count).contains(&kernel)).map(|(d, k, _)| d + (kernel - k))
    }

    #[test]
    fn h01_the_user_is_root_inside_and_his_groups_are_reserved_ids() {
        let account = Account::new(1000, 1000, &[1000, 27, 0, 27, 2000], BASE);
        assert_eq!(account.uid_map(BASE, As::Root), [(1000, BASE, 1), (BASE + 1, BASE + 1, 65535)]);
        let gids = account.gid_map(BASE, As::Root);
        assert_eq!(account.groups_inside(), [65533, 65532]);
        assert_eq!(on_disk(&gids, BASE), Some(1000));
        assert_eq!(on_disk(&gids, BASE + 65533), Some(27));
        assert_eq!(on_disk(&gids, BASE + 65532), Some(2000));
        assert_eq!(on_disk(&gids, BASE + 5), Some(BASE + 5));
    }

    #[test]
    fn h01_the_second_map_keeps_the_users_number_and_leaves_root_out() {
        let account = Account::new(1000, 100, &[], BASE);
        let (uids, gids) = (account.uid_map(BASE, As::Own), account.gid_map(BASE, As::Own));
        assert_eq!((on_disk(&uids, BASE + 1000), on_disk(&uids, BASE)), (Some(1000), None));
        assert_eq!((on_disk(&gids, BASE + 100), on_disk(&gids, BASE)), (Some(100), None));
        let gids = account.gid_map(BASE, As::OwnInRootsGroup);
        assert_eq!((on_disk(&gids, BASE), on_disk(&gids, BASE + 100)), (Some(100), Some(BASE + 100)));
        let ldap = Account::new(1_234_567, 1_234_567, &[], BASE);
        assert_eq!(inside(1_234_567), 65469);
        assert_eq!(on_disk(&ldap.uid_map(BASE, As::Own), BASE + 65469), Some(1_234_567));
    }

    #[test]
    fn no_map_shows_the_base_id_on_a_disk_and_all_are_bijections_into_the_range() {
        let many: Vec<u32> = (3000..3100).collect();
        for account in [
            Account::new(1000, 1000, &many, BASE),
            Account::new(65534, 65535, &[BASE, BASE + 7, 65534], BASE),
            Account::new(1, 65533, &[65469], BASE),
            Account::new(65468, 65468, &many, BASE),
        ] {
            for lines in all_maps(&account) {
                assert!(lines.len() <= 340, "the kernel takes no more lines");
                for (n, (disk, kernel, count)) in lines.iter().enumerate() {
                    assert!(!(*disk..disk + count).contains(&BASE), "{lines:?}");
                    assert!(*kernel >= BASE && kernel + count <= BASE + COUNT, "{lines:?}");
                    for (other, other_kernel, length) in &lines[n + 1..] {
                        assert!(disk + count <= *other || other + length <= *disk, "{lines:?}");
                        assert!(kernel + count <= *other_kernel || other_kernel + length <= *kernel, "{lines:?}");
                    }
                }
            }
        }
    }
}
