//! Many calls at once on a [`PostgresStore`].

use async_trait::async_trait;
use sqlx::{
    PgConnection, Row as _,
    postgres::{PgArguments, PgRow},
};

use super::{
    super::{
        Read, Revision, TaskChange,
        coalescing::{BatchError, BatchStore},
        error::StoreError,
        sql::{
            columns::{COLUMNS, Kind, Value, change_parameters, change_values, row_values},
            operations::{Effect, Operation, of_owner, page, read},
            sqlstate::{Condition, condition},
            statements::Statements,
        },
    },
    PostgresStore,
    arguments::{arrays, read_task},
    distribution::Look,
};
use crate::{Page, Task, TaskId, TaskQuery, UserId, clock::Timestamp};

impl BatchError {
    /// What a failed batch of writes means.
    fn of_write(error: StoreError) -> Self {
        let is_rolled_back = match &error {
            StoreError::Setup(_) | StoreError::NotWritable(_) | StoreError::Interrupted(_) => false,
            StoreError::Timeout(_) => true,
            // The server has responded that the statement failed, and with it every write in it.
            StoreError::Backend(source) => {
                source.downcast_ref().is_some_and(|error| matches!(error, sqlx::Error::Database(_)))
            }
            // One write of the batch has a conflict with another transaction.
            StoreError::Unavailable(_) => {
                matches!(cause(&error), Some((_, Condition::Conflict | Condition::LockTimeout)))
            }
        };
        if is_rolled_back { Self::RolledBack(error) } else { Self::Failed(error) }
    }

    /// What a failed batch of reads means: there was nothing to roll back.
    fn of_read(error: StoreError) -> Self {
        // Only some of its owners may have their rows on a server that cannot be reached.
        let is_of_some = matches!(cause(&error), Some((_, Condition::RemoteLost)));
        match error {
            StoreError::Backend(_) | StoreError::Timeout(_) => Self::RolledBack(error),
            StoreError::Unavailable(_) if is_of_some => Self::RolledBack(error),
            StoreError::Setup(_)
            | StoreError::Unavailable(_)
            | StoreError::NotWritable(_)
            | StoreError::Interrupted(_) => Self::Failed(error),
        }
    }
}

/// The error of the driver.
fn cause(error: &StoreError) -> Option<(&sqlx::Error, Condition)> {
    let (StoreError::Unavailable(source) | StoreError::Backend(source)) = error else { return None };
    source.downcast_ref().map(|error| (error, condition(error)))
}

impl PostgresStore {
    /// Runs a batch. If the server does not support it, no other is sent: for good if the tables have been distributed
    /// since this store looked, otherwise for a while.
    async fn run_batch<O: Operation<PgConnection>>(&self, batch: &O) -> Result<O::Output, BatchError> {
        let error = match self.run(batch).await {
            Ok(output) => return Ok(output),
            Err(error) => error,
        };
        if matches!(cause(&error), Some((_, Condition::Unsupported))) {
            match self.run(&Look).await {
                Ok(found) if found.is_sharded() => tracing::warn!(
                    target: "todo_core::store",
                    "the tables are distributed over several nodes now: calls of several users no longer share a statement"
                ),
                _ => {
                    if let Some((error, _)) = cause(&error) {
                        self.refused_batches.add(error);
                    }
                }
            }
        }
        Err(match O::EFFECT {
            Effect::Read => BatchError::of_read(error),
            Effect::Write | Effect::BatchOfWrites => BatchError::of_write(error),
        })
    }
}

#[async_trait]
impl BatchStore for PostgresStore {
    /// Not with row-level security, and not where the tables are distributed over several nodes: a statement is then for
    /// one owner. And not after the server has refused a batch.
    fn is_batching(&self) -> bool {
        !self.sql.row_security && !self.sql.is_sharded() && !self.refused_batches.are_recent()
    }

    async fn get_many(&self, calls: &[(&UserId, TaskId)]) -> Result<Vec<Option<Task>>, BatchError> {
        self.run_batch(&GetMany(calls)).await
    }

    async fn list_many(
        &self,
        calls: &[(&UserId, &TaskQuery, Option<Revision>)],
    ) -> Result<Vec<Read<Page>>, BatchError> {
        self.run_batch(&ListMany(calls)).await
    }

    async fn insert_many(&self, calls: &[(&UserId, &Task, Option<u64>)]) -> Result<Vec<bool>, BatchError> {
        self.run_batch(&InsertMany(calls)).await
    }

