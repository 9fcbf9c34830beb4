//! Connections of our own. sqlx's pool asks a connection how it is each time it is given back, which is a second round
//! trip for each call; this one asks only when there is a reason to, and gives back only connections whose last call came
//! to its end.

use std::{
    io,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType},
};
use sqlx::{ConnectOptions, Connection, Database};

use super::{
    StoreError,
    connecting::Connecting,
    sql::{is_disconnected, is_outdated, is_read_only},
};

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
    pub(super) fn enter(&self) -> Result<Place, Denied> {
        let callers = &self.0;
        // Made first, so that it is given back in either case.
        let place = Place(Arc::clone(callers));
        let before = callers.count.fetch_add(1, Ordering::Relaxed);
        if before < callers.connections.saturating_add(callers.max_waiting) {
            return Ok(place);
        }
        callers.refused.fetch_add(1, Ordering::Relaxed);
        Err(Denied::Full)
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

/// Why there is no connection for a call, which has not happened then.
#[derive(Debug)]
pub(super) enum Denied {
    /// Too many wait already.
    Full,
    /// None became free in time, or the store is closed.
    NoneFree,
    /// None can be made.
    Unreachable(sqlx::Error),
}

impl From<Denied> for StoreError {
    fn from(denied: Denied) -> Self {
        Self::Unavailable(match denied {
            Denied::Full => "too many calls wait for a connection already".into(),
            Denied::NoneFree => "no connection became free in time".into(),
            Denied::Unreachable(error) => error.into(),
        })
    }
}

/// A connection, and what is known of it.
pub(super) struct Opened<DB: Database> {
    pub(super) connection: DB::Connection,
    pub(super) at: Instant,
    /// When it last answered.
    used: Instant,
}

impl<DB: Database> Opened<DB> {
    pub(super) fn new(connection: DB::Connection) -> Self {
        let now = Instant::now();
        Self { connection, at: now, used: now }
    }
}

/// Makes connections.
pub(super) struct Dialer<DB: Database> {
    options: Options<DB>,
    prepare: Option<Arc<dyn Prepare<DB>>>,
}

impl<DB: Database> Dialer<DB> {
    pub(super) async fn dial(&self) -> Result<Opened<DB>, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        if let Some(prepare) = &self.prepare {
            prepare.prepare(&mut connection, &self.options).await?;
        }
        Ok(Opened::new(connection))
    }
}

/// What connections over a network need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    /// How old a connection may be when it is taken: a server may leave, or a password end, behind its back.
    pub(super) max_age: Duration,
    /// How long a call waits for a new connection.
    pub(super) connect_timeout: Duration,
}

/// A connection that nobody has used for so long is asked how it is before a call has it: routers forget connections,
/// and tell nobody.
const IDLE: Duration = Duration::from_secs(30);

/// How long a connection that is asked may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// A call that went away after so long without an answer casts doubt on its connection. One that goes away earlier says
/// nothing about it: its caller has hung up.
const SILENCE: Duration = Duration::from_secs(1);

/// What is thought of the connections that were opened, or last answered, before a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Doubts {
    /// One that was idle at that time was found dead. The server may have gone away, so each is asked once before it is
    /// used again.
    dead: Option<Instant>,
    /// One that had last answered then does not answer any more, nor is there an end to it. The others are not asked, as
    /// that takes its time.
    silent: Option<Instant>,
    /// One that was open then leads to a server that does not write any more, or has prepared what is not right any more.
    /// They do answer, but are no better.
    outlived: Option<Instant>,
}

pub(super) struct Opener<DB: Database> {
    dialer: Arc<Dialer<DB>>,
    network: Option<(Network, Connecting<DB>)>,
    doubts: Mutex<Doubts>,
}

impl<DB: Database> Opener<DB> {
    fn doubts(&self) -> MutexGuard<'_, Doubts> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<DB: Database> managed::Manager for Opener<DB> {
    type Type = Opened<DB>;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Opened<DB>, sqlx::Error> {
        let Some((_, connecting)) = &self.network else {
            return self.dialer.dial().await;
        };
        loop {
            let mut opened = connecting.next(&self.dialer).await?;
            // It may have been made for another call, a while ago.
            if self.look_at(&mut opened).await.is_ok() {
                return Ok(opened);
            }
        }
    }

    async fn recycle(&self, opened: &mut Opened<DB>, _: &Metrics) -> RecycleResult<sqlx::Error> {
        self.look_at(opened).await
    }
}

