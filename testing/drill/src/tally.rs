//! What a drill counts.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::model::Finding;

/// Counts and findings of a drill.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Requests that were sent.
    pub(crate) requests: u64,
    /// Writes with a successful response.
    pub(crate) acknowledged: u64,
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Responses that lack an acknowledged write.
    pub(crate) lost: u64,
    /// Other wrong responses.
    pub(crate) wrong: u64,
    /// Examples of both.
    pub(crate) examples: Vec<String>,
    /// Requests that could not be sent, because no connection could be made.
    pub(crate) not_connected: u64,
    /// Requests whose connection closed before the response.
    pub(crate) connections_lost: u64,
    /// Requests without a response within the client's limit.
    pub(crate) timed_out: u64,
    /// Requests that were due, but not sent, because too many were in flight.
    pub(crate) skipped: u64,
    /// Writes with an unknown outcome.
    pub(crate) unknown: u64,
    /// The time to a successful response, and to a 503, in microseconds.
    pub(crate) successes: Vec<u32>,
    pub(crate) unavailable: Vec<u32>,
    pub(crate) recovery: Option<Recovery>,
    pub(crate) watch: Option<Watch>,
    /// When the newest of the successful writes was sent.
    pub(crate) written: Option<Instant>,
    /// Requests sent before this moment must get a response.
    pub(crate) must_respond: Option<Instant>,
    pub(crate) abandoned: u64,
    /// Responses with `connection: close`.
    pub(crate) closing: u64,
}

/// How the server recovered from a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovery {
    pub(crate) ended: Instant,
    /// From the end of the fault to the first successful response to a request that was sent after it.
    pub(crate) read: Option<Duration>,
    pub(crate) write: Option<Duration>,
    /// To the last request that failed: with 503 or without a response.
    pub(crate) last_failure: Option<Duration>,
}

/// For how long no write succeeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    since: Instant,
    last_write: Instant,
    longest: Duration,
    /// From the beginning to the last request that was sent meanwhile and failed.
    pub(crate) last_failure: Option<Duration>,
}

impl Watch {
    pub(crate) fn new(since: Instant) -> Self {
        Self { since, last_write: since, longest: Duration::ZERO, last_failure: None }
    }

    pub(crate) fn longest_until(&self, now: Instant) -> Duration {
        self.longest.max(now.saturating_duration_since(self.last_write))
    }

    fn written(&mut self, now: Instant) {
        self.longest = self.longest_until(now);
        self.last_write = now;
    }
}

impl Tally {
    pub(crate) fn find(&mut self, (violation, what): Finding) {
        if violation.is_loss() {
            self.lost += 1;
        } else {
            self.wrong += 1;
        }
        if self.examples.len() < 10 {
            self.examples.push(format!("{violation:?}: {what}"));
        }
    }

    pub(crate) fn succeeded(&mut self, sent: Instant, is_write: bool) {
        self.successes.push(micros(sent.elapsed()));
        self.acknowledged += u64::from(is_write);
        if is_write {
            self.written = self.written.max(Some(sent));
            if let Some(watch) = &mut self.watch {
                watch.written(Instant::now());
            }
        }
        if let Some(recovery) = &mut self.recovery
            && sent >= recovery.ended
        {
            let since = recovery.ended.elapsed();
            (if is_write { &mut recovery.write } else { &mut recovery.read }).get_or_insert(since);
        }
    }

    pub(crate) fn failed(&mut self, sent: Instant, has_response: bool) {
        if let Some(recovery) = &mut self.recovery
            && sent >= recovery.ended
        {
            recovery.last_failure = Some(recovery.ended.elapsed());
        }
        if let Some(watch) = &mut self.watch {
            watch.last_failure = Some(watch.since.elapsed());
        }
        if !has_response && self.must_respond.is_some_and(|moment| sent < moment) {
            self.abandoned += 1;
        }
    }

    pub(crate) fn recovery(&self) -> Option<Recovery> {
        self.recovery
    }

    /// Adds the tally of another round. Of recovery times, the longer ones count.
    pub(crate) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.not_connected += other.not_connected;
        self.connections_lost += other.connections_lost;
        self.timed_out += other.timed_out;
        self.skipped += other.skipped;
        self.unknown += other.unknown;
        self.abandoned += other.abandoned;
        self.closing += other.closing;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.examples.extend(other.examples);
        self.successes.extend(other.successes);
        self.unavailable.extend(other.unavailable);
        self.recovery = match (self.recovery, other.recovery) {
            (Some(one), Some(other)) => Some(Recovery {
                read: one.read.zip(other.read).map(|(one, other)| one.max(other)),
                write: one.write.zip(other.write).map(|(one, other)| one.max(other)),
                last_failure: one.last_failure.max(other.last_failure),
                ..one
            }),
            (one, other) => one.or(other),
        };
    }
}

pub(crate) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_is_measured_with_requests_that_were_sent_after_the_fault() {
        let mut tally = Tally::default();
        let early = Instant::now();
        std::thread::sleep(Duration::from_millis(2));
        tally.recovery = Some(Recovery { ended: Instant::now(), read: None, write: None, last_failure: None });
        tally.succeeded(early, true);
        tally.failed(early, true);
        let recovery = tally.recovery().unwrap();
        assert!(recovery.write.is_none() && recovery.last_failure.is_none(), "they were sent before the fault ended");
        tally.succeeded(Instant::now(), true);
        let first = tally.recovery().unwrap().write;
        assert!(first.is_some() && tally.recovery().unwrap().read.is_none());
        std::thread::sleep(Duration::from_millis(2));
        tally.succeeded(Instant::now(), true);
        assert_eq!(tally.recovery().unwrap().write, first, "the first success counts");
        tally.failed(Instant::now(), true);
        assert!(tally.recovery().unwrap().last_failure > first);
    }

    #[test]
    fn the_longest_time_without_a_write_is_measured_also_while_it_lasts() {
        let since = Instant::now();
        let after = |millis| since + Duration::from_millis(millis);
        let mut watch = Watch::new(since);
        for millis in [10, 50, 60] {
            watch.written(after(millis));
        }
        assert_eq!(watch.longest_until(after(70)), Duration::from_millis(40));
        assert_eq!(watch.longest_until(after(200)), Duration::from_millis(140));
        let mut tally = Tally { watch: Some(watch), ..Tally::default() };
        tally.succeeded(since, false);
        assert_eq!(tally.written, None, "a read is no write");
        tally.succeeded(since, true);
        tally.failed(since, true);
        assert!(tally.written == Some(since) && tally.watch.unwrap().last_failure.is_some());
    }

    #[test]
    fn the_slowest_of_several_rounds_counts() {
        let round = |read, write| Tally {
            lost: 1,
            recovery: Some(Recovery { ended: Instant::now(), read, write, last_failure: None }),
            ..Tally::default()
        };
        let (short, long) = (Some(Duration::from_millis(1)), Some(Duration::from_millis(2)));
        let mut all = round(short, long);
        all.add(round(long, short));
        let recovery = all.recovery().unwrap();
        assert_eq!((all.lost, recovery.read, recovery.write), (2, long, long));
        all.add(round(None, short));
        assert_eq!(all.recovery().unwrap().read, None, "one round had no success");
    }
}
