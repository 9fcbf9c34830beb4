//! A limit on the connections that calls of slow owners hold, so that the others go on being served.
//!
//! The rows of some owners may be on a server that hangs (a worker of Citus), or behind a lock. Their calls would soon
//! hold all connections, each until its time limit. Owners are therefore in groups. A group is slow while one of its
//! calls takes long, and until one has been quick again. All slow groups together get half of the connections. Calls
//! that were sent before their group was found to be slow, and hold more than that, are given up if others wait.
//!
//! While the whole database is slow for a moment, none of this happens: a group is limited, and a call given up, only
//! if a call that began later was quick, or after a longer time.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use crate::UserId;

/// A call that takes longer is slow.
const SLOW: Duration = Duration::from_millis(500);

/// After this time, a call counts as slow although no other call was quick meanwhile: those may all wait for this one's
/// connection. A migration delays all calls for up to a second at a time.
const LONG: Duration = Duration::from_millis(1500);

/// How often a slow call looks whether it is to be given up.
const LOOK: Duration = Duration::from_millis(50);

/// The number of groups. With more of them, fewer owners share the limit with an owner who is slow alone, but it takes
/// longer to find out which groups are on a server that hangs: one slow call for each.
const GROUPS: usize = 64;

/// The state of all groups, of a fixed size.
#[derive(Debug)]
pub(super) struct SlowOwners {
    groups: [Group; GROUPS],
    /// When the last call that was quick had begun, in microseconds after `start`.
    quick: AtomicU64,
    places: Semaphore,
    waiting: AtomicUsize,
    start: Instant,
}

#[derive(Debug, Default)]
struct Group {
    /// The number of calls that are slow and have not ended.
    running: AtomicUsize,
    /// When the last call that was slow had begun; 0 if a call was quick since.
    slow: AtomicU64,
    /// Whether a call has taken [`LONG`], and none was quick since.
    is_stuck: AtomicBool,
}

/// Why a call of a slow owner is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    TooManyWaiting,
    TimedOut,
}

/// A call, before and while it has a connection.
#[derive(Debug)]
pub(super) struct OwnersCall<'a> {
    owners: &'a SlowOwners,
    group: Option<&'a Group>,
    /// Whether it counts as one of the slow calls.
    place: Option<SemaphorePermit<'a>>,
}

impl SlowOwners {
    pub(super) fn new(connections: usize) -> Self {
        Self {
            groups: std::array::from_fn(|_| Group::default()),
            quick: AtomicU64::new(0),
            places: Semaphore::new((connections / 2).max(1)),
            waiting: AtomicUsize::new(0),
            start: Instant::now(),
        }
    }

    pub(super) fn call(&self, owner: Option<&UserId>) -> OwnersCall<'_> {
        OwnersCall { owners: self, group: owner.map(|owner| &self.groups[group(owner.as_str())]), place: None }
    }

    fn is_slow(&self, group: &Group) -> bool {
        let slow = group.slow.load(Relaxed);
        slow != 0 && (group.is_stuck.load(Relaxed) || self.quick.load(Relaxed) > slow)
    }

    /// Never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

