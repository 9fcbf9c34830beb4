//! The recipe of a session authenticator, through the API.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use axum::http::{Method, Request, StatusCode};
use bytes::Bytes;
use recipes::session::Sessions;
use sqlx::{Executor as _, PgPool};
use testkit::{
    http::{Client, Server},
    postgres::TestDatabase,
};
use todo_core::{TodoService, api::TodoApi, auth::AllowedOrigins, store::MemoryStore};

const ORIGIN: &str = "https://todo.example";

/// The API with two sessions: a valid one of ann, and an expired one of bob.
async fn api() -> (TestDatabase, Server) {
    let database = testkit::postgres::empty_database().await;
    let pool = PgPool::connect(database.url()).await.unwrap();
    let sessions = "
        create table sessions (token_hash bytea primary key, user_id text not null, expires_at timestamptz not null);
        insert into sessions values (sha256('token-of-ann'), 'ann', now() + interval '1 hour');
        insert into sessions values (sha256('token-of-bob'), 'bob', now() - interval '1 second')";
    pool.execute(sessions).await.unwrap();
    let sessions = Sessions { pool, origins: AllowedOrigins::new([ORIGIN]) };
    let todo = TodoApi::new(TodoService::new(MemoryStore::new()), sessions);
    let app = axum::Router::new().nest("/api/v1", todo_axum::router(todo));
    let server = Server::start(async |listener| axum::serve(listener, app).await.unwrap()).await;
    (database, server)
}

async fn send(client: &Client, method: Method, headers: &[(&str, &str)]) -> StatusCode {
    let writes = method == Method::POST;
    let mut request = Request::builder().method(method).uri("/api/v1/tasks");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if writes { r#"{"title":"Buy milk"}"# } else { "" };
    let request = request.header("content-type", "application/json").body(Bytes::from_static(body.as_bytes()));
    client.send(request.unwrap()).await.status()
}

#[tokio::test]
async fn a_session_is_a_user() {
    let (database, server) = api().await;
    let client = server.client();
    let cookie = ("cookie", "theme=dark; __Host-session=token-of-ann");
    assert_eq!(send(&client, Method::POST, &[cookie, ("origin", ORIGIN)]).await, StatusCode::CREATED);
    assert_eq!(send(&client, Method::GET, &[cookie]).await, StatusCode::OK);
    for cookie in ["", "session=token-of-ann", "__Host-session=", "__Host-session=other", "__Host-session=token-of-bob"]
    {
        assert_eq!(send(&client, Method::GET, &[("cookie", cookie)]).await, StatusCode::UNAUTHORIZED, "{cookie}");
    }
    database.close().await;
}

#[tokio::test]
async fn a_write_from_another_origin_is_rejected() {
    let (database, server) = api().await;
    let client = server.client();
    let cookie = ("cookie", "__Host-session=token-of-ann");
    assert_eq!(send(&client, Method::POST, &[cookie]).await, StatusCode::FORBIDDEN);
    for origin in ["https://evil.example", "http://todo.example", "https://todo.example.evil.example", "null"] {
        assert_eq!(send(&client, Method::POST, &[cookie, ("origin", origin)]).await, StatusCode::FORBIDDEN, "{origin}");
    }
    database.close().await;
}

#[tokio::test]
async fn an_unreachable_session_database_is_503() {
    let (database, server) = api().await;
    let drop = sqlx::raw_sql("drop table sessions");
    drop.execute(&PgPool::connect(database.url()).await.unwrap()).await.unwrap();
    let cookie = ("cookie", "__Host-session=token-of-ann");
    assert_eq!(send(&server.client(), Method::GET, &[cookie]).await, StatusCode::SERVICE_UNAVAILABLE);
    database.close().await;
}
