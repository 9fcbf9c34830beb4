//! The report: tables, whether the promise is kept, a JSON file and a picture.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;
use todo_benches::{
    measure::{Latencies, Spread, Summary},
    plot::{self, Curve},
    workload::{Mix, Operation},
};

use crate::{
    contenders::{BASE, Contender},
    run::{Footprint, Measured},
};

/// The promised 95th percentile of every operation with all users at once.
pub(crate) const PROMISE_MS: f64 = 200.0;

/// All results.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) conditions: BTreeMap<&'static str, String>,
    #[serde(skip)]
    pub(crate) contenders: Vec<Contender>,
    pub(crate) measured: Vec<Measured>,
    /// The additional measurements in an open loop.
    pub(crate) open: Vec<Measured>,
    pub(crate) footprints: Vec<Footprint>,
    pub(crate) users: u32,
    #[serde(skip)]
    pub(crate) mix: Mix,
    pub(crate) on_postgres: bool,
    pub(crate) promise_p95_ms: f64,
}

/// A column: its name, and its value for a contender.
type Metric = fn(&Measured) -> Option<f64>;

impl Report {
    fn of<'a>(measured: &'a [Measured], name: &'a str) -> impl Iterator<Item = &'a Measured> {
        measured.iter().filter(move |one| one.contender == name)
    }

    fn spread(measured: &[Measured], name: &str, metric: Metric) -> Option<Spread> {
        Spread::of(Self::of(measured, name).filter_map(metric))
    }

    /// Ratios to the baseline, each computed within a round.
    fn ratio(measured: &[Measured], name: &str, metric: Metric) -> Option<Spread> {
        Spread::of_ratios(Self::of(measured, name).map(|one| {
            let base = Self::of(measured, BASE).find(|base| base.round == one.round);
            (metric(one), base.and_then(metric))
        }))
    }

    /// The tables and the verdicts, for a terminal or for a README.
    pub(crate) fn text(&self, markdown: bool) -> String {
        let mut text = String::new();
        for (name, value) in &self.conditions {
            let _ = if markdown { writeln!(text, "- {name}: {value}") } else { writeln!(text, "{name}: {value}") };
        }
        self.add(&mut text, &self.measured, markdown);
        if !self.open.is_empty() {
            let rate = self.open.first().and_then(|one| one.offered).unwrap_or_default();
            heading(
                &mut text,
                markdown,
                &format!("{rate:.0} requests per second, independent of the responses (open loop)"),
            );
            self.add_tables(&mut text, &self.open, markdown);
        }
        if !self.footprints.is_empty() {
            heading(&mut text, markdown, "Start and memory without load");
            text += &table(&self.rest_rows(), markdown);
        }
        text.push('\n');
        text += &self.verdict();
        text
    }

    fn add(&self, text: &mut String, measured: &[Measured], markdown: bool) {
        let rounds = measured.iter().map(|one| one.round).max().unwrap_or(0);
        let pace = match measured.first().and_then(|one| one.offered) {
            None => "each sending a request after each response (closed loop)".to_owned(),
            Some(rate) => format!("{rate:.0} requests per second"),
        };
        heading(
            text,
            markdown,
            &match rounds {
                1 => format!("{} users, {pace}; one round, and ratios to {BASE}", self.users),
                _ => format!(
                    "{} users, {pace}; medians of {rounds} rounds, and ratios to {BASE} within each",
                    self.users
                ),
            },
        );
        self.add_tables(text, measured, markdown);
    }

    fn add_tables(&self, text: &mut String, measured: &[Measured], markdown: bool) {
        let names: Vec<_> = self.contenders.iter().map(|contender| contender.name.as_str()).collect();
        let names: Vec<_> = names.into_iter().filter(|name| Self::of(measured, name).next().is_some()).collect();
        let mut rows = vec![row([
            "",
            "requests/s",
            "ratio (min..max)",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "server CPU s/1000",
            "ratio",
            "database CPU s/1000",
            "ratio",
            "server peak MiB",
            "ratio",
            "database MiB",
            "WAL bytes",
            "generator CPU",
            "elsewhere",
            "cache hits",
            "health max ms",
            "errors",
            "foreign",
        ])];
        rows.extend(names.iter().map(|name| Self::main_row(measured, name)));
        *text += &table(&rows, markdown);

        let mut rows =
            vec![row(["", "operation", "p50 ms", "p95 ms", "p99 ms", "max ms", "worst p95 ms", "p95 < 200 ms"])];
        for name in &names {
            for operation in Operation::ALL {
                rows.extend(Self::operation_row(measured, name, operation));
            }
        }
        if rows.len() > 1 {
            heading(text, markdown, "Latency of each operation; max and worst are of all rounds");
            *text += &table(&rows, markdown);
        }
    }

