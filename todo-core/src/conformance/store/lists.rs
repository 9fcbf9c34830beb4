//! Lists, pages and cursors.

use std::{collections::BTreeSet, sync::Arc};

use uuid::Uuid;

use super::{
    fixture::{all_pages, filled, id, ids, limited, sample, user},
    plain::PlainCalls as _,
};
use crate::{Cursor, Task, TaskId, TaskQuery, store::TaskStore};

/// The order is that of the ids, not of the insertions.
pub async fn lists_are_ordered_by_descending_id(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, [3, 1, 5, 2, 4]).await;
    let page = store.page(&ann, &TaskQuery::default()).await.unwrap();
    assert_eq!(ids(&page.tasks), [5, 4, 3, 2, 1].map(id));
    assert_eq!(page.next, None);
}

/// Bytes above 127 are greater than bytes below, and the last byte counts.
pub async fn ids_are_compared_as_bytes(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let mut numbers = [0x7f << 120, 0x80 << 120, 0xff << 120, 1, 0x80, 0xff, 0x0100, u128::MAX].map(Uuid::from_u128);
    for number in numbers {
        assert!(store.add(&ann, &Task { id: number.into(), ..sample(&ann, 0) }).await.unwrap());
    }
    numbers.sort_unstable_by_key(|number| std::cmp::Reverse(number.as_u128()));
    for limit in [1, 3, 200] {
        let seen = all_pages(&*store, &ann, limited(limit)).await;
        assert_eq!(ids(&seen), numbers.map(TaskId::from), "pages of {limit}");
    }
}

/// With every page size, the pages together are the list, and the last page has no cursor.
pub async fn pages_have_no_gaps_or_overlaps(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, 1..=201).await;
    let newest_first: Vec<_> = (1..=201).rev().map(id).collect();
    for limit in [7, 67, 100, 200] {
        assert_eq!(ids(&all_pages(&*store, &ann, limited(limit)).await), newest_first, "pages of {limit}");
    }
    // A full last page has no cursor.
    assert!(store.remove(&ann, id(201)).await.unwrap());
    let page = store.page(&ann, &limited(200)).await.unwrap();
    assert_eq!((page.tasks.len(), page.next), (200, None));
}

/// Paging returns each task that existed at the start exactly once, even during inserts.
pub async fn concurrent_inserts_do_not_disturb_paging(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, 1..=60).await;
    let inserting = {
        let (store, ann) = (store.clone(), ann.clone());
        tokio::spawn(async move { filled(&*store, &ann, 61..=120).await.len() })
    };
    for _ in 0..4 {
        let seen = ids(&all_pages(&*store, &ann, limited(7)).await);
        assert!(seen.is_sorted_by(|a, b| a > b), "no task twice, newest first");
        let seen: BTreeSet<_> = seen.into_iter().collect();
        assert!((1..=60).all(|number| seen.contains(&id(number))), "no task is missing");
    }
    assert_eq!(inserting.await.unwrap(), 60);
    assert_eq!(all_pages(&*store, &ann, limited(7)).await.len(), 120);
}

/// A filtered list has the same order, and its last page has no cursor.
pub async fn filtered_lists_are_paged(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    for number in 1..=30 {
        let task = Task { completed: number % 3 == 0, ..sample(&ann, number) };
        assert!(store.add(&ann, &task).await.unwrap());
    }
    // A task of another owner, which must not be listed.
    let bob = user("bob");
    assert!(store.add(&bob, &Task { completed: true, ..sample(&bob, 15) }).await.unwrap());
    for completed in [true, false] {
        let expected: Vec<_> = (1..=30).rev().filter(|number| (number % 3 == 0) == completed).map(id).collect();
        for limit in [1, 4, 5, 10, 20, 200] {
            let query = limited(limit).completed(completed);
            assert_eq!(ids(&all_pages(&*store, &ann, query).await), expected, "{completed}, pages of {limit}");
        }
    }
}

/// A cursor is valid after its task was deleted, before the first task and after the last.
pub async fn a_cursor_is_a_position_not_a_task(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, 1..=5).await;
    let after = |number| TaskQuery::new().cursor(Cursor::after(number));
    assert!(store.remove(&ann, id(3)).await.unwrap());
    let expect = [
        (id(3), 2),
        (id(4), 2),
        (id(5), 3),
        (id(100), 4),
        (id(1), 0),
        (Uuid::nil().into(), 0),
        (Uuid::max().into(), 4),
    ];
    for (position, count) in expect {
        let page = store.page(&ann, &after(position)).await.unwrap();
        assert_eq!(page.tasks.len(), count, "after {position}");
        assert!(page.tasks.iter().all(|task| task.id < position));
    }
}
