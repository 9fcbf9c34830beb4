//! The todo API as a program.
//!
//! | command | does |
//! | --- | --- |
//! | `todo-server`, `todo-server serve` | serves the API with the settings of flags, environment and `.env` |
//! | `todo-server dev` | the same without any settings, for this machine only, with a token to try it out |
//! | `todo-server token --user alice` | prints a token of this user |
//! | `todo-server migrate` | brings the database to the newest version, or with `--to` to another |
//! | `todo-server openapi` | prints the OpenAPI document |
//! | `todo-server healthcheck` | asks a running server whether it is ready |
//!
//! `todo-server help serve` lists the settings. Exit codes: 0 done (also after SIGTERM), 1 failed, 2 wrong settings.

mod app;
mod connection;
mod crowd;
mod database;
mod dev;
mod failure;
mod healthcheck;
mod keys;
mod metrics;
#[cfg_attr(not(feature = "otel"), path = "no_otel.rs")]
mod otel;
mod serve;
mod settings;
mod telemetry;
mod token;
mod trace;
mod untaken;
#[cfg(all(test, feature = "axum"))]
#[path = "../../../testing/fuzz/src/wire.rs"]
mod wire;

use std::{
    collections::BTreeMap,
    future::Future,
    io::{self, Write as _},
    net::Ipv4Addr,
    process::ExitCode,
    time::Duration,
};

use clap::{Arg, ArgAction, ArgMatches, Command};
use todo_core::{
    UserId,
    api::TodoApi,
    auth::{JwtVerifier, JwtVerifierBuilder, KeySource, RateLimiter, RefreshTask},
    store::DataLoss,
};

use crate::{
    database::{Migration, Store},
    failure::Failure,
    serve::StopSignals,
    settings::{Database, Group, Http, Keys, Log, SETTINGS, Setting, Settings, Sources},
};

/// Requests allocate little and often, from all threads. `.cargo/config.toml` has its settings.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const DEV: &[Group] = &[Group::Port, Group::Http, Group::Log];
const TOKEN: &[Group] = &[Group::Keys];
const MIGRATE: &[Group] = &[Group::Database, Group::Log];
/// The first version of the tables that knows row security.
const ROW_SECURITY_VERSION: u32 = 2;
const HEALTHCHECK: &[Group] = &[Group::Host, Group::Port];

fn main() -> ExitCode {
    metrics::process::begun();
    match run(&command().get_matches()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("dev", matches)) => in_runtime(dev(sources(matches, DEV))),
        Some(("token", matches)) => print_token(matches),
        Some(("migrate", matches)) => in_runtime(migrate(sources(matches, MIGRATE), migration(matches))),
        Some(("openapi", _)) => print_document(),
        Some(("healthcheck", matches)) => {
            let mut sources = sources(matches, HEALTHCHECK);
            let address = settings::address(&mut sources);
            healthcheck::check(sources.finish(Some(address))?)
        }
        Some((_, matches)) => in_runtime(serve(sources(matches, Settings::GROUPS))),
        None => in_runtime(serve(sources(matches, Settings::GROUPS))),
    }
}

