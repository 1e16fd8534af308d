//! Every quota through the API: set, refused, taken back, shown.

#![forbid(unsafe_code)]

mod support;

use serde_json::{Value, json};
use support::{DAEMON, ROOT, Server, problem};

const ALICE: &str = "/api/v1/berths/alice";

/// All limits that a profile of a fresh installation leaves out, with values.
fn all() -> Value {
    json!({
        "cpu_weight": 200, "memory_high_bytes": 1_u64 << 30, "swap_bytes": 512_u64 << 20, "inodes": 100_000,
        "io_read_bps": 10_u64 << 20, "io_write_bps": 20_u64 << 20, "io_read_iops": 300, "io_write_iops": 400,
        "network_egress_bits": 100_000_000, "network_ingress_bits": 50_000_000,
    })
}

async fn set(server: &Server, change: Value) -> Value {
    let accepted = server.send(ROOT, "PATCH", ALICE, Some(change)).await;
    server.end_of(accepted).await
}

#[tokio::test]
async fn q06_every_limit_reaches_the_node_and_goes_back_to_the_profile() {
    let server = Server::start().await;
    let before = server.assign("alice").await;
    assert_eq!((&before["limits"]["cpu_weight"], &before["limits"]["swap_bytes"]), (&json!(100), &json!(0)));
    assert!(before["limits"].get("io_read_bps").is_none(), "{before}");
    let change = all();
    assert_eq!(set(&server, change.clone()).await["state"], "succeeded");
    let after = server.get(ALICE).await;
    for (field, value) in change.as_object().unwrap() {
        assert_eq!(after["limits"][field], *value, "{field}");
        assert!(after["own_limits"].as_array().unwrap().contains(&json!(field)), "{after}");
    }
    let asked = server.node.inner.lock().unwrap().asked["alice"].limits;
    assert_eq!((asked.cpu_weight, asked.memory_high_bytes, asked.swap_bytes, asked.inodes), (200, Some(1 << 30), 512 << 20, Some(100_000)));
    let io = berth_protocol::IoLimits { read_bps: Some(10 << 20), write_bps: Some(20 << 20), read_iops: Some(300), write_iops: Some(400) };
    let network = berth_protocol::NetworkLimits { egress_bits: Some(100_000_000), ingress_bits: Some(50_000_000) };
    assert_eq!((asked.io, asked.network), (io, network));
    let back: serde_json::Map<_, _> = change.as_object().unwrap().keys().map(|field| (field.clone(), Value::Null)).collect();
    assert_eq!(set(&server, back.into()).await["state"], "succeeded");
    let after = server.get(ALICE).await;
    assert_eq!((&after["limits"], &after["own_limits"]), (&before["limits"], &json!([])));
    assert_eq!(server.node.inner.lock().unwrap().asked["alice"].limits, asked_of(&after));
}

fn asked_of(berth: &Value) -> berth_protocol::Limits {
    let limits = &berth["limits"];
    let of = |field: &str| limits[field].as_u64().unwrap();
    berth_protocol::Limits {
        cpu_millis: of("cpu_millis") as u32,
        cpu_weight: of("cpu_weight") as u32,
        memory_bytes: of("memory_bytes"),
        swap_bytes: of("swap_bytes"),
        pids: of("pids") as u32,
        disk_bytes: of("disk_bytes"),
        ..berth_protocol::Limits::LEAST
    }
}

