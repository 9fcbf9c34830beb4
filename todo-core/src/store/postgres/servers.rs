//! The servers that the URL of a database names, and which of them is the primary.
//!
//! With several servers, each new connection is asked whether it leads to the primary. The last primary is asked first
//! and alone. The others are asked when it does not respond, by one attempt at a time.
//!
//! A promoted standby begins a new timeline, whose number is higher. A former primary that comes back, for example
//! after its machine was frozen, does not know of the promotion for a moment, and would show old tasks. So a primary
//! with a lower timeline than one that was seen before is not used; unless all servers respond for some seconds, and it is
//! the only primary. Then the cluster has gone back to it.

use std::{
    fmt,
    future::{pending, poll_fn},
    io,
    pin::pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use futures_util::{
    future::{Either, select},
    stream::{FuturesUnordered, StreamExt as _},
};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _, postgres::PgConnectOptions};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::super::sql::sqlstate::{Condition, condition};

/// How long the last primary has to respond before the other servers are asked, too.
const HEAD_START: Duration = Duration::from_secs(1);

/// How often the other servers are asked while the last primary does not respond, or is none any more.
const SEARCH_EACH: Duration = Duration::from_secs(1);

/// How long a search goes on before another one may begin, if more than one server does not respond.
const SEARCH_LIMIT: Duration = Duration::from_secs(5);

/// How long a primary with a lower timeline must be the only one before it is used.
const GONE_BACK_AFTER: Duration = Duration::from_secs(10);

/// How many steps of a login are taken at once.
const STEPS: usize = 32;

/// A connection to a primary.
pub(super) struct Primary {
    pub(super) connection: PgConnection,
    /// The timeline of the server, or 0 if it is not known. It is not asked for if there is only one server.
    pub(super) timeline: u32,
}

/// The servers of a database. At most one of them is the primary.
pub(super) struct Servers {
    /// How to connect to each; at least one.
    all: Vec<PgConnectOptions>,
    /// Which was the last primary.
    last: AtomicUsize,
    /// The last search among all servers.
    search: Mutex<Option<Search>>,
    /// The primary is another server than before.
    found: Notify,
    /// The highest timeline of a primary so far.
    timeline: AtomicU32,
    /// A lower timeline, and since when all servers say that its primary is the only one.
    gone_back: Mutex<Option<(u32, Instant)>>,
}

/// Why the servers that were asked cannot be used.
#[derive(Default)]
struct Refusals {
    standbys: usize,
    /// The timeline of a former primary.
    former: Option<u32>,
    most_telling: Option<sqlx::Error>,
}

impl Refusals {
    fn note(&mut self, error: sqlx::Error) {
        match NotPrimary::of(&error) {
            Some(NotPrimary::Standby) => self.standbys += 1,
            Some(NotPrimary::Former { timeline, .. }) => self.former = Some(*timeline),
            None => {}
        }
        self.most_telling = Some(match self.most_telling.take() {
            None => error,
            Some(other) => most_telling(other, error),
        });
    }
}

struct Search {
    begun: Instant,
    has_ended: bool,
}

/// A search that goes on until this is dropped.
struct Searching<'a> {
    servers: &'a Servers,
    begun: Instant,
}

impl Drop for Searching<'_> {
    fn drop(&mut self) {
        if let Some(search) = self.servers.search().as_mut().filter(|search| search.begun == self.begun) {
            search.has_ended = true;
        }
    }
}

impl Servers {
    pub(super) fn new(all: Vec<PgConnectOptions>) -> Self {
        debug_assert!(!all.is_empty(), "a URL names a server");
        Self {
            all,
            last: AtomicUsize::new(0),
            search: Mutex::default(),
            found: Notify::new(),
            timeline: AtomicU32::new(0),
            gone_back: Mutex::default(),
        }
    }

    /// The highest timeline so far. What was opened on a lower one leads to a former primary.
    pub(super) fn timeline(&self) -> u32 {
        self.timeline.load(Relaxed)
    }

