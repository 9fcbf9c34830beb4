//! The fields that people plan with, filters, sorts, and requests about many tasks.

use serde_json::{Value, json};

use super::{
    App,
    client::{Client, UNKNOWN_ID, client, path},
};

fn ids(tasks: &Value) -> Vec<String> {
    tasks.as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
}

fn titles(tasks: &Value) -> Vec<&str> {
    tasks.as_array().unwrap().iter().map(|task| task["title"].as_str().unwrap()).collect()
}

async fn create(client: &Client<'_>, task: Value) -> Value {
    client.send("POST", "/tasks", &task).await.ok(201)
}

/// Each field is returned as it was sent, in its canonical form.
pub async fn fields_to_plan_with_are_kept(app: &dyn App) {
    let ann = client(app, "ann");
    let task = create(
        &ann,
        json!({
            "title": "Plan", "due": "2026-12-01T17:00[europe/berlin]", "priority": "urgent", "list": " Home ",
            "tags": ["b", " a "], "position": "Zz", "metadata": {"b": 1, "a": {"c": [null, 1.5]}}, "completed": true,
        }),
    )
    .await;
    for (name, expected) in [
        ("due", json!("2026-12-01T17:00:00+01:00[Europe/Berlin]")),
        ("priority", json!("urgent")),
        ("list", json!("Home")),
        ("tags", json!(["b", "a"])),
        ("position", json!("Zz")),
        ("metadata", json!({"a": {"c": [null, 1.5]}, "b": 1})),
        ("completed_at", task["created_at"].clone()),
    ] {
        assert_eq!(task[name], expected, "{name}");
    }
    assert_eq!(ann.get(&path(&task)).await.ok(200), task);
    let nulls = json!({
        "title": "None", "description": null, "due": null, "priority": null, "list": null, "tags": null, "position": null,
        "metadata": null,
    });
    let empty = create(&ann, nulls).await;
    let expected = [Value::Null, Value::Null, Value::Null, json!([]), json!({})];
    assert_eq!(["due", "priority", "list", "tags", "metadata"].map(|name| empty[name].clone()), expected);
}

/// A client that knows only the first fields removes none of the others.
pub async fn a_replacement_by_an_old_client_keeps_the_new_fields(app: &dyn App) {
    let ann = client(app, "ann");
    let task = create(&ann, json!({
        "title": "Plan", "due": "2026-12-01", "priority": "low", "list": "Home", "tags": ["a"], "metadata": {"x": 1},
    })).await;
    let old = json!({"title": "New", "description": "More", "completed": true});
    let replaced = ann.send("PUT", &path(&task), &old).await.ok(200);
    for name in ["due", "priority", "list", "tags", "position", "metadata"] {
        assert_eq!(replaced[name], task[name], "{name}");
    }
    let clear = json!({"title": "New", "due": null, "priority": null, "list": null, "tags": [], "metadata": {}});
    let cleared = ann.send("PUT", &path(&task), &clear).await.ok(200);
    assert_eq!([&cleared["due"], &cleared["priority"], &cleared["list"]], [&Value::Null; 3]);
    assert_eq!((&cleared["tags"], &cleared["metadata"]), (&json!([]), &json!({})));
}

/// PATCH merges metadata (RFC 7396) and sets the other fields; null clears.
pub async fn a_patch_merges_metadata(app: &dyn App) {
    let ann = client(app, "ann");
    let task = create(&ann, json!({"title": "Plan", "metadata": {"a": 1, "b": {"c": 1, "d": 2}}})).await;
    let patch = json!({"metadata": {"a": null, "b": {"c": 3}, "e": []}, "due": "2026-12-01"});
    let patched = ann.send("PATCH", &path(&task), &patch).await.ok(200);
    assert_eq!(patched["metadata"], json!({"b": {"c": 3, "d": 2}, "e": []}));
    assert_eq!((&patched["due"], &patched["version"]), (&json!("2026-12-01"), &json!(2)));
    let long = json!({"metadata": {"x": "y".repeat(4090)}});
    ann.send("PATCH", &path(&task), &long)
        .await
        .validation_failed(&[("metadata", &["must have at most 4096 bytes as JSON"])]);
    let cleared = ann.send("PATCH", &path(&task), &json!({"metadata": null, "tags": null})).await.ok(200);
    assert_eq!((&cleared["metadata"], &cleared["version"]), (&json!({}), &json!(3)));
    ann.send("PATCH", &format!("/tasks/{UNKNOWN_ID}"), &json!({"metadata": {"a": 1}})).await.task_not_found();
}

