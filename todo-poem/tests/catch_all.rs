//! A route of the host for all other paths.

use bytes::Bytes;
use http::{Request, StatusCode};
use poem::{Route, Server as PoemServer, get, handler, listener::TcpAcceptor};
use testkit::http::Server;
use todo_core::{conformance::api::api, store::MemoryStore};

#[handler]
fn page() -> &'static str {
    "a page of the host"
}

#[tokio::test]
async fn it_may_be_a_route_also_at_the_root() {
    let mount = |route, prefix| todo_poem::mount(route, prefix, api(MemoryStore::new()));
    for (prefix, app) in [
        ("/api/v1", mount(Route::new().at("/*page", get(page)), "/api/v1")),
        ("/api/v1", mount(Route::new(), "/api/v1").at("/*page", get(page))),
        ("", mount(Route::new().at("/*page", get(page)), "")),
        ("", mount(Route::new(), "").at("/*page", get(page))),
    ] {
        let server = Server::start(async |listener| {
            let acceptor = TcpAcceptor::from_tokio(listener).expect("a listener");
            PoemServer::new_with_acceptor(acceptor).run(app).await.expect("the listener accepts");
        })
        .await;
        let client = server.client();
        for path in ["/tasks", "/ann/tasks"] {
            let response =
                client.send(Request::get(format!("{prefix}{path}")).body(Bytes::new()).expect("a request")).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{prefix}{path}");
        }
        let response = client.send(Request::get("/about/us").body(Bytes::new()).expect("a request")).await;
        assert_eq!(response.body().as_ref(), b"a page of the host", "with the prefix {prefix:?}");
    }
}
