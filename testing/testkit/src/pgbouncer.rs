//! A real PgBouncer in transaction mode before a database.
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
//! Two programs may be needed: one that tracks prepared statements (1.21 or newer), and one that does not. The first is
//! the one in `TESTKIT_PGBOUNCER`, the one that is installed, or the one that `scripts/pgbouncer` has put beside the
//! build; the second is the one that is installed if it is older, else the first with `max_prepared_statements = 0`.

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

/// From this version on it can track prepared statements.
const TRACKS: (u32, u32) = (1, 21);

/// How many connections to the server a pooler has, so that its clients have to share them.
pub const POOL_SIZE: u32 = 3;

/// A running PgBouncer, until this is dropped.
#[derive(Debug)]
pub struct PgBouncer {
    program: PathBuf,
    process: Option<Child>,
    port: u16,
    directory: TempDir,
}

impl PgBouncer {
    /// One that keeps track of the prepared statements of its clients.
    ///
    /// # Panics
    ///
    /// If there is none that can; the message says what to run.
    #[must_use]
    pub fn tracking(database: &str) -> Self {
        Self::new(tracking_program(), database, Some(1000))
    }

    /// One that gives a client the statements of another, as all did before version 1.21.
    ///
    /// # Panics
    ///
    /// If PgBouncer is missing; the message says what to install.
    #[must_use]
    pub fn mixing(database: &str) -> Self {
        match installed().filter(|(_, version)| *version < TRACKS) {
            // It does not know the setting.
            Some((program, _)) => Self::new(program, database, None),
            None => Self::new(tracking_program(), database, Some(0)),
        }
    }

    fn new(program: PathBuf, database: &str, max_prepared_statements: Option<u32>) -> Self {
        let url = Url::parse(database).expect("the URL of a database");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), everybody).expect("it is ours");
        let port = crate::http::lasting_port().expect("a free port");
        let mut settings = format!(
            "[databases]\npooled = host={} port={} dbname={} user={} password={}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n\
             pool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\nmax_client_conn = 200\n\
             server_login_retry = 1\nignore_startup_parameters = extra_float_digits\n",
            url.host_str().expect("a host"),
            url.port().unwrap_or(5432),
            url.path().trim_start_matches('/'),
            url.username(),
            url.password().unwrap_or_default(),
        );
        if let Some(count) = max_prepared_statements {
            writeln!(settings, "max_prepared_statements = {count}").expect("a text takes all");
        }
        // It does not run as root, but knows how to become somebody else.
        if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            settings += "user = nobody\n";
        }
        std::fs::write(directory.path().join("pgbouncer.ini"), settings).expect("the directory is ours");
        let mut pooler = Self { program, process: None, port, directory };
        pooler.start();
        pooler
    }

    /// The address of the database behind the pooler.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://anybody@127.0.0.1:{}/pooled?sslmode=disable", self.port)
    }

    /// Starts it again where it was, unless it runs, and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start(&mut self) {
        if self.process.is_some() {
            return;
        }
        let log = self.directory.path().join("log");
        let written = std::fs::File::options().create(true).append(true).open(&log).expect("the directory is ours");
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

    /// Kills it, and with it every connection. Blocks until it is gone.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It can only fail if it is gone already.
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
    if let Some((program, _)) = installed().filter(|(_, version)| *version >= TRACKS) {
        return program;
    }
    let test = env::current_exe().expect("the system knows which program this is");
    let beside = test.ancestors().map(|folder| folder.join("pgbouncer/pgbouncer")).find(|program| program.is_file());
    beside
        .expect("a PgBouncer that tracks prepared statements (1.21 or newer) is missing; please run scripts/pgbouncer")
}

/// The one of this machine, with its version.
fn installed() -> Option<(PathBuf, (u32, u32))> {
    // Debian puts it where only root's PATH looks.
    ["pgbouncer", "/usr/sbin/pgbouncer"]
        .iter()
        .find_map(|place| version(Path::new(place)).map(|version| (place.into(), version)))
}

fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut parts = text.split_whitespace().nth(1)?.split('.').map(|part| part.parse().unwrap_or(0));
    Some((parts.next()?, parts.next()?))
}
