//! [`PostgresStore`], many calls at once.

use async_trait::async_trait;
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use time::OffsetDateTime;

use super::{
    BatchError, BatchStore, PostgresStore, StoreError, TaskChange,
    postgres::on_connection,
    sql::{self, Batches, Change, is_disconnected},
};
use crate::{Description, Page, Task, TaskId, TaskQuery, UserId, clock::Timestamp};

impl BatchError {
    /// What a failed batch of writes means.
    fn of_write(error: StoreError) -> Self {
        match &error {
            // The server has answered that the statement failed, and with it everything in it.
            StoreError::Backend(source) | StoreError::Timeout(source)
                if source.downcast_ref::<sqlx::Error>().is_some_and(is_refused) =>
            {
                Self::RolledBack(error)
            }
            StoreError::Unavailable(source) if source.downcast_ref::<sqlx::Error>().is_some_and(is_contended) => {
                Self::RolledBack(error)
            }
            _ => Self::Failed(error),
        }
    }

    /// What a failed batch of reads means: there was nothing to roll back.
    fn of_read(error: StoreError) -> Self {
        match error {
            StoreError::Backend(_) | StoreError::Timeout(_) => Self::RolledBack(error),
            StoreError::Unavailable(_) => Self::Failed(error),
        }
    }
}

fn is_refused(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(_)) && !is_disconnected(error)
}

/// A deadlock, a lock that was not to be had, a serialization failure: one call of the batch met somebody.
fn is_contended(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| ["40001", "40P01", "55P03"].contains(&&*code))
}

#[async_trait]
impl BatchStore for PostgresStore {
    async fn get_many(&self, calls: &[(&UserId, TaskId)]) -> Result<Vec<Option<Task>>, BatchError> {
        let sql = &self.statements().batch;
        let found: Result<_, StoreError> =
            async { on_connection!(read self, connection => get_many(&mut connection, sql, calls)) }.await;
        found.map_err(BatchError::of_read)
    }

    async fn list_many(&self, calls: &[(&UserId, &TaskQuery)]) -> Result<Vec<Page>, BatchError> {
        let sql = &self.statements().batch;
        let found: Result<_, StoreError> =
            async { on_connection!(read self, connection => list_many(&mut connection, sql, calls)) }.await;
        found.map_err(BatchError::of_read)
    }

    async fn insert_many(&self, calls: &[(&UserId, &Task)]) -> Result<Vec<bool>, BatchError> {
        let sql = &self.statements().batch;
        let done: Result<_, StoreError> =
            async { on_connection!(batch self, connection => insert_many(&mut connection, sql, calls)) }.await;
        done.map_err(BatchError::of_write)
    }

    async fn update_many(
        &self,
        calls: &[(&UserId, TaskId, &TaskChange, Timestamp)],
    ) -> Result<Vec<Option<Task>>, BatchError> {
        let sql = &self.statements().batch;
        let done: Result<_, StoreError> =
            async { on_connection!(batch self, connection => update_many(&mut connection, sql, calls)) }.await;
        done.map_err(BatchError::of_write)
    }

    async fn delete_many(&self, calls: &[(&UserId, TaskId)]) -> Result<Vec<bool>, BatchError> {
        let sql = &self.statements().batch;
        let done: Result<_, StoreError> =
            async { on_connection!(batch self, connection => delete_many(&mut connection, sql, calls)) }.await;
        done.map_err(BatchError::of_write)
    }
}

async fn get_many(
    connection: &mut PgConnection,
    sql: &Batches,
    calls: &[(&UserId, TaskId)],
) -> Result<Vec<Option<Task>>, sqlx::Error> {
    let rows = sqlx::query(sql.get)
        .bind(column(calls, |(owner, _)| owner.as_str()))
        .bind(column(calls, |(_, id)| id.as_uuid()))
        .fetch_all(connection)
        .await?;
    one_each(calls, &rows, |(owner, _), row| task(owner, row))
}

async fn list_many(
    connection: &mut PgConnection,
    sql: &Batches,
    calls: &[(&UserId, &TaskQuery)],
) -> Result<Vec<Page>, sqlx::Error> {
    let filter: Vec<bool> = calls.iter().filter_map(|(_, query)| query.completed).collect();
    let statement = if filter.is_empty() { sql.list } else { sql.list_completed };
    let mut statement = sqlx::query(statement)
        .bind(column(calls, |(owner, _)| owner.as_str()))
        // Nothing is below the nil UUID but itself, so a query that lets nothing through asks for no row of it.
        .bind(column(calls, |(_, query)| query.newest().map_or(uuid::Uuid::nil(), TaskId::as_uuid)))
        .bind(column(calls, |(_, query)| query.newest().map_or(0, |_| i64::from(query.limit.get()) + 1)));
    if !filter.is_empty() {
        statement = statement.bind(filter);
    }
    let rows = statement.fetch_all(connection).await?;
    let mut pages: Vec<Vec<Task>> =
        calls.iter().map(|(_, query)| Vec::with_capacity(usize::from(query.limit.get().min(50)) + 1)).collect();
    for row in &rows {
        let place = place(row, calls.len())?;
        pages[place].push(task(calls[place].0, row)?);
    }
    let pages = pages.into_iter().zip(calls).map(|(mut tasks, (_, query))| {
        // In practice they come in order; SQL promises it only for each list by itself.
        if !tasks.is_sorted_by(|one, next| one.id > next.id) {
            tasks.sort_by_key(|task| std::cmp::Reverse(task.id));
        }
        Page::from_one_more(tasks, query.limit)
    });
    Ok(pages.collect())
}

