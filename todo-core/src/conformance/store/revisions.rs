//! Revisions, preconditions, repeated requests, quotas, and the changes since a revision.

use std::sync::Arc;

use super::{
    fixture::{all_pages, filled, id, ids, limited, moment, sample, toggle, user},
    plain::PlainCalls as _,
};
use crate::{
    IdempotencyKey, Limit, ListName, Page, Patch, Position, Task, TaskFilter, TaskId, TaskQuery, UserId,
    clock::Timestamp,
    store::{
        Change, Changes, Completion, Creation, Insertion, Outcome, Precondition, Read, Request, Revision, SyncPoint,
        TaskChange, TaskStore, Transfer,
    },
};

/// Users who are sorted before and after each other: a statement that takes the row of just any owner gets a wrong one.
const USERS: [&str; 3] = ["ann", "bob", "cem"];

async fn revision(store: &dyn TaskStore, owner: &UserId) -> Revision {
    store.revisions(std::slice::from_ref(owner)).await.unwrap()[0]
}

/// A change that always changes something.
fn toggled() -> TaskChange {
    TaskChange::completion(Completion::Toggle)
}

/// A moment after all others.
fn never() -> Timestamp {
    Timestamp::from_unix_micros(i64::MAX)
}

fn few(limit: u16) -> Limit {
    Limit::new(limit).unwrap()
}

/// All changes since a point, in pages.
async fn follow(
    store: &dyn TaskStore,
    owner: &UserId,
    mut since: Option<SyncPoint>,
    limit: u16,
) -> Option<(Vec<Change>, SyncPoint)> {
    let mut all = Vec::new();
    loop {
        let Changes { changes, next, more, .. } = store.changes(owner, since, few(limit)).await.unwrap()?;
        assert!(changes.len() <= usize::from(limit) && (changes.len() == usize::from(limit) || !more));
        all.extend(changes);
        if !more {
            return Some((all, next));
        }
        since = Some(next);
    }
}

/// The ids of changes, and whether each is a deletion.
fn shown(changes: &[Change]) -> Vec<(TaskId, bool)> {
    let show = |change: &Change| match change {
        Change::Task(task) => (task.id, false),
        Change::Deleted(id) => (*id, true),
    };
    changes.iter().map(show).collect()
}

/// Every change of a task, by any call, increases the revision of its owner, and no other revision. Who has no task has
/// 0.
pub async fn every_change_moves_the_revision_of_its_owner_alone(store: Arc<dyn TaskStore>) {
    let store = &*store;
    let owners = USERS.map(user);
    assert_eq!(store.revisions(&owners).await.unwrap(), [Revision::default(); 3]);
    assert_eq!(store.revisions(&[]).await.unwrap(), []);
    for owner in &owners {
        filled(store, owner, 1..=2).await;
    }
    let ann = &owners[1];
    let mut before = store.revisions(&owners).await.unwrap();
    assert!(before.iter().all(|revision| *revision > Revision::default()));
    assert_eq!(
        store.revisions(&[owners[2].clone(), user("zoe"), owners[0].clone()]).await.unwrap(),
        [before[2], Revision::default(), before[0]]
    );
    macro_rules! moves {
        ($call:expr) => {
            let _ = $call.await.unwrap();
            let after = store.revisions(&owners).await.unwrap();
            assert!(after[1] > before[1], "{}", stringify!($call));
            assert_eq!((after[0], after[2]), (before[0], before[2]), "{}", stringify!($call));
            before = after;
        };
    }
    let (all, now, place) = (TaskFilter::new(), moment(1), (id(1), "a5".parse::<Position>().unwrap()));
    moves!(store.add(ann, &sample(ann, 3)));
    moves!(store.add_all(ann, &[sample(ann, 4), sample(ann, 5)]));
    moves!(store.change(ann, id(1), &toggled(), now));
    moves!(store.update(ann, id(1), &toggled(), &Precondition::version(2), now));
    moves!(store.update_matching(ann, &all, &toggled(), now));
    moves!(store.reposition(ann, &[place], (id(1), 4), now));
    moves!(store.remove(ann, id(1)));
    moves!(store.delete(ann, id(2), &Precondition::version(2)));
    moves!(store.add(ann, &sample(ann, 2)));
    moves!(store.delete_matching(ann, &all));
    assert!(before[1] > Revision::default(), "who had tasks keeps a revision");
    // A transfer changes both owners.
    filled(store, ann, [9]).await;
    before = store.revisions(&owners).await.unwrap();
    assert_eq!(store.transfer(ann, &owners[2]).await.unwrap(), Transfer { moved: 1, remaining: 0 });
    let after = store.revisions(&owners).await.unwrap();
    assert!(after[1] > before[1] && after[2] > before[2] && after[0] == before[0], "{before:?} {after:?}");
    store.erase(ann).await.unwrap();
    let erased = store.revisions(&owners).await.unwrap();
    assert_eq!(erased, [after[0], Revision::default(), after[2]]);
    // A new beginning is later than everything before.
    filled(store, ann, [1]).await;
    assert!(revision(store, ann).await > after[1]);
}

