//! The calls of a store as values, which know their statement and its parameters.
//!
//! A store on an SQL database has a method `run` that runs any [`Operation`] on one of its connections; the macro
//! `task_store!` writes the rest.

use super::{
    super::{TaskChange, error::StoreError},
    statements::Statements,
};
use crate::{Group, ListName, Position, Summary, Tag, Task, TaskFilter, TaskId, TaskQuery, UserId, clock::Timestamp};

/// What running an operation twice does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Effect {
    /// The same as running it once.
    Read,
    /// Possibly something else than running it once.
    Write,
    /// The same as [`Write`](Self::Write). Each write in the batch can also be run on its own.
    #[cfg(feature = "postgres")]
    BatchOfWrites,
}

impl Effect {
    /// What the error of a statement means.
    pub(in crate::store) fn failed(self, error: sqlx::Error) -> StoreError {
        match self {
            Self::Read => StoreError::from(error).without_effect(),
            Self::Write => error.into(),
            #[cfg(feature = "postgres")]
            Self::BatchOfWrites => error.into(),
        }
    }
}

/// A call of a store: a statement with its parameters.
pub(in crate::store) trait Operation<C>: Sync {
    /// What the call returns.
    type Output: Send;

    /// What running it twice does.
    const EFFECT: Effect;

    /// Runs it on this connection.
    fn run(
        &self,
        connection: &mut C,
        sql: &Statements,
    ) -> impl Future<Output = Result<Self::Output, sqlx::Error>> + Send;
}

pub(in crate::store) struct Insert<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) task: &'a Task,
}

pub(in crate::store) struct InsertAll<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) tasks: &'a [Task],
}

pub(in crate::store) struct Count<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) filter: &'a TaskFilter,
}

pub(in crate::store) struct Summarize<'a> {
    pub(in crate::store) owner: &'a UserId,
}

pub(in crate::store) struct UpdateMatching<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) filter: &'a TaskFilter,
    pub(in crate::store) change: &'a TaskChange,
    pub(in crate::store) now: Timestamp,
}

pub(in crate::store) struct Reposition<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) positions: &'a [(TaskId, Position)],
    pub(in crate::store) now: Timestamp,
}

pub(in crate::store) struct DeleteMatching<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) filter: &'a TaskFilter,
}

pub(in crate::store) struct Get<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) id: TaskId,
}

pub(in crate::store) struct List<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) query: &'a TaskQuery,
}

pub(in crate::store) struct Update<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) id: TaskId,
    pub(in crate::store) change: &'a TaskChange,
    pub(in crate::store) now: Timestamp,
}

pub(in crate::store) struct Delete<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) id: TaskId,
}

pub(in crate::store) struct Erase<'a> {
    pub(in crate::store) owner: &'a UserId,
}

/// Each database has its own way; see `sqlite.rs` and `postgres/mod.rs`.
pub(in crate::store) struct TransferAll<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) to: &'a UserId,
}

pub(in crate::store) struct Ping;

/// Whether any owner has a task: for migrations.
pub(in crate::store) struct HasTasks;

/// The rows of a summary: the kind of the group, its name, and the numbers of its tasks and of the open ones.
pub(in crate::store) type GroupRow = (i64, Option<String>, i64, i64);

/// The summary that the rows make.
pub(in crate::store) fn summary(rows: Vec<GroupRow>) -> Result<Summary, sqlx::Error> {
    let mut summary = Summary::default();
    for (kind, name, total, open) in rows {
        let (total, open) = (total.unsigned_abs(), open.unsigned_abs());
        let decode = |error: crate::InvalidValue| sqlx::Error::Decode(Box::new(error));
        match (kind, name) {
            // Each task is in one list or in none, so these groups are all tasks.
            (0, name) => {
                summary.total += total;
                summary.open += open;
                if let Some(name) = name {
                    summary.lists.push(Group { name: ListName::new(name).map_err(decode)?, open, total });
                }
            }
            (_, Some(name)) => summary.tags.push(Group { name: Tag::new(name).map_err(decode)?, open, total }),
            (_, None) => {}
        }
    }
    summary.lists.sort_by(|one, other| one.name.cmp(&other.name));
    summary.tags.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(summary)
}

/// A page of the rows that a list has returned. In practice they are in order; SQL promises this for each of the two parts
/// of a list by itself.
pub(in crate::store) fn page(mut tasks: Vec<Task>, query: &TaskQuery) -> crate::Page {
    let sort = query.sort;
    if tasks.len() > 1 && !query.is_simple() {
        let mut keyed: Vec<_> = tasks.into_iter().map(|task| (sort.key(&task), task)).collect();
        let compare = |(key, task): &(_, Task), (other_key, other): &(_, Task)| {
            sort.compare((key, task.id), (other_key, other.id))
        };
        if !keyed.is_sorted_by(|one, other| compare(one, other).is_le()) {
            keyed.sort_by(compare);
        }
        tasks = keyed.into_iter().map(|(_, task)| task).collect();
    }
    crate::Page::from_one_more(tasks, query)
}

