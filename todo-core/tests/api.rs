//! The test suite for adapters on the core alone, without a framework. A case that fails here is not the fault of a
//! framework.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use todo_core::{
    api::{ApiError, PROBES, RESOURCES, Resource, TodoApi, find_resource, problem},
    conformance::api::{App, api},
    store::MemoryStore,
};

struct Bare(TodoApi);

#[async_trait]
impl App for Bare {
    async fn call(&self, request: Request<Bytes>) -> Response<Bytes> {
        let resource = match request.uri().path().strip_prefix("/api/v1") {
            Some(path) => find_resource(RESOURCES, path),
            None => at_the_root(request.uri().path()),
        };
        match resource {
            Some(resource) => {
                let response = self.0.respond(resource, request.map(Full::new)).await;
                let (head, body) = response.into_parts();
                Response::from_parts(head, body.collect().await.expect("it does not fail").to_bytes())
            }
            None => problem(ApiError::NotFound),
        }
    }
}

fn at_the_root(path: &str) -> Option<&'static Resource> {
    let resource = find_resource(PROBES, path);
    #[cfg(feature = "openapi")]
    let resource = resource.or_else(|| find_resource(todo_core::api::DOCS, path));
    resource
}

async fn with_app(case: impl AsyncFnOnce(&dyn App)) {
    case(&Bare(api(MemoryStore::new()))).await;
}

todo_core::api_conformance!(with_app);

#[cfg(feature = "openapi")]
mod docs {
    todo_core::docs_conformance!(super::with_app);
}
