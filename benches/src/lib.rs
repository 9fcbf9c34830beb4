//! The parts of the load test, `cargo bench -p todo-benches --bench load`, that can be wrong without anybody seeing it,
//! with tests of their own.
//!
//! - [`workload`]: who asks for what, as bytes that are ready to be sent.
//! - [`answer`]: reads an answer and judges it, so that a fast wrong answer counts as wrong.
//! - [`generator`]: a thousand users on one thread.
//! - [`measure`]: percentiles, medians, and ratios within a round.
//! - [`plot`]: distributions of latencies as a picture.

pub mod answer;
pub mod generator;
pub mod measure;
pub mod plot;
pub mod workload;
