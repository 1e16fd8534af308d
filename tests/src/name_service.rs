//! Users that no file of the host knows, as with LDAP or SSSD: the C library's own calls find them, /etc/passwd does not have them.
//!
//! libnss_wrapper answers in place of the name service, in the programs that are given its environment and in no other.

use std::{fs, os::unix::fs::chown, path::PathBuf};

use crate::{account::User, slot::Slot};

/// What daemons and programs need to know the users of a name service.
#[derive(Clone, Debug)]
pub struct NameService {
    pub users: Vec<User>,
    pub env: Vec<(String, String)>,
}

impl NameService {
    /// All accounts of the host so far, and `names` with a home each.
    #[track_caller]
    pub fn create(slot: &Slot, names: &[&str]) -> Self {
        let mut passwd = fs::read_to_string("/etc/passwd").expect("read passwd");
        let mut group = fs::read_to_string("/etc/group").expect("read group");
        let mut users = Vec::new();
        for (number, name) in (0..).zip(names) {
            // Above all that useradd gives, below what it gives to subordinate ids.
            let uid = 70_000 + slot.number * 16 + number;
            let user = User { name: format!("{}{name}", slot.account_prefix()), uid, gid: uid, home: slot.dir.join("home").join(name) };
            passwd.push_str(&format!("{0}:x:{uid}:{uid}::{1}:/bin/sh\n", user.name, user.home.display()));
            group.push_str(&format!("{}:x:{uid}:\n", user.name));
            fs::create_dir_all(&user.home).expect("make the home");
            chown(&user.home, Some(uid), Some(uid)).expect("give the home");
            users.push(user);
        }
        let write = |name: &str, text: String| -> PathBuf {
            let path = slot.dir.join(name);
            fs::write(&path, text).expect("write accounts");
            path
        };
        let (passwd, group) = (write("passwd", passwd), write("group", group));
        let variable = |name: &str, value: PathBuf| (name.to_owned(), value.to_string_lossy().into_owned());
        let env = vec![
            variable("LD_PRELOAD", "libnss_wrapper.so".into()),
            variable("NSS_WRAPPER_PASSWD", passwd),
            variable("NSS_WRAPPER_GROUP", group),
        ];
        Self { users, env }
    }
}
