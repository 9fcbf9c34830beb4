//! What a handler of the host gets from the host's own authenticator.

use testkit::{
    http::Server,
    sessions::{Account, api, check},
};
use todo_warp::CurrentUser;
use tokio::net::TcpListener;
use warp::{Filter as _, Reply};

fn plan(user: CurrentUser) -> impl Reply {
    user.map(|identity| identity.value::<Account>().expect("the authenticator has attached it").plan.clone())
}

#[tokio::test]
async fn a_handler_gets_the_value_of_the_authenticator_and_its_401() {
    let todo = api();
    let app = warp::path!("api" / "v1" / ..)
        .and(todo_warp::filter(todo.clone()))
        .or(warp::path!("plan").and(todo_warp::current_user(todo)).map(plan));
    let server = Server::start(async |listener: TcpListener| warp::serve(app).incoming(listener).run().await).await;
    check(&server).await;
}