/// What changes nothing does not move the revision: ids that exist, values that a task has, preconditions that are not
/// true, requests that are repeated, quotas, and reads.
pub async fn a_change_of_nothing_keeps_the_revision(store: Arc<dyn TaskStore>) {
    let store = &*store;
    let [aaa, ann, bob] = USERS.map(user);
    let request = Creation { request: Some(request("once", 1)), max_tasks: Some(3) };
    filled(store, &aaa, [1]).await;
    filled(store, &bob, [1]).await;
    filled(store, &ann, 1..=2).await;
    assert_eq!(store.insert(&ann, &[sample(&ann, 3)], &request).await.unwrap(), Insertion::Done);
    let before = store.revisions(std::slice::from_ref(&ann)).await.unwrap();
    let (all, now) = (TaskFilter::new(), moment(1));
    let done = TaskChange::completion(Completion::Set(false));
    let nothing = TaskChange { list: Patch::Clear, ..done.clone() };
    let other = Precondition::version(7);
    assert!(!store.add(&ann, &sample(&ann, 1)).await.unwrap());
    assert!(!store.add_all(&ann, &[sample(&ann, 7), sample(&ann, 1)]).await.unwrap());
    assert_eq!(
        store.insert(&ann, &[sample(&ann, 8)], &request).await.unwrap(),
        Insertion::Repeated(vec![sample(&ann, 3)])
    );
    let full = Creation { max_tasks: Some(3), ..Creation::default() };
    assert_eq!(store.insert(&ann, &[sample(&ann, 8)], &full).await.unwrap(), Insertion::QuotaExceeded);
    assert_eq!(store.change(&ann, id(1), &nothing, now).await.unwrap(), Some(sample(&ann, 1)));
    assert_eq!(store.change(&ann, id(9), &toggled(), now).await.unwrap(), None);
    assert!(matches!(store.update(&ann, id(1), &toggled(), &other, now).await.unwrap(), Outcome::Unmet(_)));
    assert_eq!(store.update_matching(&ann, &all, &done, now).await.unwrap().changed, 0);
    let place = (id(1), sample(&ann, 1).position);
    assert_eq!(store.reposition(&ann, std::slice::from_ref(&place), (id(1), 1), now).await.unwrap().len(), 1);
    assert_eq!(store.reposition(&ann, &[place], (id(1), 2), now).await.unwrap(), []);
    assert!(!store.remove(&ann, id(9)).await.unwrap());
    assert!(matches!(store.delete(&ann, id(1), &other).await.unwrap(), Outcome::Unmet(_)));
    assert_eq!(store.delete_matching(&ann, &TaskFilter::new().completed(true)).await.unwrap(), 0);
    assert_eq!(store.transfer(&ann, &ann).await.unwrap().moved, 0);
    assert_eq!(store.purge(&ann, never(), few(9)).await.unwrap(), 0);
    store.page(&ann, &limited(10)).await.unwrap();
    store.changes(&ann, None, few(9)).await.unwrap();
    assert_eq!(store.revisions(std::slice::from_ref(&ann)).await.unwrap(), before);
    assert_eq!(all_pages(store, &ann, limited(9)).await.len(), 3);
}

