//! The guest book served by poem over real sockets. The cases are the same for all three frameworks.

use embed_poem::{Guests, app};
use poem::{Server, listener::TcpAcceptor};
use todo_core::api::TodoApi;
use tokio::net::TcpListener;

async fn serve(listener: TcpListener, todo: TodoApi) {
    let acceptor = TcpAcceptor::from_tokio(listener).expect("a listener of tokio");
    let app = app(Guests::default(), todo);
    Server::new_with_acceptor(acceptor).run(app).await.expect("the listener accepts");
}

testkit::embedding_cases!(serve);
