//! The program as its users have it: the real binary, in a directory of its own, over real connections.

#![cfg(unix)]

/// What serves the API in these tests. `warp` and `poem` beside this folder run the same tests.
const FRAMEWORK: &str = "axum";

// Of the database, whatever serves: once is enough.
mod cloud;
mod cors;
mod database;
mod dev;
mod docs;
mod durability;
mod logs;
mod metrics;
mod overload;
mod program;
mod settings;
mod stopping;
#[cfg(feature = "otel")]
mod traces;
