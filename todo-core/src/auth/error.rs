use std::{error::Error as StdError, sync::Arc, time::Duration};

use super::quota::Quota;

/// The maximum length of a token in bytes. Tokens of Better Auth are under 2 KiB, unless the image of a user is a data
/// URI; servers limit headers to 8 to 64 KiB.
pub(crate) const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Why a request is not authenticated, or its caller is rejected.
///
/// Each variant is one response on the wire. An [`Authenticator`](super::Authenticator) returns these errors. A
/// [`Gate`](super::Gate) returns a [`Verdict`](super::Verdict) instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The request has no credential, or more than one: 401 `unauthenticated`.
    #[error("the request has no credential, or more than one")]
    Missing,
    /// The credential is valid except that it has expired: 401 `token_expired`.
    #[error("the credential has expired")]
    Expired,
    /// The credential is not valid: 401 `token_invalid`. The reason is only for the log.
    #[error("the credential is not valid: {0}")]
    Invalid(Refusal),
    /// The credential was revoked, or its user is not allowed: 401 `token_revoked`.
    #[error("the credential has been revoked, or its user is not allowed")]
    Revoked,
    /// The token is valid, but lacks a scope: 403 `insufficient_scope`.
    #[error("the token lacks a required scope")]
    InsufficientScope {
        /// The required scopes, separated by spaces. They are sent in `WWW-Authenticate` (RFC 6750, section 3.1).
        required: Arc<str>,
    },
    /// A page of another origin sent a write with the cookie: 403 `forbidden`. See
    /// [`AllowedOrigins`](super::AllowedOrigins).
    #[error("the cookie was sent with a write from another origin")]
    ForeignOrigin,
    /// The token names a key that is not in the key set, and the set cannot be fetched again yet: 503 `unavailable`.
    /// The key may be a new one. Anyone can name a key that does not exist, so this is not logged as an error.
    #[error("the key of the token is not in the key set, which cannot be fetched again yet")]
    KeyMayBeNew {
        /// When to retry, sent as `Retry-After`.
        retry_after: Duration,
    },
    /// The caller has sent too many requests: 429 `rate_limited`.
    #[error("the caller has sent too many requests")]
    RateLimited {
        /// When to retry, sent as `Retry-After`.
        retry_after: Duration,
    },
    /// The caller has used up its quota: 429 `rate_limited`, with the quota in the headers.
    #[error("the caller has used up its quota")]
    OverQuota(Quota),
    /// The credential or the caller cannot be checked now: 503 `unavailable`.
    #[error("the credential cannot be checked now")]
    Unavailable {
        /// When to retry, sent as `Retry-After`.
        retry_after: Duration,
        /// The cause, for the log.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl AuthError {
    /// Every value that [`reason`](Self::reason) returns.
    pub const REASONS: &[&str] = &[
        "missing",
        "expired",
        "revoked",
        "insufficient_scope",
        "foreign_origin",
        "rate_limited",
        "key_may_be_new",
        "unavailable",
        "too_long",
        "malformed",
        "duplicate_member",
        "critical_extension",
        "type",
        "algorithm",
        "unknown_key",
        "signature",
        "no_expiry",
        "milliseconds",
        "time",
        "not_yet_valid",
        "issuer",
        "audience",
        "subject",
        "session",
        "other",
    ];

    /// Returns the reason as a metric label. It is always one of [`REASONS`](Self::REASONS), whatever the request
    /// contains.
    ///
    /// ```
    /// use todo_core::auth::{AuthError, Refusal};
    ///
    /// assert_eq!(AuthError::Expired.reason(), "expired");
    /// assert_eq!(AuthError::Invalid(Refusal::Signature).reason(), "signature");
    /// ```
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Expired => "expired",
            Self::Invalid(refusal) => refusal.name(),
            Self::Revoked => "revoked",
            Self::InsufficientScope { .. } => "insufficient_scope",
            Self::ForeignOrigin => "foreign_origin",
            Self::RateLimited { .. } | Self::OverQuota(_) => "rate_limited",
            Self::KeyMayBeNew { .. } => "key_may_be_new",
            Self::Unavailable { .. } => "unavailable",
        }
    }
}

/// Why a token is not valid. This is for the log; the response only says that the token is not valid, or that it is too
/// long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The token is longer than 16 KiB.
    #[error("the token is longer than 16 KiB")]
    TooLong,
    /// The token is not three parts of base64url, or header or claims are not a JSON object.
    #[error("the token is malformed")]
    Malformed,
    /// The header or the claims contain the same member twice.
    #[error("the header or the claims contain the same member twice")]
    DuplicateMember,
    /// The header has a `crit` or `b64` member. No extension is supported.
    #[error("the header requires an extension")]
    CriticalExtension,
    /// The `typ` of the header is not that of an access token.
    #[error("the header has a typ that is not accepted")]
    Type,
    /// The `alg` of the header is missing or unknown, or no key source is configured for it.
    #[error("the algorithm is not accepted")]
    Algorithm,
    /// There is no key with this `kid`, or the key is not for this algorithm.
    #[error("the key is unknown")]
    UnknownKey,
    /// The signature does not match.
    #[error("the signature does not match")]
    Signature,
    /// The claim `exp` is missing.
    #[error("the claim exp is missing")]
    NoExpiry,
    /// The claim `exp` is 10^11 or more: milliseconds, where seconds are required (RFC 7519, section 2). As seconds, it
    /// would be a time after the year 5000.
    #[error("the claim exp is in milliseconds, not in seconds")]
    Milliseconds,
    /// The claim `exp`, `nbf` or `iat` is not a number.
    #[error("the claim exp, nbf or iat is not a number")]
    Time,
    /// The claim `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The claim `iss` is missing or not one of the configured issuers.
    #[error("the issuer is not accepted")]
    Issuer,
    /// The claim `aud` is missing or contains none of the configured audiences.
    #[error("the audience is not accepted")]
    Audience,
    /// The subject is missing or is not a valid user id. The tokens in e-mail links of Better Auth are rejected with
    /// this reason.
    #[error("the subject is missing or is not a valid user id")]
    Subject,
    /// The claims of a session cookie have no session, or the session of another user.
    #[error("the session is missing or belongs to another user")]
    Session,
    /// A reason of the host's own authenticator.
    #[error("{0}")]
    Other(&'static str),
}

