//! `todo-server user export`: writes all tasks of a user as JSON lines.

use std::io::{self, BufWriter, Write};

use todo_core::{Limit, Sort, TaskQuery, UserTasks};

use super::{Progress, tasks, time_limit};
use crate::failure::{Failure, error_chain};

/// Writes a line for each task, the oldest first: the JSON that the API returns.
///
/// The tasks are read in pages, so that a page is all that is in memory. A task that is created or deleted meanwhile may
/// be in the output or not; all others are in it once.
pub(super) async fn export(user: &UserTasks<'_>, output: impl Write) -> Result<(), Failure> {
    let mut output = BufWriter::new(output);
    let mut query = TaskQuery::new().sort(Sort::OldestFirst).limit(Limit::new(Limit::MAX).unwrap_or_default());
    let progress = Progress::new();
    let mut count = 0;
    loop {
        let page = user.list(&query).await.map_err(|error| {
            let (text, hint) = (error_chain(&error), time_limit(&error));
            Failure::fatal(format!("{text}; {} were written, and the output is not complete{hint}", tasks(count)))
        })?;
        for task in &page.tasks {
            serde_json::to_writer(&mut output, task)
                .map_err(io::Error::from)
                .and_then(|()| output.write_all(b"\n"))
                .map_err(|error| unwritten(&error))?;
            count += 1;
        }
        progress.show(count);
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
    }
    output.flush().map_err(|error| unwritten(&error))
}

fn unwritten(error: &io::Error) -> Failure {
    Failure::fatal(format!("cannot write to standard output: {error}; the output is not complete"))
}
