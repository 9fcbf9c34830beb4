//! What breaks, and when it counts as mended.

use std::{
    fs::File,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use testkit::{
    pgbouncer::PgBouncer,
    postgres::{Faults, Server},
    proxy::{Proxy, Traffic},
    tokens::{SigningKey, claims, now, secret_token},
};
use tokio::{task::block_in_place, time::sleep};

use crate::{
    Failure,
    host::{Host, Setup},
    keys::{ISSUER, KeyServer, token},
    load::{Load, Mint},
    options::Options,
    report::{Allowed, Row, limit, percentile},
};

const SECRET: &str = "only-for-drills-only-for-drills-only-for-drills";

/// How long the load runs before the fault and after it.
const BEFORE: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(6);
/// How long a server may rest then: longer than a statement may run, so that no write is still under way in PostgreSQL.
const REST: Duration = Duration::from_secs(7);

/// How long it works again before its memory is looked at, and how long at most if it has too much.
const AGAIN: Duration = Duration::from_secs(4);
const SETTLING: Duration = Duration::from_secs(30);

/// What can be tried out.
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
    KillKeyServer,
    Terminate,
    TwoServers,
    Soak,
    Schemathesis,
}

impl Drill {
    pub(crate) const ALL: [Self; 13] = [
        Self::KillServer,
        Self::KillPostgres,
        Self::RestartPostgres,
        Self::FreezePostgres,
        Self::CutNetwork,
        Self::SilenceNetwork,
        Self::RestartPooler,
        Self::FillPool,
        Self::KillKeyServer,
        Self::Terminate,
        Self::TwoServers,
        Self::Soak,
        Self::Schemathesis,
    ];
    /// What `--short` runs.
    pub(crate) const SHORT: [Self; 4] = [Self::KillServer, Self::KillPostgres, Self::FreezePostgres, Self::CutNetwork];

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
            Self::KillKeyServer => "kill-key-server",
            Self::Terminate => "terminate",
            Self::TwoServers => "two-servers",
            Self::Soak => "soak",
            Self::Schemathesis => "schemathesis",
        }
    }

    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::KillServer => "SIGKILL to the server, started again after 100 ms as systemd does",
            Self::KillPostgres => "SIGKILL to all processes of PostgreSQL, started again after a second",
            Self::RestartPostgres => "pg_ctl restart -m fast",
            Self::FreezePostgres => "SIGSTOP to all processes of PostgreSQL for 10 seconds, or 3 with --short",
            Self::CutNetwork => "all connections to PostgreSQL are reset, and new ones too, for 3 seconds",
            Self::SilenceNetwork => {
                "what is sent to PostgreSQL is swallowed for 10 seconds, and on old connections for ever"
            }
            Self::RestartPooler => "SIGKILL to the PgBouncer before PostgreSQL, started again after half a second",
            Self::FillPool => "somebody locks the table for 5 seconds, with 10 connections and 50 places to wait",
            Self::KillKeyServer => "the key server is gone for 75 seconds and comes back with another key",
            Self::Terminate => "SIGTERM while requests wait for a lock, then started again",
            Self::TwoServers => "two servers start at once on an empty schema, one is killed meanwhile and comes back",
            Self::Soak => "nothing breaks, for half an hour",
            Self::Schemathesis => "scripts/schemathesis: axum, poem and warp, on PostgreSQL, against the document",
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
            Self::KillKeyServer => kill_key_server(options).await,
            Self::Terminate => terminate(options).await,
            Self::TwoServers => two_servers(options).await,
            Self::Soak => soak(options).await,
            Self::Schemathesis => schemathesis(options).await,
        }
    }
}

/// A server on a PostgreSQL of its own, and users who are at work.
struct Scene {
    drill: Drill,
    postgres: Server,
    setup: Setup,
    host: Host,
    load: Load,
    before: f64,
}

