//! A client that checks responses byte for byte.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};

use super::{App, fixture::token};

/// A response.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    #[track_caller]
    pub(super) fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().unwrap_or_else(|| panic!("no {name} in {:?}", self.headers));
        assert!(values.next().is_none(), "{name} twice");
        value.to_str().unwrap()
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        assert_eq!(self.header("content-length"), self.body.len().to_string());
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// Checks that the request succeeded, and returns the JSON body.
    #[track_caller]
    pub(super) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{:?}", self.body);
        assert_eq!(self.header("content-type"), "application/json");
        self.json()
    }

    /// Checks a problem byte for byte.
    #[track_caller]
    pub(super) fn problem(&self, status: u16, title: &str, code: &str, detail: &str) {
        let body = format!(
            r#"{{"type":"about:blank","title":"{title}","status":{status},"detail":"{detail}","code":"{code}"}}"#
        );
        assert_eq!(self.status, status, "{:?}", self.body);
        assert_eq!(self.body, body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.header("content-length"), body.len().to_string());
        assert_eq!(self.header("cache-control"), "no-store");
        let has_challenge = status == 401 || code == "insufficient_scope";
        assert_eq!(self.headers.contains_key("www-authenticate"), has_challenge);
        assert_eq!(self.headers.contains_key("allow"), status == 405);
        assert_eq!(self.headers.contains_key("retry-after"), status == 429 || status == 503);
    }

    #[track_caller]
    pub(super) fn unauthenticated(&self) {
        self.problem(401, "Unauthorized", "unauthenticated", "Send one bearer token in the Authorization header.");
        assert_eq!(self.header("www-authenticate"), "Bearer");
    }

    #[track_caller]
    pub(super) fn token_invalid(&self) {
        self.problem(401, "Unauthorized", "token_invalid", "The token is not valid.");
        assert_eq!(
            self.header("www-authenticate"),
            r#"Bearer error="invalid_token", error_description="The token is not valid.""#
        );
    }

    #[track_caller]
    pub(super) fn forbidden(&self) {
        self.problem(403, "Forbidden", "forbidden", "The user in the path is not the caller.");
    }

    #[track_caller]
    pub(super) fn task_not_found(&self) {
        self.problem(404, "Not Found", "task_not_found", "Task not found.");
    }

    #[track_caller]
    pub(super) fn not_found(&self) {
        self.problem(404, "Not Found", "not_found", "This path does not exist.");
    }

    #[track_caller]
    pub(super) fn trailing_slash(&self) {
        self.problem(404, "Not Found", "not_found", "This path does not exist. Remove the slash at its end.");
    }

    #[track_caller]
    pub(super) fn malformed_json(&self, detail: &str) {
        self.problem(400, "Bad Request", "malformed_json", detail);
    }

    #[track_caller]
    pub(super) fn unsupported_media_type(&self, detail: &str) {
        self.problem(415, "Unsupported Media Type", "unsupported_media_type", detail);
    }

    /// Checks the problem of invalid fields byte for byte.
    #[track_caller]
    pub(super) fn validation_failed(&self, field_errors: &[(&str, &[&str])]) {
        let shown = |field: &str| if field.is_empty() { "\"\"".to_owned() } else { field.to_owned() };
        let sentence: Vec<_> = field_errors
            .iter()
            .flat_map(|(field, messages)| messages.iter().map(move |message| format!("{} {message}", shown(field))))
            .collect();
        let fields: serde_json::Map<_, _> =
            field_errors.iter().map(|(field, messages)| ((*field).to_owned(), json!(messages))).collect();
        let body = format!(
            r#"{{"type":"about:blank","title":"Unprocessable Entity","status":422,"detail":{},"code":"validation_failed","field_errors":{}}}"#,
            json!(format!("{}.", sentence.join("; "))),
            Value::from(fields)
        );
        assert_eq!(self.status, 422, "{:?}", self.body);
        assert_eq!(self.body, body);
        assert_eq!(self.header("content-type"), "application/problem+json");
    }
}

/// A client of the app, with the credential of one user or none.
pub(super) struct Client<'a> {
    pub(super) app: &'a dyn App,
    pub(super) authorization: Option<String>,
}

/// A client with a valid token of this user.
pub(super) fn client<'a>(app: &'a dyn App, user: &str) -> Client<'a> {
    Client { app, authorization: Some(format!("Bearer {}", token(user))) }
}

impl Client<'_> {
    pub(super) async fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = Request::builder().method(method).uri(target);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.app.call(request.body(Bytes::copy_from_slice(body)).unwrap()).await;
        let (head, body) = response.into_parts();
        Reply { status: head.status, headers: head.headers, body }
    }

    pub(super) async fn send(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.send_text(method, path, &body.to_string()).await
    }

    pub(super) async fn send_text(&self, method: &str, path: &str, body: &str) -> Reply {
        let headers = [("content-type", "application/json")];
        self.request(method, &format!("/api/v1{path}"), &headers, body.as_bytes()).await
    }

    pub(super) async fn bare(&self, method: &str, path: &str) -> Reply {
        self.request(method, &format!("/api/v1{path}"), &[], b"").await
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.bare("GET", path).await
    }

    /// Creates a task with this title and returns its JSON.
    pub(super) async fn create(&self, title: &str) -> Value {
        self.send("POST", "/tasks", &json!({"title": title})).await.ok(201)
    }
}

/// A client without a credential.
pub(super) fn anonymous(app: &dyn App) -> Client<'_> {
    Client { app, authorization: None }
}

/// The path of a task.
pub(super) fn path(task: &Value) -> String {
    format!("/tasks/{}", task["id"].as_str().unwrap())
}

/// The id of no task.
pub(super) const UNKNOWN_ID: &str = "019aa3f0-5c00-7000-8000-000000000000";

/// The requests on a task: the method, the end of the path and a valid body.
pub(super) const ON_A_TASK: [(&str, &str, &str); 5] = [
    ("GET", "", ""),
    ("PUT", "", r#"{"title":"Replaced"}"#),
    ("PATCH", "", r#"{"title":"Patched"}"#),
    ("PATCH", "/complete", ""),
    ("DELETE", "", ""),
];
