//! Separation of owners.

use std::sync::Arc;

use super::fixture::{all_pages, filled, id, ids, limited, moment, sample, toggle, user};
use crate::{
    Cursor, Task, TaskQuery, Title,
    store::{Completion, TaskChange, TaskStore},
};

/// No operation of another owner reads, changes or deletes a task.
pub async fn other_owners_cannot_read_or_change_a_task(store: Arc<dyn TaskStore>) {
    let (ann, bob) = (user("ann"), user("bob"));
    let tasks = filled(&*store, &ann, 1..=3).await;
    let change = TaskChange { title: Some(Title::new("Bob was here").unwrap()), ..TaskChange::default() };
    for task in &tasks {
        assert_eq!(store.get(&bob, task.id).await.unwrap(), None);
        assert_eq!(store.update(&bob, task.id, &change, moment(1)).await.unwrap(), None);
        assert_eq!(
            store.update(&bob, task.id, &TaskChange::completion(Completion::Toggle), moment(1)).await.unwrap(),
            None
        );
        assert!(!store.delete(&bob, task.id).await.unwrap());
    }
    for completed in [None, Some(true), Some(false)] {
        let query = TaskQuery::new().completed(completed);
        assert_eq!(store.list(&bob, &query).await.unwrap().tasks, []);
    }
    assert_eq!(store.erase(&bob).await.unwrap(), 0);
    let seen = all_pages(&*store, &ann, TaskQuery::default()).await;
    assert_eq!(seen, tasks.into_iter().rev().collect::<Vec<_>>());
}

/// The same id under two owners is two independent tasks.
pub async fn two_owners_may_have_the_same_id(store: Arc<dyn TaskStore>) {
    let (ann, bob) = (user("ann"), user("bob"));
    let (of_ann, of_bob) = (sample(&ann, 1), Task { title: Title::new("Of Bob").unwrap(), ..sample(&bob, 1) });
    assert!(store.insert(&ann, &of_ann).await.unwrap());
    assert!(store.insert(&bob, &of_bob).await.unwrap());
    assert_eq!(store.get(&bob, id(1)).await.unwrap().as_ref(), Some(&of_bob));

    let changed = toggle(&*store, &ann, id(1)).await;
    assert_eq!((changed.completed, &changed.title), (true, &of_ann.title));
    assert_eq!(store.get(&bob, id(1)).await.unwrap().as_ref(), Some(&of_bob));
    let done = TaskQuery::new().completed(true);
    assert_eq!(store.list(&bob, &done).await.unwrap().tasks, []);
    assert_eq!(store.list(&ann, &TaskQuery::default()).await.unwrap().tasks, [changed]);

    assert!(store.delete(&ann, id(1)).await.unwrap());
    assert_eq!(store.get(&ann, id(1)).await.unwrap(), None);
    assert_eq!(store.list(&bob, &TaskQuery::default()).await.unwrap().tasks, [of_bob]);
}

/// Owners that differ only in case, white space or Unicode normalization are different. An owner is never a pattern.
pub async fn owners_are_compared_byte_for_byte(store: Arc<dyn TaskStore>) {
    let names =
        ["ann", "Ann", "ann ", " ann", "an%", "%", "a_n", "ån", "a\u{30a}n", "1", "01", "auth0|1", "a/b", "null", "'"];
    for (number, name) in (1..).zip(names) {
        assert!(store.insert(&user(name), &sample(&user(name), number)).await.unwrap());
    }
    for (number, name) in (1..).zip(names) {
        let page = store.list(&user(name), &TaskQuery::default()).await.unwrap();
        assert_eq!(page.tasks, [sample(&user(name), number)], "{name:?}");
    }
    assert_eq!(store.erase(&user("%")).await.unwrap(), 1);
    assert_eq!(store.erase(&user("ANN")).await.unwrap(), 0);
}

/// A cursor that was made for another owner lists tasks of the caller only.
pub async fn a_cursor_of_another_owner_lists_only_the_callers_tasks(store: Arc<dyn TaskStore>) {
    let (ann, bob) = (user("ann"), user("bob"));
    filled(&*store, &ann, (1..=9).step_by(2)).await;
    filled(&*store, &bob, (2..=10).step_by(2)).await;
    let cursor = store.list(&ann, &limited(2)).await.unwrap().next;
    assert_eq!(cursor, Some(Cursor::after(id(7))));
    for completed in [None, Some(false)] {
        let page = store.list(&bob, &TaskQuery::new().cursor(cursor.clone()).completed(completed)).await.unwrap();
        assert_eq!(ids(&page.tasks), [6, 4, 2].map(id));
        assert!(page.tasks.iter().all(|task| task.user_id == bob));
    }
}