async fn postgres() -> Result<Server, Failure> {
    let server = Server::start_local("").await?;
    server.ok_or_else(|| "PostgreSQL is not installed (`apt-get install postgresql`)".into())
}

fn setup(drill: Drill, options: &Options) -> Setup {
    let log: PathBuf = options.out.join(format!("{}.log", drill.name()));
    let _ = std::fs::remove_file(&log);
    let setup = Setup::new(&options.server, &options.framework, log);
    options.set.iter().fold(setup, |setup, (name, value)| setup.set(name, value))
}

fn with_secret(drill: Drill, options: &Options, url: &str) -> Setup {
    setup(drill, options).set("BETTER_AUTH_SECRET", SECRET).set("DATABASE_URL", url)
}

fn by_secret() -> Mint {
    Box::new(|user| {
        let mut claims = claims(user);
        // For a long soak.
        claims["exp"] = (now() + 24 * 60 * 60).into();
        secret_token(SECRET.as_bytes(), &claims)
    })
}

impl Scene {
    async fn open(drill: Drill, options: &Options) -> Result<Self, Failure> {
        let postgres = postgres().await?;
        let setup = with_secret(drill, options, postgres.url());
        Self::with(drill, options, postgres, setup, &by_secret()).await
    }

    /// Users are at work for a while when this returns.
    async fn with(
        drill: Drill,
        options: &Options,
        postgres: Server,
        setup: Setup,
        mint: &Mint,
    ) -> Result<Self, Failure> {
        let mut host = Host::start(&setup)?;
        host.is_ready().await?;
        let mut load = Load::of(&[host.address()], mint);
        load.fill().await;
        load.start(options.rate);
        sleep(if options.short { BEFORE / 2 } else { BEFORE }).await;
        let before = host.memory();
        Ok(Self { drill, postgres, setup, host, load, before })
    }

    fn faults(&self) -> Result<&Faults, Failure> {
        self.postgres.faults().ok_or_else(|| "the cluster is not ours".into())
    }

    async fn connect(&self) -> Result<PgConnection, Failure> {
        Ok(PgConnection::connect(self.postgres.url()).await?)
    }

    /// The load goes on for a while, then everything is looked at.
    async fn close(mut self, allowed: Allowed, recovers: bool, options: &Options) -> Result<Row, Failure> {
        if recovers {
            sleep(if options.short { AFTER / 2 } else { AFTER }).await;
        }
        self.load.stop().await;
        self.load.leave();
        sleep(REST).await;
        // Under the same load as before: at rest an allocator gives nothing back.
        self.load.start(options.rate);
        let begun = Instant::now();
        sleep(AGAIN).await;
        // On a busy machine requests pile up for a while. What does not come back is what counts.
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

    /// Takes away what was acknowledged, behind everybody's back.
    async fn sabotage(&self) -> Result<(), Failure> {
        let (user, id) = self.load.victim().ok_or("there is no task")?;
        let mut connection = self.connect().await?;
        let statement = format!("delete from todo.tasks where user_id = '{user}' and id = '{id}'");
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        Ok(())
    }
}

/// A last look at everything, and the end of the servers.
async fn finish(
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
            row.failures.push(format!("at the end, after SIGTERM, the server ended with {status}"));
        }
    }
    let log = setup.log();
    if log.contains("panicked") {
        row.failures.push("a server has panicked".to_owned());
    }
    row.tally = std::mem::take(&mut *load.tally());
    if row.tally.skipped > 0 {
        row.notes.push(format!("{} requests were due while 3000 were under way, and were not sent", row.tally.skipped));
    }
    row.notes.push(format!(
        "{} tasks at the end, of all writes {} whose fate was open until the last look",
        census.0, census.1
    ));
    Ok(row)
}

const AWAY: Allowed = Allowed { away: true, refusals: true };
const HERE: Allowed = Allowed { away: false, refusals: true };
const UNDISTURBED: Allowed = Allowed { away: false, refusals: false };

