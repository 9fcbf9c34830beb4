//! The OpenAPI document (feature `openapi`), generated from the route table, the types and the errors that respond to
//! requests, so that it cannot contradict them.
//!
//! [`TodoApi::respond`](super::TodoApi::respond) serves the document, and a page that shows it, at the paths of
//! [`DOCS`](super::DOCS).

mod arguments;
mod bodies;
mod examples;
mod failures;
mod headers;
mod operations;
mod schemas;
mod security;
mod values;

use serde::Serialize;
use serde_json::{Value, json};

use super::routes::{PROBES, RESOURCES};
use crate::auth::Credentials;
pub use arguments::arguments_schema;
use failures::Failure;
use headers::quota_headers;
use operations::path_item;
use schemas::schemas;

/// Returns the OpenAPI document (version 3.1) of an API mounted at this path, with the [`PROBES`] at the root.
///
/// The document is indented JSON and the same at every call. `mount` is the path of the API relative to the document:
/// `/api/v1`, or empty for the root. The prefix that a proxy removes is not part of it, because the document names its
/// server by a relative URL.
///
/// ```
/// let document = todo_core::api::openapi::document("/api/v1");
/// let document: serde_json::Value = serde_json::from_str(&document)?;
/// assert_eq!(document["paths"]["/api/v1/tasks"]["get"]["operationId"], "list_tasks");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[must_use]
pub fn document(mount: &str) -> String {
    document_for(mount, &Credentials::bearer())
}

/// Returns the OpenAPI document of an API whose callers present these credentials: those of its authenticator.
///
/// ```
/// use todo_core::{api::openapi::document_for, auth::Credentials};
///
/// let document = document_for("/api/v1", &Credentials::cookie("session"));
/// let document: serde_json::Value = serde_json::from_str(&document)?;
/// assert_eq!(document["components"]["securitySchemes"]["cookie"]["name"], "session");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[must_use]
pub fn document_for(mount: &str, credentials: &Credentials) -> String {
    let security = security::requirements(credentials);
    let mount = mount.trim_end_matches('/');
    let mounted = RESOURCES.iter().map(|resource| (format!("{mount}{}", resource.path), resource));
    let probes = PROBES.iter().map(|resource| (resource.path.to_owned(), resource));
    let document = Document {
        openapi: "3.1.0",
        info: sorted(json!({
            "title": "Todo API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        })),
        servers: sorted(json!([{"url": "./", "description": "The server of this document"}])),
        tags: sorted(json!([
            {"name": "tasks", "description": "The caller's tasks"},
            {
                "name": "tasks of a user",
                "description": "The same operations, with the user's ID in the path. It must be the caller's own ID",
            },
            {"name": "session", "description": "The caller's identity"},
            {"name": "probes", "description": "Health probes; they require no token"},
        ])),
        paths: sorted(mounted.chain(probes).map(|(path, resource)| (path, path_item(resource, &security))).collect()),
        components: Components {
            schemas: sorted(schemas()),
            responses: sorted(
                Failure::ALL.iter().map(|failure| (failure.name(), failure.response(credentials))).collect(),
            ),
            headers: sorted(quota_headers().into_iter().collect()),
            security_schemes: sorted(security::schemes(credentials)),
        },
    };
    // Strings, numbers and maps with string keys always serialize.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

const DESCRIPTION: &str = "A task list for each user. Users see only their own tasks: a request for another user's task \
gets the same response as a request for a task that does not exist.

HEAD is supported wherever GET is, and responds without a body. OPTIONS responds with 204 and `Allow`. A path that \
almost matches (a trailing slash, an empty segment) gets 404 `not_found`. Unknown fields and query parameters are rejected.

A request is checked in this order: path (404), method (405), token (401), user in the path (403), content type (415), \
size (413), JSON syntax (400), fields (422). Only then is the store called.

If the server limits request rates, each response to an accepted caller has the headers `RateLimit` and \
`RateLimit-Policy`.";

/// The fields serialize in this order, whichever map `serde_json` is built with.
#[derive(Serialize)]
struct Document {
    openapi: &'static str,
    info: Value,
    servers: Value,
    tags: Value,
    paths: Value,
    components: Components,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Components {
    schemas: Value,
    responses: Value,
    headers: Value,
    security_schemes: Value,
}

/// Sorts the members of all objects by their names.
fn sorted(mut value: Value) -> Value {
    value.sort_all_objects();
    value
}

#[cfg(test)]
mod tests;
