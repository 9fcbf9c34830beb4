//! The cases for stores; the contract is that of [`TaskStore`].

use std::{collections::BTreeSet, pin::Pin, sync::Arc, time::Duration};

use uuid::Uuid;

use crate::{
    Cursor, Description, Limit, Patch, Task, TaskId, TaskQuery, Title, UserId,
    clock::Timestamp,
    store::{Completion, TaskChange, TaskStore},
};

/// One test for each case. The argument is a function `async fn(case: impl AsyncFnOnce(Arc<dyn TaskStore>))`, which
/// calls the case with a store that is empty.
#[macro_export]
macro_rules! store_conformance {
    ($with_store:path) => {
        $crate::store_conformance! { each test $with_store }
    };
    (each $($what:tt)+) => {
        $crate::store_conformance! { @ $($what)+;
            a_stored_task_is_read_back
            an_id_is_inserted_once
            of_many_inserts_of_one_id_one_wins
            absence_is_an_answer
            other_owners_see_nothing
            two_owners_may_have_the_same_id
            owners_are_compared_byte_for_byte
            texts_at_their_limits_are_kept
            times_are_kept_to_the_microsecond
            pages_are_newest_first
            identifiers_are_compared_as_bytes
            pages_follow_one_another_without_gap
            pages_under_concurrent_inserts_lose_and_repeat_nothing
            a_filter_by_completion_pages_too
            a_cursor_is_a_bare_position
            a_cursor_of_another_owner_shows_only_the_callers_own
            every_toggle_counts
            concurrent_changes_to_different_fields_both_stay
            a_field_that_is_not_named_stays
            a_description_is_kept_cleared_or_set
            a_change_counts_once
            a_write_that_changes_nothing_is_no_change
            updated_at_never_goes_backwards
            a_deletion_happens_once
            erasing_removes_all_of_one_owner
            many_writers_at_once_are_all_served
            an_abandoned_call_spoils_no_other
            a_store_that_works_answers_a_ping
        }
    };
    (@ listed; $($case:ident)+) => {
        vec![$((stringify!($case), |store| Box::pin($case(store)))),+]
    };
    (@ test $with_store:path; $($case:ident)+) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $case() {
            $with_store(async |store| $crate::conformance::store::$case(store).await).await;
        }
    )+ };
}

/// A case of the suite.
pub type Case = fn(Arc<dyn TaskStore>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// All cases with their names, for whoever runs them otherwise than as tests.
#[must_use]
pub fn cases() -> Vec<(&'static str, Case)> {
    crate::store_conformance! { each listed }
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_763_712_000 + seconds)
}

fn id(number: u128) -> TaskId {
    Uuid::from_u128(0x019a_a3f0_5c00_7000_8000_0000_0000_0000 + number).into()
}

/// An open task of this owner, with this place in the order.
fn sample(owner: &UserId, number: u128) -> Task {
    Task {
        id: id(number),
        user_id: owner.clone(),
        title: Title::new(format!("Task {number}")).unwrap(),
        description: None,
        completed: false,
        created_at: moment(0),
        updated_at: moment(0),
        version: 1,
    }
}

async fn filled(store: &dyn TaskStore, owner: &UserId, numbers: impl IntoIterator<Item = u128>) -> Vec<Task> {
    let mut tasks = Vec::new();
    for number in numbers {
        let task = sample(owner, number);
        assert!(store.insert(owner, &task).await.unwrap());
        tasks.push(task);
    }
    tasks
}

fn limited(limit: u16) -> TaskQuery {
    TaskQuery { limit: Limit::new(limit).unwrap(), ..TaskQuery::default() }
}

/// All that a query lists, page by page, in the order of the pages.
async fn all_pages(store: &dyn TaskStore, owner: &UserId, mut query: TaskQuery) -> Vec<Task> {
    let mut tasks = Vec::new();
    loop {
        let page = store.list(owner, &query).await.unwrap();
        assert!(page.tasks.len() <= usize::from(query.limit.get()));
        assert!(page.next.is_none() || page.tasks.len() == usize::from(query.limit.get()), "a short page is the last");
        tasks.extend(page.tasks);
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return tasks,
        }
    }
}

