//! Single tasks: insertion, deletion, values and concurrency.

use std::{sync::Arc, time::Duration};

use super::{
    fixture::{all_pages, filled, id, limited, moment, sample, toggle, user},
    plain::PlainCalls as _,
};
use crate::{
    Description, Page, Task, TaskQuery, Title, UserId,
    clock::Timestamp,
    store::{TaskChange, TaskStore},
};

/// A task is returned as it was inserted, whatever its texts are.
pub async fn a_stored_task_is_read_back_unchanged(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let descriptions =
        [None, Some(""), Some(" two\r\nlines\t"), Some("'; drop table tasks; --"), Some("\u{1F980}\u{200B}\\")];
    for (number, description) in (0..).zip(descriptions) {
        let task = Task {
            description: description.map(|text| Description::new(text).unwrap()),
            completed: number % 2 == 1,
            version: i64::MAX - 1,
            ..sample(&ann, number)
        };
        assert!(store.add(&ann, &task).await.unwrap());
        assert_eq!(store.get(&ann, task.id).await.unwrap().as_ref(), Some(&task));
        assert_eq!(store.page(&ann, &limited(1)).await.unwrap().tasks, [task]);
    }
}

/// A second task with the same id is not inserted and does not change the first.
pub async fn inserting_an_existing_id_changes_nothing(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let first = sample(&ann, 1);
    assert!(store.add(&ann, &first).await.unwrap());
    let second = Task { title: Title::new("Another").unwrap(), completed: true, ..first.clone() };
    assert!(!store.add(&ann, &second).await.unwrap());
    assert_eq!(store.get(&ann, first.id).await.unwrap(), Some(first));
}

/// Exactly one of the concurrent inserts returns `true`, and its task is stored.
pub async fn one_of_many_concurrent_inserts_of_an_id_succeeds(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let inserts = (0..16).map(|number| {
        let (store, ann) = (store.clone(), ann.clone());
        let task = Task { title: Title::new(format!("From {number}")).unwrap(), ..sample(&ann, 1) };
        tokio::spawn(async move { store.add(&ann, &task).await.unwrap().then_some(task) })
    });
    let mut stored = Vec::new();
    for insert in inserts.collect::<Vec<_>>() {
        stored.extend(insert.await.unwrap());
    }
    assert_eq!(stored.len(), 1);
    assert_eq!(store.get(&ann, id(1)).await.unwrap(), stored.pop());
}

/// Operations on a missing task return `None`, `false`, zero or an empty page.
pub async fn a_missing_task_is_not_an_error(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    assert_eq!(store.get(&ann, id(1)).await.unwrap(), None);
    assert_eq!(store.page(&ann, &TaskQuery::default()).await.unwrap(), Page::default());
    assert_eq!(store.change(&ann, id(1), &TaskChange::default(), moment(1)).await.unwrap(), None);
    assert!(!store.remove(&ann, id(1)).await.unwrap());
    assert_eq!(store.erase(&ann).await.unwrap(), 0);
}

/// The store counts the length of a text in Unicode scalar values, as the types do.
pub async fn texts_at_their_length_limits_are_stored(store: Arc<dyn TaskStore>) {
    // One to four bytes in UTF-8, two units in UTF-16, and a combining mark.
    for (number, letter) in (1..).zip(["x", "é", "語", "🦀", "\u{301}"]) {
        let owner = user(&letter.repeat(UserId::MAX_CHARS));
        let task = Task {
            title: Title::new(letter.repeat(Title::MAX_CHARS)).unwrap(),
            description: Some(Description::new(letter.repeat(Description::MAX_CHARS)).unwrap()),
            ..sample(&owner, number)
        };
        assert!(store.add(&owner, &task).await.unwrap());
        assert_eq!(store.get(&owner, task.id).await.unwrap().as_ref(), Some(&task));
        let change = TaskChange { title: Some(Title::new(letter).unwrap()), ..TaskChange::default() };
        let changed = store.change(&owner, task.id, &change, moment(1)).await.unwrap().unwrap();
        assert_eq!((changed.title.as_str(), changed.description), (letter, task.description));
    }
}

