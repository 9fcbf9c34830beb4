use std::{
    fmt::{self, Write as _},
    io,
    ops::{Deref, DerefMut},
    pin::Pin,
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool, Postgres, Row as _,
    migrate::Migrate as _,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use tokio::{
    sync::OnceCell,
    time::{Instant, sleep, timeout},
};

use super::{
    StoreError, TaskChange, TaskStore,
    in_transaction::{Joined, joined_store},
    names::{Dialect, Names},
    pool::{Lease, MAX_WAITING, Network, Place, Pool, PoolStatus, Prepare, Queue},
    retry::{Attempts, Nature},
    row_security,
    sql::{self, DataLoss, Statements, is_disconnected, is_outdated, is_read_only},
};
use crate::{
    Page, Task, TaskId, TaskQuery, UserId,
    clock::{Jitter, Timestamp},
};

mod operations {
    super::sql::operations!(sqlx::PgConnection, sqlx::Postgres, time::OffsetDateTime);
}

/// Keeps tasks in PostgreSQL (14 or later), in a schema of their own.
///
/// One call is one statement and one round trip. A connection that died while nobody used it is replaced without the
/// caller of a read seeing it; a write answers [`StoreError::Unavailable`] then, since whether it happened is not
/// known.
///
/// # What is tried again
///
/// Up to three times, after pauses of up to 50, 100 and 200 ms, half of each left to chance, and not later than 7 seconds
/// after the call began: connecting; a read whose connection died; what the server has rolled back because it met
/// somebody else (`40001`, `40P01`). What a server refused because it only reads (`25006`), as a primary does that is none
/// any more, is sent once more over a new connection, and all connections that are older are given up. Nothing else is
/// repeated, and nothing within a transaction of the host.
///
/// A server that does not answer at all is noticed, too: a second after
/// [`statement_timeout`](PostgresOptions::statement_timeout), or after 30 seconds if there is none, the connection counts
/// as dead. A connection that nobody has used for 30 seconds, or that was idle when another was found dead, is asked first,
/// and has a second to answer.
///
/// Only direct connections and poolers that keep track of prepared statements are supported (PgBouncer from 1.21 with
/// `max_prepared_statements`, Neon, Supavisor); behind others, statements of different callers are mixed up.
/// [`check`](Self::check) finds that out.
///
/// # Schema
///
/// Call [`migrate`](Self::migrate) once at start; it makes this, under the configured [`Names`]:
///
/// ```sql
#[doc = include_str!("../../migrations/postgres/0001_tasks.up.sql")]
/// ```
///
/// Beside it stand functions that only a store [with row security](Self::with_row_security) uses; they cost nobody
/// else a thing. [`migrate_to`](Self::migrate_to) leads back.
///
/// A host may read the table, add indexes to it and refer to it from its own tables; rows are to be written through
/// the store.
///
/// # Example
///
/// ```no_run
/// use todo_core::store::{PostgresOptions, PostgresStore};
///
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::connect("postgres://todo@localhost/todo", &PostgresOptions::default())?;
/// store.check().await?;
/// store.migrate().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    connections: Connections,
    names: Names,
    row_security: bool,
    sql: Arc<Statements>,
}

#[derive(Clone)]
enum Connections {
    Own(Pool<Postgres>, Arc<Session>),
    Host(PgPool, Queue),
}

