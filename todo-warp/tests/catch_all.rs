//! A filter of the host for all other paths.

use bytes::Bytes;
use http::{Request, StatusCode};
use testkit::http::Server;
use todo_core::{conformance::api::api, store::MemoryStore};
use warp::Filter as _;

#[tokio::test]
async fn after_the_api_it_gets_all_other_paths() {
    let page = || warp::any().map(|| "a page of the host".to_owned());
    let filter = || todo_warp::filter(api(MemoryStore::new()));
    for (prefix, app) in [("/api/v1", warp::path!("api" / "v1" / ..).and(filter()).boxed()), ("", filter())] {
        let app = app.or(page());
        let server = Server::start(async |listener| warp::serve(app).incoming(listener).run().await).await;
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