/// Lists, counts and summaries come with the revision, and only if it is not the one that the caller knows.
pub async fn a_read_that_knows_the_revision_returns_nothing_new(store: Arc<dyn TaskStore>) {
    let store = &*store;
    let [aaa, ann, bob] = USERS.map(user);
    let (all, nobody) = (TaskFilter::new(), user("nobody"));
    let queries = [
        limited(2),
        limited(100),
        TaskQuery::new().completed(false),
        TaskQuery::new().sort(crate::Sort::Due),
        TaskQuery::new().filter(TaskFilter::new().list(ListName::new("Home").unwrap())),
    ];
    filled(store, &aaa, 1..=3).await;
    filled(store, &bob, 1..=5).await;
    filled(store, &ann, 1..=4).await;
    let read = async |owner: &UserId, known: Option<Revision>| {
        let mut revisions = Vec::new();
        macro_rules! note {
            ($read:expr) => {
                revisions.push(match $read.await.unwrap() {
                    Read::Unchanged => None,
                    Read::Changed { revision, value: _ } => Some(revision),
                })
            };
        }
        for query in &queries {
            note!(store.list(owner, query, known));
        }
        note!(store.count(owner, &all, known));
        note!(store.summary(owner, known));
        revisions
    };
    for (owner, count) in [(&aaa, 3), (&ann, 4), (&bob, 5), (&nobody, 0)] {
        let now = revision(store, owner).await;
        let other = Revision::new(now.get() ^ 1);
        for known in [None, Some(other)] {
            assert_eq!(read(owner, known).await, [Some(now); 7], "{owner}");
        }
        assert_eq!(read(owner, Some(now)).await, [None; 7], "{owner}");
        // Another owner's revision is no reason to leave tasks out.
        for of_other in store.revisions(&[aaa.clone(), ann.clone(), bob.clone()]).await.unwrap() {
            for query in [limited(9), limited(9).completed(false), limited(9).sort(crate::Sort::Due)] {
                let found = store.list(owner, &query, Some(of_other)).await.unwrap();
                let all = |found: &Read<Page>| matches!(found, Read::Changed { value, .. } if value.tasks.len() as u64 == count);
                assert!(if of_other == now { found == Read::Unchanged } else { all(&found) }, "{owner}, {query:?}");
            }
        }
        assert_eq!(store.number(owner, &all).await.unwrap(), count, "{owner}");
        assert_eq!(store.groups(owner).await.unwrap().total, count, "{owner}");
        assert_eq!(store.page(owner, &limited(9)).await.unwrap().tasks.len() as u64, count, "{owner}");
    }
    // Many at once, of which some know the revision.
    let known = revision(store, &ann).await;
    let calls = (0..60).map(|number| {
        let (owner, known) = [(&ann, Some(known)), (&ann, None), (&bob, Some(known)), (&nobody, None)][number % 4];
        let (owner, query) = (owner.clone(), &queries[number % 3]);
        async move { (number, store.list(&owner, query, known).await.unwrap()) }
    });
    for (number, found) in futures_util::future::join_all(calls).await {
        let expected = [None, Some(4), Some(5), Some(0)][number % 4]
            .map(|count| if number % 3 == 0 { 2.min(count) } else { count });
        let found = match found {
            Read::Unchanged => None,
            Read::Changed { value, .. } => Some(value.tasks.len()),
        };
        assert_eq!(found, expected, "call {number}");
    }
}

/// A change with a precondition is made only if it is true of the task, and otherwise returns the task.
pub async fn a_change_is_made_only_if_its_precondition_is_true(store: Arc<dyn TaskStore>) {
    let store = &*store;
    let owners = USERS.map(user);
    let ann = &owners[1];
    for (owner, version) in owners.iter().zip([5, 3, 6]) {
        let task = Task { version, updated_at: moment(10), ..sample(owner, 1) };
        assert!(store.add(owner, &task).await.unwrap());
    }
    let in_any = |versions: &[i64]| Precondition { version_in: Some(versions.to_vec()), ..Precondition::default() };
    let not_in = |versions: &[i64]| Precondition { version_not_in: versions.to_vec(), ..Precondition::default() };
    let before = |seconds| Precondition { updated_before: Some(moment(seconds)), ..Precondition::default() };
    let task = store.get(ann, id(1)).await.unwrap().unwrap();
    for unmet in [
        in_any(&[]),
        in_any(&[2, 4, 5, 6]),
        not_in(&[1, 3]),
        before(10),
        before(9),
        Precondition { version_not_in: vec![3], ..in_any(&[3]) },
        Precondition { updated_before: Some(moment(10)), ..in_any(&[3]) },
        Precondition { updated_before: Some(moment(10)), ..not_in(&[2]) },
    ] {
        let expected = Outcome::Unmet(Box::new(task.clone()));
        assert_eq!(store.update(ann, id(1), &toggled(), &unmet, moment(11)).await.unwrap(), expected, "{unmet:?}");
        let expected = Outcome::Unmet(Box::new(task.clone()));
        assert_eq!(store.delete(ann, id(1), &unmet).await.unwrap(), expected, "{unmet:?}");
        assert_eq!(store.get(ann, id(1)).await.unwrap().as_ref(), Some(&task), "{unmet:?}");
        assert_eq!(store.update(ann, id(2), &toggled(), &unmet, moment(11)).await.unwrap(), Outcome::Missing);
        assert_eq!(store.delete(ann, id(2), &unmet).await.unwrap(), Outcome::Missing);
        assert_eq!(store.delete(&user("nobody"), id(1), &unmet).await.unwrap(), Outcome::Missing);
    }
    for met in [
        in_any(&[3]),
        in_any(&[1, 3, 9]),
        not_in(&[2]),
        not_in(&[5, 6]),
        before(11),
        Precondition { version_not_in: vec![2], updated_before: Some(moment(11)), ..in_any(&[3]) },
    ] {
        // Values that the task has: nothing changes, but the precondition is true.
        let same = TaskChange::completion(Completion::Set(false));
        assert_eq!(store.update(ann, id(1), &same, &met, moment(11)).await.unwrap(), Outcome::Done(task.clone()));
        let mut changed = task.clone();
        toggled().apply(&mut changed, moment(12));
        assert_eq!(store.update(ann, id(1), &toggled(), &met, moment(12)).await.unwrap(), Outcome::Done(changed));
        assert_eq!(store.delete(ann, id(1), &in_any(&[4])).await.unwrap(), Outcome::Done(()), "{met:?}");
        assert!(store.add(ann, &task).await.unwrap());
        let again = store.get(ann, id(1)).await.unwrap().unwrap();
        assert_eq!(again.version, 5, "after version 4");
        assert_eq!(store.delete(ann, id(1), &before(11)).await.unwrap(), Outcome::Done(()));
        assert_eq!(store.purge(ann, never(), few(9)).await.unwrap(), 1);
        assert!(store.add(ann, &task).await.unwrap());
    }
    for (owner, version) in [(&owners[0], 5), (&owners[2], 6)] {
        let kept = store.get(owner, id(1)).await.unwrap().unwrap();
        assert_eq!((kept.version, kept.completed), (version, false), "nothing of another owner has changed");
    }
}

