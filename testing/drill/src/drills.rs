//! The drills: what is broken, and when the fault ends.

use std::{
    fs::File,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::Connection as _;
use testkit::{
    haproxy::{self, HaProxy},
    pgbouncer::PgBouncer,
    postgres::Faults,
    proxy::{Proxy, Traffic},
    tokens::SigningKey,
};
use tokio::{task::block_in_place, time::sleep};

use crate::{
    Failure, backup, flood, high_availability,
    host::Host,
    keys::{ISSUER, KeyServer, token},
    load::{Load, Mint},
    options::Options,
    report::{Row, percentile},
    scene::{DATABASE_DOWN, SERVER_DOWN, Scene, UNDISTURBED, by_secret, finish, postgres, setup, with_secret},
};

/// A drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drill {
    KillServer,
    KillPostgres,
    RestartPostgres,
    FreezePostgres,
    CutNetwork,
    SilenceNetwork,
    RestartPooler,
    FillPool,
    OneUserFloods,
    KillKeyServer,
    Terminate,
    TwoServers,
    RollingRestart,
    BackupSqlite,
    BackupPostgres,
    BackupRowSecurity,
    HighAvailability,
    Soak,
    Sync,
    Schemathesis,
}

impl Drill {
    pub(crate) const ALL: [Self; 20] = [
        Self::KillServer,
        Self::KillPostgres,
        Self::RestartPostgres,
        Self::FreezePostgres,
        Self::CutNetwork,
        Self::SilenceNetwork,
        Self::RestartPooler,
        Self::FillPool,
        Self::OneUserFloods,
        Self::KillKeyServer,
        Self::Terminate,
        Self::TwoServers,
        Self::RollingRestart,
        Self::BackupSqlite,
        Self::BackupPostgres,
        Self::BackupRowSecurity,
        Self::HighAvailability,
        Self::Soak,
        Self::Sync,
        Self::Schemathesis,
    ];
    /// The selection of `--short`.
    pub(crate) const SHORT: [Self; 5] =
        [Self::KillServer, Self::KillPostgres, Self::FreezePostgres, Self::CutNetwork, Self::OneUserFloods];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::KillServer => "kill-server",
            Self::KillPostgres => "kill-postgres",
            Self::RestartPostgres => "restart-postgres",
            Self::FreezePostgres => "freeze-postgres",
            Self::CutNetwork => "cut-network",
            Self::SilenceNetwork => "silence-network",
            Self::RestartPooler => "restart-pgbouncer",
            Self::FillPool => "fill-pool",
            Self::OneUserFloods => "one-user-floods",
            Self::KillKeyServer => "kill-key-server",
            Self::Terminate => "terminate",
            Self::TwoServers => "two-servers",
            Self::RollingRestart => "rolling-restart",
            Self::BackupSqlite => "backup-sqlite",
            Self::BackupPostgres => "backup-postgres",
            Self::BackupRowSecurity => "backup-row-security",
            Self::HighAvailability => "high-availability",
            Self::Soak => "soak",
            Self::Sync => "sync",
            Self::Schemathesis => "schemathesis",
        }
    }

    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::KillServer => "SIGKILL to the server, which is started again after 100 ms, as by systemd",
            Self::KillPostgres => "SIGKILL to all processes of PostgreSQL, which is started again after 1 s",
            Self::RestartPostgres => "pg_ctl restart -m fast",
            Self::FreezePostgres => "SIGSTOP to all processes of PostgreSQL for 10 s, or 3 s with --short",
            Self::CutNetwork => "all connections to PostgreSQL are reset, and new ones are rejected for 3 s",
            Self::SilenceNetwork => {
                "the network to PostgreSQL drops all packets for 10 s, and those of older connections for ever"
            }
            Self::RestartPooler => "SIGKILL to PgBouncer, which is started again after 0.5 s",
            Self::FillPool => "another client locks the table for 5 s; 10 connections, at most 50 waiting calls",
            Self::OneUserFloods => {
                "one user keeps 1200 toggles of one task in flight; PostgreSQL with and without COALESCE, and SQLite"
            }
            Self::KillKeyServer => "the key server is down for 75 s, and then also has a new key",
            Self::Terminate => "SIGTERM while requests wait for a lock; then the server is started again",
            Self::TwoServers => {
                "two servers start at the same time on an empty database; one is killed and started again"
            }
            Self::RollingRestart => {
                "two servers behind HAProxy get SIGTERM one after the other, and are started again; three rounds"
            }
            Self::BackupSqlite => "todo.db is backed up under load, deleted and restored, as docs/backup.md says",
            Self::BackupPostgres => {
                "a dump and a base backup under load; the database is deleted and restored from each"
            }
            Self::BackupRowSecurity => "backup-postgres with row-level security",
            Self::HighAvailability => {
                "three machines with Patroni: the leader is killed, frozen, cut off and switched, with and without synchronous mode"
            }
            Self::Soak => "no fault, for half an hour",
            Self::Sync => {
                "scripts/check-sync: RxDB clients change the same tasks, offline and on two servers that get SIGKILL"
            }
            Self::Schemathesis => {
                "scripts/schemathesis: axum, poem and warp on PostgreSQL, against the OpenAPI document"
            }
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|drill| drill.name() == name)
    }

    pub(crate) async fn run(self, options: &Options) -> Result<Row, Failure> {
        match self {
            Self::KillServer => kill_server(options).await,
            Self::KillPostgres => {
                on_postgres(self, options, async |faults| {
                    block_in_place(|| faults.kill())?;
                    sleep(Duration::from_secs(1)).await;
                    Ok(block_in_place(|| faults.start())?)
                })
                .await
            }
            Self::RestartPostgres => {
                on_postgres(self, options, async |faults| Ok(block_in_place(|| faults.restart())?)).await
            }
            Self::FreezePostgres => {
                let time = Duration::from_secs(if options.short { 3 } else { 10 });
                on_postgres(self, options, async |faults| {
                    block_in_place(|| faults.freeze())?;
                    sleep(time).await;
                    Ok(block_in_place(|| faults.thaw())?)
                })
                .await
            }
            Self::CutNetwork => {
                through_proxy(self, options, async |proxy| {
                    proxy.set(Traffic::Refused);
                    proxy.cut();
                    sleep(Duration::from_secs(3)).await;
                    proxy.set(Traffic::Flows);
                })
                .await
            }
            Self::SilenceNetwork => {
                through_proxy(self, options, async |proxy| {
                    proxy.set(Traffic::Silent);
                    sleep(Duration::from_secs(10)).await;
                    proxy.set(Traffic::Flows);
                })
                .await
            }
            Self::RestartPooler => restart_pooler(options).await,
            Self::FillPool => fill_pool(options).await,
            Self::OneUserFloods => flood::one_user_floods(options).await,
            Self::KillKeyServer => kill_key_server(options).await,
            Self::Terminate => terminate(options).await,
            Self::TwoServers => two_servers(options).await,
            Self::RollingRestart => rolling_restart(options).await,
            Self::BackupSqlite => backup::sqlite(self, options).await,
            Self::BackupPostgres => backup::postgres(self, options, false).await,
            Self::BackupRowSecurity => backup::postgres(self, options, true).await,
            Self::HighAvailability => high_availability::high_availability(options).await,
            Self::Soak => soak(options).await,
            Self::Sync => sync(options).await,
            Self::Schemathesis => schemathesis(options).await,
        }
    }
}

