//! Who is asking: the trait that decides it, and the verifier of JSON Web Tokens.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::request::Parts;

use crate::{UserId, clock::Timestamp};

mod cookie;
mod jwk;
#[cfg(feature = "remote-jwks")]
mod jwks;
mod jwt;
mod quota;
#[cfg(feature = "rate-limit")]
mod rate_limit;

pub use cookie::TokenCookie;
pub use jwk::{InvalidJwks, JwkSet};
#[cfg(feature = "remote-jwks")]
pub use jwks::{FetchError, JwksStatus, RefreshTask, RemoteJwks, RemoteJwksBuilder};
pub use jwt::{InvalidSource, JwtVerifier, JwtVerifierBuilder, KeySource, Refusal, Shape};

pub use quota::Quota;
#[cfg(feature = "rate-limit")]
pub use rate_limit::{InvalidRate, Rate, RateLimiter};

/// Decides from the head of a request who is asking.
///
/// [`JwtVerifier`] is the usual one; a host that knows its users by a session, an API key or a header of its gateway
/// writes its own:
///
/// ```
/// use http::request::Parts;
/// use todo_core::{UserId, auth::{AuthError, Authenticator, Identity}};
///
/// #[derive(Debug)]
/// struct GatewayHeader;
///
/// #[async_trait::async_trait]
/// impl Authenticator for GatewayHeader {
///     async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError> {
///         let user = head.headers.get("x-authenticated-user").ok_or(AuthError::Missing)?;
///         let user = user.to_str().ok().and_then(|user| UserId::new(user).ok()).ok_or(AuthError::Missing)?;
///         Ok(Identity::new(user))
///     }
/// }
/// ```
#[async_trait]
pub trait Authenticator: fmt::Debug + Send + Sync {
    /// The caller, or why there is none. It is called once for each request to a path that is ours, before anything
    /// else is done.
    ///
    /// # Errors
    ///
    /// See [`AuthError`]; each variant is one answer over the wire.
    async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError>;

    /// Whether it can tell good credentials from bad ones now, for a readiness probe: that it has keys, or reaches what
    /// it has to ask. It may try to get there. By default it always can.
    ///
    /// # Errors
    ///
    /// [`AuthError::Unavailable`]: it cannot, and nobody could be let in.
    async fn ready(&self) -> Result<(), AuthError> {
        Ok(())
    }
}

#[async_trait]
impl<T: Authenticator + ?Sized> Authenticator for Arc<T> {
    async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError> {
        (**self).authenticate(head).await
    }

    async fn ready(&self) -> Result<(), AuthError> {
        (**self).ready().await
    }
}

/// Who is asking.
///
/// `Debug` shows neither name nor e-mail address: they are the user's, and logs are read by others.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The owner of the tasks that the caller may see.
    pub user_id: UserId,
    /// When the credential was issued, where known.
    pub issued_at: Option<Timestamp>,
    /// When the credential ends, where known.
    pub expires_at: Option<Timestamp>,
    /// The e-mail address that the credential names. Users choose it themselves, so it proves nothing.
    pub email: Option<String>,
    /// The name that the credential gives. Users choose it themselves, so it proves nothing.
    pub name: Option<String>,
}

