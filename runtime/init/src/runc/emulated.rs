//! The emulated files of `/proc` and `/sys` in inner containers: mounts that are added to a container's configuration.
//!
//! A container's `/proc` is a new one, in which nothing is covered. runc lets binds be laid over these files of it and no others.

use std::{fs::File, io::Read, path::Path};

use serde_json::{Value, json};

/// Where the runtime mounted them in the berth.
const EMULATED: &str = "/dev/.berth/emulated";
/// What runc allows (libcontainer, `checkProcMount`; in `/sys` it allows all); the names there are the last parts.
const IN_PROC: [&str; 6] = ["/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/loadavg", "/proc/swaps", "/proc/diskstats"];
const IN_SYS: [&str; 3] = ["/sys/devices/system/cpu/online", "/sys/devices/system/cpu/possible", "/sys/devices/system/cpu/present"];
/// A `/proc` and a `/sys` without covers, for containers that may see all of them.
const UNCOVERED: [&str; 2] = ["/dev/.berth/proc", "/dev/.berth/sys"];

/// True while they are served: a container with a mount of what is not would not start.
pub(crate) fn served() -> bool {
    File::open(Path::new(EMULATED).join("online")).and_then(|mut file| file.read(&mut [0; 1])).is_ok_and(|read| read == 1)
}

/// Adds what belongs into a container about to be made; true when there was something.
///
/// In a container whose `/proc` is not masked (a privileged one) a user namespace may be made, and a `/proc` mounted there; that needs
/// one beside it that is fully visible, and there the covers would be locked (`mount_too_revealing` in fs/namespace.c).
pub(crate) fn add(config: &mut Value) -> bool {
    let mounts = config.get("mounts").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of = |destination: &str| mounts.iter().find(|mount| destination_of(mount) == Some(destination));
    let new = |destination: &str, kind: &str| of(destination).filter(|mount| mount.get("type").is_some_and(|own| own == kind));
    let (proc, sys) = (new("/proc", "proc"), new("/sys", "sysfs"));

    let files = IN_PROC.iter().filter(|_| proc.is_some()).chain(IN_SYS.iter().filter(|_| sys.is_some()));
    let mut added: Vec<Value> = files.filter(|file| of(file).is_none()).filter_map(|file| bind(file)).collect();
    let masked = config.pointer("/linux/maskedPaths").and_then(Value::as_array).is_some_and(|paths| !paths.is_empty());
    if !masked && !added.is_empty() {
        added.extend([proc, sys].into_iter().zip(UNCOVERED).filter_map(|(own, uncovered)| {
            let mut copy = own?.clone();
            copy["destination"] = json!(uncovered);
            Some(copy)
        }));
    }
    let is_something = !added.is_empty();
    if let Some(mounts) = config.get_mut("mounts").and_then(Value::as_array_mut) {
        mounts.extend(added);
    }
    is_something
}

fn bind(file: &str) -> Option<Value> {
    let source = Path::new(EMULATED).join(Path::new(file).file_name()?);
    Some(json!({"destination": file, "type": "bind", "source": source, "options": ["bind", "ro", "nosuid", "nodev", "noexec"]}))
}

/// Without slashes at its end.
fn destination_of(mount: &Value) -> Option<&str> {
    let path = mount.get("destination")?.as_str()?;
    Some(path.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(masked: &[&str], more: &[Value]) -> Value {
        let mut mounts = vec![
            json!({"destination": "/proc/", "type": "proc", "source": "proc", "options": ["nosuid"]}),
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "ro"]}),
        ];
        mounts.extend_from_slice(more);
        json!({"mounts": mounts, "linux": {"maskedPaths": masked}})
    }

    fn destinations(config: &Value) -> Vec<&str> {
        config["mounts"].as_array().unwrap().iter().map(|m| m["destination"].as_str().unwrap()).collect()
    }

    #[test]
    fn p03_an_inner_container_gets_the_emulated_files_after_its_own_mounts() {
        let mut found = config(&["/proc/kcore"], &[]);
        assert!(add(&mut found));
        let all: Vec<&str> = ["/proc/", "/sys"].into_iter().chain(IN_PROC).chain(IN_SYS).collect();
        assert_eq!(destinations(&found), all);
        assert_eq!(found["mounts"][2]["source"], "/dev/.berth/emulated/meminfo");
        assert_eq!(found["mounts"][2]["options"], json!(["bind", "ro", "nosuid", "nodev", "noexec"]));
    }

    #[test]
    fn p04_one_that_may_see_all_gets_an_uncovered_proc_and_sys_beside() {
        let mut found = config(&[], &[]);
        assert!(add(&mut found));
        let expected = json!({"destination": "/dev/.berth/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "ro"]});
        assert_eq!(found["mounts"].as_array().unwrap().last(), Some(&expected));
        assert_eq!(found["mounts"].as_array().unwrap().len(), 2 + 9 + 2);
        // runc leaves the key out when there is nothing.
        let mut found = json!({"mounts": config(&[], &[])["mounts"], "linux": {}});
        assert!(add(&mut found) && destinations(&found).contains(&"/dev/.berth/proc"));
    }

    #[test]
    fn what_somebody_asked_for_himself_stays() {
        let own = json!({"destination": "/proc/meminfo", "type": "bind", "source": "/mine", "options": ["bind"]});
        let mut found = config(&["/proc/kcore"], &[own]);
        assert!(add(&mut found));
        assert_eq!(destinations(&found).iter().filter(|d| **d == "/proc/meminfo").count(), 1);
        assert_eq!(found["mounts"][2]["source"], "/mine");
        // The berth's own /proc in it has its covers.
        let bound = json!([{"destination": "/proc", "type": "bind", "source": "/proc"}, {"destination": "/sys", "type": "none"}]);
        let mut found = json!({"mounts": bound});
        assert!(!add(&mut found));
        assert_eq!(found, json!({"mounts": bound}));
        for text in [json!({}), json!([]), json!({"mounts": 7}), json!({"mounts": [1, {}]})] {
            let mut found = text.clone();
            assert!(!add(&mut found));
            assert_eq!(found, text);
        }
    }
}
