//! The guest book over real warp and real sockets. The cases are the same for all three frameworks.

#[path = "../../embed-axum/tests/cases/mod.rs"]
mod cases;

use embed_warp::{Guests, app};
use todo_core::api::TodoApi;
use tokio::net::TcpListener;

async fn serve(listener: TcpListener, todo: TodoApi) {
    warp::serve(app(Guests::default(), todo)).incoming(listener).run().await;
}