async fn kill_server(options: &Options) -> Result<Row, Failure> {
    let mut scene = Scene::open(Drill::KillServer, options).await?;
    scene.host.kill()?;
    sleep(Duration::from_millis(100)).await;
    scene.host.restart()?;
    scene.load.fault_ended();
    scene.close(SERVER_DOWN, true, options).await
}

async fn on_postgres(
    drill: Drill,
    options: &Options,
    fault: impl AsyncFnOnce(&Faults) -> Result<(), Failure>,
) -> Result<Row, Failure> {
    let scene = Scene::open(drill, options).await?;
    fault(scene.faults()?).await?;
    scene.load.fault_ended();
    scene.close(DATABASE_DOWN, true, options).await
}

async fn through_proxy(drill: Drill, options: &Options, fault: impl AsyncFnOnce(&Proxy)) -> Result<Row, Failure> {
    let postgres = postgres().await?;
    let proxy = Proxy::before(postgres.url()).await;
    let setup = with_secret(drill, options, &proxy.url());
    let scene = Scene::with(drill, options, postgres, setup, &by_secret()).await?;
    fault(&proxy).await;
    scene.load.fault_ended();
    scene.close(DATABASE_DOWN, true, options).await
}

async fn restart_pooler(options: &Options) -> Result<Row, Failure> {
    let postgres = postgres().await?;
    let mut pooler = block_in_place(|| PgBouncer::tracking(postgres.url()));
    let setup = with_secret(Drill::RestartPooler, options, &pooler.url()).set("DATABASE_DIRECT_URL", postgres.url());
    let scene = Scene::with(Drill::RestartPooler, options, postgres, setup, &by_secret()).await?;
    block_in_place(|| pooler.stop());
    sleep(Duration::from_millis(500)).await;
    block_in_place(|| pooler.start());
    scene.load.fault_ended();
    scene.close(DATABASE_DOWN, true, options).await
}

