//! The dashboard in Debian's Chromium: with real berths; and all of its pages over a stand-in for the node that has berths in every state.

#![forbid(unsafe_code)]

use std::{fs, net::TcpListener, time::Duration};

use berth_tests::{Host, Run, programs};

const ADMIN: &str = "pilot";
const PASSWORD: &str = "harbour pilot on watch";

/// A script of web/tests, which says what it did line by line.
fn script(name: &str) -> Run {
    let path = programs::repository().join("web/tests").join(name);
    let modules = programs::repository().join("web/node_modules/playwright-core");
    assert!(modules.is_dir(), "{} is missing: deploy/web build fetches it", modules.display());
    Run::new("node").arg(path).limit(Duration::from_secs(280))
}

/// A JSON list of the words of a command as a user of the host.
fn words(words: &[&str]) -> String {
    serde_json::to_string(words).unwrap()
}

#[test]
fn a_day_of_an_administrator_and_of_a_user_with_real_berths() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = Host::start();
    // Instances of tests listen for no browsers.
    host.stop_server();
    let config = fs::read_to_string(host.server_config()).unwrap();
    fs::write(host.server_config(), config.replacen("address = \"\"", &format!("address = \"127.0.0.1:{port}\""), 1)).unwrap();
    host.start_server();
    let body = format!(r#"{{"name":"{ADMIN}","role":"admin","password":"{PASSWORD}"}}"#);
    assert_eq!(host.api("POST", "/api/v1/admins", Some(&body)).status, 201);
    let user = host.user("sailor");
    let [uid, gid] = [user.uid, user.gid].map(|id| id.to_string());
    let (berth, home) = (programs::find("berth").to_string_lossy().into_owned(), user.home.to_string_lossy());
    let name = format!("USER={}", user.name);
    let (home, socket) = (format!("HOME={home}"), format!("BERTH_SOCKET={}", host.api_socket().display()));
    let docker = format!("DOCKER_HOST=unix://{}", host.run_dir.join(format!("users/{uid}/docker.sock")).display());
    let as_user =
        ["setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups", "--inh-caps=-all", "--", "env", &home, &name, &socket, &docker];
    let link = [&as_user[..], &[berth.as_str(), "webui"]].concat();
    let docker = [&as_user[..], &["docker"]].concat();
    script("berth.js")
        .env("BERTH_PAGES", format!("http://127.0.0.1:{port}"))
        .env("BERTH_ADMIN", ADMIN)
        .env("BERTH_PASSWORD", PASSWORD)
        .env("BERTH_USER", &user.name)
        .env("BERTH_LINK", words(&link))
        .env("BERTH_DOCKER", words(&docker))
        .env("BERTH_TAR", host.cache.as_ref().unwrap().busybox())
        .ok();
}

#[test]
fn no_page_light_or_dark_has_a_violation_of_axe() {
    script("accessible.js").env("BERTH_SERVER", programs::find("berth-server")).ok();
}

#[test]
fn the_main_tasks_are_done_by_keyboard_alone() {
    script("keyboard.js").env("BERTH_SERVER", programs::find("berth-server")).ok();
}

#[test]
fn whatever_names_lines_and_servers_do_the_page_stays_usable() {
    script("hostile.js").env("BERTH_SERVER", programs::find("berth-server")).ok();
}