#[tokio::test]
async fn a_berth_can_be_free_of_what_its_profile_limits_and_have_an_egress_of_its_own() {
    let server = Server::start().await;
    let mut profile = all();
    profile["policy"] = json!({ "egress": "none" });
    let (status, changed) = server.send(ROOT, "PATCH", "/api/v1/profiles/default", Some(profile)).await;
    assert_eq!((status, &changed["limits"]["io_read_iops"], &changed["policy"]["egress"]), (200, &json!(300), &json!("none")));
    let body = json!({ "user": "alice", "io_read_iops": 0, "network_egress_bits": 1_000_000, "egress": "all" });
    let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(body)).await;
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    let berth = server.get(ALICE).await;
    let limits = &berth["limits"];
    assert_eq!(
        (limits.get("io_read_iops"), &limits["io_write_iops"], &limits["network_egress_bits"]),
        (None, &json!(400), &json!(1_000_000))
    );
    assert_eq!(
        (&berth["policy"]["egress"], &berth["own_limits"]),
        (&json!("all"), &json!(["io_read_iops", "network_egress_bits", "egress"]))
    );
    let asked = server.node.inner.lock().unwrap().asked["alice"].clone();
    assert_eq!((asked.limits.io.read_iops, asked.policy.egress), (None, berth_protocol::Egress::All));

    // Of a profile a limit goes with 0, and a new one starts from the default.
    let (_, changed) = server.send(ROOT, "PATCH", "/api/v1/profiles/default", Some(json!({ "io_write_bps": 0 }))).await;
    assert!(changed["limits"].get("io_write_bps").is_none() && changed["limits"]["io_read_bps"].is_u64(), "{changed}");
    let new = json!({ "name": "lab", "inodes": 0, "cpu_weight": 1, "policy": { "egress": { "list": ["10.0.0.0/8"] } } });
    let (status, made) = server.send(ROOT, "POST", "/api/v1/profiles", Some(new)).await;
    assert_eq!((status, made["limits"].get("inodes"), &made["limits"]["cpu_weight"]), (201, None, &json!(1)));
    assert_eq!(server.get("/api/v1/profiles/lab").await, made);

    assert_eq!(set(&server, json!({ "egress": null, "io_read_iops": null, "profile": "lab" })).await["state"], "succeeded");
    let berth = server.get(ALICE).await;
    assert_eq!(berth["policy"]["egress"], json!({ "list": ["10.0.0.0/8"] }));
    assert_eq!((&berth["limits"]["io_read_iops"], &berth["own_limits"]), (&json!(300), &json!(["network_egress_bits"])));
}