/// Of 64 writers that have read the same version, exactly one changes the task; the others get the task as it is then.
/// The same with deletions.
pub async fn of_writers_with_the_same_version_one_wins(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, [1]).await;
    for version in 1..=4 {
        let writers = (0..64).map(|number| {
            let (store, ann) = (store.clone(), ann.clone());
            tokio::spawn(async move {
                let condition = Precondition::version(version);
                if version == 4 && number % 2 == 0 {
                    return store.delete(&ann, id(1), &condition).await.unwrap().done();
                }
                match store.update(&ann, id(1), &toggled(), &condition, moment(1)).await.unwrap() {
                    Outcome::Done(task) => {
                        assert_eq!(task.version, version + 1);
                        Some(())
                    }
                    Outcome::Unmet(current) => {
                        assert_eq!(current.version, version + 1, "the loser of a race gets the task of the winner");
                        None
                    }
                    Outcome::Missing => {
                        assert_eq!(version, 4, "only the last round deletes");
                        None
                    }
                }
            })
        });
        let mut won = 0;
        for writer in writers.collect::<Vec<_>>() {
            won += usize::from(writer.await.unwrap().is_some());
        }
        assert_eq!(won, 1, "version {version}");
    }
}

fn request(key: &str, digest: u8) -> Request {
    Request { key: IdempotencyKey::new(key).unwrap(), digest: [digest; 16] }
}

fn requested(key: &str, digest: u8) -> Creation {
    Creation { request: Some(request(key, digest)), ..Creation::default() }
}

/// The same request creates its tasks once, and returns them as they are now. Another body is another request, and so
/// are another key and another owner.
pub async fn a_request_creates_its_tasks_once(store: Arc<dyn TaskStore>) {
    let store = &*store;
    let owners = USERS.map(user);
    let (ann, bob) = (&owners[0], &owners[1]);
    let tasks =
        |owner: &UserId, numbers: &[u128]| numbers.iter().map(|number| sample(owner, *number)).collect::<Vec<_>>();
    let insert = async |owner: &UserId, numbers: &[u128], creation: &Creation| {
        store.insert(owner, &tasks(owner, numbers), creation).await.unwrap()
    };
    assert_eq!(insert(ann, &[1], &requested("one", 1)).await, Insertion::Done);
    assert_eq!(insert(bob, &[1], &requested("one", 2)).await, Insertion::Done, "another owner");
    assert_eq!(insert(ann, &[2], &requested("one", 1)).await, Insertion::Repeated(tasks(ann, &[1])));
    assert_eq!(insert(ann, &[1], &requested("one", 1)).await, Insertion::Repeated(tasks(ann, &[1])), "the same id");
    assert_eq!(insert(ann, &[2], &requested("one", 2)).await, Insertion::KeyTaken);
    assert_eq!(insert(bob, &[2], &requested("one", 1)).await, Insertion::KeyTaken);
    assert_eq!(insert(ann, &[2], &requested("One", 1)).await, Insertion::Done, "another key");
    // Several, in the order of the request and not of the ids.
    assert_eq!(insert(ann, &[14, 12, 13], &requested("many", 1)).await, Insertion::Done);
    for repeat in [&[24, 22, 23][..], &[25]] {
        let expected = Insertion::Repeated(tasks(ann, &[14, 12, 13]));
        assert_eq!(insert(ann, repeat, &requested("many", 1)).await, expected, "{repeat:?}");
    }
    assert_eq!(insert(ann, &[24, 22], &requested("many", 2)).await, Insertion::KeyTaken);
    assert_eq!(insert(ann, &[24, 22], &requested("one", 1)).await, Insertion::Repeated(tasks(ann, &[1])));
    let changed = toggle(store, ann, id(12)).await;
    assert_eq!(
        insert(ann, &[24, 22, 23], &requested("many", 1)).await,
        Insertion::Repeated(vec![sample(ann, 14), changed, sample(ann, 13)]),
        "as they are now"
    );
    // An id that exists stops all of a new request, which can be sent again with others.
    assert_eq!(insert(ann, &[30, 1, 31], &requested("new", 1)).await, Insertion::IdTaken);
    assert_eq!(insert(ann, &[1], &requested("new", 1)).await, Insertion::IdTaken);
    assert_eq!(insert(ann, &[30, 31], &requested("new", 1)).await, Insertion::Done);
    let seen = all_pages(store, ann, limited(100)).await;
    assert_eq!(ids(&seen), [31, 30, 14, 13, 12, 2, 1].map(id));
    assert_eq!(all_pages(store, bob, limited(100)).await, tasks(bob, &[1]));
    // The new owner of a task does not know the request.
    assert_eq!(store.transfer(ann, &owners[2]).await.unwrap().moved, 7);
    assert_eq!(insert(&owners[2], &[50], &requested("one", 1)).await, Insertion::Done);
}

