//! The PostgreSQL server of the tests, and where it comes from.

use std::{env, fmt, io, path::PathBuf, thread};

use sqlx::{Connection as _, PgConnection};
use testcontainers::TestcontainersError;
use tokio::sync::{OnceCell, oneshot};

use super::{container, faults::Faults, keeper::Keeper, local};

/// A PostgreSQL server on which databases may be created.
///
/// A server that was started by this process is removed when the process ends, however it ends. [`stop`](Self::stop)
/// removes it earlier, and waits for that.
pub struct Server {
    url: String,
    version: String,
    source: Source,
    keeper: Option<Keeper>,
    faults: Option<Box<Faults>>,
}

/// Where a [`Server`] comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// `TEST_DATABASE_URL` names it.
    Given,
    /// The programs in this folder run a private cluster.
    Local(PathBuf),
    /// The container engine at this address runs a private container.
    Container(String),
}

impl Source {
    /// Returns where a server would come from, without starting one; see the [module](super) for the order.
    ///
    /// # Errors
    ///
    /// If there is no server.
    pub async fn find() -> Result<Self, Error> {
        let chosen = env::var("TESTKIT_POSTGRES").unwrap_or_default();
        let local = || local::programs().map(Self::Local);
        let container = async || container::engine().await.map(Self::Container);
        match chosen.as_str() {
            "" if given_url().is_some() => Ok(Self::Given),
            "" => match local() {
                Some(local) => Ok(local),
                None => return container().await.ok_or(Error::Nothing),
            },
            "local" => local().ok_or("the PostgreSQL programs are missing (run scripts/setup)"),
            "container" => {
                container().await.ok_or("no container engine responds (is it running? is DOCKER_HOST right?)")
            }
            _ => Err("it must be `local` or `container`"),
        }
        .map_err(|why| Error::Barred(chosen, why))
    }
}

fn given_url() -> Option<String> {
    env::var("TEST_DATABASE_URL").ok().filter(|url| !url.is_empty())
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => f.write_str("the server in TEST_DATABASE_URL"),
            Self::Local(programs) => write!(f, "a private cluster of the programs in {}", programs.display()),
            Self::Container(engine) => write!(f, "a container of {} at {engine}", container::IMAGE),
        }
    }
}

