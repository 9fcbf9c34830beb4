//! What a client of the protocol does not do by itself. `scripts/check-mcp` uses the server with a real client.

use axum::{
    body::Bytes,
    http::{Method, Request, Response, StatusCode, header::AUTHORIZATION},
};
use mcp::{Addresses, app};
use serde_json::{Value, json};
use testkit::{
    http::{Client, Server},
    tokens::{claims, now, secret_token, user_token},
};
use todo_core::{
    TodoService,
    api::TodoApi,
    auth::{JwtVerifier, RateLimiter},
    store::{MemoryStore, PostgresOptions, PostgresStore},
};

const SECRET: &[u8] = b"a secret of thirty-two bytes or more";

fn todo(service: TodoService) -> TodoApi {
    TodoApi::new(service, JwtVerifier::hs256(SECRET).expect("a secret"))
}

async fn serve(todo: TodoApi) -> Server {
    let addresses = Addresses {
        endpoint: "https://todo.example/mcp".parse().expect("a URL"),
        authorization_server: Some("https://login.example".to_owned()),
    };
    Server::start(async move |listener| {
        axum::serve(listener, app(todo, &addresses)).await.expect("the server runs");
    })
    .await
}

async fn memory() -> Server {
    serve(todo(TodoService::new(MemoryStore::new()))).await
}

async fn send(
    client: &Client,
    method: Method,
    token: Option<&str>,
    headers: &[(&str, &str)],
    body: &Value,
) -> Response<Bytes> {
    let mut request = Request::builder()
        .method(method)
        .uri("/mcp")
        .header("Content-Type", "application/json")
        .header("Accept", "application/json, text/event-stream");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send(request.body(Bytes::from(body.to_string())).expect("a request")).await
}

fn call(tool: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

fn parsed(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap_or_else(|_| panic!("{response:?}"))
}

/// Calls a tool, and returns whether it has failed, and the result.
async fn tool(client: &Client, user: &str, tool: &str, arguments: &Value) -> (bool, Value) {
    let response = send(client, Method::POST, Some(&user_token(SECRET, user)), &[], &call(tool, arguments)).await;
    assert_eq!(response.status(), StatusCode::OK, "{response:?}");
    let result = parsed(&response)["result"].clone();
    let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().expect("a text")).expect("JSON");
    assert_eq!(text, result["structuredContent"]);
    (result["isError"] == true, text)
}

async fn titles(client: &Client, user: &str) -> Vec<String> {
    let (_, page) = tool(client, user, "list_tasks", &json!({})).await;
    let tasks = page["tasks"].as_array().expect("tasks").iter();
    tasks.map(|task| task["title"].as_str().expect("a title").to_owned()).collect()
}

#[tokio::test]
async fn a_request_without_a_valid_token_is_told_where_to_get_one() {
    let server = memory().await;
    let client = server.client();
    let mut expired = claims("ann");
    expired["exp"] = json!(now() - 3600);
    let expired = secret_token(SECRET, &expired);
    let metadata = r#"resource_metadata="https://todo.example/.well-known/oauth-protected-resource/mcp""#;
    for (token, challenge) in [
        (None, format!("Bearer {metadata}")),
        (
            Some(&*expired),
            format!(r#"Bearer error="invalid_token", error_description="The token has expired.", {metadata}"#),
        ),
    ] {
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let response = send(&client, method.clone(), token, &[], &call("list_tasks", &json!({}))).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method}");
            assert_eq!(response.headers()["www-authenticate"], challenge, "{method}");
        }
    }
    let request = Request::get("/.well-known/oauth-protected-resource/mcp").body(Bytes::new()).expect("a request");
    let document = parsed(&client.send(request).await);
    assert_eq!(document["resource"], "https://todo.example/mcp");
    assert_eq!(document["authorization_servers"], json!(["https://login.example"]));
}

#[tokio::test]
async fn the_id_of_a_session_gives_no_access() {
    let server = memory().await;
    let client = server.client();
    let (ann, bob) = (user_token(SECRET, "ann"), user_token(SECRET, "bob"));
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
    let response = send(&client, Method::POST, Some(&ann), &[], &initialize).await;
    assert_eq!(response.status(), StatusCode::OK, "{response:?}");
    // A server with sessions would send an id. Then it must not help either.
    let id =
        response.headers().get("mcp-session-id").map_or("9f0c5c1e-ann", |id| id.to_str().expect("ASCII")).to_owned();
    let session = [("Mcp-Session-Id", &*id), ("Last-Event-ID", "0")];
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let response = send(&client, Method::POST, Some(&ann), &session, &initialized).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED, "{response:?}");
    let add = call("add_task", &json!({"title": "Ann's secret"}));
    let response = send(&client, Method::POST, Some(&ann), &session, &add).await;
    assert_eq!(response.status(), StatusCode::OK, "{response:?}");

    let list = call("list_tasks", &json!({}));
    let response = send(&client, Method::POST, Some(&bob), &session, &list).await;
    assert_eq!(parsed(&response)["result"]["structuredContent"]["tasks"], json!([]));
    // Neither what the session has sent, nor its end.
    for method in [Method::GET, Method::DELETE] {
        let response = send(&client, method, Some(&bob), &session, &json!({})).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{response:?}");
    }
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let response = send(&client, method, None, &session, &list).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{response:?}");
    }
    let response = send(&client, Method::POST, Some(&ann), &session, &list).await;
    assert_eq!(parsed(&response)["result"]["structuredContent"]["tasks"][0]["title"], "Ann's secret");
}

