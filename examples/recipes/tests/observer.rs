//! The recipe of the hook on changes: changes in a transaction are reported after its commit.

use std::sync::{Arc, Mutex, mpsc};

use recipes::observer::{observed, sign_up};
use sqlx::{Executor as _, PgPool};
use todo_core::{NewTask, TaskEvent, Title, TodoService, UserId, store::PostgresStore};

#[tokio::test]
async fn completed_tasks_are_sent() {
    let database = testkit::stores::todo_database().await;
    let (sender, completed) = mpsc::channel();
    let service = observed(testkit::stores::connect(database.url()), sender);
    let tasks = service.for_user(UserId::new("ann").unwrap());
    let task = tasks.create(NewTask::new(Title::new("Buy milk").unwrap())).await.unwrap();
    let done = tasks.set_completed(task.id, true).await.unwrap();
    tasks.set_completed(task.id, true).await.unwrap();
    tasks.delete(task.id).await.unwrap();
    assert_eq!(completed.try_iter().collect::<Vec<_>>(), [done]);
    database.close().await;
}

#[tokio::test]
async fn changes_in_a_transaction_are_reported_after_its_commit() {
    let database = testkit::postgres::empty_database().await;
    let pool = PgPool::connect(database.url()).await.unwrap();
    let store = PostgresStore::new(pool.clone());
    store.migrate().await.unwrap();
    // The second insertion of a user fails at the commit.
    let users = "create table users (id text not null unique deferrable initially deferred)";
    pool.execute(users).await.unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = events.clone();
    let service = TodoService::new(store.clone()).with_observer(move |event| {
        let TaskEvent::Created { owner, tasks, .. } = event else { panic!("{event:?}") };
        seen.lock().unwrap().extend(tasks.into_iter().map(|task| (owner.clone(), task.title.to_string())));
    });
    let ann = UserId::new("ann").unwrap();
    sign_up(&pool, &store, &service, ann.clone()).await.unwrap();
    let reported = ["Look around", "Invite a friend"].map(|title| (ann.clone(), title.to_owned()));
    assert_eq!(*events.lock().unwrap(), reported);
    assert!(sign_up(&pool, &store, &service, ann.clone()).await.is_err());
    assert_eq!(*events.lock().unwrap(), reported, "nothing is reported that was rolled back");
    pool.close().await;
    database.close().await;
}