/// Reads the fields of a task from a row, from a column on. `$time` reads a time and `$texts` several texts.
///
/// The types of the columns are not compared with those of the fields, since our statements and tables agree; for each row
/// of a page that would take as long as reading it.
macro_rules! fields {
    ($row:ident, $first:expr, $time:path, $texts:path) => {{
        let mut next = $first;
        let mut column = || {
            next += 1;
            next - 1
        };
        $crate::store::sql::columns::Fields {
            id: $row.try_get_unchecked(column())?,
            title: $row.try_get_unchecked(column())?,
            description: $row.try_get_unchecked(column())?,
            completed: $row.try_get_unchecked(column())?,
            completed_at: $time($row, column())?,
            due: $row.try_get_unchecked(column())?,
            due_at: $time($row, column())?,
            priority: $row.try_get_unchecked(column())?,
            list: $row.try_get_unchecked(column())?,
            tags: $texts($row, column())?,
            position: $row.try_get_unchecked(column())?,
            metadata: $row.try_get_unchecked(column())?,
            created_at: $time($row, column())?.unwrap_or(Timestamp::from_unix_micros(0)),
            updated_at: $time($row, column())?.unwrap_or(Timestamp::from_unix_micros(0)),
            version: $row.try_get_unchecked(column())?,
        }
    }};
}
pub(in crate::store) use fields;

/// Writes the operations for the connections of one database, which differ only in types, over which sqlx can be generic
/// only with a page of bounds. `$database` is that of sqlx; a function `arguments` makes its arguments of values, and a
/// function `read_task` makes a task of its rows.
macro_rules! operations {
    ($connection:ty) => {
        const _: () = {
            use $crate::{
                Page, Summary, Task,
                store::sql::{
                    columns::{Value, change_values, row_values},
                    operations::{
                        Delete, Effect, Erase, Get, HasTasks, Insert, List, Operation, Ping, Summarize, Update, page,
                        summary,
                    },
                    statements::Statements,
                },
            };

            impl Operation<$connection> for Insert<'_> {
                type Output = bool;
                const EFFECT: Effect = Effect::Write;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<bool, sqlx::Error> {
                    // The owner of the call, whatever the task says.
                    let owner = Value::Text(Some(self.owner.as_str().into()));
                    let values = std::iter::once(owner).chain(row_values(self.task).skip(1));
                    let done = sqlx::query_with(sql.insert.clone(), arguments(values)?).execute(connection).await?;
                    Ok(done.rows_affected() == 1)
                }
            }

            impl Operation<$connection> for Get<'_> {
                type Output = Option<Task>;
                const EFFECT: Effect = Effect::Read;

                async fn run(
                    &self,
                    connection: &mut $connection,
                    sql: &Statements,
                ) -> Result<Option<Task>, sqlx::Error> {
                    let row = sqlx::query(sql.get.clone())
                        .bind(self.owner.as_str())
                        .bind(self.id.as_uuid())
                        .fetch_optional(connection)
                        .await?;
                    row.map(|row| read_task(self.owner, &row, 0)).transpose()
                }
            }

            impl Operation<$connection> for List<'_> {
                type Output = Page;
                const EFFECT: Effect = Effect::Read;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<Page, sqlx::Error> {
                    let Self { owner, query } = self;
                    let rows = if query.is_simple() {
                        let Some(newest) = query.newest() else {
                            return Ok(Page::default());
                        };
                        let completed = query.filter.completed;
                        let statement = if completed.is_some() { &sql.list_completed } else { &sql.list };
                        let mut statement = sqlx::query(statement.clone())
                            .bind(owner.as_str())
                            .bind(newest.as_uuid())
                            .bind(i64::from(query.limit.get()) + 1);
                        if let Some(completed) = completed {
                            statement = statement.bind(completed);
                        }
                        statement.fetch_all(connection).await?
                    } else {
                        list_rows(connection, sql, owner, query).await?
                    };
                    let tasks = rows.iter().map(|row| read_task(owner, row, 0)).collect::<Result<_, _>>()?;
                    Ok(page(tasks, query))
                }
            }

            impl Operation<$connection> for Summarize<'_> {
                type Output = Summary;
                const EFFECT: Effect = Effect::Read;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<Summary, sqlx::Error> {
                    let rows =
                        sqlx::query_as(sql.summary.clone()).bind(self.owner.as_str()).fetch_all(connection).await?;
                    summary(rows)
                }
            }

            impl Operation<$connection> for Update<'_> {
                type Output = Option<Task>;
                const EFFECT: Effect = Effect::Write;

                async fn run(
                    &self,
                    connection: &mut $connection,
                    sql: &Statements,
                ) -> Result<Option<Task>, sqlx::Error> {
                    let values = [
                        Value::Text(Some(self.owner.as_str().into())),
                        Value::Uuid(Some(self.id.as_uuid())),
                        Value::Time(Some(self.now)),
                        Value::Big(self.change.if_version),
                    ];
                    let values = values.into_iter().chain(change_values(self.change));
                    // Not `fetch_optional`: on SQLite it returns with the first row, and the statement commits only
                    // when it has been read to its end.
                    let rows = sqlx::query_with(sql.update.clone(), arguments(values)?).fetch_all(connection).await?;
                    rows.first().map(|row| read_task(self.owner, row, 0)).transpose()
                }
            }

            impl Operation<$connection> for Delete<'_> {
                type Output = bool;
                const EFFECT: Effect = Effect::Write;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<bool, sqlx::Error> {
                    let done = sqlx::query(sql.delete.clone())
                        .bind(self.owner.as_str())
                        .bind(self.id.as_uuid())
                        .execute(connection)
                        .await?;
                    Ok(done.rows_affected() == 1)
                }
            }

            impl Operation<$connection> for Erase<'_> {
                type Output = u64;
                const EFFECT: Effect = Effect::Write;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<u64, sqlx::Error> {
                    let done = sqlx::query(sql.erase.clone()).bind(self.owner.as_str()).execute(connection).await?;
                    Ok(done.rows_affected())
                }
            }

            impl Operation<$connection> for Ping {
                type Output = ();
                const EFFECT: Effect = Effect::Read;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<(), sqlx::Error> {
                    sqlx::query(sql.ping.clone()).execute(connection).await.map(|_| ())
                }
            }

            impl Operation<$connection> for HasTasks {
                type Output = bool;
                const EFFECT: Effect = Effect::Read;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<bool, sqlx::Error> {
                    sqlx::query_scalar(sql.has_tasks.clone()).fetch_one(connection).await
                }
            }
        };
    };
}
pub(in crate::store) use operations;

