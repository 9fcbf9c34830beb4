//! A multi-user todo backend as a library: tasks and their owners, stores, authentication and an HTTP API, for a host
//! with any web framework.
//!
//! A host mounts the API into its own server with `todo-axum`, `todo-warp` or `todo-poem`, or calls the service from
//! its own handlers. Each user can access only their own tasks.
//!
//! The crate has four parts. Each can be used without those below it:
//!
//! - [`store`] stores tasks: in memory ([`MemoryStore`](store::MemoryStore)), in SQLite (`SqliteStore`) or in
//!   PostgreSQL (`PostgresStore`). A host can implement [`TaskStore`](store::TaskStore) for another database.
//! - [`TodoService`] has the operations on tasks. They are methods of what [`for_user`](TodoService::for_user) returns,
//!   so code cannot access tasks without naming their owner.
//! - [`auth`] authenticates callers. [`JwtVerifier`](auth::JwtVerifier) verifies JSON Web Tokens, such as those of
//!   Better Auth. A host with sessions or API keys implements [`Authenticator`](auth::Authenticator). A
//!   [`Gate`](auth::Gate) can reject authenticated callers, such as disabled users.
//! - [`api`] is the HTTP API. [`TodoApi`](api::TodoApi) responds to an [`http::Request`] with an [`http::Response`].
//!
//! # Examples
//!
//! The service, called from a host's own code:
//!
//! ```
//! use todo_core::{Error, NewTask, Title, TodoService, UserId, store::MemoryStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = TodoService::new(MemoryStore::new());
//! let ann = service.for_user(UserId::new("ann")?);
//! let task = ann.create(NewTask::new(Title::new("Buy milk")?)).await?;
//! assert!(ann.toggle(task.id).await?.completed);
//!
//! let bob = service.for_user(UserId::new("bob")?);
//! assert!(matches!(bob.get(task.id).await, Err(Error::TaskNotFound)));
//! # Ok(())
//! # }
//! ```
//!
//! The API, ready to be mounted by an adapter:
//!
//! ```
//! use todo_core::{TodoService, api::TodoApi, auth::JwtVerifier, store::MemoryStore};
//!
//! let verifier = JwtVerifier::hs256("a secret of thirty-two bytes or more")?;
//! let api = TodoApi::new(TodoService::new(MemoryStore::new()), verifier);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! | feature | adds |
//! | --- | --- |
//! | `postgres` | `store::PostgresStore` |
//! | `sqlite` | `store::SqliteStore`, with SQLite compiled in |
//! | `remote-jwks` | `auth::RemoteJwks`, keys fetched from their issuer, and `auth::JwtVerifier::better_auth` |
//! | `rate-limit` | `auth::RateLimiter`, a gate that limits the request rate of each user |
//! | `openapi` | `api::openapi`, the OpenAPI document, and `api::DOCS`, its paths and those of its page |
//! | `conformance` | `conformance`, test suites for your own stores and adapters |
//!
//! # Side effects
//!
//! The library opens no port, installs no logger or panic hook, reads no environment variable, and spawns no background
//! task on its own, except for each fetch of a key set (feature `remote-jwks`), which ends within 5 seconds. It changes
//! one setting of the process: if `jsonwebtoken` has no cryptography provider yet, [`JwtVerifier`](auth::JwtVerifier)
//! installs one.
//!
//! Its tracing spans and events have the targets `todo_core::api`, `todo_core::auth` and `todo_core::store`. They
//! contain no tokens, claims, titles or descriptions.

pub mod api;
pub mod auth;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod event;
mod json;
mod service;
pub mod store;
mod task;
mod timestamp;
mod user_limits;

pub use error::Error;
pub use event::TaskEvent;
pub use service::{Created, Place, TodoService, UserTasks};
pub use task::{
    Cursor, Description, Due, DueBound, DueFilter, DueKind, Group, IdempotencyKey, InvalidValue, Limit, ListName,
    Metadata, MetadataPatch, NewTask, Page, Patch, Position, Priority, Sort, SortKey, Summary, Tag, Tags, Task,
    TaskFilter, TaskId, TaskPatch, TaskQuery, TaskReplacement, Title, UserId, ZoneName,
};
pub use user_limits::UserLimits;

// Compiles and runs the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
