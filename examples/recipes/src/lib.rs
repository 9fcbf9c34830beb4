//! The recipes of `docs/embedding.md`, as code that is compiled and run.
//!
//! Each file holds one recipe between two marker lines, `// recipe` and `// end`. The page shows exactly this text; the
//! test `documentation` compares the two. The other tests run the recipes.

#![expect(
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    reason = "a recipe is short; docs/embedding.md explains it"
)]

pub mod closed_accounts;
pub mod cors_axum;
pub mod cors_poem;
pub mod cors_warp;
pub mod metadata;
pub mod observer;
pub mod own_table;
pub mod paging;
pub mod session;
pub mod transaction;
