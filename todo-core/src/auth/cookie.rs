//! Reads the token from a cookie, for hosts on the same site as the application that sets the cookie.

use std::collections::BTreeSet;

use http::{
    Method,
    header::{COOKIE, ORIGIN},
    request::Parts,
};

use super::error::AuthError;

/// The cookie that contains the token of a request without an `Authorization` header.
///
/// Browsers also send cookies with requests from other sites. Therefore a write is rejected with 403 unless its
/// `Origin` is one of the origins of the application. If all these origins are `https`, only the cookie with the prefix
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
    origins: BTreeSet<String>,
}

impl TokenCookie {
    /// Returns the cookie with this name (without `__Secure-`). It is accepted for writes from pages of these origins
    /// (`https://app.example.com`, without a slash at the end).
    #[must_use]
    pub fn new<S: Into<String>>(name: impl Into<String>, origins: impl IntoIterator<Item = S>) -> Self {
        Self { name: name.into(), origins: origins.into_iter().map(Into::into).collect() }
    }

    /// Returns the token, if the request has the cookie.
    pub(super) fn token(&self, head: &Parts) -> Result<Option<String>, AuthError> {
        let Some(token) = self.find(head)? else { return Ok(None) };
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&head.method);
        let mut origins = head.headers.get_all(ORIGIN).iter();
        let own = match (origins.next(), origins.next()) {
            (Some(origin), None) => origin.to_str().is_ok_and(|origin| self.origins.contains(origin)),
            _ => false,
        };
        if reads || own { Ok(Some(token)) } else { Err(AuthError::ForeignOrigin) }
    }

    fn find(&self, head: &Parts) -> Result<Option<String>, AuthError> {
        let cookies: Vec<(&str, &str)> = head
            .headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|header| header.to_str().ok())
            .flat_map(|header| header.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .collect();
        // A request with two cookies of the same name is ambiguous.
        let only = |name: &str| {
            let mut values = cookies.iter().filter(|(own, _)| *own == name).map(|(_, value)| *value);
            match (values.next(), values.next()) {
                (Some(_), Some(_)) => Err(AuthError::Missing),
                (value, _) => Ok(value.filter(|value| !value.is_empty())),
            }
        };
        let plain = self.origins.iter().any(|origin| origin.starts_with("http:")).then(|| self.name.clone());
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
