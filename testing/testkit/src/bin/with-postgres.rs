//! Runs a command with a PostgreSQL server for its tests: `with-postgres cargo test`.
//!
//! The server is found or started as described in [`testkit::postgres`]. Its URL is in the command's
//! `TEST_DATABASE_URL`. A server that was started is removed at the end of the command. The exit code is the command's.
//!
//! `with-postgres --find` starts nothing: it prints where the server would come from, and fails if there is none.

#![expect(clippy::print_stderr, reason = "a program writes to its terminal")]

use std::{
    env,
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitCode},
};

use testkit::postgres::{Server, Source};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: with-postgres COMMAND [ARGUMENT]... | with-postgres --find");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let found = if program == "--find" {
        runtime.block_on(Source::find()).map(|source| {
            eprintln!("with-postgres: {source}");
            None
        })
    } else {
        runtime.block_on(Server::find()).map(Some)
    };
    let server = match found {
        Ok(Some(server)) => server,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("with-postgres: {error}");
            return ExitCode::FAILURE;
        }
    };
    eprintln!("with-postgres: PostgreSQL {}, {}", server.version(), server.source());

    let outcome = Command::new(&program)
        .args(arguments)
        .env("TEST_DATABASE_URL", server.url())
        // It has had its effect. The command must use this server and start no other.
        .env_remove("TESTKIT_POSTGRES")
        .status();
    server.stop();
    match outcome {
        // As in shells.
        Ok(status) => {
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
            ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
        }
        Err(error) => {
            eprintln!("with-postgres: cannot run {}: {error}", program.display());
            ExitCode::from(127)
        }
    }
}