fn ids(tasks: &[Task]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}

async fn toggle(store: &dyn TaskStore, owner: &UserId, id: TaskId) -> Task {
    store.update(owner, id, &TaskChange::completion(Completion::Toggle), moment(1)).await.unwrap().unwrap()
}

/// What was put in comes out, whatever it is.
pub async fn a_stored_task_is_read_back(store: Arc<dyn TaskStore>) {
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
        assert!(store.insert(&ann, &task).await.unwrap());
        assert_eq!(store.get(&ann, task.id).await.unwrap().as_ref(), Some(&task));
        assert_eq!(store.list(&ann, &limited(1)).await.unwrap().tasks, [task]);
    }
}

/// A second task with the same id changes nothing of the first.
pub async fn an_id_is_inserted_once(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let first = sample(&ann, 1);
    assert!(store.insert(&ann, &first).await.unwrap());
    let second = Task { title: Title::new("Another").unwrap(), completed: true, ..first.clone() };
    assert!(!store.insert(&ann, &second).await.unwrap());
    assert_eq!(store.get(&ann, first.id).await.unwrap(), Some(first));
}

/// Whoever is told that the task was added is the only one.
pub async fn of_many_inserts_of_one_id_one_wins(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let inserts = (0..16).map(|number| {
        let (store, ann) = (store.clone(), ann.clone());
        let task = Task { title: Title::new(format!("From {number}")).unwrap(), ..sample(&ann, 1) };
        tokio::spawn(async move { store.insert(&ann, &task).await.unwrap().then_some(task) })
    });
    let mut winners = Vec::new();
    for insert in inserts.collect::<Vec<_>>() {
        winners.extend(insert.await.unwrap());
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(store.get(&ann, id(1)).await.unwrap(), winners.pop());
}

/// Nothing that is asked of a task that is not there is an error.
pub async fn absence_is_an_answer(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    assert_eq!(store.get(&ann, id(1)).await.unwrap(), None);
    assert_eq!(store.list(&ann, &TaskQuery::default()).await.unwrap(), crate::Page::default());
    assert_eq!(store.update(&ann, id(1), &TaskChange::default(), moment(1)).await.unwrap(), None);
    assert!(!store.delete(&ann, id(1)).await.unwrap());
    assert_eq!(store.erase(&ann).await.unwrap(), 0);
}

/// Another owner can neither see nor change a task, whatever is asked.
pub async fn other_owners_see_nothing(store: Arc<dyn TaskStore>) {
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
        let query = TaskQuery { completed, ..TaskQuery::default() };
        assert_eq!(store.list(&bob, &query).await.unwrap().tasks, []);
    }
    assert_eq!(store.erase(&bob).await.unwrap(), 0);
    let seen = all_pages(&*store, &ann, TaskQuery::default()).await;
    assert_eq!(seen, tasks.into_iter().rev().collect::<Vec<_>>());
}

/// The same id under two owners is two tasks, and what happens to one does not happen to the other.
pub async fn two_owners_may_have_the_same_id(store: Arc<dyn TaskStore>) {
    let (ann, bob) = (user("ann"), user("bob"));
    let (of_ann, of_bob) = (sample(&ann, 1), Task { title: Title::new("Of Bob").unwrap(), ..sample(&bob, 1) });
    assert!(store.insert(&ann, &of_ann).await.unwrap());
    assert!(store.insert(&bob, &of_bob).await.unwrap());
    assert_eq!(store.get(&bob, id(1)).await.unwrap().as_ref(), Some(&of_bob));

    let changed = toggle(&*store, &ann, id(1)).await;
    assert_eq!((changed.completed, &changed.title), (true, &of_ann.title));
    assert_eq!(store.get(&bob, id(1)).await.unwrap().as_ref(), Some(&of_bob));
    let done = TaskQuery { completed: Some(true), ..TaskQuery::default() };
    assert_eq!(store.list(&bob, &done).await.unwrap().tasks, []);
    assert_eq!(store.list(&ann, &TaskQuery::default()).await.unwrap().tasks, [changed]);

    assert!(store.delete(&ann, id(1)).await.unwrap());
    assert_eq!(store.get(&ann, id(1)).await.unwrap(), None);
    assert_eq!(store.list(&bob, &TaskQuery::default()).await.unwrap().tasks, [of_bob]);
}