#[tokio::test]
async fn limits_out_of_bounds_name_field_value_bound_and_next_step() {
    let server = Server::start().await;
    let before = server.assign("alice").await;
    for (change, code, detail, hint) in [
        (json!({ "cpu_weight": 0 }), "limit_too_low", "cpu_weight is 0, the least is 1", "ask for 1 or more"),
        (json!({ "cpu_weight": 10_001 }), "limit_too_high", "cpu_weight is 10001, the most is 10000", "ask for 10000 or less"),
        (json!({ "io_read_bps": 1 }), "limit_too_low", "io_read_bps is 1 B/s, the least is 1 MiB/s", "ask for 1 MiB/s or more"),
        (json!({ "io_write_iops": 49 }), "limit_too_low", "the least is 50 operations/s", "50 operations/s or more"),
        (
            json!({ "network_egress_bits": 64_000 }),
            "limit_too_low",
            "network_egress_bits is 64 kbit/s, the least is 100 kbit/s",
            "100 kbit/s",
        ),
        (json!({ "network_ingress_bits": u64::MAX }), "limit_too_high", "the most is 1 Tbit/s", "1 Tbit/s or less"),
        (json!({ "inodes": 16_383 }), "limit_too_low", "inodes is 16383, the least is 16384", "16384"),
        (json!({ "inodes": 1_u64 << 32 }), "limit_too_high", "the most is 4294967295", "4294967295"),
        (json!({ "swap_bytes": (1_u64 << 44) + 1 }), "limit_too_high", "the most is 16 TiB", "16 TiB or less"),
        (json!({ "memory_high_bytes": 1 }), "limit_too_low", "memory_high_bytes is 1 B, the least is 128 MiB", "128 MiB or more"),
        (
            json!({ "memory_high_bytes": 3_u64 << 30 }),
            "limit_too_high",
            "memory_high_bytes is 3 GiB, the most is the memory of the berth, 2 GiB",
            "ask for 2 GiB or less, for none, or for more memory",
        ),
        (json!({ "egress": { "list": ["x"] } }), "invalid_policy", "egress: \"x\" is no IPv4 network", "192.0.2.0/24"),
    ] {
        for (method, path) in [("PATCH", ALICE.to_owned()), ("POST", format!("{ALICE}/preview"))] {
            let (status, answer) = server.send(ROOT, method, &path, Some(change.clone())).await;
            assert_eq!((status, answer["code"].as_str()), (422, Some(code)), "{change}: {answer}");
            assert!(answer["detail"].as_str().unwrap().contains(detail), "{change}: {answer}");
            assert!(answer["hint"].as_str().unwrap().contains(hint), "{change}: {answer}");
        }
    }
    assert_eq!(server.get(ALICE).await, before);
    // A profile may not pull the memory away from under what one of its berths has for itself.
    set(&server, json!({ "memory_high_bytes": 2_u64 << 30 })).await;
    let (status, refused) = server.send(ROOT, "PATCH", "/api/v1/profiles/default", Some(json!({ "memory_bytes": 1_u64 << 30 }))).await;
    assert_eq!((status, refused["code"].as_str()), (422, Some("limit_too_high")), "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("alice") && refused["hint"].as_str().unwrap().contains("berth set alice"));
    assert_eq!(server.get("/api/v1/profiles/default").await["limits"]["memory_bytes"], 2_u64 << 30);
}

#[tokio::test]
async fn q06_what_the_node_refuses_fails_with_its_figures_and_goes_back_whole() {
    let server = Server::start().await;
    let before = server.assign("alice").await;
    let refusal = problem("disk_below_use", "alice uses 3 GiB of her disk, more than the 2 GiB wanted");
    server.node.refuse(409, refusal.clone());
    let change = json!({ "disk_bytes": 2_u64 << 30, "pids": 100, "io_read_bps": 10_u64 << 20, "egress": "none", "profile": "student" });
    let operation = set(&server, change).await;
    assert_eq!((operation["state"].as_str(), operation["problem"]["code"].as_str()), (Some("failed"), Some("disk_below_use")));
    assert_eq!(operation["problem"]["detail"], refusal.detail);
    let after = server.get(ALICE).await;
    for part in ["limits", "own_limits", "profile", "policy", "conditions", "wanted"] {
        assert_eq!(after[part], before[part], "{part}");
    }
    let row = server.get("/api/v1/audit?limit=1").await["items"][0].clone();
    assert_eq!((&row["action"], &row["details"]["code"]), (&json!("undo_change_berth"), &json!("disk_below_use")));
    // The next change carries nothing of it.
    assert_eq!(set(&server, json!({ "pids": 200 })).await["state"], "succeeded");
    let asked = server.node.inner.lock().unwrap().asked["alice"].clone();
    assert_eq!((asked.limits.pids, asked.limits.disk_bytes, asked.limits.io.read_bps), (200, 10 << 30, None));
}

#[tokio::test]
async fn two_changes_that_are_both_refused_go_back_to_before_the_first() {
    let server = Server::start().await;
    let before = server.assign("alice").await;
    server.node.inner.lock().unwrap().slow = true;
    let first = server.send(ROOT, "PATCH", ALICE, Some(json!({ "disk_bytes": 2_u64 << 30 }))).await;
    server.until(&format!("/api/v1/operations/{}", first.1["operation"]["id"].as_str().unwrap()), |one| one["state"] == "running").await;
    for _ in 0..2 {
        server.node.refuse(409, problem("disk_below_use", "3 GiB are in use"));
    }
    let second = server.send(ROOT, "PATCH", ALICE, Some(json!({ "pids": 100 }))).await;
    server.node.inner.lock().unwrap().slow = false;
    for accepted in [first, second] {
        assert_eq!(server.end_of(accepted).await["state"], "failed");
    }
    let after = server.get(ALICE).await;
    assert_eq!((&after["limits"], &after["own_limits"]), (&before["limits"], &json!([])));
}

#[tokio::test]
async fn q06_a_preview_says_what_waits_and_changes_nothing() {
    let server = Server::start().await;
    let before = server.assign("alice").await;
    let calls = server.node.calls();
    let path = format!("{ALICE}/preview");
    let change = json!({ "disk_bytes": 20_u64 << 30, "pids": 100, "cpu_millis": 9000 });
    let (status, preview) = server.send(ROOT, "POST", &path, Some(change)).await;
    assert_eq!(status, 200, "{preview}");
    let mut changes = preview["changes"].as_array().unwrap().clone();
    changes.sort_by_key(|change| change["field"].as_str().unwrap().to_owned());
    assert_eq!(
        Value::from(changes),
        json!([
            { "field": "cpu_millis", "before": 2000, "after": 9000 },
            { "field": "disk_bytes", "before": 10_u64 << 30, "after": 20_u64 << 30, "waits": "this kernel grows no mounted disk" },
            { "field": "pids", "before": 1024, "after": 100 },
        ])
    );
    assert_eq!(preview["warnings"][0]["code"], "cpu_overcommitted");
    let (_, preview) = server.send(ROOT, "POST", &path, Some(json!({ "profile": "student", "egress": "none" }))).await;
    let fields: Vec<_> = preview["changes"].as_array().unwrap().iter().map(|change| change["field"].as_str().unwrap()).collect();
    assert!(["profile", "memory_bytes", "egress"].iter().all(|field| fields.contains(field)), "{preview}");
    server.node.refuse(409, problem("disk_below_use", "3 GiB are in use"));
    let (status, refused) = server.send(ROOT, "POST", &path, Some(json!({ "disk_bytes": 2_u64 << 30 }))).await;
    assert_eq!((status, refused["detail"].as_str()), (409, Some("3 GiB are in use")));
    assert_eq!(server.get(ALICE).await, before);
    assert_eq!(server.node.calls(), calls);
    let (status, refused) = server.send(DAEMON, "POST", &path, Some(json!({}))).await;
    assert_eq!((status, refused["code"].as_str()), (403, Some("not_permitted")));
}

#[tokio::test]
async fn use_is_told_fresh_to_whom_it_belongs_and_the_node_is_asked_once_for_many() {
    let server = Server::start().await;
    server.assign("alice").await;
    let body = json!({ "user": "daemon", "allow_system": true, "disk_bytes": 1_u64 << 30 });
    let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(body)).await;
    server.end_of(accepted).await;
    let usage = berth_protocol::Usage {
        memory_bytes: 5,
        io: berth_protocol::IoUsage { read_bytes: 7, ..Default::default() },
        pressure: Some(berth_protocol::Pressure {
            io: berth_protocol::Stall { some_avg10: 1234, ..Default::default() },
            ..Default::default()
        }),
        ..Default::default()
    };
    // Nobody is told of it: only who asks reads it.
    server.node.inner.lock().unwrap().berths.get_mut("alice").unwrap().usage = Some(usage);
    let asked = server.node.inner.lock().unwrap().usage_asked;
    let all = futures_util::future::join_all((0..20).map(|_| server.get("/api/v1/usage"))).await;
    assert_eq!(server.node.inner.lock().unwrap().usage_asked, asked + 1);
    for told in &all {
        assert_eq!(told["items"].as_array().unwrap().len(), 2, "{told}");
        let alice = &told["items"][0];
        assert_eq!((&alice["user"], &alice["usage"]["memory_bytes"]), (&json!("alice"), &json!(5)));
        assert_eq!((&alice["usage"]["io"]["read_bytes"], &alice["usage"]["pressure"]["io"]["some_avg10"]), (&json!(7), &json!(1234)));
        assert_eq!(alice["limits"]["pids"], 1024);
        assert!(support::now() - alice["at"].as_i64().unwrap() < 2_000, "{alice}");
    }
    let one = server.get("/api/v1/usage?user=alice").await;
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    let (_, own) = server.send(DAEMON, "GET", "/api/v1/usage", None).await;
    assert_eq!((own["items"].as_array().unwrap().len(), &own["items"][0]["user"]), (1, &json!("daemon")));
    let (status, foreign) = server.send(DAEMON, "GET", "/api/v1/usage?user=alice", None).await;
    assert_eq!((status, foreign["code"].as_str()), (404, Some("berth_not_found")));
    // One that does not run uses nothing.
    let accepted = server.send(ROOT, "POST", &format!("{ALICE}/stop"), None).await;
    server.end_of(accepted).await;
    assert_eq!(server.get("/api/v1/usage?user=alice").await["items"], json!([]));
}

