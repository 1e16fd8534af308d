//! Unpacks the default image into the cache that all tests share, before anybody needs it.
#![forbid(unsafe_code)]

fn main() {
    drop(berth_tests::cache::Cache::open());
}