/// A request whose task was deleted creates none, until the deletion is forgotten.
pub async fn a_request_is_not_repeated_after_a_deletion(store: Arc<dyn TaskStore>) {
    let store = &*store;
    let [aaa, ann, bob] = USERS.map(user);
    let insert = async |owner: &UserId, numbers: &[u128], key: &str, digest: u8| {
        let tasks: Vec<_> = numbers.iter().map(|number| sample(owner, *number)).collect();
        store.insert(owner, &tasks, &requested(key, digest)).await.unwrap()
    };
    assert_eq!(insert(&ann, &[1], "one", 1).await, Insertion::Done);
    assert_eq!(insert(&ann, &[2, 3], "two", 1).await, Insertion::Done);
    for number in [1, 3] {
        assert!(store.remove(&ann, id(number)).await.unwrap());
    }
    assert_eq!(insert(&ann, &[4], "one", 1).await, Insertion::Deleted);
    assert_eq!(insert(&ann, &[1], "one", 1).await, Insertion::Deleted, "even under the same id");
    assert_eq!(insert(&ann, &[4], "one", 2).await, Insertion::KeyTaken);
    assert_eq!(insert(&ann, &[4, 5], "two", 1).await, Insertion::Deleted);
    assert_eq!(insert(&ann, &[4, 5], "one", 1).await, Insertion::Deleted);
    assert_eq!(insert(&bob, &[4], "one", 2).await, Insertion::Done, "another owner");
    assert_eq!(insert(&bob, &[5], "one", 2).await, Insertion::Repeated(vec![sample(&bob, 4)]), "another owner");
    assert_eq!(insert(&aaa, &[4, 5], "two", 2).await, Insertion::Done, "another owner");
    assert_eq!(ids(&all_pages(store, &ann, limited(9)).await), [id(2)]);
    // Somebody creates a task again under its id. It is still what the request has created.
    assert!(store.add(&ann, &sample(&ann, 1)).await.unwrap());
    let again = store.get(&ann, id(1)).await.unwrap().unwrap();
    assert_eq!(insert(&ann, &[6], "one", 1).await, Insertion::Repeated(vec![again.clone()]));
    assert_eq!(insert(&ann, &[6], "one", 2).await, Insertion::KeyTaken);
    assert!(store.remove(&ann, id(1)).await.unwrap());
    assert_eq!(insert(&ann, &[6], "one", 1).await, Insertion::Deleted);
    assert!(store.add(&ann, &sample(&ann, 1)).await.unwrap());
    // Of several, too.
    assert!(store.add(&ann, &sample(&ann, 3)).await.unwrap());
    let Insertion::Repeated(both) = insert(&ann, &[7, 8], "two", 1).await else { panic!("it was created before") };
    assert_eq!(ids(&both), [2, 3].map(id));
    assert!(store.remove(&ann, id(3)).await.unwrap());
    assert_eq!(store.purge(&ann, never(), few(9)).await.unwrap(), 1);
    assert_eq!(insert(&ann, &[7, 8], "two", 1).await, Insertion::Repeated(vec![sample(&ann, 2)]));
}

/// Of concurrent repeats of a request, one creates the tasks, and the others get them.
pub async fn concurrent_repeats_of_a_request_create_its_tasks_once(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    for (round, count) in [(1, 1), (2, 3), (3, 1), (4, 2)] {
        let calls = (0..12).map(|call| {
            let (store, ann) = (store.clone(), ann.clone());
            tokio::spawn(async move {
                let first = round * 1000 + call * 10;
                let tasks: Vec<_> = (first..first + count).map(|number| sample(&ann, number)).collect();
                let creation = requested(&format!("round {round}").replace(' ', "-"), 1);
                match store.insert(&ann, &tasks, &creation).await.unwrap() {
                    Insertion::Done => (true, tasks),
                    Insertion::Repeated(tasks) => (false, tasks),
                    other => panic!("{other:?}"),
                }
            })
        });
        let mut results = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            results.push(call.await.unwrap());
        }
        assert_eq!(results.iter().filter(|(is_first, _)| *is_first).count(), 1, "round {round}");
        assert!(results.iter().all(|(_, tasks)| *tasks == results[0].1), "round {round}");
    }
    assert_eq!(all_pages(&*store, &ann, limited(100)).await.len(), 7);
}