#[tokio::test]
async fn q06_a_berth_that_cannot_follow_its_profile_keeps_what_it_had_and_says_so() {
    let server = Server::start().await;
    let before = server.assign("alice").await;
    server.node.refuse(409, problem("disk_below_use", "alice uses 3 GiB of her disk, more than the 2 GiB wanted"));
    let change = json!({ "disk_bytes": 2_u64 << 30, "io_read_bps": 10_u64 << 20 });
    let (status, _) = server.send(ROOT, "PATCH", "/api/v1/profiles/default", Some(change)).await;
    assert_eq!(status, 200);
    let told = |berth: &Value| berth["conditions"][0]["kind"] == "NotAsWanted";
    let berth = server.until(ALICE, told).await;
    assert_eq!(berth["limits"], before["limits"]);
    assert_eq!(berth["own_limits"], json!(["disk_bytes", "io_read_bps"]));
    assert_eq!(berth["conditions"][0]["message"], "alice uses 3 GiB of her disk, more than the 2 GiB wanted");
    assert_eq!(server.get("/api/v1/audit?limit=1").await["items"][0]["action"], "keep_limits");
    // It works all the same, which says nothing of the profile.
    server.node.change("alice", |status| status.running_containers = Some(3));
    let berth = server.until(ALICE, |berth| berth["running_containers"] == 3).await;
    assert!(told(&berth), "{berth}");
    let accepted = server.send(ROOT, "POST", &format!("{ALICE}/restart"), None).await;
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    // Once there is room, it follows again.
    assert_eq!(set(&server, json!({ "disk_bytes": null, "io_read_bps": null })).await["state"], "succeeded");
    let berth = server.get(ALICE).await;
    assert_eq!((&berth["limits"]["disk_bytes"], &berth["own_limits"]), (&json!(2_u64 << 30), &json!([])));
    assert_eq!(berth["conditions"], json!([]));
}
