//! The report: a table in Markdown, and a verdict for each drill.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use crate::tally::{Recovery, Tally};

/// The maximum time from the end of a fault to the first successful response.
const MAX_RECOVERY: Duration = Duration::from_secs(2);
/// How much the memory of a server may grow: the greater of the two.
const MAX_GROWTH_MIB: f64 = 16.0;
const MAX_GROWTH: f64 = 0.20;

/// What may happen in a drill.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowed {
    /// The server is down for a while: clients cannot connect, or lose their connections.
    pub(crate) down: bool,
    /// Responses with 503.
    pub(crate) unavailable: bool,
}

/// The result of one drill.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) tally: Tally,
    pub(crate) allowed: Allowed,
    /// Whether there is a fault that ends, so that the recovery time is measured.
    pub(crate) recovers: bool,
    /// Memory of the server in MiB: before the fault and after it.
    pub(crate) memory: Option<(f64, f64)>,
    /// A table of its own, in Markdown.
    pub(crate) table: Option<String>,
    pub(crate) notes: Vec<String>,
    /// Failures that the tally does not show.
    pub(crate) failures: Vec<String>,
}

impl Row {
    /// All failures; the drill has passed if there are none.
    pub(crate) fn failures(&self) -> Vec<String> {
        let tally = &self.tally;
        let mut failures = self.failures.clone();
        let mut zero = |count: u64, what: &str| {
            if count > 0 {
                failures.push(format!("{count} {what}"));
            }
        };
        zero(tally.lost, "responses lack an acknowledged write");
        zero(tally.wrong, "responses are wrong");
        zero(tally.timed_out, "requests got no response");
        zero(tally.abandoned, "requests in flight got no response");
        if !self.allowed.down {
            zero(tally.connections_lost, "connections were lost");
            zero(tally.not_connected, "requests could not be sent");
        }
        if !self.allowed.unavailable {
            zero(tally.unavailable.len() as u64, "responses are 503");
        }
        if self.recovers {
            let recovery = tally.recovery();
            for (what, time) in [("read", recovery.and_then(|r| r.read)), ("write", recovery.and_then(|r| r.write))] {
                match time {
                    None => failures.push(format!("no {what} succeeded after the fault")),
                    Some(time) if time > MAX_RECOVERY => {
                        failures.push(format!("the first {what} succeeded {} ms after the fault", time.as_millis()));
                    }
                    Some(_) => {}
                }
            }
        }
        if let Some((before, after)) = self.memory
            && after > limit(before)
        {
            failures.push(format!("memory grew from {before:.0} to {after:.0} MiB"));
        }
        failures
    }
}

/// The maximum memory of a server at the end, in MiB.
pub(crate) fn limit(before: f64) -> f64 {
    before + MAX_GROWTH_MIB.max(before * MAX_GROWTH)
}

/// A percentile, in milliseconds.
pub(crate) fn percentile(micros: &[u32], percent: usize) -> f64 {
    let mut sorted = micros.to_vec();
    sorted.sort_unstable();
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
}

fn statuses(statuses: &BTreeMap<u16, u64>) -> String {
    let counted: Vec<_> = statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
    counted.join(", ")
}

fn millis(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "–".to_owned(), |duration| duration.as_millis().to_string())
}

