//! Separation of owners.

use std::sync::Arc;

use super::{
    fixture::{all_pages, filled, id, ids, limited, moment, sample, toggle, user},
    plain::PlainCalls as _,
};
use crate::{
    Cursor, Description, Patch, Task, TaskQuery, Title, UserId,
    store::{Completion, TaskChange, TaskStore, Transfer},
};

/// No operation of another owner reads, changes or deletes a task.
pub async fn other_owners_cannot_read_or_change_a_task(store: Arc<dyn TaskStore>) {
    let (ann, bob) = (user("ann"), user("bob"));
    let tasks = filled(&*store, &ann, 1..=3).await;
    let change = TaskChange { title: Some(Title::new("Bob was here").unwrap()), ..TaskChange::default() };
    for task in &tasks {
        assert_eq!(store.get(&bob, task.id).await.unwrap(), None);
        assert_eq!(store.change(&bob, task.id, &change, moment(1)).await.unwrap(), None);
        assert_eq!(
            store.change(&bob, task.id, &TaskChange::completion(Completion::Toggle), moment(1)).await.unwrap(),
            None
        );
        assert!(!store.remove(&bob, task.id).await.unwrap());
    }
    for completed in [None, Some(true), Some(false)] {
        let query = TaskQuery::new().completed(completed);
        assert_eq!(store.page(&bob, &query).await.unwrap().tasks, []);
    }
    assert_eq!(store.erase(&bob).await.unwrap(), 0);
    let seen = all_pages(&*store, &ann, TaskQuery::default()).await;
    assert_eq!(seen, tasks.into_iter().rev().collect::<Vec<_>>());
}

/// The same id under two owners is two independent tasks.
pub async fn two_owners_may_have_the_same_id(store: Arc<dyn TaskStore>) {
    let (ann, bob) = (user("ann"), user("bob"));
    let (of_ann, of_bob) = (sample(&ann, 1), Task { title: Title::new("Of Bob").unwrap(), ..sample(&bob, 1) });
    assert!(store.add(&ann, &of_ann).await.unwrap());
    assert!(store.add(&bob, &of_bob).await.unwrap());
    assert_eq!(store.get(&bob, id(1)).await.unwrap().as_ref(), Some(&of_bob));

    let changed = toggle(&*store, &ann, id(1)).await;
    assert_eq!((changed.completed, &changed.title), (true, &of_ann.title));
    assert_eq!(store.get(&bob, id(1)).await.unwrap().as_ref(), Some(&of_bob));
    let done = TaskQuery::new().completed(true);
    assert_eq!(store.page(&bob, &done).await.unwrap().tasks, []);
    assert_eq!(store.page(&ann, &TaskQuery::default()).await.unwrap().tasks, [changed]);

    assert!(store.remove(&ann, id(1)).await.unwrap());
    assert_eq!(store.get(&ann, id(1)).await.unwrap(), None);
    assert_eq!(store.page(&bob, &TaskQuery::default()).await.unwrap().tasks, [of_bob]);
}

