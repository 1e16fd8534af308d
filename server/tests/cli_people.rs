//! Tables, rules, ends and requests by the program `berth`.

#![forbid(unsafe_code)]

mod support;

use serde_json::json;
use support::{NOBODY, ROOT, Server, program::Berth};

#[tokio::test]
async fn a_table_is_assigned_line_by_line_listed_and_changed_to_another_profile() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    let table = "\u{feff}user,profile,memory,until\r\nalice,student,,\r\nbob,,1g,2999-03-31\r\nnouser,student,,\r\nbob2,student,much,\r\nalice,,,\r\n";
    let none = berth.fed(&["assign", "--from", "-", "--all-or-none", "--disk", "2g"], table.as_bytes()).await;
    assert_eq!(none.code, 5, "{}{}", none.out, none.err);
    assert!(none.out.contains("nothing was done") && none.out.contains("held back"), "{}", none.out);
    let some = berth.fed(&["assign", "--from", "-", "--disk", "2g", "--profile", "developer", "--json"], table.as_bytes()).await;
    let report: serde_json::Value = serde_json::from_str(&some.out).unwrap();
    assert_eq!((some.code, some.problem()["code"].as_str()), (5, Some("some_refused")));
    let lines: Vec<_> =
        report["entries"].as_array().unwrap().iter().map(|one| format!("{} {} {}", one["line"], one["user"], one["state"])).collect();
    assert_eq!(
        lines,
        [r#"2 "alice" "accepted""#, r#"3 "bob" "accepted""#, r#"4 "nouser" "refused""#, r#"5 "bob2" "refused""#, r#"6 "alice" "refused""#]
    );
    let listed = berth.run(&["list"]).await.ok();
    assert!(listed.contains("the end of 2999-03-31"), "{listed}");
    let listed = berth.run(&["list", "--profile", "developer"]).await.ok();
    assert!(listed.contains("bob") && !listed.contains("alice"), "{listed}");
    let bob = berth.run(&["show", "bob", "--json"]).await.json();
    assert_eq!(
        (&bob["limits"]["memory_bytes"], &bob["limits"]["disk_bytes"], &bob["state"]),
        (&json!(1_u64 << 30), &json!(2_u64 << 30), &json!("stopped"))
    );

    let dry = berth.run(&["set", "--all-of-profile", "student", "--profile", "developer", "--dry-run"]).await.ok();
    assert!(dry.contains("student → developer") && dry.contains("OF THE HOST") && dry.contains("1 of 1 could be changed"), "{dry}");
    berth.run(&["set", "--all-of-profile", "student", "--profile", "developer"]).await.ok();
    let done = berth.run(&["set", "alice", "bob", "--profile", "student", "--until", "never"]).await.ok();
    assert!(done.contains("2 of 2 changed."), "{done}");
    let bob = berth.run(&["show", "bob", "--json"]).await.json();
    assert_eq!((&bob["profile"], bob.get("until")), (&json!("student"), None));
    let dry = berth.run(&["assign", "bob2", "--dry-run", "--disk", "90g"]).await.ok();
    assert!(dry.contains("could be done") && dry.contains("94 GiB"), "{dry}");
    assert_eq!(berth.run(&["show", "bob2"]).await.code, 3);
    let dry = berth.run(&["set", "bob", "--disk", "3g", "--dry-run"]).await.ok();
    assert!(dry.contains("OF THE HOST") && dry.contains("5 GiB"), "{dry}");
    assert_eq!(berth.fed(&["assign", "--from", "-"], b"name\nalice\n").await.code, 2);
    assert_eq!(berth.run(&["assign", "bob2", "--until", "yesterday"]).await.code, 2);
}

