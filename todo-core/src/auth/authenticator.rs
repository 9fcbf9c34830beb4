use std::{fmt, sync::Arc};

use async_trait::async_trait;
use http::request::Parts;

use super::{error::AuthError, token_claims::TokenClaims};
use crate::{UserId, clock::Timestamp};

/// Identifies the caller of a request.
///
/// [`JwtVerifier`](super::JwtVerifier) does this with tokens. A host that identifies its users by sessions, API keys or
/// a header of its gateway implements the trait itself:
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
    /// Returns the caller of a request. This is called once for each request to a path of the API, before the body is
    /// read.
    ///
    /// # Errors
    ///
    /// An [`AuthError`], if the caller is not known. Each variant is one response.
    async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError>;

    /// Checks whether credentials can be verified now, for a readiness probe: whether keys are loaded, or whether the
    /// database with the sessions can be reached. It may load the keys. The default implementation succeeds.
    ///
    /// # Errors
    ///
    /// [`AuthError::Unavailable`], if no credential can be verified now.
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

/// The caller of a request.
///
/// The `Debug` output contains neither name, e-mail address nor claims, so that they do not get into logs.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The owner of the tasks that the caller may access.
    pub user_id: UserId,
    /// When the credential was issued, if that is known.
    pub issued_at: Option<Timestamp>,
    /// When the credential expires, if that is known.
    pub expires_at: Option<Timestamp>,
    /// The e-mail address in the credential. It may be unverified: do not use it for authorization.
    pub email: Option<String>,
    /// The name in the credential. Users choose it freely: do not use it for authorization.
    pub name: Option<String>,
    /// The claims that say for whom and by whom the token may be used. Empty without a token.
    pub claims: TokenClaims,
}

impl Identity {
    /// Returns an identity that only has a user id.
    #[must_use]
    pub fn new(user_id: UserId) -> Self {
        Self { user_id, issued_at: None, expires_at: None, email: None, name: None, claims: TokenClaims::default() }
    }

    /// Whether the credential was issued before this moment, for a [`Gate`](super::Gate) that rejects old credentials
    /// after a password change or a sign-out on all devices.
    ///
    /// If it is not known when the credential was issued, the result is `true`.
    ///
    /// ```
    /// use todo_core::{UserId, auth::Identity, clock::Timestamp};
    ///
    /// let signed_out_at = Timestamp::from_unix_seconds(1_000);
    /// let mut identity = Identity::new(UserId::new("ann")?);
    /// assert!(identity.issued_before(signed_out_at));
    /// identity.issued_at = Some(signed_out_at);
    /// assert!(!identity.issued_before(signed_out_at));
    /// # Ok::<(), todo_core::InvalidValue>(())
    /// ```
    #[must_use]
    pub fn issued_before(&self, moment: Timestamp) -> bool {
        self.issued_at.is_none_or(|issued_at| issued_at < moment)
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