/// Every invalid value is named, and nothing is done.
pub async fn invalid_values_to_plan_with_are_reported_by_field(app: &dyn App) {
    let ann = client(app, "ann");
    let due = "must be a date (2026-12-01), a local time (2026-12-01T17:00), a time in a time zone \
               (2026-12-01T17:00[Europe/Berlin]) or a moment (2026-12-01T16:00Z), in the years 1 to 9999";
    let key = "must be a key of fractional-indexing, at most 100 characters";
    let deep = json!({"a": [[[[[[[[]]]]]]]]});
    let tags: Vec<_> = (0..21).map(|number| number.to_string()).collect();
    for (name, value, message) in [
        ("due", json!(1), "must be a string or null"),
        ("due", json!("tomorrow"), due),
        ("due", json!("10000-01-01"), due),
        ("due", json!("0000-01-01"), due),
        (
            "due",
            json!("2026-12-01T17:00[Europe/../Berlin]"),
            "must name a time zone of the IANA database, such as Europe/Berlin",
        ),
        (
            "due",
            json!("2026-12-01T17:00+05:00[Europe/Berlin]"),
            "must have an offset that the time zone has at that time, or none",
        ),
        ("priority", json!("High"), "must be low, medium, high or urgent"),
        ("priority", json!(1), "must be a string or null"),
        ("list", json!(" "), "must not be blank"),
        ("list", json!("x".repeat(101)), "must have at most 100 characters"),
        ("list", json!("a\u{0}"), "must not contain the NUL character"),
        ("tags", json!("a"), "must be an array of strings or null"),
        ("tags", json!(["a", "a"]), "must have no two elements that are the same"),
        ("tags", json!(tags), "must have at most 20 elements"),
        ("tags.1", json!(["a", ""]), "must not be blank"),
        ("tags.0", json!([1]), "must be a string"),
        ("position", json!("rubbish!"), key),
        ("position", json!("a00"), key),
        ("position", json!(5), "must be a string"),
        ("metadata", json!([]), "must be an object or null"),
        ("metadata", deep, "must be nested at most 8 levels deep"),
        ("metadata", json!({"x": "y".repeat(4090)}), "must have at most 4096 bytes as JSON"),
    ] {
        let field = name.split('.').next().unwrap();
        let reply = ann.send("POST", "/tasks", &json!({"title": "Plan", field: value})).await;
        reply.validation_failed(&[(name, &[message])]);
    }
    let repeated = r#"{"title":"x","metadata":{"a":1,"a":2}}"#;
    let reply = ann.send_text("POST", "/tasks", repeated).await;
    reply.validation_failed(&[("metadata", &["must have no two members of the same name"])]);
    let huge = r#"{"title":"x","metadata":{"a":1e100000}}"#;
    let reply = ann.send_text("POST", "/tasks", huge).await;
    reply.validation_failed(&[("metadata", &["must not contain a number that is out of range"])]);
    assert_eq!(ann.get("/tasks").await.ok(200), json!([]));
}

/// An array creates all of its tasks or none, and each bad element is named.
pub async fn several_tasks_are_created_together(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    for shape in ["", "/ann"] {
        let reply = ann.send("POST", &format!("{shape}/tasks"), &json!([{"title": "One"}, {"title": "Two"}])).await;
        let tasks = reply.ok(201);
        assert_eq!(titles(&tasks), ["One", "Two"]);
        assert!(!reply.headers.contains_key("location"));
        assert!(tasks[0]["position"].as_str() < tasks[1]["position"].as_str());
        assert_eq!(
            ids(&ann.get("/tasks?sort=created").await.ok(200)).split_off(if shape.is_empty() { 0 } else { 2 }),
            ids(&tasks)
        );
    }
    let bad = json!([{"title": "Good"}, {"title": " "}, 5, {"title": "x", "tags": ["a", "a"], "more": 1}]);
    ann.send("POST", "/tasks", &bad).await.validation_failed(&[
        ("1.title", &["must not be blank"]),
        ("2", &["must be an object"]),
        ("3.more", &["is unknown"]),
        ("3.tags", &["must have no two elements that are the same"]),
    ]);
    let many = |count: usize| Value::from(vec![json!({"title": "x"}); count]);
    for count in [0, 101] {
        ann.send("POST", "/tasks", &many(count))
            .await
            .validation_failed(&[("body", &["must be an array of 1 to 100 tasks"])]);
    }
    assert_eq!(ann.get("/tasks/count").await.ok(200), json!({"count": 4}));
    bob.send("POST", "/tasks", &many(100)).await.ok(201);
    assert_eq!(bob.get("/tasks/count").await.ok(200), json!({"count": 100}));
}

