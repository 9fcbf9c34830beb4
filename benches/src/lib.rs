//! Parts of the load test (`cargo bench -p todo-benches --bench load`) whose mistakes would not be visible in its
//! results. They are in a library so that they have tests.
//!
//! - [`workload`]: the requests of each user, as bytes.
//! - [`response`]: reads a response and checks it.
//! - [`generator`]: a thousand users on one thread.
//! - [`measure`]: percentiles, medians, and ratios within a round.
//! - [`plot`]: latency distributions as a picture.

pub mod generator;
pub mod measure;
pub mod plot;
pub mod response;
pub mod workload;
