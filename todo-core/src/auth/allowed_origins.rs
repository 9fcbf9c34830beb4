//! Protects credentials that browsers attach by themselves.

use std::collections::BTreeSet;

use http::{HeaderMap, Method, header::ORIGIN};

use super::{
    error::AuthError,
    rejection_log::{RejectionLog, shown},
};

/// The websites whose pages may send writes with a cookie: the protection against cross-site request forgery (CSRF)
/// for an [`Authenticator`](super::Authenticator) that reads cookies.
///
/// Browsers also attach cookies to requests that pages of other websites cause. They state the website in the header
/// `Origin` of each request that is not a GET or HEAD, and scripts cannot change it. A request that may change
/// something is therefore accepted only if its `Origin` is in the list. Call [`check`](Self::check) before the
/// session is looked up, and in your own handlers that use no authenticator, such as the one for sign-in.
///
/// A credential that a page has to attach itself, such as a bearer token or an API key in a header of its own, needs no
/// such check.
///
/// ```
/// use http::{HeaderMap, Method, header::ORIGIN};
/// use todo_core::auth::{AllowedOrigins, AuthError};
///
/// let origins = AllowedOrigins::new(["https://todo.example"]);
/// let mut headers = HeaderMap::new();
/// headers.insert(ORIGIN, "https://evil.example".parse()?);
/// assert!(matches!(origins.check(&Method::POST, &headers), Err(AuthError::ForeignOrigin)));
/// headers.insert(ORIGIN, "https://todo.example".parse()?);
/// assert!(origins.check(&Method::POST, &headers).is_ok());
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[derive(Clone, Debug)]
pub struct AllowedOrigins {
    origins: BTreeSet<String>,
    log: RejectionLog,
}

impl AllowedOrigins {
    /// Returns a list of origins, as browsers write them: `https://todo.example`. A slash at the end and capitals make
    /// no difference.
    #[must_use]
    pub fn new<S: Into<String>>(origins: impl IntoIterator<Item = S>) -> Self {
        let normal = |origin: S| origin.into().trim_end_matches('/').to_ascii_lowercase();
        Self { origins: origins.into_iter().map(normal).collect(), log: RejectionLog::shared() }
    }

    /// Sets the log of rejections. Default: [`RejectionLog::shared`].
    #[must_use]
    pub fn rejection_log(mut self, log: RejectionLog) -> Self {
        self.log = log;
        self
    }

    /// Accepts a request that only reads (GET, HEAD or OPTIONS), or that has exactly one `Origin`, which is in the list.
    ///
    /// # Errors
    ///
    /// [`AuthError::ForeignOrigin`], which is 403 `forbidden`. The origin is logged, see [`RejectionLog`].
    pub fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), AuthError> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let (first, second) = (origins.next(), origins.next());
        let is_own = match (first, second) {
            (Some(origin), None) => origin.to_str().is_ok_and(|origin| self.origins.contains(origin)),
            _ => false,
        };
        if is_own || [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
            return Ok(());
        }
        let error = AuthError::ForeignOrigin;
        if let Some(left_out) = self.log.take(error.reason()) {
            let origin = match (first, second) {
                (None, _) => "(none)".to_owned(),
                (Some(_), Some(_)) => "(several)".to_owned(),
                (Some(origin), None) => shown(&String::from_utf8_lossy(origin.as_bytes())),
            };
            tracing::info!(
                target: "todo_core::auth",
                reason = error.reason(),
                expected = self.shown(),
                origin,
                left_out = left_out.count(),
                "a request was rejected: {error}"
            );
        } else {
            tracing::debug!(target: "todo_core::auth", reason = error.reason(), "a request was rejected");
        }
        Err(error)
    }

    /// Whether pages without TLS are among them.
    pub(super) fn have_plain_http(&self) -> bool {
        self.origins.iter().any(|origin| origin.starts_with("http:"))
    }

    fn shown(&self) -> String {
        shown(&self.origins.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_needs_exactly_one_origin_of_the_list() {
        let own = AllowedOrigins::new(["https://Todo.Example/", "http://localhost:3000"]);
        let headers = |origins: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for origin in origins {
                headers.append(ORIGIN, http::HeaderValue::from_static(origin));
            }
            headers
        };
        let foreign: [&[&str]; 7] = [
            &[],
            &["null"],
            &["https://evil.example"],
            &["http://todo.example"],
            &["https://todo.example.evil.example"],
            &["https://todo.example/"],
            &["https://todo.example", "https://todo.example"],
        ];
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::CONNECT, Method::TRACE] {
            for accepted in ["https://todo.example", "http://localhost:3000"] {
                assert!(own.check(&method, &headers(&[accepted])).is_ok(), "{method} {accepted}");
            }
            for origins in foreign {
                let result = own.check(&method, &headers(origins));
                assert!(matches!(result, Err(AuthError::ForeignOrigin)), "{method} {origins:?}");
            }
        }
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert!(own.check(&method, &headers(&["https://evil.example"])).is_ok(), "{method}");
        }
    }
}
