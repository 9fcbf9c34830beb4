//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): the trace of each request.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The maximum length of a `tracestate` that is forwarded; a longer one is dropped (section 3.3.1.5).
const MAX_STATE: usize = 512;

tokio::task_local! {
    static CURRENT: Current;
}

/// The trace of the current request. Outgoing requests that it causes are in the same trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) trace: TraceId,
    /// The span of the current request, if it is exported.
    pub(crate) span: Option<u64>,
    pub(crate) flags: u8,
    /// `tracestate`, forwarded as received.
    pub(crate) state: Option<HeaderValue>,
}

impl Current {
    /// The trace of the client, or a new one. This server exports no span of it.
    pub(crate) fn unrecorded(parent: Option<Parent>, headers: &HeaderMap) -> Self {
        match parent {
            Some(parent) => {
                Self { trace: parent.trace, span: None, flags: parent.flags & SAMPLED, state: state(headers) }
            }
            None => Self { trace: new_trace_id(), span: None, flags: 0, state: None },
        }
    }

    /// Runs the future in this trace.
    pub(crate) fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }

    /// The headers of an outgoing request in this trace.
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let span = self.span.unwrap_or_else(new_span_id);
        let parent = format!("00-{}-{span:016x}-{:02x}", self.trace, self.flags);
        if let Ok(parent) = HeaderValue::try_from(parent) {
            headers.insert(TRACEPARENT, parent);
        }
        if let Some(state) = &self.state {
            headers.insert(TRACESTATE, state.clone());
        }
        headers
    }
}

/// The trace headers for an outgoing request: the trace of the current request, or a new trace outside of a request.
pub(crate) fn outgoing() -> HeaderMap {
    let within = CURRENT.try_with(Current::headers);
    within.unwrap_or_else(|_| Current::unrecorded(None, &HeaderMap::new()).headers())
}

/// The flag that all versions define: whether the client records the trace.
const SAMPLED: u8 = 1;

/// The `tracestate` of the request as one list, if it is valid text.
pub(crate) fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let lists: Option<Vec<_>> = headers.get_all(TRACESTATE).iter().map(|list| list.to_str().ok()).collect();
    forwarded_state(lists?.join(","))
}

/// The `tracestate` to forward, if it is neither empty nor too long.
pub(crate) fn forwarded_state(list: String) -> Option<HeaderValue> {
    if list.is_empty() || list.len() > MAX_STATE { None } else { HeaderValue::try_from(list).ok() }
}

/// The id of a trace, shared by all spans in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceId(pub(crate) u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The span of the client, from the header `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) trace: TraceId,
    /// The id of the client's span.
    pub(crate) span: u64,
    /// The lowest bit: whether the client records the trace.
    pub(crate) flags: u8,
}

impl Parent {
    /// Reads `traceparent`; `None` if it is absent or invalid.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        let (Some(value), None) = (given.next(), given.next()) else { return None };
        Self::parse(value.as_bytes())
    }

    /// Parses `version-trace-span-flags`, each in lower-case hexadecimal. Later versions may append more fields.
    fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(55)?;
        let version = number(&known[0..2])?;
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        if !is_whole || [2, 35, 52].iter().any(|at| known[*at] != b'-') {
            return None;
        }
        let (trace, span) = (number(&known[3..35])?, number(&known[36..52])?);
        let flags = number(&known[53..55])?;
        if trace == 0 || span == 0 {
            return None;
        }
        Some(Self { trace: TraceId(trace), span: u64::try_from(span).ok()?, flags: u8::try_from(flags).ok()? })
    }
}

fn number(hex: &[u8]) -> Option<u128> {
    hex.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Some(number << 4 | u128::from(digit - b'0')),
        b'a'..=b'f' => Some(number << 4 | u128::from(digit - b'a' + 10)),
        _ => None,
    })
}

/// A new id. It is unique, not secret.
fn new_trace_id() -> TraceId {
    let [high, low] = new_numbers().map(u128::from);
    // 0 is not a valid id.
    TraceId((high << 64 | low).max(1))
}

fn new_span_id() -> u64 {
    let [_, id] = new_numbers();
    id.max(1)
}

