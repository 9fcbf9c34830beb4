//! `cargo bench -p todo-benches --bench load`: todo-server against hand-written programs that do the same.
//!
//! `benches/README.md` explains the measurement and its results; `-- --help` lists the options.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program prints to its user")]

mod contenders;
mod options;
mod postgres;
mod report;
mod run;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use todo_benches::{generator::Pace, measure::Spread};

use crate::{
    contenders::{BASE, Contender, Keys, Kind, Programs, Variant},
    options::Options,
    postgres::{Databases, Failure, Files},
    report::{PROMISE_MS, Report},
    run::{Bench, Footprint, Measured, usual},
};

fn main() -> ExitCode {
    let Some(options) = Options::read() else { return ExitCode::SUCCESS };
    match measure(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("load: some responses were wrong");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<bool, Failure> {
    raise_open_file_limit();
    eprintln!("load: building todo-server");
    let programs = Programs::build(&options.other)?;
    eprintln!("load: filling a database");
    let mut databases = Databases::open(options.sqlite, options.owners, &programs.todo_server)?;
    let on_postgres = matches!(databases, Databases::Postgres(_));
    if !on_postgres && !options.sqlite {
        println!(
            "PostgreSQL is not installed on this machine (install it with: scripts/setup). todo-server is \
             measured on SQLite,\nwithout the baselines, which support PostgreSQL only.\n"
        );
    }
    let contenders = Contender::chosen(options, on_postgres)?;
    let keys = Keys::new(options.token)?;
    let tokens: Vec<_> = (0..options.users).map(|user| keys.token(user)).collect();
    let folder = folder()?;
    let conditions = conditions(options, &mut databases)?;

    let mut bench = Bench {
        options,
        programs: &programs,
        keys: &keys,
        tokens: &tokens,
        databases: &mut databases,
        folder: folder.clone(),
    };
    let pace = options.open.map_or(Pace::Closed, Pace::Open);
    let measured = rounds(&mut bench, &contenders, options.rounds(), pace)?;
    let open = open_rounds(&mut bench, &contenders, &measured)?;
    let footprints =
        if options.only.is_empty() && options.open.is_none() { measure_footprints(&mut bench)? } else { Vec::new() };
    databases.close();

    let report = Report {
        conditions,
        contenders,
        measured,
        open,
        footprints,
        users: options.users,
        mix: options.mix,
        on_postgres,
        promise_p95_ms: PROMISE_MS,
    };
    let (json, picture) = (folder.join("report.json"), folder.join("latency.svg"));
    fs::write(&json, serde_json::to_string_pretty(&report)?)?;
    fs::write(&picture, report.picture())?;
    println!("{}", report.text(options.markdown));
    println!("{}\n{}", json.display(), picture.display());
    Ok(report.is_right())
}

/// Measures all contenders one after the other. Each round begins with another one, so that no contender always has the
/// same position.
fn rounds(bench: &mut Bench<'_>, contenders: &[Contender], rounds: u32, pace: Pace) -> Result<Vec<Measured>, Failure> {
    let mut all = Vec::new();
    let mut order = contenders.to_vec();
    for round in 1..=rounds {
        for contender in &order {
            if matches!(contender.kind, Kind::Pgbench { .. }) && pace != Pace::Closed {
                continue;
            }
            let measured = bench
                .measure(contender, round, pace)
                .map_err(|error| format!("{} in round {round}: {error}", contender.name))?;
            eprintln!(
                "load: round {round} of {rounds}: {:24} {:7.0} requests/s, p95 {:6.1} ms, {} errors, {} foreign",
                contender.name,
                measured.requests_per_second,
                measured.all.p95_ms,
                measured.errors + measured.health_failures,
                measured.violations
            );
            all.push(measured);
        }
        if !order.is_empty() {
            order.rotate_left(1);
        }
    }
    Ok(all)
}

/// In the long form, measures once more at a rate that all programs can keep up with, for the latency without overload.
fn open_rounds(
    bench: &mut Bench<'_>,
    contenders: &[Contender],
    measured: &[Measured],
) -> Result<Vec<Measured>, Failure> {
    let options = bench.options;
    if options.is_short() || options.open.is_some() || !options.only.is_empty() {
        return Ok(Vec::new());
    }
    let base = measured.iter().filter(|one| one.contender == BASE || one.contender == usual().name);
    let Some(slowest) = Spread::of(base.map(|one| one.requests_per_second)) else { return Ok(Vec::new()) };
    let rate = (slowest.min * 0.7 / 100.0).floor().max(1.0) * 100.0;
    eprintln!("load: at {rate:.0} requests per second");
    let chosen: Vec<_> = contenders
        .iter()
        .filter(|contender| {
            matches!(contender.kind, Kind::Sqlx | Kind::Pipelined | Kind::Ours { variant: Variant::Usual, .. })
        })
        .cloned()
        .collect();
    rounds(bench, &chosen, 1, Pace::Open(rate))
}

/// Measures the start of the servers and their memory without load.
fn measure_footprints(bench: &mut Bench<'_>) -> Result<Vec<Footprint>, Failure> {
    eprintln!("load: start and memory without load");
    let starts = if bench.options.is_short() { 3 } else { 9 };
    let mut results = vec![bench.footprint(&usual(), starts)?];
    if matches!(bench.databases, Databases::Postgres(_)) {
        let mut files = Databases::Sqlite(Files::make(&bench.programs.todo_server)?);
        let mut on_sqlite = Bench { databases: &mut files, folder: bench.folder.clone(), ..*bench };
        results.push(on_sqlite.footprint(&usual(), starts)?);
        for (name, kind) in [(BASE, Kind::Sqlx), ("baseline-pipelined", Kind::Pipelined)] {
            results.push(bench.footprint(&Contender { name: name.to_owned(), kind }, starts)?);
        }
    }
    Ok(results)
}

/// The folder of the results: `load` in cargo's target folder.
fn folder() -> Result<PathBuf, Failure> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("there is no target folder")?;
    let folder = target.join("load");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The machine, the versions and the load of the measurement.
fn conditions(options: &Options, databases: &mut Databases) -> Result<BTreeMap<&'static str, String>, Failure> {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
        let output = output.ok().filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let unknown = || "unknown".to_owned();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let commit = said("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(unknown);
    let is_changed = said("git", &["status", "--porcelain", "--untracked-files=no"]).is_some_and(|it| !it.is_empty());
    Ok(BTreeMap::from([
        (
            "machine",
            format!(
                "{}, {cores} cores shared by server, database and generator; Linux {}; load at the beginning {}",
                model.map_or("unknown processor", |(_, model)| model),
                kernel.trim(),
                load.split(' ').next().unwrap_or_default()
            ),
        ),
        ("commit", if is_changed { format!("{commit}, with changes") } else { commit }),
        ("compiler", said("rustc", &["--version"]).unwrap_or_else(unknown)),
        ("database", databases.description()?),
        (
            "load",
            format!(
                "{} of {} users with 20 tasks each and tokens of {:?}; {}; {} rounds of {} s after {} s of warm-up",
                options.users,
                options.owners,
                options.token,
                options.mix.description(),
                options.rounds(),
                options.window().as_secs(),
                options.warm_up().as_secs()
            ),
        ),
    ]))
}

/// Each connection is an open file.
fn raise_open_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("load: cannot raise the limit of open files: {error}");
    }
}
