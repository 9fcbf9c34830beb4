//! Reads the token from a cookie, for hosts on the same site as the application that sets the cookie.

use http::{header::COOKIE, request::Parts};

use super::{allowed_origins::AllowedOrigins, error::AuthError, rejection_log::RejectionLog};

/// The cookie that contains the token of a request without an `Authorization` header.
///
/// Browsers also send cookies with requests from other sites. Therefore a write is rejected with 403 unless its
/// `Origin` is one of the origins of the application ([`AllowedOrigins`]). If all these origins are `https`, only the cookie with the prefix
/// `__Secure-` is read. Better Auth uses this name on `https`, and another host on the same domain cannot set such a
/// cookie over plain HTTP. A cookie that Better Auth has split because of its size (`name.0`, `name.1`, ...) is joined.
///
/// ```
/// use todo_core::auth::{JwtVerifier, KeySource, Shape, TokenCookie};
///
/// let verifier = JwtVerifier::builder()
///     .source(KeySource::secrets(["at least thirty-two bytes of secret"])?.shape(Shape::CookieCache))
///     .cookie(TokenCookie::new("better-auth.session_data", ["https://app.example.com"]))
///     .build()?;
/// # Ok::<(), todo_core::auth::InvalidSource>(())
/// ```
#[derive(Clone, Debug)]
pub struct TokenCookie {
    name: String,
    origins: AllowedOrigins,
}

impl TokenCookie {
    /// Returns the cookie with this name (without `__Secure-`). It is accepted for writes from pages of these origins
    /// (`https://app.example.com`).
    #[must_use]
    pub fn new<S: Into<String>>(name: impl Into<String>, origins: impl IntoIterator<Item = S>) -> Self {
        Self { name: name.into(), origins: AllowedOrigins::new(origins) }
    }

    pub(super) fn rejection_log(&mut self, log: RejectionLog) {
        self.origins = self.origins.clone().rejection_log(log);
    }

    /// The name of the cookie that browsers send.
    pub(super) fn full_name(&self) -> String {
        let prefix = if self.origins.have_plain_http() { "" } else { "__Secure-" };
        format!("{prefix}{}", self.name)
    }

    /// Returns the token, if the request has the cookie.
    pub(super) fn token(&self, head: &Parts) -> Result<Option<String>, AuthError> {
        let Some(token) = self.find(head)? else { return Ok(None) };
        self.origins.check(&head.method, &head.headers)?;
        Ok(Some(token))
    }

    /// Why a request with such a cookie has no token: the cookie is there more than once, or without the prefix that is
    /// required.
    pub(super) fn problem(&self, head: &Parts) -> Option<&'static str> {
        let names = cookies(head).map(|(name, _)| name);
        let of_name = |name: &str| name.strip_prefix("__Secure-").unwrap_or(name) == self.name;
        let own: Vec<&str> = names.filter(|name| of_name(name)).collect();
        match own.as_slice() {
            [] => None,
            [name] if *name == self.name && !self.origins.have_plain_http() => Some(
                "the name of the cookie lacks the prefix __Secure-, which is required, since all origins are https",
            ),
            [_] => Some("the cookie is empty"),
            _ => Some("there are several cookies of the name"),
        }
    }

    fn find(&self, head: &Parts) -> Result<Option<String>, AuthError> {
        let cookies: Vec<(&str, &str)> = cookies(head).collect();
        // A request with two cookies of the same name is ambiguous.
        let only = |name: &str| {
            let mut values = cookies.iter().filter(|(own, _)| *own == name).map(|(_, value)| *value);
            match (values.next(), values.next()) {
                (Some(_), Some(_)) => Err(AuthError::Missing),
                (value, _) => Ok(value.filter(|value| !value.is_empty())),
            }
        };
        let plain = self.origins.have_plain_http().then(|| self.name.clone());
        for name in [Some(format!("__Secure-{}", self.name)), plain].into_iter().flatten() {
            if let Some(whole) = only(&name)? {
                return Ok(Some(whole.to_owned()));
            }
            let mut pieces = Vec::new();
            while let Some(piece) = only(&format!("{name}.{}", pieces.len()))? {
                pieces.push(piece);
            }
            if !pieces.is_empty() {
                return Ok(Some(pieces.concat()));
            }
        }
        Ok(None)
    }
}

/// The names and values of all cookies.
fn cookies(head: &Parts) -> impl Iterator<Item = (&str, &str)> {
    let headers = head.headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    headers.flat_map(|header| header.split(';')).filter_map(|cookie| cookie.trim().split_once('='))
}
