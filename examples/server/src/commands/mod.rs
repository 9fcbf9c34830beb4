//! The commands. [`crate::cli`] chooses one.

mod dev;
mod healthcheck;
mod migrate;
mod owners;
mod serve;
mod token;
pub(crate) mod user;

use std::io::{self, Write as _};

use crate::{app, cli::Command, failure::Failure};

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(sources) => in_runtime(serve::run(sources)),
        Command::Dev(sources) => in_runtime(dev::run(sources)),
        Command::Token(sources, options) => token::run(sources, &options),
        Command::Migrate(sources, migration) => in_runtime(migrate::run(sources, migration)),
        Command::User(sources, command) => in_runtime(user::run(sources, command)),
        Command::Purge(sources, days) => in_runtime(owners::purge(sources, days)),
        Command::ExpireSyncTokens(sources) => in_runtime(owners::expire_sync_tokens(sources)),
        Command::OpenApi => print_openapi(),
        Command::Healthcheck(sources, live) => healthcheck::run(sources, live),
    }
}

fn in_runtime(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::fatal(format!("cannot start threads: {error}")))?
        .block_on(command)
}

/// `todo-server openapi`: prints the OpenAPI document.
fn print_openapi() -> Result<(), Failure> {
    let document = todo_core::api::openapi::document(app::MOUNT);
    io::stdout().write_all(document.as_bytes()).map_err(|error| Failure::fatal(format!("cannot print: {error}")))
}
