//! A guest book over poem, and the todo API in it. The book was there first: take away the lines that end in `// +`,
//! here and in `main.rs`, and it is what it was.
//!
//! ```sh
//! export BETTER_AUTH_SECRET=$(openssl rand -hex 32)   # the secret of whoever signs your users in
//! cargo run -p embed-poem
//! token=$(cargo run -q -p todo-server -- token --user ann)
//! curl -H "authorization: Bearer $token" --json '{"title": "Buy milk"}' localhost:8000/api/v1/tasks
//! curl -H "authorization: Bearer $token" --data 'Lovely place' localhost:8000/guests
//! curl localhost:8000/guests
//! ```
//!
//! The book now knows its guests: whoever signs it is asked for the same token as at the API, and refused in the same
//! words. Reading it takes no token, and unknown paths are answered by the book, as before.

use std::sync::{Arc, Mutex, PoisonError};

use poem::{
    Endpoint, EndpointExt as _, IntoResponse as _, Response, Route, error::NotFoundError, get, handler,
    http::StatusCode, web::Data,
};

/// How many entries the book has room for.
const PAGES: usize = 1000;

/// What the guests have written, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Guests(Arc<Mutex<Vec<String>>>);

/// The whole service.
#[must_use]
pub fn app(
    guests: Guests,
    todo: todo_core::api::TodoApi, // +
) -> impl Endpoint {
    let app = Route::new().at("/guests", get(read).post(sign));
    let app = todo_poem::mount(app, "/api/v1", todo.clone()); // +
    app.data(guests)
        .data(todo) // +
        .catch_error(async |_: NotFoundError| answer(StatusCode::NOT_FOUND, "The book has no such page.\n"))
}

fn answer(status: StatusCode, text: &'static str) -> Response {
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
    if entries.len() == PAGES {
        return answer(StatusCode::CONFLICT, "The book is full.\n");
    }
    entry.push('\n');
    entries.push(entry);
    answer(StatusCode::CREATED, "Thank you.\n")
}
