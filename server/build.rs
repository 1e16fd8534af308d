//! The migrations are embedded: a new file among them must build the server anew.

#![forbid(unsafe_code)]

fn main() {
    println!("cargo:rerun-if-changed=../migrations/sqlite");
}