/// No two texts are the same owner: not by case, not by white space, not by Unicode normalisation, not as a pattern.
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

/// The limits are counted in Unicode scalar values by the types and by the store alike.
pub async fn texts_at_their_limits_are_kept(store: Arc<dyn TaskStore>) {
    // One, two, three and four bytes long in UTF-8, two units long in UTF-16, and marks that combine.
    for (number, letter) in (1..).zip(["x", "é", "語", "🦀", "\u{301}"]) {
        let owner = user(&letter.repeat(UserId::MAX_CHARS));
        let task = Task {
            title: Title::new(letter.repeat(Title::MAX_CHARS)).unwrap(),
            description: Some(Description::new(letter.repeat(Description::MAX_CHARS)).unwrap()),
            ..sample(&owner, number)
        };
        assert!(store.insert(&owner, &task).await.unwrap());
        assert_eq!(store.get(&owner, task.id).await.unwrap().as_ref(), Some(&task));
        let change = TaskChange { title: Some(Title::new(letter).unwrap()), ..TaskChange::default() };
        let changed = store.update(&owner, task.id, &change, moment(1)).await.unwrap().unwrap();
        assert_eq!((changed.title.as_str(), changed.description), (letter, task.description));
    }
}

/// Times come back as they went in, before 1970 too.
pub async fn times_are_kept_to_the_microsecond(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let micros = [-1, 0, 1, 1_763_712_000_123_456, -62_135_596_800_000_000, 253_402_300_799_999_999];
    for (number, micros) in (1..).zip(micros) {
        let created_at = Timestamp::from_unix_micros(micros);
        let task = Task { created_at, updated_at: created_at, ..sample(&ann, number) };
        assert!(store.insert(&ann, &task).await.unwrap());
        assert_eq!(store.get(&ann, task.id).await.unwrap(), Some(task));
    }
}

/// The order is that of the ids, not of the insertions.
pub async fn pages_are_newest_first(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, [3, 1, 5, 2, 4]).await;
    let page = store.list(&ann, &TaskQuery::default()).await.unwrap();
    assert_eq!(ids(&page.tasks), [5, 4, 3, 2, 1].map(id));
    assert_eq!(page.next, None);
}

/// A byte above 127 is greater than one below, and the last byte counts.
pub async fn identifiers_are_compared_as_bytes(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let mut numbers = [0x7f << 120, 0x80 << 120, 0xff << 120, 1, 0x80, 0xff, 0x0100, u128::MAX].map(Uuid::from_u128);
    for number in numbers {
        assert!(store.insert(&ann, &Task { id: number.into(), ..sample(&ann, 0) }).await.unwrap());
    }
    numbers.sort_unstable_by_key(|number| std::cmp::Reverse(number.as_u128()));
    for limit in [1, 3, 200] {
        let seen = all_pages(&*store, &ann, limited(limit)).await;
        assert_eq!(ids(&seen), numbers.map(TaskId::from), "pages of {limit}");
    }
}

/// Whatever the size of a page: the pages together are the list, and a page that ends the list says so.
pub async fn pages_follow_one_another_without_gap(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, 1..=201).await;
    let newest_first: Vec<_> = (1..=201).rev().map(id).collect();
    for limit in [7, 67, 100, 200] {
        assert_eq!(ids(&all_pages(&*store, &ann, limited(limit)).await), newest_first, "pages of {limit}");
    }
    // Exactly full: there is no next page, and no empty one.
    assert!(store.delete(&ann, id(201)).await.unwrap());
    let page = store.list(&ann, &limited(200)).await.unwrap();
    assert_eq!((page.tasks.len(), page.next), (200, None));
}