#[tokio::test]
async fn web_pages_foreign_hosts_and_large_bodies_are_rejected() {
    let server = memory().await;
    let client = server.client();
    let ann = user_token(SECRET, "ann");
    let list = call("list_tasks", &json!({}));
    for (headers, status) in [
        ([("Host", "evil.example")], StatusCode::FORBIDDEN),
        ([("Origin", "https://evil.example")], StatusCode::FORBIDDEN),
        ([("Origin", "null")], StatusCode::FORBIDDEN),
        ([("Host", "todo.example")], StatusCode::OK),
        ([("Host", "localhost:8000")], StatusCode::OK),
    ] {
        let response = send(&client, Method::POST, Some(&ann), &headers, &list).await;
        assert_eq!(response.status(), status, "{headers:?}");
    }
    let large = call("add_task", &json!({"title": "x".repeat(64 * 1024)}));
    let response = send(&client, Method::POST, Some(&ann), &[], &large).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(titles(&client, "ann").await.is_empty());
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let server = serve(todo(TodoService::new(MemoryStore::new()).with_quota(1))).await;
    let client = server.client();
    let call = async |name: &str, arguments: Value| {
        let (is_error, result) = tool(&client, "ann", name, &arguments).await;
        assert!(is_error, "{name} {arguments}: {result}");
        result
    };
    let invalid = call("add_task", json!({"title": " ", "due": "tomorrow", "colour": "red", "tags": ["a", 7]})).await;
    assert_eq!(invalid["code"], "validation_failed");
    let fields: Vec<_> = invalid["field_errors"].as_object().expect("fields").keys().collect();
    assert_eq!(fields, ["colour", "due", "tags.1", "title"]);
    let unknown = call("search_tasks", json!({"q": "", "status": "open"})).await;
    assert_eq!(unknown["field_errors"], json!({"q": ["must not be blank"], "status": ["is unknown"]}));

    let (_, added) = tool(&client, "ann", "add_task", &json!({"title": "Buy milk"})).await;
    let id = &added["task"]["id"];
    assert_eq!(call("add_task", json!({"title": "One more"})).await["code"], "quota_exceeded");
    let conflict = call("change_task", json!({"id": id, "version": 7, "title": "Buy bread"})).await;
    assert_eq!((&conflict["code"], &conflict["current"]), (&json!("version_conflict"), &added["task"]));
    let both = call("move_task", json!({"id": id, "first": true, "last": true})).await;
    assert_eq!(both["code"], "validation_failed");

    // Another user's task does not exist.
    for name in ["change_task", "complete_task", "delete_task"] {
        let (is_error, result) = tool(&client, "bob", name, &json!({"id": id})).await;
        assert_eq!((is_error, &result["code"]), (true, &json!("task_not_found")), "{name}");
    }
    let (_, result) = tool(&client, "bob", "move_task", &json!({"id": id, "first": true})).await;
    assert_eq!(result["code"], "task_not_found");
    assert_eq!(titles(&client, "ann").await, ["Buy milk"]);

    let unknown = self::call("drop_table", &json!({}));
    let response = send(&client, Method::POST, Some(&user_token(SECRET, "ann")), &[], &unknown).await;
    assert_eq!(parsed(&response)["error"]["code"], -32602);
}

#[tokio::test]
async fn a_failure_of_the_store_is_reported_without_its_cause() {
    let url = "postgres://todo:hunter2@127.0.0.1:1/todo";
    let store = PostgresStore::connect_lazy(url, &PostgresOptions::default()).expect("a URL");
    let server = serve(todo(TodoService::new(store))).await;
    let (is_error, result) = tool(&server.client(), "ann", "list_tasks", &json!({})).await;
    assert!(is_error);
    let expected = json!({
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "The service is unavailable. Retry later.",
        "code": "unavailable",
        "retry_after_seconds": 1,
    });
    assert_eq!(result, expected);
}

#[tokio::test]
async fn gates_are_asked_at_each_request() {
    let limit = RateLimiter::new("2/60s".parse().expect("a rate"));
    let server = serve(todo(TodoService::new(MemoryStore::new())).with_gate(limit)).await;
    let client = server.client();
    for _ in 0..2 {
        titles(&client, "ann").await;
    }
    let ann = user_token(SECRET, "ann");
    let response = send(&client, Method::POST, Some(&ann), &[], &call("list_tasks", &json!({}))).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(response.headers().contains_key("retry-after"), "{response:?}");
    titles(&client, "bob").await;
}