/// How a [`PostgresStore`] uses its own connections.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// How many connections at most. Default: 10.
    pub max_connections: usize,
    /// How long a call waits until a connection is free before it answers [`StoreError::Unavailable`]. Default:
    /// 3 seconds.
    pub acquire_timeout: Duration,
    /// How long a call waits for a new connection, as when the database has to wake up first. An attempt stays when
    /// the call goes, for up to 15 seconds, and the next call goes on with it. It should be less than the patience of
    /// the callers. Default: 8 seconds.
    pub connect_timeout: Duration,
    /// After how long a connection is replaced when it is next needed. Default: 30 minutes.
    pub max_lifetime: Duration,
    /// How many calls may wait for a connection. More answer [`StoreError::Unavailable`] at once, since they would wait
    /// longer than their callers do. Default: 1024.
    pub max_waiting: usize,
    /// How long a statement may run before the server ends it and the call answers [`StoreError::Timeout`]: nobody waits
    /// for it any longer. `None`: as the role or the URL has it. Default: 5 seconds.
    ///
    /// This and [`lock_timeout`](Self::lock_timeout) are set on each new connection, but not behind a pooler: there a
    /// setting would stay with a connection that others use after us. Set them for the role instead
    /// (`alter role todo set statement_timeout = '5s'`). Migrations run without them.
    pub statement_timeout: Option<Duration>,
    /// How long a statement may wait for a lock before the call answers [`StoreError::Unavailable`]. `None`: as the role
    /// or the URL has it. Default: 2 seconds.
    pub lock_timeout: Option<Duration>,
    /// What to make of `sslmode=require`. Default: [`TlsPolicy::Verify`].
    pub tls: TlsPolicy,
    /// Spreads the pauses before something is tried again. Default: [`Jitter::shared`].
    pub jitter: Jitter,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(8),
            max_lifetime: Duration::from_mins(30),
            max_waiting: MAX_WAITING,
            statement_timeout: Some(Duration::from_secs(5)),
            lock_timeout: Some(Duration::from_secs(2)),
            tls: TlsPolicy::Verify,
            jitter: Jitter::shared(),
        }
    }
}

/// What to make of a URL that asks for encryption without a check of the server's certificate (`sslmode=require` or
/// `verify-ca`), which protects from nobody who can answer in the server's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsPolicy {
    /// Raise it to `verify-full`, and say so in the log. The roots are those of Mozilla (`webpki-roots`); a private
    /// authority is named in the URL by `sslrootcert`.
    #[default]
    Verify,
    /// Do as the URL says.
    AsWritten,
}

/// What [`PostgresStore::check`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Findings {
    /// Whether an answered write survives a crash of the server's machine: its settings `fsync` and
    /// `synchronous_commit` are on.
    pub durable: bool,
    /// Whether a pooler stands between us and the server. (It keeps track of prepared statements, or the check fails.)
    pub pooled: bool,
    /// How long a statement of this store may run; `None`: for ever. Behind a pooler, and on the host's pool, that is
    /// the host's to choose.
    pub statement_timeout: Option<Duration>,
}