async fn fill_pool(options: &Options) -> Result<Row, Failure> {
    let postgres = postgres().await?;
    let setup = with_secret(Drill::FillPool, options, postgres.url()).set("DATABASE_MAX_WAITING", "50");
    let scene = Scene::with(Drill::FillPool, options, postgres, setup, &by_secret()).await?;
    let mut connection = scene.connect().await?;
    let mut lock = connection.begin().await?;
    sqlx::raw_sql("lock table todo.tasks in access exclusive mode").execute(&mut *lock).await?;
    sleep(Duration::from_secs(5)).await;
    lock.rollback().await?;
    scene.load.fault_ended();
    let mut row = scene.close(DATABASE_DOWN, true, options).await?;
    let unavailable = &row.tally.unavailable;
    row.notes.push(format!(
        "{} responses 503; half of them within {:.1} ms, nine in ten within {:.1} ms",
        unavailable.len(),
        percentile(unavailable, 50),
        percentile(unavailable, 90)
    ));
    if unavailable.is_empty() {
        row.failures.push("the pool was not full".to_owned());
    }
    Ok(row)
}

async fn terminate(options: &Options) -> Result<Row, Failure> {
    let mut scene = Scene::open(Drill::Terminate, options).await?;
    // So that many requests are in flight.
    let mut connection = scene.connect().await?;
    let mut lock = connection.begin().await?;
    sqlx::raw_sql("lock table todo.tasks in access exclusive mode").execute(&mut *lock).await?;
    sleep(Duration::from_millis(400)).await;
    // A request that is sent at the moment of the signal may find its connection closed, as HTTP allows.
    scene.load.must_respond_before(Instant::now());
    sleep(Duration::from_millis(100)).await;
    scene.host.terminate()?;
    let begun = Instant::now();
    sleep(Duration::from_millis(500)).await;
    lock.rollback().await?;
    let status = scene.host.end().await?;
    let took = begun.elapsed();
    scene.host.restart()?;
    scene.load.fault_ended();
    let mut row = scene.close(SERVER_DOWN, true, options).await?;
    if !status.success() {
        row.failures.push(format!("after SIGTERM the server exited with {status}"));
    }
    if row.tally.closing == 0 {
        row.failures.push("no response after SIGTERM has `connection: close`".to_owned());
    }
    row.notes.push(format!(
        "it exited {} ms after SIGTERM, {} ms after the lock was released; {} responses had `connection: close`",
        took.as_millis(),
        took.as_millis().saturating_sub(500),
        row.tally.closing
    ));
    Ok(row)
}

async fn kill_key_server(options: &Options) -> Result<Row, Failure> {
    let (old, new) = (Arc::new(SigningKey::ed25519()), Arc::new(SigningKey::ed25519()));
    let by = |key: &Arc<SigningKey>, kid: &'static str| -> Mint {
        let key = key.clone();
        Box::new(move |user| token(&key, kid, user))
    };
    let port = testkit::http::lasting_port()?;
    let keys = KeyServer::start(port, &[old.jwk("old")]).await?;
    let postgres = postgres().await?;
    let setup = setup(Drill::KillKeyServer, options)
        .set("DATABASE_URL", postgres.url())
        .set("JWKS_URL", format!("http://127.0.0.1:{port}/jwks"))
        .set("JWT_ISSUER", ISSUER)
        .set("JWT_AUDIENCE", ISSUER);
    let scene = Scene::with(Drill::KillKeyServer, options, postgres, setup, &by(&old, "old")).await?;
    let fetches = keys.fetches();
    keys.kill().await;
    // Longer than a key set is fresh.
    sleep(Duration::from_secs(75)).await;
    let keys = KeyServer::start(port, &[old.jwk("old"), new.jwk("new")]).await?;
    scene.load.fault_ended();
    // A user with a token of the new key sends requests as soon as the key server has it.
    let begun = Instant::now();
    let mint = by(&new, "new");
    let by_new = new.clone();
    let of_stranger: Mint = Box::new(move |_| token(&by_new, "new", "stranger"));
    let stranger = Load::new(&[scene.host.address()], &of_stranger);
    let limit = Duration::from_secs(15);
    let mut attempts = 0;
    while !stranger.try_once().await && begun.elapsed() < limit {
        attempts += 1;
        sleep(Duration::from_millis(100)).await;
    }
    let accepted = begun.elapsed();
    scene.load.renew_tokens(&mint);
    let findings = std::mem::take(&mut *stranger.tally());
    let mut row = scene.close(UNDISTURBED, true, options).await?;
    row.notes.push(format!(
        "{fetches} fetches before, {} after; a token of the new key was accepted {} ms after the key server was up again, after \
         {attempts} responses 503 (at most one fetch in 10 s)",
        keys.fetches(),
        accepted.as_millis()
    ));
    if accepted >= limit {
        row.failures.push("the new key was not accepted".to_owned());
    }
    if findings.wrong + findings.lost > 0 {
        row.failures.push(format!("wrong responses to the user with the new key: {:?}", findings.examples));
    }
    Ok(row)
}

