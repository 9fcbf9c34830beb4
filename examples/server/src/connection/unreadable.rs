//! Requests that no part of the application sees, because hyper cannot read them.

use std::{
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use super::stream::SlowHead;

/// Why a request cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// The head is longer, or has more headers, than hyper accepts.
    TooLarge,
    /// The head is not one of HTTP/1.1.
    Malformed,
    /// The frames are not those of HTTP/2.
    Http2,
    /// The head did not arrive in time.
    Slow,
    /// The client speaks TLS.
    Tls,
    /// A proxy sends the header of the PROXY protocol.
    ProxyProtocol,
}

impl Unreadable {
    pub(crate) const ALL: [Self; 6] =
        [Self::TooLarge, Self::Malformed, Self::Http2, Self::Slow, Self::Tls, Self::ProxyProtocol];

    /// For metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "head_too_large",
            Self::Malformed => "malformed_head",
            Self::Http2 => "http2",
            Self::Slow => "slow_head",
            Self::Tls => "tls",
            Self::ProxyProtocol => "proxy_protocol",
        }
    }

    /// For the operator.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::TooLarge => "a request was rejected with 431 or 414: its head is too large",
            Self::Malformed => "a request was rejected with 400: its head is not valid HTTP/1.1",
            Self::Http2 => "a connection was closed: what the client sent is not valid HTTP/2, or a flood of frames",
            Self::Slow => "a connection was closed: the head of a request took too long",
            Self::Tls => {
                "a client sent TLS to this port, which has plain HTTP; use http:// here, or a proxy with TLS before it"
            }
            Self::ProxyProtocol => {
                "a proxy sent the header of the PROXY protocol, which is not supported; turn it off there"
            }
        }
    }
}

/// How the bytes of a connection begin. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beginning(Arc<AtomicU8>);

const UNKNOWN: u8 = 0;
const TLS: u8 = 1;
const PROXY: u8 = 2;

impl Beginning {
    /// Notes the first bytes.
    pub(super) fn note(&self, bytes: &[u8]) {
        // The record of a ClientHello; both versions of the PROXY protocol.
        let kind = if bytes.starts_with(&[0x16, 3]) {
            TLS
        } else if bytes.starts_with(b"PROXY ") || bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
            PROXY
        } else {
            UNKNOWN
        };
        self.0.store(kind, Relaxed);
    }

    /// Why the connection was closed with this error, if it is because of a request that cannot be read.
    pub(crate) fn unreadable(&self, error: &(dyn Error + 'static)) -> Option<Unreadable> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<hyper::Error>()
                && error.is_parse()
            {
                return Some(match self.0.load(Relaxed) {
                    TLS => Unreadable::Tls,
                    PROXY => Unreadable::ProxyProtocol,
                    _ if error.is_parse_too_large() => Unreadable::TooLarge,
                    _ => Unreadable::Malformed,
                });
            }
            if let Some(error) = error.downcast_ref::<h2::Error>()
                && error.is_library()
            {
                return Some(Unreadable::Http2);
            }
            if let Some(error) = error.downcast_ref::<io::Error>()
                && error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<SlowHead>)
            {
                return Some(Unreadable::Slow);
            }
            next = error.source();
        }
        None
    }
}
