//! A table of the host beside each task.

/// Creates the table.
pub const SCHEMA: &str = include_str!("own_table.sql");

// recipe
use sqlx::PgPool;
use todo_core::{TaskId, UserId};

/// Adds a label to a task. Without such a task, the database rejects the row.
pub async fn add_label(pool: &PgPool, user: &UserId, task: TaskId, label: &str) -> Result<(), sqlx::Error> {
    let insert = "insert into labels (user_id, task_id, label) values ($1, $2, $3) on conflict do nothing";
    sqlx::query(insert).bind(user.as_str()).bind(task.as_uuid()).bind(label).execute(pool).await?;
    Ok(())
}

/// Returns a user's tasks with this label.
pub async fn labelled(pool: &PgPool, user: &UserId, label: &str) -> Result<Vec<String>, sqlx::Error> {
    let select = "select title from todo.tasks join labels on labels.user_id = tasks.user_id and task_id = id
                  where tasks.user_id = $1 and label = $2 order by id desc";
    sqlx::query_scalar(select).bind(user.as_str()).bind(label).fetch_all(pool).await
}
// end