/// Who pages through while others insert sees each task that was there once, and none twice.
pub async fn pages_under_concurrent_inserts_lose_and_repeat_nothing(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, 1..=60).await;
    let inserting = {
        let (store, ann) = (store.clone(), ann.clone());
        tokio::spawn(async move { filled(&*store, &ann, 61..=120).await.len() })
    };
    for _ in 0..4 {
        let seen = ids(&all_pages(&*store, &ann, limited(7)).await);
        assert!(seen.is_sorted_by(|a, b| a > b), "none twice, newest first");
        let seen: BTreeSet<_> = seen.into_iter().collect();
        assert!((1..=60).all(|number| seen.contains(&id(number))), "none lost");
    }
    assert_eq!(inserting.await.unwrap(), 60);
    assert_eq!(all_pages(&*store, &ann, limited(7)).await.len(), 120);
}

/// A filter leaves out tasks, not places: its pages have the same order and end.
pub async fn a_filter_by_completion_pages_too(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    for number in 1..=30 {
        let task = Task { completed: number % 3 == 0, ..sample(&ann, number) };
        assert!(store.insert(&ann, &task).await.unwrap());
    }
    // What must not show.
    let bob = user("bob");
    assert!(store.insert(&bob, &Task { completed: true, ..sample(&bob, 15) }).await.unwrap());
    for completed in [true, false] {
        let expected: Vec<_> = (1..=30).rev().filter(|number| (number % 3 == 0) == completed).map(id).collect();
        for limit in [1, 4, 5, 10, 20, 200] {
            let query = TaskQuery { completed: Some(completed), ..limited(limit) };
            assert_eq!(ids(&all_pages(&*store, &ann, query).await), expected, "{completed}, pages of {limit}");
        }
    }
}

/// A cursor is good where no task is any more, and before the first and after the last.
pub async fn a_cursor_is_a_bare_position(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, 1..=5).await;
    let after = |number| TaskQuery { cursor: Some(Cursor::after(number)), ..TaskQuery::default() };
    assert!(store.delete(&ann, id(3)).await.unwrap());
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
        let page = store.list(&ann, &after(position)).await.unwrap();
        assert_eq!(page.tasks.len(), count, "after {position}");
        assert!(page.tasks.iter().all(|task| task.id < position));
    }
}

/// A cursor that another owner was given shows the caller's own tasks, and no other.
pub async fn a_cursor_of_another_owner_shows_only_the_callers_own(store: Arc<dyn TaskStore>) {
    let (ann, bob) = (user("ann"), user("bob"));
    filled(&*store, &ann, (1..=9).step_by(2)).await;
    filled(&*store, &bob, (2..=10).step_by(2)).await;
    let cursor = store.list(&ann, &limited(2)).await.unwrap().next;
    assert_eq!(cursor, Some(Cursor::after(id(7))));
    for completed in [None, Some(false)] {
        let page = store.list(&bob, &TaskQuery { cursor, completed, ..TaskQuery::default() }).await.unwrap();
        assert_eq!(ids(&page.tasks), [6, 4, 2].map(id));
        assert!(page.tasks.iter().all(|task| task.user_id == bob));
    }
}

/// 64 toggles at once are 64 toggles: none reads what another is about to change.
pub async fn every_toggle_counts(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, [1]).await;
    let toggles: Vec<_> = (0..64)
        .map(|_| {
            let (store, ann) = (store.clone(), ann.clone());
            tokio::spawn(async move { toggle(&*store, &ann, id(1)).await })
        })
        .collect();
    let mut seen = BTreeSet::new();
    for toggle in toggles {
        let task = toggle.await.unwrap();
        assert_eq!(task.completed, task.version % 2 == 0, "what each saw is what it made");
        seen.insert(task.version);
    }
    assert_eq!(seen, (2..=65).collect());
    let task = store.get(&ann, id(1)).await.unwrap().unwrap();
    assert_eq!((task.completed, task.version), (false, 65));
}

