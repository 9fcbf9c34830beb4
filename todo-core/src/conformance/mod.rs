//! Test suites for stores and for adapters (feature `conformance`).
//!
//! Every store and every adapter of this workspace passes them. To test your own, write a function that creates it,
//! runs one case and cleans up, and pass the function to [`store_conformance!`](crate::store_conformance) or
//! [`api_conformance!`](crate::api_conformance). The macro generates one test for each case. The test crate needs
//! `tokio` with the features `macros` and `rt-multi-thread`.
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
//! An adapter is tested through the trait [`api::App`].
//!
//! This module is for tests. It is not covered by semantic versioning.

#![expect(clippy::missing_panics_doc, reason = "a case panics to fail the test")]
#![expect(clippy::unwrap_used, reason = "a case panics to fail the test")]

pub mod api;
pub mod store;
