//! The OpenAPI document: printed, committed and served, it is the same.

use std::{fs, path::Path};

use http::Method;

use crate::program::Place;

fn committed() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi.json");
    fs::read_to_string(path).expect("openapi.json at the root of the project")
}

#[test]
fn the_committed_document_is_current() {
    let printed = Place::new().run(&["openapi"]);
    assert_eq!((printed.code, printed.log.as_str()), (Some(0), ""));
    assert!(
        printed.output == committed(),
        "openapi.json is not what the server says; make it current with: cargo run -p todo-server -- openapi > \
         openapi.json, and the types of examples/nextjs with: npm run types"
    );
}

#[tokio::test]
async fn document_and_page_are_served_at_the_root() {
    let server = Place::with_secret().serve(&[]);
    let caller = server.caller("ann");
    let document = caller.send(Method::GET, "/openapi.json", "").await;
    assert_eq!((document.status().as_u16(), document.body().as_ref()), (200, committed().as_bytes()));
    let page = caller.send(Method::GET, "/docs", "").await;
    assert_eq!(
        (page.status().as_u16(), &page.headers()["content-type"]),
        (200, &"text/html; charset=utf-8".parse().expect("a value"))
    );
    let elsewhere = caller.send(Method::GET, "/docs/nothing.js", "").await;
    assert_eq!(elsewhere.status(), 404);
}
