//! What was seen, as a table and as a verdict.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use crate::load::{Recovery, Tally};

/// Within which time the first good answers have to come.
const RECOVERY: Duration = Duration::from_secs(2);
/// By how much the memory of a server may have grown: the greater of the two.
const GROWTH_MIB: f64 = 16.0;
const GROWTH: f64 = 0.20;

/// What a drill lets happen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowed {
    /// Clients find nobody, or lose their connections: the server itself is away.
    pub(crate) away: bool,
    /// 503.
    pub(crate) refusals: bool,
}

/// What one drill has shown.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) tally: Tally,
    pub(crate) allowed: Allowed,
    /// Whether there is a fault that ends, and so a time to come back in.
    pub(crate) recovers: bool,
    /// Memory of the server in MiB: before the fault and after it.
    pub(crate) memory: Option<(f64, f64)>,
    /// What else is worth knowing.
    pub(crate) notes: Vec<String>,
    /// What else is not as it should be.
    pub(crate) failures: Vec<String>,
}

impl Row {
    /// All that is not as it should be.
    pub(crate) fn verdict(&self) -> Vec<String> {
        let tally = &self.tally;
        let mut failures = self.failures.clone();
        let mut zero = |count: u64, what: &str| {
            if count > 0 {
                failures.push(format!("{count} {what}"));
            }
        };
        zero(tally.lost, "answers lack an acknowledged write");
        zero(tally.wrong, "answers are wrong");
        zero(tally.silent, "requests were not answered at all");
        zero(tally.abandoned, "requests under way were given up");
        if !self.allowed.away {
            zero(tally.broken, "connections broke");
            zero(tally.refused, "requests were not let in");
        }
        if !self.allowed.refusals {
            zero(tally.refusals.len() as u64, "requests were refused");
        }
        if self.recovers {
            let recovery = tally.recovery();
            for (what, time) in [("read", recovery.and_then(|r| r.read)), ("write", recovery.and_then(|r| r.write))] {
                match time {
                    None => failures.push(format!("no good answer to a {what} after the fault")),
                    Some(time) if time > RECOVERY => {
                        failures.push(format!("the first good answer to a {what} came after {} ms", time.as_millis()));
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

/// How much memory a server may have at the end, in MiB.
pub(crate) fn limit(before: f64) -> f64 {
    before + GROWTH_MIB.max(before * GROWTH)
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

/// The table, what the columns mean, and what is not as it should be. In Markdown.
pub(crate) fn markdown(head: &[String], rows: &[Row]) -> String {
    let mut text = String::from("# Fault drills\n\n");
    for line in head {
        let _ = writeln!(text, "- {line}");
    }
    text += "\n| drill | requests | acknowledged writes | lost | wrong | back: read, write (ms) | last failure (ms) | statuses | \
             refused, broken, silent | unknown | p50, p99 (ms) | memory (MiB) | |\n\
             | --- | --: | --: | --: | --: | --: | --: | --- | --: | --: | --: | --: | --- |\n";
    for row in rows {
        let tally = &row.tally;
        let recovery = tally.recovery().filter(|_| row.recovers);
        let time = |time: fn(&Recovery) -> Option<Duration>| millis(recovery.as_ref().and_then(time));
        let memory = row.memory.map_or_else(|| "–".to_owned(), |(before, after)| format!("{before:.0} → {after:.0}"));
        let verdict = if row.verdict().is_empty() { "good" } else { "**NOT GOOD**" };
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
            tally.refused,
            tally.broken,
            tally.silent,
            tally.unknown,
            percentile(&tally.good, 50),
            percentile(&tally.good, 99),
        );
    }
    text.push('\n');
    for row in rows {
        for note in &row.notes {
            let _ = writeln!(text, "- {}: {note}", row.name);
        }
        for failure in row.verdict() {
            let _ = writeln!(text, "- {}: **not good: {failure}**", row.name);
        }
        for example in &row.tally.examples {
            let _ = writeln!(text, "  - {example}");
        }
    }
    text += DEFINITIONS;
    text
}

const DEFINITIONS: &str = "
**lost**: answers, during the fault or in the last look at everything, that lack a write which had been acknowledged \
(a task is missing, as it was before, or back although deleted). **wrong**: answers that show what nobody asked for: \
another user's task, a version nobody wrote, a page out of order, a status or an error that is not for this request. Both \
must be 0. **back**: from the end of the fault to the first 2xx answer to a read and to a write that were sent after it; under \
2000. The fault ends when the process of the server is started again, when PostgreSQL or PgBouncer accepts connections \
again, when processes are let go on, when the network lets through, when the lock is released. **last failure**: to the last \
answer after the end of the fault that was 503 or none (no bound). **statuses**: of all answers; 404 answers those \
who ask for what is deleted or another's; nothing but 200, 201, 204, 404 and 503 may be there, and 503 only with `Retry-After` \
and a code of the table. **refused**: requests that no server let in, not counted as requests; **broken**: connections \
lost before an answer, **silent**: no answer in 15 s; the first two only while the server itself is away, the last never. \
**unknown**: writes that were answered 503 or not at all; either state of the task is right until one is seen. \
**memory**: resident memory of the server under load before the fault, and under the same load after it, when all clients have left and come back, 30 s later at most; it may grow by 16 MiB or 20 %.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Row {
        Row { allowed: Allowed { away: false, refusals: false }, memory: Some((50.0, 65.0)), ..Row::default() }
    }

    #[test]
    fn each_thing_that_must_not_be_is_reported() {
        assert!(good().verdict().is_empty());
        let spoilt: [fn(&mut Row); 9] = [
            |row| row.tally.lost = 1,
            |row| row.tally.wrong = 1,
            |row| row.tally.silent = 1,
            |row| row.tally.abandoned = 1,
            |row| row.tally.broken = 1,
            |row| row.tally.refused = 1,
            |row| row.tally.refusals = vec![1],
            |row| row.memory = Some((50.0, 67.0)),
            |row| row.recovers = true,
        ];
        for spoil in spoilt {
            let mut row = good();
            spoil(&mut row);
            assert!(!row.verdict().is_empty(), "{row:?}");
            assert!(markdown(&[], &[row]).contains("NOT GOOD"));
        }
    }

    #[test]
    fn who_may_be_away_may_be_away() {
        let mut row = Row { allowed: Allowed { away: true, refusals: true }, ..good() };
        row.tally.broken = 1;
        row.tally.refused = 1;
        row.tally.refusals = vec![1];
        assert!(row.verdict().is_empty());
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let micros: Vec<u32> = (1..=100).rev().map(|number| number * 1000).collect();
        assert!((percentile(&micros, 50) - 51.0).abs() < 1e-9 && (percentile(&micros, 99) - 100.0).abs() < 1e-9);
        assert!(percentile(&[], 99).abs() < 1e-9);
    }
}
