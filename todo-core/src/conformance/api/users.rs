//! Separation of users, and the user id in the path.

use http::HeaderMap;
use serde_json::json;

use super::{
    App,
    client::{ON_A_TASK, UNKNOWN_ID, client, path},
};

/// With the user id before it, each path operates on the same tasks.
pub async fn every_path_also_exists_with_a_user_id(app: &dyn App) {
    let ann = client(app, "ann");
    for (here, there) in [("", "/ann"), ("/ann", "")] {
        let task = ann.send("POST", &format!("{here}/tasks"), &json!({"title": "Both"})).await.ok(201);
        let path = path(&task);
        assert_eq!(ann.get(&format!("{there}/tasks")).await.ok(200), json!([task]));
        assert_eq!(ann.get(&format!("{there}{path}")).await.ok(200), task);
        let put = ann.send("PUT", &format!("{here}{path}"), &json!({"title": "Put"})).await.ok(200);
        assert_eq!(ann.get(&format!("{there}{path}")).await.ok(200), put);
        let patched = ann.send("PATCH", &format!("{here}{path}"), &json!({"title": "Patched"})).await.ok(200);
        assert_eq!(ann.get(&format!("{there}{path}")).await.ok(200), patched);
        let done = ann.bare("PATCH", &format!("{here}{path}/complete")).await.ok(200);
        assert_eq!(
            (&done["completed"], ann.get(&format!("{there}{path}")).await.ok(200)),
            (&json!(true), done.clone())
        );
        assert_eq!(ann.bare("DELETE", &format!("{here}{path}")).await.status, 204);
        ann.get(&format!("{there}{path}")).await.task_not_found();
    }
}

/// A request for another user's task gets the same response as one for a task that does not exist, and has no effect.
pub async fn tasks_of_other_users_are_not_found(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    let task = ann.create("Ann's").await;
    let id = task["id"].as_str().unwrap();
    for shape in ["", "/bob"] {
        for (method, end, body) in ON_A_TASK {
            let (theirs, unknown) = (format!("{shape}/tasks/{id}{end}"), format!("{shape}/tasks/{UNKNOWN_ID}{end}"));
            let theirs = bob.send_text(method, &theirs, body).await;
            theirs.task_not_found();
            let unknown = bob.send_text(method, &unknown, body).await;
            let without_date = |mut headers: HeaderMap| {
                headers.remove("date");
                headers
            };
            assert_eq!(theirs.body, unknown.body);
            assert_eq!(without_date(theirs.headers), without_date(unknown.headers), "the responses must not differ");
        }
        assert_eq!(bob.get(&format!("{shape}/tasks")).await.ok(200), json!([]));
    }
    assert_eq!(ann.get(&path(&task)).await.ok(200), task);
}

/// 403 comes right after the credential, whatever else is wrong with the request.
pub async fn paths_of_other_users_are_forbidden_before_other_checks(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    let task = ann.create("Ann's").await;
    let id = task["id"].as_str().unwrap();
    bob.get("/ann/tasks").await.forbidden();
    bob.get("/ann/tasks?limit=0&what=ever").await.forbidden();
    bob.send("POST", "/ann/tasks", &json!({"title": "For Ann"})).await.forbidden();
    bob.request("POST", "/api/v1/ann/tasks", &[("content-type", "text/plain")], &vec![b'x'; 70_000]).await.forbidden();
    for (method, end, body) in ON_A_TASK {
        for id in [id, UNKNOWN_ID, "no-uuid"] {
            bob.send_text(method, &format!("/ann/tasks/{id}{end}"), body).await.forbidden();
            bob.send_text(method, &format!("/Bob/tasks/{id}{end}"), body).await.forbidden();
        }
    }
    bob.get("/%FF/tasks").await.forbidden();
    bob.get("/bob%00/tasks").await.forbidden();
    bob.get("/bob%20/tasks").await.forbidden();
    assert_eq!(ann.get("/tasks").await.ok(200), json!([task]));
}

/// The caller's own id is accepted in the path, however it is encoded.
pub async fn a_path_with_the_callers_id_is_allowed(app: &dyn App) {
    let ann = client(app, "ann");
    let task = ann.create("Mine").await;
    assert_eq!(ann.get("/ann/tasks").await.ok(200), json!([task]));
    // `%6E` is `n`: the same id, written differently (RFC 3986, section 6.2.2.2).
    assert_eq!(ann.get("/a%6E%6e/tasks").await.ok(200), json!([task]));
}

/// A user id may contain any character.
pub async fn user_ids_in_paths_are_percent_encoded(app: &dyn App) {
    let users = [
        ("auth0|5f7c", "auth0%7C5f7c"),
        ("a/b", "a%2Fb"),
        ("a/tasks", "a%2Ftasks"),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("a b+c", "a%20b+c"),
        ("a?b#c", "a%3Fb%23c"),
        ("ünï", "%C3%BCn%C3%AF"),
        ("..", "%2E%2E"),
        ("{user_id}", "%7Buser_id%7D"),
        (":id", ":id"),
        ("a;b=c", "a;b=c"),
        ("1", "1"),
    ];
    for (user, encoded) in users {
        let client = client(app, user);
        let task = client.send("POST", &format!("/{encoded}/tasks"), &json!({"title": user})).await.ok(201);
        assert_eq!(task["user_id"], user);
        assert_eq!(client.get(&format!("/{encoded}{}", path(&task))).await.ok(200), task, "{user}");
        assert_eq!(client.get("/tasks").await.ok(200), json!([task]), "{user}");
    }
}

/// A literal segment takes precedence over a parameter, so these users have only the paths without a user id.
pub async fn user_ids_equal_to_path_segments_have_no_user_paths(app: &dyn App) {
    for user in ["tasks", "auth"] {
        let client = client(app, user);
        let task = client.create("Reachable").await;
        assert_eq!(client.get(&path(&task)).await.ok(200), task);
    }
    let tasks = client(app, "tasks");
    tasks.get("/tasks/tasks").await.validation_failed(&[("id", &["must be a UUID"])]);
    tasks.get("/%74asks/tasks").await.not_found();
    let auth = client(app, "auth");
    auth.get("/auth/tasks").await.not_found();
    auth.get(&format!("/auth/tasks/{UNKNOWN_ID}")).await.not_found();
    auth.bare("PATCH", &format!("/auth/tasks/{UNKNOWN_ID}/complete")).await.not_found();
}