impl PostgresStore {
    /// A store over the host's pool, with the default [`Names`].
    ///
    /// The pool's own settings hold. By default sqlx asks a connection how it is before each use, which costs a round
    /// trip: `PgPoolOptions::test_before_acquire(false)` turns that off, and this store replaces dead connections
    /// itself. sqlx also asks, after the answer is out, when a connection is given back; a store that was made by
    /// [`connect`](Self::connect) does neither.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        let queue = host_queue(&pool, MAX_WAITING);
        Self::over(Connections::Host(pool, queue), Names::default())
    }

    /// A store with connections of its own, opened when they are first needed.
    ///
    /// # Errors
    ///
    /// The URL is not one that sqlx understands (`postgres://user:password@host/database?...`). The text of the error
    /// does not repeat the URL.
    pub fn connect(url: &str, options: &PostgresOptions) -> Result<Self, StoreError> {
        let connect = connect_options(url, options.tls)?;
        let session = Arc::new(Session::new(options));
        let pool = Pool::new(
            connect,
            Some(session.clone()),
            options.max_connections,
            options.acquire_timeout,
            Some(Network { max_age: options.max_lifetime, connect_timeout: options.connect_timeout }),
        );
        let pool = pool.with_max_waiting(options.max_waiting);
        Ok(Self::over(Connections::Own(pool, session), Names::default()))
    }

    /// The same connections, with other names for schema and table.
    #[must_use]
    pub fn with_names(self, names: Names) -> Self {
        let store = Self::over(self.connections, names);
        if self.row_security { store.with_row_security() } else { store }
    }

    /// The same connections, with so many calls that may wait for one; more answer [`StoreError::Unavailable`] at once.
    /// Default: 1024.
    ///
    /// Of the host's pool only the calls of this store and its clones count: what the host itself does with the pool is
    /// not seen here.
    #[must_use]
    pub fn with_max_waiting(self, max_waiting: usize) -> Self {
        let connections = match self.connections {
            Connections::Own(pool, session) => Connections::Own(pool.with_max_waiting(max_waiting), session),
            Connections::Host(pool, _) => {
                let queue = host_queue(&pool, max_waiting);
                Connections::Host(pool, queue)
            }
        };
        Self { connections, ..self }
    }

    /// What the connections are doing now, for metrics. It waits for nothing and asks the database nothing.
    ///
    /// Of the host's pool, size and idle connections are the pool's; waiting and refused calls are those of this store
    /// and its clones.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        match &self.connections {
            Connections::Own(pool, _) => pool.status(),
            Connections::Host(pool, queue) => queue.status(pool.size() as usize, pool.num_idle()),
        }
    }

    fn over(connections: Connections, names: Names) -> Self {
        Self { connections, sql: Statements::of(Dialect::Postgres, &names), row_security: false, names }
    }

    /// Brings schema and table to the newest version. It is safe to run this in many processes at once, and does
    /// nothing when there is nothing to do.
    ///
    /// It holds a lock of the session and sets something there, so it needs a direct connection, not a pooler in transaction mode.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, the user may not create the schema, the database was migrated by a newer version of
    /// this library, or for ten seconds somebody else has held the tables ([`StoreError::Unavailable`]): a transaction
    /// that reads them, or another migration. Calls of others are held up for a second at a time at most.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.run_migrations(sql::newest_version(Dialect::Postgres), DataLoss::Refuse).await
    }

    /// Brings schema and table to this version, which may be an older one. 0 removes the table, but not the schema, which
    /// may hold what is not ours. Going back happens wholly or not at all.
    ///
    /// ```no_run
    /// # async fn back(store: todo_core::store::PostgresStore) -> Result<(), todo_core::store::StoreError> {
    /// use todo_core::store::DataLoss;
    ///
    /// store.migrate_to(1, DataLoss::Refuse).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As with [`migrate`](Self::migrate); or there is no such version; or there are tasks that would be lost, and
    /// `loss` refuses that.
    pub async fn migrate_to(&self, version: u32, loss: DataLoss) -> Result<(), StoreError> {
        self.run_migrations(sql::known_version(Dialect::Postgres, version)?, loss).await
    }

    /// Tries again for a while if somebody holds what a migration needs for itself.
    async fn run_migrations(&self, version: u32, loss: DataLoss) -> Result<(), StoreError> {
        let begun = Instant::now();
        loop {
            match self.run_migrations_once(version, loss).await {
                Err(error) if sql::is_locked(&error) && begun.elapsed() < MIGRATING => {
                    tracing::warn!(target: "todo_core::store", "a migration waits for whoever holds the tables or migrates them");
                    // Who queued up behind the migration comes first.
                    sleep(self.jitter().spread(Duration::from_secs(1))).await;
                }
                result => return result,
            }
        }
    }

    async fn run_migrations_once(&self, version: u32, loss: DataLoss) -> Result<(), StoreError> {
        match &self.connections {
            // Not one of the pool's: to migrate, or to wait until another process has, may take longer than a call.
            Connections::Own(pool, _) => {
                let mut connection = connect(&pool.options(), self.connect_timeout()).await?;
                let migrated = self.migrate_on(&mut connection, version, loss).await;
                // That it is closed politely matters to nobody but the server's log.
                let _ = connection.close().await;
                migrated
            }
            Connections::Host(..) => {
                let mut connection = self.lease().await?;
                match self.migrate_on(&mut connection, version, loss).await {
                    Ok(()) => Ok(connection.finish(Ok(()))?),
                    // The lock of the session may still be held.
                    Err(error) => {
                        connection.discard();
                        Err(error)
                    }
                }
            }
        }
    }

    /// After an error the lock of the session may still be held.
    async fn migrate_on(&self, connection: &mut PgConnection, version: u32, loss: DataLoss) -> Result<(), StoreError> {
        let migrator = sql::migrator(Dialect::Postgres, &self.names);
        let failed = |error| sql::migration_failed(Dialect::Postgres, error);
        // While a migration waits for a table, everybody else who wants the table waits behind it.
        sqlx::raw_sql("set lock_timeout = '1s'").execute(&mut *connection).await?;
        sql::migrate(&migrator, &mut *connection, Some(version)).await.map_err(failed)?;
        connection.lock().await.map_err(failed)?;
        let mut transaction = connection.begin().await?;
        let now = sql::revert(&migrator, &mut *transaction, version.max(1)).await.map_err(failed)?;
        if now > version {
            if loss == DataLoss::Refuse && self.has_tasks(&mut transaction).await? {
                return Err(sql::tasks_would_be_lost());
            }
            sql::revert(&migrator, &mut *transaction, version).await.map_err(failed)?;
        }
        if self.row_security {
            row_security::turn_on(&mut transaction, &self.names).await?;
        }
        transaction.commit().await?;
        connection.unlock().await.map_err(failed)?;
        // It may be one of the host's.
        sqlx::raw_sql("reset lock_timeout").execute(&mut *connection).await?;
        Ok(())
    }

    /// Whether there is a task; nobody can add one any more until the transaction ends.
    async fn has_tasks(&self, transaction: &mut PgConnection) -> Result<bool, StoreError> {
        row_security::lock_out_others(transaction, &self.names).await?;
        Ok(operations::has_tasks(transaction, &self.sql).await?)
    }

    /// Looks at what stands behind the URL: whether it is safe to use at all, and how durable it is.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or a pooler that mixes up the prepared statements of its clients stands before
    /// it ([`StoreError::Backend`], with a text that says so).
    pub async fn check(&self) -> Result<Findings, StoreError> {
        let silent = |_| Err(StoreError::Unavailable("the server does not answer".into()));
        // As long as its two connections may take.
        timeout(2 * self.connect_timeout(), self.look()).await.unwrap_or_else(silent)
    }

    async fn look(&self) -> Result<Findings, StoreError> {
        let options = match &self.connections {
            Connections::Own(pool, _) => pool.options(),
            Connections::Host(pool, _) => (*pool.connect_options()).clone(),
        };
        // Fresh ones, because sqlx names statements by counting, and the names must clash.
        let limit = self.connect_timeout();
        let (mut one, mut other) = (connect(&options, limit).await?, connect(&options, limit).await?);
        let pooled = is_pooled(&mut one, &mut other).await?;
        if pooled && mixes_statements(&mut one, &mut other).await {
            return Err(StoreError::Backend(
                "a connection pooler that does not track prepared statements stands before the database: it answers \
                 with the rows of other queries. Set max_prepared_statements in PgBouncer, which version 1.21 or newer \
                 has, or use the direct URL of the database instead of the pooled one"
                    .into(),
            ));
        }
        let settings = "select current_setting('fsync') = 'on' and current_setting('synchronous_commit') <> 'off', \
                        (select setting::bigint from pg_settings where name = 'statement_timeout')";
        let settings = sqlx::raw_sql(settings).fetch_one(&mut one).await?;
        let (durable, millis) = (settings.try_get(0)?, settings.try_get::<i64, _>(1)?);
        let of_role = u64::try_from(millis).ok().filter(|millis| *millis > 0).map(Duration::from_millis);
        let statement_timeout = match &self.connections {
            Connections::Own(_, session) => {
                // Found out already, so that the first connection need not. One that is there was right, too.
                let _ = session.pooled.set(pooled);
                session.statement_timeout.filter(|_| !pooled).or(of_role)
            }
            Connections::Host(..) => of_role,
        };
        // That they are closed politely matters to nobody but the server's log.
        let _ = (one.close().await, other.close().await);
        Ok(Findings { durable, pooled, statement_timeout })
    }

    /// Closes the connections that this store opened; those of the host's pool stay.
    pub async fn close(&self) {
        if let Connections::Own(pool, _) = &self.connections {
            pool.close().await;
        }
    }

    pub(super) fn statements(&self) -> &Statements {
        &self.sql
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn has_row_security(&self) -> bool {
        self.row_security
    }

    /// The same connections, each call a function that binds its owner.
    pub(super) fn binding_owners(self) -> Self {
        Self { row_security: true, sql: Statements::with_row_security(&self.names), ..self }
    }

    pub(super) async fn lease(&self) -> Result<Borrowed, StoreError> {
        Ok(match &self.connections {
            Connections::Own(pool, _) => Borrowed::Own(pool.lease().await?),
            Connections::Host(pool, queue) => {
                let place = queue.enter()?;
                Borrowed::Host { connection: pool.acquire().await?, _place: place }
            }
        })
    }

    pub(super) fn attempts(&self, nature: Nature) -> Attempts {
        Attempts::new(nature, self.jitter())
    }

    fn jitter(&self) -> Jitter {
        match &self.connections {
            Connections::Own(_, session) => session.jitter.clone(),
            Connections::Host(..) => Jitter::shared(),
        }
    }

    /// A connection for the next of these attempts.
    pub(super) async fn lease_for(&self, attempts: &mut Attempts) -> Result<Borrowed, StoreError> {
        match &self.connections {
            Connections::Own(pool, _) => loop {
                match pool.lease().await {
                    Ok(lease) => return Ok(Borrowed::Own(lease)),
                    Err(denied) => attempts.connect_again(denied).await?,
                }
            },
            // How it connects is the host's to say.
            Connections::Host(pool, queue) => {
                if attempts.have_lost() {
                    drop_dead(pool).await;
                }
                let place = queue.enter()?;
                Ok(Borrowed::Host { connection: pool.acquire().await?, _place: place })
            }
        }
    }

    /// What a call answers, unless the server keeps silent: it has ended the statement by then, or is not there.
    pub(super) async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let limit = match &self.connections {
            Connections::Own(_, session) => session.statement_timeout.map(|limit| limit.saturating_add(MARGIN)),
            Connections::Host(..) => None,
        };
        let silent = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the server has not answered").into());
        timeout(limit.unwrap_or(SILENCE), call).await.unwrap_or_else(silent)
    }

    fn connect_timeout(&self) -> Duration {
        match &self.connections {
            Connections::Own(_, session) => session.connect_timeout,
            Connections::Host(pool, _) => pool.options().get_acquire_timeout(),
        }
    }
}

