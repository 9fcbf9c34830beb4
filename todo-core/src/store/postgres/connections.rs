//! The connections of a store, its own or those of the host's pool, and how a call runs on them.

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use sqlx::{Connection as _, PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::time::timeout;

use super::{
    super::{
        error::StoreError,
        sql::{
            classify::connect_failed,
            operations::Operation,
            pool::{Lease, Network, Pool},
            queue::{MAX_WAITING, NoConnection, PoolStatus, Queue, QueueSlot},
            sqlstate::{Condition, condition},
            statements::Statements,
        },
    },
    connecting::Connecting,
    options::PostgresOptions,
    retry::Retries,
    servers::Servers,
    session::{self, Session},
    slow_owners::{NoPlace, OwnersCall, SlowOwners},
};
use crate::clock::Jitter;

/// How much longer than `statement_timeout` the client waits for a response.
const MARGIN: Duration = Duration::from_secs(1);

/// How long the client waits for a response if there is no `statement_timeout`.
const SILENCE: Duration = Duration::from_secs(30);

/// Where the connections of a store come from.
#[derive(Clone)]
pub(super) enum Connections {
    Own { pool: Pool<Postgres>, session: Arc<Session>, slow_owners: Arc<SlowOwners> },
    Host { pool: PgPool, queue: Queue, slow_owners: Arc<SlowOwners> },
}

impl Connections {
    /// Connections of the store itself, which are opened when they are first needed.
    pub(super) fn own(servers: Servers, options: &PostgresOptions) -> Self {
        let session = Arc::new(Session::new(servers, options));
        let size = options.max_connections;
        let network = Network { max_age: options.max_lifetime, connect_timeout: options.connect_timeout };
        let connector = Box::new(Connecting::new(session.clone(), size));
        let pool = Pool::new(connector, size, options.acquire_timeout, Some(network));
        let slow_owners = Arc::new(SlowOwners::new(size));
        Self::Own { pool: pool.with_max_waiting(options.max_waiting), session, slow_owners }
    }

    pub(super) fn host(pool: PgPool) -> Self {
        let size = pool.options().get_max_connections() as usize;
        Self::Host { pool, queue: Queue::new(size, MAX_WAITING), slow_owners: Arc::new(SlowOwners::new(size)) }
    }

    pub(super) fn with_max_waiting(self, max_waiting: usize) -> Self {
        match self {
            Self::Own { pool, session, slow_owners } => {
                Self::Own { pool: pool.with_max_waiting(max_waiting), session, slow_owners }
            }
            Self::Host { pool, queue, slow_owners } => {
                Self::Host { pool, queue: queue.with_max_waiting(max_waiting), slow_owners }
            }
        }
    }

    pub(super) fn status(&self) -> PoolStatus {
        match self {
            Self::Own { pool, .. } => pool.status(),
            Self::Host { pool, queue, .. } => queue.status(pool.size() as usize, pool.num_idle()),
        }
    }

    pub(super) fn servers(&self) -> Arc<Servers> {
        match self {
            Self::Own { session, .. } => session.servers.clone(),
            Self::Host { pool, .. } => Arc::new(Servers::new(vec![(*pool.connect_options()).clone()])),
        }
    }

    /// How long a call waits for a new connection.
    pub(super) fn connect_timeout(&self) -> Duration {
        match self {
            Self::Own { session, .. } => session.connect_timeout,
            Self::Host { pool, .. } => pool.options().get_acquire_timeout(),
        }
    }

    pub(super) fn jitter(&self) -> Jitter {
        match self {
            Self::Own { session, .. } => session.jitter.clone(),
            Self::Host { .. } => Jitter::shared(),
        }
    }

    /// Runs an operation, and repeats it as far as [`Retries`] allows.
    pub(super) async fn run<O: Operation<PgConnection>>(
        &self,
        sql: &Statements,
        operation: &O,
    ) -> Result<O::Output, StoreError> {
        let is_limited = sql.is_sharded() || matches!(self, Self::Own { session, .. } if session.limit_slow_owners);
        let mut call = self.slow_owners().call(operation.owner().filter(|_| is_limited));
        let mut retries = Retries::new(O::EFFECT, self.jitter());
        let mut kept = None;
        loop {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => self.lease_for(&mut call, &mut retries).await?,
            };
            let is_new = connection.is_new();
            let statement = self.in_time(operation.run(&mut connection, sql));
            let error = match call.run(|| self.status().waiting > 0, statement).await {
                Some(Ok(output)) => {
                    connection.give_back();
                    return Ok(output);
                }
                Some(Err(error)) => error,
                None => {
                    connection.close();
                    let error = "the call was given up: it was slow, other calls of slow owners held half of the \
                                 connections, and further calls waited";
                    return Err(O::EFFECT.given_up(error.into()));
                }
            };
            let is_repeated = retries.allow(condition(&error), is_new);
            kept = connection.after(&error, is_repeated).await;
            retries.after(error, is_new).await?;
        }
    }

    fn slow_owners(&self) -> &SlowOwners {
        match self {
            Self::Own { slow_owners, .. } | Self::Host { slow_owners, .. } => slow_owners,
        }
    }

    /// How long a call waits until a connection is free.
    fn acquire_timeout(&self) -> Duration {
        match self {
            Self::Own { pool, .. } => pool.acquire_timeout(),
            Self::Host { pool, .. } => pool.options().get_acquire_timeout(),
        }
    }

    /// A connection for the next attempt of a call, which may have to wait for other calls of slow owners before.
    async fn lease_for(&self, call: &mut OwnersCall<'_>, retries: &mut Retries) -> Result<PostgresLease, StoreError> {
        loop {
            let max_waiting = self.status().max_waiting;
            call.wait(max_waiting, self.acquire_timeout()).await.map_err(|reason| {
                StoreError::Unavailable(match reason {
                    NoPlace::TooManyWaiting => "too many calls of slow owners wait".into(),
                    NoPlace::TimedOut => "other calls of slow owners held half of the connections for too long".into(),
                })
            })?;
            let lease = self.lease(retries).await?;
            // The owner may have been found to be slow while the call waited for the connection.
            if call.may_be_sent() {
                return Ok(lease);
            }
            lease.give_back_unused();
        }
    }

    /// A connection.
    async fn lease(&self, retries: &mut Retries) -> Result<PostgresLease, StoreError> {
        match self {
            Self::Own { pool, session, .. } => loop {
                let reason = match pool.lease().await {
                    Ok(lease) => return Ok(PostgresLease::Own(lease)),
                    Err(reason) => reason,
                };
                let is_connecting = matches!(reason, NoConnection::ConnectFailed(_));
                let again = retries.after_no_connection(reason).await;
                again.map_err(|error| {
                    if is_connecting { error.of_attempt(|| session::attempt(&session.servers)) } else { error }
                })?;
            },
            // How the pool connects is up to the host.
            Self::Host { pool, queue, .. } => {
                if retries.have_lost() {
                    drop_dead(pool).await;
                }
                let slot = queue.enter()?;
                let connection = pool.acquire().await.map_err(connect_failed)?;
                Ok(PostgresLease::Host { connection, _slot: slot })
            }
        }
    }

    /// Limits how long a call waits for a response. When the limit is reached, the server has cancelled the statement
    /// or is gone.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        let limit = match self {
            Self::Own { session, .. } => session.statement_timeout.map(|limit| limit.saturating_add(MARGIN)),
            Self::Host { .. } => None,
        };
        let silent = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not respond").into());
        timeout(limit.unwrap_or(SILENCE), call).await.unwrap_or_else(silent)
    }
}

