//! The guest book over real axum and real sockets. The cases are the same for all three frameworks.

mod cases;

use embed_axum::{AppState, Guests, app};
use todo_core::api::TodoApi;
use tokio::net::TcpListener;

async fn serve(listener: TcpListener, todo: TodoApi) {
    axum::serve(listener, app(AppState { guests: Guests::default(), todo })).await.expect("the listener accepts");
}
