//! Which trace a request belongs to: W3C Trace Context (<https://www.w3.org/TR/trace-context/>).

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::{HeaderMap, HeaderName};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The name of a trace, shared by all who had a part in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceId(pub(crate) u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What the caller says about the trace that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) trace: TraceId,
    /// The caller's own part.
    pub(crate) span: u64,
    /// The lowest bit: whether the caller records the trace.
    pub(crate) flags: u8,
}

impl Parent {
    /// What the head of a request says; `None` if it says nothing, or nothing that can be understood.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        let (Some(value), None) = (given.next(), given.next()) else { return None };
        Self::parse(value.as_bytes())
    }

    /// `version-trace-span-flags`, each in lower-case hexadecimal. Later versions may say more after it.
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

/// The name of a new trace. It need not be secret, only different from all others.
pub(crate) fn new_trace_id() -> TraceId {
    static SEED: OnceLock<[u64; 2]> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let seed = SEED.get_or_init(|| {
        let mut bytes = [0; 16];
        // Without randomness names repeat after a restart, and nothing else.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        let seed = u128::from_ne_bytes(bytes);
        #[expect(clippy::cast_possible_truncation, reason = "one half each")]
        [seed as u64, (seed >> 64) as u64]
    });
    let count = COUNT.fetch_add(1, Relaxed);
    let [high, low] = seed.map(|seed| u128::from(scattered(seed.wrapping_add(count.wrapping_mul(GOLDEN)))));
    // 0 is no name.
    TraceId((high << 64 | low).max(1))
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Neighbours become strangers (the finaliser of `SplitMix64`).
fn scattered(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::HeaderValue;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn parent(values: &[&str]) -> Option<Parent> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        Parent::of(&headers)
    }

    #[test]
    fn a_good_parent_is_understood_whatever_its_version() {
        for (value, flags) in [
            (format!("00-{TRACE}-{SPAN}-01"), 1),
            (format!("00-{TRACE}-{SPAN}-00"), 0),
            (format!("00-{TRACE}-{SPAN}-ff"), 0xff),
            (format!("01-{TRACE}-{SPAN}-01"), 1),
            (format!("cc-{TRACE}-{SPAN}-01-what the future will be like"), 1),
            (format!("cc-{TRACE}-{SPAN}-01-"), 1),
        ] {
            let parent = parent(&[&value]).expect(&value);
            assert_eq!((parent.trace.to_string(), parent.flags), (TRACE.to_owned(), flags), "{value}");
            assert_eq!(format!("{:016x}", parent.span), SPAN);
        }
    }

    #[test]
    fn a_bad_parent_is_none() {
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
        assert_eq!(parent(&[&good, &good]), None, "two are none");
    }

    #[test]
    fn every_new_trace_has_its_own_name() {
        let names: HashSet<_> = (0..10_000).map(|_| new_trace_id().0).collect();
        assert_eq!(names.len(), 10_000);
        // All bits take part.
        for bit in 0..128 {
            let set = names.iter().filter(|name| **name >> bit & 1 == 1).count();
            assert!((4000..6000).contains(&set), "bit {bit}: {set}");
        }
    }
}
