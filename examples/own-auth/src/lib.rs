//! The todo API for a host that authenticates its users by session cookies, which it stores in a table of its own.
//!
//! ```sh
//! cargo run -p own-auth       # prints the password of ann
//! curl -c jar -H 'origin: http://localhost:8000' --json '{"name": "ann", "password": "..."}' http://localhost:8000/login
//! curl -b jar -H 'origin: http://localhost:8000' --json '{"title": "Buy milk"}' http://localhost:8000/api/v1/tasks
//! curl -b jar http://localhost:8000/api/v1/tasks
//! curl -b jar -H 'origin: http://localhost:8000' -X POST http://localhost:8000/logout
//! ```
//!
//! `POST /signup` takes the same body as `/login`, adds a user, and signs the user in. `DELETE /account` deletes the user,
//! the sessions and the tasks in one transaction, since all of them are in one file: either everything is deleted, or
//! nothing.
//!
//! [`Accounts`] implements both traits of the library: [`Authenticator`](todo_core::auth::Authenticator) finds the user
//! of a request's session, and [`Gate`](todo_core::auth::Gate) rejects a user who is disabled or has signed out
//! everywhere, from the next request on.
//!
//! Browsers also send cookies with requests that other sites cause. Writes are therefore accepted only with the
//! service's own `Origin`, and rejected with 403 otherwise: [`AllowedOrigins`](todo_core::auth::AllowedOrigins).
//!
//! The authenticator also says what a 401 looks like ([`Credentials`](todo_core::auth::Credentials)), and attaches the
//! row of the user to the identity, so that the gate and the handlers need not read it again.
//!
//! A public service also has to limit wrong passwords and delete expired sessions, which this example does not.

mod accounts;

use axum::{
    Json, Router,
    body::Body,
    extract::{FromRef, State},
    http::{HeaderMap, Method, StatusCode, header::SET_COOKIE},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post},
};
use serde::Deserialize;
use todo_axum::CurrentUser;
use todo_core::{
    TodoService, UserId,
    api::{TodoApi, problem},
    auth::AuthError,
    store::SqliteStore,
};

pub use accounts::{Accounts, COOKIE, secret};

/// The state of the host's handlers.
#[derive(Clone, Debug, FromRef)]
struct AppState {
    accounts: Accounts,
    todo: TodoApi,
    tasks: SqliteStore,
}

/// The whole service: the todo API under `/api/v1` and the host's own routes. The tasks are in the file of the accounts.
pub fn app(accounts: Accounts, tasks: SqliteStore) -> Router {
    let service = TodoService::new(tasks.clone());
    let todo = TodoApi::new(service, accounts.clone()).with_gate(accounts.clone());
    Router::new()
        .route("/me", get(me))
        .route("/signup", post(sign_up))
        .route("/account", delete(delete_account))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/logout/everywhere", post(logout_everywhere))
        .nest("/api/v1", todo_axum::router(todo.clone()))
        .with_state(AppState { accounts, todo, tasks })
}

/// A handler of the host. Its extractor calls the authenticator and the gate.
async fn me(CurrentUser(user): CurrentUser) -> String {
    user.user_id.to_string()
}

#[derive(Deserialize)]
struct Login {
    name: String,
    password: String,
}

async fn login(
    State(accounts): State<Accounts>,
    method: Method,
    headers: HeaderMap,
    Json(login): Json<Login>,
) -> Response {
    // Otherwise another site could sign its visitors in to an account of its own, and read what they write.
    if let Err(error) = accounts.check_origin(&method, &headers) {
        return reject(error);
    }
    match accounts.begin_session(&login.name, login.password).await {
        Ok(Some(cookie)) => (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response(),
        Ok(None) => (StatusCode::FORBIDDEN, "Wrong name or password.\n").into_response(),
        Err(error) => reject(error),
    }
}

/// The least number of characters of a new password (NIST SP 800-63B, section 3.1.1.2, for a password and nothing else).
const SHORTEST_PASSWORD: usize = 15;

async fn sign_up(
    State(accounts): State<Accounts>,
    method: Method,
    headers: HeaderMap,
    Json(login): Json<Login>,
) -> Response {
    if let Err(error) = accounts.check_origin(&method, &headers) {
        return reject(error);
    }
    let Ok(name) = UserId::new(login.name) else {
        return (StatusCode::UNPROCESSABLE_ENTITY, "The name must have 1 to 255 characters.\n").into_response();
    };
    if login.password.chars().count() < SHORTEST_PASSWORD {
        return (StatusCode::UNPROCESSABLE_ENTITY, "The password must have at least 15 characters.\n").into_response();
    }
    match accounts.sign_up(&name, login.password.clone()).await {
        Ok(true) => {}
        Ok(false) => return (StatusCode::CONFLICT, "Another user has this name.\n").into_response(),
        Err(error) => return reject(error),
    }
    match accounts.begin_session(name.as_str(), login.password).await {
        Ok(Some(cookie)) => (StatusCode::CREATED, [(SET_COOKIE, cookie)]).into_response(),
        // Deleted or disabled at this moment.
        Ok(None) => StatusCode::FORBIDDEN.into_response(),
        Err(error) => reject(error),
    }
}

async fn delete_account(State(state): State<AppState>, CurrentUser(user): CurrentUser) -> Response {
    match state.accounts.delete(&user.user_id, &state.tasks, state.todo.service()).await {
        Ok(cookie) => (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response(),
        Err(error) => reject(error),
    }
}

async fn logout(State(accounts): State<Accounts>, _: CurrentUser, headers: HeaderMap) -> Response {
    match accounts.end_session(&headers).await {
        Ok(cookie) => (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response(),
        Err(error) => reject(error),
    }
}

async fn logout_everywhere(State(accounts): State<Accounts>, CurrentUser(user): CurrentUser) -> Response {
    match accounts.end_all_sessions(&user.user_id).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => reject(error),
    }
}

/// Responds as the API does.
fn reject(error: AuthError) -> Response {
    problem(error).map(Body::from)
}