    fn main_row(measured: &[Measured], name: &str) -> Vec<String> {
        let value = |metric: Metric, digits| shown(Self::spread(measured, name, metric), digits);
        let ratio = |metric: Metric| {
            Self::ratio(measured, name, metric).map_or_else(none, |ratio| format!("{:.2}x", ratio.median))
        };
        let rate: Metric = |one| Some(one.requests_per_second);
        let has_requests = |one: &Measured| one.all.count > 0;
        let has_latencies = Self::of(measured, name).any(has_requests);
        let latency = |metric: Metric| if has_latencies { value(metric, 1) } else { none() };
        let sum = |count: fn(&Measured) -> u64| {
            if has_latencies { Self::of(measured, name).map(count).sum::<u64>().to_string() } else { none() }
        };
        let percent = |metric: Metric| {
            Self::spread(measured, name, metric).map_or_else(none, |share| format!("{:.0} %", share.median * 100.0))
        };
        vec![
            name.to_owned(),
            value(rate, 0),
            Self::ratio(measured, name, rate)
                .map_or_else(none, |ratio| format!("{:.2}x ({:.2}..{:.2})", ratio.median, ratio.min, ratio.max)),
            latency(|one| Some(one.all.p50_ms)),
            latency(|one| Some(one.all.p95_ms)),
            latency(|one| Some(one.all.p99_ms)),
            value(|one| one.server_cpu, 3),
            ratio(|one| one.server_cpu),
            value(|one| one.database_cpu, 3),
            ratio(|one| one.database_cpu),
            value(|one| one.server_mib, 1),
            ratio(|one| one.server_mib),
            value(|one| one.database_mib, 0),
            value(|one| one.wal, 0),
            percent(|one| one.generator_cpu),
            percent(|one| one.elsewhere_cpu),
            percent(|one| one.cache_hits),
            Self::of(measured, name)
                .filter_map(|one| one.health_max_ms)
                .max_by(f64::total_cmp)
                .map_or_else(none, |slowest| format!("{slowest:.0}")),
            sum(|one| one.errors + one.health_failures),
            sum(|one| one.violations),
        ]
    }

    fn operation_row(measured: &[Measured], name: &str, operation: Operation) -> Option<Vec<String>> {
        let rounds: Vec<Summary> =
            Self::of(measured, name).filter_map(|one| one.operations.get(operation.name()).copied()).collect();
        let median = |value: fn(&Summary) -> f64| shown(Spread::of(rounds.iter().map(value)), 1);
        let worst = Spread::of(rounds.iter().map(|round| round.p95_ms))?.max;
        let max = Spread::of(rounds.iter().map(|round| round.max_ms))?.max;
        Some(vec![
            name.to_owned(),
            operation.name().to_owned(),
            median(|round| round.p50_ms),
            median(|round| round.p95_ms),
            median(|round| round.p99_ms),
            format!("{max:.1}"),
            format!("{worst:.1}"),
            if worst < PROMISE_MS { "yes" } else { "NO" }.to_owned(),
        ])
    }

