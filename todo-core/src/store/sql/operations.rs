//! The calls of a store as values, which know their statement and its parameters.
//!
//! A store on an SQL database has a method `run` that runs any [`Operation`] on one of its connections; the macro
//! `task_store!` writes the rest.

use super::{
    super::{Completion, TaskChange, error::StoreError},
    statements::Statements,
};
use crate::{Description, Patch, Task, TaskId, TaskQuery, Title, UserId, clock::Timestamp};

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

/// The parameters of an update, in the order of the statement.
pub(in crate::store) struct Change<'a> {
    pub(in crate::store) title: Option<&'a str>,
    pub(in crate::store) describe: bool,
    pub(in crate::store) description: Option<&'a str>,
    pub(in crate::store) toggle: bool,
    pub(in crate::store) completed: Option<bool>,
}

impl<'a> From<&'a TaskChange> for Change<'a> {
    fn from(change: &'a TaskChange) -> Self {
        Self {
            title: change.title.as_ref().map(Title::as_str),
            describe: change.description != Patch::Keep,
            description: match &change.description {
                Patch::Set(description) => Some(description.as_str()),
                Patch::Keep | Patch::Clear => None,
            },
            toggle: change.completed == Some(Completion::Toggle),
            completed: match change.completed {
                Some(Completion::Set(completed)) => Some(completed),
                Some(Completion::Toggle) | None => None,
            },
        }
    }
}

/// A row as the statements return it. `T` is how the database keeps a time.
pub(in crate::store) type Row<T> = (uuid::Uuid, String, Option<String>, bool, T, T, i64);

/// The task in a row.
pub(in crate::store) fn task<T: Into<Timestamp>>(owner: &UserId, row: Row<T>) -> Result<Task, sqlx::Error> {
    let (id, title, description, completed, created_at, updated_at, version) = row;
    let decode = |error| sqlx::Error::Decode(Box::new(error));
    Ok(Task {
        id: TaskId::from(id),
        user_id: owner.clone(),
        title: Title::new(title).map_err(decode)?,
        description: description.map(Description::new).transpose().map_err(decode)?,
        completed,
        created_at: created_at.into(),
        updated_at: updated_at.into(),
        version,
    })
}

/// Writes the operations for the connections of one database. They differ only in types, over which sqlx can be generic
/// only with a page of bounds.
macro_rules! operations {
    ($connection:ty, $time:ty) => {
        const _: () = {
            use $crate::{
                Description, Page, Task,
                store::sql::{
                    operations::{
                        Change, Delete, Effect, Erase, Get, HasTasks, Insert, List, Operation, Ping, Row, Update, task,
                    },
                    statements::Statements,
                },
            };

            impl Operation<$connection> for Insert<'_> {
                type Output = bool;
                const EFFECT: Effect = Effect::Write;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<bool, sqlx::Error> {
                    let Self { owner, task } = self;
                    let done = sqlx::query(sql.insert.clone())
                        .bind(owner.as_str())
                        .bind(task.id.as_uuid())
                        .bind(task.title.as_str())
                        .bind(task.description.as_ref().map(Description::as_str))
                        .bind(task.completed)
                        .bind(<$time>::from(task.created_at))
                        .bind(<$time>::from(task.updated_at))
                        .bind(task.version)
                        .execute(connection)
                        .await?;
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
                    let row: Option<Row<$time>> = sqlx::query_as(sql.get.clone())
                        .bind(self.owner.as_str())
                        .bind(self.id.as_uuid())
                        .fetch_optional(connection)
                        .await?;
                    row.map(|row| task(self.owner, row)).transpose()
                }
            }

            impl Operation<$connection> for List<'_> {
                type Output = Page;
                const EFFECT: Effect = Effect::Read;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<Page, sqlx::Error> {
                    let Self { owner, query } = self;
                    let Some(newest) = query.newest() else {
                        return Ok(Page::default());
                    };
                    let statement = if query.completed.is_some() { &sql.list_completed } else { &sql.list };
                    let mut statement = sqlx::query_as(statement.clone())
                        .bind(owner.as_str())
                        .bind(newest.as_uuid())
                        .bind(i64::from(query.limit.get()) + 1);
                    if let Some(completed) = query.completed {
                        statement = statement.bind(completed);
                    }
                    let rows: Vec<Row<$time>> = statement.fetch_all(connection).await?;
                    let tasks = rows.into_iter().map(|row| task(owner, row)).collect::<Result<_, _>>()?;
                    Ok(Page::from_one_more(tasks, query.limit))
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
                    let change = Change::from(self.change);
                    // Not `fetch_optional`: on SQLite it returns with the first row, and the statement commits only
                    // when it has been read to its end.
                    let rows: Vec<Row<$time>> = sqlx::query_as(sql.update.clone())
                        .bind(self.owner.as_str())
                        .bind(self.id.as_uuid())
                        .bind(change.title)
                        .bind(change.describe)
                        .bind(change.description)
                        .bind(change.toggle)
                        .bind(change.completed)
                        .bind(<$time>::from(self.now))
                        .fetch_all(connection)
                        .await?;
                    rows.into_iter().next().map(|row| task(self.owner, row)).transpose()
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
                Page, Task, TaskId, TaskQuery, UserId,
                clock::Timestamp,
                store::{
                    StoreError, TaskChange, TaskStore, Transfer,
                    sql::operations::{Delete, Erase, Get, Insert, List, Ping, TransferAll, Update},
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

                async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError> {
                    self.run(&List { owner, query }).await
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