/// A change to one field does not write back an older value of another.
pub async fn concurrent_changes_to_different_fields_both_stay(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, [1]).await;
    for round in 1..=8_u8 {
        let title = Title::new(format!("Title {round}")).unwrap();
        let description = Description::new(format!("Description {round}")).unwrap();
        let changes = [
            TaskChange { title: Some(title.clone()), ..TaskChange::default() },
            TaskChange { description: Patch::Set(description.clone()), ..TaskChange::default() },
            TaskChange::completion(Completion::Toggle),
        ];
        let running = changes.map(|change| {
            let (store, ann) = (store.clone(), ann.clone());
            tokio::spawn(async move { store.update(&ann, id(1), &change, moment(1)).await.unwrap().unwrap() })
        });
        for change in running {
            change.await.unwrap();
        }
        let task = store.get(&ann, id(1)).await.unwrap().unwrap();
        assert_eq!((task.title, task.description), (title, Some(description)));
        assert_eq!((task.completed, task.version), (round % 2 == 1, 1 + 3 * i64::from(round)));
    }
}

/// A change says what changes; the rest is as it was.
pub async fn a_field_that_is_not_named_stays(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let task = Task { description: Some(Description::new("As it was").unwrap()), completed: true, ..sample(&ann, 1) };
    assert!(store.insert(&ann, &task).await.unwrap());
    let change = TaskChange { title: Some(Title::new("New").unwrap()), ..TaskChange::default() };
    let changed = store.update(&ann, task.id, &change, moment(5)).await.unwrap().unwrap();
    let expected = Task { title: Title::new("New").unwrap(), updated_at: moment(5), version: 2, ..task };
    assert_eq!(changed, expected);
    assert_eq!(store.get(&ann, expected.id).await.unwrap(), Some(expected));
}

/// Absent, empty and something are three descriptions.
pub async fn a_description_is_kept_cleared_or_set(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, [1]).await;
    let text = |text| Description::new(text).unwrap();
    let steps = [
        (Patch::Set(text("")), Some("")),
        (Patch::Keep, Some("")),
        (Patch::Clear, None),
        (Patch::Keep, None),
        (Patch::Set(text("something")), Some("something")),
        (Patch::Set(text("")), Some("")),
    ];
    for (description, expected) in steps {
        let change = TaskChange { description, ..TaskChange::default() };
        let task = store.update(&ann, id(1), &change, moment(1)).await.unwrap().unwrap();
        assert_eq!(task.description.as_ref().map(Description::as_str), expected, "{change:?}");
        assert_eq!(store.get(&ann, id(1)).await.unwrap(), Some(task));
    }
}

/// A change of several fields is one change, and the owner's other tasks do not change with it.
pub async fn a_change_counts_once(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let tasks = filled(&*store, &ann, 1..=2).await;
    let change = TaskChange {
        title: Some(Title::new("All new").unwrap()),
        description: Patch::Set(Description::new("All new").unwrap()),
        completed: Some(Completion::Set(true)),
    };
    let task = store.update(&ann, id(1), &change, moment(1)).await.unwrap().unwrap();
    assert_eq!((task.version, task.updated_at, task.created_at), (2, moment(1), moment(0)));
    assert_eq!(store.get(&ann, id(2)).await.unwrap().as_ref(), Some(&tasks[1]));
}

/// To say again what is so already leaves `version` and `updated_at` alone.
pub async fn a_write_that_changes_nothing_is_no_change(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let described = Task { description: Some(Description::new("").unwrap()), completed: true, ..sample(&ann, 1) };
    let plain = sample(&ann, 2);
    for task in [described, plain] {
        assert!(store.insert(&ann, &task).await.unwrap());
        let same = TaskChange {
            title: Some(task.title.clone()),
            description: task.description.clone().map_or(Patch::Clear, Patch::Set),
            completed: Some(Completion::Set(task.completed)),
        };
        for change in [TaskChange::default(), TaskChange::completion(Completion::Set(task.completed)), same] {
            let answer = store.update(&ann, task.id, &change, moment(9)).await.unwrap();
            assert_eq!(answer.as_ref(), Some(&task), "{change:?}");
            assert_eq!(store.get(&ann, task.id).await.unwrap().as_ref(), Some(&task), "{change:?}");
        }
    }
}