async fn insert_many(
    connection: &mut PgConnection,
    sql: &Batches,
    calls: &[(&UserId, &Task)],
) -> Result<Vec<bool>, sqlx::Error> {
    let rows = sqlx::query(sql.insert)
        .bind(column(calls, |(owner, _)| owner.as_str()))
        .bind(column(calls, |(_, task)| task.id.as_uuid()))
        .bind(column(calls, |(_, task)| task.title.as_str()))
        .bind(column(calls, |(_, task)| task.description.as_ref().map(Description::as_str)))
        .bind(column(calls, |(_, task)| task.completed))
        .bind(column(calls, |(_, task)| OffsetDateTime::from(task.created_at)))
        .bind(column(calls, |(_, task)| OffsetDateTime::from(task.updated_at)))
        .bind(column(calls, |(_, task)| task.version))
        .fetch_all(connection)
        .await?;
    // They come sorted as the calls are, with some left out; whatever else comes is of nobody here.
    let mut inserted = vec![false; calls.len()];
    let mut next = 0;
    for row in &rows {
        let (owner, id): (&str, uuid::Uuid) = (row.try_get(0)?, row.try_get(1)?);
        let is_it = |&(call_owner, task): &(&UserId, &Task)| call_owner.as_str() == owner && task.id.as_uuid() == id;
        let ahead = calls[next..].iter().position(is_it).map(|ahead| next + ahead);
        let Some(place) = ahead.or_else(|| calls.iter().position(is_it)) else {
            return Err(sqlx::Error::Decode("a row was inserted that nobody asked for".into()));
        };
        inserted[place] = true;
        next = place + 1;
    }
    Ok(inserted)
}

async fn update_many(
    connection: &mut PgConnection,
    sql: &Batches,
    calls: &[(&UserId, TaskId, &TaskChange, Timestamp)],
) -> Result<Vec<Option<Task>>, sqlx::Error> {
    let changes = calls.iter().map(|(_, _, change, _)| Change::from(*change)).collect::<Vec<_>>();
    let rows = sqlx::query(sql.update)
        .bind(column(calls, |(owner, ..)| owner.as_str()))
        .bind(column(calls, |(_, id, ..)| id.as_uuid()))
        .bind(column(&changes, |change| change.title))
        .bind(column(&changes, |change| change.describe))
        .bind(column(&changes, |change| change.description))
        .bind(column(&changes, |change| change.toggle))
        .bind(column(&changes, |change| change.completed))
        .bind(column(calls, |(.., now)| OffsetDateTime::from(*now)))
        .fetch_all(connection)
        .await?;
    one_each(calls, &rows, |(owner, ..), row| task(owner, row))
}

async fn delete_many(
    connection: &mut PgConnection,
    sql: &Batches,
    calls: &[(&UserId, TaskId)],
) -> Result<Vec<bool>, sqlx::Error> {
    let rows = sqlx::query(sql.delete)
        .bind(column(calls, |(owner, _)| owner.as_str()))
        .bind(column(calls, |(_, id)| id.as_uuid()))
        .fetch_all(connection)
        .await?;
    let deleted = one_each(calls, &rows, |(owner, id), row| {
        let (row_owner, row_id): (&str, uuid::Uuid) = (row.try_get(1)?, row.try_get(2)?);
        if row_owner == owner.as_str() && row_id == id.as_uuid() {
            Ok(())
        } else {
            Err(sqlx::Error::Decode("a row was deleted that nobody asked for".into()))
        }
    })?;
    Ok(deleted.into_iter().map(|deleted| deleted.is_some()).collect())
}

/// One parameter of all calls, as an array.
fn column<'a, C, T>(calls: &'a [C], of: impl Fn(&'a C) -> T) -> Vec<T> {
    calls.iter().map(of).collect()
}

/// The place of the call that a row answers.
fn place(row: &PgRow, calls: usize) -> Result<usize, sqlx::Error> {
    let place: i64 = row.try_get(0)?;
    usize::try_from(place - 1)
        .ok()
        .filter(|place| *place < calls)
        .ok_or_else(|| sqlx::Error::Decode("a row answers a call that was not made".into()))
}

fn one_each<C, T>(
    calls: &[C],
    rows: &[PgRow],
    read: impl Fn(&C, &PgRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<Option<T>>, sqlx::Error> {
    let mut answers: Vec<Option<T>> = calls.iter().map(|_| None).collect();
    for row in rows {
        let place = place(row, calls.len())?;
        answers[place] = Some(read(&calls[place], row)?);
    }
    Ok(answers)
}

/// The task in a row, with the owner that the row names.
fn task(owner: &UserId, row: &PgRow) -> Result<Task, sqlx::Error> {
    let named: &str = row.try_get(1)?;
    let is_own = named == owner.as_str();
    let owner = if is_own {
        owner.clone()
    } else {
        UserId::new(named).map_err(|error| sqlx::Error::Decode(Box::new(error)))?
    };
    let (id, title, description, completed) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
    sql::task(&owner, (id, title, description, completed, time(row, 6)?, time(row, 7)?, row.try_get(8)?))
}

/// A time as it comes over the wire: microseconds since 2000. Two for each row, so not by way of a calendar.
fn time(row: &PgRow, column: usize) -> Result<Timestamp, sqlx::Error> {
    const YEAR_2000: i64 = 946_684_800_000_000;
    let micros: i64 = row.try_get_unchecked(column)?;
    Ok(Timestamp::from_unix_micros(micros.saturating_add(YEAR_2000)))
}