async fn kill_server(options: &Options) -> Result<Row, Failure> {
    let mut scene = Scene::open(Drill::KillServer, options).await?;
    scene.host.kill()?;
    sleep(Duration::from_millis(100)).await;
    scene.host.start_again()?;
    scene.load.fault_ended();
    scene.close(AWAY, true, options).await
}

async fn on_postgres(
    drill: Drill,
    options: &Options,
    fault: impl AsyncFnOnce(&Faults) -> Result<(), Failure>,
) -> Result<Row, Failure> {
    let scene = Scene::open(drill, options).await?;
    fault(scene.faults()?).await?;
    scene.load.fault_ended();
    scene.close(HERE, true, options).await
}

async fn through_proxy(drill: Drill, options: &Options, fault: impl AsyncFnOnce(&Proxy)) -> Result<Row, Failure> {
    let postgres = postgres().await?;
    let proxy = Proxy::before(postgres.url()).await;
    let setup = with_secret(drill, options, &proxy.url());
    let scene = Scene::with(drill, options, postgres, setup, &by_secret()).await?;
    fault(&proxy).await;
    scene.load.fault_ended();
    scene.close(HERE, true, options).await
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
    scene.close(HERE, true, options).await
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
    let mut row = scene.close(HERE, true, options).await?;
    let refusals = &row.tally.refusals;
    row.notes.push(format!(
        "{} refusals; half of them within {:.1} ms, nine in ten within {:.1} ms",
        refusals.len(),
        percentile(refusals, 50),
        percentile(refusals, 90)
    ));
    if refusals.is_empty() {
        row.failures.push("the pool was not full".to_owned());
    }
    Ok(row)
}

