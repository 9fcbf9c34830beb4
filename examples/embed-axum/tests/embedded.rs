//! The guest book served by axum over real sockets. The cases are the same for all three frameworks.

use embed_axum::{AppState, Guests, app};
use todo_core::api::TodoApi;
use tokio::net::TcpListener;

async fn serve(listener: TcpListener, todo: TodoApi) {
    axum::serve(listener, app(AppState { guests: Guests::default(), todo })).await.expect("the listener accepts");
}

testkit::embedding_cases!(serve);
