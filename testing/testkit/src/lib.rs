//! What the tests of this workspace need and no user of the library does: PostgreSQL, an app on a free port, tokens.
//!
//! - [`bodies`] sends bodies with a declared length or in chunks.
//! - [`embedding`] has the test cases of the examples that embed the API into a guest book.
//! - [`postgres`] finds or starts a server and gives every test a database of its own.
//! - [`http`] serves an app on a free port and talks to it over real sockets, byte for byte.
//! - [`pgbouncer`] puts a real pooler before a database, and [`proxy`] a network that fails on command.
//! - [`process`] tells what processes use.
//! - [`stores`] makes an empty store of each kind for the suites of `todo_core::conformance`.
//! - [`tls`] makes certificates of a private authority.
//! - [`tokens`] mints tokens, good and bad, and the key sets that belong to them.
//!
//! Nothing here repairs what it tests, and nothing here answers an error: a test that cannot be set up panics, with a
//! message that says what to do. Where a caller may want to go on, there is a `Result`.

pub mod bodies;
pub mod embedding;
pub mod http;
pub mod pgbouncer;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod stores;
pub mod tls;
pub mod tokens;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since 1970, for the names of databases and the `exp` of tokens.
fn since_1970() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the clock of the machine is what servers under test compare with")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).expect("the clock is past 1970")
}

/// So many random bytes, in hexadecimal.
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
