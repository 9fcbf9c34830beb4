//! `todo-server user import`: adds tasks from JSON lines to those of a user.

use std::io::{BufRead, Read as _};

use todo_core::{Error, Task, UserId, UserTasks, api::task_from_json};

use super::{Progress, tasks, time_limit};
use crate::failure::{Failure, error_chain};

/// The maximum length of a line, which is that of a body of the API. A line of the export is always shorter.
const MAX_LINE: usize = 64 * 1024;

/// Reads tasks, one a line, and adds them to those of a user, with everything but their owner as it is. Returns their
/// number.
///
/// They are added in batches of [`UserTasks::MAX_BULK`], each completely or not at all. Nothing after a wrong line is
/// added.
pub(super) async fn import(user: &UserTasks<'_>, input: impl BufRead) -> Result<u64, Failure> {
    let progress = Progress::new();
    let mut lines = Lines { input, number: 0, line: Vec::new() };
    let mut import = Import { user, owner: None, numbers: Vec::new(), batch: Vec::new(), imported: 0, next: 1 };
    while let Some((number, line)) = lines.next().map_err(|why| import.stopped(&why))? {
        import.read(number, line).map_err(|why| import.stopped(&format!("line {number}: {why}")))?;
        if import.batch.len() == UserTasks::MAX_BULK {
            import.write().await?;
            progress.show(import.imported);
        }
    }
    import.write().await?;
    progress.show(import.imported);
    Ok(import.imported)
}

/// The lines of the input, of which one at a time is in memory.
struct Lines<R> {
    input: R,
    /// How many were read.
    number: u64,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Returns the next line that is not blank, and its number.
    fn next(&mut self) -> Result<Option<(u64, &[u8])>, String> {
        loop {
            self.line.clear();
            let number = self.number + 1;
            // Two bytes more, for the end of the line.
            let mut bounded = (&mut self.input).take(MAX_LINE as u64 + 2);
            let read = bounded.read_until(b'\n', &mut self.line);
            if read.map_err(|error| format!("line {number}: cannot read standard input: {error}"))? == 0 {
                return Ok(None);
            }
            self.number = number;
            let content = without_end(&self.line).len();
            if content > MAX_LINE {
                return Err(format!("line {number}: it is longer than {} KiB", MAX_LINE / 1024));
            }
            self.line.truncate(content);
            // Some editors begin a file with a byte order mark.
            if number == 1 && self.line.starts_with("\u{feff}".as_bytes()) {
                self.line.drain(..'\u{feff}'.len_utf8());
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        Ok(Some((self.number, &self.line)))
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

struct Import<'a> {
    user: &'a UserTasks<'a>,
    /// The owner that the lines name.
    owner: Option<UserId>,
    /// The lines of the batch.
    numbers: Vec<u64>,
    batch: Vec<Task>,
    imported: u64,
    /// The first line that is not imported.
    next: u64,
}

impl Import<'_> {
    /// Adds the task of a line to the batch.
    fn read(&mut self, number: u64, line: &[u8]) -> Result<(), String> {
        let task = task_from_json(line).map_err(|error| error.to_string().trim_end_matches('.').to_owned())?;
        // Two exports in one input are a mistake: the tasks of one user would go to another.
        if *self.owner.get_or_insert_with(|| task.user_id.clone()) != task.user_id {
            return Err("user_id must be the same in all lines".to_owned());
        }
        if let Some(index) = self.batch.iter().position(|other| other.id == task.id) {
            return Err(format!("id must not be that of line {}", self.numbers[index]));
        }
        self.numbers.push(number);
        self.batch.push(task);
        Ok(())
    }

    /// Writes the batch.
    async fn write(&mut self) -> Result<(), Failure> {
        let (Some(first), Some(last)) = (self.numbers.first(), self.numbers.last()) else { return Ok(()) };
        match self.user.import(&self.batch).await {
            Ok(true) => {
                self.next = last + 1;
                self.imported += self.batch.len() as u64;
                self.numbers.clear();
                self.batch.clear();
                Ok(())
            }
            Ok(false) => {
                let line = match self.taken().await {
                    Some(line) => format!("line {line}"),
                    None => format!("one of the lines {first} to {last}"),
                };
                Err(self.stopped(&format!("{line}: the user already has a task with this id")))
            }
            Err(error) => {
                let why = format!("lines {first} to {last}: {}{}", error_chain(&error), time_limit(&error));
                Err(if matches!(&error, Error::Store(error) if error.may_have_happened()) {
                    Failure::fatal(format!(
                        "{why}; either all of these lines were imported, or none. {} of the lines before were imported. To go \
                         on, import the input from line {first} on: tail -n +{first}. If the user already has that task, \
                         import it from line {next} on: tail -n +{next}",
                        tasks(self.imported),
                        next = last + 1
                    ))
                } else {
                    self.stopped(&why)
                })
            }
        }
    }

    /// The first line of the batch whose id the user already has.
    async fn taken(&self) -> Option<u64> {
        for (number, task) in self.numbers.iter().zip(&self.batch) {
            match self.user.get(task.id).await {
                Ok(_) => return Some(*number),
                Err(Error::TaskNotFound) => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Says why the import has stopped, what is imported, and how to go on.
    fn stopped(&self, why: &str) -> Failure {
        let Self { next, imported, .. } = self;
        Failure::fatal(if *imported == 0 {
            format!("{why}; nothing was imported")
        } else {
            format!(
                "{why}. {} of the lines before line {next} were imported, and nothing else. To go on, import the corrected \
                 input from line {next} on: tail -n +{next}",
                tasks(*imported)
            )
        })
    }
}