/// How much longer than the server ends a statement it is waited for.
const MARGIN: Duration = Duration::from_secs(1);

/// How long a server is waited for that ends no statement.
const SILENCE: Duration = Duration::from_secs(30);

/// Takes the dead connections out of the host's pool, which does not suspect the others when one was found dead.
async fn drop_dead(pool: &PgPool) {
    let mut is_silent = false;
    for _ in 0..pool.num_idle() {
        let Some(mut connection) = pool.try_acquire() else { return };
        // One that keeps silent takes its time; the others are not asked any more.
        if !is_silent {
            match timeout(MARGIN, connection.ping()).await {
                Ok(Ok(())) => return,
                Ok(Err(_)) => {}
                Err(_) => is_silent = true,
            }
        }
        drop(connection.detach());
    }
}

/// A connection outside of the pool. What is wrong with a certificate does not become right by trying again.
async fn connect(options: &PgConnectOptions, limit: Duration) -> Result<PgConnection, StoreError> {
    let too_late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer").into());
    let connected = timeout(limit, options.connect()).await.unwrap_or_else(too_late);
    connected.map_err(|error| match sql::refused_certificate(&error) {
        Some(problem) => StoreError::Backend(
            format!(
                "the certificate of the database server is not accepted ({problem}): the host in the URL must be one of its \
                 names, and an authority that not everybody knows must be named in the URL by sslrootcert"
            )
            .into(),
        ),
        None => match &error {
            sqlx::Error::Tls(_) => StoreError::Backend(error.into()),
            _ => error.into(),
        },
    })
}

