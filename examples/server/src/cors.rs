//! CORS: which websites may call the API from their scripts, and with what.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{
    HeaderName, HeaderValue, Method,
    header::{
        AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LINK, LOCATION, RETRY_AFTER,
        WWW_AUTHENTICATE,
    },
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{app::X_REQUEST_ID, settings::quoted};

/// The settings of CORS.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cors {
    /// Websites whose scripts may call the API.
    pub(crate) origins: Vec<HeaderValue>,
    /// Request headers that are allowed besides those of [`REQUEST_HEADERS`].
    pub(crate) headers: Vec<HeaderName>,
    /// Whether scripts may send cookies.
    pub(crate) credentials: bool,
}

/// The request headers that scripts may always send: those of the API, and those that tracing libraries add to each
/// request.
pub(crate) const REQUEST_HEADERS: [HeaderName; 12] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE,
    X_REQUEST_ID,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
    HeaderName::from_static("sentry-trace"),
];

/// The response headers that scripts may read.
const RESPONSE_HEADERS: [HeaderName; 9] = [
    LINK,
    LOCATION,
    WWW_AUTHENTICATE,
    RETRY_AFTER,
    ETAG,
    HeaderName::from_static("idempotency-replayed"),
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    X_REQUEST_ID,
];

impl Cors {
    pub(crate) fn layer(&self) -> CorsLayer {
        CorsLayer::new()
            // A list even for one origin: with a single value the layer would send that value to every origin.
            .allow_origin(AllowOrigin::list(self.origins.iter().cloned()))
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers(REQUEST_HEADERS.into_iter().chain(self.headers.iter().cloned()).collect::<Vec<_>>())
            .allow_credentials(self.credentials)
            .expose_headers(RESPONSE_HEADERS)
            .max_age(Duration::from_hours(1))
    }
}

/// Logs each website that calls the API and is not allowed to, once. Clones share the list.
#[derive(Clone, Debug, Default)]
pub(crate) struct ForeignOrigins(Arc<Mutex<BTreeSet<Vec<u8>>>>);

impl ForeignOrigins {
    /// Strangers choose the values, so that no more than these are logged.
    const MAX: usize = 20;

    /// Logs the origin of a request, if it is not allowed and was not logged before.
    pub(crate) fn note(&self, origin: &HeaderValue, allowed: &[HeaderValue]) {
        if !allowed.contains(origin) && self.is_new(origin) {
            tracing::info!(
                origin = quoted(&String::from_utf8_lossy(origin.as_bytes())),
                "a request came from a website that is not in ALLOWED_ORIGINS; its scripts cannot read the response, unless \
                 the website itself forwarded the request"
            );
        }
    }

    fn is_new(&self, origin: &HeaderValue) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The value in the log is cut too.
        let origin = origin.as_bytes().iter().copied().take(200).collect();
        seen.len() < Self::MAX && seen.insert(origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_foreign_origin_is_logged_once_and_not_too_many() {
        let origins = ForeignOrigins::default();
        let origin = |number: usize| HeaderValue::try_from(format!("https://{number}.example")).expect("a value");
        let noted = (0..100).filter(|number| origins.is_new(&origin(number % 50))).count();
        assert_eq!(noted, ForeignOrigins::MAX);
    }
}
