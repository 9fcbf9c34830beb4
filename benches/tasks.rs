//! Users with tasks.

use todo_core::{Description, NewTask, TaskId, Title, TodoService, UserId};
use tokio::runtime::{Builder, Runtime};

/// An id in the format of Better Auth.
pub(crate) const USER: &str = "Zx8Kq2LmNp4RsTuVwXyZaBcDeFgHiJkL";

/// A runtime of one thread, so that only the call itself is measured.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::new(id).expect("an id")
}

pub(crate) fn new_task(number: usize) -> NewTask {
    let description = "Two bottles, and the bread from the baker on the corner";
    NewTask {
        // Every second task has a description.
        description: (number % 2 == 1).then(|| Description::new(description).expect("a description")),
        ..NewTask::new(Title::new(format!("Buy milk and bread, number {number}")).expect("a title"))
    }
}

/// Creates this number of tasks of a user. Returns their ids.
pub(crate) async fn fill(service: &TodoService, id: &str, tasks: usize) -> Vec<TaskId> {
    let user = service.for_user(user(id));
    let mut ids = Vec::with_capacity(tasks);
    for number in 0..tasks {
        ids.push(user.create(new_task(number)).await.expect("a stored task").id);
    }
    ids
}