/// For how long a migration is begun again that somebody holds up.
const MIGRATING: Duration = Duration::from_secs(10);

fn host_queue(pool: &PgPool, max_waiting: usize) -> Queue {
    Queue::new(pool.options().get_max_connections() as usize, max_waiting)
}

/// Which process of the server answers. Without a prepared statement: behind a pooler even that may clash.
async fn backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::raw_sql("select pg_backend_pid()").fetch_one(connection).await?.try_get(0)
}

/// Whether these two connections end in a pooler that shares those of the server among its clients: if two live clients
/// are answered by the same process, or one of them by several.
async fn is_pooled(one: &mut PgConnection, other: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let first = backend(one).await?;
    // Others use the pooler too, and it may just have given us different ones.
    for _ in 0..3 {
        if backend(other).await? == first || backend(one).await? != first {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The settings of each session of our own.
struct Session {
    statement_timeout: Option<Duration>,
    lock_timeout: Option<Duration>,
    connect_timeout: Duration,
    jitter: Jitter,
    /// Found out once. Behind a pooler a session is not ours, so nothing is set in it.
    pooled: OnceCell<bool>,
}

impl Session {
    fn new(options: &PostgresOptions) -> Self {
        Self {
            statement_timeout: options.statement_timeout,
            lock_timeout: options.lock_timeout,
            connect_timeout: options.connect_timeout,
            jitter: options.jitter.clone(),
            pooled: OnceCell::new(),
        }
    }

    async fn set(&self, connection: &mut PgConnection, options: &PgConnectOptions) -> Result<(), sqlx::Error> {
        // Routers forget connections that are still for some minutes; these probes of the server are traffic.
        let mut settings = String::from("set tcp_keepalives_idle = 60;");
        for (name, limit) in [("statement_timeout", self.statement_timeout), ("lock_timeout", self.lock_timeout)] {
            if let Some(limit) = limit {
                // 0 would be no limit, and more than this is none that the server takes.
                let millis = limit.as_millis().clamp(1, 2_147_483_647);
                // Writing to a text does not fail.
                let _ = write!(settings, "set {name} = {millis};");
            }
        }
        let look = async || {
            let mut other = options.connect().await?;
            let pooled = is_pooled(connection, &mut other).await;
            let _ = other.close().await;
            pooled
        };
        if *self.pooled.get_or_try_init(look).await? {
            return Ok(());
        }
        // The only one that is not constant; there is nothing in it but numbers. Simple, so that no name is taken.
        sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection).await?;
        Ok(())
    }
}

impl Prepare<Postgres> for Session {
    fn prepare<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        options: &'a PgConnectOptions,
    ) -> Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'a>> {
        Box::pin(self.set(connection, options))
    }
}

