//! What every guest book does with the todo API in it: one list of cases for `embed-axum`, `embed-warp` and
//! `embed-poem`, each of which says how it is served.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::Value;
use testkit::{
    http::{Client, Server},
    tokens,
};
use todo_core::{TodoService, api::TodoApi, auth::JwtVerifier, store::MemoryStore};

const SECRET: &str = "only-for-tests-only-for-tests-only-for-tests";

async fn guest_book() -> Server {
    let verifier = JwtVerifier::hs256(SECRET).expect("a secret");
    let todo = TodoApi::new(TodoService::new(MemoryStore::new()), verifier);
    Server::start(|listener| super::serve(listener, todo)).await
}

fn bearer(user: &str) -> String {
    format!("Bearer {}", tokens::user_token(SECRET.as_bytes(), user))
}

async fn send(client: &Client, method: Method, path: &str, credential: &str, body: &'static str) -> Response<Bytes> {
    let mut request = Request::builder().method(method).uri(path);
    if !credential.is_empty() {
        request = request.header(header::AUTHORIZATION, credential);
    }
    if body.starts_with('{') {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    client.send(request.body(Bytes::from_static(body.as_bytes())).expect("a request")).await
}

fn text(response: &Response<Bytes>) -> &str {
    str::from_utf8(response.body()).expect("text")
}

#[tokio::test]
async fn the_book_is_read_as_before() {
    let book = guest_book().await;
    let response = send(&book.client(), Method::GET, "/guests", "", "").await;
    assert_eq!((response.status(), text(&response)), (StatusCode::OK, ""));
    // Not even a bad token is looked at.
    let response = send(&book.client(), Method::GET, "/guests", "Bearer nonsense", "").await;
    assert_eq!(response.status(), StatusCode::OK);
    let response = send(&book.client(), Method::PUT, "/guests", "", "").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_ne!(
        response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes),
        Some(&b"application/problem+json"[..])
    );
}

#[tokio::test]
async fn pages_that_are_not_there_are_the_books_to_miss() {
    let book = guest_book().await;
    for path in ["/", "/nowhere", "/guests/7", "/api", "/api/v1", "/api/v1/nowhere", "/api/v2/tasks", "/tasks"] {
        let response = send(&book.client(), Method::GET, path, "", "").await;
        assert_eq!(
            (response.status(), text(&response)),
            (StatusCode::NOT_FOUND, "The book has no such page.\n"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_api_knows_its_users() {
    let book = guest_book().await;
    let client = book.client();
    for (method, body) in [(Method::GET, ""), (Method::POST, r#"{"title":"Buy milk"}"#)] {
        let response = send(&client, method, "/api/v1/tasks", "", body).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }
    let created = send(&client, Method::POST, "/api/v1/tasks", &bearer("ann"), r#"{"title":"Buy milk"}"#).await;
    assert_eq!(created.status(), StatusCode::CREATED, "{}", text(&created));
    for (user, titles) in [("ann", vec!["Buy milk"]), ("bob", vec![])] {
        let listed = send(&client, Method::GET, "/api/v1/tasks", &bearer(user), "").await;
        assert_eq!(listed.status(), StatusCode::OK);
        let tasks: Vec<Value> = serde_json::from_slice(listed.body()).unwrap();
        assert_eq!(tasks.iter().map(|task| task["title"].as_str().unwrap()).collect::<Vec<_>>(), titles, "{user}");
    }
}

#[tokio::test]
async fn an_entry_bears_the_name_of_the_caller() {
    let book = guest_book().await;
    let client = book.client();
    for (user, entry) in [("ann", "Lovely place"), ("bob", "Too many tasks")] {
        let signed = send(&client, Method::POST, "/guests", &bearer(user), entry).await;
        assert_eq!((signed.status(), text(&signed)), (StatusCode::CREATED, "Thank you.\n"));
    }
    let response = send(&client, Method::GET, "/guests", "", "").await;
    assert_eq!(text(&response), "ann: Lovely place\nbob: Too many tasks\n");
}

#[tokio::test]
async fn the_book_refuses_in_the_words_of_the_api() {
    let book = guest_book().await;
    let client = book.client();
    let expired = serde_json::json!({ "sub": "ann", "exp": tokens::now() - 3600 });
    let expired = format!("Bearer {}", tokens::secret_token(SECRET.as_bytes(), &expired));
    let foreign = format!("Bearer {}", tokens::user_token(b"another-secret-another-secret-another", "ann"));
    for credential in ["", "Bearer nonsense", "Basic YW5uOmFubg==", &expired, &foreign] {
        let [own, ours] = [
            send(&client, Method::POST, "/guests", credential, "Let me in").await,
            send(&client, Method::POST, "/api/v1/tasks", credential, r#"{"title":"Let me in"}"#).await,
        ];
        assert_eq!(own.status(), StatusCode::UNAUTHORIZED, "{credential:?}");
        assert_eq!(own.status(), ours.status(), "{credential:?}");
        assert_eq!(own.body(), ours.body(), "{credential:?}");
        let [own, ours] = [own, ours].map(|response| {
            let mut headers = response.headers().clone();
            headers.remove(header::DATE);
            headers
        });
        assert_eq!(own, ours, "{credential:?}");
        assert!(own.contains_key(header::WWW_AUTHENTICATE));
    }
    assert_eq!(text(&send(&client, Method::GET, "/guests", "", "").await), "");
}

#[test]
fn the_api_moved_in_with_at_most_ten_lines() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files: Vec<_> = fs::read_dir(source).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let sources: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let (marked, rest): (Vec<_>, Vec<_>) =
        sources.iter().flat_map(|source| source.lines()).partition(|line| line.ends_with("// +"));
    assert!((1..=10).contains(&marked.len()), "{}: {marked:#?}", marked.len());
    // All that knows of the API is marked.
    let code = rest.into_iter().filter(|line| !line.trim_start().starts_with("//"));
    let unmarked: Vec<_> = code.filter(|line| line.to_lowercase().contains("todo")).collect();
    assert_eq!(unmarked, Vec::<&str>::new());
}

/// The program itself, which is ended with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_program_serves_both() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = Command::new(env!(concat!("CARGO_BIN_EXE_", env!("CARGO_PKG_NAME"))))
        .current_dir(directory.path())
        .env("PORT", "0")
        .env("BETTER_AUTH_SECRET", SECRET)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = program.stdout.take().unwrap();
    let _program = Program(program);
    let line = BufReader::new(output).lines().next().unwrap().unwrap();
    let client = Client::new(line.strip_prefix("listening on http://").unwrap().parse().unwrap());
    assert_eq!(send(&client, Method::GET, "/guests", "", "").await.status(), StatusCode::OK);
    let created = send(&client, Method::POST, "/api/v1/tasks", &bearer("ann"), r#"{"title":"Buy milk"}"#).await;
    assert_eq!(created.status(), StatusCode::CREATED, "{}", text(&created));
}
