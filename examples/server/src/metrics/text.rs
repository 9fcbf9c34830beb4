//! The text format of Prometheus.

use std::fmt::{Display, Write as _};

/// Metrics in the text format of Prometheus, version 0.0.4: families of samples, each after its help text and type.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// Begins a family. Its samples must follow before the next family begins.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// Adds a sample. Label values are constants of this program and need no escaping.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        if labels.is_empty() {
            return self.line(format_args!("{name} {value}"));
        }
        let mut list = String::new();
        for (label, value) in labels {
            debug_assert!(!value.contains(['\\', '"', '\n']), "{label}");
            let comma = if list.is_empty() { "" } else { "," };
            // Writing to a `String` does not fail.
            let _ = write!(list, "{comma}{label}=\"{value}\"");
        }
        self.line(format_args!("{name}{{{list}}} {value}"));
    }

    /// Adds the samples of a histogram: the count of each bucket (one more than there are bounds) and the sum.
    pub(super) fn histogram(&mut self, name: &str, labels: &[(&str, &str)], bounds: &[f64], counts: &[u64], sum: f64) {
        let bucket = format!("{name}_bucket");
        let bounds = bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        let mut total = 0;
        for (bound, count) in bounds.zip(counts) {
            total += count;
            self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), total);
        }
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, total);
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.0, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_a_histogram_are_cumulative() {
        let mut text = Text::default();
        text.family("h", "histogram", "Help.");
        text.histogram("h", &[("a", "b")], &[0.5, 1.0], &[2, 0, 3], 7.25);
        let expected = "# HELP h Help.\n# TYPE h histogram\nh_bucket{a=\"b\",le=\"0.5\"} 2\nh_bucket{a=\"b\",le=\"1\"} 2\n\
                        h_bucket{a=\"b\",le=\"+Inf\"} 5\nh_sum{a=\"b\"} 7.25\nh_count{a=\"b\"} 5\n";
        assert_eq!(text.into_string(), expected);
    }
}
