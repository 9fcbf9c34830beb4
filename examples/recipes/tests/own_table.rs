//! The recipe of a table beside the tasks.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use recipes::own_table::{SCHEMA, add_label, labelled};
use sqlx::{AssertSqlSafe, Executor as _, PgPool, SqlitePool};
use testkit::postgres::TestDatabase;
use todo_core::{
    NewTask, TaskId, Title, TodoService, UserId,
    store::{CoalescingStore, DataLoss, PostgresStore, SqliteStore},
};

async fn host() -> (TestDatabase, PgPool, PostgresStore) {
    let database = testkit::postgres::empty_database().await;
    let pool = PgPool::connect(database.url()).await.unwrap();
    let store = PostgresStore::new(pool.clone());
    store.migrate().await.unwrap();
    pool.execute(SCHEMA).await.unwrap();
    (database, pool, store)
}

async fn create(service: &TodoService, user: &UserId, title: &str) -> TaskId {
    service.for_user(user.clone()).create(NewTask::new(Title::new(title).unwrap())).await.unwrap().id
}

async fn labels(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from labels").fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn the_rows_go_with_their_tasks() {
    let (database, pool, store) = host().await;
    let [ann, bob] = ["ann", "bob"].map(|name| UserId::new(name).unwrap());
    // With and without batches.
    for service in [TodoService::new(store.clone()), TodoService::new(CoalescingStore::new(store.clone()))] {
        let milk = create(&service, &ann, "Buy milk").await;
        let bread = create(&service, &ann, "Buy bread").await;
        let cat = create(&service, &bob, "Feed the cat").await;
        for (user, task) in [(&ann, milk), (&ann, bread), (&bob, cat)] {
            add_label(&pool, user, task, "today").await.unwrap();
        }
        assert_eq!(labelled(&pool, &ann, "today").await.unwrap(), ["Buy bread", "Buy milk"]);
        service.for_user(ann.clone()).delete(milk).await.unwrap();
        assert_eq!(labelled(&pool, &ann, "today").await.unwrap(), ["Buy bread"]);
        service.for_user(ann.clone()).erase().await.unwrap();
        assert_eq!(labels(&pool).await, 1);
        service.for_user(bob.clone()).erase().await.unwrap();
        assert_eq!(labels(&pool).await, 0);
    }
    database.close().await;
}

#[tokio::test]
async fn a_row_needs_a_task_of_the_same_user() {
    let (database, pool, store) = host().await;
    let [ann, bob] = ["ann", "bob"].map(|name| UserId::new(name).unwrap());
    let task = create(&TodoService::new(store), &ann, "Buy milk").await;
    let error = add_label(&pool, &bob, task, "today").await.unwrap_err();
    assert!(error.as_database_error().unwrap().is_foreign_key_violation());
    database.close().await;
}

#[tokio::test]
async fn the_tables_are_not_removed_while_a_table_of_the_host_needs_them() {
    let (database, pool, store) = host().await;
    let ann = UserId::new("ann").unwrap();
    let task = create(&TodoService::new(store.clone()), &ann, "Buy milk").await;
    add_label(&pool, &ann, task, "today").await.unwrap();
    assert!(store.migrate_to(0, DataLoss::Accept).await.is_err());
    assert_eq!(labelled(&pool, &ann, "today").await.unwrap(), ["Buy milk"]);
    database.close().await;
}

#[tokio::test]
async fn on_sqlite_the_rows_go_with_their_tasks_too() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", directory.path().join("host.db").display());
    let store = SqliteStore::from_url(&url).unwrap();
    store.migrate().await.unwrap();
    let pool = SqlitePool::connect(&url).await.unwrap();
    let schema = SCHEMA.replace("uuid", "blob").replace("todo.tasks", "todo_tasks");
    pool.execute(AssertSqlSafe(schema)).await.unwrap();
    let service = TodoService::new(store);
    let [ann, bob] = ["ann", "bob"].map(|name| UserId::new(name).unwrap());
    let task = create(&service, &ann, "Buy milk").await;
    let add = async |user: &UserId| {
        let insert = "insert into labels (user_id, task_id, label) values ($1, $2, 'today')";
        sqlx::query(insert).bind(user.as_str()).bind(task.as_uuid()).execute(&pool).await
    };
    assert!(add(&bob).await.unwrap_err().as_database_error().unwrap().is_foreign_key_violation());
    add(&ann).await.unwrap();
    service.for_user(ann.clone()).delete(task).await.unwrap();
    let left: i64 = sqlx::query_scalar("select count(*) from labels").fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
}
