//! Harness of the kernel and end-to-end tests: a real node, a real server, real host users, real dockerd.
//!
//! A [`Host`] is an instance of Berth of its own beside whatever else runs on the machine: own run and state directories, control group,
//! nft table, links, addresses, ids and accounts, all named after a numbered [`slot`]. Dropping it takes everything away and fails the
//! test when something stayed. What a killed test leaves is swept before its slot is used again, and by `berth-tests-sweep`.
//!
//! The suites lie in `tests/`; each test starts a `Host` with the [`Berth`]s it needs and asserts from inside (`sh`, `probe`, `docker`)
//! and from the host. Nothing sleeps for luck: [`wait::until`] waits for a level with a deadline. The harness panics where a test should
//! fail, with everything that is known.
//!
//! Environment: `BERTH_TEST_PROGRAMS` (directory of the programs), `BERTH_TEST_IMAGE_TAR` (root tar of the default image; built by the
//! recipe otherwise), `BERTH_TEST_SEED` (of random cases; another one each time otherwise), `BERTH_TEST_ROOT` (where instances
//! and the cache lie; default /var/tmp/berth-tests), `BERTH_TEST_TRACE` (set: say what each program took), `BERTH_TEST_PATIENCE` (by how
//! much all deadlines are longer, for a slow machine; default 1), `BERTH_TEST_ELSEWHERE` (file for the names of tests that need what this
//! host lacks, see [`needs`]).
#![forbid(unsafe_code)]

pub mod account;
pub mod bench;
pub mod berth;
pub mod cache;
pub mod daemon;
pub mod dind;
pub mod dns;
pub mod exact;
pub mod fault;
pub mod group;
pub mod host;
pub mod http;
pub mod image;
pub mod name_service;
pub mod needs;
pub mod outside;
pub mod postgres;
pub mod programs;
pub mod python;
pub mod run;
pub mod session;
pub mod slot;
pub mod snapshot;
pub mod systemd_image;
pub mod tree;
pub mod wait;

pub use account::User;
pub use berth::Berth;
pub use host::{Host, Options};
pub use needs::{Need, elsewhere};
pub use outside::Outside;
pub use run::{Output, Run, Running};
pub use wait::until;