impl Refusal {
    /// Returns the reason as a metric label, for example `unknown_key`. The set of labels does not depend on the
    /// tokens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::DuplicateMember => "duplicate_member",
            Self::CriticalExtension => "critical_extension",
            Self::Type => "type",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::NoExpiry => "no_expiry",
            Self::Milliseconds => "milliseconds",
            Self::Time => "time",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Subject => "subject",
            Self::Session => "session",
            Self::Other(_) => "other",
        }
    }
}

/// Why a [`JwtVerifier`](super::JwtVerifier) cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSource {
    /// The verifier has no key source.
    #[error("no key source is configured")]
    NoSource,
    /// A secret is shorter than HS256 requires (RFC 7518, section 3.2).
    #[error("a shared secret must have at least 32 bytes")]
    ShortSecret,
    /// A secret is the public default of Better Auth.
    #[error("the secret is the public default of Better Auth")]
    PublicSecret,
    /// A list of secrets, issuers or audiences is empty or contains an empty string, or the subject has an empty name.
    /// An empty issuer or audience would match the tokens of a misconfigured issuer.
    #[error("a list of secrets, issuers or audiences is empty or contains an empty string")]
    Empty,
    /// The URL of a key set or an issuer is not a URL, or is `http://` to another machine without permission.
    #[error("the URL must be https, or http to this machine, unless http is allowed explicitly")]
    Url,
    /// The HTTP client for key sets cannot be created, for example because the platform has no root certificates.
    #[error("the HTTP client for the key set cannot be created: {cause}")]
    Client {
        /// The innermost cause.
        cause: String,
    },
    /// The address of the proxy for key sets is not an `http://` or `https://` URL.
    #[error("the proxy must be an http:// or https:// URL")]
    Proxy,
    /// The root certificates for key sets are not PEM, or there is none.
    #[error("the root certificates must be certificates in PEM format")]
    RootCertificates,
    /// The prefix of a source for user ids is not itself a valid user id, or is longer than 100 characters.
    #[error("a user prefix must have 1 to 100 characters and no NUL")]
    UserPrefix,
    /// A source of public keys has no issuers or no audiences. They are required because issuers sign other tokens with
    /// the same keys (Better Auth: session cookies), and only issuer and audience tell them apart.
    #[error("a source of public keys needs issuers and audiences, or any_issuer() and any_audience()")]
    NoIssuerOrAudience,
    /// A source of shared secrets has another subject than `sub`, and no issuers or no audiences. They are required
    /// because Better Auth signs the links in its e-mails with the same secret. The claims of a link contain an e-mail
    /// address and a user id, and only issuer and audience tell it from an access token. So `any_issuer()` and
    /// `any_audience()` are not enough.
    #[error(
        "with a shared secret, another subject than sub needs issuers and audiences; otherwise a link in an e-mail of \
         Better Auth, which is signed with the same secret, would be accepted as a login"
    )]
    SubjectOfSecret,
    /// A required scope is not a list of scopes (RFC 6749, section 3.3), or is required of session cookies, which have
    /// none.
    #[error("a required scope must be scopes separated by spaces, and session cookies have no scopes")]
    Scope,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_unique_and_listed() {
        let refusals = [
            Refusal::TooLong,
            Refusal::Malformed,
            Refusal::DuplicateMember,
            Refusal::CriticalExtension,
            Refusal::Type,
            Refusal::Algorithm,
            Refusal::UnknownKey,
            Refusal::Signature,
            Refusal::NoExpiry,
            Refusal::Milliseconds,
            Refusal::Time,
            Refusal::NotYetValid,
            Refusal::Issuer,
            Refusal::Audience,
            Refusal::Subject,
            Refusal::Session,
            Refusal::Other("a reason of the host"),
        ];
        let retry_after = Duration::ZERO;
        let others = [
            AuthError::Missing,
            AuthError::Expired,
            AuthError::Revoked,
            AuthError::InsufficientScope { required: "todo".into() },
            AuthError::ForeignOrigin,
            AuthError::RateLimited { retry_after },
            AuthError::KeyMayBeNew { retry_after },
            AuthError::Unavailable { retry_after, source: "unreachable".into() },
        ];
        let mut reasons: Vec<_> = others.iter().map(AuthError::reason).collect();
        reasons.extend(refusals.map(|refusal| AuthError::Invalid(refusal).reason()));
        assert_eq!(reasons, AuthError::REASONS);
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), AuthError::REASONS.len());
    }
}