impl Identity {
    /// A caller of whom nothing else is known.
    #[must_use]
    pub fn new(user_id: UserId) -> Self {
        Self { user_id, issued_at: None, expires_at: None, email: None, name: None }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("user_id", &self.user_id)
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Why a caller is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// There is no credential, or more than one: 401 `unauthenticated`.
    #[error("there is no single credential")]
    Missing,
    /// The credential was good and has ended: 401 `token_expired`.
    #[error("the credential has expired")]
    Expired,
    /// The credential is not good: 401 `token_invalid`. The reason is for the log only.
    #[error("the credential is refused: {0}")]
    Invalid(Refusal),
    /// The credential was taken back, or its user is not let in: 401 `token_revoked`.
    #[error("the credential is revoked")]
    Revoked,
    /// A cookie came with a write from another site: 403 `forbidden`.
    #[error("a cookie came from another site")]
    ForeignOrigin,
    /// This caller asks too often: 429 `rate_limited`.
    #[error("the caller asks too often")]
    RateLimited {
        /// After how long to try again.
        retry_after: Duration,
    },
    /// This caller has used up what it may ask for: 429 `rate_limited`, with the quota in the headers.
    #[error("the caller has no quota left")]
    OverQuota(Quota),
    /// Whether the credential is good cannot be said now: 503 `unavailable`.
    #[error("credentials cannot be checked now")]
    Unavailable {
        /// After how long to try again.
        retry_after: Duration,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl AuthError {
    /// Every [`reason`](Self::reason) there is.
    pub const REASONS: &[&str] = &[
        "missing",
        "expired",
        "revoked",
        "foreign_origin",
        "rate_limited",
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
        "time",
        "not_yet_valid",
        "issuer",
        "audience",
        "subject",
        "session",
        "other",
    ];

    /// Why, in a word: for the label of a metric. It is one of [`REASONS`](Self::REASONS), whatever a caller sends.
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
            Self::ForeignOrigin => "foreign_origin",
            Self::RateLimited { .. } | Self::OverQuota(_) => "rate_limited",
            Self::Unavailable { .. } => "unavailable",
        }
    }
}

/// A last word on each request of an authenticated caller: users who are disabled, credentials that were taken back,
/// callers who ask too often.
///
/// It is asked after every cache, so what it says counts at once.
///
/// ```
/// use std::{collections::HashSet, sync::RwLock};
/// use todo_core::{UserId, auth::{AuthError, Gate, Identity, Verdict}};
///
/// #[derive(Debug, Default)]
/// struct Disabled(RwLock<HashSet<UserId>>);
///
/// #[async_trait::async_trait]
/// impl Gate for Disabled {
///     async fn judge(&self, identity: &Identity) -> Result<Verdict, AuthError> {
///         let disabled = self.0.read().map_err(|_| AuthError::Revoked)?;
///         Ok(if disabled.contains(&identity.user_id) { Verdict::Deny } else { Verdict::Allow })
///     }
/// }
/// ```
#[async_trait]
pub trait Gate: fmt::Debug + Send + Sync {
    /// Whether this caller is let in.
    ///
    /// # Errors
    ///
    /// Any [`AuthError`] refuses the request with that answer; [`AuthError::Unavailable`] if it cannot be decided.
    async fn judge(&self, identity: &Identity) -> Result<Verdict, AuthError>;
}

#[async_trait]
impl<T: Gate + ?Sized> Gate for Arc<T> {
    async fn judge(&self, identity: &Identity) -> Result<Verdict, AuthError> {
        (**self).judge(identity).await
    }
}

/// Two gates as one: who is refused by the first does not come to the second.
#[derive(Debug)]
pub(crate) struct Both(pub(crate) Arc<dyn Gate>, pub(crate) Arc<dyn Gate>);

#[async_trait]
impl Gate for Both {
    async fn judge(&self, identity: &Identity) -> Result<Verdict, AuthError> {
        let first = self.0.judge(identity).await?;
        let told = first.apply(identity)?;
        match self.1.judge(identity).await? {
            // Nothing more to say, but what the first has said.
            Verdict::Allow => Ok(told.map_or(Verdict::Allow, Verdict::Quota)),
            second => Ok(second),
        }
    }
}

/// What a [`Gate`] says of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Let in.
    Allow,
    /// Refused: 401 `token_revoked`.
    Deny,
    /// Refused with 401 `token_revoked` if the credential was issued before this moment, or does not say when it was
    /// issued: after a password change or a sign-out everywhere.
    DenyIssuedBefore(Timestamp),
    /// Refused for now: 429 `rate_limited`.
    RateLimited {
        /// After how long to try again.
        retry_after: Duration,
    },
    /// Let in, or refused for now with 429 `rate_limited`, as the quota says. The caller is told of the quota in
    /// either case.
    Quota(Quota),
}

impl Verdict {
    pub(crate) fn apply(self, identity: &Identity) -> Result<Option<Quota>, AuthError> {
        match self {
            Self::Allow => Ok(None),
            Self::Quota(quota) if quota.retry_after.is_some() => Err(AuthError::OverQuota(quota)),
            Self::Quota(quota) => Ok(Some(quota)),
            Self::Deny => Err(AuthError::Revoked),
            Self::DenyIssuedBefore(moment) => match identity.issued_at {
                Some(issued_at) if issued_at >= moment => Ok(None),
                _ => Err(AuthError::Revoked),
            },
            Self::RateLimited { retry_after } => Err(AuthError::RateLimited { retry_after }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_one_of_the_few_and_different_from_the_others() {
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
            Refusal::Time,
            Refusal::NotYetValid,
            Refusal::Issuer,
            Refusal::Audience,
            Refusal::Subject,
            Refusal::Session,
            Refusal::Other("a host's own reason"),
        ];
        let retry_after = Duration::ZERO;
        let others = [
            AuthError::Missing,
            AuthError::Expired,
            AuthError::Revoked,
            AuthError::ForeignOrigin,
            AuthError::RateLimited { retry_after },
            AuthError::Unavailable { retry_after, source: "away".into() },
        ];
        let mut reasons: Vec<_> = others.iter().map(AuthError::reason).collect();
        reasons.extend(refusals.map(|refusal| AuthError::Invalid(refusal).reason()));
        assert_eq!(reasons, AuthError::REASONS);
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), AuthError::REASONS.len());
    }
}