/// An owner has no more tasks than allowed. A repeated request comes before the limit, and so does an id that exists.
pub async fn a_quota_limits_the_tasks_of_one_owner(store: Arc<dyn TaskStore>) {
    let store = &*store;
    let [aaa, ann, bob] = USERS.map(user);
    let insert = async |owner: &UserId, numbers: &[u128], max: u64, request: Option<Request>| {
        let tasks: Vec<_> = numbers.iter().map(|number| sample(owner, *number)).collect();
        let creation = Creation { request, max_tasks: Some(max) };
        store.insert(owner, &tasks, &creation).await.unwrap()
    };
    filled(store, &aaa, 1..=9).await;
    filled(store, &bob, 1..=9).await;
    assert_eq!(insert(&ann, &[1], 0, None).await, Insertion::QuotaExceeded);
    assert_eq!(insert(&ann, &[1, 2, 3], 2, None).await, Insertion::QuotaExceeded);
    assert_eq!(revision(store, &ann).await, Revision::default());
    assert_eq!(insert(&ann, &[1, 2], 2, Some(request("key", 1))).await, Insertion::Done);
    assert_eq!(insert(&ann, &[3], 2, None).await, Insertion::QuotaExceeded);
    assert_eq!(insert(&ann, &[3], 2, Some(request("other", 1))).await, Insertion::QuotaExceeded);
    assert_eq!(insert(&ann, &[3, 4], 3, None).await, Insertion::QuotaExceeded);
    assert_eq!(insert(&ann, &[3, 1], 2, None).await, Insertion::IdTaken);
    assert_eq!(insert(&ann, &[1], 2, None).await, Insertion::IdTaken);
    let both = vec![sample(&ann, 1), sample(&ann, 2)];
    assert_eq!(insert(&ann, &[5, 6], 2, Some(request("key", 1))).await, Insertion::Repeated(both));
    assert_eq!(insert(&ann, &[5, 6], 2, Some(request("key", 2))).await, Insertion::KeyTaken);
    assert_eq!(insert(&ann, &[3], 3, None).await, Insertion::Done);
    // Deletions make room.
    store.remove(&ann, id(1)).await.unwrap();
    assert_eq!(insert(&ann, &[1], 3, None).await, Insertion::Done);
    store.delete_matching(&ann, &TaskFilter::new()).await.unwrap();
    assert_eq!(insert(&ann, &[1, 2, 3], 3, None).await, Insertion::Done);
    assert_eq!(store.transfer(&ann, &user("zoe")).await.unwrap().moved, 3);
    assert_eq!(insert(&ann, &[1, 2, 3], 3, None).await, Insertion::Done);
    assert_eq!(insert(&user("zoe"), &[4], 3, None).await, Insertion::QuotaExceeded);
    store.erase(&ann).await.unwrap();
    assert_eq!(insert(&ann, &[1, 2, 3], 3, None).await, Insertion::Done);
    assert_eq!(insert(&ann, &[4], u64::MAX, None).await, Insertion::Done);
    // Many at once: the limit is exceeded by no more than the calls that are under way.
    let calls = (10..30).map(|number| {
        let ann = ann.clone();
        async move {
            store.insert(&ann, &[sample(&ann, number)], &Creation { max_tasks: Some(8), ..Creation::default() }).await
        }
    });
    let results = futures_util::future::join_all(calls).await;
    let done = results.iter().filter(|result| matches!(result, Ok(Insertion::Done))).count();
    assert!((4..=20).contains(&done), "{done}");
    assert_eq!(insert(&ann, &[99], 8, None).await, Insertion::QuotaExceeded);
}

