//! The manual order: the keys are those of the npm package `fractional-indexing`, and stay short however often tasks
//! are moved.

use serde::Deserialize;
use todo_core::{Limit, NewTask, Place, Position, Sort, TaskQuery, Title, TodoService, UserId, store::MemoryStore};

#[derive(Deserialize)]
struct Keys {
    one: Vec<(Option<String>, Option<String>, String)>,
    several: Vec<(Option<String>, Option<String>, Vec<String>)>,
}

#[test]
fn keys_are_those_of_the_npm_package() {
    let keys: Keys = serde_json::from_str(include_str!("vectors/fractional-indexing/keys.json")).unwrap();
    let key = |text: Option<String>| text.map(|text| Position::new(text).unwrap());
    assert!(keys.one.len() >= 700 && keys.several.len() >= 70);
    for (low, high, expected) in keys.one {
        let between = Position::between(key(low.clone()).as_ref(), key(high.clone()).as_ref()).unwrap();
        assert_eq!(between.as_str(), expected, "{low:?}, {high:?}");
    }
    for (low, high, expected) in keys.several {
        let between = Position::many_between(key(low.clone()).as_ref(), key(high.clone()).as_ref(), expected.len());
        let between: Vec<_> = between.unwrap().iter().map(|position| position.as_str().to_owned()).collect();
        assert_eq!(between, expected, "{low:?}, {high:?}");
    }
}

/// The worst that a user can do: always move the last task between the first two.
#[tokio::test]
async fn ten_thousand_moves_to_one_place_keep_the_keys_short_and_the_order_right() {
    let service = TodoService::new(MemoryStore::new());
    let ann = service.for_user(UserId::new("ann").unwrap());
    let mut order = Vec::new();
    for number in 0..30 {
        let title = Title::new(format!("Task {number}")).unwrap();
        order.push(ann.create(NewTask::new(title)).await.unwrap().id);
    }
    let query = TaskQuery::new().sort(Sort::Position).limit(Limit::new(200).unwrap());
    let (mut longest, mut changed) = (0, 0);
    let mut before = ann.list(&query).await.unwrap().tasks;
    for number in 0..10_000 {
        let last = order.pop().unwrap();
        let place = if number % 2 == 0 { Place::After(order[0]) } else { Place::Before(order[1]) };
        ann.move_to(last, place).await.unwrap();
        order.insert(1, last);
        let tasks = ann.list(&query).await.unwrap().tasks;
        assert_eq!(tasks.iter().map(|task| task.id).collect::<Vec<_>>(), order, "move {number}");
        longest = tasks.iter().map(|task| task.position.as_str().len()).chain([longest]).max().unwrap();
        let is_as_before =
            |task: &&todo_core::Task| before.iter().any(|old| old.version == task.version && old.id == task.id);
        changed += tasks.iter().filter(|task| !is_as_before(task)).count();
        before = tasks;
    }
    assert!(longest < 100, "{longest}");
    // A move is one change; now and then a few neighbours are spaced anew.
    assert!(changed < 12_000, "{changed}");
}
