//! Changes of tasks.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    fixture::{filled, id, moment, sample, toggle, user},
    plain::PlainCalls as _,
};
use crate::{
    Description, Patch, Task, Title,
    store::{Completion, TaskChange, TaskStore},
};

/// Of 64 concurrent toggles, none overwrites another.
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
        assert_eq!(task.completed, task.version % 2 == 0, "each toggle returns its own result");
        seen.insert(task.version);
    }
    assert_eq!(seen, (2..=65).collect());
    let task = store.get(&ann, id(1)).await.unwrap().unwrap();
    assert_eq!((task.completed, task.version), (false, 65));
}

/// A change of one field does not write back an older value of another.
pub async fn concurrent_changes_to_different_fields_are_all_kept(store: Arc<dyn TaskStore>) {
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
            tokio::spawn(async move { store.change(&ann, id(1), &change, moment(1)).await.unwrap().unwrap() })
        });
        for change in running {
            change.await.unwrap();
        }
        let task = store.get(&ann, id(1)).await.unwrap().unwrap();
        assert_eq!((task.title, task.description), (title, Some(description)));
        assert_eq!((task.completed, task.version), (round % 2 == 1, 1 + 3 * i64::from(round)));
    }
}

/// Only the fields of the change are written.
pub async fn absent_fields_do_not_change(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let task = Task { description: Some(Description::new("As it was").unwrap()), completed: true, ..sample(&ann, 1) };
    assert!(store.add(&ann, &task).await.unwrap());
    let change = TaskChange { title: Some(Title::new("New").unwrap()), ..TaskChange::default() };
    let changed = store.change(&ann, task.id, &change, moment(5)).await.unwrap().unwrap();
    let expected = Task { title: Title::new("New").unwrap(), updated_at: moment(5), version: 2, ..task };
    assert_eq!(changed, expected);
    assert_eq!(store.get(&ann, expected.id).await.unwrap(), Some(expected));
}

/// An absent, an empty and a non-empty description are different.
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
        let task = store.change(&ann, id(1), &change, moment(1)).await.unwrap().unwrap();
        assert_eq!(task.description.as_ref().map(Description::as_str), expected, "{change:?}");
        assert_eq!(store.get(&ann, id(1)).await.unwrap(), Some(task));
    }
}

/// A change of several fields is one change, and does not affect the owner's other tasks.
pub async fn a_change_of_several_fields_increments_the_version_once(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let tasks = filled(&*store, &ann, 1..=2).await;
    let change = TaskChange {
        title: Some(Title::new("All new").unwrap()),
        description: Patch::Set(Description::new("All new").unwrap()),
        completed: Some(Completion::Set(true)),
        ..TaskChange::default()
    };
    let task = store.change(&ann, id(1), &change, moment(1)).await.unwrap().unwrap();
    assert_eq!((task.version, task.updated_at, task.created_at), (2, moment(1), moment(0)));
    assert_eq!(store.get(&ann, id(2)).await.unwrap().as_ref(), Some(&tasks[1]));
}

/// Writing the same values again changes neither `version` nor `updated_at`.
pub async fn a_change_without_effect_keeps_version_and_updated_at(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    let described = Task { description: Some(Description::new("").unwrap()), completed: true, ..sample(&ann, 1) };
    let plain = sample(&ann, 2);
    for task in [described, plain] {
        assert!(store.add(&ann, &task).await.unwrap());
        let same = TaskChange {
            title: Some(task.title.clone()),
            description: task.description.clone().map_or(Patch::Clear, Patch::Set),
            completed: Some(Completion::Set(task.completed)),
            ..TaskChange::default()
        };
        for change in [TaskChange::default(), TaskChange::completion(Completion::Set(task.completed)), same] {
            let result = store.change(&ann, task.id, &change, moment(9)).await.unwrap();
            assert_eq!(result.as_ref(), Some(&task), "{change:?}");
            assert_eq!(store.get(&ann, task.id).await.unwrap().as_ref(), Some(&task), "{change:?}");
        }
    }
}

/// If the clock goes backwards, the change is applied and `updated_at` stays.
pub async fn updated_at_never_goes_backwards(store: Arc<dyn TaskStore>) {
    let ann = user("ann");
    filled(&*store, &ann, [1]).await;
    let toggle = TaskChange::completion(Completion::Toggle);
    for (now, expected) in [(10, 10), (5, 10), (-1_000_000, 10), (11, 11)] {
        let task = store.change(&ann, id(1), &toggle, moment(now)).await.unwrap().unwrap();
        assert_eq!(task.updated_at, moment(expected));
    }
    assert_eq!(store.get(&ann, id(1)).await.unwrap().unwrap().version, 5);
}
