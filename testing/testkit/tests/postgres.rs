//! A database for each test, a template that is created once, and a server that is removed at the end of its process.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use testkit::postgres::{self, Server, TestDatabase};

async fn execute(url: &str, statement: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn count(url: &str, statement: &'static str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let count = sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    count
}

async fn exists(database: &str) -> bool {
    let mut connection = PgConnection::connect(postgres::server().await.url()).await.unwrap();
    let statement = "select count(*) from pg_database where datname = $1";
    sqlx::query_scalar::<_, i64>(statement).bind(database).fetch_one(&mut connection).await.unwrap() > 0
}

/// A template of one test only, which drops it.
struct OwnTemplate(String);

impl OwnTemplate {
    fn new(test: &str) -> Self {
        let key = format!("{test}_{}", std::process::id());
        assert!(key.len() <= 20, "all of it is in the name of the database");
        Self(key)
    }

    async fn drop(self) {
        let mut connection = PgConnection::connect(postgres::server().await.url()).await.unwrap();
        let name: String = sqlx::query_scalar("select datname::text from pg_database where starts_with(datname, $1)")
            .bind(format!("testkit_template_{}_", self.0))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("drop database {name}"))).execute(&mut connection).await.unwrap();
    }
}

async fn notes(template: &str) -> TestDatabase {
    postgres::database(template, async |url| execute(url, "create table notes (text text)").await).await
}

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let template = OwnTemplate::new("own");
    let (ann, bob) = tokio::join!(notes(&template.0), notes(&template.0));
    assert_ne!(ann.name(), bob.name());
    execute(ann.url(), "insert into notes values ('only ann sees this')").await;
    assert_eq!(count(ann.url(), "select count(*) from notes").await, 1);
    assert_eq!(count(bob.url(), "select count(*) from notes").await, 0);
    ann.close().await;
    bob.close().await;
    template.drop().await;
}

#[tokio::test]
async fn empty_database_is_empty() {
    let database = postgres::empty_database().await;
    let tables = "select count(*) from pg_class where relnamespace = 'public'::regnamespace";
    assert_eq!(count(database.url(), tables).await, 0);
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let name: String = sqlx::query_scalar("select current_database()::text").fetch_one(&mut connection).await.unwrap();
    assert_eq!(name, database.name());
    // Otherwise "at most 200 characters" would mean bytes.
    let letters: i32 = sqlx::query_scalar("select char_length('täglich')").fetch_one(&mut connection).await.unwrap();
    assert_eq!(letters, 7);
}

#[tokio::test]
async fn database_is_dropped_with_its_test_even_while_in_use() {
    let (dropped, closed) = tokio::join!(postgres::empty_database(), postgres::empty_database());
    let names = [dropped.name().to_owned(), closed.name().to_owned()];
    let _in_use =
        (PgConnection::connect(dropped.url()).await.unwrap(), PgConnection::connect(closed.url()).await.unwrap());
    for name in &names {
        assert!(exists(name).await);
    }
    drop(dropped);
    closed.close().await;
    for name in &names {
        assert!(!exists(name).await);
    }
}

#[tokio::test]
async fn server_is_as_durable_as_in_production() {
    let mut connection = PgConnection::connect(postgres::server().await.url()).await.unwrap();
    for setting in ["show fsync", "show synchronous_commit"] {
        let value: String = sqlx::query_scalar(setting).fetch_one(&mut connection).await.unwrap();
        assert_eq!(value, "on", "{setting}");
    }
}

/// Runs a future on a runtime of its own, as each test does.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn template_is_migrated_once_for_many_threads() {
    static MIGRATIONS: AtomicUsize = AtomicUsize::new(0);
    let template = OwnTemplate::new("threads");
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                block_on(async {
                    let database = postgres::database(&template.0, async |url| {
                        MIGRATIONS.fetch_add(1, Ordering::SeqCst);
                        // Long enough for all other threads to arrive.
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        execute(url, "create table notes (text text)").await;
                    })
                    .await;
                    assert_eq!(count(database.url(), "select count(*) from notes").await, 0);
                });
            });
        }
    });
    assert_eq!(MIGRATIONS.load(Ordering::SeqCst), 1);
    block_on(template.drop());
}

#[test]
fn template_is_migrated_once_for_many_processes() {
    let template = OwnTemplate::new("processes");
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut processes: Vec<Child> = (0..4).map(|_| another_process(&template, log.path(), "300")).collect();
    for process in &mut processes {
        assert!(process.wait().unwrap().success());
    }
    assert_eq!(fs::read_to_string(log.path()).unwrap().lines().count(), 1);
    block_on(template.drop());
}

#[test]
fn the_template_of_a_killed_process_is_created_again() {
    let template = OwnTemplate::new("killed");
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut process = another_process(&template, log.path(), "600000");
    let began = eventually(Duration::from_secs(30), || !fs::read_to_string(log.path()).unwrap().is_empty());
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(began, "the other process began to migrate");
    block_on(async {
        let database = notes(&template.0).await;
        assert_eq!(count(database.url(), "select count(*) from notes").await, 0);
        database.close().await;
        template.drop().await;
    });
}

