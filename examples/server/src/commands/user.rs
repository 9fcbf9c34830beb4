//! `todo-server user`: changes all tasks of a user.

use todo_core::{Error, UserId, store::Transfer};

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
    let text = done.map_err(|error| failed(&error))?;
    telemetry.finish().await;
    println!("{text}");
    Ok(())
}

async fn execute(store: &Store, command: &UserCommand) -> Result<String, Error> {
    // Ids are quoted, so that a line has one form whatever they contain.
    let service = store.service();
    Ok(match command {
        UserCommand::Erase { user } => {
            let count = service.for_user(user.clone()).erase().await?;
            format!("erased {} of {user:?}", tasks(count), user = user.as_str())
        }
        UserCommand::Move { from, to } => {
            let Transfer { moved, remaining } = service.for_user(from.clone()).transfer_to(to).await?;
            let (from, to) = (from.as_str(), to.as_str());
            let moved = format!("moved {} from {from:?} to {to:?}", tasks(moved));
            if remaining == 0 {
                moved
            } else {
                format!("{moved}; {from:?} keeps {}, since {to:?} has tasks with the same ids", tasks(remaining))
            }
        }
    })
}

fn tasks(count: u64) -> String {
    format!("{count} {}", if count == 1 { "task" } else { "tasks" })
}

fn failed(error: &Error) -> Failure {
    let hint = match error {
        Error::Store(error) if error.may_have_happened() => "; it may have been done, and it is safe to run it again",
        Error::Store(todo_core::store::StoreError::Timeout(_)) => {
            "; nothing was done; set DATABASE_STATEMENT_TIMEOUT_SECONDS to a longer time (for PgBouncer and other poolers: \
             statement_timeout of the role)"
        }
        _ => "; nothing was done",
    };
    Failure::fatal(format!("{}{hint}", error_chain(error)))
}
