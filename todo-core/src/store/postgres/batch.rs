//! Many calls at once on a [`PostgresStore`].

use async_trait::async_trait;
use sqlx::{
    PgConnection, Row as _,
    postgres::{PgArguments, PgRow},
};

use super::{
    super::{
        TaskChange,
        coalescing::{BatchError, BatchStore},
        error::StoreError,
        sql::{
            columns::{COLUMNS, Kind, Value, change_parameters, change_values, row_values},
            operations::{Effect, Operation},
            sqlstate::{Condition, condition},
            statements::Statements,
        },
    },
    PostgresStore,
    arguments::{arrays, read_task},
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
            StoreError::Unavailable(source) => source
                .downcast_ref()
                .is_some_and(|error| matches!(condition(error), Condition::Conflict | Condition::LockTimeout)),
        };
        if is_rolled_back { Self::RolledBack(error) } else { Self::Failed(error) }
    }

    /// What a failed batch of reads means: there was nothing to roll back.
    fn of_read(error: StoreError) -> Self {
        match error {
            StoreError::Backend(_) | StoreError::Timeout(_) => Self::RolledBack(error),
            StoreError::Setup(_)
            | StoreError::Unavailable(_)
            | StoreError::NotWritable(_)
            | StoreError::Interrupted(_) => Self::Failed(error),
        }
    }
}

#[async_trait]
impl BatchStore for PostgresStore {
    /// Not with row-level security: a statement is then for one owner.
    fn is_batching(&self) -> bool {
        !self.sql.row_security
    }

    async fn get_many(&self, calls: &[(&UserId, TaskId)]) -> Result<Vec<Option<Task>>, BatchError> {
        self.run(&GetMany(calls)).await.map_err(BatchError::of_read)
    }

    async fn list_many(&self, calls: &[(&UserId, &TaskQuery)]) -> Result<Vec<Page>, BatchError> {
        self.run(&ListMany(calls)).await.map_err(BatchError::of_read)
    }

    async fn insert_many(&self, calls: &[(&UserId, &Task)]) -> Result<Vec<bool>, BatchError> {
        self.run(&InsertMany(calls)).await.map_err(BatchError::of_write)
    }

    async fn update_many(
        &self,
        calls: &[(&UserId, TaskId, &TaskChange, Timestamp)],
    ) -> Result<Vec<Option<Task>>, BatchError> {
        self.run(&UpdateMany(calls)).await.map_err(BatchError::of_write)
    }

    async fn delete_many(&self, calls: &[(&UserId, TaskId)]) -> Result<Vec<bool>, BatchError> {
        self.run(&DeleteMany(calls)).await.map_err(BatchError::of_write)
    }
}

struct GetMany<'a>(&'a [(&'a UserId, TaskId)]);

impl Operation<PgConnection> for GetMany<'_> {
    type Output = Vec<Option<Task>>;
    const EFFECT: Effect = Effect::Read;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Vec<Option<Task>>, sqlx::Error> {
        let calls = self.0;
        let rows = sqlx::query(sql.batch.get.clone())
            .bind(column(calls, |(owner, _)| owner.as_str()))
            .bind(column(calls, |(_, id)| id.as_uuid()))
            .fetch_all(connection)
            .await?;
        one_each(calls, &rows, |(owner, _), row| task(owner, row))
    }
}

struct ListMany<'a>(&'a [(&'a UserId, &'a TaskQuery)]);