#[test]
fn a_database_that_was_not_used_for_a_day_is_dropped() {
    let now = testkit::tokens::now();
    let (young, old) = (now - 23 * 60 * 60, now - 25 * 60 * 60);
    let process = std::process::id();
    // Of tests, of templates, and of another program.
    let names = [
        (true, format!("testkit_{old}_{process:016x}"), old),
        (false, format!("testkit_{young}_{process:016x}"), old),
        (true, format!("testkit_template_x_{process:016x}"), old),
        (false, format!("testkit_template_y_{process:016x}"), young),
        (false, format!("testkit_mine_{process}"), old),
    ];
    let template = OwnTemplate::new("forgotten");
    block_on(async {
        let mut connection = PgConnection::connect(postgres::server().await.url()).await.unwrap();
        for (_, name, used) in &names {
            for statement in [format!("create database {name}"), format!("comment on database {name} is '{used}'")] {
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
            }
        }
        notes(&template.0).await.close().await;
        template.drop().await;
        for (is_dropped, name, _) in names {
            assert_eq!(exists(&name).await, !is_dropped, "{name}");
            let statement = format!("drop database if exists {name}");
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        }
    });
}

/// This very program again, running only [`a_process_gets_a_copy_of_the_template`], on the same server.
fn another_process(template: &OwnTemplate, log: &Path, delay: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_process_gets_a_copy_of_the_template"])
        .env("TEST_DATABASE_URL", block_on(postgres::server()).url())
        .env_remove("TESTKIT_POSTGRES")
        .env("OTHER_PROCESS_TEMPLATE", &template.0)
        .env("OTHER_PROCESS_LOG", log)
        .env("OTHER_PROCESS_DELAY", delay)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Runs alone, or as the other process of the tests above, which set the template, the delay and the log.
#[test]
fn a_process_gets_a_copy_of_the_template() {
    use std::io::Write as _;
    let own = env::var("OTHER_PROCESS_TEMPLATE").is_err().then(|| OwnTemplate::new("process"));
    let template = own.as_ref().map_or_else(|| env::var("OTHER_PROCESS_TEMPLATE").unwrap(), |own| own.0.clone());
    block_on(async {
        let database = postgres::database(&template, async |url| {
            if let Ok(log) = env::var("OTHER_PROCESS_LOG") {
                writeln!(fs::OpenOptions::new().append(true).open(log).unwrap(), "migrating").unwrap();
            }
            execute(url, "create table begun ()").await;
            let delay = env::var("OTHER_PROCESS_DELAY").map_or(0, |delay| delay.parse().unwrap());
            tokio::time::sleep(Duration::from_millis(delay)).await;
            execute(url, "create table notes (text text)").await;
        })
        .await;
        assert_eq!(count(database.url(), "select count(*) from notes").await, 0);
        database.close().await;
        if let Some(own) = own {
            own.drop().await;
        }
    });
}

fn eventually(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
    true
}

/// `with-postgres`, which must start a server.
fn with_postgres() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_with-postgres"));
    command.env_remove("TEST_DATABASE_URL");
    command
}

/// A server that was started by another process, which then waits.
struct OthersServer {
    process: Child,
    url: String,
    data: PathBuf,
    postmaster: String,
}