impl<DB: Database> Opener<DB> {
    /// Whether a connection can be used, as far as can be told.
    async fn look_at(&self, opened: &mut Opened<DB>) -> RecycleResult<sqlx::Error> {
        let network = self.network.as_ref().map(|(network, _)| network);
        if network.is_some_and(|network| opened.at.elapsed() > network.max_age) {
            return Err(RecycleError::message("too old"));
        }
        let Doubts { dead, silent, outlived } = *self.doubts();
        if outlived.is_some_and(|moment| opened.at < moment) || silent.is_some_and(|moment| opened.used <= moment) {
            return Err(RecycleError::message("leads nowhere"));
        }
        let is_idle = network.is_some() && opened.used.elapsed() > IDLE;
        if !is_idle && dead.is_none_or(|moment| opened.used >= moment) {
            return Ok(());
        }
        match tokio::time::timeout(ANSWER, opened.connection.ping()).await {
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
                Err(RecycleError::message("does not answer"))
            }
        }
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
    /// `patience` is how long a call waits until a connection is free, and without a network for a new one, too.
    pub(super) fn new(
        options: Options<DB>,
        prepare: Option<Arc<dyn Prepare<DB>>>,
        size: usize,
        patience: Duration,
        network: Option<Network>,
    ) -> Self {
        let size = size.max(1);
        let network = network.map(|network| (network, Connecting::new(size, network.connect_timeout)));
        let create_timeout = network.is_none().then_some(patience);
        let dialer = Arc::new(Dialer { options, prepare });
        let pool = managed::Pool::builder(Opener { dialer, network, doubts: Mutex::default() })
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(patience))
            .create_timeout(create_timeout)
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
        self.pool.manager().dialer.options.clone()
    }

    pub(super) async fn lease(&self) -> Result<Lease<DB>, Denied> {
        let place = self.queue.enter()?;
        let asked = Instant::now();
        loop {
            match self.pool.get().await {
                Ok(object) => {
                    let is_fresh = object.at >= asked;
                    return Ok(Lease { object: Some(object), since: Instant::now(), is_fresh, _place: place });
                }
                // Nobody is slow: the first connections are being made, and that may take longer.
                Err(PoolError::Timeout(TimeoutType::Wait)) if self.are_the_first_being_made(asked) => {}
                Err(PoolError::Backend(error)) => return Err(Denied::Unreachable(error)),
                Err(PoolError::Timeout(TimeoutType::Create)) => {
                    return Err(Denied::Unreachable(io::Error::from(io::ErrorKind::TimedOut).into()));
                }
                Err(_) => return Err(Denied::NoneFree),
            }
        }
    }

    fn are_the_first_being_made(&self, asked: Instant) -> bool {
        let Some((network, _)) = &self.pool.manager().network else { return false };
        self.pool.status().size == 0 && asked.elapsed() < network.connect_timeout
    }

    /// Closes the idle connections and waits for that; the others close when they come back.
    pub(super) async fn close(&self) {
        let idle = self.pool.retain(|_, _| false).removed;
        self.pool.close();
        let spare = self.pool.manager().network.as_ref().map(|(_, connecting)| connecting.close()).unwrap_or_default();
        for opened in idle.into_iter().chain(spare) {
            // One that cannot say goodbye is closed too.
            let _ = tokio::time::timeout(ANSWER, opened.connection.close()).await;
        }
    }
}

/// A connection for one call. Dropped before [`finish`](Self::finish), because its caller went away in the middle of a
/// call, it is closed: an answer that nobody read must never be read by the next.
pub(super) struct Lease<DB: Database> {
    object: Option<Object<Opener<DB>>>,
    since: Instant,
    is_fresh: bool,
    _place: Place,
}

impl<DB: Database> Lease<DB> {
    /// Whether it was opened for this call.
    #[cfg(feature = "postgres")]
    pub(super) fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// Gives the connection back if the call has come to its end.
    pub(super) fn finish<T>(mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        let Some(mut object) = self.object.take() else { return result };
        match &result {
            // If one that was just opened is no better, the others are not worse.
            Err(error) if (is_read_only(error) || is_outdated(error)) && !self.is_fresh => {
                let since = self.since;
                Self::doubt(&object, |doubts| doubts.outlived = doubts.outlived.max(Some(since)));
            }
            Err(error) if is_disconnected(error) => {
                Self::doubt(&object, |doubts| doubts.dead = Some(Instant::now()));
            }
            Ok(_) | Err(sqlx::Error::Decode(_) | sqlx::Error::Database(_)) => {
                object.used = Instant::now();
                return result;
            }
            Err(_) => {}
        }
        drop(Object::take(object));
        result
    }

    fn doubt(object: &Object<Opener<DB>>, change: impl FnOnce(&mut Doubts)) {
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
