//! Validation of fields.

use serde_json::json;

use super::{
    App,
    client::{client, path},
};

/// Fields of the path, the query and the body are reported together, sorted by name.
pub async fn all_invalid_fields_are_reported_together(app: &dyn App) {
    let ann = client(app, "ann");
    let body = json!({"title": " ", "description": 5, "completed": "yes", "colour": "red", "user_id": "bob"});
    let reply = ann.send("PUT", "/tasks/no-uuid?dry=run", &body).await;
    reply.validation_failed(&[
        ("colour", &["is unknown"]),
        ("completed", &["must be true or false"]),
        ("description", &["must be a string or null"]),
        ("dry", &["is unknown"]),
        ("id", &["must be a UUID"]),
        ("title", &["must not be blank"]),
        ("user_id", &["is set from the token"]),
    ]);
    let reply = ann.get("/tasks?limit=0&cursor=x&completed=1&page=2").await;
    reply.validation_failed(&[
        ("completed", &["must be true or false"]),
        ("cursor", &["must be a cursor from the Link header of an earlier page"]),
        ("limit", &["must be between 1 and 200"]),
        ("page", &["is unknown"]),
    ]);
}

/// Each field by itself.
pub async fn invalid_values_are_reported_by_field(app: &dyn App) {
    let ann = client(app, "ann");
    let wrong = [
        (json!({}), "title", "is required"),
        (json!({"title": null}), "title", "must be a string"),
        (json!({"title": 1}), "title", "must be a string"),
        (json!({"title": ["x"]}), "title", "must be a string"),
        (json!({"title": ""}), "title", "must not be blank"),
        (json!({"title": "\u{3000}\t\n"}), "title", "must not be blank"),
        (json!({"title": "x".repeat(201)}), "title", "must have at most 200 characters"),
        (json!({"title": "x", "description": "x".repeat(1001)}), "description", "must have at most 1000 characters"),
        (json!({"title": "x", "description": {}}), "description", "must be a string or null"),
        (json!({"title": "x", "completed": null}), "completed", "must be true or false"),
        (json!({"title": "x", "completed": 0}), "completed", "must be true or false"),
        (json!({"title": "x", "Title": "y"}), "Title", "is unknown"),
        (json!({"title": "x", "": "y"}), "", "is unknown"),
    ];
    for (body, field, message) in wrong {
        ann.send("POST", "/tasks", &body).await.validation_failed(&[(field, &[message])]);
    }
}

/// A repeated field is ambiguous.
pub async fn a_repeated_field_is_invalid(app: &dyn App) {
    let ann = client(app, "ann");
    let reply = ann.send_text("POST", "/tasks", r#"{"title":"x","title":"y"}"#).await;
    reply.validation_failed(&[("title", &["must be given only once"])]);
    let reply = ann.send_text("POST", "/tasks", r#"{"title":"x","completed":true,"complete\u0064":false}"#).await;
    reply.validation_failed(&[("completed", &["must be given only once"])]);
    ann.get("/tasks?limit=1&limit=1").await.validation_failed(&[("limit", &["must be given only once"])]);
}

/// A client that sends a whole task back is rejected with the reason.
pub async fn fields_set_by_the_server_are_rejected(app: &dyn App) {
    let ann = client(app, "ann");
    let task = ann.create("Whole").await;
    for (method, target) in [("POST", "/tasks"), ("PATCH", "/tasks?list=None")] {
        let mut sent = task.clone();
        if method == "PATCH" {
            sent.as_object_mut().unwrap().remove("metadata");
        }
        ann.send(method, target, &sent).await.validation_failed(&[
            ("completed_at", &["is set by the server"]),
            ("created_at", &["is set by the server"]),
            ("id", &["is set by the server"]),
            ("updated_at", &["is set by the server"]),
            ("user_id", &["is set from the token"]),
            ("version", &["is set by the server"]),
        ]);
    }
    assert_eq!(ann.get(&path(&task)).await.ok(200), task);
}

/// PostgreSQL cannot store NUL, so it is rejected before the store is called.
pub async fn nul_is_an_invalid_value(app: &dyn App) {
    let ann = client(app, "ann");
    let body = json!({"title": "a\u{0}b", "description": "\u{0}", "\u{0}": 1});
    ann.send("POST", "/tasks", &body).await.validation_failed(&[
        ("\u{0}", &["is unknown"]),
        ("description", &["must not contain the NUL character"]),
        ("title", &["must not contain the NUL character"]),
    ]);
    ann.get("/tasks?%00=%00").await.validation_failed(&[("\u{0}", &["is unknown"])]);
    ann.get("/tasks/%00").await.validation_failed(&[("id", &["must be a UUID"])]);
}
