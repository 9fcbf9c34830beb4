//! Breaks what todo-server depends on, and the server itself, under load, and says what became of acknowledged writes.
//!
//! `scripts/drill` builds what this needs and runs it; `docs/drills.md` says how to read the report.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program may speak to its user")]

mod client;
mod drills;
mod host;
mod keys;
mod load;
mod model;
mod options;
mod report;

use std::{
    fs,
    process::{Command, ExitCode},
    time::Instant,
};

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{drills::Drill, options::Options, report::Row};

/// Why a drill could not be held.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for drill in Drill::ALL {
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

/// Whether all is good.
fn run(options: &Options) -> Result<bool, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    fs::create_dir_all(&options.out)?;
    let options =
        Options { out: fs::canonicalize(&options.out)?, server: fs::canonicalize(&options.server)?, ..options.clone() };
    let chosen = match (options.drills.as_slice(), options.short) {
        ([], true) => &Drill::SHORT[..],
        ([], false) => &Drill::ALL[..],
        (chosen, _) => chosen,
    };
    let mut rows = Vec::new();
    for drill in chosen.iter().filter(|drill| !options.skip.contains(drill)) {
        eprintln!("drill: {}: {}", drill.name(), drill.about());
        let begun = Instant::now();
        let held = runtime.block_on(async {
            tokio::select! {
                row = drill.run(&options) => Some(row),
                () = interrupted() => None,
            }
        });
        // What was started has been ended by now.
        let Some(row) = held else { return Err("interrupted".into()) };
        let row = row.unwrap_or_else(|failure| Row {
            name: drill.name(),
            failures: vec![format!("it could not be held: {failure}")],
            ..Row::default()
        });
        let verdict = row.verdict();
        let word = if verdict.is_empty() { "good".to_owned() } else { format!("NOT GOOD: {}", verdict.join("; ")) };
        eprintln!("drill: {}: {word}, in {} s", drill.name(), begun.elapsed().as_secs());
        rows.push(row);
        // Whoever interrupts the rest has this much.
        fs::write(options.out.join("report.md"), report::markdown(&head(&options), &rows))?;
    }
    println!("{}", report::markdown(&head(&options), &rows));
    Ok(rows.iter().all(|row| row.verdict().is_empty()))
}

/// SIGINT or SIGTERM.
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

/// Of what this is a report.
fn head(options: &Options) -> Vec<String> {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let commit = said("git", &["describe", "--always", "--dirty"]);
    let version = said(&options.server.to_string_lossy(), &["--version"]);
    let settings = options.set.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ");
    let settings = if settings.is_empty() { settings } else { format!(", {settings}") };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    vec![
        format!("commit {}; {}, profile {}", commit.unwrap_or_default(), version.unwrap_or_default(), options.profile),
        format!(
            "{}{settings}, {} requests a second by {} users; {cores} processors for all of it, of which {} were wanted at the end",
            options.framework,
            options.rate,
            load::USERS,
            fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default()
        ),
    ]
}
