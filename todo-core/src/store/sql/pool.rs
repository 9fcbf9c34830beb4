//! The pool of the connections that a store opens itself.
//!
//! The pool of sqlx pings a connection each time it is given back, which is a second round trip for each call. This
//! pool pings a connection only when there is a reason to doubt it, and takes back only connections whose last call has
//! ended.

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType},
};
use futures_util::future::BoxFuture;
use sqlx::{Connection as _, Database};

use super::{
    queue::{MAX_WAITING, NoConnection, PoolStatus, Queue, QueueSlot},
    sqlstate::{Condition, condition},
};

/// Opens the connections of a pool.
pub(in crate::store) trait Connector<DB: Database>: Send + Sync {
    /// A connection that is ready for use.
    fn connect(&self) -> BoxFuture<'_, Result<Opened<DB>, sqlx::Error>>;

    /// The highest timeline of a primary so far. A connection of a lower one leads to a former primary.
    fn timeline(&self) -> u32 {
        0
    }

    /// Ends all attempts to connect, and returns the connections that no call has taken.
    fn close(&self) -> Vec<Opened<DB>> {
        Vec::new()
    }
}

/// An open connection, and since when it is open.
pub(in crate::store) struct Opened<DB: Database> {
    connection: DB::Connection,
    at: Instant,
    /// When the server last responded on it.
    used: Instant,
    /// The timeline of its server, if that matters.
    timeline: u32,
}

impl<DB: Database> Opened<DB> {
    pub(in crate::store) fn new(connection: DB::Connection) -> Self {
        let now = Instant::now();
        Self { connection, at: now, used: now, timeline: 0 }
    }

    /// The same connection, to a primary on this timeline.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn on_timeline(self, timeline: u32) -> Self {
        Self { timeline, ..self }
    }
}

/// The limits for connections over a network.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Network {
    /// The age at which a connection is replaced when it is next needed: a server may have moved, or a password
    /// expired, without notice.
    pub(in crate::store) max_age: Duration,
    /// How long a call waits for a new connection.
    pub(in crate::store) connect_timeout: Duration,
}

/// A network connection that was idle for this long is pinged before a call gets it: routers drop idle connections
/// without notice.
const IDLE: Duration = Duration::from_secs(30);

/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// A caller that leaves after waiting for this long casts doubt on its connection. A caller that leaves earlier has
/// hung up, which says nothing about the connection.
const SILENCE: Duration = Duration::from_secs(1);

/// Reasons not to trust connections that were opened, or last used, before a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Doubts {
    /// A connection that was idle at this moment was found dead. The server may be gone, so each connection that was
    /// idle then is pinged once before its next use.
    dead: Option<Instant>,
    /// A connection that was last used at this moment no longer responds, and was not closed either. Connections that
    /// were idle for longer are closed without a ping, which would take its timeout.
    silent: Option<Instant>,
    /// A connection that was open at this moment leads to a server that accepts no writes, or has prepared statements
    /// that are no longer valid. Older connections respond to a ping, but are no better, so they are closed.
    outlived: Option<Instant>,
}

struct Manager<DB: Database> {
    connector: Box<dyn Connector<DB>>,
    network: Option<Network>,
    doubts: Mutex<Doubts>,
}

impl<DB: Database> managed::Manager for Manager<DB> {
    type Type = Opened<DB>;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Opened<DB>, sqlx::Error> {
        loop {
            let mut opened = self.connector.connect().await?;
            // It may have been opened for another call, a while ago.
            if self.examine(&mut opened).await.is_ok() {
                return Ok(opened);
            }
        }
    }

    async fn recycle(&self, opened: &mut Opened<DB>, _: &Metrics) -> RecycleResult<sqlx::Error> {
        self.examine(opened).await
    }
}

impl<DB: Database> Manager<DB> {
    fn doubts(&self) -> MutexGuard<'_, Doubts> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection can be used, as far as is known. Pings it if there is a reason to doubt it.
    async fn examine(&self, opened: &mut Opened<DB>) -> RecycleResult<sqlx::Error> {
        if self.network.is_some_and(|network| opened.at.elapsed() > network.max_age) {
            return Err(RecycleError::message("too old"));
        }
        if opened.timeline < self.connector.timeline() {
            return Err(RecycleError::message("leads to a former primary"));
        }
        let Doubts { dead, silent, outlived } = *self.doubts();
        if outlived.is_some_and(|moment| opened.at < moment) || silent.is_some_and(|moment| opened.used <= moment) {
            return Err(RecycleError::message("leads to the wrong server"));
        }
        let is_idle = self.network.is_some() && opened.used.elapsed() > IDLE;
        if !is_idle && dead.is_none_or(|moment| opened.used >= moment) {
            return Ok(());
        }
        match tokio::time::timeout(PING_TIMEOUT, opened.connection.ping()).await {
            Ok(Ok(())) => {
                opened.used = Instant::now();
                Ok(())
            }
            Ok(Err(error)) => {
                self.doubts().dead = Some(Instant::now());
                Err(error.into())
            }
            Err(_) => {
                let mut doubts = self.doubts();
                doubts.dead = Some(Instant::now());
                doubts.silent = doubts.silent.max(Some(opened.used));
                Err(RecycleError::message("does not respond"))
            }
        }
    }
}

/// A pool of connections that are opened when they are first needed.
pub(in crate::store) struct Pool<DB: Database> {
    pool: managed::Pool<Manager<DB>>,
    queue: Queue,
}

impl<DB: Database> Clone for Pool<DB> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), queue: self.queue.clone() }
    }
}

