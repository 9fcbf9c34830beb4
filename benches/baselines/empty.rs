//! The limit of axum itself: no token, no database, and a constant response with the length of a list of 20 tasks.

use std::{env, error::Error};

use axum::{
    Router,
    body::Bytes,
    http::{StatusCode, header::CONTENT_TYPE},
    routing::{get, patch},
    serve::ListenerExt as _,
};
use tokio::net::TcpListener;

/// One of the tasks that the load test puts into the database.
const TASK: &str = r#"{"id":"01900000-0000-7000-8000-100000000000","user_id":"userOfTheLoadTest000001000000000","title":"Task 10 of user 1000000: water the plants","description":null,"completed":false,"created_at":"2025-11-21T08:00:00.123456Z","updated_at":"2025-11-21T08:00:00.123456Z","version":1}"#;

// As in todo-server.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Runtime::new()?.block_on(serve())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let body = Bytes::from(format!("[{}]", [TASK; 20].join(",")));
    let answer = |status: StatusCode| {
        let body = body.clone();
        move || async move { (status, [(CONTENT_TYPE, "application/json")], body) }
    };
    let app = Router::new()
        .route("/api/tasks", get(answer(StatusCode::OK)).post(answer(StatusCode::CREATED)))
        .route("/api/tasks/{id}", get(answer(StatusCode::OK)))
        .route("/api/tasks/{id}/complete", patch(answer(StatusCode::OK)))
        .route("/health", get(async || "alive"));
    let address = format!("{}:{}", env::var("HOST")?, env::var("PORT")?);
    let listener = TcpListener::bind(address).await?.tap_io(|stream| {
        // Without this option the socket only has a higher latency.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, app).await?)
}
