//! Rows of the host and a task in one transaction.

// recipe
use std::error::Error;

use sqlx::PgPool;
use todo_core::{NewTask, Title, TodoService, UserId, store::PostgresStore};

/// Creates a project and its first task. After the commit both exist; after an error, neither does.
pub async fn create_project(
    pool: &PgPool,
    store: &PostgresStore, // the store of `service`
    service: &TodoService,
    owner: UserId,
    name: &str,
) -> Result<i64, Box<dyn Error + Send + Sync>> {
    let mut transaction = pool.begin().await?;
    let insert = "insert into projects (name) values ($1) returning id";
    let project: i64 = sqlx::query_scalar(insert).bind(name).fetch_one(&mut *transaction).await?;

    // A store that works in your transaction, with the names and settings of `store`.
    let joined = store.in_transaction(transaction);
    let tasks = service.with_store(joined.clone());
    let task = tasks.for_user(owner).create(NewTask::new(Title::new(format!("Plan {name}"))?)).await?;

    // Take the transaction back, use it further, and commit it.
    let mut transaction = joined.take().await.ok_or("the transaction was taken before")?;
    let update = "update projects set first_task = $2 where id = $1";
    sqlx::query(update).bind(project).bind(task.id.as_uuid()).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(project)
}
// end
