//! `cargo bench -p todo-benches --bench load`: todo-server against hand-written programs that do the same.
//!
//! `benches/README.md` says what is measured, how, and how to read it; `-- --help` lists the options.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program may speak to its user")]

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
    run::{Bench, Measured, Rest, usual},
};

fn main() -> ExitCode {
    let Some(options) = Options::read() else { return ExitCode::SUCCESS };
    match measure(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("load: some answers were wrong");
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
    let programs = Programs::build()?;
    eprintln!("load: filling a database");
    let mut databases = Databases::open(options.sqlite, &programs.todo_server)?;
    let on_postgres = matches!(databases, Databases::Postgres(_));
    if !on_postgres && !options.sqlite {
        println!(
            "There are no PostgreSQL programs on this machine (`apt-get install postgresql` brings them), so this is \
             todo-server on SQLite,\nwithout the programs it would be compared with: they know PostgreSQL alone.\n"
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
    let rest = if options.only.is_empty() && options.open.is_none() { rests(&mut bench)? } else { Vec::new() };
    databases.close();

    let report = Report {
        conditions,
        contenders,
        measured,
        open,
        rest,
        users: options.users,
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

/// All contenders in turn, in each round another one first, so that neither a warm machine nor a tired one is always
/// the same one's luck.
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

/// In the long form, once more at a pace that the baseline can just keep up with: how long requests take when nobody
/// is overloaded.
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
    eprintln!("load: now {rate:.0} requests a second");
    let asked: Vec<_> = contenders
        .iter()
        .filter(|contender| {
            matches!(contender.kind, Kind::Sqlx | Kind::Pipelined | Kind::Ours { variant: Variant::Usual, .. })
        })
        .cloned()
        .collect();
    rounds(bench, &asked, 1, Pace::Open(rate))
}

/// How servers start and what they need when nobody asks.
fn rests(bench: &mut Bench<'_>) -> Result<Vec<Rest>, Failure> {
    eprintln!("load: starting and resting");
    let starts = if bench.options.is_short() { 3 } else { 9 };
    let mut rests = vec![bench.rest(&usual(), starts)?];
    if matches!(bench.databases, Databases::Postgres(_)) {
        let mut files = Databases::Sqlite(Files::make(&bench.programs.todo_server)?);
        let mut on_sqlite = Bench { databases: &mut files, folder: bench.folder.clone(), ..*bench };
        rests.push(on_sqlite.rest(&usual(), starts)?);
        for (name, kind) in [(BASE, Kind::Sqlx), ("baseline-pipelined", Kind::Pipelined)] {
            rests.push(bench.rest(&Contender { name: name.to_owned(), kind }, starts)?);
        }
    }
    Ok(rests)
}

/// Where the results go: `load` in cargo's target folder.
fn folder() -> Result<PathBuf, Failure> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("there is no target folder")?;
    let folder = target.join("load");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Under which the numbers hold.
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
                "{}, {cores} cores that server, database and generator share; Linux {}; load at the beginning {}",
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
                "{} of 10000 users with 20 tasks each and tokens of {:?}, {} rounds of {} s after {} s of warm-up",
                options.users,
                options.token,
                options.rounds(),
                options.window().as_secs(),
                options.warm_up().as_secs()
            ),
        ),
    ]))
}

/// A connection is an open file.
fn raise_open_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("load: the limit of open files stays as it is: {error}");
    }
}
