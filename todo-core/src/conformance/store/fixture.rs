//! The values that the cases use.

use uuid::Uuid;

use super::plain::PlainCalls as _;
use crate::{
    Limit, NewTask, Task, TaskId, TaskQuery, Title, UserId,
    clock::Timestamp,
    store::{Completion, TaskChange, TaskStore},
};

/// A user.
pub(super) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A time.
pub(super) fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_763_712_000 + seconds)
}

/// An id.
pub(super) fn id(number: u128) -> TaskId {
    Uuid::from_u128(0x019a_a3f0_5c00_7000_8000_0000_0000_0000 + number).into()
}

/// An open task of this owner. Tasks are listed by descending `number`.
pub(super) fn sample(owner: &UserId, number: u128) -> Task {
    NewTask::new(Title::new(format!("Task {number}")).unwrap()).into_task(owner.clone(), id(number), moment(0))
}

/// Inserts a task for each number.
pub(super) async fn filled(
    store: &dyn TaskStore,
    owner: &UserId,
    numbers: impl IntoIterator<Item = u128>,
) -> Vec<Task> {
    let mut tasks = Vec::new();
    for number in numbers {
        let task = sample(owner, number);
        assert!(store.add(owner, &task).await.unwrap());
        tasks.push(task);
    }
    tasks
}

pub(super) fn limited(limit: u16) -> TaskQuery {
    TaskQuery::new().limit(Limit::new(limit).unwrap())
}

/// Returns all tasks of a query, page by page.
pub(super) async fn all_pages(store: &dyn TaskStore, owner: &UserId, mut query: TaskQuery) -> Vec<Task> {
    let mut tasks = Vec::new();
    loop {
        let page = store.page(owner, &query).await.unwrap();
        assert!(page.tasks.len() <= usize::from(query.limit.get()));
        assert!(
            page.next.is_none() || page.tasks.len() == usize::from(query.limit.get()),
            "only the last page may be short"
        );
        tasks.extend(page.tasks);
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return tasks,
        }
    }
}

pub(super) fn ids(tasks: &[Task]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}

pub(super) async fn toggle(store: &dyn TaskStore, owner: &UserId, id: TaskId) -> Task {
    store.change(owner, id, &TaskChange::completion(Completion::Toggle), moment(1)).await.unwrap().unwrap()
}
