//! Breaks todo-server, PostgreSQL and the network between them under load, and checks that no acknowledged write is
//! lost.
//!
//! `scripts/drill` builds and runs this program; `docs/drills.md` explains the drills and the report.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program writes to its terminal")]

mod backup;
mod call;
mod client;
mod cluster;
mod commands;
mod drills;
mod flood;
mod high_availability;
mod host;
mod keys;
mod load;
mod model;
mod options;
mod report;
mod scene;
mod tally;

use std::{
    fs,
    process::{Command, ExitCode},
    time::Instant,
};

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{options::Options, report::Row};

/// Why a drill could not be run.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for drill in options.chosen() {
            println!("{:18} {}", drill.name(), drill.about());
        }
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("drill: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the drills; returns whether all have passed.
fn run(options: &Options) -> Result<bool, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    fs::create_dir_all(&options.out)?;
    let options =
        Options { out: fs::canonicalize(&options.out)?, server: fs::canonicalize(&options.server)?, ..options.clone() };
    let mut rows = Vec::new();
    for drill in options.chosen() {
        eprintln!("drill: {}: {}", drill.name(), drill.about());
        let begun = Instant::now();
        let outcome = runtime.block_on(async {
            tokio::select! {
                row = drill.run(&options) => Some(row),
                () = interrupted() => None,
            }
        });
        // All processes that the drill started have ended by now.
        let Some(row) = outcome else { return Err("interrupted".into()) };
        let row = row.unwrap_or_else(|failure| Row {
            name: drill.name(),
            failures: vec![format!("it could not be run: {failure}")],
            ..Row::default()
        });
        let failures = row.failures();
        let result = if failures.is_empty() { "passed".to_owned() } else { format!("FAILED: {}", failures.join("; ")) };
        eprintln!("drill: {}: {result}, in {} s", drill.name(), begun.elapsed().as_secs());
        rows.push(row);
        // After each drill, so that an interrupted run has a report as well.
        fs::write(options.out.join("report.md"), report::markdown(&head(&options), &rows))?;
    }
    println!("{}", report::markdown(&head(&options), &rows));
    Ok(rows.iter().all(|row| row.failures().is_empty()))
}

/// Waits for SIGINT or SIGTERM.
async fn interrupted() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
        }
        Err(_) => std::future::pending().await,
    }
}

/// The version, the settings and the machine, for the head of the report.
fn head(options: &Options) -> Vec<String> {
    let output_of = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let commit = output_of("git", &["describe", "--always", "--dirty"]);
    let version = output_of(&options.server.to_string_lossy(), &["--version"]);
    let settings = options.set.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ");
    let settings = if settings.is_empty() { settings } else { format!(", {settings}") };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    vec![
        format!("commit {}; {}, profile {}", commit.unwrap_or_default(), version.unwrap_or_default(), options.profile),
        format!(
            "{}{settings}, {} requests a second by {} users; {cores} processors, load average {} at the end",
            options.framework,
            options.rate,
            load::USERS,
            fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default()
        ),
    ]
}
