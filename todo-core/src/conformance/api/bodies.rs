//! Bodies: content types, sizes and syntax.

use super::{
    App,
    client::{client, path},
};

/// Each operation with a body rejects invalid JSON, and says what is wrong and where.
pub async fn a_body_that_is_not_json_is_malformed(app: &dyn App) {
    let ann = client(app, "ann");
    let path = path(&ann.create("Body").await);
    let complete = format!("{path}/complete");
    let deep = "[".repeat(10_000);
    let bodies = [
        ("{", "The body is not valid JSON: it ends too early."),
        ("{'title':'x'}", "The body is not valid JSON: key must be a string at byte 2."),
        (r#"{"title":"x",}"#, "The body is not valid JSON: trailing comma at byte 14."),
        (r#"{"title":x}"#, "The body is not valid JSON: expected value at byte 10 (in `title`)."),
        ("x", "The body is not valid JSON: expected value at byte 1."),
        (r#"{"title":"x"} {}"#, "The body is not valid JSON: trailing characters at byte 15."),
        ("\u{feff}{}", "The body begins with a byte order mark. Send JSON without it."),
        (&deep, "The body is not valid JSON: recursion limit exceeded at byte 128."),
    ];
    for (method, path) in [("POST", "/tasks"), ("PUT", &path), ("PATCH", &path), ("PATCH", &complete)] {
        for (body, detail) in bodies {
            ann.send_text(method, path, body).await.malformed_json(detail);
        }
        let headers = [("content-type", "application/json")];
        let latin1 = b"{\"title\":\"\xfc\"}";
        let reply = ann.request(method, &format!("/api/v1{path}"), &headers, latin1).await;
        reply.malformed_json("The body is not UTF-8: byte 11 (in `title`) is invalid.");
    }
    for (method, path) in [("POST", "/tasks"), ("PUT", &path), ("PATCH", &path)] {
        for reply in [
            ann.send_text(method, path, "").await,
            ann.send_text(method, path, " \n").await,
            ann.bare(method, path).await,
        ] {
            reply.malformed_json("The body is empty. Send a JSON object.");
        }
    }
}

/// Half of a surrogate pair is valid JSON but no text: its field is invalid.
pub async fn half_of_a_surrogate_pair_is_invalid(app: &dyn App) {
    let ann = client(app, "ann");
    let path = path(&ann.create("Emoji").await);
    let message = "must not contain half of a surrogate pair, such as an emoji that was cut in two";
    for (method, path) in [("POST", "/tasks"), ("PUT", &path), ("PATCH", &path)] {
        let reply = ann.send_text(method, path, r#"{"title":"\ud83c","description":"\ud83c\udf89 \udf89"}"#).await;
        reply.validation_failed(&[("description", &[message]), ("title", &[message])]);
    }
    assert_eq!(ann.get(&path).await.ok(200)["title"], "Emoji");
    let created = ann.send_text("POST", "/tasks", r#"{"title":"\ud83c\udf89"}"#).await;
    assert_eq!(created.ok(201)["title"], "🎉");
}

/// A write does not ignore a header that asks for something else.
pub async fn headers_that_ask_for_what_is_not_supported_are_invalid(app: &dyn App) {
    let ann = client(app, "ann");
    let path = format!("/api/v1{}", path(&ann.create("Guarded").await));
    let complete = format!("{path}/complete");
    for name in ["Content-Range", "X-HTTP-Method-Override"] {
        let headers = [("content-type", "application/json"), (name, "\"1\"")];
        for (method, path, body) in [
            ("POST", "/api/v1/tasks", r#"{"title":"x"}"#),
            ("PUT", &path, r#"{"title":"x"}"#),
            ("PATCH", &path, r#"{"title":"x"}"#),
            ("PATCH", &complete, ""),
            ("DELETE", &path, ""),
        ] {
            let reply = ann.request(method, path, &headers, body.as_bytes()).await;
            reply.validation_failed(&[(name, &["is not supported"])]);
        }
        ann.request("GET", &path, &headers, b"").await.ok(200);
    }
    assert_eq!(ann.get("/tasks").await.ok(200).as_array().unwrap().len(), 1);
}

/// JSON that is not an object has no fields.
pub async fn a_body_that_is_not_an_object_is_invalid(app: &dyn App) {
    let ann = client(app, "ann");
    let task = path(&ann.create("Whole").await);
    for body in ["null", "1", r#""title""#] {
        let reply = ann.send_text("POST", "/tasks", body).await;
        let detail = "The body must be a JSON object, or an array of them.";
        reply.problem(422, "Unprocessable Entity", "validation_failed", detail);
    }
    for body in ["[]", "null", "1", r#""title""#, r#"[{"title":"x"}]"#] {
        let reply = ann.send_text("PUT", &task, body).await;
        reply.problem(422, "Unprocessable Entity", "validation_failed", "The body must be a JSON object.");
    }
}

/// The body is not JSON, not UTF-8 or compressed; or the content type is missing or repeated. The response says which.
pub async fn other_content_types_are_unsupported(app: &dyn App) {
    let ann = client(app, "ann");
    let path = format!("/api/v1{}", path(&ann.create("Typed").await));
    let complete = format!("{path}/complete");
    let cases: [(&[(&str, &str)], &str); 11] = [
        (&[], "Send the body with the header Content-Type: {types}."),
        (&[("content-type", "text/plain")], "Send the body as {types}, not as `text/plain`."),
        (
            &[("content-type", "application/x-www-form-urlencoded")],
            "Send the body as {types}, not as `application/x-www-form-urlencoded`.",
        ),
        (&[("content-type", "application/jsonp")], "Send the body as {types}, not as `application/jsonp`."),
        (
            &[("content-type", "application/json; charset=latin1")],
            "Send the body in UTF-8, not in the charset `latin1`.",
        ),
        (
            &[("content-type", "application/json;x=y;charset=\"utf-16\"")],
            "Send the body in UTF-8, not in the charset `utf-16`.",
        ),
        (
            &[("content-type", "application/json, text/plain")],
            "Send the body as {types}, not as `application/json, text/plain`.",
        ),
        (
            &[("content-type", "application/json"), ("content-type", "application/json")],
            "Send one Content-Type header.",
        ),
        (
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
            "Send the body without compression. The content coding `gzip` is not supported.",
        ),
        (&[("content-type", "")], "Send the body as {types}, not as ``."),
        (
            &[("content-type", "application/vnd.a-vendor-with-a-very-long-name.and-a-version-1+json")],
            "Send the body as {types}, not as `application/vnd.a-vendor-with-a-very-long-name.and...`.",
        ),
    ];
    for (method, path) in [("POST", "/api/v1/tasks"), ("PUT", &path), ("PATCH", &path), ("PATCH", &complete)] {
        let types = match method {
            "PATCH" => "application/json or application/merge-patch+json",
            _ => "application/json",
        };
        for (headers, detail) in cases {
            let reply = ann.request(method, path, headers, br#"{"title":"x"}"#).await;
            reply.unsupported_media_type(&detail.replace("{types}", types));
            assert_eq!(reply.headers.contains_key("accept-encoding"), detail.contains("coding"));
        }
    }
    let merge_patch = [("content-type", "application/merge-patch+json")];
    let reply = ann.request("POST", "/api/v1/tasks", &merge_patch, br#"{"title":"x"}"#).await;
    reply.unsupported_media_type("Send the body as application/json, not as `application/merge-patch+json`.");
    // The content type is checked before the size and the content.
    let reply = ann.request("POST", "/api/v1/tasks", cases[1].0, &vec![b'x'; 70_000]).await;
    reply.unsupported_media_type("Send the body as application/json, not as `text/plain`.");
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
        "application/json; charset=utf8",
        "application/json; Charset=\"Utf8\"",
        "application/json; charset=us-ascii",
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
        ann.request("POST", "/api/v1/tasks", headers, b"")
            .await
            .malformed_json("The body is empty. Send a JSON object.");
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