fn new_numbers() -> [u64; 2] {
    static SEED: OnceLock<[u64; 2]> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let seed = SEED.get_or_init(|| {
        let mut bytes = [0; 16];
        // Without randomness ids may repeat after a restart. Nothing else depends on them.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        let seed = u128::from_ne_bytes(bytes);
        #[expect(clippy::cast_possible_truncation, reason = "one half each")]
        [seed as u64, (seed >> 64) as u64]
    });
    let count = COUNT.fetch_add(1, Relaxed);
    seed.map(|seed| mix(seed.wrapping_add(count.wrapping_mul(GOLDEN))))
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes the bits of a counter (the finaliser of `SplitMix64`).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn parent(values: &[&str]) -> Option<Parent> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        Parent::from_headers(&headers)
    }

    #[test]
    fn a_valid_traceparent_of_any_version_is_read() {
        for (value, flags) in [
            (format!("00-{TRACE}-{SPAN}-01"), 1),
            (format!("00-{TRACE}-{SPAN}-00"), 0),
            (format!("00-{TRACE}-{SPAN}-ff"), 0xff),
            (format!("01-{TRACE}-{SPAN}-01"), 1),
            (format!("cc-{TRACE}-{SPAN}-01-fields of a later version"), 1),
            (format!("cc-{TRACE}-{SPAN}-01-"), 1),
        ] {
            let parent = parent(&[&value]).expect(&value);
            assert_eq!((parent.trace.to_string(), parent.flags), (TRACE.to_owned(), flags), "{value}");
            assert_eq!(format!("{:016x}", parent.span), SPAN);
        }
    }

    #[test]
    fn an_invalid_traceparent_is_ignored() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        for value in [
            String::new(),
            "-".repeat(55),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{TRACE}-{SPAN}"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("0x-{TRACE}-{SPAN}-01"),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-{SPAN}-0G"),
            format!("00-{}ü-{SPAN}-01", &TRACE[..30]),
            format!(" {good}"),
        ] {
            assert_eq!(parent(&[&value]), None, "{value}");
        }
        assert_eq!(parent(&[&good, &good]), None, "two headers are invalid");
    }

    #[tokio::test]
    async fn outgoing_requests_are_in_the_trace_of_the_current_request() {
        let headers = |state: &[&str]| {
            let mut headers = HeaderMap::new();
            for state in state {
                headers.append(TRACESTATE, HeaderValue::from_bytes(state.as_bytes()).expect("a value"));
            }
            headers
        };
        let client = parent(&[&format!("00-{TRACE}-{SPAN}-03")]);
        let sent = async |current: Current| current.scope(async { outgoing() }).await;
        let first = sent(Current::unrecorded(client, &headers(&["a=1", "b=2"]))).await;
        let ours = Parent::from_headers(&first).expect("a parent");
        // Unknown flags are not forwarded.
        assert_eq!((ours.trace.to_string(), ours.flags), (TRACE.to_owned(), 1));
        assert_ne!(format!("{:016x}", ours.span), SPAN, "the span of the client");
        assert_eq!(first[TRACESTATE], "a=1,b=2");
        let second = sent(Current::unrecorded(client, &headers(&[]))).await;
        assert_ne!(first[TRACEPARENT], second[TRACEPARENT]);
        for dropped in [&["x".repeat(513)][..], &["\u{fc}".to_owned()], &[String::new()]] {
            let dropped: Vec<_> = dropped.iter().map(String::as_str).collect();
            let sent = sent(Current::unrecorded(client, &headers(&dropped))).await;
            assert!(!sent.contains_key(TRACESTATE), "{dropped:?}");
        }
        // A `tracestate` without a `traceparent` is dropped.
        let alone = sent(Current::unrecorded(None, &headers(&["a=1"]))).await;
        assert!(Parent::from_headers(&alone).is_some_and(|own| own.flags == 0) && !alone.contains_key(TRACESTATE));
        let recorded = Current { trace: TraceId(1), span: Some(2), flags: 1, state: None };
        assert_eq!(sent(recorded).await[TRACEPARENT], format!("00-{}1-{}2-01", "0".repeat(31), "0".repeat(15)));
    }

    #[test]
    fn an_outgoing_request_outside_of_a_request_begins_a_trace() {
        let [one, other] = [(); 2].map(|()| Parent::from_headers(&outgoing()).expect("a parent"));
        assert!(one.trace != other.trace && one.span != other.span);
    }

    #[test]
    fn trace_ids_are_unique() {
        let ids: HashSet<_> = (0..10_000).map(|_| new_trace_id().0).collect();
        assert_eq!(ids.len(), 10_000);
        // Every bit varies.
        for bit in 0..128 {
            let set = ids.iter().filter(|id| **id >> bit & 1 == 1).count();
            assert!((4000..6000).contains(&set), "bit {bit}: {set}");
        }
    }
}