/// Two clients behind one server connection give the same name to different statements: is each answered its own?
async fn mixes_statements(one: &mut PgConnection, other: &mut PgConnection) -> bool {
    // Twice, since the second time each uses what it prepared the first time.
    for _ in 0..2 {
        let mine = sqlx::query_scalar::<_, String>("select 'one'").fetch_one(&mut *one).await;
        let theirs = sqlx::query_scalar::<_, String>("select 'other'").fetch_one(&mut *other).await;
        if !matches!((mine.as_deref(), theirs.as_deref()), (Ok("one"), Ok("other"))) {
            return true;
        }
    }
    false
}

fn connect_options(url: &str, tls: TlsPolicy) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url).map_err(|error| StoreError::Backend(error.into()))?;
    let options = options.disable_statement_logging();
    if url.contains("channel_binding=require") {
        tracing::warn!(
            target: "todo_core::store",
            "the database URL asks for channel_binding=require, which the driver does not do: the connection is not bound"
        );
    }
    match (options.get_ssl_mode(), tls) {
        (PgSslMode::Require | PgSslMode::VerifyCa, TlsPolicy::Verify) => {
            tracing::warn!(
                target: "todo_core::store",
                "the database URL asks for encryption without a full check of the server's certificate: raised to sslmode=verify-full"
            );
            Ok(options.ssl_mode(PgSslMode::VerifyFull))
        }
        _ => Ok(options),
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("names", &self.names).finish_non_exhaustive()
    }
}

