//! Operations on tasks, and the session.

use http::Method;
use serde_json::{Value, json};

use super::{
    App,
    client::{Client, ON_A_TASK, UNKNOWN_ID, client, path},
    fixture::{now, sign, sign_scoped, token},
};
use crate::clock::Timestamp;

/// Each operation on a task works, and the next one sees its effect.
pub async fn a_task_can_be_created_read_changed_and_deleted(app: &dyn App) {
    let ann = client(app, "ann");
    let created = ann.send("POST", "/tasks", &json!({"title": " Buy milk ", "description": "Two bottles"})).await;
    let task = created.ok(201);
    assert_eq!(created.header("location"), format!("tasks/{}", task["id"].as_str().unwrap()));
    assert_eq!(
        (&task["title"], &task["description"], &task["user_id"], &task["completed"], &task["version"]),
        (&json!("Buy milk"), &json!("Two bottles"), &json!("ann"), &json!(false), &json!(1))
    );
    let path = path(&task);
    assert_eq!(ann.get(&path).await.ok(200), task);
    assert_eq!(ann.get("/tasks").await.ok(200), json!([task]));

    let replaced = ann.send("PUT", &path, &json!({"title": "Buy bread"})).await.ok(200);
    assert_eq!((&replaced["title"], &replaced["description"]), (&json!("Buy bread"), &Value::Null));
    assert_eq!((&replaced["version"], &replaced["created_at"]), (&json!(2), &task["created_at"]));
    let patched = ann.send("PATCH", &path, &json!({"description": "Rye"})).await.ok(200);
    assert_eq!((&patched["title"], &patched["description"]), (&json!("Buy bread"), &json!("Rye")));
    assert_eq!(ann.bare("PATCH", &format!("{path}/complete")).await.ok(200)["completed"], true);
    assert_eq!(ann.get(&path).await.ok(200)["version"], 4);

    let deleted = ann.bare("DELETE", &path).await;
    assert_eq!((deleted.status.as_u16(), &*deleted.body), (204, &b""[..]));
    assert!(!deleted.headers.contains_key("content-length") && !deleted.headers.contains_key("content-type"));
    ann.get(&path).await.task_not_found();
    assert_eq!(ann.get("/tasks").await.ok(200), json!([]));
}

/// A new task needs only a title. The names, the forms and the order of the fields are fixed.
pub async fn a_new_task_has_defaults(app: &dyn App) {
    let ann = client(app, "ann");
    let reply = ann.send("POST", "/tasks", &json!({"title": "Only a title"})).await;
    let task = reply.ok(201);
    let (id, created_at) = (task["id"].as_str().unwrap(), task["created_at"].as_str().unwrap());
    let position = task["position"].as_str().unwrap();
    let body = format!(
        r#"{{"id":"{id}","user_id":"ann","title":"Only a title","description":null,"completed":false,"completed_at":null,"due":null,"priority":null,"list":null,"tags":[],"position":"{position}","metadata":{{}},"created_at":"{created_at}","updated_at":"{created_at}","version":1}}"#
    );
    assert_eq!(reply.body, body);
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
    assert!(created_at.ends_with('Z') && created_at.parse::<Timestamp>().is_ok(), "{created_at}");
    let done = ann.send("POST", "/tasks", &json!({"title": "Done", "completed": true, "description": null})).await;
    assert_eq!(done.ok(201)["completed"], true);
}

/// PUT without `completed` does not reopen a task. PUT without `description` removes the description.
pub async fn a_replacement_without_completed_does_not_change_it(app: &dyn App) {
    let ann = client(app, "ann");
    let task = ann.send("POST", "/tasks", &json!({"title": "A", "description": "B", "completed": true})).await.ok(201);
    let path = path(&task);
    let replaced = ann.send("PUT", &path, &json!({"title": "C"})).await.ok(200);
    assert_eq!((&replaced["completed"], &replaced["description"]), (&json!(true), &Value::Null));
    let replaced = ann.send("PUT", &path, &json!({"title": "C", "completed": false, "description": ""})).await.ok(200);
    assert_eq!((&replaced["completed"], &replaced["description"]), (&json!(false), &json!("")));
    let again = ann.send("PUT", &path, &json!({"title": "C", "description": ""})).await.ok(200);
    assert_eq!(again, replaced, "no value changed");
    ann.send("PUT", &path, &json!({"description": "no title"})).await.validation_failed(&[("title", &["is required"])]);
}

