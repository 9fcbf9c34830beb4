//! Random histories of calls, compared with the store in memory.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    fixture::{all_pages, id, limited, moment, user},
    planning::{due, tags},
};
use crate::{
    Description, Due, DueFilter, IdempotencyKey, Limit, ListName, Metadata, NewTask, Patch, Position, Priority, Sort,
    Tag, Tags, Task, TaskFilter, TaskId, TaskQuery, Title, UserId, ZoneName,
    clock::Timestamp,
    store::{
        Change, Completion, Creation, MemoryStore, Precondition, Read, Request, Revision, SyncPoint, TaskChange,
        TaskStore,
    },
};

/// A generator of numbers that is the same everywhere (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit
    }

    fn one<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(3) == 0).then(|| value(self))
    }

    fn text(&mut self) -> String {
        self.one(&["a", "B", "\u{c4}x", "\u{e4}X", "\u{130}", "\u{df}", "%", "\u{4e2d}", "a b"]).to_owned()
    }

    fn due(&mut self) -> Due {
        due(self.one(&[
            "2026-03-29",
            "2026-03-29T02:30",
            "2026-03-29T03:10",
            "2026-03-29T01:15Z",
            "2026-03-29T02:30[Europe/Berlin]",
            "2026-10-25T02:30",
            "2026-10-25T02:30+01:00[Europe/Berlin]",
            "2026-10-25",
            "0001-01-01",
            "9999-12-31",
        ]))
    }

    fn tags(&mut self) -> Tags {
        let names = ["x", "y", "X", "\u{e4}"];
        tags(&names[..self.below(5)])
    }

    fn metadata(&mut self) -> Metadata {
        Metadata::new(self.one(&["{}", r#"{"a":1}"#, r#"{"a":[1.5e-300,"\u00e9"]}"#])).unwrap()
    }

    fn position(&mut self) -> Position {
        self.one(&["a0", "a1", "Zz", "a0V", "b00"]).parse().unwrap()
    }

    fn list(&mut self) -> ListName {
        ListName::new(self.text()).unwrap()
    }

    fn patch<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Patch<T> {
        match self.below(4) {
            0 => Patch::Set(value(self)),
            1 => Patch::Clear,
            _ => Patch::Keep,
        }
    }

    fn new_task(&mut self) -> NewTask {
        NewTask {
            description: self.maybe(|random| Description::new(random.text()).unwrap()),
            completed: self.below(3) == 0,
            due: self.maybe(Self::due),
            priority: self.maybe(|random| random.one(&Priority::ALL)),
            list: self.maybe(Self::list),
            tags: self.tags(),
            position: self.maybe(Self::position),
            metadata: self.metadata(),
            ..NewTask::new(Title::new(self.text()).unwrap())
        }
    }

    fn precondition(&mut self) -> Precondition {
        let versions = |random: &mut Self| -> Vec<i64> {
            (0..random.below(4)).map(|_| i64::try_from(1 + random.below(6)).unwrap()).collect()
        };
        match self.below(8) {
            0 => Precondition { version_in: Some(versions(self)), ..Precondition::default() },
            1 => Precondition { version_not_in: versions(self), ..Precondition::default() },
            2 => Precondition { updated_before: Some(self.moment()), ..Precondition::default() },
            3 => Precondition {
                version_in: Some(versions(self)),
                version_not_in: versions(self),
                updated_before: self.maybe(Self::moment),
            },
            _ => Precondition::default(),
        }
    }

    fn moment(&mut self) -> Timestamp {
        moment(i64::try_from(self.below(1000)).unwrap())
    }

    fn creation(&mut self) -> Creation {
        let request = self.maybe(|random| Request {
            key: IdempotencyKey::new(random.one(&["a", "b", "A"])).unwrap(),
            digest: [u8::try_from(random.below(4) / 3).unwrap(); 16],
        });
        Creation { request, max_tasks: self.maybe(|random| 4 + random.below(8) as u64) }
    }

    fn change(&mut self) -> TaskChange {
        TaskChange {
            title: self.maybe(|random| Title::new(random.text()).unwrap()),
            description: self.patch(|random| Description::new(random.text()).unwrap()),
            completed: self
                .maybe(|random| random.one(&[Completion::Toggle, Completion::Set(true), Completion::Set(false)])),
            due: self.patch(Self::due),
            priority: self.patch(|random| random.one(&Priority::ALL)),
            list: self.patch(Self::list),
            tags: self.maybe(Self::tags),
            position: self.maybe(Self::position),
            metadata: self.maybe(Self::metadata),
        }
    }

    fn filter(&mut self) -> TaskFilter {
        let mut filter = TaskFilter::new().completed(self.maybe(|random| random.below(2) == 0));
        if self.below(4) == 0 {
            filter = filter.list(self.maybe(Self::list)).list(self.list());
        }
        if self.below(4) == 0 {
            filter = filter.tag(Tag::new(self.one(&["x", "y", "\u{e4}"])).unwrap());
        }
        if self.below(4) == 0 {
            filter = filter.priority(self.one(&Priority::ALL)).priority(self.one(&Priority::ALL));
        }
        if self.below(4) == 0 {
            filter = filter.due(match self.below(4) {
                0 => DueFilter::Never,
                _ => DueFilter::Between { from: self.maybe(Self::due), before: self.maybe(Self::due) },
            });
            filter.time_zone = ZoneName::new(self.one(&["UTC", "Europe/Berlin", "America/New_York"])).unwrap();
        }
        if self.below(6) == 0 {
            filter = filter.updated_since(self.moment());
        }
        if self.below(4) == 0 {
            filter = filter.text(self.one(&["a", "\u{e4}", "\u{c4}X", "i", "\u{df}", "%", "\u{4e2d}"]));
        }
        filter
    }
}

/// Random calls of three owners have the same results as those of [`MemoryStore`], call by call.
pub async fn a_random_history_has_the_results_of_the_memory_store(store: Arc<dyn TaskStore>) {
    random_history(&*store, 1, 300).await;
}

/// Runs random calls on a store and on a [`MemoryStore`], and compares the results. The revision of an owner changes
/// whenever it does in memory, and only grows while the owner has one. A replica of each owner follows the changes.
/// Returns the number of calls.
///
/// # Panics
///
/// A result differs.
pub async fn random_history(store: &dyn TaskStore, seed: u64, calls: usize) -> usize {
    let model = MemoryStore::new();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let owners = [user("ann"), user("\u{e4}nn"), user("Ann")];
    let mut replicas = owners.clone().map(|_| Replica::default());
    let mut before = Vec::new();
    for call in 0..calls {
        let which = random.below(owners.len());
        let (task, now) = (id(random.below(12) as u128), random.moment());
        one_call(store, &model, &mut random, &owners, (&owners[which], task, now), call).await;
        let revisions = (store.revisions(&owners).await.unwrap(), model.revisions(&owners).await.unwrap());
        let after: Vec<_> = revisions.0.into_iter().zip(revisions.1).collect();
        compare_revisions(&before, &after, call);
        before = after;
        if random.below(3) == 0 {
            let limit = Limit::new(u16::try_from(1 + random.below(5)).unwrap()).unwrap();
            replicas[which].follow(store, &owners[which], limit, random.below(3) == 0).await;
        }
    }
    for (owner, mut replica) in owners.iter().zip(replicas) {
        let expected = all_pages(&model, owner, limited(200)).await;
        assert_eq!(all_pages(store, owner, limited(200)).await, expected);
        replica.follow(store, owner, Limit::default(), true).await;
    }
    calls
}

/// Revisions of the store and of the model, of each owner.
fn compare_revisions(before: &[(Revision, Revision)], after: &[(Revision, Revision)], call: usize) {
    let none = Revision::default();
    for (was, is) in before.iter().zip(after) {
        assert_eq!(was.0 == is.0, was.1 == is.1, "call {call}: {was:?}, {is:?}");
        assert_eq!(is.0 == none, is.1 == none, "call {call}: {is:?}");
        assert!(is.0 >= was.0 || is.0 == none, "call {call}: {was:?}, {is:?}");
    }
}

/// A copy of the tasks of an owner.
#[derive(Default)]
struct Replica {
    tasks: BTreeMap<TaskId, Task>,
    since: Option<SyncPoint>,
}

impl Replica {
    /// Applies a page of changes, or all of them. Who has applied all is equal to the store.
    async fn follow(&mut self, store: &dyn TaskStore, owner: &UserId, limit: Limit, to_the_end: bool) {
        loop {
            let Some(page) = store.changes(owner, self.since, limit).await.unwrap() else {
                *self = Self::default();
                continue;
            };
            assert!(page.changes.len() <= usize::from(limit.get()));
            for change in page.changes {
                match change {
                    Change::Task(task) => drop(self.tasks.insert(task.id, *task)),
                    Change::Deleted(id) => drop(self.tasks.remove(&id)),
                }
            }
            self.since = Some(page.next);
            if !page.more {
                let kept: Vec<_> = self.tasks.values().rev().cloned().collect();
                assert_eq!(kept, all_pages(store, owner, limited(200)).await, "a replica has what the store has");
                return;
            }
            if !to_the_end {
                return;
            }
        }
    }
}

async fn one_call(
    store: &dyn TaskStore,
    model: &MemoryStore,
    random: &mut Random,
    owners: &[UserId; 3],
    (owner, task, now): (&UserId, TaskId, Timestamp),
    call: usize,
) {
    macro_rules! compare {
        ($name:ident($($argument:expr),*)) => {{
            let expected = model.$name(owner, $($argument),*).await.unwrap();
            let found = store.$name(owner, $($argument),*).await.unwrap();
            assert_eq!(found, expected, "call {call}: {}({:?})", stringify!($name), ($(&$argument,)*));
            expected
        }};
    }
    // A read that knows nothing, or another revision; and one that knows the answer.
    macro_rules! compare_read {
        ($name:ident($($argument:expr),*)) => {{
            let revision = store.revisions(std::slice::from_ref(owner)).await.unwrap()[0];
            let other = random.maybe(|_| Revision::new(revision.get() ^ 1));
            let Read::Changed { value: expected, .. } = model.$name(owner, $($argument,)* None).await.unwrap() else {
                panic!("nothing was known");
            };
            let found = store.$name(owner, $($argument,)* other).await.unwrap();
            let right = Read::Changed { revision, value: expected.clone() };
            assert_eq!(found, right, "call {call}: {}({:?})", stringify!($name), ($(&$argument,)*));
            let known = store.$name(owner, $($argument,)* Some(revision)).await.unwrap();
            assert_eq!(known, Read::Unchanged, "call {call}: {}", stringify!($name));
            expected
        }};
    }
    match random.below(26) {
        0..5 => {
            let new = [random.new_task().into_task(owner.clone(), task, now)];
            let creation = random.creation();
            compare!(insert(&new, &creation));
        }
        5 => {
            let first = random.below(10);
            let several: Vec<_> = (first..first + 3)
                .map(|number| random.new_task().into_task(owner.clone(), id(number as u128), now))
                .collect();
            let creation = random.creation();
            compare!(insert(&several, &creation));
        }
        6 => drop(compare!(get(task))),
        7..12 => {
            let (change, precondition) = (random.change(), random.precondition());
            compare!(update(task, &change, &precondition, now));
        }
        12..16 => {
            let mut query = TaskQuery::new().filter(random.filter()).sort(random.one(&Sort::ALL));
            query.limit = Limit::new(u16::try_from(1 + random.below(5)).unwrap()).unwrap();
            loop {
                let page = compare_read!(list(&query));
                let Some(next) = page.next else { break };
                query.cursor = Some(next);
            }
        }
        16 => {
            let filter = random.filter();
            compare_read!(count(&filter));
        }
        17 => drop(compare_read!(summary())),
        18 => {
            let (filter, change) = (random.filter(), random.change());
            compare!(update_matching(&filter, &change, now));
        }
        19 => {
            let moves = [(task, random.position())];
            let version_of = (random.one(&[task, id(3)]), i64::try_from(1 + random.below(3)).unwrap());
            compare!(reposition(&moves, version_of, now));
        }
        20 | 21 => {
            let precondition = random.precondition();
            compare!(delete(task, &precondition));
        }
        22 => {
            let filter = random.filter();
            if random.below(3) == 0 {
                compare!(delete_matching(&filter));
            }
        }
        23 => {
            if random.below(4) == 0 {
                let to = random.one(owners);
                compare!(transfer(&to));
            }
        }
        24 => {
            // All, since deletions of one call may have any order.
            if random.below(4) == 0 {
                compare!(purge(Timestamp::from_unix_micros(i64::MAX), Limit::new(Limit::MAX).unwrap()));
            }
        }
        _ => {
            if random.below(20) == 0 {
                compare!(erase());
            }
        }
    }
}
