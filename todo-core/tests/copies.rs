//! A user's tasks as JSON lines: read, deleted, and imported again, they are the same bytes, in every store.
//!
//! `COPY_CASES=1000 cargo test --release --test copies` tests more users.

use std::{collections::BTreeMap, env, sync::Arc};

use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};
use todo_core::{
    Description, Due, Limit, ListName, Metadata, NewTask, Position, Priority, Sort, Tag, Tags, Task, TaskId, TaskQuery,
    Title, TodoService, UserId, UserTasks, api::task_from_json, clock::Timestamp, store::TaskStore,
};
use uuid::Uuid;

/// Texts with any character: short ones, and ones of the maximum length.
fn text(max: usize) -> impl Strategy<Value = String> {
    let any = || any::<char>().prop_filter("NUL", |character| *character != '\0');
    let odd = select(vec!['"', '\\', '\n', '\r', '\u{1}', '\u{2028}', '\u{feff}', '\u{fffd}', '\u{df}', '\u{1f980}']);
    let character = prop_oneof![any(), odd, proptest::char::range(' ', '~')];
    prop_oneof![
        6 => vec(character, 1..20).prop_map(String::from_iter),
        1 => any().prop_map(move |character| character.to_string().repeat(max)),
    ]
}

/// The names of [`text`] that are not only white space.
fn name<T: Clone + std::fmt::Debug>(
    max: usize,
    read: impl Fn(String) -> Option<T> + 'static,
) -> impl Strategy<Value = T> {
    text(max).prop_filter_map("white space", read)
}

/// Any time that a task may have.
fn time() -> impl Strategy<Value = Timestamp> {
    let recent = 1_700_000_000_000_000..1_900_000_000_000_000_i64;
    prop_oneof![4 => recent, 1 => any::<i64>()].prop_map(Timestamp::from_unix_micros)
}

fn due() -> impl Strategy<Value = Due> {
    // With offsets of half hours, of seconds before standard time, without a day, and with two summer times.
    let zones = select(vec![
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kathmandu",
        "Africa/Monrovia",
        "Africa/Casablanca",
        "Pacific/Apia",
        "Antarctica/Troll",
        "Europe/Dublin",
        "Europe/Amsterdam",
        "America/St_Johns",
        "Etc/GMT+5",
        "Pacific/Kiritimati",
    ]);
    let date = (prop_oneof![1 => 1..9999_u16, 4 => 1880..2100_u16], 1..=12_u8, 1..=28_u8)
        .prop_map(|(year, month, day)| format!("{year:04}-{month:02}-{day:02}"));
    let fraction = prop_oneof![4 => Just(String::new()), 1 => (1..1_000_000_000_u32).prop_map(|n| format!(".{n:09}"))];
    let time =
        (0..24_u8, 0..60_u8, 0..60_u8, fraction).prop_map(|(h, m, s, rest)| format!("T{h:02}:{m:02}:{s:02}{rest}"));
    // The hours around a change of the clocks, with both offsets.
    let twice = select(vec![
        "2026-10-25T02:30+01:00[Europe/Berlin]",
        "2026-10-25T02:30+02:00[Europe/Berlin]",
        "2026-11-01T01:59:59.999999999-05:00[America/New_York]",
        "2026-03-29T02:30[Europe/Berlin]",
        "2026-10-25T02:30[Europe/Berlin]",
        "2011-12-30T12:00[Pacific/Apia]",
    ]);
    let text = prop_oneof![
        date.clone(),
        (date.clone(), time.clone()).prop_map(|(date, time)| date + &time),
        (date.clone(), time.clone()).prop_map(|(date, time)| format!("{date}{time}Z")),
        (date, time, zones).prop_map(|(date, time, zone)| format!("{date}{time}[{zone}]")),
        twice.prop_map(str::to_owned),
    ];
    text.prop_map(|text| text.parse().unwrap_or_else(|error| panic!("{text}: {error}")))
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let number = prop_oneof![
        any::<i64>().prop_map(serde_json::Value::from),
        any::<u64>().prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        number,
        text(40).prop_map(serde_json::Value::from),
    ];
    let value = leaf.prop_recursive(5, 20, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            btree_map(text(10), inner, 0..4).prop_map(serde_json::Value::from_iter),
        ]
    });
    btree_map(text(20), value, 0..5)
        .prop_filter_map("too large", |members: BTreeMap<_, _>| Metadata::from_value(&members).ok())
}

fn tags() -> impl Strategy<Value = Tags> {
    let tag = || name(Tag::MAX_CHARS, |text| Tag::new(text).ok());
    prop_oneof![4 => btree_set(tag(), 0..4), 1 => btree_set(tag(), 20)]
        .prop_map(|tags| Tags::new(tags.into_iter().rev().collect()).expect("at most 20 different ones"))
}

fn position() -> impl Strategy<Value = Position> {
    let fixed = select(vec!["a0", "Zz", "a0V", "zzzzzzzzzzzzzzzzzzzzzzzzzzz", "A000000000000000000000000001"]);
    prop_oneof![
        fixed.prop_map(|key| key.parse().expect("a key")),
        "a[0-9A-Za-z]{1,98}[1-9]".prop_map(|key| key.parse().expect("a key")),
        time().prop_map(Position::at),
    ]
}