    fn rest_rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![row([
            "",
            "database",
            "first answer ms (min..max)",
            "starts",
            "idle MiB",
            "connections",
            "idle with these MiB",
        ])];
        rows.extend(self.footprints.iter().map(|footprint| {
            let Spread { median, min, max } = footprint.first_answer_ms;
            vec![
                footprint.contender.clone(),
                footprint.database.to_owned(),
                format!("{median:.0} ({min:.0}..{max:.0})"),
                footprint.starts.to_string(),
                format!("{:.1}", footprint.idle_mib),
                footprint.connections.to_string(),
                format!("{:.1}", footprint.idle_with_connections_mib),
            ]
        }));
        rows
    }

    /// The worst measurement of todo-server.
    fn verdict(&self) -> String {
        let ours = || {
            let all = self.measured.iter().chain(&self.open);
            all.filter(|one| self.contenders.iter().any(|known| known.is_ours() && known.name == one.contender))
        };
        let mut text = String::new();
        let worst = ours()
            .flat_map(|one| one.operations.iter().map(move |(operation, summary)| (one, *operation, summary.p95_ms)))
            .max_by(|a, b| a.2.total_cmp(&b.2));
        let passed = |is_good| if is_good { "PASS" } else { "FAIL" };
        if let Some((one, operation, p95)) = worst {
            let _ = writeln!(
                text,
                "{}: p95 under {PROMISE_MS:.0} ms for every operation of every todo-server in every round, with {} \
                 users (worst: {p95:.1} ms, {operation}, {}, round {})",
                // SQLite has one writer, which is not meant for a thousand users.
                if self.on_postgres { passed(p95 < PROMISE_MS) } else { "no promise on SQLite" },
                self.users,
                one.contender,
                one.round
            );
            let requests: u64 = ours().map(|one| one.statuses.values().sum::<u64>()).sum();
            let (errors, violations) = (ours().map(errors).sum::<u64>(), ours().map(|one| one.violations).sum::<u64>());
            let _ = writeln!(
                text,
                "{}: {errors} errors and {violations} responses with a task of another user, in {requests} responses of \
                 todo-server, all of which were checked",
                passed(errors + violations == 0)
            );
        }
        let examples = self.measured.iter().chain(&self.open).flat_map(|one| {
            one.examples.iter().map(move |example| format!("{}, round {}: {example}", one.contender, one.round))
        });
        for example in examples.take(20) {
            let _ = writeln!(text, "  {example}");
        }
        text
    }

    /// Whether all responses of all programs were correct. The reader judges their latency.
    pub(crate) fn is_right(&self) -> bool {
        self.measured.iter().chain(&self.open).all(|one| errors(one) + one.violations == 0)
    }

    /// The latency distributions of all rounds together.
    pub(crate) fn picture(&self) -> String {
        let curves: Vec<_> = self
            .contenders
            .iter()
            .filter_map(|contender| {
                let mut all = Latencies::default();
                Self::of(&self.measured, &contender.name).for_each(|one| all.add(&one.latencies));
                (all.count() > 0).then(|| Curve {
                    name: contender.name.clone(),
                    points: all.curve(),
                    is_dashed: !contender.is_ours(),
                })
            })
            .collect();
        let pace = match self.measured.first().and_then(|one| one.offered) {
            None => "each sending a request after each response (closed loop)".to_owned(),
            Some(rate) => format!("{rate:.0} requests per second"),
        };
        let subtitle = format!("{} users, {pace}: {}; a list has 20 tasks", self.users, self.mix.description());
        plot::svg("Latency of a request", &subtitle, &curves, PROMISE_MS)
    }
}

fn errors(one: &Measured) -> u64 {
    one.errors + one.health_failures
}

fn none() -> String {
    "-".to_owned()
}

fn shown(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(none, |spread| format!("{:.digits$}", spread.median))
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn heading(text: &mut String, markdown: bool, heading: &str) {
    let mark = if markdown { "### " } else { "" };
    let _ = write!(text, "\n{mark}{heading}\n\n");
}

/// Formats a table. All rows have the same length; the first has the names of the columns. Numbers are aligned to the
/// right.
fn table(rows: &[Vec<String>], markdown: bool) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<_> =
        (0..columns).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let is_text = |column: usize| {
        rows.iter().skip(1).any(|row| row[column].starts_with(|first: char| first.is_ascii_alphabetic()))
    };
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if is_text(column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let cells: Vec<_> = cells.collect();
        if markdown {
            let _ = writeln!(text, "| {} |", cells.join(" | "));
            if index == 0 {
                let lines = (0..columns).map(|column| if is_text(column) { "---" } else { "---:" });
                let _ = writeln!(text, "| {} |", lines.collect::<Vec<_>>().join(" | "));
            }
        } else {
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
    }
    text
}