    async fn update_many(
        &self,
        calls: &[(&UserId, TaskId, &TaskChange, Timestamp)],
    ) -> Result<Vec<Option<Task>>, BatchError> {
        self.run_batch(&UpdateMany(calls)).await
    }

    async fn delete_many(&self, calls: &[(&UserId, TaskId)]) -> Result<Vec<bool>, BatchError> {
        self.run_batch(&DeleteMany(calls)).await
    }
}

// Each of many owners.
of_owner! {
    GetMany<'_>: _batch => None,
    ListMany<'_>: _batch => None,
    InsertMany<'_>: _batch => None,
    UpdateMany<'_>: _batch => None,
    DeleteMany<'_>: _batch => None,
}

struct GetMany<'a>(&'a [(&'a UserId, TaskId)]);

impl Operation<PgConnection> for GetMany<'_> {
    type Output = Vec<Option<Task>>;
    const EFFECT: Effect = Effect::Read;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Vec<Option<Task>>, sqlx::Error> {
        let calls = self.0;
        let rows = sqlx::query(sql.batch.get_many.clone())
            .bind(column(calls, |(owner, _)| owner.as_str()))
            .bind(column(calls, |(_, id)| id.as_uuid()))
            .fetch_all(connection)
            .await?;
        one_each(calls, &rows, |(owner, _), row| task(owner, row, 1))
    }
}

struct ListMany<'a>(&'a [(&'a UserId, &'a TaskQuery, Option<Revision>)]);

impl Operation<PgConnection> for ListMany<'_> {
    type Output = Vec<Read<Page>>;
    const EFFECT: Effect = Effect::Read;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Self::Output, sqlx::Error> {
        let calls = self.0;
        let filter: Vec<bool> = calls.iter().filter_map(|(_, query, _)| query.filter.completed).collect();
        let statement = if filter.is_empty() { &sql.batch.list_many } else { &sql.batch.list_completed_many };
        let mut statement = sqlx::query(statement.clone())
            .bind(column(calls, |(owner, ..)| owner.as_str()))
            // A query that matches nothing asks for 0 rows from the nil UUID on.
            .bind(column(calls, |(_, query, _)| query.newest().map_or(uuid::Uuid::nil(), TaskId::as_uuid)))
            .bind(column(calls, |(_, query, _)| query.newest().map_or(0, |_| i64::from(query.limit.get()) + 1)))
            .bind(column(calls, |(.., known)| known.map(Revision::get)));
        if !filter.is_empty() {
            statement = statement.bind(filter);
        }
        let rows = statement.fetch_all(connection).await?;
        let mut pages: Vec<(Option<i64>, Vec<Task>)> = calls
            .iter()
            .map(|(_, query, _)| (None, Vec::with_capacity(usize::from(query.limit.get().min(50)) + 1)))
            .collect();
        for row in &rows {
            let position = position(row, calls.len())?;
            let (revision, tasks) = &mut pages[position];
            *revision = Some(row.try_get_unchecked(1)?);
            if row.try_get_unchecked::<Option<&str>, _>(2)?.is_some() {
                tasks.push(task(calls[position].0, row, 2)?);
            }
        }
        let pages = pages.into_iter().zip(calls).map(|((revision, tasks), (_, query, known))| {
            // Each call has at least one row.
            Ok(read(revision.ok_or(sqlx::Error::RowNotFound)?, *known, page(tasks, query)))
        });
        pages.collect()
    }
}

struct InsertMany<'a>(&'a [(&'a UserId, &'a Task, Option<u64>)]);

impl<'a> Operation<PgConnection> for InsertMany<'a> {
    type Output = Vec<bool>;
    const EFFECT: Effect = Effect::BatchOfWrites;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Vec<bool>, sqlx::Error> {
        let calls = self.0;
        let kinds: Vec<_> = COLUMNS.iter().map(|column| column.kind).chain([Kind::Big]).collect();
        let row = |(owner, task, max): &(&'a UserId, &'a Task, Option<u64>)| {
            // The owner of the call, whatever the task says.
            let owner = Value::Text(Some(owner.as_str().into()));
            let max = Value::Big(max.map(|max| i64::try_from(max).unwrap_or(i64::MAX)));
            std::iter::once(owner).chain(row_values(task).skip(1)).chain([max]).collect()
        };
        let values = arrays(PgArguments::default(), calls.iter().map(row).collect(), &kinds)?;
        let rows = sqlx::query_with(sql.batch.insert_many.clone(), values).fetch_all(connection).await?;
        // The rows have the order of the calls, with some left out. A row of no call is an error.
        let mut inserted = vec![false; calls.len()];
        let mut next = 0;
        for row in &rows {
            let (owner, id): (&str, uuid::Uuid) = (row.try_get_unchecked(0)?, row.try_get_unchecked(1)?);
            let is_it =
                |&(call_owner, task, _): &(&UserId, &Task, _)| call_owner.as_str() == owner && task.id.as_uuid() == id;
            let ahead = calls[next..].iter().position(is_it).map(|ahead| next + ahead);
            let Some(position) = ahead.or_else(|| calls.iter().position(is_it)) else {
                return Err(sqlx::Error::Decode("a row was inserted that belongs to no call".into()));
            };
            inserted[position] = true;
            next = position + 1;
        }
        Ok(inserted)
    }
}