/// Times are returned as they were stored, including times before 1970.
pub async fn times_are_stored_to_the_microsecond(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let micros = [-1, 0, 1, 1_763_712_000_123_456, -62_135_596_800_000_000, 253_402_300_799_999_999];
    for (number, micros) in (1..).zip(micros) {
        let created_at = Timestamp::from_unix_micros(micros);
        let task = Task { created_at, updated_at: created_at, ..sample(&ann, number) };
        assert!(store.add(&ann, &task).await.unwrap());
        assert_eq!(store.get(&ann, task.id).await.unwrap(), Some(task));
    }
}

/// Exactly one of the concurrent deletions returns `true`.
pub async fn one_of_many_concurrent_deletions_succeeds(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, 1..=2).await;
    let deletions: Vec<_> = (0..16)
        .map(|_| {
            let (store, ann) = (store.clone(), ann.clone());
            tokio::spawn(async move { store.remove(&ann, id(1)).await.unwrap() })
        })
        .collect();
    let mut count = 0;
    for deletion in deletions {
        count += u32::from(deletion.await.unwrap());
    }
    assert_eq!(count, 1);
    assert_eq!(store.get(&ann, id(1)).await.unwrap(), None);
    assert!(store.get(&ann, id(2)).await.unwrap().is_some());
    assert_eq!(store.change(&ann, id(1), &TaskChange::default(), moment(1)).await.unwrap(), None);
}

/// Erasing returns the number of deleted tasks and leaves the tasks of other owners.
pub async fn erase_deletes_all_tasks_of_one_owner(store: Arc<dyn TaskStore>) {
    let (ann, bob) = (user("ann"), user("bob"));
    filled(&*store, &ann, 1..=250).await;
    filled(&*store, &bob, 1..=3).await;
    assert_eq!(store.erase(&ann).await.unwrap(), 250);
    assert_eq!(store.page(&ann, &TaskQuery::default()).await.unwrap().tasks, []);
    assert_eq!(store.erase(&ann).await.unwrap(), 0);
    assert_eq!(all_pages(&*store, &bob, TaskQuery::default()).await.len(), 3);
    // The owner can create tasks again, with the same ids.
    assert!(store.add(&ann, &sample(&ann, 1)).await.unwrap());
}

/// Many owners write and read at the same time, and no call fails because the store is busy.
pub async fn concurrent_writers_all_succeed(store: Arc<dyn TaskStore>) {
    let writers: Vec<_> = (0..32)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let owner = user(&format!("owner {number}"));
                for number in 1..=8 {
                    assert!(store.add(&owner, &sample(&owner, number)).await.unwrap());
                    toggle(&*store, &owner, id(number)).await;
                    assert!(!store.page(&owner, &TaskQuery::default()).await.unwrap().tasks.is_empty());
                }
                store.remove(&owner, id(1)).await.unwrap();
                all_pages(&*store, &owner, TaskQuery::default()).await.len()
            })
        })
        .collect();
    for writer in writers {
        assert_eq!(writer.await.unwrap(), 7);
    }
}

/// A call that is dropped halfway leaves nothing behind that a later call returns.
pub async fn a_cancelled_call_does_not_affect_others(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, 1..=20).await;
    for limit in 0..40_u64 {
        let number = u128::from(limit % 20) + 1;
        // Some calls are dropped before they start, some halfway, and some complete.
        let limit = Duration::from_micros(limit * 25);
        let _ = tokio::time::timeout(limit, store.page(&ann, &limited(3))).await;
        let change = TaskChange { title: Some(Title::new("Abandoned").unwrap()), ..TaskChange::default() };
        let _ = tokio::time::timeout(limit, store.change(&ann, id(20), &change, moment(1))).await;
        let task = store.get(&ann, id(number)).await.unwrap().unwrap();
        assert_eq!(task.id, id(number));
        assert_eq!(store.page(&ann, &limited(2)).await.unwrap().tasks.len(), 2);
    }
}

/// A readiness probe calls `ping`.
pub async fn ping_succeeds(store: Arc<dyn TaskStore>) {
    store.ping().await.unwrap();
}
