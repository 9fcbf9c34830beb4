//! The HTTP API: [`TodoApi`] responds to an [`http::Request`] with an [`http::Response`], without a web framework.
//!
//! The crates `todo-axum`, `todo-warp` and `todo-poem` mount it. The paths are listed in [`RESOURCES`], [`PROBES`] and,
//! with the feature `openapi`, `DOCS`.
//!
//! # Writing an adapter
//!
//! Register each path of [`RESOURCES`] with the framework, for all methods, and pass the requests that match to
//! [`TodoApi::respond`]. The statuses, headers and bodies are then the same in every framework. The test suite in
//! `todo_core::conformance` (feature `conformance`) checks an adapter.
//!
//! ```
//! use bytes::{Buf, Bytes};
//! use http::Request;
//! use http_body_util::Full;
//! use todo_core::{TodoService, auth::JwtVerifier, api::{RESOURCES, TodoApi}, store::MemoryStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let verifier = JwtVerifier::hs256("a secret of thirty-two bytes or more")?;
//! let api = TodoApi::new(TodoService::new(MemoryStore::new()), verifier);
//!
//! let request = Request::get("/api/v1/tasks").body(Full::<Bytes>::default())?;
//! let response = api.respond(&RESOURCES[0], request).await;
//! assert_eq!(response.status(), 401);
//! # Ok(())
//! # }
//! ```
//!
//! # Order of checks
//!
//! A request is checked in this order, and the first check that fails decides the response: path (404), method (405),
//! credential (401), the user in the path (403), content type (415), size (413), JSON syntax (400), fields (422). Only
//! then is the store called. A caller without a valid credential learns nothing about the data of any user.
//!
//! # Errors
//!
//! A failed request gets problem details (RFC 9457) as its body. The response carries the [`ApiError`] in its
//! extensions as `Arc<ApiError>`, where a middleware of the host can read it. Causes of a 5xx are logged and never
//! sent.

mod arguments;
mod body;
mod changes;
mod conditions;
mod digest;
#[cfg(feature = "openapi")]
mod docs;
mod error;
mod events;
mod field_errors;
mod input;
mod json_body;
mod log;
#[cfg(feature = "openapi")]
pub mod openapi;
mod operations;
mod printable;
mod problem;
mod reads;
mod ready;
mod render;
mod response;
mod response_body;
mod results;
mod routes;
mod running;
mod session;
mod sync_token;
mod todo_api;
mod whole_task;

pub use arguments::Arguments;
pub use body::StreamBody;
pub use error::ApiError;
pub use field_errors::FieldErrors;
pub use problem::problem;
pub use reads::CacheStatus;
pub use response_body::ResponseBody;
#[cfg(feature = "openapi")]
pub use routes::DOCS;
pub use routes::{Operation, PROBES, RESOURCES, Resource, find_resource};
pub use todo_api::TodoApi;
pub use whole_task::{InvalidTask, task_from_json};
