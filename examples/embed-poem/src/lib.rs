//! A guest book with poem that embeds the todo API. The lines that end in `// +`, here and in `main.rs`, embed the API;
//! without them, the guest book works as before.
//!
//! ```sh
//! export BETTER_AUTH_SECRET=$(openssl rand -hex 32)   # the secret that signs your users' tokens
//! cargo run -p embed-poem
//! token=$(cargo run -q -p todo-server -- token --user ann)
//! curl -H "authorization: Bearer $token" --json '{"title": "Buy milk"}' localhost:8000/api/v1/tasks
//! curl -H "authorization: Bearer $token" --data 'Lovely place' localhost:8000/guests
//! curl localhost:8000/guests
//! ```
//!
//! Signing the guest book now requires the same token as the API, and a request without one gets the same response.
//! Reading it requires no token, and unknown paths get the guest book's 404, as before.

use std::sync::{Arc, Mutex, PoisonError};

use poem::{
    Endpoint, EndpointExt as _, IntoResponse as _, Response, Route, error::NotFoundError, get, handler,
    http::StatusCode, web::Data,
};

/// The maximum number of entries.
const MAX_ENTRIES: usize = 1000;

/// The entries of the guests, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Guests(Arc<Mutex<Vec<String>>>);

/// The guest book with the API.
#[must_use]
pub fn app(
    guests: Guests,
    todo: todo_core::api::TodoApi, // +
) -> impl Endpoint {
    let app = Route::new().at("/guests", get(read).post(sign));
    let app = todo_poem::mount(app, "/api/v1", todo.clone()); // +
    app.data(guests)
        .data(todo) // +
        .catch_error(async |_: NotFoundError| respond(StatusCode::NOT_FOUND, "The guest book has no such page.\n"))
}

fn respond(status: StatusCode, text: &'static str) -> Response {
    text.with_status(status).into_response()
}

#[handler]
fn read(Data(guests): Data<&Guests>) -> String {
    guests.0.lock().unwrap_or_else(PoisonError::into_inner).concat()
}

#[handler]
fn sign(
    Data(guests): Data<&Guests>,
    todo_poem::CurrentUser(user): todo_poem::CurrentUser, // +
    mut entry: String,
) -> Response {
    entry.insert_str(0, &format!("{}: ", user.user_id)); // +
    let mut entries = guests.0.lock().unwrap_or_else(PoisonError::into_inner);
    if entries.len() == MAX_ENTRIES {
        return respond(StatusCode::CONFLICT, "The guest book is full.\n");
    }
    entry.push('\n');
    entries.push(entry);
    respond(StatusCode::CREATED, "Thank you.\n")
}