struct UpdateMany<'a>(&'a [(&'a UserId, TaskId, &'a TaskChange, Timestamp)]);

impl<'a> Operation<PgConnection> for UpdateMany<'a> {
    type Output = Vec<Option<Task>>;
    const EFFECT: Effect = Effect::BatchOfWrites;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Vec<Option<Task>>, sqlx::Error> {
        let calls = self.0;
        let fixed = [Kind::Text, Kind::Uuid, Kind::Time];
        let kinds: Vec<_> = fixed.into_iter().chain(change_parameters().into_iter().map(|(_, kind)| kind)).collect();
        let row = |(owner, id, change, now): &(&'a UserId, TaskId, &'a TaskChange, Timestamp)| {
            let fixed =
                [Value::Text(Some(owner.as_str().into())), Value::Uuid(Some(id.as_uuid())), Value::Time(Some(*now))];
            fixed.into_iter().chain(change_values(change)).collect()
        };
        let values = arrays(PgArguments::default(), calls.iter().map(row).collect(), &kinds)?;
        let rows = sqlx::query_with(sql.batch.update_many.clone(), values).fetch_all(connection).await?;
        one_each(calls, &rows, |(owner, ..), row| task(owner, row, 1))
    }
}

struct DeleteMany<'a>(&'a [(&'a UserId, TaskId)]);

impl Operation<PgConnection> for DeleteMany<'_> {
    type Output = Vec<bool>;
    const EFFECT: Effect = Effect::BatchOfWrites;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Vec<bool>, sqlx::Error> {
        let calls = self.0;
        let rows = sqlx::query(sql.batch.delete_many.clone())
            .bind(column(calls, |(owner, _)| owner.as_str()))
            .bind(column(calls, |(_, id)| id.as_uuid()))
            .fetch_all(connection)
            .await?;
        let deleted = one_each(calls, &rows, |(owner, id), row| {
            let (row_owner, row_id): (&str, uuid::Uuid) = (row.try_get_unchecked(1)?, row.try_get_unchecked(2)?);
            if row_owner == owner.as_str() && row_id == id.as_uuid() {
                Ok(())
            } else {
                Err(sqlx::Error::Decode("a row was deleted that belongs to no call".into()))
            }
        })?;
        Ok(deleted.into_iter().map(|deleted| deleted.is_some()).collect())
    }
}

/// One parameter of all calls, as an array.
fn column<'a, C, T>(calls: &'a [C], of: impl Fn(&'a C) -> T) -> Vec<T> {
    calls.iter().map(of).collect()
}

/// The position of the call that a row belongs to.
fn position(row: &PgRow, calls: usize) -> Result<usize, sqlx::Error> {
    let number: i64 = row.try_get_unchecked(0)?;
    usize::try_from(number - 1)
        .ok()
        .filter(|position| *position < calls)
        .ok_or_else(|| sqlx::Error::Decode("a row belongs to a call that was not made".into()))
}

/// What each call gets, of which each has at most one row.
fn one_each<C, T>(
    calls: &[C],
    rows: &[PgRow],
    read: impl Fn(&C, &PgRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<Option<T>>, sqlx::Error> {
    let mut results: Vec<Option<T>> = calls.iter().map(|_| None).collect();
    for row in rows {
        let position = position(row, calls.len())?;
        results[position] = Some(read(&calls[position], row)?);
    }
    Ok(results)
}

/// The task in a row, from the column on that contains its owner.
fn task(owner: &UserId, row: &PgRow, first: usize) -> Result<Task, sqlx::Error> {
    let read: &str = row.try_get_unchecked(first)?;
    let is_own = read == owner.as_str();
    let owner =
        if is_own { owner.clone() } else { UserId::new(read).map_err(|error| sqlx::Error::Decode(Box::new(error)))? };
    read_task(&owner, row, first + 1)
}
