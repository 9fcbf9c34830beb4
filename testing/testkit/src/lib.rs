//! Tools for the tests of this workspace: PostgreSQL, an app on a free port, tokens. No user of the library needs them.
//!
//! - [`bodies`] sends bodies with a declared length or in chunks.
//! - [`embedding`] has the test cases of the examples that embed the API into a guest book.
//! - [`postgres`] finds or starts a server and gives every test a database of its own.
//! - [`http`] serves an app on a free port and talks to it over real sockets, byte for byte.
//! - [`http_proxy`] forwards tunnels to a server, as proxies of companies do.
//! - [`haproxy`] puts a real proxy before servers, [`pgbouncer`] a real pooler before a database, and [`proxy`] a network
//!   that can be interrupted.
//! - [`process`] measures the CPU time and the memory of processes.
//! - [`programs`] finds the programs that tests run.
//! - [`sessions`] is a host whose users have sessions and accounts.
//! - [`stores`] makes an empty store of each kind for the suites of `todo_core::conformance`.
//! - [`tls`] makes certificates of a private authority, and serves HTTPS with them.
//! - [`tokens`] makes valid and invalid tokens, and their key sets.
//!
//! Nothing here corrects the behaviour of what it tests. A test that cannot be set up panics, with a message that says
//! what to do. Functions return a `Result` only where a caller may want to continue after an error.

pub mod bodies;
pub mod embedding;
pub mod haproxy;
pub mod http;
pub mod http_proxy;
pub mod pgbouncer;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod sessions;
pub mod stores;
pub mod tls;
pub mod tokens;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since 1970, for the names of databases and the `exp` of tokens.
fn since_1970() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "servers under test use the clock of the machine")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).expect("the clock is after 1970")
}

/// This number of random bytes, in hexadecimal.
fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random).expect("the system has randomness");
    hex(&random)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string does not fail");
        hex
    })
}