/// Whoever applies the changes since a point has what the store has, in pages of any size, and each change comes once.
pub async fn changes_lead_a_replica_to_the_tasks(store: Arc<dyn TaskStore>) {
    let shared = &*store;
    let owners = USERS.map(user);
    for owner in [&owners[0], &owners[2]] {
        filled(shared, owner, 1..=4).await;
        shared.remove(owner, id(2)).await.unwrap();
    }
    let ann = &owners[1];
    let (nothing, begun) = follow(shared, ann, None, 3).await.unwrap();
    assert_eq!((nothing, begun), (Vec::new(), SyncPoint::default()));
    // From nothing, who has nothing, the beginning is not known.
    filled(shared, ann, 1..=5).await;
    assert_eq!(follow(shared, ann, Some(begun), 3).await, None);
    let now = revision(shared, ann).await;
    for limit in [1, 2, 5, 200] {
        let (all, at) = follow(shared, ann, None, limit).await.unwrap();
        assert_eq!(at, SyncPoint { revision: now, id: None, begun: now }, "pages of {limit}");
        let mut seen = shown(&all);
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3, 4, 5].map(|number| (id(number), false)), "pages of {limit}");
        assert_eq!(follow(shared, ann, Some(at), limit).await.unwrap(), (Vec::new(), at));
    }
    let at = follow(shared, ann, None, 9).await.unwrap().1;
    shared.remove(ann, id(4)).await.unwrap();
    let three = toggle(shared, ann, id(3)).await;
    shared.remove(ann, id(1)).await.unwrap();
    toggle(shared, ann, id(3)).await;
    let three = Task { version: 3, completed: false, completed_at: None, ..three };
    for limit in [1, 2, 3, 200] {
        let (all, next) = follow(shared, ann, Some(at), limit).await.unwrap();
        assert_eq!(shown(&all), [(id(4), true), (id(1), true), (id(3), false)], "pages of {limit}");
        assert_eq!(all[2], Change::Task(Box::new(three.clone())));
        assert_eq!(next, SyncPoint { revision: revision(shared, ann).await, id: None, begun: at.begun });
    }
    // Who begins now needs no deletions, even those that happen while the pages are read.
    let first = shared.changes(ann, None, few(1)).await.unwrap().unwrap();
    assert!(first.more && first.next.id.is_some());
    shared.remove(ann, id(5)).await.unwrap();
    let (rest, _) = follow(shared, ann, Some(first.next), 1).await.unwrap();
    assert_eq!(shown(&[first.changes, rest].concat()), [(id(2), false), (id(3), false), (id(5), true)]);
    // Several tasks of one statement may have the same revision, and are still in separate pages.
    let many: Vec<_> = (10..40).map(|number| sample(ann, number)).collect();
    let at = follow(shared, ann, None, 9).await.unwrap().1;
    assert!(shared.add_all(ann, &many).await.unwrap());
    for limit in [1, 7] {
        let mut seen = shown(&follow(shared, ann, Some(at), limit).await.unwrap().0);
        seen.sort_unstable();
        assert_eq!(seen, (10..40).map(|number| (id(number), false)).collect::<Vec<_>>(), "pages of {limit}");
    }
}

/// Deletions are forgotten from the oldest on, as many as asked. Who was before them has to begin again.
pub async fn deletions_are_forgotten_with_a_limit(store: Arc<dyn TaskStore>) {
    let store = &*store;
    let owners = USERS.map(user);
    let ann = &owners[1];
    let mut before = Vec::new();
    for owner in [&owners[2], &owners[0], ann] {
        filled(store, owner, 1..=4).await;
        before.push(follow(store, owner, None, 9).await.unwrap().1);
        for number in 1..=3 {
            store.remove(owner, id(number)).await.unwrap();
        }
    }
    let others = [&owners[2], &owners[0]];
    let start = before[2];
    let first = store.changes(ann, Some(start), few(1)).await.unwrap().unwrap().next;
    // What was deleted later than the time stays.
    assert_eq!(store.purge(ann, Timestamp::from_unix_micros(start.revision.get()), few(9)).await.unwrap(), 0);
    assert_eq!(store.purge(ann, Timestamp::from_unix_seconds(0), few(9)).await.unwrap(), 0);
    assert_eq!(follow(store, ann, Some(start), 9).await.unwrap().0.len(), 3);
    assert_eq!(store.purge(ann, never(), few(1)).await.unwrap(), 1);
    assert_eq!(follow(store, ann, Some(start), 9).await, None, "one of its deletions was forgotten");
    assert_eq!(shown(&follow(store, ann, Some(first), 9).await.unwrap().0), [(id(2), true), (id(3), true)]);
    assert_eq!(store.purge(ann, never(), few(9)).await.unwrap(), 2);
    assert_eq!(follow(store, ann, Some(first), 9).await, None);
    assert_eq!(store.purge(ann, never(), few(9)).await.unwrap(), 0);
    assert_eq!(shown(&follow(store, ann, None, 9).await.unwrap().0), [(id(4), false)]);
    for (owner, start) in others.into_iter().zip(before) {
        let (all, _) = follow(store, owner, Some(start), 9).await.expect("nothing of another owner was forgotten");
        assert_eq!(shown(&all), [1, 2, 3].map(|number| (id(number), true)));
    }
    assert_eq!(store.purge(&user("nobody"), never(), few(9)).await.unwrap(), 0);
    assert_eq!(revision(store, &user("nobody")).await, Revision::default());
}

/// A point that the owner has not reached, or of another owner or life, is refused.
pub async fn a_sync_point_of_another_time_is_refused(store: Arc<dyn TaskStore>) {
    let store = &*store;
    let [aaa, ann, bob] = USERS.map(user);
    for owner in [&bob, &ann, &aaa] {
        filled(store, owner, 1..=2).await;
    }
    let now = revision(store, &ann).await;
    let at = |revision: i64, begun: i64| SyncPoint {
        revision: Revision::new(revision),
        id: None,
        begun: Revision::new(begun),
    };
    let known = now.get();
    assert!(follow(store, &ann, Some(at(known, known)), 9).await.is_some());
    assert!(follow(store, &ann, Some(at(0, known)), 9).await.is_some(), "in the middle of the beginning");
    for wrong in [at(known + 1, known), at(known, known + 1), at(i64::MAX, 0), at(0, 0), at(1, 1), at(-1, i64::MIN)] {
        assert_eq!(follow(store, &ann, Some(wrong), 9).await, None, "{wrong:?}");
    }
    let nobody = user("nobody");
    assert_eq!(follow(store, &nobody, Some(at(known, known)), 9).await, None);
    assert_eq!(follow(store, &nobody, Some(at(0, 0)), 9).await.unwrap(), (Vec::new(), SyncPoint::default()));
}