/// Makes a type that runs operations (`async fn run(&self, operation)`) a [`TaskStore`](super::super::TaskStore).
macro_rules! task_store {
    ($store:ty) => {
        const _: () = {
            use $crate::{
                Page, Position, Summary, Task, TaskFilter, TaskId, TaskQuery, UserId,
                clock::Timestamp,
                store::{
                    BulkResult, StoreError, TaskChange, TaskStore, Transfer,
                    sql::operations::{
                        Count, Delete, DeleteMatching, Erase, Get, Insert, InsertAll, List, Ping, Reposition,
                        Summarize, TransferAll, Update, UpdateMatching,
                    },
                },
            };

            #[async_trait::async_trait]
            impl TaskStore for $store {
                async fn insert(&self, owner: &UserId, task: &Task) -> Result<bool, StoreError> {
                    self.run(&Insert { owner, task }).await
                }

                async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
                    self.run(&Get { owner, id }).await
                }

                async fn insert_all(&self, owner: &UserId, tasks: &[Task]) -> Result<bool, StoreError> {
                    self.run(&InsertAll { owner, tasks }).await
                }

                async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError> {
                    self.run(&List { owner, query }).await
                }

                async fn count(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
                    self.run(&Count { owner, filter }).await
                }

                async fn summary(&self, owner: &UserId) -> Result<Summary, StoreError> {
                    self.run(&Summarize { owner }).await
                }

                async fn update_matching(
                    &self,
                    owner: &UserId,
                    filter: &TaskFilter,
                    change: &TaskChange,
                    now: Timestamp,
                ) -> Result<BulkResult, StoreError> {
                    self.run(&UpdateMatching { owner, filter, change, now }).await
                }

                async fn reposition(
                    &self,
                    owner: &UserId,
                    positions: &[(TaskId, Position)],
                    now: Timestamp,
                ) -> Result<Vec<Task>, StoreError> {
                    self.run(&Reposition { owner, positions, now }).await
                }

                async fn delete_matching(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
                    self.run(&DeleteMatching { owner, filter }).await
                }

                async fn update(
                    &self,
                    owner: &UserId,
                    id: TaskId,
                    change: &TaskChange,
                    now: Timestamp,
                ) -> Result<Option<Task>, StoreError> {
                    self.run(&Update { owner, id, change, now }).await
                }

                async fn delete(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError> {
                    self.run(&Delete { owner, id }).await
                }

                async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
                    self.run(&Erase { owner }).await
                }

                async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
                    self.run(&TransferAll { owner, to }).await
                }

                async fn ping(&self) -> Result<(), StoreError> {
                    self.run(&Ping).await
                }
            }
        };
    };
}
pub(in crate::store) use task_store;
