//! The test cases of the examples `embed-axum`, `embed-warp` and `embed-poem`: a guest book in which the todo API is
//! embedded.
//!
//! [`embedding_cases!`](crate::embedding_cases) generates one test for each case. Its argument is the path of a
//! function `async fn(TcpListener, TodoApi)` that serves the guest book.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::Value;
use todo_core::{TodoService, api::TodoApi, auth::JwtVerifier, store::MemoryStore};

use crate::{
    http::{Client, Server},
    tokens,
};

/// Generates a test for each case.
#[macro_export]
macro_rules! embedding_cases {
    ($serve:path) => {
        $crate::embedding_cases! { @ $serve;
            the_guest_book_can_be_read_without_a_token
            unknown_paths_get_the_404_of_the_guest_book
            the_api_separates_users
            an_entry_has_the_name_of_the_caller
            the_guest_book_rejects_credentials_as_the_api_does
        }

        #[test]
        fn the_api_is_embedded_in_at_most_ten_lines() {
            $crate::embedding::at_most_ten_marked_lines(env!("CARGO_MANIFEST_DIR"));
        }

        #[tokio::test]
        async fn the_program_serves_the_guest_book_and_the_api() {
            let program = env!(concat!("CARGO_BIN_EXE_", env!("CARGO_PKG_NAME")));
            $crate::embedding::the_program_serves_both(program).await;
        }
    };
    (@ $serve:path; $($case:ident)+) => { $(
        #[tokio::test]
        async fn $case() {
            let api = $crate::embedding::api();
            let server = $crate::http::Server::start(|listener| $serve(listener, api)).await;
            $crate::embedding::$case(&server).await;
        }
    )+ };
}

const SECRET: &str = "only-for-tests-only-for-tests-only-for-tests";

/// Creates the API that is embedded.
///
/// # Panics
///
/// Never.
#[must_use]
pub fn api() -> TodoApi {
    let verifier = JwtVerifier::hs256(SECRET).expect("a secret");
    TodoApi::new(TodoService::new(MemoryStore::new()), verifier)
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

/// The guest book's own responses do not change.
///
/// # Panics
///
/// If the case fails.
pub async fn the_guest_book_can_be_read_without_a_token(server: &Server) {
    let response = send(&server.client(), Method::GET, "/guests", "", "").await;
    assert_eq!((response.status(), text(&response)), (StatusCode::OK, ""));
    // A bad token is ignored too.
    let response = send(&server.client(), Method::GET, "/guests", "Bearer nonsense", "").await;
    assert_eq!(response.status(), StatusCode::OK);
    let response = send(&server.client(), Method::PUT, "/guests", "", "").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_ne!(
        response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes),
        Some(&b"application/problem+json"[..])
    );
}

/// Paths that belong neither to the guest book nor to the API get the guest book's 404.
///
/// # Panics
///
/// If the case fails.
pub async fn unknown_paths_get_the_404_of_the_guest_book(server: &Server) {
    for path in ["/", "/nowhere", "/guests/7", "/api", "/api/v1", "/api/v1/nowhere", "/api/v2/tasks", "/tasks"] {
        let response = send(&server.client(), Method::GET, path, "", "").await;
        assert_eq!(
            (response.status(), text(&response)),
            (StatusCode::NOT_FOUND, "The guest book has no such page.\n"),
            "{path}"
        );
    }
}