fn command() -> Command {
    Command::new("todo-server")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The todo API as a program")
        .after_help(
            "Each setting is also read from the environment and from .env in the current directory, under its name in \
             capitals; a flag comes first, .env last. Secrets have no flag.",
        )
        .args_conflicts_with_subcommands(true)
        .args(flags(Settings::GROUPS))
        .subcommand(
            Command::new("serve").about("Serves the API; also without a subcommand").args(flags(Settings::GROUPS)),
        )
        .subcommand(
            Command::new("dev")
                .about("Serves the API to this machine, with nothing set up: a SQLite file, a secret and a token")
                .args(flags(DEV)),
        )
        .subcommand(
            Command::new("token")
                .about("Prints a token of a user, signed with BETTER_AUTH_SECRET or, without it, the secret of dev")
                .arg(
                    Arg::new("user")
                        .long("user")
                        .value_name("ID")
                        .required(true)
                        .value_parser(|id: &str| UserId::new(id))
                        .help("The user's id"),
                )
                .arg(
                    Arg::new("ttl")
                        .long("ttl")
                        .value_name("TIME")
                        .default_value("1h")
                        .value_parser(token::lifetime)
                        .help("How long it is good: 90s, 15m, 12h, 30d"),
                )
                .arg(
                    Arg::new("dev")
                        .long("dev")
                        .action(ArgAction::SetTrue)
                        .help("Signs for `todo-server dev`, whatever is set"),
                )
                .args(flags(TOKEN)),
        )
        .subcommand(
            Command::new("migrate")
                .about("Brings the database to the newest version; serve does it too")
                .arg(
                    Arg::new("to")
                        .long("to")
                        .value_name("VERSION")
                        .value_parser(clap::value_parser!(u32))
                        .help("To this version instead, which may be an older one; 0 removes the tables"),
                )
                .arg(
                    Arg::new("delete-all-tasks")
                        .long("delete-all-tasks")
                        .action(ArgAction::SetTrue)
                        .requires("to")
                        .help("With --to 0: even if there are tasks"),
                )
                .arg(
                    Arg::new("grant-to")
                        .long("grant-to")
                        .value_name("ROLE")
                        .conflicts_with("to")
                        .help("PostgreSQL: lets this role use the tables, as a server with ROW_SECURITY needs it"),
                )
                .args(flags(MIGRATE)),
        )
        .subcommand(Command::new("openapi").about("Prints the OpenAPI document of the API, as it is at /openapi.json"))
        .subcommand(
            Command::new("healthcheck")
                .about("Asks the server on this machine whether it is ready; for images without curl")
                .args(flags(HEALTHCHECK)),
        )
}

fn settings_in(groups: &'static [Group]) -> impl Iterator<Item = (&'static Setting, &'static str)> {
    let settings = SETTINGS.iter().filter(|setting| groups.contains(&setting.group));
    settings.filter_map(|setting| Some((setting, setting.flag?)))
}

fn flags(groups: &'static [Group]) -> impl Iterator<Item = Arg> {
    settings_in(groups)
        .map(|(setting, flag)| Arg::new(setting.name).long(flag).value_name(setting.value).help(setting.help))
}

fn sources(matches: &ArgMatches, groups: &'static [Group]) -> Sources {
    let given = settings_in(groups).filter_map(|(setting, _)| {
        let value = matches.get_one::<String>(setting.name)?;
        Some((setting.name, value.clone()))
    });
    Sources::of_process(given.collect::<BTreeMap<_, _>>())
}

fn in_runtime(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::fatal(format!("cannot start: {error}")))?
        .block_on(command)
}

async fn serve(sources: Sources) -> Result<(), Failure> {
    let settings = Settings::read(sources)?;
    let telemetry = telemetry::install(settings.log)?;
    let mut stop = stop_signals()?;
    let store = tokio::select! {
        store = database::open(&settings.database) => store?,
        () = stop.asked() => return Ok(()),
    };
    let (app, verifier, _refresh) = app(&settings.http, &store, settings.keys, settings.leeway)?;
    let crowd = serve::crowd(settings.http.max_connections, settings.database.files());
    let subjects =
        metrics::Subjects { framework: settings.http.framework, store: store.clone(), verifier, crowd: crowd.clone() };
    let _metrics = match settings.metrics {
        Some(address) => Some(metrics::open(address, subjects).await?),
        None => None,
    };
    let listener = serve::listen(settings.address).await?;
    let address = listener.local_addr().unwrap_or(settings.address);
    tracing::info!(%address, framework = ?settings.http.framework, "listening");
    serve::serve(listener, app, crowd, stop, grace(&settings.http)).await;
    store.close().await;
    telemetry.finish().await;
    Ok(())
}

