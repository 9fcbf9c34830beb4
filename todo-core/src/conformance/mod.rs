//! The suites that every store and every adapter passes. Whoever writes another runs them in a test file of a few lines.
//!
//! Each case is one test, named by a sentence; the cases are listed once, in the macros here. What a test file brings is
//! a function that makes what is tested, runs one case, and cleans up. `tokio` with `macros` and `rt-multi-thread` must
//! be among its dependencies.
//!
//! ```
//! use std::sync::Arc;
//! use todo_core::store::{MemoryStore, TaskStore};
//!
//! async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
//!     case(Arc::new(MemoryStore::new())).await;
//! }
//!
//! todo_core::store_conformance!(with_store);
//! # fn main() {}
//! ```
//!
//! The suite for adapters is [`api_conformance!`](crate::api_conformance), over [`api::App`].
//!
//! This module is for tests, and not part of what stays the same between versions.

#![expect(clippy::missing_panics_doc, reason = "a case panics to say that it failed, which is what tests do")]
#![expect(clippy::unwrap_used, reason = "a case panics to say that it failed, which is what tests do")]

pub mod api;
pub mod store;
