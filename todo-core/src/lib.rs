//! A secure multi-user todo backend as a library: tasks, owners, tokens, stores and the HTTP wire, without a framework.
//!
//! Three layers, each usable without the one above it:
//!
//! 1. [`store`]: where tasks live. [`MemoryStore`](store::MemoryStore) is always there;
//!    `SqliteStore` and `PostgresStore` come with the features `sqlite` and `postgres`.
//! 2. [`TodoService`]: the operations and their rules. Every one of them hangs on
//!    [`for_user`](TodoService::for_user), so none can be called without saying whose tasks are meant.
//! 3. [`api`]: the wire. [`TodoApi`](api::TodoApi) answers an [`http::Request`] with an [`http::Response`]; the
//!    crates `todo-axum`, `todo-warp` and `todo-poem` mount it. Who is asking is decided by an
//!    [`Authenticator`](auth::Authenticator), usually a [`JwtVerifier`](auth::JwtVerifier).
//!
//! ```
//! use todo_core::{NewTask, Title, TodoService, UserId, store::MemoryStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = TodoService::new(MemoryStore::new());
//! let ann = service.for_user(UserId::new("ann")?);
//! let task = ann.create(NewTask::new(Title::new("Buy milk")?)).await?;
//! assert!(ann.toggle(task.id).await?.completed);
//!
//! let bob = service.for_user(UserId::new("bob")?);
//! assert!(bob.get(task.id).await.is_err());
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | adds |
//! | --- | --- |
//! | `postgres` | `store::PostgresStore` |
//! | `sqlite` | `store::SqliteStore`, with SQLite itself compiled in |
//! | `remote-jwks` | `auth::RemoteJwks`: keys that are fetched from the issuer; `auth::JwtVerifier::better_auth` |
//! | `rate-limit` | `auth::RateLimiter`: a gate that limits how often each user may ask |
//! | `openapi` | `api::openapi`: the OpenAPI document, and a page that shows it, served at `api::DOCS` |
//! | `conformance` | the suites that every store and every adapter passes, for those who write another |
//!
//! The library opens no port, installs no logger and no panic hook, starts no task in the background and reads no
//! environment variable.
//!
//! # Tracing
//!
//! Spans and events go to `tracing` under the targets `todo_core::api`, `todo_core::auth` and `todo_core::store`.
//! None of them carries a token, a claim, a title or a description.

pub mod api;
pub mod auth;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod json;
mod service;
pub mod store;
mod task;

pub use error::Error;
pub use service::{TodoService, UserTasks};
pub use task::{
    Cursor, Description, InvalidValue, Limit, NewTask, Page, Patch, Task, TaskId, TaskPatch, TaskQuery,
    TaskReplacement, Title, UserId,
};

// Tests the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
