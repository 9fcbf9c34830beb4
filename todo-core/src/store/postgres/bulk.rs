//! The calls that each database runs in its own way.

use sqlx::{
    Arguments as _, Connection as _, PgConnection, Row as _, SqlStr,
    postgres::{PgArguments, PgRow},
};

use super::{
    super::{
        BulkResult, Insertion, Outcome, Precondition, Revision, Transfer,
        sql::{
            columns::{COLUMNS, Kind, Value, change_values, row_values},
            operations::{
                DeleteIf, DeleteMatching, Effect, Erase, Insert, InsertOne, Operation, Purge, Reposition, Revisions,
                TransferAll, UpdateIf, UpdateMatching, WhyNot, revisions,
            },
            selection::Selections,
            statements::Statements,
        },
    },
    arguments::{add_arguments, arguments, arrays, read_task, texts, times_and_set_texts},
};
use crate::{Task, TaskId, UserId};

/// Runs a statement with filters, with row-level security in the function that binds the owner.
pub(super) async fn selected_rows(
    connection: &mut PgConnection,
    sql: &Statements,
    statement: SqlStr,
    values: Vec<Value<'_>>,
) -> Result<Vec<PgRow>, sqlx::Error> {
    if sql.selections.is_in_function() {
        let (times, set_texts) = times_and_set_texts(&values);
        let texts = texts(values);
        let owner = texts.first().cloned().flatten();
        let query = sqlx::query(statement).bind(owner).bind(texts).bind(times).bind(set_texts);
        return query.fetch_all(connection).await;
    }
    sqlx::query_with(statement, arguments(values)?).fetch_all(connection).await
}

/// The first number of the first row.
fn number(rows: &[PgRow], column: usize) -> Result<i64, sqlx::Error> {
    rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(column)
}

/// Several ids as one parameter.
pub(super) fn id_list(ids: impl Iterator<Item = TaskId>) -> Vec<uuid::Uuid> {
    ids.map(TaskId::as_uuid).collect()
}

/// Several texts as one parameter.
pub(super) fn text_list<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    texts.collect()
}

impl Operation<PgConnection> for Insert<'_> {
    type Output = Insertion;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Insertion, sqlx::Error> {
        let Self { owner, tasks, creation } = self;
        // With row-level security a function on the node of the owner does it.
        let is_sharded = sql.is_sharded() && !sql.row_security;
        if is_sharded && !tasks.is_empty() && !has_room(self, connection, sql).await? {
            return WhyNot(self).run(connection, sql).await;
        }
        let is_done = match tasks {
            [] => return Ok(Insertion::Done),
            [task] if is_sharded => {
                let own = Value::Text(Some(owner.as_str().into()));
                let request = creation.request.as_ref();
                let row = std::iter::once(own).chain(row_values(task).skip(1)).chain([
                    Value::Text(request.map(|request| request.key.as_str().into())),
                    Value::Small(request.map(|_| 0)),
                    Value::Bytes(request.map(|request| &request.digest[..])),
                ]);
                let statement = sqlx::query_with(sql.shards.insert_row.clone(), arguments(row)?);
                statement.execute(&mut *connection).await?.rows_affected() == 1
            }
            [task] => InsertOne { owner, task, creation, place: 0 }.run(&mut *connection, sql).await?,
            _ => {
                // The owner once, and the other columns as arrays.
                let kinds: Vec<Kind> = COLUMNS.iter().skip(1).map(|column| column.kind).collect();
                let rows = tasks.iter().map(|task| row_values(task).skip(1).collect()).collect();
                let of_owner = arguments([Value::Text(Some(owner.as_str().into()))])?;
                let mut all = arrays(of_owner, rows, &kinds)?;
                let request = creation.request.as_ref();
                let max_tasks = creation.max_tasks.map(|max| i64::try_from(max).unwrap_or(i64::MAX));
                let rest = [
                    Value::Text(request.map(|request| request.key.as_str().into())),
                    Value::Bytes(request.map(|request| &request.digest[..])),
                    Value::Big(max_tasks),
                ];
                add_arguments(&mut all, rest.into_iter().take(if is_sharded { 2 } else { 3 }))?;
                let statement = if is_sharded {
                    sqlx::query_with(sql.insert_rows(tasks.len()), all).persistent(false)
                } else {
                    sqlx::query_with(sql.postgres.insert_all.clone(), all)
                };
                // Tasks that other calls have added meanwhile are left out, and then none is kept. In a transaction of
                // the host this is a savepoint.
                let mut transaction = connection.begin().await?;
                let done = statement.execute(&mut *transaction).await?;
                let is_done = usize::try_from(done.rows_affected()) == Ok(tasks.len());
                if is_done {
                    transaction.commit().await?;
                } else {
                    transaction.rollback().await?;
                }
                is_done
            }
        };
        if is_done { Ok(Insertion::Done) } else { WhyNot(self).run(connection, sql).await }
    }
}

