//! Connections of our own. sqlx's pool asks a connection how it is each time it is given back, which is a second round
//! trip for each call; this one asks nothing, and gives back only connections whose last call came to its end.

use std::{
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult},
};
use sqlx::{ConnectOptions, Connection, Database};

use super::{StoreError, sql::is_disconnected};

/// How many calls wait for a connection at most, if nothing else is said.
pub(super) const MAX_WAITING: usize = 1024;

/// What a pool of connections was doing at one moment, for metrics.
///
/// The numbers are read one after the other while the pool goes on, so they may disagree by a few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// How many connections there may be.
    pub max_size: usize,
    /// How many there are.
    pub size: usize,
    /// How many of them nobody uses.
    pub idle: usize,
    /// How many calls wait for one.
    pub waiting: usize,
    /// How many may wait; more are refused at once.
    pub max_waiting: usize,
    /// How many calls were refused for that reason since the store was made.
    pub refused: u64,
}

/// The calls that have a connection or wait for one. When too many do, another would only wait until nobody wants its
/// answer any more, so it is refused at once.
#[derive(Clone)]
pub(super) struct Queue(Arc<Callers>);

struct Callers {
    connections: usize,
    max_waiting: usize,
    count: AtomicUsize,
    refused: AtomicU64,
}

impl Queue {
    pub(super) fn new(connections: usize, max_waiting: usize) -> Self {
        Self(Arc::new(Callers { connections, max_waiting, count: AtomicUsize::new(0), refused: AtomicU64::new(0) }))
    }

    /// Takes a place, for as long as the call lasts.
    pub(super) fn enter(&self) -> Result<Place, StoreError> {
        let callers = &self.0;
        // Made first, so that it is given back in either case.
        let place = Place(Arc::clone(callers));
        let before = callers.count.fetch_add(1, Ordering::Relaxed);
        if before < callers.connections.saturating_add(callers.max_waiting) {
            return Ok(place);
        }
        callers.refused.fetch_add(1, Ordering::Relaxed);
        Err(StoreError::Unavailable("too many calls wait for a connection already".into()))
    }

    /// The status of the pool before which this queue stands.
    pub(super) fn status(&self, size: usize, idle: usize) -> PoolStatus {
        let callers = &self.0;
        PoolStatus {
            max_size: callers.connections,
            size,
            idle,
            waiting: callers.count.load(Ordering::Relaxed).saturating_sub(size.saturating_sub(idle)),
            max_waiting: callers.max_waiting,
            refused: callers.refused.load(Ordering::Relaxed),
        }
    }
}

/// A place in a [`Queue`].
pub(super) struct Place(Arc<Callers>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) type Options<DB> = <<DB as Database>::Connection as Connection>::Options;

/// What is done with a new connection before it is used.
pub(super) trait Prepare<DB: Database>: Send + Sync {
    fn prepare<'a>(
        &'a self,
        connection: &'a mut DB::Connection,
        options: &'a Options<DB>,
    ) -> Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'a>>;
}

pub(super) struct Opener<DB: Database> {
    options: Options<DB>,
    prepare: Option<Arc<dyn Prepare<DB>>>,
    /// How old a connection may be when it is taken: a server may leave, or a password end, behind its back.
    max_age: Option<Duration>,
    /// When a connection was last found dead. Then the server has probably gone away, and each that was idle at that
    /// time is asked once before it is used again.
    suspicion: Mutex<Option<Instant>>,
}

impl<DB: Database> managed::Manager for Opener<DB> {
    type Type = DB::Connection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<DB::Connection, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        if let Some(prepare) = &self.prepare {
            prepare.prepare(&mut connection, &self.options).await?;
        }
        Ok(connection)
    }

    async fn recycle(&self, connection: &mut DB::Connection, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if self.max_age.is_some_and(|max_age| metrics.age() > max_age) {
            return Err(RecycleError::message("too old"));
        }
        let suspicion = *self.suspicion.lock().unwrap_or_else(PoisonError::into_inner);
        if suspicion.is_some_and(|moment| metrics.recycled.unwrap_or(metrics.created) < moment) {
            connection.ping().await?;
        }
        Ok(())
    }
}