impl<DB: Database> Pool<DB> {
    /// `acquire_timeout` is how long a call waits until a connection is free and, without a network, until a new one is
    /// open.
    pub(in crate::store) fn new(
        connector: Box<dyn Connector<DB>>,
        size: usize,
        acquire_timeout: Duration,
        network: Option<Network>,
    ) -> Self {
        let pool = managed::Pool::builder(Manager { connector, network, doubts: Mutex::default() })
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(acquire_timeout))
            .create_timeout(network.is_none().then_some(acquire_timeout))
            // The connection used last has the warmest caches; the others become idle.
            .queue_mode(QueueMode::Lifo)
            .build()
            .unwrap_or_else(|_| unreachable!("a runtime is set, and nothing else can be missing"));
        Self { pool, queue: Queue::new(size, MAX_WAITING) }
    }

    /// The same connections with another limit on waiting calls.
    pub(in crate::store) fn with_max_waiting(self, max_waiting: usize) -> Self {
        Self { queue: self.queue.with_max_waiting(max_waiting), ..self }
    }

    pub(in crate::store) fn status(&self) -> PoolStatus {
        let status = self.pool.status();
        self.queue.status(status.size, status.available)
    }

    /// How long a call waits for a connection.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn acquire_timeout(&self) -> Duration {
        self.pool.timeouts().wait.unwrap_or(Duration::MAX)
    }

    pub(in crate::store) async fn lease(&self) -> Result<Lease<DB>, NoConnection> {
        let slot = self.queue.enter()?;
        let asked = Instant::now();
        loop {
            match self.pool.get().await {
                Ok(object) => {
                    let is_new = object.at >= asked;
                    return Ok(Lease { object: Some(object), since: Instant::now(), is_new, _slot: slot });
                }
                // The first connections are still being opened, which may take longer than waiting for a free one.
                Err(PoolError::Timeout(TimeoutType::Wait)) if self.is_opening_the_first(asked) => {}
                Err(PoolError::Backend(error)) => return Err(NoConnection::ConnectFailed(error)),
                Err(PoolError::Timeout(TimeoutType::Create)) => {
                    let error = io::Error::from(io::ErrorKind::TimedOut);
                    return Err(NoConnection::ConnectFailed(error.into()));
                }
                Err(_) => return Err(NoConnection::NoneFree),
            }
        }
    }

    fn is_opening_the_first(&self, asked: Instant) -> bool {
        let Some(network) = &self.pool.manager().network else { return false };
        self.pool.status().size == 0 && asked.elapsed() < network.connect_timeout
    }

    /// Closes the idle connections and waits for that. The others are closed when they are given back.
    pub(in crate::store) async fn close(&self) {
        let idle = self.pool.retain(|_, _| false).removed;
        self.pool.close();
        let spare = self.pool.manager().connector.close();
        for opened in idle.into_iter().chain(spare) {
            // Without a response to the farewell, the connection is closed all the same.
            let _ = tokio::time::timeout(PING_TIMEOUT, opened.connection.close()).await;
        }
    }
}

/// A connection for one call.
///
/// [`finish`](Self::finish) gives it back. If it is dropped before, because the caller has left during a call, it is
/// closed: the next call must never read the response to this one.
pub(in crate::store) struct Lease<DB: Database> {
    object: Option<Object<Manager<DB>>>,
    since: Instant,
    is_new: bool,
    _slot: QueueSlot,
}

impl<DB: Database> Lease<DB> {
    /// Whether the connection was opened for this call.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Gives back a connection on which nothing was sent.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn give_back_unused(mut self) {
        drop(self.object.take());
    }

    /// Closes the connection without doubting others.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn close(mut self) {
        drop(self.object.take().map(Object::take));
    }

    /// Gives the connection back, unless the error says that it is of no more use.
    pub(in crate::store) fn finish(mut self, result: Result<(), &sqlx::Error>) {
        let Some(mut object) = self.object.take() else { return };
        match result {
            Err(error) => match condition(error) {
                // If a new connection is no better, the older ones are no worse.
                Condition::ReadOnly | Condition::Outdated if !self.is_new => {
                    let since = self.since;
                    Self::doubt(&object, |doubts| doubts.outlived = doubts.outlived.max(Some(since)));
                    drop(Object::take(object));
                }
                condition if condition.is_disconnected() => {
                    Self::doubt(&object, |doubts| doubts.dead = Some(Instant::now()));
                    drop(Object::take(object));
                }
                _ if matches!(error, sqlx::Error::Decode(_) | sqlx::Error::Database(_)) => object.used = Instant::now(),
                _ => drop(Object::take(object)),
            },
            Ok(()) => object.used = Instant::now(),
        }
    }

    fn doubt(object: &Object<Manager<DB>>, change: impl FnOnce(&mut Doubts)) {
        if let Some(pool) = Object::pool(object) {
            change(&mut pool.manager().doubts());
        }
    }
}

impl<DB: Database> Deref for Lease<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        let object = self.object.as_ref();
        &object.unwrap_or_else(|| unreachable!("taken only by finish, which takes the lease")).connection
    }
}

impl<DB: Database> DerefMut for Lease<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        let object = self.object.as_mut();
        &mut object.unwrap_or_else(|| unreachable!("taken only by finish, which takes the lease")).connection
    }
}

impl<DB: Database> Drop for Lease<DB> {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            if self.since.elapsed() > SILENCE {
                Self::doubt(&object, |doubts| doubts.dead = Some(Instant::now()));
            }
            drop(Object::take(object));
        }
    }
}