/// The API requires a token, and each user has their own tasks.
///
/// # Panics
///
/// If the case fails.
pub async fn the_api_separates_users(server: &Server) {
    let client = server.client();
    for (method, body) in [(Method::GET, ""), (Method::POST, r#"{"title":"Buy milk"}"#)] {
        let response = send(&client, method, "/api/v1/tasks", "", body).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }
    let created = send(&client, Method::POST, "/api/v1/tasks", &bearer("ann"), r#"{"title":"Buy milk"}"#).await;
    assert_eq!(created.status(), StatusCode::CREATED, "{}", text(&created));
    for (user, titles) in [("ann", vec!["Buy milk"]), ("bob", vec![])] {
        let listed = send(&client, Method::GET, "/api/v1/tasks", &bearer(user), "").await;
        assert_eq!(listed.status(), StatusCode::OK);
        let tasks: Vec<Value> = serde_json::from_slice(listed.body()).expect("a list");
        let listed: Vec<_> = tasks.iter().map(|task| task["title"].as_str().expect("a title")).collect();
        assert_eq!(listed, titles, "{user}");
    }
}

/// The guest book's own handler gets the caller.
///
/// # Panics
///
/// If the case fails.
pub async fn an_entry_has_the_name_of_the_caller(server: &Server) {
    let client = server.client();
    for (user, entry) in [("ann", "Lovely place"), ("bob", "Too many tasks")] {
        let signed = send(&client, Method::POST, "/guests", &bearer(user), entry).await;
        assert_eq!((signed.status(), text(&signed)), (StatusCode::CREATED, "Thank you.\n"));
    }
    let response = send(&client, Method::GET, "/guests", "", "").await;
    assert_eq!(text(&response), "ann: Lovely place\nbob: Too many tasks\n");
}

/// A missing or bad credential gets the same response from the guest book's handler and from the API.
///
/// # Panics
///
/// If the case fails.
pub async fn the_guest_book_rejects_credentials_as_the_api_does(server: &Server) {
    let client = server.client();
    let expired = serde_json::json!({ "sub": "ann", "exp": tokens::now() - 3600 });
    let expired = format!("Bearer {}", tokens::secret_token(SECRET.as_bytes(), &expired));
    let foreign = format!("Bearer {}", tokens::user_token(b"another-secret-another-secret-another", "ann"));
    for credential in ["", "Bearer nonsense", "Basic YW5uOmFubg==", &expired, &foreign] {
        let [host, api] = [
            send(&client, Method::POST, "/guests", credential, "Hello").await,
            send(&client, Method::POST, "/api/v1/tasks", credential, r#"{"title":"Hello"}"#).await,
        ];
        assert_eq!(host.status(), StatusCode::UNAUTHORIZED, "{credential:?}");
        assert_eq!(host.status(), api.status(), "{credential:?}");
        assert_eq!(host.body(), api.body(), "{credential:?}");
        let [host, api] = [host, api].map(|response| {
            let mut headers = response.headers().clone();
            headers.remove(header::DATE);
            headers
        });
        assert_eq!(host, api, "{credential:?}");
        assert!(host.contains_key(header::WWW_AUTHENTICATE));
    }
    assert_eq!(text(&send(&client, Method::GET, "/guests", "", "").await), "");
}

/// Checks that the sources of an example have at most ten lines marked with `// +`, and that only those use the API.
///
/// # Panics
///
/// If the case fails.
pub fn at_most_ten_marked_lines(manifest_dir: &str) {
    let sources = fs::read_dir(Path::new(manifest_dir).join("src")).expect("sources");
    let mut files: Vec<_> = sources.map(|file| file.expect("a file").path()).collect();
    files.sort();
    let sources: Vec<_> = files.iter().map(|file| fs::read_to_string(file).expect("a source")).collect();
    let (marked, rest): (Vec<_>, Vec<_>) =
        sources.iter().flat_map(|source| source.lines()).partition(|line| line.ends_with("// +"));
    assert!((1..=10).contains(&marked.len()), "{}: {marked:#?}", marked.len());
    let code = rest.into_iter().filter(|line| !line.trim_start().starts_with("//"));
    let unmarked: Vec<_> = code.filter(|line| line.to_lowercase().contains("todo")).collect();
    assert_eq!(unmarked, Vec::<&str>::new(), "lines that use the API without a mark");
}

/// The program of an example, which is killed at the end of the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program of an example and calls the guest book and the API.
///
/// # Panics
///
/// If the case fails.
pub async fn the_program_serves_both(program: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut program = Command::new(program)
        .current_dir(directory.path())
        .env("PORT", "0")
        .env("BETTER_AUTH_SECRET", SECRET)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let output = program.stdout.take().expect("the output is piped");
    let _program = Program(program);
    let line = BufReader::new(output).lines().next().expect("a line").expect("text");
    let address = line.strip_prefix("listening on http://").expect("an address").parse().expect("an address");
    let client = Client::new(address);
    assert_eq!(send(&client, Method::GET, "/guests", "", "").await.status(), StatusCode::OK);
    let created = send(&client, Method::POST, "/api/v1/tasks", &bearer("ann"), r#"{"title":"Buy milk"}"#).await;
    assert_eq!(created.status(), StatusCode::CREATED, "{}", text(&created));
}
