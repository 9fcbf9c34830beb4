//! A hook on changes, also for those in a transaction of the host.

// recipe
use std::{error::Error, sync::mpsc};

use sqlx::PgPool;
use todo_core::{NewTask, Task, TaskEvent, Title, TodoService, UserId, store::PostgresStore};

/// Returns a service that sends each task that is completed to `completed`, for a thread that congratulates its user.
pub fn observed(store: PostgresStore, completed: mpsc::Sender<Task>) -> TodoService {
    TodoService::new(store).with_observer(move |event| {
        if let TaskEvent::Completed { task, .. } = event {
            let _ = completed.send(task); // fails only if the thread has ended
        }
    })
}

/// Creates a user and their first tasks in one transaction. They are reported after the commit.
pub async fn sign_up(
    pool: &PgPool,
    store: &PostgresStore, // the store of `service`
    service: &TodoService,
    user: UserId,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut transaction = pool.begin().await?;
    sqlx::query("insert into users (id) values ($1)").bind(user.as_str()).execute(&mut *transaction).await?;

    let joined = store.in_transaction(transaction);
    let (sender, events) = mpsc::channel();
    let tasks = service.with_store(joined.clone()).with_observer(move |event| drop(sender.send(event)));
    for title in ["Look around", "Invite a friend"] {
        tasks.for_user(user.clone()).create(NewTask::new(Title::new(title)?)).await?;
    }
    joined.take().await.ok_or("the transaction was taken before")?.commit().await?;
    for event in events.try_iter() {
        service.observe(event);
    }
    Ok(())
}
// end