/// The table, notes and failures of each drill, and the meaning of the columns, in Markdown.
pub(crate) fn markdown(head: &[String], rows: &[Row]) -> String {
    let mut text = String::from("# Fault drills\n\n");
    for line in head {
        let _ = writeln!(text, "- {line}");
    }
    text += "\n| drill | requests | acknowledged writes | lost | wrong | recovery: read, write (ms) | last failure (ms) | statuses | \
             not connected, connection lost, timed out | unknown outcome | p50, p99 (ms) | memory (MiB) | result |\n\
             | --- | --: | --: | --: | --: | --: | --: | --- | --: | --: | --: | --: | --- |\n";
    for row in rows {
        let tally = &row.tally;
        let recovery = tally.recovery().filter(|_| row.recovers);
        let time = |time: fn(&Recovery) -> Option<Duration>| millis(recovery.as_ref().and_then(time));
        let memory = row.memory.map_or_else(|| "–".to_owned(), |(before, after)| format!("{before:.0} → {after:.0}"));
        let verdict = if row.failures().is_empty() { "passed" } else { "**FAILED**" };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {}, {} | {} | {} | {}, {}, {} | {} | {:.0}, {:.0} | {memory} | {verdict} |",
            row.name,
            tally.requests,
            tally.acknowledged,
            tally.lost,
            tally.wrong,
            time(|recovery| recovery.read),
            time(|recovery| recovery.write),
            time(|recovery| recovery.last_failure),
            statuses(&tally.statuses),
            tally.not_connected,
            tally.connections_lost,
            tally.timed_out,
            tally.unknown,
            percentile(&tally.successes, 50),
            percentile(&tally.successes, 99),
        );
    }
    text.push('\n');
    for row in rows {
        for note in &row.notes {
            let _ = writeln!(text, "- {}: {note}", row.name);
        }
        for failure in row.failures() {
            let _ = writeln!(text, "- {}: **failed: {failure}**", row.name);
        }
        for example in &row.tally.examples {
            let _ = writeln!(text, "  - {example}");
        }
    }
    for row in rows {
        if let Some(table) = &row.table {
            let _ = writeln!(text, "\n## {}\n\n{table}", row.name);
        }
    }
    text += DEFINITIONS;
    text
}

const DEFINITIONS: &str = "
**lost**: responses, during the drill or in the last check of all tasks, that lack an acknowledged write: a task is missing, is shown as it \
was before, or is shown although it was deleted. **wrong**: responses that show something no request led to (another user's task, \
an unknown version, a page out of order), or have an unexpected status or error. Both must be 0. **recovery**: from the end of \
the fault to the first 2xx response to a read and to a write that were sent after it; at most 2000. The fault ends when the process of the \
server is started again, when PostgreSQL or PgBouncer accepts connections again, when stopped processes continue, when the \
network works again, when the lock is released. **last failure**: from the end of the fault to the last request that got 503 or no \
response (no limit). **statuses**: of all responses; 404 is right for deleted tasks and other users' tasks; nothing but 200, 201, 204, 404 \
and 503 may occur, and 503 only with `Retry-After` and the code `unavailable` or `timeout`. **not connected**: requests that were not \
sent, since no connection could be made (they do not count as requests); **connection lost**: before the response; **timed out**: no response in \
15 s. The first two are allowed only while the server itself is down, the last never. **unknown outcome**: writes that got 503 or no \
response; such a task may have either state until a read has shown one. **memory**: resident memory of the server under load before the \
fault, and under the same load after it, when all clients have closed their connections and opened new ones, 30 s later at most; it may grow by \
16 MiB or 20 %.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn passed() -> Row {
        Row { allowed: Allowed::default(), memory: Some((50.0, 65.0)), ..Row::default() }
    }

    #[test]
    fn every_failure_is_reported() {
        assert!(passed().failures().is_empty());
        let failing: [fn(&mut Row); 9] = [
            |row| row.tally.lost = 1,
            |row| row.tally.wrong = 1,
            |row| row.tally.timed_out = 1,
            |row| row.tally.abandoned = 1,
            |row| row.tally.connections_lost = 1,
            |row| row.tally.not_connected = 1,
            |row| row.tally.unavailable = vec![1],
            |row| row.memory = Some((50.0, 67.0)),
            |row| row.recovers = true,
        ];
        for fail in failing {
            let mut row = passed();
            fail(&mut row);
            assert!(!row.failures().is_empty(), "{row:?}");
            assert!(markdown(&[], &[row]).contains("FAILED"));
        }
    }

    #[test]
    fn a_server_that_may_be_down_may_be_down() {
        let mut row = Row { allowed: Allowed { down: true, unavailable: true }, ..passed() };
        row.tally.connections_lost = 1;
        row.tally.not_connected = 1;
        row.tally.unavailable = vec![1];
        assert!(row.failures().is_empty());
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let micros: Vec<u32> = (1..=100).rev().map(|number| number * 1000).collect();
        assert!((percentile(&micros, 50) - 51.0).abs() < 1e-9 && (percentile(&micros, 99) - 100.0).abs() < 1e-9);
        assert!(percentile(&[], 99).abs() < 1e-9);
    }
}
