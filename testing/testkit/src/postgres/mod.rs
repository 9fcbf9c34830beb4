//! PostgreSQL for tests: each test has a database of its own.
//!
//! ```no_run
//! # async fn example() {
//! let database = testkit::postgres::database("todo", async |url| {
//!     // migrate the database with this URL
//! })
//! .await;
//! // connect to database.url()
//! database.close().await;
//! # }
//! ```
//!
//! # Where the server comes from
//!
//! The first of these that exists:
//!
//! 1. `TEST_DATABASE_URL`: a server on which the user may create databases. The databases are dropped after use, except
//!    for the templates: the next run uses them, too, and they are dropped when they have not been used for a day.
//! 2. The PostgreSQL programs of this machine, in `PATH` or where packages install them. They run a private cluster in
//!    a temporary folder; if the tests run as root, the cluster runs as the user `postgres`. It is as durable as in
//!    production (`fsync` is on).
//! 3. A container of the image `postgres:17`, if a container engine responds.
//!
//! `TESTKIT_POSTGRES=local` or `TESTKIT_POSTGRES=container` requires 2 or 3.
//!
//! A private server is started once per process, and removed at the end of the process, even if the process is killed.
//! To share one server between processes, use the program `with-postgres` of this crate: `with-postgres cargo test`.

mod container;
mod faults;
mod keeper;
mod local;
mod server;
mod standby;

use std::{
    collections::HashMap,
    env, fmt, fs,
    future::Future,
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::{sync::OnceCell, time::timeout};

pub use faults::Faults;
pub use local::programs;
pub use server::{Error, Server, Source, server};
pub use standby::Standby;

/// The prefix of the names of all databases that this module creates. No other database is ever dropped.
const PREFIX: &str = "testkit_";

/// The template of empty databases. Not `template1`: no client can connect to `template0`, so it can always be copied,
/// and it is unchanged.
const EMPTY: &str = "template0 encoding 'UTF8'";

/// The database of one test. It is dropped when this is dropped.
pub struct TestDatabase {
    server: &'static Server,
    name: String,
    url: String,
    /// Roles that were created for it.
    roles: Vec<String>,
    dropped: bool,
}

/// Creates a database as a copy of a migrated one.
///
/// `migrate` is called with the URL of an empty database, once for each `template` on a server, even if many threads
/// and processes call this function. Other programs, and other builds of the same program, do not share the template,
/// because a server may be used by several runs and migrations change.
///
/// # Panics
///
/// If there is no server, if `migrate` panics, or if the server returns an error.
pub async fn database(template: &str, migrate: impl AsyncFnOnce(&str)) -> TestDatabase {
    // The templates that this process has created or found. Most tests find theirs here.
    static TEMPLATES: Mutex<Option<HashMap<String, Arc<OnceCell<()>>>>> = Mutex::new(None);

    let server = server().await;
    let name = template_name(template, &fingerprint_of_program());
    let made = {
        let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
        templates.get_or_insert_default().entry(name.clone()).or_default().clone()
    };
    made.get_or_init(|| async {
        make_template(server, &name, migrate)
            .await
            .unwrap_or_else(|error| panic!("cannot create the template database for {template:?}: {error}"));
    })
    .await;
    create(server, &name).await
}

/// Creates an empty database.
///
/// # Panics
///
/// If there is no server, or if it returns an error.
pub async fn empty_database() -> TestDatabase {
    create(server().await, EMPTY).await
}

impl TestDatabase {
    /// The URL of the database.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The name of the database.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates a role that may log in, and returns the URL of the database for it. The role is dropped with the
    /// database.
    ///
    /// `name` is the last part of its name, and `attributes` are those of `create role` (`bypassrls`).
    ///
    /// # Panics
    ///
    /// If the server returns an error: the user of the tests may not be allowed to create roles.
    pub async fn add_role(&mut self, name: &str, attributes: &str) -> String {
        let (role, password) = (format!("{}_{name}", self.name), crate::random_hex(16));
        let mut connection = connect(self.server.url()).await.unwrap_or_else(|error| panic!("{error}"));
        run(&mut connection, format!("create role {role} login password '{password}' {attributes}"))
            .await
            .unwrap_or_else(|error| panic!("cannot create the role {role}: {error}"));
        let mut url = url::Url::parse(&self.url).expect("a URL");
        url.set_username(&role).and_then(|()| url.set_password(Some(&password))).expect("a URL with a host");
        self.roles.push(role);
        url.into()
    }

    /// Drops the database and closes its connections. Without this call, that happens at the end of the scope, in a
    /// thread.
    ///
    /// # Panics
    ///
    /// If the server returns an error.
    pub async fn close(mut self) {
        self.dropped = true;
        drop_database(self.server, &self.name, &self.roles)
            .await
            .unwrap_or_else(|error| panic!("cannot drop the database {}: {error}", self.name));
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if self.dropped {
            return;
        }
        // A thread, because a runtime cannot block on another one. It is joined, because the process may end with the
        // last test.
        let (server, name, roles) = (self.server, std::mem::take(&mut self.name), std::mem::take(&mut self.roles));
        let dropping = thread::spawn(move || block_on(async { drop_database(server, &name, &roles).await }));
        // An error is no reason to panic, perhaps during a panic: a database that remains is dropped a day later.
        let _ = dropping.join();
    }
}

/// Without the URL, which contains the password.
impl fmt::Debug for TestDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestDatabase").field("name", &self.name).field("server", &self.server).finish_non_exhaustive()
    }
}