pub(super) enum Borrowed {
    Own(Lease<Postgres>),
    Host { connection: PoolConnection<Postgres>, _place: Place },
}

impl Borrowed {
    /// Closes the connection instead of giving it back.
    fn discard(self) {
        match self {
            // It is closed unless it has come to its end.
            Self::Own(_) => {}
            Self::Host { connection, .. } => drop(connection.detach()),
        }
    }

    /// Whether it was opened for this call, as far as is known.
    pub(super) fn is_fresh(&self) -> bool {
        match self {
            Self::Own(lease) => lease.is_fresh(),
            Self::Host { .. } => false,
        }
    }

    pub(super) fn finish<T>(self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        match self {
            Self::Own(lease) => lease.finish(result),
            Self::Host { connection, .. } => {
                if result
                    .as_ref()
                    .is_err_and(|error| is_disconnected(error) || is_read_only(error) || is_outdated(error))
                {
                    drop(connection.detach());
                }
                result
            }
        }
    }
}

impl Deref for Borrowed {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Own(lease) => lease,
            Self::Host { connection, .. } => connection,
        }
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Own(lease) => lease,
            Self::Host { connection, .. } => connection,
        }
    }
}

/// Runs a call on a connection, and on another as often as [`retry`](super::retry) allows.
macro_rules! on_connection {
    ($store:expr, $connection:ident => $call:expr) => {
        on_connection!(@ Write, $store, $connection => $call)
    };
    (read $store:expr, $connection:ident => $call:expr) => {
        on_connection!(@ Read, $store, $connection => $call)
    };
    (batch $store:expr, $connection:ident => $call:expr) => {
        on_connection!(@ Batch, $store, $connection => $call)
    };
    (@ $nature:ident, $store:expr, $connection:ident => $call:expr) => {{
        let mut attempts = $store.attempts($crate::store::retry::Nature::$nature);
        loop {
            let mut $connection = $store.lease_for(&mut attempts).await?;
            let is_fresh = $connection.is_fresh();
            let result = $store.in_time($call).await;
            match $connection.finish(result) {
                Ok(answer) => break Ok(answer),
                Err(error) => attempts.again(error, is_fresh).await?,
            }
        }
    }};
}

pub(super) use on_connection;