async fn two_servers(options: &Options) -> Result<Row, Failure> {
    let mut all: Option<Row> = None;
    // Killed just after its start, while it migrates, and just after it has migrated.
    for delay in [0, 30, 60, 100, 150, 250, 400] {
        let row = two_servers_once(options, Duration::from_millis(delay)).await?;
        all = Some(match all {
            None => row,
            Some(mut all) => {
                all.tally.add(row.tally);
                all.notes.extend(row.notes);
                all.failures.extend(row.failures);
                Row { memory: row.memory, ..all }
            }
        });
    }
    all.ok_or_else(|| "no round".into())
}

async fn two_servers_once(options: &Options, delay: Duration) -> Result<Row, Failure> {
    let drill = Drill::TwoServers;
    let postgres = postgres().await?;
    let setup = with_secret(drill, options, postgres.url());
    let (mut one, mut other) = (Host::start(&setup)?, Host::start(&setup)?);
    let mut load = Load::new(&[other.address()], &by_secret());
    load.start(options.rate);
    sleep(delay).await;
    one.kill()?;
    load.fault_ended();
    other.wait_until_ready().await?;
    sleep(Duration::from_secs(2)).await;
    let before = other.memory();
    one.restart()?;
    one.wait_until_ready().await?;
    load.use_servers(&[one.address(), other.address()]);
    sleep(Duration::from_secs(2)).await;
    let memory = Some((before, other.memory()));
    load.stop().await;
    let mut row = finish(drill, &setup, &mut load, vec![one, other], memory, SERVER_DOWN, true).await?;
    let back = row.tally.recovery().and_then(|recovery| recovery.write);
    row.notes = vec![format!(
        "one server killed after {} ms; the first write through the other succeeded {} ms later",
        delay.as_millis(),
        back.map_or_else(|| "never".to_owned(), |time| time.as_millis().to_string())
    )];
    Ok(row)
}

/// No request may fail, since the proxy knows in time which server stops.
async fn rolling_restart(options: &Options) -> Result<Row, Failure> {
    let drill = Drill::RollingRestart;
    let postgres = postgres().await?;
    // What the options set comes later, so that it counts: `--set SHUTDOWN_DELAY_SECONDS=0` shows that the drill can fail.
    let mut setup = with_secret(drill, options, postgres.url());
    if !options.set.iter().any(|(name, _)| name == "SHUTDOWN_DELAY_SECONDS") {
        setup = setup.set("SHUTDOWN_DELAY_SECONDS", "2");
    }
    let mut hosts = [Host::start(&setup)?, Host::start(&setup)?];
    for host in &mut hosts {
        host.wait_until_ready().await?;
    }
    let proxy = block_in_place(|| HaProxy::before(&[hosts[0].address(), hosts[1].address()]));
    // A new server gets requests when the proxy has asked it.
    let noticed = 3 * haproxy::INTERVAL;
    sleep(noticed).await;
    let mut load = Load::new(&[proxy.address()], &by_secret());
    load.fill().await;
    load.start(options.rate);
    sleep(Duration::from_secs(2)).await;
    let mut times = Vec::new();
    let mut failures = Vec::new();
    for _ in 0..3 {
        for host in &mut hosts {
            let begun = Instant::now();
            host.terminate()?;
            let status = host.end().await?;
            times.push(begun.elapsed().as_millis().to_string());
            if !status.success() {
                failures.push(format!("after SIGTERM the server exited with {status}"));
            }
            host.restart()?;
            host.wait_until_ready().await?;
            sleep(noticed).await;
        }
    }
    load.stop().await;
    let memory = hosts[0].memory();
    let mut row = finish(drill, &setup, &mut load, hosts.into(), None, UNDISTURBED, false).await?;
    row.notes.push(format!("the servers exited {} ms after SIGTERM; {memory:.0} MiB", times.join(", ")));
    row.failures.extend(failures);
    Ok(row)
}

