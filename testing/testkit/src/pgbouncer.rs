//! A real PgBouncer, in transaction mode, before a database.
//!
//! ```no_run
//! # async fn example() {
//! use testkit::pgbouncer::PgBouncer;
//!
//! let database = testkit::stores::todo_database().await;
//! let mut pooler = PgBouncer::tracking(database.url());
//! // connect to pooler.url()
//! pooler.stop();
//! pooler.start();
//! # }
//! ```
//!
//! [`PgBouncer::tracking`] needs version 1.21 or newer: `TESTKIT_PGBOUNCER`, or the first such program that
//! [`programs`] finds. [`PgBouncer::mixing`] takes an older program if there is one, else a newer one with
//! `max_prepared_statements = 0`.

use std::{
    env,
    fmt::Write as _,
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;
use url::Url;

use crate::programs;

/// The first version that can track prepared statements.
const TRACKS: (u32, u32) = (1, 21);

/// The number of connections from a pooler to the server: so few that clients must share them.
pub const POOL_SIZE: u32 = 3;

/// A running PgBouncer. It is killed when this is dropped.
#[derive(Debug)]
pub struct PgBouncer {
    program: PathBuf,
    process: Option<Child>,
    port: u16,
    directory: TempDir,
}

impl PgBouncer {
    /// Starts one that tracks the prepared statements of its clients.
    ///
    /// # Panics
    ///
    /// If the program is missing; the message says what to run.
    #[must_use]
    pub fn tracking(database: &str) -> Self {
        Self::tracking_with(database, "")
    }

    /// The same with further settings, one a line.
    ///
    /// # Panics
    ///
    /// As [`tracking`](Self::tracking) does.
    #[must_use]
    pub fn tracking_with(database: &str, settings: &str) -> Self {
        Self::new(tracking_program(), database, Some(1000), settings)
    }

    /// Starts one that gives a client the prepared statements of another, as all versions before 1.21 do.
    ///
    /// # Panics
    ///
    /// If the program is missing; the message says what to run.
    #[must_use]
    pub fn mixing(database: &str) -> Self {
        match installed(|version| version < TRACKS) {
            // It does not know the setting.
            Some(program) => Self::new(program, database, None, ""),
            None => Self::new(tracking_program(), database, Some(0), ""),
        }
    }

    fn new(program: PathBuf, database: &str, max_prepared_statements: Option<u32>, further: &str) -> Self {
        let url = Url::parse(database).expect("the URL of a database");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), readable).expect("the directory can be changed");
        let port = crate::http::lasting_port().expect("a free port");
        let mut settings = format!(
            "[databases]\npooled = host={} port={} dbname={} user={} password={}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n\
             pool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\nmax_client_conn = 200\n\
             server_login_retry = 1\nignore_startup_parameters = extra_float_digits\n{further}\n",
            url.host_str().expect("a host"),
            url.port().unwrap_or(5432),
            url.path().trim_start_matches('/'),
            url.username(),
            url.password().unwrap_or_default(),
        );
        if let Some(count) = max_prepared_statements {
            writeln!(settings, "max_prepared_statements = {count}").expect("writing to a string does not fail");
        }
        // It does not run as root, but can switch to another user.
        if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            settings += "user = nobody\n";
        }
        std::fs::write(directory.path().join("pgbouncer.ini"), settings).expect("the directory is writable");
        let mut pooler = Self { program, process: None, port, directory };
        pooler.start();
        pooler
    }

    /// The address of the database behind the pooler.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://anybody@127.0.0.1:{}/pooled?sslmode=disable", self.port)
    }

    /// Starts it on the same port, unless it runs, and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start(&mut self) {
        if self.process.is_some() {
            return;
        }
        let log = self.directory.path().join("log");
        let written = std::fs::File::options().create(true).append(true).open(&log).expect("the directory is writable");
        let process = Command::new(&self.program)
            .arg(self.directory.path().join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(written)
            .spawn()
            .expect("PgBouncer can be run");
        self.process = Some(process);
        for _ in 0..500 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("PgBouncer does not listen:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
    }

    /// Kills it, which closes every connection. Blocks until it has ended.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // This fails only if it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn tracking_program() -> PathBuf {
    if let Some(program) = env::var_os("TESTKIT_PGBOUNCER").filter(|program| !program.is_empty()) {
        return program.into();
    }
    let tracking = installed(|version| version >= TRACKS);
    tracking.expect(
        "a PgBouncer that tracks prepared statements (1.21 or newer) is missing; run scripts/setup, which downloads it",
    )
}

/// The first program of such a version.
fn installed(is_wanted: impl Fn((u32, u32)) -> bool) -> Option<PathBuf> {
    programs::all("pgbouncer").into_iter().find(|program| version(program).is_some_and(&is_wanted))
}

fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut parts = text.split_whitespace().nth(1)?.split('.').map(|part| part.parse().unwrap_or(0));
    Some((parts.next()?, parts.next()?))
}
