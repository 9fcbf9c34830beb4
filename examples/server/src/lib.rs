//! The todo API as a program: `todo-server`.
//!
//! | command | what it does |
//! | --- | --- |
//! | `todo-server`, `todo-server serve` | serves the API with the settings of flags, the environment and `.env` |
//! | `todo-server dev` | serves the API on this machine without settings, and prints a token |
//! | `todo-server token --user alice` | prints a token of this user |
//! | `todo-server migrate` | migrates the database to the newest version, or with `--to` to another |
//! | `todo-server user erase ID`, `user move FROM TO` | deletes all tasks of a user, or moves them to another user |
//! | `todo-server user export ID`, `user import ID` | writes all tasks of a user as JSON lines, or adds tasks from such lines |
//! | `todo-server openapi` | prints the OpenAPI document |
//! | `todo-server healthcheck` | asks the server on this machine whether it is ready; with `--live`, whether it responds |
//!
//! `todo-server help serve` lists the settings. The exit code is 0 for success (also after SIGTERM, SIGINT and SIGHUP), 1 for a
//! failure, and 2 for wrong settings or flags.
//!
//! This library is the program without its allocator: `main.rs` calls [`main`]. To use the todo API in a program of
//! your own, use `todo-core` and an adapter instead; `examples/embed-axum` shows how. Public beside [`main`] is only
//! [`connection`], for the fuzzer.

mod app;
mod cli;
mod commands;
pub mod connection;
mod connection_limit;
mod cors;
mod database;
mod failure;
mod key_sources;
mod log_budget;
mod log_writer;
mod metrics;
#[cfg(feature = "otel")]
mod otel;
mod serve;
mod settings;
mod telemetry;
mod trace;

use std::process::ExitCode;

/// Runs the program: parses the command line, runs the command, prints a failure, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    metrics::process::started();
    let code = match commands::run(cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    };
    log_writer::flush();
    code
}