impl OwnersCall<'_> {
    /// Whether the call may be sent. If its group is slow, it needs a place.
    pub(super) fn may_be_sent(&mut self) -> bool {
        if self.place.is_none() && self.group.is_some_and(|group| self.owners.is_slow(group)) {
            self.place = self.owners.places.try_acquire().ok();
            return self.place.is_some();
        }
        true
    }

    /// Waits until the call may be sent.
    pub(super) async fn wait(&mut self, max_waiting: usize, max_wait: Duration) -> Result<(), NoPlace> {
        if self.may_be_sent() {
            return Ok(());
        }
        let waiting = Counted::new(&self.owners.waiting);
        if waiting.before >= max_waiting {
            return Err(NoPlace::TooManyWaiting);
        }
        match timeout(max_wait, self.owners.places.acquire()).await {
            Ok(Ok(place)) => self.place = Some(place),
            _ => return Err(NoPlace::TimedOut),
        }
        Ok(())
    }

    /// Runs a statement. Returns nothing if it was given up: it goes on at the server. `others_wait`: whether calls
    /// wait for a connection.
    pub(super) async fn run<T>(
        &mut self,
        others_wait: impl Fn() -> bool,
        statement: impl Future<Output = T>,
    ) -> Option<T> {
        let (owners, Some(group)) = (self.owners, self.group) else { return Some(statement.await) };
        let (since, begun) = (Instant::now(), owners.now());
        let mut statement = pin!(statement);
        if let Ok(result) = timeout(SLOW, statement.as_mut()).await {
            owners.quick.fetch_max(begun, Relaxed);
            if group.running.load(Relaxed) == 0 {
                group.slow.store(0, Relaxed);
                group.is_stuck.store(false, Relaxed);
            }
            return Some(result);
        }
        let _running = Counted::new(&group.running);
        group.slow.store(begun, Relaxed);
        loop {
            let is_long = since.elapsed() >= LONG;
            if is_long {
                group.is_stuck.store(true, Relaxed);
            }
            if self.place.is_none() {
                self.place = owners.places.try_acquire().ok();
            }
            let may_be_given_up = is_long || owners.quick.load(Relaxed) > begun;
            if self.place.is_none() && may_be_given_up && others_wait() {
                return None;
            }
            if let Ok(result) = timeout(LOOK, statement.as_mut()).await {
                return Some(result);
            }
        }
    }
}

/// Counts while it lives.
struct Counted<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Relaxed) }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
    }
}

/// The group of an owner: a range of the hashes by which Citus distributes a table. So the owners of one server are few
/// groups, and not some of each.
fn group(owner: &str) -> usize {
    // The first digits of the hash.
    (hash(owner.as_bytes()) >> (u32::BITS - GROUPS.ilog2())) as usize
}

