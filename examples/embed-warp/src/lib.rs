//! A guest book with warp that embeds the todo API. The lines that end in `// +`, here and in `main.rs`, embed the API;
//! without them, the guest book works as before.
//!
//! ```sh
//! export BETTER_AUTH_SECRET=$(openssl rand -hex 32)   # the secret that signs your users' tokens
//! cargo run -p embed-warp
//! token=$(cargo run -q -p todo-server -- token --user ann)
//! curl -H "authorization: Bearer $token" --json '{"title": "Buy milk"}' localhost:8000/api/v1/tasks
//! curl -H "authorization: Bearer $token" --data 'Lovely place' localhost:8000/guests
//! curl localhost:8000/guests
//! ```
//!
//! Signing the guest book now requires the same token as the API, and a request without one gets the same response.
//! Reading it requires no token, and unknown paths get the guest book's 404, as before.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use warp::{
    Filter as _, Rejection, Reply,
    filters::BoxedFilter,
    http::{Response, StatusCode},
    reply::with_status,
};

/// The maximum number of entries.
const MAX_ENTRIES: usize = 1000;

/// The entries of the guests, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Guests(Arc<Mutex<Vec<String>>>);

/// The guest book with the API.
pub fn app(
    guests: Guests,
    todo: todo_core::api::TodoApi, // +
) -> BoxedFilter<(impl Reply,)> {
    let guests = warp::path!("guests").map(move || guests.clone());
    let read = guests.clone().and(warp::get()).map(read);
    let sign = guests
        .and(warp::post())
        .and(todo_warp::current_user(todo.clone())) // +
        .and(warp::body::bytes())
        .map(sign);
    read.or(sign)
        .or(warp::path!("api" / "v1" / ..).and(todo_warp::filter(todo))) // +
        .recover(no_such_page)
        .boxed()
}

#[expect(clippy::needless_pass_by_value, reason = "a filter passes extracted values by value")]
fn read(guests: Guests) -> String {
    guests.0.lock().unwrap_or_else(PoisonError::into_inner).concat()
}

#[expect(clippy::needless_pass_by_value, reason = "a filter passes extracted values by value")]
#[expect(clippy::result_large_err, reason = "the error is a response")]
fn sign(
    guests: Guests,
    user: todo_warp::CurrentUser, // +
    entry: Bytes,
) -> Result<impl Reply, Response<Bytes>> {
    let mut entry = String::from_utf8_lossy(&entry).into_owned();
    entry.insert_str(0, &format!("{}: ", user?.user_id)); // +
    let mut entries = guests.0.lock().unwrap_or_else(PoisonError::into_inner);
    if entries.len() == MAX_ENTRIES {
        let mut full = Response::new(Bytes::from("The guest book is full.\n"));
        *full.status_mut() = StatusCode::CONFLICT;
        return Err(full);
    }
    entry.push('\n');
    entries.push(entry);
    Ok(with_status("Thank you.\n", StatusCode::CREATED))
}

async fn no_such_page(rejection: Rejection) -> Result<impl Reply, Rejection> {
    if rejection.is_not_found() {
        Ok(with_status("The guest book has no such page.\n", StatusCode::NOT_FOUND))
    } else {
        Err(rejection)
    }
}