/// Takes dead connections out of the host's pool, which does not doubt the others when one was found dead.
async fn drop_dead(pool: &PgPool) {
    let mut is_silent = false;
    for _ in 0..pool.num_idle() {
        let Some(mut connection) = pool.try_acquire() else { return };
        // To find out that a connection does not respond takes a second, so the rest are closed without a ping.
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

/// A connection for one call.
pub(super) enum PostgresLease {
    Own(Lease<Postgres>),
    Host { connection: PoolConnection<Postgres>, _slot: QueueSlot },
}

impl PostgresLease {
    /// Whether it was opened for this call, as far as is known.
    fn is_new(&self) -> bool {
        match self {
            Self::Own(lease) => lease.is_new(),
            Self::Host { .. } => false,
        }
    }

    fn give_back(self) {
        match self {
            Self::Own(lease) => lease.finish(Ok(())),
            Self::Host { connection, .. } => drop(connection),
        }
    }

    fn give_back_unused(self) {
        match self {
            Self::Own(lease) => lease.give_back_unused(),
            Self::Host { connection, .. } => drop(connection),
        }
    }

    /// Closes the connection, about which nothing is wrong but that its statement has not ended.
    fn close(self) {
        match self {
            Self::Own(lease) => lease.close(),
            Self::Host { connection, .. } => drop(connection.detach()),
        }
    }

    /// Gives the connection back after an error, or closes it if it is of no more use. Returns it if the call is to be
    /// repeated on it.
    async fn after(self, error: &sqlx::Error, is_repeated: bool) -> Option<Self> {
        match self {
            Self::Own(lease) => lease.finish(Err(error)),
            Self::Host { mut connection, _slot: slot } => match condition(error) {
                // The pool of the host may have many connections with such statements, so this one is repaired.
                Condition::Outdated if is_repeated => match connection.clear_cached_statements().await {
                    Ok(()) => return Some(Self::Host { connection, _slot: slot }),
                    Err(_) => drop(connection.detach()),
                },
                // If the call is not repeated, another connection was no better.
                Condition::ReadOnly if is_repeated => drop(connection.detach()),
                condition if condition.is_disconnected() => drop(connection.detach()),
                _ => {}
            },
        }
        None
    }
}

impl Deref for PostgresLease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Own(lease) => lease,
            Self::Host { connection, .. } => connection,
        }
    }
}

impl DerefMut for PostgresLease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Own(lease) => lease,
            Self::Host { connection, .. } => connection,
        }
    }
}
