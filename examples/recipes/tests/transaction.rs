//! The recipe of a transaction: the host's rows and the task are committed together, or not at all.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use recipes::transaction::create_project;
use sqlx::{Executor as _, PgPool};
use testkit::postgres::TestDatabase;
use todo_core::{TaskQuery, TodoService, UserId, store::PostgresStore};

async fn host() -> (TestDatabase, PgPool, PostgresStore) {
    let database = testkit::postgres::empty_database().await;
    let pool = PgPool::connect(database.url()).await.unwrap();
    let store = PostgresStore::new(pool.clone());
    store.migrate().await.unwrap();
    pool.execute(
        "create table projects (
             id bigint primary key generated always as identity,
             name text not null check (name <> 'forbidden'),
             first_task uuid
         )",
    )
    .await
    .unwrap();
    (database, pool, store)
}

async fn projects(pool: &PgPool) -> Vec<(i64, bool)> {
    sqlx::query_as("select id, first_task is not null from projects").fetch_all(pool).await.unwrap()
}

async fn titles(service: &TodoService, user: &UserId) -> Vec<String> {
    let page = service.for_user(user.clone()).list(&TaskQuery::default()).await.unwrap();
    page.tasks.iter().map(|task| task.title.to_string()).collect()
}

#[tokio::test]
async fn both_rows_are_committed() {
    let (database, pool, store) = host().await;
    let service = TodoService::new(store.clone());
    let ann = UserId::new("ann").unwrap();
    let id = create_project(&pool, &store, &service, ann.clone(), "the garden").await.unwrap();
    assert_eq!(projects(&pool).await, [(id, true)]);
    assert_eq!(titles(&service, &ann).await, ["Plan the garden"]);
    database.close().await;
}

#[tokio::test]
async fn an_error_leaves_neither() {
    let (database, pool, store) = host().await;
    let service = TodoService::new(store.clone());
    let ann = UserId::new("ann").unwrap();
    // The first is rejected by the host's table, the second by the rules of a title.
    for name in ["forbidden", &"x".repeat(300)] {
        assert!(create_project(&pool, &store, &service, ann.clone(), name).await.is_err());
    }
    assert_eq!(projects(&pool).await, []);
    assert_eq!(titles(&service, &ann).await, Vec::<String>::new());
    database.close().await;
}
