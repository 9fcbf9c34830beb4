//! What a handler of the host gets from the host's own authenticator.

use axum::{Router, extract::FromRef, http::StatusCode, routing::get};
use testkit::{
    http::Server,
    sessions::{Account, api, check},
};
use todo_axum::CurrentUser;
use todo_core::api::TodoApi;

#[derive(Clone, FromRef)]
struct AppState {
    todo: TodoApi,
}

async fn plan(CurrentUser(identity): CurrentUser) -> Result<String, StatusCode> {
    let account = identity.value::<Account>().ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(account.plan.clone())
}

#[tokio::test]
async fn a_handler_gets_the_value_of_the_authenticator_and_its_401() {
    let todo = api();
    let app = Router::new()
        .nest("/api/v1", todo_axum::router(todo.clone()))
        .route("/plan", get(plan).post(plan))
        .with_state(AppState { todo });
    let server = Server::start(async |listener| axum::serve(listener, app).await.expect("the listener accepts")).await;
    check(&server).await;
}