/// Filters and sorts work in lists, and `Link` repeats them.
pub async fn lists_are_filtered_and_sorted(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    for client in [&ann, &bob] {
        create(client, json!({"title": "a", "due": "2026-12-01", "priority": "low", "list": "Home", "tags": ["x"]}))
            .await;
        create(client, json!({"title": "B", "due": "2026-11-30T23:30Z", "priority": "high", "tags": ["x", "y"]})).await;
        create(client, json!({"title": "\u{c4}", "list": "W&k=", "completed": true, "description": "needle"})).await;
    }
    for (query, expected) in [
        ("", &["\u{c4}", "B", "a"][..]),
        ("?sort=created", &["a", "B", "\u{c4}"]),
        ("?sort=due", &["B", "a", "\u{c4}"]),
        ("?sort=-due", &["a", "B", "\u{c4}"]),
        ("?sort=priority", &["B", "a", "\u{c4}"]),
        ("?sort=title", &["a", "B", "\u{c4}"]),
        ("?sort=position", &["a", "B", "\u{c4}"]),
        ("?list=Home", &["a"]),
        ("?list=", &["B"]),
        ("?list=&list=W%26k%3D", &["\u{c4}", "B"]),
        ("?tag=x&tag=y", &["B"]),
        ("?priority=low&priority=high&sort=created", &["a", "B"]),
        ("?due=none", &["\u{c4}"]),
        ("?due_from=2026-12-01", &["a"]),
        ("?due_from=2026-12-01&time_zone=Europe/Berlin", &["B", "a"]),
        ("?due_before=2026-12-01", &["B"]),
        ("?completed=false&q=b", &["B"]),
        ("?q=%C3%A4", &["\u{c4}"]),
        ("?q=NEEDLE", &["\u{c4}"]),
        ("?updated_since=2000-01-01T00:00:00Z&completed=true", &["\u{c4}"]),
        ("?updated_since=2999-01-01T00:00:00Z", &[]),
    ] {
        assert_eq!(titles(&ann.get(&format!("/tasks{query}")).await.ok(200)), expected, "{query}");
        if !query.contains("sort") {
            let count = ann.get(&format!("/tasks/count{query}")).await.ok(200);
            assert_eq!(count, json!({"count": expected.len()}), "{query}");
        }
    }
    // The link of each page leads to the next one of the same list.
    let mut query = "?list=&list=W%26k%3D&sort=-due&limit=1".to_owned();
    for expected in ["B", "\u{c4}"] {
        let reply = ann.get(&format!("/tasks{query}")).await;
        assert_eq!(titles(&reply.ok(200)), [expected]);
        if expected == "B" {
            let link = reply.header("link");
            link.strip_prefix('<').and_then(|link| link.split_once('>')).unwrap().0.clone_into(&mut query);
        } else {
            assert!(!reply.headers.contains_key("link"));
        }
    }
    let cursor = query.split(['=', '&']).nth(1).unwrap();
    for other in ["sort=due&list=&list=W%26k%3D", "sort=-due", ""] {
        let reply = ann.get(&format!("/tasks?cursor={cursor}&{other}")).await;
        reply.validation_failed(&[("cursor", &["must be used with the sort and the filters of the page it is from"])]);
    }
}

