//! Sample sizes of the benches.

use std::time::Duration;

use criterion::Criterion;

/// Few and short samples: they show a difference of 10 %, and all benches take four minutes.
pub(crate) fn short() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(400))
        .measurement_time(Duration::from_millis(1500))
}
