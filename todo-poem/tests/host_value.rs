//! What a handler of the host gets from the host's own authenticator.

use poem::{EndpointExt as _, Route, get, handler, http::StatusCode, listener::TcpAcceptor};
use testkit::{
    http::Server,
    sessions::{Account, api, check},
};
use todo_poem::CurrentUser;
use tokio::net::TcpListener;

#[handler]
fn plan(CurrentUser(identity): CurrentUser) -> poem::Result<String> {
    let account = identity.value::<Account>().ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(account.plan.clone())
}

#[tokio::test]
async fn a_handler_gets_the_value_of_the_authenticator_and_its_401() {
    let todo = api();
    let app = Route::new().at("/plan", get(plan).post(plan));
    let app = todo_poem::mount(app, "/api/v1", todo.clone()).data(todo);
    let server = Server::start(async |listener: TcpListener| {
        let acceptor = TcpAcceptor::from_tokio(listener).expect("a listener of tokio");
        poem::Server::new_with_acceptor(acceptor).run(app).await.expect("the listener accepts");
    })
    .await;
    check(&server).await;
}
