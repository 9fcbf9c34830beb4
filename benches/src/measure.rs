//! Percentiles, medians, and ratios within a round.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Converts a count for a division.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub const fn float(count: u64) -> f64 {
    count as f64
}

/// Latencies up to two minutes, with three significant digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, 120_000_000, 3);
        Self(histogram.unwrap_or_else(|_| unreachable!("these bounds are allowed")))
    }
}

impl Latencies {
    /// Records a latency. A longer one counts as two minutes.
    pub fn record(&mut self, latency: std::time::Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Records all latencies of `other`.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).unwrap_or_else(|_| unreachable!("all have the same bounds"));
    }

    /// The number of latencies.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The quantile in milliseconds; 0 without latencies.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { float(self.0.value_at_quantile(share)) / 1000.0 }
    }

    /// The percentiles for the tables.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            count: self.count(),
            p50_ms: self.quantile(0.5),
            p95_ms: self.quantile(0.95),
            p99_ms: self.quantile(0.99),
            max_ms: self.quantile(1.0),
        }
    }

    /// Points of a curve, closer to each other at high percentiles: from about the tenth percentile to the last one
    /// that is more than a single request. The first number is that of nines in the percentile: 1 is 90 %, 2 is 99 %.
    #[must_use]
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let last = float(self.count()).max(1.0).log10();
        let steps = (1..).map(|step| f64::from(step) / 25.0).take_while(|nines| *nines <= last.min(4.0));
        steps.map(|nines| (nines, self.quantile(1.0 - 10_f64.powf(-nines)))).collect()
    }
}

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// The number of requests.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// The 95th percentile.
    pub p95_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The maximum.
    pub max_ms: f64,
}

/// Median, minimum and maximum of a value over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The minimum.
    pub min: f64,
    /// The maximum.
    pub max: f64,
}

impl Spread {
    /// The spread of these values; `None` without values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, min, max })
    }

    /// The spread of ratios within a round. Rounds in which a value is missing or the divisor is 0 are skipped.
    #[must_use]
    pub fn of_ratios(rounds: impl IntoIterator<Item = (Option<f64>, Option<f64>)>) -> Option<Self> {
        let ratios = rounds.into_iter().filter_map(|(value, base)| Some((value?, base?)));
        Self::of(ratios.filter(|(_, base)| *base > 0.0).map(|(value, base)| value / base))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn percentiles_are_those_of_the_recorded_latencies() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.summary(), Summary::default());
        for millisecond in 1..=100 {
            latencies.record(Duration::from_millis(millisecond));
        }
        let summary = latencies.summary();
        for (value, wanted) in
            [(summary.p50_ms, 50.0), (summary.p95_ms, 95.0), (summary.p99_ms, 99.0), (summary.max_ms, 100.0)]
        {
            assert!((value - wanted).abs() < wanted / 500.0, "{value} is not {wanted}");
        }
        let mut twice = latencies.clone();
        twice.add(&latencies);
        assert_eq!(twice.count(), 200);
        latencies.record(Duration::from_hours(1));
        assert!(latencies.quantile(1.0) > 119_000.0);
    }

    #[test]
    fn a_curve_ends_before_the_percentile_of_a_single_request() {
        let mut latencies = Latencies::default();
        for _ in 0..1000 {
            latencies.record(Duration::from_millis(5));
        }
        let curve = latencies.curve();
        assert!((curve[0].0 - 0.04).abs() < 0.001);
        assert!((curve.last().unwrap().0 - 3.0).abs() < 0.05);
        assert!(curve.iter().all(|(_, milliseconds)| (milliseconds - 5.0).abs() < 0.02));
        assert!(Latencies::default().curve().is_empty());
    }

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // In the second round the machine is half as fast, and in the third one value is missing: the ratio is the
        // same.
        let rounds = [(Some(20.0), Some(10.0)), (Some(10.0), Some(5.0)), (None, Some(7.0)), (Some(9.0), None)];
        assert_eq!(Spread::of_ratios(rounds), Some(Spread { median: 2.0, min: 2.0, max: 2.0 }));
        assert_eq!(Spread::of_ratios([(Some(1.0), Some(0.0))]), None);
    }
}
