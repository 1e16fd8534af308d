//! The migrations and the dashboard are embedded: a new file among them must build the server anew. A server that is built without the
//! dashboard gets one page that says so.

#![forbid(unsafe_code)]

use std::{env, fs, path::PathBuf};

const WITHOUT: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Berth</title>
<h1>Berth</h1>
<p>This berth-server was built without its dashboard. The API is at /api/v1, and the program <code>berth</code> speaks it.</p>
<p>To have the dashboard: install Node.js 20 or newer with npm, and run deploy/up again.</p>
</html>
";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../migrations/sqlite");
    println!("cargo:rerun-if-changed=../migrations/postgres");
    println!("cargo:rerun-if-changed=../web/dist");
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../web/dist");
    let page = folder.join("index.html");
    if !page.is_file() {
        let made = fs::create_dir_all(&folder).and_then(|()| fs::write(&page, WITHOUT));
        made.unwrap_or_else(|error| panic!("cannot write {}: {error}", page.display()));
    }
}
