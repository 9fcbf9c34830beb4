//! The OpenAPI document: the printed, the committed and the served one are the same.

use std::{fs, path::Path};

use http::Method;

use crate::{Framework, program::Setup};

fn committed() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi.json");
    fs::read_to_string(path).expect("openapi.json at the root of the project")
}

#[test]
fn the_committed_document_is_up_to_date() {
    let printed = Setup::new(Framework::ANY).run(&["openapi"]);
    assert_eq!((printed.code, printed.log.as_str()), (Some(0), ""));
    assert!(
        printed.output == committed(),
        "openapi.json is out of date; update it with: cargo run -p todo-server -- openapi > openapi.json, and the types of \
         examples/nextjs with: npm run types"
    );
}

pub(crate) async fn document_and_page_are_served_at_the_root(framework: Framework) {
    let server = Setup::with_secret(framework).serve(&[]);
    let ann = server.user("ann");
    let document = ann.send(Method::GET, "/openapi.json", "").await;
    assert_eq!(document.status(), 200);
    assert!(
        document.body().as_ref() == committed().as_bytes(),
        "openapi.json is out of date, or another one is served"
    );
    let page = ann.send(Method::GET, "/docs", "").await;
    assert_eq!(
        (page.status().as_u16(), &page.headers()["content-type"]),
        (200, &"text/html; charset=utf-8".parse().expect("a value"))
    );
    let unknown = ann.send(Method::GET, "/docs/nothing.js", "").await;
    assert_eq!(unknown.status(), 404);
}
