//! Paths, methods and probes.

use super::{
    App,
    client::{ON_A_TASK, UNKNOWN_ID, anonymous, client, path},
};

/// `Allow` lists the methods in a fixed order, with HEAD and OPTIONS.
pub async fn unsupported_methods_are_rejected_with_allow(app: &dyn App) {
    let ann = client(app, "ann");
    let task = format!("/tasks/{UNKNOWN_ID}");
    let known = [
        ("/tasks".to_owned(), "GET, HEAD, POST, PATCH, DELETE, OPTIONS"),
        ("/tasks/transfer".to_owned(), "POST, OPTIONS"),
        (task.clone(), "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"),
        (format!("{task}/complete"), "PATCH, OPTIONS"),
        ("/auth/session".to_owned(), "GET, HEAD, OPTIONS"),
        ("/ann/tasks".to_owned(), "GET, HEAD, POST, PATCH, DELETE, OPTIONS"),
        ("/ann/tasks/transfer".to_owned(), "POST, OPTIONS"),
        (format!("/ann{task}"), "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"),
        (format!("/ann{task}/complete"), "PATCH, OPTIONS"),
    ];
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY", "get"];
    for (path, allow) in known {
        for method in methods.into_iter().filter(|method| !allow.split(", ").any(|known| known == *method)) {
            let reply = ann.bare(method, &path).await;
            let detail = match method {
                "get" if allow.starts_with("GET") => "Methods are written in capitals: GET, not get.".to_owned(),
                _ => format!("This path supports {allow}."),
            };
            reply.problem(405, "Method Not Allowed", "method_not_allowed", &detail);
            assert_eq!(reply.header("allow"), allow, "{method} {path}");
        }
    }
    // HEAD where there is no GET.
    let reply = ann.bare("HEAD", &format!("{task}/complete")).await;
    assert_eq!((reply.status.as_u16(), reply.header("allow"), reply.body.len()), (405, "PATCH, OPTIONS", 0));
}

/// OPTIONS that is not a CORS preflight.
pub async fn options_requires_no_credential(app: &dyn App) {
    let anonymous = anonymous(app);
    for (path, allow) in [
        ("/tasks", "GET, HEAD, POST, PATCH, DELETE, OPTIONS"),
        ("/ann/tasks/transfer", "POST, OPTIONS"),
        ("/ann/tasks/no-uuid", "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"),
        ("/tasks/no-uuid/complete", "PATCH, OPTIONS"),
        ("/auth/session", "GET, HEAD, OPTIONS"),
    ] {
        let reply = anonymous.bare("OPTIONS", path).await;
        assert_eq!((reply.status.as_u16(), reply.header("allow"), reply.body.len()), (204, allow, 0), "{path}");
        assert!(!reply.headers.contains_key("content-length"));
    }
}

/// HEAD has the status and the headers of GET, including the length of the body.
pub async fn head_is_get_without_a_body(app: &dyn App) {
    let ann = client(app, "ann");
    let task = ann.create("Head").await;
    ann.create("Another").await;
    let paths = ["/tasks", "/tasks?limit=1", "/ann/tasks", &path(&task), "/auth/session", "/tasks?limit=0", "/tasks/x"];
    for path in paths {
        let (get, head) = (ann.get(path).await, ann.bare("HEAD", path).await);
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        for name in ["content-type", "content-length", "cache-control", "link"] {
            assert_eq!(head.headers.get(name), get.headers.get(name), "{name} of {path}");
        }
    }
    let anonymous = anonymous(app);
    let reply = anonymous.bare("HEAD", "/tasks").await;
    assert_eq!((reply.status.as_u16(), reply.header("www-authenticate"), reply.body.len()), (401, "Bearer", 0));
}

/// Paths with an extra slash, or with an empty parameter.
pub async fn paths_that_almost_match_are_not_found(app: &dyn App) {
    let ann = client(app, "ann");
    let task = path(&ann.create("Near").await);
    let paths = [
        "/tasks/".to_owned(),
        "/tasks//".to_owned(),
        "//tasks".to_owned(),
        "//tasks/".to_owned(),
        "/ann/tasks/".to_owned(),
        "/ann/tasks//".to_owned(),
        format!("{task}/"),
        format!("{task}/complete/"),
        format!("/{task}"),
        format!("/ann{task}/"),
        "/tasks//complete".to_owned(),
        "/ann/tasks//complete".to_owned(),
        "//tasks//complete".to_owned(),
        "/tasks/transfer/".to_owned(),
        "//tasks/transfer".to_owned(),
        "/auth/session/".to_owned(),
    ];
    for path in paths {
        for method in ["GET", "POST", "PATCH", "DELETE", "OPTIONS"] {
            let reply = ann.bare(method, &path).await;
            if path.ends_with('/') && !path.contains("//") { reply.trailing_slash() } else { reply.not_found() }
        }
    }
}

/// 422 with the field `id`, with and without a user in the path, for each operation.
pub async fn an_id_that_is_not_a_uuid_is_invalid(app: &dyn App) {
    let ann = client(app, "ann");
    let ids = [
        "1",
        "no-uuid",
        "019aa3f05c0070008000000000000000",
        "%7B019aa3f0-5c00-7000-8000-000000000000%7D",
        "%00",
        "%FF",
    ];
    for shape in ["", "/ann"] {
        for id in ids {
            for (method, end, body) in ON_A_TASK {
                let reply = ann.send_text(method, &format!("{shape}/tasks/{id}{end}"), body).await;
                reply.validation_failed(&[("id", &["must be a UUID"])]);
            }
        }
    }
    // Case does not matter (RFC 9562, section 4).
    let task = ann.create("Upper").await;
    assert_eq!(ann.get(&path(&task).to_uppercase().replace("TASKS", "tasks")).await.ok(200), task);
}

/// Probes are at the root, for load balancers.
pub async fn probes_require_no_credential(app: &dyn App) {
    let anonymous = anonymous(app);
    for (path, body) in [
        ("/health", r#"{"status":"ok"}"#),
        ("/health/ready", r#"{"status":"ready","store":"ok","keys":"ok","writes":"ok"}"#),
    ] {
        let reply = anonymous.request("GET", path, &[], b"").await;
        reply.ok(200);
        assert_eq!(reply.body, body);
        assert_eq!(anonymous.request("HEAD", path, &[], b"").await.status, 200);
        assert_eq!(anonymous.request("POST", path, &[], b"").await.header("allow"), "GET, HEAD, OPTIONS");
    }
}