async fn terminate(options: &Options) -> Result<Row, Failure> {
    let mut scene = Scene::open(Drill::Terminate, options).await?;
    // So that there is much under way.
    let mut connection = scene.connect().await?;
    let mut lock = connection.begin().await?;
    sqlx::raw_sql("lock table todo.tasks in access exclusive mode").execute(&mut *lock).await?;
    sleep(Duration::from_millis(400)).await;
    // What is sent at the moment of the signal may find its connection being closed, as HTTP has it.
    scene.load.must_answer_before(Instant::now());
    sleep(Duration::from_millis(100)).await;
    scene.host.terminate()?;
    let begun = Instant::now();
    sleep(Duration::from_millis(500)).await;
    lock.rollback().await?;
    let status = scene.host.end().await?;
    let took = begun.elapsed();
    scene.host.start_again()?;
    scene.load.fault_ended();
    let mut row = scene.close(AWAY, true, options).await?;
    if !status.success() {
        row.failures.push(format!("after SIGTERM the server ended with {status}"));
    }
    if row.tally.closing == 0 {
        row.failures.push("no answer after SIGTERM said that its connection is closed".to_owned());
    }
    row.notes.push(format!(
        "it ended {} ms after SIGTERM, {} ms after the lock was released; {} answers said `connection: close`",
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
    // Longer than a set counts as fresh.
    sleep(Duration::from_secs(75)).await;
    let keys = KeyServer::start(port, &[old.jwk("old"), new.jwk("new")]).await?;
    scene.load.fault_ended();
    // Somebody comes with the new key as soon as it is there.
    let begun = Instant::now();
    let mint = by(&new, "new");
    let by_new = new.clone();
    let of_stranger: Mint = Box::new(move |_| token(&by_new, "new", "stranger"));
    let stranger = Load::of(&[scene.host.address()], &of_stranger);
    let patience = Duration::from_secs(15);
    let mut attempts = 0;
    while !stranger.try_once().await && begun.elapsed() < patience {
        attempts += 1;
        sleep(Duration::from_millis(100)).await;
    }
    let accepted = begun.elapsed();
    scene.load.renew_tokens(&mint);
    let findings = std::mem::take(&mut *stranger.tally());
    let mut row = scene.close(UNDISTURBED, true, options).await?;
    row.notes.push(format!(
        "{fetches} fetches before, {} after; a token of the new key was accepted {} ms after the key server was back, after \
         {attempts} answers 503 (there is a fetch in 10 s at most)",
        keys.fetches(),
        accepted.as_millis()
    ));
    if accepted >= patience {
        row.failures.push("the new key was not accepted".to_owned());
    }
    if findings.wrong + findings.lost > 0 {
        row.failures.push(format!("who came with the new key was answered wrongly: {:?}", findings.examples));
    }
    Ok(row)
}

async fn two_servers(options: &Options) -> Result<Row, Failure> {
    let mut all: Option<Row> = None;
    // Killed when it has just begun, while it migrates, and when it has just migrated.
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
    let mut load = Load::of(&[other.address()], &by_secret());
    load.start(options.rate);
    sleep(delay).await;
    one.kill()?;
    load.fault_ended();
    other.is_ready().await?;
    sleep(Duration::from_secs(2)).await;
    let before = other.memory();
    one.start_again()?;
    one.is_ready().await?;
    load.use_servers(&[one.address(), other.address()]);
    sleep(Duration::from_secs(2)).await;
    let memory = Some((before, other.memory()));
    load.stop().await;
    let mut row = finish(drill, &setup, &mut load, vec![one, other], memory, AWAY, true).await?;
    let back = row.tally.recovery().and_then(|recovery| recovery.write);
    row.notes = vec![format!(
        "one killed after {} ms, first good write of the other {} ms later",
        delay.as_millis(),
        back.map_or_else(|| "never".to_owned(), |time| time.as_millis().to_string())
    )];
    Ok(row)
}

async fn soak(options: &Options) -> Result<Row, Failure> {
    let scene = Scene::open(Drill::Soak, options).await?;
    // Until caches are full and the allocator has found its size.
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
        "{:.1} minutes; memory in MiB: {}; in the second half it changed by {:.1} MiB an hour",
        options.soak,
        series.iter().map(|(_, mib)| format!("{mib:.1}")).collect::<Vec<_>>().join(" "),
        slope(late)
    ));
    Ok(row)
}

/// Not a fault, but part of what has to be shown of a release.
async fn schemathesis(options: &Options) -> Result<Row, Failure> {
    let postgres = postgres().await?;
    let log = options.out.join("schemathesis.log");
    let written = File::create(&log)?;
    let mut command = Command::new("scripts/schemathesis");
    command
        .args(["all", "postgres"])
        .env("TODO_SERVER", &options.server)
        .env("TEST_DATABASE_URL", postgres.url())
        .stdin(Stdio::null())
        .stdout(written.try_clone()?)
        .stderr(written);
    let status = block_in_place(|| command.status())?;
    let text = std::fs::read_to_string(&log)?;
    let mut row = Row { name: Drill::Schemathesis.name(), ..Row::default() };
    row.notes
        .extend(text.lines().filter(|line| line.starts_with("scripts/") && line.contains(": good")).map(str::to_owned));
    if !status.success() {
        row.failures.push(format!("it ended with {status}: see {}", log.display()));
    }
    Ok(row)
}

/// The slope of the line that fits best.
#[expect(clippy::cast_precision_loss, reason = "there are some dozens")]
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
    fn names_lead_to_drills() {
        for drill in Drill::ALL {
            assert_eq!(Drill::named(drill.name()), Some(drill));
        }
        assert_eq!(Drill::named("nothing"), None);
    }

    #[test]
    fn a_line_has_its_slope() {
        let points: Vec<_> = (0..10).map(|x| (f64::from(x), 3.0 + 2.0 * f64::from(x))).collect();
        assert!((slope(&points) - 2.0).abs() < 1e-9);
        assert!(slope(&points[..1]).abs() < 1e-9);
    }
}
