//! Behind a real PgBouncer: one that mixes up prepared statements is refused, one that tracks them is not.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::{Child, Command, Stdio},
    time::Duration,
};

use sqlx::{ConnectOptions as _, Row as _, postgres::PgConnectOptions};
use todo_core::store::{PostgresOptions, PostgresStore, StoreError, TaskStore as _};

/// A PgBouncer in transaction mode before a database, until this is dropped.
struct Pooler {
    process: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Pooler {
    fn start(database: &str, prepared_statements: Option<u32>) -> Self {
        let url = url::Url::parse(database).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let tracking =
            prepared_statements.map(|count| format!("max_prepared_statements = {count}")).unwrap_or_default();
        let settings = format!(
            "[databases]\npooled = host={} port={} dbname={} user={} password={}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n\
             pool_mode = transaction\ndefault_pool_size = 3\nignore_startup_parameters = extra_float_digits\n{tracking}\n",
            url.host_str().unwrap(),
            url.port().unwrap_or(5432),
            url.path().trim_start_matches('/'),
            url.username(),
            url.password().unwrap_or_default(),
        );
        let file = directory.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(program());
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // It does not run as root. 65534 is nobody.
        if std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
            command.uid(65534).gid(65534);
        }
        let process = command.spawn().expect("PgBouncer starts");
        let url = format!("postgres://anybody@127.0.0.1:{port}/pooled?sslmode=disable");
        let pooler = Self { process, url, _directory: directory };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return pooler;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("PgBouncer does not listen");
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> &'static str {
    // Debian puts it where only root's PATH looks.
    let places = ["pgbouncer", "/usr/sbin/pgbouncer"];
    places
        .into_iter()
        .find(|place| Command::new(place).arg("--version").stdout(Stdio::null()).status().is_ok())
        .expect("PgBouncer is missing; please install it: apt-get install pgbouncer")
}

/// From 1.21 on it can track prepared statements.
fn can_track() -> bool {
    let output = Command::new(program()).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_whitespace().nth(1).unwrap();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next(), parts.next()) >= (Some(1), Some(21))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_mixes_statements_is_refused() {
    let database = testkit::stores::todo_database().await;
    let pooler = Pooler::start(database.url(), can_track().then_some(0));
    for _ in 0..3 {
        let store = PostgresStore::connect(&pooler.url, &PostgresOptions::default()).unwrap();
        match store.check().await {
            Err(StoreError::Backend(error)) => assert!(error.to_string().contains("pooler"), "{error}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_tracks_statements_is_found_and_used() {
    let database = testkit::stores::todo_database().await;
    let direct = PostgresStore::connect(database.url(), &PostgresOptions::default()).unwrap();
    assert!(!direct.check().await.unwrap().pooled);
    if can_track() {
        let pooler = Pooler::start(database.url(), Some(1000));
        let store = PostgresStore::connect(&pooler.url, &PostgresOptions::default()).unwrap();
        assert!(store.check().await.unwrap().pooled);
    }
}

/// A connection behind a pooler is somebody else's a moment later.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_set_in_the_sessions_of_a_pooler() {
    let database = testkit::stores::todo_database().await;
    let pooler = Pooler::start(database.url(), can_track().then_some(1000));
    let store = PostgresStore::connect(&pooler.url, &PostgresOptions::default()).unwrap();
    // Whether it is answered well depends on the pooler.
    let _ = store.ping().await;
    assert!(store.status().size > 0, "it has connected");
    let options: PgConnectOptions = pooler.url.parse().unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = options.connect().await.unwrap();
        // It has a session of the server for itself as long as the transaction lasts.
        sqlx::raw_sql("begin").execute(&mut client).await.unwrap();
        clients.push(client);
    }
    for client in &mut clients {
        for setting in ["statement_timeout", "lock_timeout"] {
            let show = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("show {setting}"))).fetch_one(&mut *client).await;
            assert_eq!(show.unwrap().get::<String, _>(0), "0", "{setting}");
        }
    }
}
