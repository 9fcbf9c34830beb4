//! Checks for arbitrary input: whatever bytes arrive, nothing panics, and the results are those of a second reading of
//! the rules.
//!
//! Each module has a function `check`, which panics if one of its properties does not hold for these bytes. The crate
//! in `targets/` gives them to libFuzzer (`scripts/fuzz`), and `tests/seeds.rs` runs them with every seed on stable
//! Rust. `tests/random.rs` sends mostly valid requests, made from random numbers.
//!
//! | module | input |
//! | --- | --- |
//! | [`cursor`] | the query of a list, with cursors |
//! | [`jwks`] | a key set |
//! | [`respond`] | requests of two users |
//! | [`verify`] | a token, or the headers with it |
//! | [`wire`] | the bytes of a connection |

pub mod cursor;
mod input;
pub mod jwks;
mod model;
pub mod respond;
pub mod verify;
pub mod wire;