/// Filters that contradict each other, or name what does not exist, are rejected.
pub async fn invalid_filters_are_reported(app: &dyn App) {
    let ann = client(app, "ann");
    let many = (0..21).fold(String::new(), |query, number| format!("{query}&tag={number}"));
    for (query, field, message) in [
        ("?due=none&due_from=2026-12-01", "due", "must not be given together with due_from or due_before"),
        ("?due=2026-12-01", "due", "must be none; for a range of time there are due_from and due_before"),
        ("?due_from=2026-12-02&due_before=2026-12-01", "due_before", "must be later than due_from"),
        ("?time_zone=..%2Fetc", "time_zone", "must name a time zone of the IANA database, such as Europe/Berlin"),
        ("?time_zone=a%00", "time_zone", "must name a time zone of the IANA database, such as Europe/Berlin"),
        ("?priority=none", "priority", "must be low, medium, high or urgent"),
        ("?q=", "q", "must not be blank"),
        ("?q=a%00", "q", "must not contain the NUL character"),
        ("?updated_since=now", "updated_since", "must be an RFC 3339 time, such as 2026-12-01T16:00:00Z"),
        ("?all=true", "all", "is unknown"),
        ("?list=Caf%E9", "list", "must be percent-encoded UTF-8"),
        ("?tag=%zz", "tag", "must be percent-encoded UTF-8"),
        ("?q=50%", "q", "must be percent-encoded UTF-8"),
        (&*format!("?x=1{many}").replace("x=1&", ""), "tag", "must be given at most 20 times"),
    ] {
        ann.get(&format!("/tasks{query}")).await.validation_failed(&[(field, &[message])]);
    }
    // A guess at what was meant would delete other tasks.
    let named = create(&ann, json!({"title": "Named", "list": "%zz"})).await;
    ann.bare("DELETE", "/tasks?list=%zz").await.validation_failed(&[("list", &["must be percent-encoded UTF-8"])]);
    ann.get(&path(&named)).await.ok(200);
    let sort = "must be one of -created, created, due, -due, priority, title, updated, -updated, position";
    ann.get("/tasks?sort=id").await.validation_failed(&[("sort", &[sort])]);
    ann.get("/tasks/count?limit=1&sort=due")
        .await
        .validation_failed(&[("limit", &["is unknown"]), ("sort", &["is unknown"])]);
    ann.get("/tasks/summary?completed=true").await.validation_failed(&[("completed", &["is unknown"])]);
}

/// The summary counts the caller's tasks.
pub async fn the_summary_counts_the_callers_tasks(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    create(&bob, json!({"title": "Bob's", "list": "Home", "tags": ["x"]})).await;
    create(&ann, json!({"title": "One", "list": "Home", "tags": ["x"], "completed": true})).await;
    create(&ann, json!({"title": "Two", "list": "Home"})).await;
    create(&ann, json!({"title": "Three"})).await;
    for path in ["/tasks/summary", "/ann/tasks/summary"] {
        assert_eq!(
            ann.get(path).await.ok(200),
            json!({
                "total": 3, "open": 2,
                "lists": [{"name": "Home", "open": 1, "total": 2}],
                "tags": [{"name": "x", "open": 0, "total": 1}],
            })
        );
    }
}

/// PATCH and DELETE of the list are about what the filters mean, and nothing without a filter.
pub async fn many_tasks_are_changed_or_deleted(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    for client in [&ann, &bob] {
        for (title, list) in [("One", "a"), ("Two", "a"), ("Three", "b")] {
            create(client, json!({"title": title, "list": list})).await;
        }
    }
    let of_bob = bob.get("/tasks").await.ok(200);
    let rename = json!({"list": "A", "priority": "high"});
    let result = ann.send("PATCH", "/tasks?list=a", &rename).await.ok(200);
    assert_eq!(result, json!({"matched": 2, "changed": 2}));
    let result = ann.send("PATCH", "/ann/tasks?list=A", &rename).await.ok(200);
    assert_eq!(result, json!({"matched": 2, "changed": 0}));
    let result = ann.send("PATCH", "/tasks?all=true", &json!({"completed": true})).await.ok(200);
    assert_eq!(result, json!({"matched": 3, "changed": 3}));
    let missing = "must be true, or there must be a filter; otherwise no tasks are meant";
    ann.send("PATCH", "/tasks", &json!({"completed": true})).await.validation_failed(&[("all", &[missing])]);
    let metadata = json!({"metadata": {"a": 1}});
    let reply = ann.send("PATCH", "/tasks?all=true", &metadata).await;
    reply.validation_failed(&[("metadata", &["cannot be changed for several tasks at once"])]);
    bob.send("PATCH", "/ann/tasks?all=true", &rename).await.forbidden();
    assert_eq!(ann.bare("DELETE", "/tasks?list=b").await.ok(200), json!({"matched": 1, "changed": 1}));
    assert_eq!(ann.bare("DELETE", "/tasks?list=").await.ok(200), json!({"matched": 0, "changed": 0}));
    assert_eq!(ann.get("/tasks/count").await.ok(200), json!({"count": 2}));
    assert_eq!(bob.get("/tasks").await.ok(200), of_bob);
}

