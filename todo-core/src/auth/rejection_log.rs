//! Says in the log why credentials are rejected.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use tracing::Level;

use crate::clock::{Clock, SystemClock, Timestamp};

/// The maximum number of lines in a minute.
const LINES: usize = 20;

/// The maximum number of lines in a minute with the same reason, so that expired tokens, which are normal, do not hide
/// tokens of a wrong issuer.
const LINES_OF_A_REASON: usize = 5;

const MINUTE: Duration = Duration::from_mins(1);

/// The maximum length of a text of a client in a line, in characters.
const MAX_TEXT: usize = 200;

/// Limits the log lines that say why credentials are rejected: at most 20 in a minute, and at most 5 of them with the
/// same reason, since strangers choose what they send.
///
/// A response says little of why a credential is rejected. The log says more: a [`JwtVerifier`](super::JwtVerifier)
/// logs the reason, what was expected and what came, at the level `info` with the target `todo_core::auth`. Of the
/// header of a token, a line contains `typ`, `alg` and `kid`, and of the claims only `iss` and `aud`, each at most 200
/// characters. The token and other claims are never logged. If lines were left out, the next one says in `left_out` how
/// many. At the level `debug`, each rejection is logged.
///
/// All verifiers and APIs of a process share one log by default. Clones share their limit.
///
/// ```
/// use todo_core::{auth::{JwtVerifier, KeySource, RejectionLog}, clock::SystemClock};
///
/// let verifier = JwtVerifier::builder()
///     .source(KeySource::secrets(["at least thirty-two bytes of secret"])?)
///     .rejection_log(RejectionLog::new(SystemClock)) // with a limit of its own
///     .build()?;
/// # Ok::<(), todo_core::auth::InvalidSource>(())
/// ```
#[derive(Clone)]
pub struct RejectionLog(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    /// The lines of the last minute, with their reasons.
    lines: VecDeque<(Timestamp, &'static str)>,
    /// The lines that were left out since the last line.
    left_out: u64,
}

impl RejectionLog {
    /// Returns the log of this process.
    #[must_use]
    pub fn shared() -> Self {
        static SHARED: LazyLock<RejectionLog> = LazyLock::new(|| RejectionLog::new(SystemClock));
        SHARED.clone()
    }

    /// Creates a log with a limit of its own and this clock.
    #[must_use]
    pub fn new(clock: impl Clock + 'static) -> Self {
        Self(Arc::new(Inner { clock: Arc::new(clock), recent: Mutex::default() }))
    }

    /// Whether a line with this reason may be written now. Returns how many lines were left out since the last one.
    pub(crate) fn take(&self, reason: &'static str) -> Option<LeftOut> {
        // A line that nobody sees takes nothing from the limit.
        if !tracing::enabled!(target: "todo_core::auth", Level::INFO) {
            return None;
        }
        self.take_line(reason).map(LeftOut)
    }

    fn take_line(&self, reason: &'static str) -> Option<u64> {
        let now = self.0.clock.now();
        let mut recent = self.0.recent.lock().unwrap_or_else(PoisonError::into_inner);
        // A line of the future means that the clock has gone backwards.
        recent.lines.retain(|(moment, _)| *moment <= now && now < moment.plus(MINUTE));
        let of_reason = recent.lines.iter().filter(|(_, own)| *own == reason).count();
        if recent.lines.len() >= LINES || of_reason >= LINES_OF_A_REASON {
            recent.left_out += 1;
            return None;
        }
        recent.lines.push_back((now, reason));
        Some(std::mem::take(&mut recent.left_out))
    }
}

/// The number of lines that were left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeftOut(u64);

impl LeftOut {
    /// The number for a line; `None` if it is zero.
    pub(crate) fn count(self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }
}

impl Default for RejectionLog {
    fn default() -> Self {
        Self::shared()
    }
}

impl fmt::Debug for RejectionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectionLog").finish_non_exhaustive()
    }
}

/// A text of somebody else for the log: visible ASCII characters and spaces, others escaped, at most 200 characters.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars().take(MAX_TEXT + 1) {
        match character {
            ' '..='~' => shown.push(character),
            other => shown.extend(other.escape_unicode()),
        }
        // It is ASCII, so bytes are characters.
        if shown.len() > MAX_TEXT {
            shown.truncate(MAX_TEXT - 3);
            shown.push_str("...");
            break;
        }
    }
    shown
}

/// The error and its sources: the text of the innermost one, which names the cause. The others repeat each other.
#[cfg(feature = "remote-jwks")]
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    shown(&innermost.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FixedClock;

    #[test]
    fn a_minute_has_twenty_lines_and_five_of_a_reason_and_the_next_line_counts_the_others() {
        let clock = Arc::new(FixedClock::at(Timestamp::from_unix_seconds(1_000)));
        let log = RejectionLog::new(clock.clone());
        let taken = |reason, times: usize| (0..times).filter(|_| log.take_line(reason).is_some()).count();
        assert_eq!(taken("issuer", 100), 5);
        assert_eq!(log.take_line("audience"), Some(95));
        assert_eq!(["type", "kid", "signature", "time"].map(|reason| taken(reason, 10)), [5, 5, 4, 0]);
        clock.set(Timestamp::from_unix_seconds(1_059));
        assert_eq!(taken("audience", 1), 0);
        clock.set(Timestamp::from_unix_seconds(1_060));
        assert_eq!(log.take_line("audience"), Some(17));
        assert_eq!(log.take_line("audience"), Some(0));
        // At no time are there more than 20 lines in a minute.
        assert_eq!(["a", "b", "c", "d", "e"].map(|reason| taken(reason, 10)), [5, 5, 5, 3, 0]);
        clock.set(Timestamp::from_unix_seconds(10));
        assert_eq!(taken("a", 10), 5, "the clock has gone backwards");
    }

    #[test]
    fn a_text_of_a_client_is_escaped_and_at_most_200_characters() {
        assert_eq!(shown("https://app.example.com \"x\""), "https://app.example.com \"x\"");
        assert_eq!(shown("a\nb\u{1b}[31m\u{202e}\u{fc}"), "a\\u{a}b\\u{1b}[31m\\u{202e}\\u{fc}");
        assert_eq!(shown(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(shown(&"x".repeat(201)), format!("{}...", "x".repeat(197)));
        for text in ["\n".repeat(5_000), "x".repeat(5_000), "\u{10ffff}".repeat(100)] {
            assert!(shown(&text).len() <= 200 && shown(&text).is_ascii());
        }
    }
}