async fn dev(mut sources: Sources) -> Result<(), Failure> {
    let port = settings::port(&mut sources);
    let http = Http::read(&mut sources);
    let log = Log::read(&mut sources);
    let ignored = sources.names_in(&[Group::Host, Group::Database, Group::Keys, Group::Metrics]);
    let http = sources.finish(http)?;
    let telemetry = telemetry::install(log)?;
    let stop = stop_signals()?;

    let listener = serve::listen((Ipv4Addr::LOCALHOST, port).into()).await?;
    let home = dev::Home::open()?;
    let database = home.database();
    let crowd = serve::crowd(http.max_connections, database.files());
    let store = database::open(&database).await?;
    let keys = Keys::of_secret(home.secret);
    let key_sources = keys::key_sources(&keys).map_err(|_| Failure::fatal("the secret of dev is not good"))?;
    let (app, _, _refresh) = app(&http, &store, key_sources, keys.leeway)?;
    let address = listener.local_addr().map_err(|error| Failure::fatal(format!("cannot listen: {error}")))?;
    let greeting = dev::greeting(address, &keys, &ignored)?;
    // Whoever does not read it may still use the server.
    let _ = io::stdout().write_all(greeting.as_bytes());
    serve::serve(listener, app, crowd, stop, grace(&http)).await;
    store.close().await;
    telemetry.finish().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a token that is asked for is printed")]
fn print_token(matches: &ArgMatches) -> Result<(), Failure> {
    let mut sources = sources(matches, TOKEN);
    // Whoever has set up keys means those, even if they cannot sign.
    let keys = if matches.get_flag("dev") || sources.names_in(TOKEN).is_empty() {
        dev::Home::existing_secret()?.map(Keys::of_secret).unwrap_or_default()
    } else {
        let keys = Keys::read(&mut sources);
        sources.finish(Some(keys))?
    };
    let user = matches.get_one::<UserId>("user").ok_or_else(|| Failure::fatal("--user is needed"))?;
    let lifetime = matches.get_one::<Duration>("ttl").copied().unwrap_or(Duration::from_hours(1));
    println!("{}", token::mint(&keys, user, lifetime)?);
    Ok(())
}

fn print_document() -> Result<(), Failure> {
    let document = todo_core::api::openapi::document(app::MOUNT);
    io::stdout().write_all(document.as_bytes()).map_err(|error| Failure::fatal(format!("cannot print: {error}")))
}

fn migration(matches: &ArgMatches) -> Migration {
    Migration {
        to: matches.get_one("to").copied(),
        loss: if matches.get_flag("delete-all-tasks") { DataLoss::Accept } else { DataLoss::Refuse },
        grant_to: matches.get_one("grant-to").cloned(),
    }
}

#[expect(clippy::print_stdout, reason = "the outcome of a command that was asked for")]
async fn migrate(mut sources: Sources, migration: Migration) -> Result<(), Failure> {
    let database = Database::read(&mut sources);
    let log = Log::read(&mut sources);
    let database = sources.finish(database)?;
    let telemetry = telemetry::install(log)?;
    database::migrate(&database, &migration).await?;
    telemetry.finish().await;
    let version = migration.to.map_or_else(|| "the newest version".to_owned(), |version| format!("version {version}"));
    println!("{} is at {version}", database::name(&database));
    if matches!(database, Database::Postgres { .. })
        && migration.to.is_some_and(|version| version < ROW_SECURITY_VERSION)
    {
        println!(
            "row security, if it was on, is off now, and what servers with it call is gone; it comes back by \
             ROW_SECURITY=on todo-server migrate --grant-to <role>"
        );
    }
    Ok(())
}

fn stop_signals() -> Result<StopSignals, Failure> {
    StopSignals::subscribe().map_err(|error| Failure::fatal(format!("cannot listen to signals: {error}")))
}

/// The app, and the tasks that keep its key sets up to date as long as they are held.
fn app(
    http: &Http,
    store: &Store,
    keys: Vec<KeySource>,
    leeway: Duration,
) -> Result<(app::App, JwtVerifier, RefreshTask), Failure> {
    let verifier = JwtVerifier::builder().leeway(leeway);
    let verifier = keys.into_iter().fold(verifier, JwtVerifierBuilder::source);
    let verifier = verifier.build().map_err(|error| Failure::fatal(error.to_string()))?;
    let refresh = verifier.spawn_refresh();
    let api =
        TodoApi::new(store.service(), verifier.clone()).with_body_limit(http.body_limit).with_timeout(http.timeout);
    let api = match http.rate_limit {
        Some(rate) => api.with_gate(RateLimiter::new(rate)),
        None => api,
    };
    Ok((app::app(http.framework, api, &http.origins), verifier, refresh))
}

/// How long to wait at the end: no request may take longer, but its answer has to be taken, too.
fn grace(http: &Http) -> Duration {
    http.timeout + Duration::from_secs(5)
}
