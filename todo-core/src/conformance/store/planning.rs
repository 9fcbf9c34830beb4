//! The fields that people plan with, filters, sorts, and changes of many tasks.

use std::sync::Arc;

use super::{
    fixture::{all_pages, filled, id, ids, limited, moment, sample, user},
    plain::PlainCalls as _,
};
use crate::{
    Description, Due, DueFilter, Group, ListName, Metadata, NewTask, Patch, Position, Priority, Sort, Summary, Tag,
    Tags, Task, TaskFilter, Title, ZoneName,
    store::{BulkResult, Completion, TaskChange, TaskStore},
};

pub(super) fn due(text: &str) -> Due {
    text.parse().unwrap()
}

fn list(name: &str) -> ListName {
    ListName::new(name).unwrap()
}

pub(super) fn tags(names: &[&str]) -> Tags {
    Tags::new(names.iter().map(|name| Tag::new(*name).unwrap()).collect()).unwrap()
}

/// Every field is returned as it was written, and what was meant by a due time survives.
pub async fn all_fields_are_read_back_unchanged(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let dues = [
        "2026-12-01",
        "0001-01-01",
        "9999-12-31",
        "2026-12-01T17:00:00.123456789",
        "2026-12-01T17:00[Europe/Berlin]",
        "2026-10-25T02:30+01:00[Europe/Berlin]",
        "2026-12-01T16:00Z",
    ];
    for (number, text) in (1..).zip(dues) {
        let new = NewTask {
            description: Some(Description::new("\u{df}\u{130} \"{}\\").unwrap()),
            completed: number % 2 == 0,
            due: Some(due(text)),
            priority: Priority::ALL.get(number % 5).copied(),
            list: Some(list("\u{4e00} '\"\\{},NULL")),
            tags: tags(&["NULL", "a,b", "\"", "\\", "{}", " x".trim(), "\u{1F980}"]),
            position: Some("a0V".parse().unwrap()),
            metadata: Metadata::new(r#"{"b":[1,18446744073709551615,-0.5,null],"a":{"\u00e9":"\""}}"#).unwrap(),
            ..NewTask::new(Title::new("All of it").unwrap())
        };
        let task = new.into_task(ann.clone(), id(number as u128), moment(0));
        assert!(store.add(&ann, &task).await.unwrap());
        assert_eq!(store.get(&ann, task.id).await.unwrap().as_ref(), Some(&task));
        let read = store.page(&ann, &limited(1)).await.unwrap().tasks.remove(0);
        let shown = |task: &Task| task.due.as_ref().map(|due| (due.sort_key(), due.to_string()));
        assert_eq!(shown(&read), shown(&task));
    }
}

/// Each field changes alone, is cleared, and is a change of nothing when it is written again.
pub async fn each_field_changes_alone(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, [1, 2]).await;
    let untouched = store.get(&ann, id(2)).await.unwrap();
    let changes = [
        TaskChange { due: Patch::Set(due("2026-12-01")), ..TaskChange::default() },
        TaskChange { due: Patch::Set(due("2026-12-01T00:00Z")), ..TaskChange::default() },
        TaskChange { due: Patch::Clear, ..TaskChange::default() },
        TaskChange { priority: Patch::Set(Priority::Urgent), ..TaskChange::default() },
        TaskChange { priority: Patch::Clear, ..TaskChange::default() },
        TaskChange { list: Patch::Set(list("Home")), ..TaskChange::default() },
        TaskChange { list: Patch::Clear, ..TaskChange::default() },
        TaskChange { tags: Some(tags(&["b", "a"])), ..TaskChange::default() },
        TaskChange { tags: Some(tags(&["a", "b"])), ..TaskChange::default() },
        TaskChange { tags: Some(Tags::default()), ..TaskChange::default() },
        TaskChange { position: Some("Zz".parse().unwrap()), ..TaskChange::default() },
        TaskChange { metadata: Some(Metadata::new(r#"{"a":1}"#).unwrap()), ..TaskChange::default() },
        TaskChange { metadata: Some(Metadata::default()), ..TaskChange::default() },
        TaskChange { title: Some(Title::new("\u{c4}RGER").unwrap()), ..TaskChange::default() },
        TaskChange { title: Some(Title::new("\u{e4}rger").unwrap()), ..TaskChange::default() },
        TaskChange::completion(Completion::Set(true)),
        TaskChange::completion(Completion::Toggle),
    ];
    let mut expected = store.get(&ann, id(1)).await.unwrap().unwrap();
    for (seconds, change) in (1..).zip(changes) {
        assert!(change.apply(&mut expected, moment(seconds)), "{change:?}");
        let task = store.change(&ann, id(1), &change, moment(seconds)).await.unwrap();
        assert_eq!(task.as_ref(), Some(&expected), "{change:?}");
        if change.completed != Some(Completion::Toggle) {
            let again = store.change(&ann, id(1), &change, moment(seconds + 1000)).await.unwrap();
            assert_eq!(again.as_ref(), Some(&expected), "{change:?}");
        }
    }
    assert_eq!(store.get(&ann, id(2)).await.unwrap(), untouched);
}

/// `completed_at` is the time of the change that completed the task; it never is before `updated_at` was.
pub async fn completing_sets_the_time_and_reopening_removes_it(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, [1]).await;
    let update = async |completed, seconds| {
        let change = TaskChange::completion(completed);
        store.change(&ann, id(1), &change, moment(seconds)).await.unwrap().unwrap().completed_at
    };
    assert_eq!(update(Completion::Set(true), 5).await, Some(moment(5)));
    assert_eq!(update(Completion::Set(true), 6).await, Some(moment(5)));
    assert_eq!(update(Completion::Toggle, 7).await, None);
    assert_eq!(update(Completion::Toggle, 3).await, Some(moment(7)), "the clock went backwards");
}

/// Of several tasks, all are added or none.
pub async fn several_tasks_are_added_together_or_not_at_all(store: Arc<dyn TaskStore>) {
    let (ann, bob) = (user("ann"), user("bob"));
    let tasks: Vec<_> = (1..=100).map(|number| sample(&ann, number)).collect();
    assert!(store.add_all(&ann, &tasks).await.unwrap());
    assert_eq!(store.page(&ann, &limited(200)).await.unwrap().tasks.len(), 100);
    // The same ids of another owner are other tasks, whatever the tasks say about their owner.
    assert!(store.add_all(&bob, &tasks[..2]).await.unwrap());
    assert_eq!(store.get(&bob, id(1)).await.unwrap().unwrap().user_id, bob);
    assert_eq!(store.page(&ann, &limited(200)).await.unwrap().tasks.len(), 100);
    let some_exist: Vec<_> = (99..=102).map(|number| sample(&bob, number)).collect();
    assert!(store.add_all(&bob, &some_exist).await.unwrap(), "only the other owner has some of them");
    assert!(!store.add_all(&ann, &some_exist).await.unwrap());
    assert_eq!(store.page(&ann, &limited(200)).await.unwrap().tasks.len(), 100);
    assert!(store.add_all(&ann, &[]).await.unwrap());
}

/// Each sort is the order of the keys, with absent values last, in pages of any size.
pub async fn every_sort_is_paged_without_gaps(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let mut all = Vec::new();
    for number in 0..60_u64 {
        let new = NewTask {
            due: [None, Some(due("2026-12-01")), Some(due("2026-11-30T23:00Z")), Some(due("2026-12-01T00:00"))]
                [(number % 4) as usize]
                .clone(),
            priority: Priority::ALL.get((number % 5) as usize).copied(),
            position: Some(["a0", "a1", "Zz", "a0V"][(number % 4) as usize].parse().unwrap()),
            ..NewTask::new(Title::new(["b", "B", "a", "\u{c4}", "\u{e4}", "Z"][(number % 6) as usize]).unwrap())
        };
        let task = new.into_task(ann.clone(), id(number.into()), moment(0));
        let updated_at = moment(i64::try_from(number % 7).unwrap());
        let task = Task { updated_at, ..task };
        assert!(store.add(&ann, &task).await.unwrap());
        all.push(task);
    }
    filled(&*store, &user("bob"), 0..60).await;
    for sort in Sort::ALL {
        let mut expected: Vec<_> = all.iter().collect();
        expected.sort_by(|one, other| sort.compare((&sort.key(one), one.id), (&sort.key(other), other.id)));
        let expected: Vec<_> = expected.into_iter().map(|task| task.id).collect();
        for limit in [1, 7, 200] {
            let seen = all_pages(&*store, &ann, limited(limit).sort(sort)).await;
            assert_eq!(ids(&seen), expected, "{sort:?}, pages of {limit}");
        }
    }
}

/// Filters mean the same in every store.
pub async fn filters_select_the_same_tasks_as_their_definition(store: Arc<dyn TaskStore>) {
    let (ann, bob) = (user("ann"), user("bob"));
    let mut all = Vec::new();
    let titles = [
        "Stra\u{df}e",
        "STRASSE",
        "\u{130}stanbul",
        "istanbul",
        "e\u{301}t\u{e9}",
        "\u{4e2d}\u{6587}",
        "100%_\\",
        "\u{1F980}",
    ];
    let dues = [
        "2026-03-28",
        "2026-03-29",
        "2026-03-29T02:30",
        "2026-03-29T03:10",
        "2026-03-29T01:15Z",
        "2026-03-29T00:30[Europe/Berlin]",
        "2026-10-25T02:30",
        "2026-10-25",
    ];
    for number in 0..64_usize {
        let new = NewTask {
            description: (number % 3 == 0).then(|| Description::new(titles[number / 3 % 8]).unwrap()),
            completed: number % 2 == 0,
            due: (number % 9 != 8).then(|| due(dues[number % 8])),
            priority: Priority::ALL.get(number % 5).copied(),
            list: [None, Some(list("Home")), Some(list("home"))][number % 3].clone(),
            tags: tags(&["a", "b", "c"][..number % 4]),
            ..NewTask::new(Title::new(titles[number % 8]).unwrap())
        };
        let task = new.into_task(ann.clone(), id(number as u128), moment(0));
        let task = Task { updated_at: moment(i64::try_from(number).unwrap()), ..task };
        assert!(store.add(&ann, &task).await.unwrap());
        assert!(store.add(&bob, &Task { user_id: bob.clone(), ..task.clone() }).await.unwrap());
        all.push(task);
    }
    let berlin = ZoneName::new("Europe/Berlin").unwrap();
    let between = |from: Option<&str>, before: Option<&str>| {
        TaskFilter::new().due(DueFilter::Between { from: from.map(due), before: before.map(due) })
    };
    let mut filters = vec![
        TaskFilter::new(),
        TaskFilter::new().completed(true),
        TaskFilter::new().list(None),
        TaskFilter::new().list(list("Home")),
        TaskFilter::new().list(list("Home")).list(None),
        TaskFilter::new().tag(Tag::new("a").unwrap()),
        TaskFilter::new().tag(Tag::new("c").unwrap()).tag(Tag::new("b").unwrap()),
        TaskFilter::new().tag(Tag::new("A").unwrap()),
        TaskFilter::new().priority(Priority::Urgent).priority(Priority::Low),
        TaskFilter::new().due(DueFilter::Never),
        TaskFilter::new().updated_since(moment(30)),
        TaskFilter::new().completed(false).list(list("home")).priority(Priority::High).text("s"),
        between(None, None),
    ];
    for bound in [
        "2026-03-29",
        "2026-03-29T02:30",
        "2026-03-29T03:15",
        "2026-03-29T01:15Z",
        "2026-10-25T01:00Z",
        "2026-10-25T02:30+01:00[Europe/Berlin]",
    ] {
        for filter in [between(Some(bound), None), between(None, Some(bound)), between(Some("2026-03-28"), Some(bound))]
        {
            filters.push(filter.clone().time_zone(berlin.clone()));
            filters.push(filter);
        }
    }
    let texts = ["stra\u{df}e", "SS", "i", "\u{130}", "\u{e9}", "e", "\u{6587}", "%", "_", "\\", "\u{1F980}", "x"];
    filters.extend(texts.map(|text| TaskFilter::new().text(text)));
    for filter in filters {
        let matches = filter.matcher();
        let expected: Vec<_> = all.iter().rev().filter(|task| matches(task)).map(|task| task.id).collect();
        let query = limited(7).filter(filter.clone());
        assert_eq!(ids(&all_pages(&*store, &ann, query).await), expected, "{filter:?}");
        assert_eq!(store.number(&ann, &filter).await.unwrap(), expected.len() as u64, "{filter:?}");
    }
}

/// The summary counts the owner's tasks, in all, in each list and with each tag.
pub async fn the_summary_counts_lists_and_tags_of_one_owner(store: Arc<dyn TaskStore>) {
    let (ann, bob) = (user("ann"), user("bob"));
    assert_eq!(store.groups(&ann).await.unwrap(), Summary::default());
    for number in 0..10_usize {
        let new = NewTask {
            completed: number < 3,
            list: [None, Some(list("b")), Some(list("B"))][number % 3].clone(),
            tags: tags(&["y", "X"][..number % 3]),
            ..NewTask::new(Title::new("One").unwrap())
        };
        for owner in [&ann, &bob] {
            let task = new.clone().into_task(owner.clone(), id(number as u128), moment(0));
            assert!(store.add(owner, &task).await.unwrap());
        }
    }
    let tag = |name: &str| Tag::new(name).unwrap();
    assert_eq!(
        store.groups(&ann).await.unwrap(),
        Summary {
            total: 10,
            open: 7,
            lists: vec![Group { name: list("B"), open: 2, total: 3 }, Group { name: list("b"), open: 2, total: 3 }],
            tags: vec![Group { name: tag("X"), open: 2, total: 3 }, Group { name: tag("y"), open: 4, total: 6 }],
        }
    );
}

/// A change of many tasks changes those that the filter means, and counts those that get another value.
pub async fn many_tasks_change_in_one_step(store: Arc<dyn TaskStore>) {
    let (ann, bob) = (user("ann"), user("bob"));
    let tasks = filled(&*store, &ann, 1..=6).await;
    filled(&*store, &bob, 1..=6).await;
    let bobs = store.page(&bob, &limited(10)).await.unwrap();
    let done = TaskChange::completion(Completion::Set(true));
    store.change(&ann, id(1), &done, moment(1)).await.unwrap();
    store
        .change(&ann, id(2), &TaskChange { list: Patch::Set(list("Home")), ..TaskChange::default() }, moment(1))
        .await
        .unwrap();
    let all = TaskFilter::new();
    let result = store.update_matching(&ann, &all, &done, moment(2)).await.unwrap();
    assert_eq!(result, BulkResult { matched: 6, changed: 5 });
    let changed = store.page(&ann, &limited(10)).await.unwrap().tasks;
    assert!(changed.iter().all(|task| task.completed));
    let version =
        |number| changed.iter().find(|task| task.id == id(number)).map(|task| (task.version, task.updated_at));
    assert_eq!(
        (version(1), version(2), version(3)),
        (Some((2, moment(1))), Some((3, moment(2))), Some((2, moment(2))))
    );
    // The change affects what the filter looks at.
    let renamed = TaskChange { list: Patch::Set(list("House")), ..TaskChange::default() };
    let home = TaskFilter::new().list(list("Home"));
    assert_eq!(
        store.update_matching(&ann, &home, &renamed, moment(3)).await.unwrap(),
        BulkResult { matched: 1, changed: 1 }
    );
    assert_eq!(store.number(&ann, &home).await.unwrap(), 0);
    assert_eq!(store.page(&bob, &limited(10)).await.unwrap(), bobs, "nothing of another owner has changed");

    assert_eq!(store.delete_matching(&ann, &TaskFilter::new().list(list("House"))).await.unwrap(), 1);
    assert_eq!(store.delete_matching(&ann, &TaskFilter::new().completed(true)).await.unwrap(), tasks.len() as u64 - 1);
    assert_eq!(store.delete_matching(&ann, &all).await.unwrap(), 0);
    assert_eq!(store.page(&bob, &limited(10)).await.unwrap(), bobs);
}

/// Positions are set together, for the owner's tasks only.
pub async fn positions_are_set_together(store: Arc<dyn TaskStore>) {
    let (ann, bob) = (user("ann"), user("bob"));
    filled(&*store, &ann, 1..=3).await;
    filled(&*store, &bob, 1..=4).await;
    let bobs = store.page(&bob, &limited(10)).await.unwrap();
    let to = |number, position: &str| (id(number), position.parse::<Position>().unwrap());
    let all = [to(1, "a2"), to(2, "a1"), to(4, "a0")];
    for moved in [(id(1), 2), (id(4), 1)] {
        let refused = store.reposition(&ann, &all, moved, moment(1)).await.unwrap();
        assert_eq!(refused, [], "another version, or no such task");
    }
    let moved = store.reposition(&ann, &all, (id(1), 1), moment(1)).await.unwrap();
    assert_eq!(moved.len(), 2, "only tasks of this owner: {moved:?}");
    let order = store.page(&ann, &limited(10).sort(Sort::Position)).await.unwrap().tasks;
    assert_eq!(ids(&order), [2, 1, 3].map(id));
    assert_eq!((order[0].version, order[0].updated_at, order[2].version), (2, moment(1), 1));
    let again = store.reposition(&ann, &[to(2, "a1")], (id(2), 2), moment(2)).await.unwrap();
    assert_eq!(again, [order[0].clone()], "a change of nothing");
    assert_eq!(store.page(&bob, &limited(10)).await.unwrap(), bobs);
}