/// PATCH: an absent field does not change, `null` removes it, and a value sets it (RFC 7396).
pub async fn a_merge_patch_distinguishes_absent_from_null(app: &dyn App) {
    let ann = client(app, "ann");
    let task = ann.send("POST", "/tasks", &json!({"title": "A", "description": "B"})).await.ok(201);
    let path = path(&task);
    assert_eq!(ann.send("PATCH", &path, &json!({})).await.ok(200), task);
    let patched = ann.send("PATCH", &path, &json!({"title": "C"})).await.ok(200);
    assert_eq!((&patched["title"], &patched["description"]), (&json!("C"), &json!("B")));
    assert_eq!(ann.send("PATCH", &path, &json!({"description": null})).await.ok(200)["description"], Value::Null);
    assert_eq!(ann.send("PATCH", &path, &json!({"description": ""})).await.ok(200)["description"], "");
    assert_eq!(ann.send("PATCH", &path, &json!({"completed": true})).await.ok(200)["completed"], true);
    let nulls = ann.send("PATCH", &path, &json!({"title": null, "completed": null})).await;
    nulls.validation_failed(&[("completed", &["must be true or false"]), ("title", &["must be a string"])]);
}

/// Without a body, or with an empty object, the task is toggled. A value sets it, and setting it again changes
/// nothing.
pub async fn completion_is_toggled_or_set(app: &dyn App) {
    let ann = client(app, "ann");
    let path = format!("{}/complete", path(&ann.create("Complete me").await));
    assert_eq!(ann.bare("PATCH", &path).await.ok(200)["completed"], true);
    assert_eq!(ann.send("PATCH", &path, &json!({})).await.ok(200)["completed"], false);
    // A blank body and `null` are as good as none.
    for (body, completed) in [(" \r\n", true), ("null", false), (" null ", true), ("", false)] {
        assert_eq!(ann.send_text("PATCH", &path, body).await.ok(200)["completed"], completed, "{body:?}");
    }
    for completed in [true, true, false, false] {
        assert_eq!(ann.send("PATCH", &path, &json!({"completed": completed})).await.ok(200)["completed"], completed);
    }
    assert_eq!(ann.bare("PATCH", &path).await.ok(200)["version"], 10, "two of the changes had no effect");
    for wrong in [json!(null), json!(1), json!("true")] {
        let reply = ann.send("PATCH", &path, &json!({"completed": wrong})).await;
        reply.validation_failed(&[("completed", &["must be true or false"])]);
    }
    ann.send("PATCH", &path, &json!({"title": "x"})).await.validation_failed(&[("title", &["is unknown"])]);
}

/// Each operation on an unknown or a deleted task is rejected with 404.
pub async fn a_missing_task_is_not_found(app: &dyn App) {
    let ann = client(app, "ann");
    for (method, end, body) in ON_A_TASK {
        ann.send_text(method, &format!("/tasks/{UNKNOWN_ID}{end}"), body).await.task_not_found();
    }
    let path = path(&ann.create("Short-lived").await);
    assert_eq!(ann.bare("DELETE", &path).await.status, 204);
    ann.bare("DELETE", &path).await.task_not_found();
}

/// Texts are returned as they were sent, except for white space around a title.
pub async fn texts_are_returned_unchanged(app: &dyn App) {
    let ann = client(app, "ann");
    let texts =
        ["<script>alert(1)</script>", "'; drop table tasks; --", "日本語 🦀 e\u{301}", "\\ \" / \u{7f}", "a\tb\nc"];
    for text in texts {
        let body = json!({"title": text, "description": format!(" {text}\n")});
        let task = ann.send("POST", "/tasks", &body).await.ok(201);
        assert_eq!((&task["title"], &task["description"]), (&body["title"], &body["description"]));
        assert_eq!(ann.get(&path(&task)).await.ok(200), task);
    }
}

/// Length limits count Unicode scalar values, not bytes or UTF-16 units.
pub async fn length_limits_count_characters(app: &dyn App) {
    let ann = client(app, "ann");
    let body = json!({"title": format!("  {} ", "🦀".repeat(200)), "description": "🦀".repeat(1000)});
    ann.send("POST", "/tasks", &body).await.ok(201);
    let body = json!({"title": "🦀".repeat(201), "description": "🦀".repeat(1001)});
    ann.send("POST", "/tasks", &body).await.validation_failed(&[
        ("description", &["must have at most 1000 characters"]),
        ("title", &["must have at most 200 characters"]),
    ]);
}