#[tokio::test]
async fn rules_give_a_profile_and_the_first_command_a_berth() {
    let server = Server::start().await;
    server.node.group("students", &["nobody"]);
    let (root, nobody) = (Berth(server.listen_as(ROOT)), Berth(server.listen_as(NOBODY)));
    let said = root.run(&["rule", "add", "--group", "students", "--profile", "student", "--auto", "--most", "200"]).await.ok();
    assert!(said.contains("Place 1: members of students get the profile student, and a berth on first use."), "{said}");
    root.run(&["rule", "add", "--group", "staff", "--profile", "developer"]).await.ok();
    root.run(&["rule", "move", "--group", "staff", "--position", "1"]).await.ok();
    let listed = root.run(&["rule", "list"]).await.ok();
    let lines: Vec<_> = listed.lines().skip(1).map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["1 staff developer", "2 students student"], "{listed}");
    assert_eq!(nobody.run(&["rule", "list"]).await.code, 4);
    let claimed = nobody.run(&["claim", "--json"]).await.json();
    assert_eq!(claimed, json!({ "made": true }));
    assert_eq!(nobody.run(&["claim", "--json"]).await.json(), json!({ "made": false }));
    assert_eq!(root.run(&["show", "nobody", "--json"]).await.json()["profile"], "student");
    // The rule changes, the berth does not, until somebody says so.
    root.run(&["rule", "set", "--group", "students", "--profile", "developer"]).await.ok();
    let dry = root.run(&["rule", "apply", "--dry-run"]).await.ok();
    assert!(dry.contains("student → developer"), "{dry}");
    root.run(&["rule", "apply"]).await.ok();
    assert_eq!(root.run(&["show", "nobody", "--json"]).await.json()["profile"], "developer");
    root.run(&["rule", "remove", "--group", "students"]).await.ok();
    assert_eq!(root.run(&["rule", "remove", "--group", "students"]).await.code, 3);
    // Nobody is asked to wait for what is not given.
    let quiet = root.run(&["claim", "--quiet", "--wait", "3"]).await;
    assert_eq!((quiet.code, quiet.out.as_str(), quiet.err.as_str()), (3, "", ""));
}

#[tokio::test]
async fn a_request_is_asked_shown_decided_and_ended_by_commands() {
    let server = Server::start().await;
    let (root, nobody) = (Berth(server.listen_as(ROOT)), Berth(server.listen_as(NOBODY)));
    root.run(&["assign", "nobody"]).await.ok();
    let said = nobody.run(&["request", "--disk", "+20g", "--memory", "4g", "--until", "2999-12-24", "--reason", "the thesis"]).await.ok();
    assert!(said.starts_with("Asked for 4 GiB memory, 20 GiB more disk until the end of 2999-12-24."), "{said}");
    let id = nobody.run(&["requests", "list", "--json"]).await.json()["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(nobody.run(&["requests", "approve", &id]).await.code, 4);
    let refused = root.run(&["requests", "approve", &id, "--disk", "+500g"]).await;
    assert!(refused.code == 5 && refused.err.contains("hint: at most"), "{}", refused.err);
    assert!(root.run(&["requests", "show", &id]).await.ok().contains("problem"));
    let said = root.run(&["requests", "approve", &id, "--disk", "+5g", "--until", "tomorrow", "--word", "not all of it"]).await.ok();
    assert!(said.contains("nobody has 4 GiB memory, 5 GiB more disk until the end of"), "{said}");
    let shown = nobody.run(&["show", "nobody"]).await.ok();
    assert!(shown.contains("15 GiB") && shown.contains("4 GiB memory, 5 GiB more disk until the end of"), "{shown}");
    let shown = root.run(&["show", "nobody"]).await.ok();
    assert!(shown.lines().any(|line| line.starts_with("granted")), "{shown}");
    nobody.run(&["requests", "cancel", &id]).await.ok();
    server.until(&format!("/api/v1/requests/{id}"), |request| request["state"] == "ended").await;
    let shown = nobody.run(&["show", "nobody"]).await.ok();
    assert!(shown.contains("10 GiB") && !shown.contains("granted"), "{shown}");
    nobody.run(&["request", "--cpus", "+1", "--until", "7d", "--reason", "more"]).await.ok();
    let other = nobody.run(&["requests", "list", "--json"]).await.json()["items"][0]["id"].as_str().unwrap().to_owned();
    let said = root.run(&["requests", "deny", &other, "--word", "the host is full"]).await.ok();
    assert!(said.contains("denied") && said.contains("the host is full"), "{said}");
    assert_eq!(root.run(&["requests", "list"]).await.ok().trim(), "No request is open, and none holds.");
    assert_eq!(root.run(&["requests", "list", "--all"]).await.ok().lines().count(), 3);
    assert_eq!(nobody.run(&["request", "--until", "7d", "--reason", "x"]).await.code, 2);
    assert_eq!(nobody.run(&["request", "--disk", "+1g", "--until", "soon", "--reason", "x"]).await.code, 2);
}