/// `testkit_template_`, a readable part of the key, and a hash of the key and the program.
fn template_name(key: &str, program: &str) -> String {
    let readable: String =
        key.chars().take(20).map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    let fingerprint = crate::hex(&digest(&SHA256, format!("{key}\0{program}").as_bytes()).as_ref()[..8]);
    format!("{PREFIX}template_{readable}_{fingerprint}")
}

/// Identifies the program and its build.
fn fingerprint_of_program() -> String {
    let program = env::current_exe().expect("the system knows which program this is");
    let built = fs::metadata(&program).and_then(|program| program.modified());
    format!("{} of {built:?}", program.display())
}

/// Creates the template, unless it exists. A finished template does not allow connections, so that it can be copied at
/// any time.
async fn make_template(server: &Server, name: &str, migrate: impl AsyncFnOnce(&str)) -> Result<(), sqlx::Error> {
    let mut connection = connect(server.url()).await?;
    // Against other processes. Released with the connection, also after a panic.
    sqlx::query("select pg_advisory_lock(hashtext($1))").bind(name).execute(&mut connection).await?;
    let is_finished = "select not datallowconn from pg_database where datname = $1";
    match sqlx::query_scalar(is_finished).bind(name).fetch_optional(&mut connection).await? {
        Some(true) => {
            mark_as_used(&mut connection, name).await?;
            return connection.close().await;
        }
        // The process that started it has ended, since it does not hold the lock.
        Some(false) => run(&mut connection, format!("drop database {name} with (force)")).await?,
        None => drop_forgotten(&mut connection).await?,
    }
    run(&mut connection, format!("create database {name} template {EMPTY}")).await?;
    mark_as_used(&mut connection, name).await?;
    migrate(&server.url_of(name)).await;
    run(&mut connection, format!("alter database {name} allow_connections false")).await?;
    let disconnect = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
    sqlx::query(disconnect).bind(name).execute(&mut connection).await?;
    connection.close().await
}

async fn create(server: &'static Server, template: &str) -> TestDatabase {
    let name = format!("{PREFIX}{}_{}", crate::since_1970().as_secs(), crate::random_hex(8));
    copy(server, template, &name)
        .await
        .unwrap_or_else(|error| panic!("cannot create the database {name} from {template}: {error}"));
    TestDatabase { server, url: server.url_of(&name), name, roles: Vec::new(), dropped: false }
}

async fn copy(server: &Server, template: &str, name: &str) -> Result<(), sqlx::Error> {
    let mut connection = connect(server.url()).await?;
    let mut attempts = 5;
    loop {
        attempts -= 1;
        match run(&mut connection, format!("create database {name} template {template}")).await {
            // A connection to the template is still being closed.
            Err(error) if attempts > 0 && code_of(&error).as_deref() == Some("55006") => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => return Err(error),
            Ok(()) => return connection.close().await,
        }
    }
}

/// Connects with a time limit: there may be no response from a wrong address.
async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    let too_late = |_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()));
    timeout(Duration::from_secs(10), PgConnection::connect(url)).await.unwrap_or_else(too_late)
}

async fn drop_database(server: &Server, name: &str, roles: &[String]) -> Result<(), sqlx::Error> {
    let mut connection = connect(server.url()).await?;
    run(&mut connection, format!("drop database if exists {name} with (force)")).await?;
    for role in roles {
        run(&mut connection, format!("drop role if exists {role}")).await?;
    }
    connection.close().await
}

/// Records when a template was used, for [`drop_forgotten`].
async fn mark_as_used(connection: &mut PgConnection, template: &str) -> Result<(), sqlx::Error> {
    run(connection, format!("comment on database {template} is '{}'", crate::tokens::now())).await
}

/// Drops what nobody has used for a day: databases and roles of tests that were killed, and templates of former builds.
async fn drop_forgotten(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let forgotten: Vec<String> = sqlx::query_scalar(
        "select datname::text from pg_database, coalesce(
             substring(datname from '^testkit_([0-9]{10,12})_[0-9a-f]{16}$'),
             case when datname ~ '^testkit_template_.*_[0-9a-f]{16}$'
                 then substring(shobj_description(oid, 'pg_database') from '^[0-9]{10,12}$') end
         ) as used
         where used::bigint < $1",
    )
    .bind(crate::tokens::now() - 24 * 60 * 60)
    .fetch_all(&mut *connection)
    .await?;
    for name in forgotten {
        // Another process may have dropped it, or another user may own it.
        let _ = run(connection, format!("drop database if exists {name} with (force)")).await;
    }
    let forgotten: Vec<String> = sqlx::query_scalar(
        "select rolname::text from pg_roles
         where substring(rolname from '^testkit_([0-9]{10,12})_[0-9a-f]{16}_[a-z]+$')::bigint < $1",
    )
    .bind(crate::tokens::now() - 24 * 60 * 60)
    .fetch_all(&mut *connection)
    .await?;
    for role in forgotten {
        let _ = run(connection, format!("drop role if exists {role}")).await;
    }
    Ok(())
}

/// Names cannot be bound. All names of this module consist of letters, digits and underscores.
async fn run(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(drop)
}

fn code_of(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(Into::into)
}

/// Runs a future on this thread, on which no runtime may run.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts").block_on(future)
}

#[cfg(test)]
mod tests {
    use super::template_name;

    #[test]
    fn template_names_are_distinct_and_short_enough() {
        let (a, b) = ("Ünïcode; drop table \"x\" and a lot more", "Ünïcode; drop table \"x\" and even more");
        let names = [template_name(a, "program"), template_name(b, "program"), template_name(a, "another")];
        for name in &names {
            assert!(name.len() <= 63, "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
                "{name}"
            );
        }
        assert!(names[0] != names[1] && names[0] != names[2]);
        assert_eq!(template_name(a, "program"), names[0]);
    }
}
