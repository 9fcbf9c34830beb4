//! Conditional requests, responses that the client keeps, and requests that are sent more than once.

use serde_json::{Value, json};

use super::{
    App,
    client::{Client, Reply, UNKNOWN_ID, client, path},
};

impl Reply {
    /// Checks that a condition is not true, and that the task is shown as it is.
    #[track_caller]
    fn precondition_failed(&self, current: &Value) {
        self.shows_current(412, "precondition_failed", current);
    }

    #[track_caller]
    fn shows_current(&self, status: u16, code: &str, current: &Value) {
        assert_eq!(self.status, status, "{:?}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!((&body["code"], &body["status"], &body["current"]), (&json!(code), &json!(status), current));
        assert_eq!(self.header("etag"), format!("\"{}\"", current["version"]));
        assert_eq!(self.header("cache-control"), "private, no-cache");
    }

    /// Checks that the client has the response already.
    #[track_caller]
    fn not_modified(&self, tag: &str) {
        assert_eq!((self.status.as_u16(), self.body.len()), (304, 0), "{:?}", self.body);
        assert_eq!((self.header("etag"), self.header("cache-control")), (tag, "private, no-cache"));
        assert_eq!(self.header("vary"), "authorization, cookie");
        for name in ["content-type", "link"] {
            assert!(!self.headers.contains_key(name), "{name}");
        }
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

async fn put(client: &Client<'_>, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
    let headers = [&[JSON], headers].concat();
    client.request("PUT", &format!("/api/v1{path}"), &headers, body.to_string().as_bytes()).await
}

async fn post(client: &Client<'_>, key: &str, body: &str) -> Reply {
    client.request("POST", "/api/v1/tasks", &[JSON, ("idempotency-key", key)], body.as_bytes()).await
}

/// Each change of one task checks its condition in the same step.
pub async fn a_change_is_made_if_its_condition_is_true(app: &dyn App) {
    let ann = client(app, "ann");
    let far = ("if-unmodified-since", "Fri, 31 Dec 9999 23:59:59 GMT");
    let early = ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:01 GMT");
    let kinds = [
        ("PUT", "", r#"{"title":"New"}"#),
        ("PATCH", "", r#"{"title":"New"}"#),
        ("PATCH", "", r#"{"metadata":{"a":1}}"#),
        ("PATCH", "/complete", ""),
        ("PATCH", "/complete", r#"{"completed":true}"#),
        ("POST", "/move", r#"{"last":true}"#),
        ("DELETE", "", ""),
    ];
    for (method, end, body) in kinds {
        // Another task, which the task can be moved behind.
        let task = ann.create("Guarded").await;
        ann.create("Other").await;
        let target = format!("/api/v1{}{end}", path(&task));
        let send = async |headers: &[(&str, &str)]| {
            ann.request(method, &target, &[&[JSON], headers].concat(), body.as_bytes()).await
        };
        for unmet in [
            ("if-match", "\"2\""),
            ("if-match", "W/\"1\""),
            ("if-match", "\"x\", \"2\""),
            ("if-match", "\"01\""),
            ("if-none-match", "\"1\""),
            ("if-none-match", "W/\"1\", \"7\""),
            early,
        ] {
            send(&[unmet]).await.precondition_failed(&task);
        }
        send(&[("if-match", "\"1\""), ("if-none-match", "\"1\"")]).await.precondition_failed(&task);
        if method != "PUT" {
            send(&[("if-none-match", "*")]).await.precondition_failed(&task);
        }
        assert_eq!(ann.get(&path(&task)).await.ok(200), task, "nothing was changed");
        // The date does not count beside `If-Match`.
        let met = [("if-match", "\"7\", \"1\""), ("if-none-match", "\"2\""), early];
        let reply = send(&met).await;
        assert!(reply.status.is_success(), "{method} {end}: {:?}", reply.body);
        if method == "DELETE" {
            assert!(!reply.headers.contains_key("etag"));
            for header in [("if-match", "\"1\""), ("if-match", "*"), ("if-none-match", "\"1\""), early] {
                send(&[header]).await.task_not_found();
            }
            continue;
        }
        let changed = reply.ok(200);
        assert_eq!((reply.header("etag"), &changed["version"]), ("\"2\"", &json!(2)), "{method} {end}");
        send(&[met[0]]).await.precondition_failed(&changed);
        send(&[("if-match", "*"), early]).await.ok(200);
        send(&[far]).await.ok(200);
    }
    let many = ann.request("PATCH", "/api/v1/tasks?all=true", &[JSON, ("if-match", "*")], b"{}").await;
    many.validation_failed(&[("If-Match", &["is not supported"])]);
}

/// Of several clients that change the same version, exactly one succeeds.
pub async fn of_several_changes_of_one_version_one_is_made(app: &dyn App) {
    let ann = client(app, "ann");
    let task = path(&ann.create("Contended").await);
    for version in 1..=3 {
        let tag = format!("\"{version}\"");
        let attempts =
            (0..8).map(|number| {
                let (ann, task, tag) = (&ann, &task, &tag);
                async move {
                    put(ann, task, &[("if-match", tag)], &json!({"title": format!("{version} by {number}")})).await
                }
            });
        let replies = futures_util::future::join_all(attempts).await;
        let made: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
        assert_eq!(made.len(), 1, "{version}");
        let current = made[0].json();
        for reply in replies.iter().filter(|reply| reply.status != 200) {
            reply.precondition_failed(&current);
        }
    }
}

/// A condition that cannot be read is not ignored.
pub async fn conditions_that_cannot_be_read_are_invalid(app: &dyn App) {
    let ann = client(app, "ann");
    let task = ann.create("Guarded").await;
    let target = format!("/api/v1{}", path(&task));
    let tags = "must be * or entity tags such as \"3\", separated by commas";
    let date = "must be a date such as Tue, 01 Dec 2026 16:00:00 GMT";
    for (name, field, value, message) in [
        ("if-match", "If-Match", "1", tags),
        ("if-match", "If-Match", "", tags),
        ("if-match", "If-Match", "*, \"1\"", tags),
        ("if-none-match", "If-None-Match", "'1'", tags),
        ("if-unmodified-since", "If-Unmodified-Since", "2026-12-01T16:00:00Z", date),
    ] {
        let reply = ann.request("DELETE", &target, &[(name, value)], b"").await;
        reply.validation_failed(&[(field, &[message])]);
    }
    let two = [("if-match", "\"2\""), ("if-match", "\"1\"")];
    let reply = ann.request("PATCH", &target, &[&[JSON], &two[..]].concat(), b"{}").await;
    assert_eq!(reply.ok(200), task, "two lines are one list");
    let reply = ann.request("DELETE", &target, &[("if-match", "*"), ("idempotency-key", "1")], b"").await;
    reply.validation_failed(&[("Idempotency-Key", &["is not supported"])]);
}

/// The tag of a task is its version.
pub async fn a_task_is_read_again_only_if_it_has_changed(app: &dyn App) {
    let ann = client(app, "ann");
    let task = path(&ann.create("Read twice").await);
    let target = format!("/api/v1{task}");
    let read = async |headers: &[(&str, &str)]| ann.request("GET", &target, headers, b"").await;
    let reply = read(&[]).await;
    assert_eq!(reply.header("etag"), "\"1\"");
    for known in ["\"1\"", "W/\"1\"", "\"x\", \"1\"", "*"] {
        read(&[("if-none-match", known)]).await.not_modified("\"1\"");
        let head = ann.request("HEAD", &target, &[("if-none-match", known)], b"").await;
        head.not_modified("\"1\"");
    }
    for other in ["\"2\"", "1", "\"\"", "nonsense"] {
        assert_eq!(read(&[("if-none-match", other)]).await.ok(200), reply.json());
    }
    read(&[("if-match", "\"2\"")]).await.precondition_failed(&reply.json());
    read(&[("if-match", "\"1\"")]).await.ok(200);
    ann.send("PATCH", &task, &json!({"completed": true})).await.ok(200);
    assert_eq!(read(&[("if-none-match", "\"1\"")]).await.ok(200)["version"], 2);
    ann.bare("DELETE", &task).await;
    read(&[("if-none-match", "\"2\"")]).await.task_not_found();
}

/// The tag of a list, of a count and of the summary changes with every change of a task, and with the query.
pub async fn lists_are_read_again_only_if_something_has_changed(app: &dyn App) {
    let ann = client(app, "ann");
    for shape in ["", "/ann"] {
        let task = path(&ann.create("First").await);
        ann.create("Second").await;
        for end in ["", "?limit=1", "?completed=false&sort=title", "/count", "/count?completed=true", "/summary"] {
            let target = format!("/api/v1{shape}/tasks{end}");
            let read = async |tag: &str| ann.request("GET", &target, &[("if-none-match", tag)], b"").await;
            let first = read("\"x\"").await;
            first.ok(200);
            let tag = first.header("etag");
            assert!(tag.starts_with("W/\""), "{tag}");
            // Once from the store, and then perhaps from what was kept.
            for _ in 0..2 {
                read(tag).await.not_modified(tag);
                read(&format!("\"x\", {tag}")).await.not_modified(tag);
                read("*").await.not_modified(tag);
                let again = read("\"x\"").await;
                for name in ["etag", "link", "cache-control", "vary"] {
                    assert_eq!(again.headers.get(name), first.headers.get(name), "{target}");
                }
                assert_eq!(again.body, first.body, "{target}");
            }
            let other = ann.request("GET", "/api/v1/tasks?limit=7", &[("if-none-match", tag)], b"").await;
            assert_ne!(other.ok(200), Value::Null);
            ann.send("PATCH", &task, &json!({"description": end})).await.ok(200);
            let changed = read(tag).await;
            changed.ok(200);
            assert_ne!(changed.header("etag"), tag, "{target}");
        }
        ann.bare("DELETE", "/tasks?all=true").await.ok(200);
        assert_eq!(ann.get(&format!("{shape}/tasks")).await.ok(200), json!([]));
        assert_eq!(ann.get(&format!("{shape}/tasks/count")).await.ok(200), json!({"count": 0}));
    }
}

/// What was rendered for one user, or is kept by a browser, is not shown to the next.
pub async fn what_is_kept_belongs_to_one_user(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    ann.create("Of Ann").await;
    bob.create("Of Bob").await;
    for end in ["/tasks", "/tasks/count", "/tasks/summary"] {
        let mut tags = Vec::new();
        for _ in 0..3 {
            for user in [&ann, &bob] {
                let reply = user.get(end).await;
                let body = String::from_utf8_lossy(&reply.body).into_owned();
                let own = if std::ptr::eq(user, &raw const ann) { "Of Bob" } else { "Of Ann" };
                assert!(reply.status == 200 && !body.contains(own), "{body}");
                tags.push(reply.header("etag").to_owned());
            }
        }
        assert_ne!(tags[0], tags[1]);
        let of_ann = bob.request("GET", &format!("/api/v1{end}"), &[("if-none-match", &tags[0])], b"").await;
        assert_ne!(of_ann.ok(200), Value::Null);
    }
}

/// A client may change what it has read and send all of it.
pub async fn read_only_fields_may_be_sent_back(app: &dyn App) {
    let ann = client(app, "ann");
    let task = ann.create("Sent back").await;
    let target = path(&task);
    for method in ["PUT", "PATCH"] {
        let mut whole = ann.get(&target).await.ok(200);
        let before = whole.clone();
        whole["description"] = json!(method);
        let after = ann.send(method, &target, &whole).await.ok(200);
        assert_eq!(
            (&after["description"], after["version"].as_i64()),
            (&json!(method), Some(before["version"].as_i64().unwrap() + 1))
        );
        // The same again is stale, and so is each version that the task does not have.
        ann.send(method, &target, &whole).await.shows_current(409, "version_conflict", &after);
        whole["version"] = json!(99);
        ann.send(method, &target, &whole).await.shows_current(409, "version_conflict", &after);
        // A condition of the headers comes first.
        let headers = [JSON, ("if-match", "\"77\"")];
        let reply = ann.request(method, &format!("/api/v1{target}"), &headers, whole.to_string().as_bytes()).await;
        reply.precondition_failed(&after);
        // With a version, the times do not count; without, they must be the same.
        let mut current = after.clone();
        current["updated_at"] = json!("2000-01-01T00:00:00Z");
        ann.send(method, &target, &current).await.ok(200);
        current.as_object_mut().unwrap().remove("version");
        let message = "is set by the server, and is another one";
        ann.send(method, &target, &current).await.validation_failed(&[("updated_at", &[message])]);
        current["updated_at"] = after["updated_at"].clone();
        current["completed_at"] = json!("2000-01-01T00:00:00Z");
        ann.send(method, &target, &current).await.validation_failed(&[("completed_at", &[message])]);
        current["completed_at"] = Value::Null;
        assert_eq!(ann.send(method, &target, &current).await.ok(200), after);

        for (name, value, message) in [
            ("id", json!(UNKNOWN_ID), "must be the ID in the path"),
            ("id", json!(1), "must be the ID in the path"),
            ("user_id", json!("bob"), "is set from the token"),
            ("user_id", Value::Null, "is set from the token"),
            ("version", json!("1"), "must be a whole number from 1 on"),
            ("version", json!(0), "must be a whole number from 1 on"),
            ("version", Value::Null, "must be a whole number from 1 on"),
            ("created_at", json!("yesterday"), "must be an RFC 3339 time, such as 2026-12-01T16:00:00Z"),
            ("updated_at", Value::Null, "must be an RFC 3339 time, such as 2026-12-01T16:00:00Z"),
        ] {
            let body = json!({"title": "x", name: value});
            ann.send(method, &target, &body).await.validation_failed(&[(name, &[message])]);
        }
        let upper = task["id"].as_str().unwrap().to_uppercase();
        ann.send(method, &target, &json!({"title": "Sent back", "id": upper})).await.ok(200);
    }
    let unknown = format!("/tasks/{UNKNOWN_ID}");
    for body in [json!({"title": "x", "version": 1}), json!({"title": "x", "updated_at": "2000-01-01T00:00:00Z"})] {
        ann.send("PUT", &unknown, &body).await.task_not_found();
    }
}

/// `If-None-Match: *` with PUT creates a task.
pub async fn a_task_is_created_under_the_id_of_the_client(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    let (id, new) = ("019aa3f0-5c00-7abc-8def-000000000007", ("if-none-match", "*"));
    let target = format!("/tasks/{id}");
    let body = json!({"title": "Made offline", "completed": true, "tags": ["a"], "id": id, "user_id": "ann"});
    let reply = put(&ann, &target, &[new], &body).await;
    let task = reply.ok(201);
    assert_eq!((&task["id"], &task["completed"], &task["tags"]), (&json!(id), &json!(true), &json!(["a"])));
    assert_eq!((reply.header("etag"), &task["version"]), ("\"1\"", &json!(1)));
    assert_eq!(ann.get(&target).await.ok(200), task);
    put(&ann, &target, &[new], &json!({"title": "Again"})).await.precondition_failed(&task);
    // Another user may have a task with the same id.
    bob.get(&target).await.task_not_found();
    assert_eq!(put(&bob, &target, &[new], &json!({"title": "Of Bob"})).await.ok(201)["user_id"], "bob");
    assert_eq!(ann.get(&target).await.ok(200), task);
    // After a deletion the versions go on, so that no tag means two things.
    ann.bare("DELETE", &target).await;
    let reply = put(&ann, &target, &[new], &json!({"title": "Back again"})).await;
    let version = reply.ok(201)["version"].as_i64().unwrap();
    assert!(version > 1 && reply.header("etag") == format!("\"{version}\""));

    let message = "must be a UUID of version 7 (RFC 9562) for a new task";
    for id in ["019aa3f0-5c00-4abc-8def-000000000007", "019aa3f0-5c00-7abc-0def-000000000007"] {
        let reply = put(&ann, &format!("/tasks/{id}"), &[new], &json!({"title": "x"})).await;
        reply.validation_failed(&[("id", &[message])]);
    }
    let other = format!("/tasks/{UNKNOWN_ID}");
    let reply = put(&ann, &other, &[new], &json!({"title": "x", "version": 1})).await;
    reply.validation_failed(&[("version", &["is set by the server"])]);
    let reply = put(&ann, &other, &[new, ("if-match", "*")], &json!({"title": "x"})).await;
    reply.validation_failed(&[("If-None-Match", &["must not be * together with If-Match"])]);
    put(&ann, &other, &[], &json!({"title": "x"})).await.task_not_found();
}

/// A request with a key can be sent again.
pub async fn a_repeated_request_creates_its_tasks_once(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    let one = r#"{"title":"Once"}"#;
    let first = post(&ann, "key-1", one).await;
    let task = first.ok(201);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    for key in ["key-1", "\"key-1\""] {
        let again = post(&ann, key, one).await;
        assert_eq!(again.ok(201), task);
        assert_eq!(again.header("idempotency-replayed"), "true");
        for name in ["location", "etag"] {
            assert_eq!(again.header(name), first.header(name));
        }
    }
    // As it is now.
    let changed = ann.send("PATCH", &path(&task), &json!({"title": "Changed"})).await.ok(200);
    assert_eq!(post(&ann, "key-1", one).await.ok(201), changed);
    // The keys of another user are others.
    assert_ne!(post(&bob, "key-1", one).await.ok(201)["id"], task["id"]);
    let used = "was used for another body";
    post(&ann, "key-1", r#"{"title":"Twice"}"#).await.validation_failed(&[("Idempotency-Key", &[used])]);
    post(&ann, "key-1", r#"[{"title":"Once"}]"#).await.validation_failed(&[("Idempotency-Key", &[used])]);

    let several = r#"[{"title":"a"},{"title":"b"},{"title":"c"}]"#;
    let created = post(&ann, "key-2", several).await.ok(201);
    let again = post(&ann, "key-2", several).await;
    assert_eq!((again.ok(201), again.header("idempotency-replayed")), (created.clone(), "true"));
    post(&ann, "key-2", one).await.validation_failed(&[("Idempotency-Key", &[used])]);
    assert_eq!(ann.get("/tasks/count").await.ok(200), json!({"count": 4}));

    let attempts = (0..8).map(|_| post(&ann, "key-3", one));
    let replies = futures_util::future::join_all(attempts).await;
    let repeated = replies.iter().filter(|reply| reply.headers.contains_key("idempotency-replayed")).count();
    assert_eq!(repeated, 7);
    for reply in &replies {
        assert_eq!(reply.ok(201), replies[0].json());
    }
    assert_eq!(ann.get("/tasks/count").await.ok(200), json!({"count": 5}));

    ann.bare("DELETE", &path(&task)).await;
    let deleted = "A task that this request has created was deleted.";
    post(&ann, "key-1", one).await.problem(410, "Gone", "task_deleted", deleted);
    ann.bare("DELETE", &path(&created[1])).await;
    post(&ann, "key-2", several).await.problem(410, "Gone", "task_deleted", deleted);
    assert_eq!(ann.get("/tasks/count").await.ok(200), json!({"count": 3}));
}

/// A key has 1 to 255 visible characters of ASCII.
pub async fn keys_of_requests_are_validated(app: &dyn App) {
    let ann = client(app, "ann");
    let one = r#"{"title":"Once"}"#;
    let message = "must have 1 to 255 characters of visible ASCII";
    let (longest, too_long) = ("k".repeat(255), "k".repeat(256));
    for key in ["", "\"\"", "a b", "ä", &too_long, "\""] {
        if key == "\"" {
            post(&ann, key, one).await.ok(201);
            continue;
        }
        post(&ann, key, one).await.validation_failed(&[("Idempotency-Key", &[message])]);
    }
    post(&ann, &longest, one).await.ok(201);
    let two = [JSON, ("idempotency-key", "a"), ("idempotency-key", "a")];
    let reply = ann.request("POST", "/api/v1/tasks", &two, one.as_bytes()).await;
    reply.validation_failed(&[("Idempotency-Key", &["must be given only once"])]);
    // A body that is rejected does not use up the key.
    post(&ann, "later", r#"{"title":""}"#).await.validation_failed(&[("title", &["must not be blank"])]);
    post(&ann, "later", one).await.ok(201);
    let reply = ann.request("POST", "/api/v1/tasks", &[JSON, ("if-none-match", "*")], one.as_bytes()).await;
    reply.validation_failed(&[("If-None-Match", &["is not supported"])]);
}