/// Owners that differ only in case, white space or Unicode normalization are different. An owner is never a pattern.
pub async fn owners_are_compared_byte_for_byte(store: Arc<dyn TaskStore>) {
    let names =
        ["ann", "Ann", "ann ", " ann", "an%", "%", "a_n", "ån", "a\u{30a}n", "1", "01", "auth0|1", "a/b", "null", "'"];
    for (number, name) in (1..).zip(names) {
        assert!(store.add(&user(name), &sample(&user(name), number)).await.unwrap());
    }
    for (number, name) in (1..).zip(names) {
        let page = store.page(&user(name), &TaskQuery::default()).await.unwrap();
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
    let cursor = store.page(&ann, &limited(2)).await.unwrap().next;
    assert_eq!(cursor, Some(Cursor::after(id(7))));
    for completed in [None, Some(false)] {
        let page = store.page(&bob, &TaskQuery::new().cursor(cursor.clone()).completed(completed)).await.unwrap();
        assert_eq!(ids(&page.tasks), [6, 4, 2].map(id));
        assert!(page.tasks.iter().all(|task| task.user_id == bob));
    }
}

/// All tasks of an owner, newest first.
async fn tasks_of(store: &dyn TaskStore, owner: &UserId) -> Vec<Task> {
    all_pages(store, owner, TaskQuery::default()).await
}

/// A transfer moves every task of one owner, also those that are on no first page, and changes nothing but the owner.
/// The tasks of third owners stay, also those with the same ids.
pub async fn a_transfer_moves_all_tasks_of_one_owner_unchanged(store: Arc<dyn TaskStore>) {
    let (guest, ann, bob) = (user("guest"), user("ann"), user("bob"));
    filled(&*store, &guest, 1..=120).await;
    let of_ann = filled(&*store, &ann, 121..=122).await;
    filled(&*store, &bob, 1..=3).await;
    let change = TaskChange {
        description: Patch::Set(Description::new("Two bottles").unwrap()),
        ..TaskChange::completion(Completion::Toggle)
    };
    store.change(&guest, id(7), &change, moment(5)).await.unwrap();
    let (of_guest, of_bob) = (tasks_of(&*store, &guest).await, tasks_of(&*store, &bob).await);

    assert_eq!(store.transfer(&guest, &ann).await.unwrap(), Transfer { moved: 120, remaining: 0 });
    let moved = of_guest.into_iter().map(|task| Task { user_id: ann.clone(), ..task });
    let expected: Vec<_> = of_ann.into_iter().rev().chain(moved).collect();
    assert_eq!(tasks_of(&*store, &ann).await, expected);
    let done = TaskQuery::new().completed(true);
    assert_eq!(ids(&store.page(&ann, &done).await.unwrap().tasks), [id(7)]);
    assert_eq!(tasks_of(&*store, &guest).await, []);
    assert_eq!(tasks_of(&*store, &bob).await, of_bob);

    assert_eq!(store.transfer(&guest, &ann).await.unwrap(), Transfer::default());
    assert_eq!(tasks_of(&*store, &ann).await, expected);
}

/// A task whose id the new owner has stays where it is, and so does the new owner's. So no task is lost.
pub async fn a_transfer_changes_no_task_of_the_new_owner(store: Arc<dyn TaskStore>) {
    let (guest, ann) = (user("guest"), user("ann"));
    let of_guest = filled(&*store, &guest, 1..=4).await;
    let of_ann = Task { title: Title::new("Of Ann").unwrap(), version: 9, ..sample(&ann, 2) };
    assert!(store.add(&ann, &of_ann).await.unwrap());
    for moved in [3, 0] {
        assert_eq!(store.transfer(&guest, &ann).await.unwrap(), Transfer { moved, remaining: 1 });
        assert_eq!(tasks_of(&*store, &guest).await, [of_guest[1].clone()]);
        assert_eq!(ids(&tasks_of(&*store, &ann).await), [4, 3, 2, 1].map(id));
        assert_eq!(store.get(&ann, id(2)).await.unwrap().as_ref(), Some(&of_ann));
    }
}

/// A transfer to the same owner changes nothing.
pub async fn a_transfer_to_the_same_owner_changes_nothing(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, 1..=3).await;
    let before = tasks_of(&*store, &ann).await;
    assert_eq!(store.transfer(&ann, &ann).await.unwrap(), Transfer { moved: 0, remaining: 3 });
    assert_eq!(tasks_of(&*store, &ann).await, before);
    let bob = user("bob");
    assert_eq!(store.transfer(&bob, &bob).await.unwrap(), Transfer::default());
}

/// Of concurrent transfers, each task is moved by one.
pub async fn concurrent_transfers_move_each_task_once(store: Arc<dyn TaskStore>) {
    let guest = user("guest");
    filled(&*store, &guest, 1..=40).await;
    let new_owners: Vec<_> = (0..4).map(|number| user(&format!("user {number}"))).collect();
    let transfers = new_owners.iter().cloned().map(|to| {
        let (store, guest) = (Arc::clone(&store), guest.clone());
        tokio::spawn(async move { store.transfer(&guest, &to).await.unwrap() })
    });
    let mut moved = 0;
    for transfer in transfers.collect::<Vec<_>>() {
        let transfer = transfer.await.unwrap();
        assert_eq!(transfer.remaining, 0);
        moved += transfer.moved;
    }
    let mut kept = tasks_of(&*store, &guest).await.len();
    assert_eq!((moved, kept), (40, 0));
    for owner in &new_owners {
        kept += tasks_of(&*store, owner).await.len();
    }
    assert_eq!(kept, 40);
}

/// A change that has returned a task is part of the task that was moved.
pub async fn a_change_during_a_transfer_is_kept(store: Arc<dyn TaskStore>) {
    let (guest, ann) = (user("guest"), user("ann"));
    for round in 1..=5 {
        filled(&*store, &guest, [round]).await;
        let writers = (0..4).map(|_| {
            let (store, guest) = (Arc::clone(&store), guest.clone());
            tokio::spawn(async move {
                let mut changes = 0;
                let toggle = TaskChange::completion(Completion::Toggle);
                while changes < 50 && store.change(&guest, id(round), &toggle, moment(1)).await.unwrap().is_some() {
                    changes += 1;
                }
                changes
            })
        });
        let writers: Vec<_> = writers.collect();
        // So that the first changes come before the transfer.
        while store.get(&guest, id(round)).await.unwrap().is_some_and(|task| task.version < 4) {}
        assert_eq!(store.transfer(&guest, &ann).await.unwrap(), Transfer { moved: 1, remaining: 0 });
        let mut changes = 0;
        for writer in writers {
            changes += writer.await.unwrap();
        }
        let moved = store.get(&ann, id(round)).await.unwrap().unwrap();
        assert_eq!(
            (moved.version, moved.completed),
            (1 + changes, changes % 2 == 1),
            "{changes} changes have returned"
        );
    }
}
