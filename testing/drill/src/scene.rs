//! What most drills share: a server with a PostgreSQL of its own, under load, and the checks at the end.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use testkit::{
    postgres::{Faults, Server},
    tokens::{claims, now, secret_token},
};
use tokio::time::sleep;

use crate::{
    Failure,
    drills::Drill,
    host::{Host, Setup},
    load::{Load, Mint},
    options::Options,
    report::{Allowed, Row, limit},
};

const SECRET: &str = "only-for-drills-only-for-drills-only-for-drills";

/// How long the load runs before the fault and after it.
const BEFORE: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(6);
/// How long the server is idle then: longer than a statement may run, so that PostgreSQL executes no more writes.
pub(crate) const IDLE: Duration = Duration::from_secs(7);
/// How long the load runs again before memory is measured, and the maximum while memory is above its limit.
const AGAIN: Duration = Duration::from_secs(4);
const SETTLING: Duration = Duration::from_secs(30);

/// A server with a PostgreSQL of its own, under load.
pub(crate) struct Scene {
    drill: Drill,
    postgres: Server,
    setup: Setup,
    pub(crate) host: Host,
    pub(crate) load: Load,
    /// Resident memory of the server before the fault, in MiB.
    pub(crate) before: f64,
}

pub(crate) async fn postgres_with(settings: &'static str) -> Result<Server, Failure> {
    let server = Server::start_local(settings).await?;
    server.ok_or_else(|| "PostgreSQL is not installed; install it with scripts/setup".into())
}

pub(crate) async fn postgres() -> Result<Server, Failure> {
    postgres_with("").await
}

pub(crate) fn setup(drill: Drill, options: &Options) -> Setup {
    let log: PathBuf = options.out.join(format!("{}.log", drill.name()));
    let _ = std::fs::remove_file(&log);
    let setup = Setup::new(&options.server, &options.framework, log);
    options.set.iter().fold(setup, |setup, (name, value)| setup.set(name, value))
}

pub(crate) fn with_secret(drill: Drill, options: &Options, url: &str) -> Setup {
    setup(drill, options).set("BETTER_AUTH_SECRET", SECRET).set("DATABASE_URL", url)
}

pub(crate) fn by_secret() -> Mint {
    Box::new(|user| {
        let mut claims = claims(user);
        // Long enough for a soak.
        claims["exp"] = (now() + 24 * 60 * 60).into();
        secret_token(SECRET.as_bytes(), &claims)
    })
}

impl Scene {
    pub(crate) async fn open(drill: Drill, options: &Options) -> Result<Self, Failure> {
        let postgres = postgres().await?;
        let setup = with_secret(drill, options, postgres.url());
        Self::with(drill, options, postgres, setup, &by_secret()).await
    }

    /// Returns when the load has run for a while.
    pub(crate) async fn with(
        drill: Drill,
        options: &Options,
        postgres: Server,
        setup: Setup,
        mint: &Mint,
    ) -> Result<Self, Failure> {
        let mut host = Host::start(&setup)?;
        host.wait_until_ready().await?;
        let mut load = Load::new(&[host.address()], mint);
        load.fill().await;
        load.start(options.rate);
        sleep(if options.short { BEFORE / 2 } else { BEFORE }).await;
        let before = host.memory();
        Ok(Self { drill, postgres, setup, host, load, before })
    }

    pub(crate) fn faults(&self) -> Result<&Faults, Failure> {
        self.postgres.faults().ok_or_else(|| "PostgreSQL is no private cluster".into())
    }

    pub(crate) async fn connect(&self) -> Result<PgConnection, Failure> {
        Ok(PgConnection::connect(self.postgres.url()).await?)
    }

    /// Keeps the load running for a while, then stops it and checks everything.
    pub(crate) async fn close(mut self, allowed: Allowed, recovers: bool, options: &Options) -> Result<Row, Failure> {
        if recovers {
            sleep(if options.short { AFTER / 2 } else { AFTER }).await;
        }
        self.load.stop().await;
        self.load.close_idle();
        sleep(IDLE).await;
        // Under the same load as before: an idle allocator does not return memory.
        self.load.start(options.rate);
        let begun = Instant::now();
        sleep(AGAIN).await;
        // On a busy machine requests queue up for a while. Only memory that stays counts.
        while self.host.memory() > limit(self.before) && begun.elapsed() < SETTLING {
            sleep(Duration::from_secs(1)).await;
        }
        let memory = Some((self.before, self.host.memory()));
        self.load.stop().await;
        if options.sabotage {
            self.sabotage().await?;
        }
        finish(self.drill, &self.setup, &mut self.load, vec![self.host], memory, allowed, recovers).await
    }

    /// Deletes an acknowledged task with SQL.
    async fn sabotage(&self) -> Result<(), Failure> {
        let (user, id) = self.load.victim().ok_or("there is no task")?;
        let mut connection = self.connect().await?;
        let statement = format!("delete from todo.tasks where user_id = '{user}' and id = '{id}'");
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        Ok(())
    }
}

/// Checks all tasks, and stops the servers.
pub(crate) async fn finish(
    drill: Drill,
    setup: &Setup,
    load: &mut Load,
    hosts: Vec<Host>,
    memory: Option<(f64, f64)>,
    allowed: Allowed,
    recovers: bool,
) -> Result<Row, Failure> {
    let census = load.census();
    let mut row = Row { name: drill.name(), allowed, recovers, memory, ..Row::default() };
    if let Err(why) = load.check_everything().await {
        row.failures.push(why);
    }
    for mut host in hosts {
        host.terminate()?;
        let status = host.end().await?;
        if !status.success() {
            row.failures.push(format!("after SIGTERM at the end, the server exited with {status}"));
        }
    }
    let log = setup.log();
    if log.contains("panicked") {
        row.failures.push("a server has panicked".to_owned());
    }
    row.tally = std::mem::take(&mut *load.tally());
    if row.tally.skipped > 0 {
        row.notes.push(format!("{} requests were not sent, because 3000 were in flight", row.tally.skipped));
    }
    row.notes.push(format!(
        "{} tasks at the end; {} writes had an unknown outcome until the last check",
        census.0, census.1
    ));
    Ok(row)
}

/// The server itself is down for a while.
pub(crate) const SERVER_DOWN: Allowed = Allowed { down: true, unavailable: true };
/// The database is down for a while.
pub(crate) const DATABASE_DOWN: Allowed = Allowed { down: false, unavailable: true };
/// Neither is.
pub(crate) const UNDISTURBED: Allowed = Allowed { down: false, unavailable: false };