impl OthersServer {
    /// `None` if no server can be started here, so that the tests use `TEST_DATABASE_URL`.
    fn start() -> Option<Self> {
        let mut process = with_postgres()
            .args(["sh", "-c", "echo $TEST_DATABASE_URL; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut url).unwrap();
        if url.is_empty() {
            let mut error = String::new();
            process.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            process.wait().unwrap();
            assert!(error.contains("there is no PostgreSQL for the tests"), "{error}");
            return None;
        }
        let url = url.trim().to_owned();
        let (data, pid_file): (String, String) = block_on(async {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            sqlx::query_as("select current_setting('data_directory'), pg_read_file('postmaster.pid')")
                .fetch_one(&mut connection)
                .await
                .unwrap()
        });
        let postmaster = pid_file.lines().next().unwrap().to_owned();
        Some(Self { process, url, data: data.into(), postmaster })
    }

    /// Whether the folder is on this machine, and not in a container.
    fn is_local(&self) -> bool {
        self.data.to_string_lossy().contains("/testkit-postgres-")
    }

    fn is_gone(&self) -> bool {
        // A zombie has no command line.
        let process_is_gone =
            fs::read(format!("/proc/{}/cmdline", self.postmaster)).map_or(true, |line| line.is_empty());
        let no_server_listens = block_on(PgConnection::connect(&self.url)).is_err();
        no_server_listens && (!self.is_local() || process_is_gone && !self.data.parent().unwrap().exists())
    }
}

#[test]
fn server_is_gone_after_a_sigkill() {
    let Some(mut server) = OthersServer::start() else {
        return;
    };
    assert!(!server.is_local() || server.data.exists());
    assert!(!server.is_gone());
    server.process.kill().unwrap();
    // The command itself, `cat`, is still running with all that it has inherited.
    let command = server.process.stdin.take();
    assert!(eventually(Duration::from_secs(30), || server.is_gone()), "{} is still there", server.data.display());
    drop(command);
    server.process.wait().unwrap();
}

#[test]
fn server_is_gone_when_its_command_has_ended() {
    let Some(mut server) = OthersServer::start() else {
        return;
    };
    drop(server.process.stdin.take());
    assert!(server.process.wait().unwrap().success());
    assert!(server.is_gone(), "{} is still there", server.data.display());
}

#[test]
fn with_postgres_exits_with_the_code_of_its_command() {
    let with_postgres = || {
        let mut command = with_postgres();
        command.env("TEST_DATABASE_URL", block_on(postgres::server()).url()).env_remove("TESTKIT_POSTGRES");
        command
    };
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        let output = with_postgres().args(["sh", "-c", script]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{script}");
    }
    assert_eq!(with_postgres().arg("/no/such/program").output().unwrap().status.code(), Some(127));
}

#[test]
fn invalid_settings_are_reported() {
    for (name, value, told) in [
        (
            "TEST_DATABASE_URL",
            "postgres://ann@127.0.0.1:1/x",
            "cannot connect to the PostgreSQL server in TEST_DATABASE_URL",
        ),
        ("TESTKIT_POSTGRES", "cloud", "it must be `local` or `container`"),
    ] {
        let mut command = with_postgres();
        let output = command.env_remove("TESTKIT_POSTGRES").env(name, value).args(["echo", "run"]).output().unwrap();
        assert!(output.stdout.is_empty(), "the command is not run");
        assert!(String::from_utf8_lossy(&output.stderr).contains(told), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_for_measurements_has_the_settings_it_was_given() {
    let settings = "shared_buffers = 32MB\nmax_wal_size = 512MB";
    let Some(server) = postgres::Server::start_local(settings).await.unwrap() else { return };
    let mut connection = PgConnection::connect(server.url()).await.unwrap();
    for (name, value) in
        [("shared_buffers", "32MB"), ("max_wal_size", "512MB"), ("fsync", "on"), ("synchronous_commit", "on")]
    {
        let shown: String =
            sqlx::query_scalar("select current_setting($1)").bind(name).fetch_one(&mut connection).await.unwrap();
        assert_eq!(shown, value, "{name}");
    }
    connection.close().await.unwrap();
    tokio::task::spawn_blocking(|| server.stop()).await.unwrap();
}

#[tokio::test]
async fn committed_rows_survive_every_fault_of_a_private_cluster() {
    let server = Server::start_local("").await.expect("it starts").expect("PostgreSQL is installed (scripts/setup)");
    let faults = server.faults().expect("it is private");
    let first = faults.postmaster().expect("it runs");
    let mut before = PgConnection::connect(server.url()).await.expect("it responds");
    sqlx::raw_sql("create table kept (number int); insert into kept values (1)")
        .execute(&mut before)
        .await
        .expect("a table");
    faults.kill().expect("it dies");
    assert!(PgConnection::connect(server.url()).await.is_err(), "it is dead");
    faults.start().expect("it comes back");
    assert!(sqlx::query("select 1").execute(&mut before).await.is_err(), "the connection died with it");
    let second = faults.postmaster().expect("it runs");
    assert_ne!(first, second);
    faults.restart().expect("it restarts");
    assert_ne!(faults.postmaster().expect("it runs"), second);

    let mut connection = PgConnection::connect(server.url()).await.expect("it responds");
    faults.freeze().expect("it freezes");
    let count = sqlx::query_scalar::<_, i64>("select count(*) from kept").fetch_one(&mut connection);
    let mut count = std::pin::pin!(count);
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut count).await.is_err(), "no query is processed");
    faults.thaw().expect("it continues");
    assert_eq!(count.await.expect("the response comes late"), 1);
    faults.stop().expect("it stops");
    assert!(faults.postmaster().is_err());
    assert!(faults.freeze().is_err(), "there is no process to stop");
}

#[tokio::test]
async fn a_cluster_that_was_left_frozen_is_removed_too() {
    let server = Server::start_local("").await.expect("it starts").expect("PostgreSQL is installed (scripts/setup)");
    let faults = server.faults().expect("it is private");
    let postmaster = faults.postmaster().expect("it runs");
    faults.freeze().expect("it freezes");
    server.stop();
    let deadline = Instant::now() + Duration::from_secs(10);
    while Path::new(&format!("/proc/{postmaster}")).exists() {
        assert!(Instant::now() < deadline, "it still runs");
        thread::sleep(Duration::from_millis(10));
    }
}
