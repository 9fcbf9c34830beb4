use std::{fmt::Write as _, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};

const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// How much a caller may ask for, and how much of that is left: what a [`Gate`](super::Gate) that limits rates says,
/// and what the caller is told in the headers `RateLimit-Policy` and `RateLimit`.
///
/// The headers are those of the Internet-Draft `draft-ietf-httpapi-ratelimit-headers`, as they have been since its
/// revision 08 (the newest known here is 11): `RateLimit-Policy: "user";q=100;w=10` and
/// `RateLimit: "user";r=99;t=1`. Times in them are whole seconds, rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// How many requests are allowed in a [`window`](Self::window).
    pub limit: u32,
    /// In which time.
    pub window: Duration,
    /// How many are left now.
    pub remaining: u32,
    /// After how long without a request all of them are there again.
    pub reset: Duration,
    /// `None`: this request is let in. Else it is refused with 429 `rate_limited`, and one may come after so long.
    pub retry_after: Option<Duration>,
}

impl Quota {
    /// Of so many requests in this time all are left, and the request is let in.
    #[must_use]
    pub fn new(limit: u32, window: Duration) -> Self {
        Self { limit, window, remaining: limit, reset: Duration::ZERO, retry_after: None }
    }

    /// The same quota with so many requests left, and all of them after this time.
    #[must_use]
    pub fn remaining(self, remaining: u32, reset: Duration) -> Self {
        Self { remaining, reset, ..self }
    }

    /// The same quota for a request that is refused, with nothing left until then.
    #[must_use]
    pub fn refused(self, retry_after: Duration) -> Self {
        Self { remaining: 0, retry_after: Some(retry_after), ..self }
    }

    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let (window, reset) = (whole_seconds(self.window), whole_seconds(self.reset));
        let mut policy = String::with_capacity(48);
        let mut state = String::with_capacity(48);
        // Writing to a text does not fail.
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
