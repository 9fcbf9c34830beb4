//! Bodies: content types, sizes and syntax.

use super::{
    App,
    client::{client, path},
};

/// Each operation with a body rejects invalid JSON.
pub async fn a_body_that_is_not_json_is_malformed(app: &dyn App) {
    let ann = client(app, "ann");
    let path = path(&ann.create("Body").await);
    let complete = format!("{path}/complete");
    let deep = "[".repeat(10_000);
    let bodies = [
        "{",
        "{'title':'x'}",
        r#"{"title":"x",}"#,
        r#"{"title":"\ud800"}"#,
        "x",
        r#"{"title":"x"} {}"#,
        "\u{feff}{}",
        " ",
        &deep,
    ];
    for (method, path) in [("POST", "/tasks"), ("PUT", &path), ("PATCH", &path), ("PATCH", &complete)] {
        for body in bodies {
            ann.send_text(method, path, body).await.malformed_json();
        }
        let headers = [("content-type", "application/json")];
        let latin1 = b"{\"title\":\"\xfc\"}";
        ann.request(method, &format!("/api/v1{path}"), &headers, latin1).await.malformed_json();
    }
    for (method, path) in [("POST", "/tasks"), ("PUT", &path), ("PATCH", &path)] {
        ann.send_text(method, path, "").await.malformed_json();
        ann.bare(method, path).await.malformed_json();
    }
}

/// JSON that is not an object has no fields.
pub async fn a_body_that_is_not_an_object_is_invalid(app: &dyn App) {
    let ann = client(app, "ann");
    for body in ["[]", "null", "1", r#""title""#, r#"[{"title":"x"}]"#] {
        let reply = ann.send_text("POST", "/tasks", body).await;
        reply.problem(422, "Unprocessable Entity", "validation_failed", "The body must be a JSON object.");
    }
}

/// The body is not JSON, not UTF-8 or compressed; or the content type is missing or repeated.
pub async fn other_content_types_are_unsupported(app: &dyn App) {
    let ann = client(app, "ann");
    let path = format!("/api/v1{}", path(&ann.create("Typed").await));
    let complete = format!("{path}/complete");
    let types: [&[(&str, &str)]; 9] = [
        &[],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "application/jsonp")],
        &[("content-type", "application/json; charset=latin1")],
        &[("content-type", "application/json, text/plain")],
        &[("content-type", "application/json"), ("content-type", "application/json")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
        &[("content-type", "")],
    ];
    for (method, path) in [("POST", "/api/v1/tasks"), ("PUT", &path), ("PATCH", &path), ("PATCH", &complete)] {
        for headers in types {
            let reply = ann.request(method, path, headers, br#"{"title":"x"}"#).await;
            let detail = match method {
                "PATCH" => "Send the body as application/json or application/merge-patch+json.",
                _ => "Send the body as application/json.",
            };
            reply.problem(415, "Unsupported Media Type", "unsupported_media_type", detail);
        }
    }
    let merge_patch = [("content-type", "application/merge-patch+json")];
    ann.request("POST", "/api/v1/tasks", &merge_patch, br#"{"title":"x"}"#).await.unsupported_media_type();
    // The content type is checked before the size and the content.
    ann.request("POST", "/api/v1/tasks", &types[1][..1], &vec![b'x'; 70_000]).await.unsupported_media_type();
}

/// Case and other parameters do not matter; PATCH also accepts a merge patch.
pub async fn json_content_types_are_supported(app: &dyn App) {
    let ann = client(app, "ann");
    let path = format!("/api/v1{}", path(&ann.create("Typed").await));
    for content_type in [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        "application/json; charset=\"UTF-8\"",
        "application/json ; version=1",
    ] {
        let headers = [("content-type", content_type), ("content-encoding", "identity")];
        ann.request("POST", "/api/v1/tasks", &headers, br#"{"title":"x"}"#).await.ok(201);
    }
    let headers = [("content-type", "application/merge-patch+json")];
    ann.request("PATCH", &path, &headers, br#"{"title":"y"}"#).await.ok(200);
    ann.request("PATCH", &format!("{path}/complete"), &headers, br#"{"completed":true}"#).await.ok(200);
}

/// Some clients send `content-type` with every request.
pub async fn the_content_type_of_an_empty_body_is_ignored(app: &dyn App) {
    let ann = client(app, "ann");
    let path = format!("/api/v1{}", path(&ann.create("Empty").await));
    for headers in [&[("content-type", "text/plain")][..], &[("content-encoding", "br")], &[]] {
        ann.request("PATCH", &format!("{path}/complete"), headers, b"").await.ok(200);
        ann.request("GET", &path, headers, b"").await.ok(200);
        ann.request("POST", "/api/v1/tasks", headers, b"").await.malformed_json();
    }
    assert_eq!(ann.request("DELETE", &path, &[("content-type", "text/plain")], b"").await.status, 204);
}

/// The limit is 64 KiB, whatever the content.
pub async fn a_body_over_the_limit_is_too_large(app: &dyn App) {
    let ann = client(app, "ann");
    let body = format!(r#"{{"title":"x"{}}}"#, " ".repeat(64 * 1024));
    let path = path(&ann.create("Large").await);
    let complete = format!("{path}/complete");
    for (method, path) in [("POST", "/tasks"), ("PUT", &path), ("PATCH", &path), ("PATCH", &complete)] {
        let reply = ann.send_text(method, path, &body).await;
        reply.problem(413, "Payload Too Large", "payload_too_large", "The body must have at most 65536 bytes.");
    }
    assert_eq!(ann.get("/tasks").await.ok(200).as_array().unwrap().len(), 1);
}

/// A body of exactly 64 KiB is accepted.
pub async fn a_body_at_the_limit_is_accepted(app: &dyn App) {
    let ann = client(app, "ann");
    let body = r#"{"title":"x"}"#;
    let body = format!("{body}{}", " ".repeat(64 * 1024 - body.len()));
    ann.send_text("POST", "/tasks", &body).await.ok(201);
}
