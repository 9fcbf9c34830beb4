//! A guest book over axum, and the todo API in it. The book was there first: take away the lines that end in `// +`,
//! here and in `main.rs`, and it is what it was.
//!
//! ```sh
//! export BETTER_AUTH_SECRET=$(openssl rand -hex 32)   # the secret of whoever signs your users in
//! cargo run -p embed-axum
//! token=$(cargo run -q -p todo-server -- token --user ann)
//! curl -H "authorization: Bearer $token" --json '{"title": "Buy milk"}' localhost:8000/api/v1/tasks
//! curl -H "authorization: Bearer $token" --data 'Lovely place' localhost:8000/guests
//! curl localhost:8000/guests
//! ```
//!
//! The book now knows its guests: whoever signs it is asked for the same token as at the API, and refused in the same
//! words. Reading it takes no token, and unknown paths are answered by the book, as before.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    extract::{FromRef, State},
    http::StatusCode,
    routing::get,
};

/// How many entries the book has room for.
const PAGES: usize = 1000;

/// What the guests have written, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Guests(Arc<Mutex<Vec<String>>>);

/// What the handlers share.
#[derive(Clone, Debug, FromRef)]
#[expect(missing_docs, reason = "the types say it")]
pub struct AppState {
    pub guests: Guests,
    pub todo: todo_core::api::TodoApi, // +
}

/// The whole service.
pub fn app(state: AppState) -> Router {
    Router::new()
        .route("/guests", get(read).post(sign))
        .nest("/api/v1", todo_axum::router(state.todo.clone())) // +
        .fallback(async || (StatusCode::NOT_FOUND, "The book has no such page.\n"))
        .with_state(state)
}

async fn read(State(guests): State<Guests>) -> String {
    guests.0.lock().unwrap_or_else(PoisonError::into_inner).concat()
}

async fn sign(
    State(guests): State<Guests>,
    todo_axum::CurrentUser(user): todo_axum::CurrentUser, // +
    mut entry: String,
) -> (StatusCode, &'static str) {
    entry.insert_str(0, &format!("{}: ", user.user_id)); // +
    let mut entries = guests.0.lock().unwrap_or_else(PoisonError::into_inner);
    if entries.len() == PAGES {
        return (StatusCode::CONFLICT, "The book is full.\n");
    }
    entry.push('\n');
    entries.push(entry);
    (StatusCode::CREATED, "Thank you.\n")
}