    /// Connects to the primary; or to the only server, whatever it is.
    ///
    /// This has no time limit. It waits for each server that may still turn out to be the primary.
    pub(super) async fn connect(&self) -> Result<Primary, sqlx::Error> {
        if let [only] = &self.all[..] {
            // All calls that wait poll this. The set polls what was woken.
            let mut only: FuturesUnordered<_> = std::iter::once(login(only)).collect();
            let connected = only.next().await.unwrap_or_else(|| unreachable!("there is one"));
            return Ok(Primary { connection: connected?, timeline: 0 });
        }
        let found = self.found.notified();
        let last = self.last.load(Relaxed);
        let others = || (0..self.all.len()).filter(move |server| *server != last).map(|server| self.ask(server));
        let mut asked: FuturesUnordered<_> = std::iter::once(self.ask(last)).collect();
        let mut refusals = Refusals::default();
        match timeout(HEAD_START, asked.next()).await {
            Ok(Some(Ok(primary))) => return Ok(primary),
            Ok(Some(Err(error))) => refusals.note(error),
            Ok(None) | Err(_) => {}
        }
        let mut searching = self.begin_search();
        if searching.is_some() {
            asked.extend(others());
        } else {
            // Another attempt is searching. Meanwhile, a slow login goes on.
            let login = async {
                match asked.next().await {
                    Some(result) => result,
                    None => pending().await,
                }
            };
            match timeout(SEARCH_EACH, select(pin!(found), pin!(login))).await {
                Ok(Either::Right((Ok(primary), _))) => return Ok(primary),
                Ok(Either::Right((Err(error), _))) => refusals.note(error),
                Ok(Either::Left(_)) | Err(_) => {}
            }
            let now = self.last.load(Relaxed);
            if now == last {
                searching = self.begin_search();
                asked.extend(others().take_while(|_| searching.is_some()));
            } else {
                asked.push(self.ask(now));
            }
        }
        let is_search = searching.is_some();
        searching = searching.filter(|_| asked.len() > 1);
        loop {
            let found = pin!(self.found.notified());
            match select(asked.next(), found).await {
                Either::Left((None, _)) => break,
                Either::Left((Some(Ok(primary)), _)) => return Ok(primary),
                Either::Left((Some(Err(error)), _)) => refusals.note(error),
                // The servers that have not responded yet, such as a frozen one, may never do.
                Either::Right(_) => asked.push(self.ask(self.last.load(Relaxed))),
            }
            // The last one may be frozen. Another search may begin before that is known.
            searching = searching.filter(|_| asked.len() > 1);
        }
        if is_search {
            self.note_refusals(&refusals);
        }
        Err(refusals.most_telling.unwrap_or_else(|| unreachable!("there is a server, and none was the primary")))
    }

    /// After a search among all servers: if the same primary was the only one for long enough, the next attempt uses it.
    fn note_refusals(&self, refusals: &Refusals) {
        let mut gone_back = self.gone_back();
        let Some(timeline) = refusals.former.filter(|_| refusals.standbys + 1 == self.all.len()) else {
            *gone_back = None;
            return;
        };
        let since = match *gone_back {
            Some((before, since)) if before == timeline => since,
            _ => Instant::now(),
        };
        let is_over = since.elapsed() >= GONE_BACK_AFTER;
        *gone_back = Some((timeline, since)).filter(|_| !is_over);
        if !is_over {
            return;
        }
        let known = self.timeline.swap(timeline, Relaxed);
        tracing::error!(
            target: "todo_core::store",
            timeline,
            known,
            "the database has gone back to an older timeline; what was written since may be lost"
        );
    }

    /// Lets this attempt ask all servers, unless another one does. If each attempt did, the logins at the standbys would
    /// cost more than those that are needed, just when there is much to do.
    fn begin_search(&self) -> Option<Searching<'_>> {
        let mut search = self.search();
        let now = Instant::now();
        let pause = |search: &Search| if search.has_ended { SEARCH_EACH } else { SEARCH_LIMIT };
        if search.as_ref().is_some_and(|search| now < search.begun + pause(search)) {
            return None;
        }
        *search = Some(Search { begun: now, has_ended: false });
        Some(Searching { servers: self, begun: now })
    }

    fn gone_back(&self) -> MutexGuard<'_, Option<(u32, Instant)>> {
        self.gone_back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn search(&self) -> MutexGuard<'_, Option<Search>> {
        self.search.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, server: usize) -> Result<Primary, sqlx::Error> {
        let mut connection = login(&self.all[server]).await?;
        match self.timeline_of(&mut connection).await {
            Ok(timeline) => {
                *self.gone_back() = None;
                if self.last.swap(server, Relaxed) != server {
                    self.found.notify_waiters();
                }
                Ok(Primary { connection, timeline })
            }
            Err(error) => {
                // The farewell matters only to the server's log.
                let _ = connection.close().await;
                Err(error)
            }
        }
    }

    /// The timeline of a primary. An error if this is none, or no longer one.
    async fn timeline_of(&self, connection: &mut PgConnection) -> Result<u32, sqlx::Error> {
        // The name of a file of the write-ahead log begins with the timeline. Not prepared: behind a pooler the name of
        // the statement may clash.
        let name = "select case when pg_is_in_recovery() then null else pg_walfile_name(pg_current_wal_lsn()) end";
        let name: Option<String> = match sqlx::raw_sql(name).fetch_one(&mut *connection).await {
            Ok(row) => row.try_get(0)?,
            // Without these functions. Or it was demoted meanwhile.
            Err(sqlx::Error::Database(_)) => {
                let recovery = sqlx::raw_sql("select pg_is_in_recovery()").fetch_one(&mut *connection).await?;
                if recovery.try_get(0)? { None } else { Some(String::new()) }
            }
            Err(error) => return Err(error),
        };
        let Some(name) = name else { return Err(NotPrimary::Standby.into()) };
        let timeline = name.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or(0);
        let known = self.timeline.fetch_max(timeline, Relaxed);
        if timeline < known {
            return Err(NotPrimary::Former { timeline, known }.into());
        }
        Ok(timeline)
    }
}

