//! `todo-server user`: deletes, moves and copies all tasks of a user.

mod export;
mod import;

use std::io::{self, IsTerminal as _, Write as _};

use todo_core::{
    Error, UserId,
    store::{StoreError, Transfer},
};

use crate::{
    database::{self, Store},
    failure::{Failure, error_chain},
    settings::{Database, Log, Sources},
    telemetry,
};

/// What is done to the tasks of a user.
#[derive(Debug)]
pub(crate) enum UserCommand {
    Erase { user: UserId },
    Move { from: UserId, to: UserId },
    Export { user: UserId },
    Import { user: UserId },
}

#[expect(clippy::print_stdout, reason = "the result is the output of this command")]
pub(super) async fn run(mut sources: Sources, command: UserCommand) -> Result<(), Failure> {
    let database = Database::read(&mut sources);
    let log = Log::read(&mut sources);
    let database = sources.finish(database)?;
    let telemetry = telemetry::install(log)?;
    let store = database::open_as_it_is(&database).await?;
    let done = execute(&store, &command).await;
    store.close().await;
    let text = done?;
    telemetry.finish().await;
    if let Some(text) = text {
        println!("{text}");
    }
    Ok(())
}

/// Returns what to print at the end.
async fn execute(store: &Store, command: &UserCommand) -> Result<Option<String>, Failure> {
    // Ids are quoted, so that a line has one form whatever they contain.
    // An operator may give a user more tasks than the API does.
    let service = store.service().with_quota(None);
    let done = match command {
        UserCommand::Erase { user } => {
            let count = service.for_user(user.clone()).erase().await.map_err(|error| failed(&error))?;
            format!("erased {} of {user:?}", tasks(count), user = user.as_str())
        }
        UserCommand::Move { from, to } => {
            let transfer = service.for_user(from.clone()).transfer_to(to).await;
            let Transfer { moved, remaining } = transfer.map_err(|error| failed(&error))?;
            let (from, to) = (from.as_str(), to.as_str());
            let moved = format!("moved {} from {from:?} to {to:?}", tasks(moved));
            if remaining == 0 {
                moved
            } else {
                format!("{moved}; {from:?} keeps {}, since {to:?} has tasks with the same ids", tasks(remaining))
            }
        }
        UserCommand::Export { user } => {
            export::export(&service.for_user(user.clone()), io::stdout().lock()).await?;
            return Ok(None);
        }
        UserCommand::Import { user } => {
            let count = import::import(&service.for_user(user.clone()), io::stdin().lock()).await?;
            format!("imported {} of {user:?}", tasks(count), user = user.as_str())
        }
    };
    Ok(Some(done))
}

fn tasks(count: u64) -> String {
    format!("{count} {}", if count == 1 { "task" } else { "tasks" })
}

fn failed(error: &Error) -> Failure {
    let hint = match error {
        Error::Store(error) if error.may_have_happened() => "; it may have been done, and it is safe to run it again",
        _ => "; nothing was done",
    };
    Failure::fatal(format!("{}{hint}{}", error_chain(error), time_limit(error)))
}

/// What to do about a statement that takes too long.
fn time_limit(error: &Error) -> &'static str {
    match error {
        Error::Store(StoreError::Timeout(_)) => {
            "; set DATABASE_STATEMENT_TIMEOUT_SECONDS to a longer time (for PgBouncer and other poolers: \
             statement_timeout of the role)"
        }
        _ => "",
    }
}

/// Shows how many tasks are done, if somebody sees it: standard error is a terminal.
struct Progress {
    is_shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self { is_shown: io::stderr().is_terminal() }
    }

    fn show(&self, count: u64) {
        if self.is_shown {
            // Nothing depends on it.
            let _ = write!(io::stderr(), "\r{}", tasks(count));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = writeln!(io::stderr());
        }
    }
}