/// If the clock goes backwards, `updated_at` waits for it; the change happens all the same.
pub async fn updated_at_never_goes_backwards(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, [1]).await;
    let toggle = TaskChange::completion(Completion::Toggle);
    for (now, expected) in [(10, 10), (5, 10), (-1_000_000, 10), (11, 11)] {
        let task = store.update(&ann, id(1), &toggle, moment(now)).await.unwrap().unwrap();
        assert_eq!(task.updated_at, moment(expected));
    }
    assert_eq!(store.get(&ann, id(1)).await.unwrap().unwrap().version, 5);
}

/// Of many who delete a task at once, one did.
pub async fn a_deletion_happens_once(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, 1..=2).await;
    let deletions: Vec<_> = (0..16)
        .map(|_| {
            let (store, ann) = (store.clone(), ann.clone());
            tokio::spawn(async move { store.delete(&ann, id(1)).await.unwrap() })
        })
        .collect();
    let mut count = 0;
    for deletion in deletions {
        count += u32::from(deletion.await.unwrap());
    }
    assert_eq!(count, 1);
    assert_eq!(store.get(&ann, id(1)).await.unwrap(), None);
    assert!(store.get(&ann, id(2)).await.unwrap().is_some());
    assert_eq!(store.update(&ann, id(1), &TaskChange::default(), moment(1)).await.unwrap(), None);
}

/// Erasing says how many there were, leaves none, and leaves everybody else's.
pub async fn erasing_removes_all_of_one_owner(store: Arc<dyn TaskStore>) {
    let (ann, bob) = (user("ann"), user("bob"));
    filled(&*store, &ann, 1..=250).await;
    filled(&*store, &bob, 1..=3).await;
    assert_eq!(store.erase(&ann).await.unwrap(), 250);
    assert_eq!(store.list(&ann, &TaskQuery::default()).await.unwrap().tasks, []);
    assert_eq!(store.erase(&ann).await.unwrap(), 0);
    assert_eq!(all_pages(&*store, &bob, TaskQuery::default()).await.len(), 3);
    // The owner may begin again, with the same ids.
    assert!(store.insert(&ann, &sample(&ann, 1)).await.unwrap());
}

/// Many owners write and read at the same time, and nobody is told that the store is busy.
pub async fn many_writers_at_once_are_all_served(store: Arc<dyn TaskStore>) {
    let writers: Vec<_> = (0..32)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let owner = user(&format!("owner {number}"));
                for number in 1..=8 {
                    assert!(store.insert(&owner, &sample(&owner, number)).await.unwrap());
                    toggle(&*store, &owner, id(number)).await;
                    assert!(!store.list(&owner, &TaskQuery::default()).await.unwrap().tasks.is_empty());
                }
                store.delete(&owner, id(1)).await.unwrap();
                all_pages(&*store, &owner, TaskQuery::default()).await.len()
            })
        })
        .collect();
    for writer in writers {
        assert_eq!(writer.await.unwrap(), 7);
    }
}

/// A caller who goes away in the middle of a call leaves nothing behind that another would be answered with.
pub async fn an_abandoned_call_spoils_no_other(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, 1..=20).await;
    for patience in 0..40_u64 {
        let number = u128::from(patience % 20) + 1;
        // Some end before they have begun, some in the middle, some after.
        let patience = Duration::from_micros(patience * 25);
        let _ = tokio::time::timeout(patience, store.list(&ann, &limited(3))).await;
        let change = TaskChange { title: Some(Title::new("Abandoned").unwrap()), ..TaskChange::default() };
        let _ = tokio::time::timeout(patience, store.update(&ann, id(20), &change, moment(1))).await;
        let task = store.get(&ann, id(number)).await.unwrap().unwrap();
        assert_eq!(task.id, id(number));
        assert_eq!(store.list(&ann, &limited(2)).await.unwrap().tasks.len(), 2);
    }
}

/// What a readiness probe asks.
pub async fn a_store_that_works_answers_a_ping(store: Arc<dyn TaskStore>) {
    store.ping().await.unwrap();
}