/// A task under the id of a deleted one has a greater version, so that no client takes one for the other; other owners'
/// deletions do not matter.
pub async fn a_task_that_is_created_again_continues_its_versions(store: Arc<dyn TaskStore>) {
    let store = &*store;
    let owners = USERS.map(user);
    let ann = &owners[1];
    filled(store, ann, 1..=3).await;
    for owner in [&owners[0], &owners[2]] {
        let old = Task { version: 70, ..sample(owner, 1) };
        assert!(store.add(owner, &old).await.unwrap());
        store.remove(owner, id(1)).await.unwrap();
    }
    for number in 1..=3 {
        toggle(store, ann, id(number)).await;
        store.remove(ann, id(number)).await.unwrap();
    }
    let at = follow(store, ann, None, 9).await.unwrap().1;
    assert!(store.add(ann, &sample(ann, 1)).await.unwrap());
    let newer = Task { version: 9, ..sample(ann, 2) };
    assert!(store.add_all(ann, &[newer, sample(ann, 3)]).await.unwrap());
    let versions = |tasks: Vec<Task>| tasks.iter().map(|task| (task.id, task.version)).collect::<Vec<_>>();
    let seen = versions(all_pages(store, ann, limited(9)).await);
    assert_eq!(seen, [(id(3), 3), (id(2), 9), (id(1), 3)]);
    let mut seen = shown(&follow(store, ann, Some(at), 9).await.unwrap().0);
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3].map(|number| (id(number), false)), "not deleted any more");
    let changed = toggle(store, ann, id(1)).await;
    assert_eq!(changed.version, 4);
    // Nothing is left of a deletion that was forgotten.
    store.remove(ann, id(1)).await.unwrap();
    assert_eq!(store.purge(ann, never(), few(9)).await.unwrap(), 1);
    assert!(store.add(ann, &sample(ann, 1)).await.unwrap());
    assert_eq!(store.get(ann, id(1)).await.unwrap().unwrap().version, 1);
}

/// After an erasure, a client of the owner has to begin again. After a transfer, one of the former owner deletes the
/// tasks, and one of the new owner gets them.
pub async fn an_erasure_and_a_transfer_are_noticed(store: Arc<dyn TaskStore>) {
    let store = &*store;
    let owners = USERS.map(user);
    let (guest, ann) = (&owners[1], &owners[2]);
    filled(store, &owners[0], 1..=2).await;
    let of_other = follow(store, &owners[0], None, 9).await.unwrap().1;
    store.remove(&owners[0], id(2)).await.unwrap();
    filled(store, guest, 1..=2).await;
    filled(store, ann, 3..=4).await;
    // The new owner has deleted a task with the same id, in a later version.
    assert!(store.add(ann, &Task { version: 5, ..sample(ann, 2) }).await.unwrap());
    store.remove(ann, id(2)).await.unwrap();
    let (of_guest, of_ann) =
        (follow(store, guest, None, 9).await.unwrap().1, follow(store, ann, None, 9).await.unwrap().1);
    assert_eq!(store.transfer(guest, ann).await.unwrap(), Transfer { moved: 2, remaining: 0 });
    let mut gone = shown(&follow(store, guest, Some(of_guest), 9).await.unwrap().0);
    gone.sort_unstable();
    assert_eq!(gone, [(id(1), true), (id(2), true)]);
    let (mut new, next) = follow(store, ann, Some(of_ann), 9).await.unwrap();
    new.sort_by_key(|change| shown(std::slice::from_ref(change)));
    let versions = new.iter().map(|change| match change {
        Change::Task(task) => (task.id, task.version),
        Change::Deleted(id) => (*id, 0),
    });
    assert_eq!(versions.collect::<Vec<_>>(), [(id(1), 1), (id(2), 6)]);
    assert_eq!(store.erase(ann).await.unwrap(), 4);
    assert_eq!(follow(store, ann, Some(next), 9).await, None);
    filled(store, ann, 1..=9).await;
    assert_eq!(follow(store, ann, Some(next), 9).await, None, "a new beginning");
    assert_eq!(shown(&follow(store, ann, None, 9).await.unwrap().0).len(), 9);
    let erased = store.get(ann, id(2)).await.unwrap().unwrap();
    assert_eq!(erased.version, 1, "nothing is left of what was deleted before");
    let (of_other, _) = follow(store, &owners[0], Some(of_other), 9).await.unwrap();
    assert_eq!(shown(&of_other), [(id(2), true)], "what another owner has deleted is still known");
    assert_eq!(all_pages(store, &owners[0], limited(9)).await.len(), 1);
}