/// A number of connections that are opened when they are first needed.
pub(super) struct Pool<DB: Database> {
    pool: managed::Pool<Opener<DB>>,
    queue: Queue,
}

impl<DB: Database> Clone for Pool<DB> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), queue: self.queue.clone() }
    }
}

impl<DB: Database> Pool<DB> {
    pub(super) fn new(
        options: Options<DB>,
        prepare: Option<Arc<dyn Prepare<DB>>>,
        size: usize,
        patience: Duration,
        max_age: Option<Duration>,
    ) -> Self {
        let size = size.max(1);
        let pool = managed::Pool::builder(Opener { options, prepare, max_age, suspicion: Mutex::new(None) })
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(patience))
            .create_timeout(Some(patience))
            // The last one used has the warmest caches, and lets the others rest.
            .queue_mode(QueueMode::Lifo)
            .build()
            .unwrap_or_else(|_| unreachable!("a runtime is given, and nothing else can be missing"));
        Self { pool, queue: Queue::new(size, MAX_WAITING) }
    }

    /// The same connections, with so many calls that may wait for one.
    pub(super) fn with_max_waiting(self, max_waiting: usize) -> Self {
        Self { queue: Queue::new(self.queue.0.connections, max_waiting), ..self }
    }

    pub(super) fn status(&self) -> PoolStatus {
        let status = self.pool.status();
        self.queue.status(status.size, status.available)
    }

    #[cfg(feature = "postgres")]
    pub(super) fn options(&self) -> Options<DB>
    where
        Options<DB>: Clone,
    {
        self.pool.manager().options.clone()
    }

    pub(super) async fn lease(&self) -> Result<Lease<DB>, StoreError> {
        let place = self.queue.enter()?;
        match self.pool.get().await {
            Ok(object) => Ok(Lease { object: Some(object), _place: place }),
            // Nobody could connect: not our bug, and another time may do.
            Err(error @ (PoolError::Backend(_) | PoolError::Timeout(_) | PoolError::Closed)) => {
                Err(StoreError::Unavailable(error.to_string().into()))
            }
            Err(error) => Err(StoreError::Backend(error.to_string().into())),
        }
    }

    /// Closes the idle connections and waits for that; the others close when they come back.
    pub(super) async fn close(&self) {
        let idle = self.pool.retain(|_, _| false).removed;
        self.pool.close();
        for connection in idle {
            // One that cannot say goodbye is closed too.
            let _ = connection.close().await;
        }
    }
}

/// A connection for one call. Dropped before [`finish`](Self::finish), because its caller went away in the middle of a
/// call, it is closed: an answer that nobody read must never be read by the next.
pub(super) struct Lease<DB: Database> {
    object: Option<Object<Opener<DB>>>,
    _place: Place,
}

impl<DB: Database> Lease<DB> {
    /// Gives the connection back if the call has come to its end.
    pub(super) fn finish<T>(mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        let ended = match &result {
            Ok(_) | Err(sqlx::Error::Decode(_)) => true,
            Err(error @ sqlx::Error::Database(_)) => !is_disconnected(error),
            Err(_) => false,
        };
        if ended {
            drop(self.object.take());
        } else if let (Some(object), Err(error)) = (&self.object, &result)
            && is_disconnected(error)
            && let Some(pool) = Object::pool(object)
        {
            *pool.manager().suspicion.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        result
    }
}

impl<DB: Database> Deref for Lease<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        self.object.as_ref().unwrap_or_else(|| unreachable!("taken only by finish, which takes the lease"))
    }
}

impl<DB: Database> DerefMut for Lease<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.object.as_mut().unwrap_or_else(|| unreachable!("taken only by finish, which takes the lease"))
    }
}

impl<DB: Database> Drop for Lease<DB> {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}