/// The body of a GET or DELETE is not read (RFC 9110, section 9.3).
pub async fn bodies_of_get_and_delete_are_ignored(app: &dyn App) {
    let ann = client(app, "ann");
    let path = path(&ann.create("Bodied").await);
    ann.send_text("GET", &path, "{").await.ok(200);
    ann.send_text("GET", "/tasks", "{").await.ok(200);
    assert_eq!(ann.send_text("DELETE", &path, "{").await.status, 204);
}

/// If one field is invalid, the valid fields are not written either.
pub async fn a_rejected_write_changes_nothing(app: &dyn App) {
    let ann = client(app, "ann");
    let task = ann.create("As it was").await;
    ann.send("POST", "/tasks", &json!({"title": "x", "colour": "red"}))
        .await
        .validation_failed(&[("colour", &["is unknown"])]);
    let invalid = json!({"title": "Changed", "completed": 1});
    for method in ["PUT", "PATCH"] {
        ann.send(method, &path(&task), &invalid).await.validation_failed(&[("completed", &["must be true or false"])]);
    }
    let query = format!("{}/complete?x=1", path(&task));
    ann.bare("PATCH", &query).await.validation_failed(&[("x", &["is unknown"])]);
    assert_eq!(ann.get("/tasks").await.ok(200), json!([task]));
}