impl Operation<PgConnection> for ListMany<'_> {
    type Output = Vec<Page>;
    const EFFECT: Effect = Effect::Read;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Vec<Page>, sqlx::Error> {
        let calls = self.0;
        let filter: Vec<bool> = calls.iter().filter_map(|(_, query)| query.filter.completed).collect();
        let statement = if filter.is_empty() { &sql.batch.list } else { &sql.batch.list_completed };
        let mut statement = sqlx::query(statement.clone())
            .bind(column(calls, |(owner, _)| owner.as_str()))
            // A query that matches nothing asks for 0 rows from the nil UUID on.
            .bind(column(calls, |(_, query)| query.newest().map_or(uuid::Uuid::nil(), TaskId::as_uuid)))
            .bind(column(calls, |(_, query)| query.newest().map_or(0, |_| i64::from(query.limit.get()) + 1)));
        if !filter.is_empty() {
            statement = statement.bind(filter);
        }
        let rows = statement.fetch_all(connection).await?;
        let mut pages: Vec<Vec<Task>> =
            calls.iter().map(|(_, query)| Vec::with_capacity(usize::from(query.limit.get().min(50)) + 1)).collect();
        for row in &rows {
            let position = position(row, calls.len())?;
            pages[position].push(task(calls[position].0, row)?);
        }
        let pages = pages.into_iter().zip(calls).map(|(mut tasks, (_, query))| {
            // In practice the rows are in order; SQL promises this only for each list by itself.
            if !tasks.is_sorted_by(|one, next| one.id > next.id) {
                tasks.sort_by_key(|task| std::cmp::Reverse(task.id));
            }
            Page::from_one_more(tasks, query)
        });
        Ok(pages.collect())
    }
}

struct InsertMany<'a>(&'a [(&'a UserId, &'a Task)]);

impl<'a> Operation<PgConnection> for InsertMany<'a> {
    type Output = Vec<bool>;
    const EFFECT: Effect = Effect::BatchOfWrites;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Vec<bool>, sqlx::Error> {
        let calls = self.0;
        let kinds: Vec<_> = COLUMNS.iter().map(|column| column.kind).collect();
        let row = |(owner, task): &(&'a UserId, &'a Task)| {
            // The owner of the call, whatever the task says.
            let owner = Value::Text(Some(owner.as_str().into()));
            std::iter::once(owner).chain(row_values(task).skip(1)).collect()
        };
        let values = arrays(PgArguments::default(), calls.iter().map(row).collect(), &kinds)?;
        let rows = sqlx::query_with(sql.batch.insert.clone(), values).fetch_all(connection).await?;
        // The rows have the order of the calls, with some left out. A row of no call is an error.
        let mut inserted = vec![false; calls.len()];
        let mut next = 0;
        for row in &rows {
            let (owner, id): (&str, uuid::Uuid) = (row.try_get_unchecked(0)?, row.try_get_unchecked(1)?);
            let is_it =
                |&(call_owner, task): &(&UserId, &Task)| call_owner.as_str() == owner && task.id.as_uuid() == id;
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
        let fixed = [Kind::Text, Kind::Uuid, Kind::Time, Kind::Big];
        let kinds: Vec<_> = fixed.into_iter().chain(change_parameters().into_iter().map(|(_, kind)| kind)).collect();
        let row = |(owner, id, change, now): &(&'a UserId, TaskId, &'a TaskChange, Timestamp)| {
            let fixed = [
                Value::Text(Some(owner.as_str().into())),
                Value::Uuid(Some(id.as_uuid())),
                Value::Time(Some(*now)),
                Value::Big(change.if_version),
            ];
            fixed.into_iter().chain(change_values(change)).collect()
        };
        let values = arrays(PgArguments::default(), calls.iter().map(row).collect(), &kinds)?;
        let rows = sqlx::query_with(sql.batch.update.clone(), values).fetch_all(connection).await?;
        one_each(calls, &rows, |(owner, ..), row| task(owner, row))
    }
}

struct DeleteMany<'a>(&'a [(&'a UserId, TaskId)]);

impl Operation<PgConnection> for DeleteMany<'_> {
    type Output = Vec<bool>;
    const EFFECT: Effect = Effect::BatchOfWrites;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Vec<bool>, sqlx::Error> {
        let calls = self.0;
        let rows = sqlx::query(sql.batch.delete.clone())
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

/// The task in a row, with the owner that the row contains.
fn task(owner: &UserId, row: &PgRow) -> Result<Task, sqlx::Error> {
    let read: &str = row.try_get_unchecked(1)?;
    let is_own = read == owner.as_str();
    let owner =
        if is_own { owner.clone() } else { UserId::new(read).map_err(|error| sqlx::Error::Decode(Box::new(error)))? };
    read_task(&owner, row, 2)
}
