//! Connections of our own. sqlx's pool asks a connection how it is each time it is given back, which is a second round
//! trip for each call; this one asks nothing, and gives back only connections whose last call came to its end.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult},
};
use sqlx::{ConnectOptions, Connection, Database};

use super::{StoreError, sql::is_disconnected};

type Options<DB> = <<DB as Database>::Connection as Connection>::Options;

pub(super) struct Opener<DB: Database> {
    options: Options<DB>,
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
        self.options.connect().await
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
pub(super) struct Pool<DB: Database>(managed::Pool<Opener<DB>>);

impl<DB: Database> Clone for Pool<DB> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<DB: Database> Pool<DB> {
    pub(super) fn new(options: Options<DB>, size: usize, patience: Duration, max_age: Option<Duration>) -> Self {
        let pool = managed::Pool::builder(Opener { options, max_age, suspicion: Mutex::new(None) })
            .max_size(size.max(1))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(patience))
            .create_timeout(Some(patience))
            // The last one used has the warmest caches, and lets the others rest.
            .queue_mode(QueueMode::Lifo)
            .build()
            .unwrap_or_else(|_| unreachable!("a runtime is given, and nothing else can be missing"));
        Self(pool)
    }

    #[cfg(feature = "postgres")]
    pub(super) fn options(&self) -> Options<DB>
    where
        Options<DB>: Clone,
    {
        self.0.manager().options.clone()
    }

    pub(super) async fn lease(&self) -> Result<Lease<DB>, StoreError> {
        match self.0.get().await {
            Ok(object) => Ok(Lease(Some(object))),
            // Nobody could connect: not our bug, and another time may do.
            Err(error @ (PoolError::Backend(_) | PoolError::Timeout(_) | PoolError::Closed)) => {
                Err(StoreError::Unavailable(error.to_string().into()))
            }
            Err(error) => Err(StoreError::Backend(error.to_string().into())),
        }
    }

    /// Closes the idle connections and waits for that; the others close when they come back.
    pub(super) async fn close(&self) {
        let idle = self.0.retain(|_, _| false).removed;
        self.0.close();
        for connection in idle {
            // One that cannot say goodbye is closed too.
            let _ = connection.close().await;
        }
    }
}

/// A connection for one call. Dropped before [`finish`](Self::finish), because its caller went away in the middle of a
/// call, it is closed: an answer that nobody read must never be read by the next.
pub(super) struct Lease<DB: Database>(Option<Object<Opener<DB>>>);

impl<DB: Database> Lease<DB> {
    /// Gives the connection back if the call has come to its end.
    pub(super) fn finish<T>(mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        let ended = match &result {
            Ok(_) | Err(sqlx::Error::Decode(_)) => true,
            Err(error @ sqlx::Error::Database(_)) => !is_disconnected(error),
            Err(_) => false,
        };
        if ended {
            drop(self.0.take());
        } else if let (Some(object), Err(error)) = (&self.0, &result)
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
        self.0.as_ref().unwrap_or_else(|| unreachable!("taken only by finish, which takes the lease"))
    }
}

impl<DB: Database> DerefMut for Lease<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.0.as_mut().unwrap_or_else(|| unreachable!("taken only by finish, which takes the lease"))
    }
}

impl<DB: Database> Drop for Lease<DB> {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}
