//! How long and how often everything here is measured.

use std::time::Duration;

use criterion::Criterion;

/// Few samples and short ones: enough to see a difference of a tenth, and all benches are done in four minutes.
pub(crate) fn short() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(400))
        .measurement_time(Duration::from_millis(1500))
}
