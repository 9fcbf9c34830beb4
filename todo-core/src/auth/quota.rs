use std::{fmt::Write as _, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};

const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// How many requests a caller may send, and how many are left.
///
/// A [`Gate`](super::Gate) that limits request rates returns it in [`Verdict::Quota`](super::Verdict::Quota). The
/// client sees it in two response headers of the Internet-Draft `draft-ietf-httpapi-ratelimit-headers` (revisions 08 to
/// 11). Times are whole seconds, rounded up.
///
/// ```http
/// RateLimit-Policy: "user";q=100;w=10
/// RateLimit: "user";r=40;t=6
/// ```
///
/// ```
/// use std::time::Duration;
/// use todo_core::auth::Quota;
///
/// // 100 requests in 10 seconds, of which 40 are left. After 6 seconds without a request all 100 are available.
/// let quota = Quota::new(100, Duration::from_secs(10)).remaining(40, Duration::from_secs(6));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// The number of requests that are allowed in a [`window`](Self::window).
    pub limit: u32,
    /// The length of the window.
    pub window: Duration,
    /// The number of requests that are left now.
    pub remaining: u32,
    /// The time without a request after which all requests are available again.
    pub reset: Duration,
    /// `None` if this request is accepted. Otherwise it is rejected with 429 `rate_limited`, and this is the time until
    /// the next request is accepted.
    pub retry_after: Option<Duration>,
}

impl Quota {
    /// Returns a quota of `limit` requests in a window, all of them left. The request is accepted.
    #[must_use]
    pub fn new(limit: u32, window: Duration) -> Self {
        Self { limit, window, remaining: limit, reset: Duration::ZERO, retry_after: None }
    }

    /// Sets the number of requests that are left, and the time after which all are available again.
    #[must_use]
    pub fn remaining(self, remaining: u32, reset: Duration) -> Self {
        Self { remaining, reset, ..self }
    }

    /// Rejects this request: no request is left, and the next one is accepted after `retry_after`.
    #[must_use]
    pub fn refused(self, retry_after: Duration) -> Self {
        Self { remaining: 0, retry_after: Some(retry_after), ..self }
    }

    /// Adds the headers for the client.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let (window, reset) = (whole_seconds(self.window), whole_seconds(self.reset));
        let mut policy = String::with_capacity(48);
        let mut state = String::with_capacity(48);
        // Writing to a string does not fail.
        let _ = write!(policy, "\"user\";q={};w={window}", self.limit);
        let _ = write!(state, "\"user\";r={};t={reset}", self.remaining);
        for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
