//! What the stores on SQL databases share: statements, migrations, a pool of connections, and the meaning of errors.

pub(super) mod classify;
pub(super) mod columns;
#[cfg(feature = "postgres")]
pub(super) mod functions;
pub(super) mod migrate;
pub(super) mod names;
pub(super) mod operations;
#[cfg(all(test, feature = "postgres", feature = "sqlite"))]
mod owner_predicates;
#[cfg(test)]
mod plans;
pub(super) mod pool;
pub(super) mod queue;
pub(super) mod selection;
pub(super) mod sqlstate;
pub(super) mod statements;
#[cfg(all(feature = "conformance", feature = "postgres"))]
pub(super) mod texts;
pub(super) mod transaction;