async fn soak(options: &Options) -> Result<Row, Failure> {
    let scene = Scene::open(Drill::Soak, options).await?;
    let time = Duration::from_secs_f64(options.soak * 60.0);
    let begun = Instant::now();
    let mut series = vec![(0.0, scene.before)];
    let step = (time / 60).max(Duration::from_secs(1));
    while begun.elapsed() < time {
        sleep(step.min(time.saturating_sub(begun.elapsed()))).await;
        series.push((begun.elapsed().as_secs_f64() / 3600.0, scene.host.memory()));
    }
    let mut row = scene.close(UNDISTURBED, false, options).await?;
    let late = &series[series.len() / 2..];
    row.notes.push(format!(
        "{:.1} minutes; memory in MiB: {}; it changed by {:.1} MiB an hour in the second half",
        options.soak,
        series.iter().map(|(_, mib)| format!("{mib:.1}")).collect::<Vec<_>>().join(" "),
        slope(late)
    ));
    Ok(row)
}

/// Clients that keep copies of the tasks.
async fn sync(options: &Options) -> Result<Row, Failure> {
    let rounds = options.rounds.unwrap_or(100);
    let number = rounds.to_string();
    let mut arguments = vec!["--rounds", &number];
    if options.sabotage {
        arguments.push("--sabotage");
    }
    let (mut row, text) = script(Drill::Sync, "scripts/check-sync", &arguments, options).await?;
    let count = |name: &str| {
        let counts = text.lines().rev().find(|line| line.starts_with("rounds: "))?;
        let (_, count) = counts.split("; ").filter_map(|count| count.split_once(": ")).find(|(of, _)| *of == name)?;
        count.parse::<u64>().ok()
    };
    match (count("rounds"), count("acknowledged writes"), count("lost"), count("diverged"), count("foreign")) {
        (Some(run), Some(acknowledged), Some(lost), Some(diverged), Some(foreign)) => {
            row.tally.acknowledged = acknowledged;
            row.tally.lost = lost;
            row.tally.wrong = diverged + foreign;
            if run != u64::from(rounds) {
                row.failures.push(format!("{run} rounds were run"));
            }
        }
        _ => row.failures.push("it has printed no result".to_owned()),
    }
    row.notes.extend(text.lines().rev().take(3).map(str::to_owned));
    Ok(row)
}

/// No fault, but a part of what a release must pass.
async fn schemathesis(options: &Options) -> Result<Row, Failure> {
    let (mut row, text) = script(Drill::Schemathesis, "scripts/schemathesis", &["all", "postgres"], options).await?;
    row.notes
        .extend(text.lines().filter(|line| line.starts_with("scripts/") && line.contains(": good")).map(str::to_owned));
    Ok(row)
}

/// Runs a script with a PostgreSQL cluster. Returns what it has written, too.
async fn script(drill: Drill, program: &str, arguments: &[&str], options: &Options) -> Result<(Row, String), Failure> {
    let postgres = postgres().await?;
    let log = options.out.join(format!("{}.log", drill.name()));
    let written = File::create(&log)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("TODO_SERVER", &options.server)
        .env("TEST_DATABASE_URL", postgres.url())
        .stdin(Stdio::null())
        .stdout(written.try_clone()?)
        .stderr(written);
    let status = block_in_place(|| command.status())?;
    let text = std::fs::read_to_string(&log)?;
    let mut row = Row { name: drill.name(), ..Row::default() };
    if !status.success() {
        row.failures.push(format!("it exited with {status}: see {}", log.display()));
    }
    Ok((row, text))
}

/// The slope of the best-fitting line.
#[expect(clippy::cast_precision_loss, reason = "there are a few dozen points")]
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let above: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if below > 0.0 { above / below } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drill_is_found_by_its_name() {
        for drill in Drill::ALL {
            assert_eq!(Drill::named(drill.name()), Some(drill));
        }
        assert_eq!(Drill::named("nothing"), None);
    }

    #[test]
    fn the_slope_of_a_line_is_found() {
        let points: Vec<_> = (0..10).map(|x| (f64::from(x), 3.0 + 2.0 * f64::from(x))).collect();
        assert!((slope(&points) - 2.0).abs() < 1e-9);
        assert!(slope(&points[..1]).abs() < 1e-9);
    }
}
