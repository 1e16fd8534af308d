//! Berths that sleep, and what becomes of their memory then.

use std::{fs, io::ErrorKind};

use serde_json::json;

use crate::{Berth, Host};

/// Frozen after a second without use, never stopped.
#[track_caller]
pub(super) fn let_sleep(host: &Host, berth: &Berth<'_>) {
    let status = berth.status();
    let ensure = json!({
        "id": status["id"], "image": status["image"], "limits": status["limits"], "wanted": "running", "allow_system": false,
        "policy": { "idle": { "freeze_after": 1, "stop_after": null } },
    });
    let answer = host.node_api("PUT", &format!("/v1/berths/{}", berth.name()), Some(&ensure.to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Takes all memory of the payload that the kernel can give elsewhere: page cache, and anonymous memory where there is swap. The bytes.
#[track_caller]
pub(super) fn reclaim(berth: &Berth<'_>) -> f64 {
    let id = berth.id();
    let names = [id.clone(), format!("berth-{id}.scope")];
    let groups = berth.host.slot.groups();
    let payloads = groups.iter().flat_map(|group| names.iter().map(move |name| group.join(name).join("payload")));
    let number = |file: std::path::PathBuf| fs::read_to_string(file).ok().and_then(|n| n.trim().parse::<f64>().ok());
    for dir in payloads {
        for (control, usage) in [("memory.reclaim", "memory.current"), ("memory.force_empty", "memory.usage_in_bytes")] {
            let (control, usage) = (dir.join(control), dir.join(usage));
            let (true, Some(before)) = (control.exists(), number(usage.clone())) else { continue };
            // EAGAIN: not all that was asked for could be freed, which is what asking for everything comes to; EBUSY says the same on v1.
            match fs::write(&control, if control.ends_with("memory.reclaim") { format!("{before:.0}") } else { "0".to_owned() }) {
                Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ResourceBusy) => {
                    panic!("{}: {error}", control.display())
                }
                _ => {}
            }
            return before - number(usage).unwrap_or(before);
        }
    }
    panic!("no memory group of {} in {groups:?}", berth.name());
}