prop_compose! {
    fn task()(
        title in name(Title::MAX_CHARS, |text| Title::new(text).ok()),
        description in option::of(prop_oneof![4 => text(Description::MAX_CHARS), 1 => Just(String::new())]),
        completed: bool,
        due in option::of(due()),
        priority in option::of(select(Priority::ALL.to_vec())),
        list in option::of(name(ListName::MAX_CHARS, |text| ListName::new(text).ok())),
        tags in tags(),
        position in option::of(position()),
        metadata in metadata(),
        id: u128,
        mut times in [time(), time(), time()],
        version in prop_oneof![3 => 1..100_i64, 1 => 1..=9_007_199_254_740_991_i64],
    ) -> Task {
        let description = description.map(|text| Description::new(text).expect("at most 1000 characters"));
        times.sort_unstable();
        let [created_at, completed_at, updated_at] = times;
        let new = NewTask { description, completed, due, priority, list, tags, position, metadata, ..NewTask::new(title) };
        let owner = UserId::new("someone else").expect("a user id");
        let task = new.into_task(owner, TaskId::from(Uuid::from_u128(id)), created_at);
        Task { completed_at: completed.then_some(completed_at), updated_at, version, ..task }
    }
}

/// All tasks as JSON lines, the oldest first.
async fn exported(tasks: &UserTasks<'_>) -> Vec<String> {
    let mut query = TaskQuery::new().sort(Sort::OldestFirst).limit(Limit::new(7).expect("a limit"));
    let mut lines = Vec::new();
    loop {
        let page = tasks.list(&query).await.expect("a page");
        lines.extend(page.tasks.iter().map(|task| serde_json::to_string(task).expect("JSON")));
        let Some(next) = page.next else { return lines };
        query.cursor = Some(next);
    }
}

async fn import(tasks: &UserTasks<'_>, all: &[Task]) {
    for batch in all.chunks(10) {
        assert!(tasks.import(batch).await.expect("the store works"), "an id exists");
    }
}

/// Copies the tasks of a user to the user, and to another one.
async fn copy(service: &TodoService, number: usize, all: &[Task]) {
    let user = UserId::new(format!("ann \"{number}\"")).expect("a user id");
    let ann = service.for_user(user.clone());
    import(&ann, all).await;
    let before = exported(&ann).await;
    assert_eq!(before.len(), all.len());
    let mut expected: Vec<_> = all.iter().map(|task| Task { user_id: user.clone(), ..task.clone() }).collect();
    expected.sort_by_key(|task| task.id);
    let read = |line: &String| task_from_json(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
    let copies: Vec<_> = before.iter().map(read).collect();
    assert_eq!(copies, expected);

    assert_eq!(ann.erase().await.expect("the store works"), all.len() as u64);
    import(&ann, &copies).await;
    assert_eq!(exported(&ann).await, before);
    let keys = |tasks: &[Task]| tasks.iter().map(|task| task.due.as_ref().map(Due::sort_key)).collect::<Vec<_>>();
    assert_eq!(keys(&copies), keys(&expected));

    // In every order and with every filter they are where they were, which the columns beside the fields decide.
    let bob = service.for_user(UserId::new(format!("bob {number}")).expect("a user id"));
    import(&bob, &copies).await;
    for sort in Sort::ALL {
        let query = TaskQuery::new().sort(sort).limit(Limit::new(200).expect("a limit"));
        let found = bob.list(&query).await.expect("a page").tasks;
        let mut sorted: Vec<_> = expected.iter().collect();
        sorted.sort_by(|one, other| sort.compare((&sort.key(one), one.id), (&sort.key(other), other.id)));
        let ids = |tasks: Vec<&Task>| tasks.into_iter().map(|task| task.id).collect::<Vec<_>>();
        assert_eq!(ids(found.iter().collect()), ids(sorted), "{sort:?}");
    }
}

async fn any_tasks_are_copied_unchanged(store: Arc<dyn TaskStore>) {
    let cases = env::var("COPY_CASES").map_or(24, |cases| cases.parse().expect("a number"));
    let service = TodoService::new(store);
    let handle = tokio::runtime::Handle::current();
    let number = std::cell::Cell::new(0);
    let tasks = btree_map(any::<u128>(), task(), 0..30).prop_map(|tasks| {
        let with_id = |(id, task)| Task { id: TaskId::from(Uuid::from_u128(id)), ..task };
        tasks.into_iter().map(with_id).rev().collect::<Vec<_>>()
    });
    tokio::task::block_in_place(|| {
        let result =
            TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() }).run(&tasks, |all| {
                number.set(number.get() + 1);
                handle.block_on(copy(&service, number.get(), &all));
                Ok(())
            });
        result.unwrap_or_else(|error| panic!("{error}"));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory() {
    testkit::stores::memory(any_tasks_are_copied_unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_sqlite() {
    testkit::stores::sqlite(any_tasks_are_copied_unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_postgresql() {
    testkit::stores::postgres(any_tasks_are_copied_unchanged).await;
}