/// Whether the owner may have so many more tasks, and the request is new, where this is read before.
async fn has_room(call: &Insert<'_>, connection: &mut PgConnection, sql: &Statements) -> Result<bool, sqlx::Error> {
    let Insert { owner, tasks, creation } = call;
    let key = creation.request.as_ref().map(|request| request.key.as_str());
    if creation.max_tasks.is_none() && key.is_none() {
        return Ok(true);
    }
    let (count, is_known): (i64, bool) =
        sqlx::query_as(sql.shards.room.clone()).bind(owner.as_str()).bind(key).fetch_one(connection).await?;
    let would_be = count.unsigned_abs() + tasks.len() as u64;
    Ok(!is_known && creation.max_tasks.is_none_or(|max| would_be <= max))
}

/// The values of the parameters of a precondition.
fn add_precondition(arguments: &mut PgArguments, precondition: &Precondition) -> Result<(), sqlx::Error> {
    let before = precondition.updated_before.map(time::OffsetDateTime::from);
    let added = arguments
        .add(precondition.version_in.as_ref())
        .and_then(|()| arguments.add(&precondition.version_not_in))
        .and_then(|()| arguments.add(before));
    added.map_err(sqlx::Error::Encode)
}

/// Whether a change was made, and the task.
fn found(owner: &UserId, rows: &[PgRow]) -> Result<Option<(bool, Task)>, sqlx::Error> {
    rows.first().map(|row| Ok((row.try_get(0)?, read_task(owner, row, 1)?))).transpose()
}

impl Operation<PgConnection> for UpdateIf<'_> {
    type Output = Outcome<Task>;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Outcome<Task>, sqlx::Error> {
        let Self { update, precondition } = self;
        let mut values = arguments(update.fixed_values().into_iter().chain(change_values(update.change)))?;
        add_precondition(&mut values, precondition)?;
        let rows = sqlx::query_with(sql.postgres.update_if.clone(), values).fetch_all(connection).await?;
        Ok(outcome(found(update.owner, &rows)?, |task| task))
    }
}

impl Operation<PgConnection> for DeleteIf<'_> {
    type Output = Outcome<()>;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Outcome<()>, sqlx::Error> {
        let Self { delete, precondition } = self;
        let key = [Value::Text(Some(delete.owner.as_str().into())), Value::Uuid(Some(delete.id.as_uuid()))];
        let mut values = arguments(key)?;
        add_precondition(&mut values, precondition)?;
        let rows = sqlx::query_with(sql.postgres.delete_if.clone(), values).fetch_all(connection).await?;
        Ok(outcome(found(delete.owner, &rows)?, |_| ()))
    }
}

impl Operation<PgConnection> for Erase<'_> {
    type Output = u64;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<u64, sqlx::Error> {
        let owner = self.owner.as_str();
        if sql.row_security {
            let erased: i64 = sqlx::query_scalar(sql.call.erase.clone()).bind(owner).fetch_one(connection).await?;
            return Ok(erased.unsigned_abs());
        }
        let mut transaction = connection.begin().await?;
        let locked = sqlx::query(sql.postgres.erase_lock.clone()).bind(owner).fetch_optional(&mut *transaction).await?;
        // Who has no row has no task that was committed before.
        if locked.is_none() {
            transaction.rollback().await?;
            return Ok(0);
        }
        let done = sqlx::query(sql.call.erase.clone()).bind(owner).execute(&mut *transaction).await?;
        for statement in [&sql.call.erase_deleted, &sql.call.erase_owner] {
            sqlx::query(statement.clone()).bind(owner).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(done.rows_affected())
    }
}

