//! Calls with filters, and calls that change many tasks.

use sqlx::{PgConnection, Row as _, SqlStr, postgres::PgRow};

use super::{
    super::{
        BulkResult,
        sql::{
            columns::{COLUMNS, Kind, Value, row_values},
            operations::{Count, DeleteMatching, Effect, InsertAll, Operation, Reposition, UpdateMatching},
            selection::Selections,
            statements::Statements,
        },
    },
    arguments::{arguments, arrays, read_task, texts},
};
use crate::{Task, TaskQuery, UserId};

/// Runs a statement with filters, with row-level security in the function that binds the owner.
async fn rows(
    connection: &mut PgConnection,
    sql: &Statements,
    statement: SqlStr,
    values: Vec<Value<'_>>,
) -> Result<Vec<PgRow>, sqlx::Error> {
    if sql.selections.is_in_function() {
        let texts = texts(values);
        let owner = texts.first().cloned().flatten();
        return sqlx::query(statement).bind(owner).bind(texts).fetch_all(connection).await;
    }
    sqlx::query_with(statement, arguments(values)?).fetch_all(connection).await
}

/// The first number of the first row.
fn number(rows: &[PgRow], column: usize) -> Result<i64, sqlx::Error> {
    rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(column)
}

pub(super) async fn list_rows(
    connection: &mut PgConnection,
    sql: &Statements,
    owner: &UserId,
    query: &TaskQuery,
) -> Result<Vec<PgRow>, sqlx::Error> {
    rows(connection, sql, sql.selections.list(query), Selections::list_values(owner.as_str(), query)).await
}

impl Operation<PgConnection> for Count<'_> {
    type Output = u64;
    const EFFECT: Effect = Effect::Read;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<u64, sqlx::Error> {
        let values = Selections::filter_values(self.owner.as_str(), self.filter);
        let rows = rows(connection, sql, sql.selections.count(self.filter), values).await?;
        Ok(number(&rows, 0)?.unsigned_abs())
    }
}

impl Operation<PgConnection> for InsertAll<'_> {
    type Output = bool;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<bool, sqlx::Error> {
        // The owner once, and the other columns as arrays.
        let kinds: Vec<Kind> = COLUMNS.iter().skip(1).map(|column| column.kind).collect();
        let rows = self.tasks.iter().map(|task| row_values(task).skip(1).collect()).collect();
        let owner = arguments([Value::Text(Some(self.owner.as_str().into()))])?;
        let all = arrays(owner, rows, &kinds)?;
        let done = sqlx::query_with(sql.insert_all.clone(), all).execute(connection).await?;
        Ok(usize::try_from(done.rows_affected()) == Ok(self.tasks.len()))
    }
}

impl Operation<PgConnection> for UpdateMatching<'_> {
    type Output = BulkResult;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<BulkResult, sqlx::Error> {
        let Self { owner, filter, change, now } = self;
        let values = Selections::update_values(owner.as_str(), filter, change, *now);
        let rows = rows(connection, sql, sql.selections.update_counted(filter), values).await?;
        Ok(bulk_result(number(&rows, 0)?, number(&rows, 1)?))
    }
}

impl Operation<PgConnection> for Reposition<'_> {
    type Output = Vec<Task>;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Vec<Task>, sqlx::Error> {
        let ids: Vec<_> = self.positions.iter().map(|(id, _)| id.as_uuid()).collect();
        let positions: Vec<_> = self.positions.iter().map(|(_, position)| position.as_str()).collect();
        let rows = sqlx::query(sql.reposition.clone())
            .bind(self.owner.as_str())
            .bind(ids)
            .bind(positions)
            .bind(time::OffsetDateTime::from(self.now))
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
        let statement = sql.selections.delete(self.filter);
        if sql.selections.is_in_function() {
            return Ok(number(&rows(connection, sql, statement, values).await?, 0)?.unsigned_abs());
        }
        let done = sqlx::query_with(statement, arguments(values)?).execute(connection).await?;
        Ok(done.rows_affected())
    }
}

/// The counts of a change of many tasks.
fn bulk_result(matched: i64, changed: i64) -> BulkResult {
    BulkResult { matched: matched.unsigned_abs(), changed: changed.unsigned_abs() }
}
