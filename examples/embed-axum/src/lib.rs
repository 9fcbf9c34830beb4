//! A guest book with axum that embeds the todo API. The lines that end in `// +`, here and in `main.rs`, embed the API;
//! without them, the guest book works as before.
//!
//! ```sh
//! export BETTER_AUTH_SECRET=$(openssl rand -hex 32)   # the secret that signs your users' tokens
//! cargo run -p embed-axum
//! token=$(cargo run -q -p todo-server -- token --user ann)
//! curl -H "authorization: Bearer $token" --json '{"title": "Buy milk"}' localhost:8000/api/v1/tasks
//! curl -H "authorization: Bearer $token" --data 'Lovely place' localhost:8000/guests
//! curl localhost:8000/guests
//! ```
//!
//! Signing the guest book now requires the same token as the API, and a request without one gets the same response.
//! Reading it requires no token, and unknown paths get the guest book's 404, as before.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    extract::{FromRef, State},
    http::StatusCode,
    routing::get,
};

/// The maximum number of entries.
const MAX_ENTRIES: usize = 1000;

/// The entries of the guests, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Guests(Arc<Mutex<Vec<String>>>);

/// The state of the handlers.
#[derive(Clone, Debug, FromRef)]
#[expect(missing_docs, reason = "the types document the fields")]
pub struct AppState {
    pub guests: Guests,
    pub todo: todo_core::api::TodoApi, // +
}

/// The guest book with the API.
pub fn app(state: AppState) -> Router {
    Router::new()
        .route("/guests", get(read).post(sign))
        .nest("/api/v1", todo_axum::router(state.todo.clone())) // +
        .fallback(async || (StatusCode::NOT_FOUND, "The guest book has no such page.\n"))
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
    if entries.len() == MAX_ENTRIES {
        return (StatusCode::CONFLICT, "The guest book is full.\n");
    }
    entry.push('\n');
    entries.push(entry);
    (StatusCode::CREATED, "Thank you.\n")
}