/// A task is moved among the caller's own tasks.
pub async fn tasks_are_moved_in_the_manual_order(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    let mut tasks = Vec::new();
    for title in ["a", "b", "c", "d"] {
        tasks.push(create(&ann, json!({"title": title})).await);
    }
    let of_bob = create(&bob, json!({"title": "Bob's"})).await;
    let order = async || titles(&ann.get("/tasks?sort=position").await.ok(200)).join("");
    for (moved, place, expected) in [
        (3, json!({"first": true}), "dabc"),
        (3, json!({"last": true}), "abcd"),
        (0, json!({"after": tasks[1]["id"]}), "bacd"),
        (2, json!({"before": tasks[1]["id"]}), "cbad"),
        (2, json!({"before": tasks[1]["id"]}), "cbad"),
    ] {
        let reply = ann.send("POST", &format!("{}/move", path(&tasks[moved])), &place).await.ok(200);
        assert_eq!(reply["id"], tasks[moved]["id"]);
        assert_eq!(order().await, expected, "{place}");
    }
    // Where neighbours have the same position, the fewest are spaced anew.
    for task in &tasks[..3] {
        ann.send("PATCH", &path(task), &json!({"position": "a0"})).await.ok(200);
    }
    ann.send("POST", &format!("{}/move", path(&tasks[3])), &json!({"after": tasks[0]["id"]})).await.ok(200);
    assert_eq!(order().await, "adbc");
    let target = format!("/ann{}/move", path(&tasks[0]));
    ann.send("POST", &target, &json!({"last": true})).await.ok(200);
    let one = "must be given, or one of after, first and last, but only one of them";
    for (place, field, message) in [
        (json!({}), "before", one),
        (json!({"first": true, "last": true}), "before", one),
        (json!({"first": false}), "first", "must be true"),
        (json!({"before": 5}), "before", "must be a string"),
        (json!({"after": "x"}), "after", "must be a UUID"),
        (json!({"before": tasks[0]["id"]}), "before", "must be the id of another task of the user"),
        (json!({"after": of_bob["id"]}), "after", "must be the id of another task of the user"),
    ] {
        ann.send("POST", &target, &place).await.validation_failed(&[(field, &[message])]);
    }
    ann.send("POST", &format!("/tasks/{UNKNOWN_ID}/move"), &json!({"first": true})).await.task_not_found();
    bob.send("POST", &format!("{}/move", path(&tasks[0])), &json!({"first": true})).await.task_not_found();
    assert_eq!(bob.get(&path(&of_bob)).await.ok(200), of_bob);
}

/// A task is moved between any number of tasks with the same position.
pub async fn a_task_is_moved_among_many_with_the_same_position(app: &dyn App) {
    let ann = client(app, "ann");
    let mut order = Vec::new();
    for _ in 0..5 {
        let tasks = Value::from(vec![json!({"title": "x", "position": "a0"}); 100]);
        order.extend(ids(&ann.send("POST", "/tasks", &tasks).await.ok(201)));
    }
    order.sort_unstable();
    let moved = order.remove(3);
    let place = json!({"after": order[250]});
    order.insert(251, moved.clone());
    ann.send("POST", &format!("/tasks/{moved}/move"), &place).await.ok(200);
    let (mut listed, mut query) = (Vec::new(), "?sort=position&limit=200".to_owned());
    while listed.len() < order.len() {
        let reply = ann.get(&format!("/tasks{query}")).await;
        listed.extend(ids(&reply.ok(200)));
        if listed.len() < order.len() {
            let link = reply.header("link");
            link.strip_prefix('<').and_then(|link| link.split_once('>')).unwrap().0.clone_into(&mut query);
        }
    }
    assert_eq!(listed, order);
}