#[async_trait]
impl TaskStore for PostgresStore {
    async fn insert(&self, owner: &UserId, task: &Task) -> Result<bool, StoreError> {
        on_connection!(self, connection => operations::insert(&mut connection, &self.sql, owner, task))
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        on_connection!(read self, connection => operations::get(&mut connection, &self.sql, owner, id))
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError> {
        on_connection!(read self, connection => operations::list(&mut connection, &self.sql, owner, query))
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        on_connection!(self, connection => operations::update(&mut connection, &self.sql, owner, id, change, now))
    }

    async fn delete(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError> {
        on_connection!(self, connection => operations::delete(&mut connection, &self.sql, owner, id))
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        on_connection!(self, connection => operations::erase(&mut connection, &self.sql, owner))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        on_connection!(read self, connection => operations::ping(&mut connection, &self.sql))
    }
}

/// A store within a transaction of the host: what the host writes and what tasks become commit or roll back together.
///
/// Clones are the same store, so one goes into a [`TodoService`](crate::TodoService) and the other keeps the way back
/// to the transaction. Calls run one after the other. After one that failed, PostgreSQL refuses all that follows in the
/// transaction, and nothing is promised but that it can be rolled back.
///
/// ```no_run
/// use todo_core::{NewTask, Title, TodoService, UserId, store::{PostgresInTransaction, PostgresStore}};
///
/// # async fn hire(pool: sqlx::PgPool, service: TodoService) -> Result<(), Box<dyn std::error::Error>> {
/// let mut transaction = pool.begin().await?;
/// sqlx::query("insert into employees (name) values ('Ann')").execute(&mut *transaction).await?;
///
/// let store = PostgresInTransaction::new(transaction);
/// let tasks = service.with_store(store.clone());
/// tasks.for_user(UserId::new("ann")?).create(NewTask::new(Title::new("Sign the contract")?)).await?;
///
/// store.take().await.ok_or("taken once")?.commit().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresInTransaction {
    joined: Joined<Postgres>,
    names: Names,
    sql: Arc<Statements>,
}

impl PostgresInTransaction {
    /// A store within this transaction, with the default [`Names`].
    #[must_use]
    pub fn new(transaction: sqlx::Transaction<'static, Postgres>) -> Self {
        Self::with_names(transaction, &Names::default())
    }

    /// A store within this transaction, with other names for schema and table.
    #[must_use]
    pub fn with_names(transaction: sqlx::Transaction<'static, Postgres>, names: &Names) -> Self {
        let sql = Statements::of(Dialect::Postgres, names);
        Self { joined: Joined::new(transaction), names: names.clone(), sql }
    }

    /// The same transaction, with row security as [`PostgresStore::with_row_security`] has it. After a call, the transaction
    /// has the owner bound (`todo.user_id`) whom the host had bound before it, or nobody.
    #[must_use]
    pub fn with_row_security(self) -> Self {
        Self { sql: Statements::with_row_security(&self.names), ..self }
    }

    /// Hands the transaction back, after the call that runs. `None` if it was handed back before; all later calls of
    /// this store answer [`StoreError::Unavailable`].
    pub async fn take(&self) -> Option<sqlx::Transaction<'static, Postgres>> {
        self.joined.take().await
    }
}

impl fmt::Debug for PostgresInTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresInTransaction")
    }
}

joined_store!(PostgresInTransaction);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn require_becomes_verify_full_unless_the_host_says_otherwise() {
        let mode = |url: &str, tls| connect_options(url, tls).expect("a URL").get_ssl_mode();
        let url = "postgres://u:p@db.example/todo";
        for weak in ["require", "verify-ca"] {
            let url = format!("{url}?sslmode={weak}&channel_binding=require");
            assert!(matches!(mode(&url, TlsPolicy::Verify), PgSslMode::VerifyFull), "{weak}");
        }
        assert!(matches!(mode(&format!("{url}?sslmode=require"), TlsPolicy::AsWritten), PgSslMode::Require));
        assert!(matches!(mode(url, TlsPolicy::Verify), PgSslMode::Prefer));
    }

    #[test]
    fn a_wrong_url_is_not_repeated() {
        let error = PostgresStore::connect("postgres://ann:hunter2@db:port/todo", &PostgresOptions::default());
        let text = format!("{:?}", error.expect_err("no URL"));
        assert!(!text.contains("hunter2"), "{text}");
    }
}