/// Why there is no server for the tests.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `TEST_DATABASE_URL` is not set, the programs are missing, and no container engine responds.
    #[error(
        "there is no PostgreSQL for the tests: run scripts/setup, which installs it, or start a container engine with the API of \
         Docker, or set TEST_DATABASE_URL to a server on which the user may create databases"
    )]
    Nothing,
    /// `TESTKIT_POSTGRES` requires one kind of server, which is missing.
    #[error("TESTKIT_POSTGRES={0}, but {1}")]
    Barred(String, &'static str),
    /// The server in `TEST_DATABASE_URL` cannot be used.
    #[error("cannot connect to the PostgreSQL server in TEST_DATABASE_URL: {0}")]
    Given(#[source] sqlx::Error),
    /// The user in `TEST_DATABASE_URL` lacks a privilege.
    #[error("the user in TEST_DATABASE_URL may not create databases: use `alter role .. createdb`")]
    MayNotCreateDatabases,
    /// The process that starts and removes the server failed.
    #[error("cannot start a PostgreSQL server: {0}")]
    Keeper(#[source] io::Error),
    /// The programs of this machine failed.
    #[error("the PostgreSQL programs in {} did not start a server:\n{log}", programs.display())]
    Cluster {
        /// The folder of the programs.
        programs: PathBuf,
        /// Their output.
        log: String,
    },
    /// The container engine failed.
    #[error("the container engine did not start PostgreSQL: {0}")]
    Engine(#[source] Box<TestcontainersError>),
    /// The container runs, but the server in it does not respond.
    #[error("cannot connect to the PostgreSQL server in the container: {source}\n{log}")]
    Container {
        /// The error of the last attempt.
        source: sqlx::Error,
        /// The output of the container.
        log: String,
    },
    /// The server that was just started does not respond.
    #[error("cannot connect to the PostgreSQL server that was just started: {0}")]
    Private(#[source] sqlx::Error),
}

impl Error {
    pub(super) fn engine(error: TestcontainersError) -> Self {
        Self::Engine(Box::new(error))
    }
}

/// The server of this process, which is found or started at the first call.
///
/// # Panics
///
/// If there is no server.
pub async fn server() -> &'static Server {
    static SERVER: OnceCell<Result<Server, Error>> = OnceCell::const_new();
    match SERVER.get_or_init(Server::find).await {
        Ok(server) => server,
        Err(error) => panic!("{error}"),
    }
}

impl Server {
    /// Finds a server, or starts one; see the [module](super) for where and how.
    ///
    /// # Errors
    ///
    /// If there is no server, or if it does not work.
    ///
    /// # Panics
    ///
    /// Never: the search does not panic.
    pub async fn find() -> Result<Self, Error> {
        // In a thread with a runtime of its own: starting a server blocks, and must not end with the first of several
        // tests that wait for it.
        let (done, found) = oneshot::channel();
        thread::spawn(move || done.send(super::block_on(Self::search())));
        found.await.expect("the search does not panic")
    }

    async fn search() -> Result<Self, Error> {
        match Source::find().await? {
            Source::Given => Self::given(given_url().expect("it is set")).await,
            Source::Local(programs) => Self::local(programs, "").await,
            Source::Container(engine) => Self::container(engine).await,
        }
    }

    async fn given(url: String) -> Result<Self, Error> {
        let mut connection = super::connect(&url).await.map_err(Error::Given)?;
        let may_create = "select rolcreatedb or rolsuper from pg_roles where rolname = current_user";
        if !sqlx::query_scalar(may_create).fetch_one(&mut connection).await.map_err(Error::Given)? {
            return Err(Error::MayNotCreateDatabases);
        }
        let version = version(connection).await.map_err(Error::Given)?;
        Ok(Self { url, version, source: Source::Given, keeper: None, faults: None })
    }

    /// Starts a private cluster with these lines in its `postgresql.conf`, such as `shared_buffers = 256MB`. The
    /// environment does not matter. Returns `None` if the PostgreSQL programs are missing.
    ///
    /// # Errors
    ///
    /// The programs do not start a server.
    ///
    /// # Panics
    ///
    /// If a thread cannot be started.
    pub async fn start_local(settings: &'static str) -> Result<Option<Self>, Error> {
        let Some(programs) = local::programs() else { return Ok(None) };
        let (done, started) = oneshot::channel();
        thread::spawn(move || done.send(super::block_on(Self::local(programs, settings))));
        started.await.expect("starting a server does not panic").map(Some)
    }

    async fn local(programs: PathBuf, settings: &str) -> Result<Self, Error> {
        let password = crate::random_hex(16);
        let local::Cluster { keeper, port, folder, user } = local::start(&programs, &password, settings)?;
        let url = format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres");
        let faults = Faults::new(&programs, &folder, port, user);
        let server = Self::private(url, Source::Local(programs), keeper).await?;
        Ok(Self { faults: Some(Box::new(faults)), ..server })
    }

    async fn container(engine: String) -> Result<Self, Error> {
        let password = crate::random_hex(16);
        let container::Container { keeper, url } = container::start(&engine, &password).await?;
        Self::private(url, Source::Container(engine), keeper).await
    }

    async fn private(url: String, source: Source, keeper: Keeper) -> Result<Self, Error> {
        let connection = super::connect(&url).await.map_err(Error::Private)?;
        let version = version(connection).await.map_err(Error::Private)?;
        Ok(Self { url, version, source, keeper: Some(keeper), faults: None })
    }

    /// The URL of a database of this server, as a user who may create others.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The version of the server, as it reports it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where the server comes from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The faults that can be caused, if this is a private cluster.
    #[must_use]
    pub fn faults(&self) -> Option<&Faults> {
        self.faults.as_deref()
    }

    /// Removes the server if this process started it, and waits until it is removed. Blocks.
    pub fn stop(self) {
        if let Some(keeper) = self.keeper {
            keeper.stop();
        }
    }

    /// The URL of another database on this server.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        url_of(&self.url, database)
    }
}

/// Without the URL, which contains the password.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("version", &self.version).field("source", &self.source).finish_non_exhaustive()
    }
}

async fn version(mut connection: PgConnection) -> Result<String, sqlx::Error> {
    let version = sqlx::query_scalar("show server_version").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(version)
}

/// The same URL with another database.
fn url_of(url: &str, database: &str) -> String {
    let (rest, query) = url.split_once('?').map_or((url, None), |(rest, query)| (rest, Some(query)));
    let authority = rest.find("://").map_or(0, |scheme| scheme + 3);
    let server = rest[authority..].find('/').map_or(rest, |slash| &rest[..authority + slash]);
    // It would override the path.
    let query: Vec<&str> =
        query.iter().flat_map(|query| query.split('&')).filter(|pair| !pair.starts_with("dbname=")).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{server}/{database}{mark}{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::url_of;

    #[test]
    fn only_the_database_of_a_url_changes() {
        for (url, expected) in [
            ("postgres://ann:pw@db:5432/main", "postgres://ann:pw@db:5432/other"),
            ("postgres://db", "postgres://db/other"),
            ("postgres://db/", "postgres://db/other"),
            ("postgres://db?sslmode=require", "postgres://db/other?sslmode=require"),
            ("postgres:///main?host=/run/postgresql", "postgres:///other?host=/run/postgresql"),
            ("postgres://db/main?dbname=x&sslmode=disable", "postgres://db/other?sslmode=disable"),
            ("postgres://db/?dbname=x", "postgres://db/other"),
        ] {
            assert_eq!(url_of(url, "other"), expected);
        }
    }
}
