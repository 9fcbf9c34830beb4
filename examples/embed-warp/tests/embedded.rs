//! The guest book served by warp over real sockets. The cases are the same for all three frameworks.

use embed_warp::{Guests, app};
use todo_core::api::TodoApi;
use tokio::net::TcpListener;

async fn serve(listener: TcpListener, todo: TodoApi) {
    warp::serve(app(Guests::default(), todo)).incoming(listener).run().await;
}

testkit::embedding_cases!(serve);
