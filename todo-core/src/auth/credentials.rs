use std::borrow::Cow;

use http::{HeaderName, HeaderValue};

use super::error::{AuthError, MAX_TOKEN_BYTES, Refusal};

/// How clients present their credentials: what the response to a request without valid credentials says (401), and what
/// the OpenAPI document declares as `securitySchemes`.
///
/// An [`Authenticator`](super::Authenticator) returns it from
/// [`credentials`](super::Authenticator::credentials).
///
/// ```
/// use todo_core::auth::Credentials;
///
/// let session = Credentials::cookie("__Host-session").missing("Sign in at /login.");
/// let either = Credentials::bearer().or(session);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    schemes: Vec<Scheme>,
    /// `None`: the challenge of a bearer token, which names the error (RFC 6750).
    challenge: Option<HeaderValue>,
    /// What the texts call a credential.
    noun: Cow<'static, str>,
    missing: Cow<'static, str>,
}

/// A security scheme of an OpenAPI document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Bearer,
    Basic,
    Cookie(String),
    Header(HeaderName),
}

impl Credentials {
    /// A bearer token in the header `Authorization` (RFC 6750).
    #[must_use]
    pub fn bearer() -> Self {
        Self {
            schemes: vec![Scheme::Bearer],
            challenge: None,
            noun: "token".into(),
            missing: "Send one bearer token in the Authorization header.".into(),
        }
    }

    /// Name and password in the header `Authorization` (HTTP Basic, RFC 7617). Browsers ask for them.
    #[must_use]
    pub fn basic() -> Self {
        Self {
            schemes: vec![Scheme::Basic],
            challenge: Some(HeaderValue::from_static("Basic realm=\"todo\", charset=\"UTF-8\"")),
            noun: "password".into(),
            missing: "Send a name and a password in the Authorization header.".into(),
        }
    }

    /// A session in a cookie with this name.
    ///
    /// A 401 must have a challenge (RFC 9110, section 15.5.2), and no scheme is registered for cookies. The challenge
    /// is `Cookie`, which browsers ignore.
    #[must_use]
    pub fn cookie(name: impl Into<String>) -> Self {
        Self {
            schemes: vec![Scheme::Cookie(name.into())],
            challenge: Some(HeaderValue::from_static("Cookie")),
            noun: "session".into(),
            missing: "Sign in first.".into(),
        }
    }

    /// An API key in a header with this name.
    #[must_use]
    pub fn header(name: HeaderName) -> Self {
        Self {
            challenge: Some(HeaderValue::from_static("ApiKey")),
            noun: "API key".into(),
            missing: format!("Send an API key in the header {name}.").into(),
            schemes: vec![Scheme::Header(name)],
        }
    }

    /// Declares that clients may also present the other credentials. The texts and the challenge stay those of `self`.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        for scheme in other.schemes {
            if !self.schemes.contains(&scheme) {
                self.schemes.push(scheme);
            }
        }
        self
    }

    /// Sets the header `WWW-Authenticate` of each 401.
    #[must_use]
    pub fn challenge(mut self, challenge: HeaderValue) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// Sets the `detail` of a 401 to a request without credentials: a sentence that says what to do.
    #[must_use]
    pub fn missing(mut self, sentence: impl Into<Cow<'static, str>>) -> Self {
        self.missing = sentence.into();
        self
    }

    /// Sets what other sentences call a credential: "The session has expired." Default: `token`, `password`,
    /// `session` or `API key`.
    #[must_use]
    pub fn called(mut self, noun: impl Into<Cow<'static, str>>) -> Self {
        self.noun = noun.into();
        self
    }

    /// The schemes, any one of which is enough.
    #[cfg(feature = "openapi")]
    pub(crate) fn schemes(&self) -> &[Scheme] {
        &self.schemes
    }

    /// What the texts call a credential.
    #[cfg(feature = "openapi")]
    pub(crate) fn noun(&self) -> &str {
        &self.noun
    }

    /// The `detail` of a 401; `None` for another error.
    pub(crate) fn detail(&self, error: &AuthError) -> Option<String> {
        let noun = &self.noun;
        Some(match error {
            AuthError::Missing => self.missing.clone().into_owned(),
            AuthError::Expired => format!("The {noun} has expired."),
            AuthError::Invalid(Refusal::TooLong) => format!("The {noun} is longer than {MAX_TOKEN_BYTES} bytes."),
            AuthError::Invalid(_) => format!("The {noun} is not valid."),
            AuthError::Revoked => format!("The {noun} has been revoked."),
            _ => return None,
        })
    }

    /// The `WWW-Authenticate` of a 401; `None` for another error.
    pub(crate) fn challenge_for(&self, error: &AuthError) -> Option<HeaderValue> {
        let detail = self.detail(error)?;
        if let Some(challenge) = &self.challenge {
            return Some(challenge.clone());
        }
        // RFC 6750, section 3: without credentials in the request, the challenge names no error.
        if matches!(error, AuthError::Missing) {
            return Some(HeaderValue::from_static("Bearer"));
        }
        // The host chooses the noun.
        let description: String =
            detail.chars().filter(|char| matches!(char, ' '..='~') && !"\"\\".contains(*char)).collect();
        HeaderValue::try_from(format!("Bearer error=\"invalid_token\", error_description=\"{description}\"")).ok()
    }
}

impl Default for Credentials {
    fn default() -> Self {
        Self::bearer()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_challenges_are_those_of_the_host() {
        let session = Credentials::cookie("session").missing("Sign in at /login.");
        let either = Credentials::bearer().called("pass").or(session.clone()).or(session.clone());
        assert_eq!(either.schemes, [Scheme::Bearer, Scheme::Cookie("session".to_owned())]);
        let detail = |credentials: &Credentials, error| credentials.detail(&error).unwrap_or_default();
        assert_eq!(detail(&session, AuthError::Missing), "Sign in at /login.");
        assert_eq!(detail(&session, AuthError::Expired), "The session has expired.");
        assert_eq!(detail(&either, AuthError::Revoked), "The pass has been revoked.");
        assert_eq!(detail(&either, AuthError::ForeignOrigin), "");
        let challenge = |credentials: &Credentials, error| credentials.challenge_for(&error);
        assert_eq!(challenge(&session, AuthError::Expired), Some(HeaderValue::from_static("Cookie")));
        let own = HeaderValue::from_static("Session realm=\"todo\"");
        assert_eq!(challenge(&either.clone().challenge(own.clone()), AuthError::Missing), Some(own));
        assert_eq!(challenge(&either, AuthError::ForeignOrigin), None);
        let quoted = Credentials::bearer().called("\"\u{fc}pass\\\n\"");
        assert_eq!(
            challenge(&quoted, AuthError::Expired),
            Some(HeaderValue::from_static(
                "Bearer error=\"invalid_token\", error_description=\"The pass has expired.\""
            ))
        );
    }
}