/// The session has the claims of the token that it documents, and no other.
pub async fn the_session_describes_the_caller(app: &dyn App) {
    let exp = now() + 600;
    let ann = Client {
        app,
        authorization: Some(format!(
            "Bearer {}",
            sign(&json!({"sub": "ann", "exp": exp, "email": "ann@example.com", "name": "Ann", "role": "admin"}))
        )),
    };
    let reply = ann.get("/auth/session").await;
    reply.ok(200);
    let expires_at = Timestamp::from_unix_seconds(exp);
    let body =
        format!(r#"{{"user":{{"id":"ann","email":"ann@example.com","name":"Ann"}},"expires_at":"{expires_at}"}}"#);
    assert_eq!(reply.body, body);
    let bob = client(app, "bob").get("/auth/session").await.ok(200);
    assert_eq!(bob["user"], json!({"id": "bob"}));
}

/// Responses depend on the user, so that no shared cache may store them. The client may keep those with an entity tag.
pub async fn responses_are_kept_by_the_client_alone(app: &dyn App) {
    let ann = client(app, "ann");
    let path = path(&ann.create("Private").await);
    for (method, path, is_kept) in [
        (Method::GET, "/tasks", true),
        (Method::GET, "/tasks/count", true),
        (Method::GET, "/tasks/summary", true),
        (Method::GET, &path, true),
        (Method::GET, "/auth/session", false),
        (Method::GET, "/tasks?limit=0", false),
        (Method::DELETE, &path, false),
    ] {
        let reply = ann.bare(method.as_str(), path).await;
        let expected = if is_kept { "private, no-cache" } else { "no-store" };
        assert_eq!(reply.header("cache-control"), expected, "{method} {path}");
        assert_eq!((reply.headers.contains_key("etag"), reply.headers.contains_key("vary")), (is_kept, is_kept));
        if is_kept {
            assert_eq!(reply.header("vary"), "authorization, cookie");
        }
    }
}

/// The deletion of all tasks needs a parameter, so that a mistake in a client does not cause it.
pub async fn all_tasks_of_the_caller_are_deleted_at_once(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    for shape in ["", "/ann"] {
        for title in ["One", "Two", "Three"] {
            ann.create(title).await;
        }
        let of_bob = bob.create("Bob's").await;
        for query in ["?all", "?all=", "?all=false", "?all=1", "?all=TRUE"] {
            let reply = ann.bare("DELETE", &format!("{shape}/tasks{query}")).await;
            reply.validation_failed(&[("all", &["must be true"])]);
        }
        let reply = ann.bare("DELETE", &format!("{shape}/tasks")).await;
        let missing = "must be true, or there must be a filter; otherwise no tasks are meant";
        reply.validation_failed(&[("all", &[missing])]);
        let reply = ann.bare("DELETE", &format!("{shape}/tasks?all=true&all=true")).await;
        reply.validation_failed(&[("all", &["must be given only once"])]);
        let reply = ann.bare("DELETE", &format!("{shape}/tasks?all=true&completed=true")).await;
        reply.validation_failed(&[("all", &["must not be given together with a filter"])]);
        let target = format!("/api/v1{shape}/tasks?all=true");
        let reply = ann.request("DELETE", &target, &[("if-match", "*")], b"").await;
        reply.validation_failed(&[("If-Match", &["is not supported"])]);
        bob.bare("DELETE", "/ann/tasks?all=true").await.forbidden();
        assert_eq!(ann.get("/tasks").await.ok(200).as_array().map(Vec::len), Some(3));

        for count in [3, 0] {
            let reply = ann.bare("DELETE", &format!("{shape}/tasks?all=true")).await;
            reply.ok(200);
            assert_eq!(reply.body, format!(r#"{{"matched":{count},"changed":{count}}}"#));
            assert_eq!(ann.get("/tasks").await.ok(200), json!([]));
        }
        assert_eq!(bob.get(&path(&of_bob)).await.ok(200), of_bob);
    }
}

/// A guest signs up: the caller has a token of the guest, and gets the guest's tasks.
pub async fn the_tasks_of_a_guest_are_moved_to_the_caller(app: &dyn App) {
    let (guest, ann) = (client(app, "guest"), client(app, "ann"));
    let body = json!({"from_token": token("guest")});
    for shape in ["", "/ann"] {
        let of_guest = guest.create("Buy milk").await;
        let before = ann.get("/tasks").await.ok(200);
        let reply = ann.send("POST", &format!("{shape}/tasks/transfer"), &body).await;
        reply.ok(200);
        assert_eq!(reply.body, r#"{"moved":1,"remaining":0}"#);
        let mut moved = of_guest.clone();
        moved["user_id"] = json!("ann");
        assert_eq!(ann.get(&path(&of_guest)).await.ok(200), moved);
        assert_eq!(
            ann.get("/tasks").await.ok(200).as_array().map(Vec::len),
            before.as_array().map(|all| all.len() + 1)
        );
        assert_eq!(guest.get("/tasks").await.ok(200), json!([]));
        // It is safe to retry.
        let again = ann.send("POST", &format!("{shape}/tasks/transfer"), &body).await.ok(200);
        assert_eq!(again, json!({"moved": 0, "remaining": 0}));
    }
}

/// The token in the body is checked like the one in the header: by the verifier and the gates.
pub async fn tasks_are_moved_only_with_a_token_of_their_owner(app: &dyn App) {
    let (guest, ann) = (client(app, "guest"), client(app, "ann"));
    let of_guest = guest.create("Buy milk").await;
    let good = token("guest");
    let expired = sign(&json!({"sub": "guest", "exp": now() - 60}));
    let unscoped = sign_scoped(&json!({"sub": "guest", "exp": now() + 60}));
    for (body, problem) in [
        (json!({}), "is required"),
        (json!({"from_token": null}), "must be a string"),
        (json!({"from_token": 5}), "must be a string"),
        (json!({"from_token": ""}), "is not a valid token"),
        (json!({"from_token": "guest"}), "is not a valid token"),
        (json!({"from_token": format!("{good}x")}), "is not a valid token"),
        (json!({"from_token": format!("{good}\nx: y")}), "is not a valid token"),
        (json!({"from_token": expired}), "has expired"),
        (json!({"from_token": unscoped}), "lacks a required scope"),
        (json!({"from_token": token("disabled")}), "has been revoked"),
        (json!({"from_token": token("ann")}), "must be a token of another user"),
    ] {
        ann.send("POST", "/tasks/transfer", &body).await.validation_failed(&[("from_token", &[problem])]);
    }
    let both = json!({"from_token": good, "user_id": "guest"});
    ann.send("POST", "/tasks/transfer", &both).await.validation_failed(&[("user_id", &["is set from the token"])]);
    ann.send("POST", "/guest/tasks/transfer", &json!({"from_token": good})).await.forbidden();
    let limited = ann.send("POST", "/tasks/transfer", &json!({"from_token": token("rate-limited")})).await;
    limited.problem(429, "Too Many Requests", "rate_limited", "Too many requests. Retry later.");
    assert_eq!(guest.get("/tasks").await.ok(200), json!([of_guest]));
    assert_eq!(ann.get("/tasks").await.ok(200), json!([]));
}