impl Operation<PgConnection> for TransferAll<'_> {
    type Output = Transfer;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Transfer, sqlx::Error> {
        let (owner, to) = (self.owner.as_str(), self.to.as_str());
        let transfer = sqlx::query_as(sql.call.transfer.clone()).bind(owner).bind(to);
        let (moved, remaining): (i64, i64) = if sql.row_security && !sql.is_sharded() {
            transfer.fetch_one(connection).await?
        } else if sql.row_security {
            // In a transaction, the owners that the function binds are bound on their nodes, too.
            let mut transaction = connection.begin().await?;
            let numbers = transfer.fetch_one(&mut *transaction).await?;
            transaction.commit().await?;
            numbers
        } else {
            let mut transaction = connection.begin().await?;
            if sql.is_sharded() {
                for owner in [owner.min(to), owner.max(to)] {
                    sqlx::query(sql.shards.lock_owner.clone()).bind(owner).execute(&mut *transaction).await?;
                }
            } else {
                let lock = sqlx::query(sql.postgres.transfer_lock.clone()).bind(owner).bind(to);
                lock.execute(&mut *transaction).await?;
            }
            let numbers: (i64, i64) = transfer.fetch_one(&mut *transaction).await?;
            // Without a task, no row of an owner is left behind either.
            if numbers.0 > 0 {
                transaction.commit().await?;
            } else {
                transaction.rollback().await?;
            }
            numbers
        };
        Ok(Transfer { moved: moved.unsigned_abs(), remaining: remaining.unsigned_abs() })
    }
}

impl Operation<PgConnection> for Revisions<'_> {
    type Output = Vec<Revision>;
    const EFFECT: Effect = Effect::Read;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Vec<Revision>, sqlx::Error> {
        let query = sqlx::query_scalar(sql.revisions()).bind(text_list(self.0.iter().map(UserId::as_str)));
        let found = if sql.row_security && sql.is_sharded() {
            // As in a transfer.
            let mut transaction = connection.begin().await?;
            let found = query.fetch_all(&mut *transaction).await?;
            transaction.commit().await?;
            found
        } else {
            query.fetch_all(connection).await?
        };
        revisions(found, self.0)
    }
}

impl Operation<PgConnection> for Purge<'_> {
    type Output = u64;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<u64, sqlx::Error> {
        let count: i64 = sqlx::query_scalar(sql.postgres.purge.clone())
            .bind(self.owner.as_str())
            .bind(self.before.unix_micros())
            .bind(i64::from(self.limit.get()))
            .fetch_one(connection)
            .await?;
        Ok(count.unsigned_abs())
    }
}

impl Operation<PgConnection> for UpdateMatching<'_> {
    type Output = BulkResult;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<BulkResult, sqlx::Error> {
        let Self { owner, filter, change, now } = self;
        let values = Selections::update_values(owner.as_str(), filter, change, *now);
        let rows = selected_rows(connection, sql, sql.selections.update_counted(filter), values).await?;
        Ok(bulk_result(number(&rows, 0)?, number(&rows, 1)?))
    }
}

impl Operation<PgConnection> for Reposition<'_> {
    type Output = Vec<Task>;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Vec<Task>, sqlx::Error> {
        let ids: Vec<_> = self.positions.iter().map(|(id, _)| id.as_uuid()).collect();
        let positions: Vec<_> = self.positions.iter().map(|(_, position)| position.as_str()).collect();
        let rows = sqlx::query(sql.call.reposition.clone())
            .bind(self.owner.as_str())
            .bind(ids)
            .bind(positions)
            .bind(time::OffsetDateTime::from(self.now))
            .bind(self.moved.0.as_uuid())
            .bind(self.moved.1)
            .fetch_all(connection)
            .await?;
        rows.iter().map(|row| read_task(self.owner, row, 0)).collect()
    }
}

impl Operation<PgConnection> for DeleteMatching<'_> {
    type Output = u64;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<u64, sqlx::Error> {
        let values = Selections::filter_values(self.owner.as_str(), self.filter);
        let rows = selected_rows(connection, sql, sql.selections.delete(self.filter), values).await?;
        Ok(number(&rows, 0)?.unsigned_abs())
    }
}

/// The counts of a change of many tasks.
fn bulk_result(matched: i64, changed: i64) -> BulkResult {
    BulkResult { matched: matched.unsigned_abs(), changed: changed.unsigned_abs() }
}

/// The result of a change with a precondition: whether it was made, and the task.
fn outcome<T>(found: Option<(bool, Task)>, done: impl FnOnce(Task) -> T) -> Outcome<T> {
    match found {
        None => Outcome::Missing,
        Some((true, task)) => Outcome::Done(done(task)),
        Some((false, task)) => Outcome::Unmet(Box::new(task)),
    }
}