/// `postgres://user@host:port,host:port/database`, for errors: without the password.
impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = &self.all[0];
        write!(f, "postgres://{}@", first.get_username())?;
        for (number, server) in self.all.iter().enumerate() {
            let host = server.get_socket().map_or_else(|| server.get_host().into(), |path| path.to_string_lossy());
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{host}:{}", server.get_port())?;
        }
        write!(f, "/{}", first.get_database().unwrap_or_else(|| first.get_username()))
    }
}

/// Why a server that has accepted a connection is not used.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum NotPrimary {
    #[error("none of the servers is the primary")]
    Standby,
    #[error("the server is a former primary (timeline {timeline} after {known})")]
    Former { timeline: u32, known: u32 },
}

impl NotPrimary {
    fn of(error: &sqlx::Error) -> Option<&Self> {
        let sqlx::Error::Io(io) = error else { return None };
        io.get_ref()?.downcast_ref()
    }
}

impl From<NotPrimary> for sqlx::Error {
    fn from(reason: NotPrimary) -> Self {
        io::Error::other(reason).into()
    }
}

/// Connects to a server.
///
/// The driver computes the hash of the password in 800 short steps, and yields after each. Each step would wake all calls
/// that wait for a connection. So this takes several steps at once, which is less than 0.1 ms in a release build.
///
/// To be polled only when it was woken, since it polls the socket as often.
async fn login(server: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let mut connecting = pin!(server.connect());
    poll_fn(|context| {
        for _ in 0..STEPS {
            if let Poll::Ready(result) = connecting.as_mut().poll(context) {
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    })
    .await
}

/// Which error to report. If a login succeeded anywhere, then there is no primary for now. Else a server that rejects
/// the login says more than one that cannot be reached.
fn most_telling(one: sqlx::Error, other: sqlx::Error) -> sqlx::Error {
    let telling = |error: &sqlx::Error| match (error, NotPrimary::of(error)) {
        (_, Some(NotPrimary::Former { .. })) => 3,
        (_, Some(NotPrimary::Standby)) => 2,
        (sqlx::Error::Io(_), None) => 0,
        (error, None) => u8::from(!matches!(condition(error), Condition::Disconnected | Condition::TooManyConnections)),
    };
    if telling(&other) > telling(&one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_error_is_reported() {
        let unreachable = || sqlx::Error::Io(io::ErrorKind::ConnectionRefused.into());
        let told = [unreachable(), sqlx::Error::Configuration("wrong".into()), NotPrimary::Standby.into()];
        let in_turn = told.into_iter().reduce(most_telling).expect("some");
        assert!(in_turn.to_string().contains("none of the servers"), "{in_turn}");
        let former = || NotPrimary::Former { timeline: 1, known: 2 }.into();
        for (one, other) in [(former(), unreachable()), (unreachable(), former())] {
            assert!(most_telling(one, other).to_string().contains("former primary"));
        }
    }

    #[test]
    fn all_servers_are_named_without_the_password() {
        let server = |host: &str| PgConnectOptions::new_without_pgpass().host(host).username("ann").password("hunter2");
        let servers = Servers::new(vec![server("a").port(1).database("todo"), server("b").port(2).database("todo")]);
        assert_eq!(servers.to_string(), "postgres://ann@a:1,b:2/todo");
    }
}