/// The hash of a text in PostgreSQL (`hashtext`): lookup3 of Bob Jenkins, as a server with little-endian numbers
/// computes it.
fn hash(bytes: &[u8]) -> u32 {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let start = 0x9e37_79b9_u32.wrapping_add(length).wrapping_add(3_923_095);
    let [mut a, mut b, mut c] = [start; 3];
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
    let mut rest = bytes;
    while let Some((chunk, after)) = rest.split_at_checked(12) {
        a = a.wrapping_add(word(&chunk[..4]));
        b = b.wrapping_add(word(&chunk[4..8]));
        c = c.wrapping_add(word(&chunk[8..]));
        for rotation in [4, 6, 8, 16, 19, 4] {
            a = a.wrapping_sub(c) ^ c.rotate_left(rotation);
            c = c.wrapping_add(b);
            (a, b, c) = (b, c, a);
        }
        rest = after;
    }
    let mut parts = rest.chunks(4).map(word);
    let mut part = || parts.next().unwrap_or_default();
    a = a.wrapping_add(part());
    b = b.wrapping_add(part());
    // Its lowest byte is reserved.
    c = c.wrapping_add(part() << 8);
    for rotation in [14, 11, 25, 16, 4, 14, 24] {
        c = (c ^ b).wrapping_sub(b.rotate_left(rotation));
        (a, b, c) = (b, c, a);
    }
    // What was `c` in the last step.
    b
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt as _;
    use sqlx::{Connection as _, PgConnection};

    use super::*;

    fn owner(name: &str) -> UserId {
        UserId::new(name).expect("a user")
    }

    async fn enter<'a>(owners: &'a SlowOwners, name: &str) -> OwnersCall<'a> {
        let mut call = owners.call(Some(&owner(name)));
        call.wait(10, Duration::from_secs(3)).await.expect("a place");
        call
    }

    /// A statement that takes this long.
    async fn run(call: &mut OwnersCall<'_>, millis: u64) -> Option<()> {
        call.run(|| true, tokio::time::sleep(Duration::from_millis(millis))).await
    }

    #[tokio::test]
    async fn the_hash_is_that_of_postgres() {
        let database = testkit::stores::todo_database().await;
        let mut connection = PgConnection::connect(database.url()).await.expect("a connection");
        let text = "An owner's name with 40 characters: \u{e9}\u{1f600}..";
        let names: Vec<_> = text.char_indices().map(|(end, _)| text[..end].to_owned()).collect();
        let hashes: Vec<i32> = sqlx::query_scalar(
            "select hashtext(name) from unnest($1::text[]) with ordinality as n (name, n) order by n",
        )
        .bind(&names)
        .fetch_all(&mut connection)
        .await
        .expect("hashes");
        for (name, expected) in names.iter().zip(hashes) {
            assert_eq!(hash(name.as_bytes()), expected.cast_unsigned(), "{name:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_groups_share_half_of_the_connections_until_a_call_is_quick() {
        let owners = SlowOwners::new(4);
        let mut calls = Vec::new();
        for _ in 0..2 {
            let mut call = enter(&owners, "ann").await;
            assert!(run(&mut call, 1000).await.is_some());
            calls.push(call);
        }
        // As long as no other call is quick, the database may be slow.
        let unlimited = enter(&owners, "ann").await;
        assert!(unlimited.place.is_none());
        run(&mut enter(&owners, "bob").await, 1).await;
        assert_ne!(group("ann"), group("bob"));
        let taken = owners.call(Some(&owner("ann"))).wait(10, Duration::from_secs(3)).await;
        assert_eq!(taken, Err(NoPlace::TimedOut), "both places are taken");
        assert!(enter(&owners, "bob").await.place.is_none());
        calls.clear();
        let mut probe = enter(&owners, "ann").await;
        assert!(probe.place.is_some());
        run(&mut probe, 1).await;
        assert!(enter(&owners, "ann").await.place.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_call_over_the_half_is_given_up_if_others_wait() {
        let owners = SlowOwners::new(2);
        let mut first = enter(&owners, "ann").await;
        run(&mut first, 1000).await;
        for (name, others_wait, is_quick, after) in [
            ("bob", true, true, Some(SLOW)),
            ("cem", false, true, None),
            // The whole database may be slow.
            ("dan", true, false, Some(LONG)),
        ] {
            let mut second = enter(&owners, name).await;
            let begun = Instant::now();
            let mut running = Box::pin(second.run(|| others_wait, pending::<()>()));
            assert!(running.as_mut().now_or_never().is_none());
            if is_quick {
                tokio::time::advance(Duration::from_millis(1)).await;
                run(&mut enter(&owners, "eve").await, 1).await;
            }
            let ended = timeout(Duration::from_secs(10), running).await;
            assert_eq!(ended.is_ok(), after.is_some(), "{name}");
            if let Some(after) = after {
                assert!((after..=after + LOOK).contains(&begun.elapsed()), "{name}: {:?}", begun.elapsed());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_is_stuck_is_limited_although_no_call_was_quick() {
        let owners = SlowOwners::new(2);
        let mut first = enter(&owners, "ann").await;
        let mut late = owners.call(Some(&owner("ann")));
        run(&mut first, 1000).await;
        assert!(late.may_be_sent());
        run(&mut first, 2000).await;
        assert!(!late.may_be_sent(), "it has waited for a connection meanwhile");
        drop(first);
        assert!(late.may_be_sent());
        run(&mut late, 1).await;
        drop(late);
        assert!(enter(&owners, "ann").await.place.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_wait_are_limited() {
        let owners = SlowOwners::new(2);
        let mut first = enter(&owners, "ann").await;
        run(&mut first, 2000).await;
        let ann = owner("ann");
        let (mut second, mut third) = (owners.call(Some(&ann)), owners.call(Some(&ann)));
        let mut waiting = Box::pin(second.wait(1, Duration::from_secs(3)));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(third.wait(1, Duration::from_secs(3)).await, Err(NoPlace::TooManyWaiting));
        assert_eq!(waiting.await, Err(NoPlace::TimedOut));
        assert_eq!(owners.waiting.load(Relaxed), 0);
    }
}
