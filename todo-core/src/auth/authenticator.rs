use std::{any::Any, fmt, sync::Arc};

use async_trait::async_trait;
use http::request::Parts;

use super::{credentials::Credentials, error::AuthError, token_claims::TokenClaims};
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
///
/// # Cross-site request forgery
///
/// Browsers attach cookies, HTTP Basic credentials and client certificates also to requests that pages of other
/// websites cause. An authenticator that accepts such a credential must reject writes of foreign pages, and nothing
/// else in this crate does: the API does not know where a credential comes from, and CORS only hides responses.
/// [`AllowedOrigins`](super::AllowedOrigins) is the check; [`TokenCookie`](super::TokenCookie) contains it. A cookie
/// should also be `SameSite=Lax` or `Strict`. Credentials in headers that only a script can set, such as a bearer token
/// or `x-api-key`, need no check.
///
/// ```
/// use http::{header::COOKIE, request::Parts};
/// use todo_core::{UserId, auth::{AllowedOrigins, AuthError, Authenticator, Credentials, Identity}};
///
/// #[derive(Debug)]
/// struct Sessions {
///     origins: AllowedOrigins,
/// }
///
/// #[async_trait::async_trait]
/// impl Authenticator for Sessions {
///     async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError> {
///         let cookie = head.headers.get(COOKIE).ok_or(AuthError::Missing)?;
///         self.origins.check(&head.method, &head.headers)?;
/// #       let _ = cookie;
///         // Look up the session.
/// #       let user = UserId::new("ann").map_err(|_| AuthError::Missing)?;
///         Ok(Identity::new(user))
///     }
///
///     fn credentials(&self) -> Credentials {
///         Credentials::cookie("session").missing("Sign in at /login.")
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

    /// Returns how clients present their credentials: what the response to a request without valid credentials says
    /// (401), and what the OpenAPI document declares. The API calls this once, when it is created. The default is
    /// [`Credentials::bearer`].
    fn credentials(&self) -> Credentials {
        Credentials::bearer()
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

    fn credentials(&self) -> Credentials {
        (**self).credentials()
    }
}

/// The caller of a request.
///
/// The `Debug` output contains neither name, e-mail address, claims nor the value of the host, so that they do not get
/// into logs.
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
    pub(super) value: HostValue,
}

impl Identity {
    /// Returns an identity that only has a user id.
    #[must_use]
    pub fn new(user_id: UserId) -> Self {
        Self {
            user_id,
            issued_at: None,
            expires_at: None,
            email: None,
            name: None,
            claims: TokenClaims::default(),
            value: HostValue::default(),
        }
    }

    /// Attaches a value of the host, such as the row of the user that the [`Authenticator`] has read. Gates and the
    /// host's own handlers get it from [`value`](Self::value), so that they need not read it again. It replaces an
    /// earlier value.
    ///
    /// ```
    /// use todo_core::{UserId, auth::Identity};
    ///
    /// #[derive(Debug, PartialEq)]
    /// struct Account {
    ///     plan: &'static str,
    /// }
    ///
    /// let identity = Identity::new(UserId::new("ann")?).with_value(Account { plan: "free" });
    /// assert_eq!(identity.value(), Some(&Account { plan: "free" }));
    /// assert_eq!(identity.value::<String>(), None);
    /// # Ok::<(), todo_core::InvalidValue>(())
    /// ```
    #[must_use]
    pub fn with_value<T: Any + Send + Sync>(mut self, value: T) -> Self {
        self.value = HostValue(Some(Arc::new(value)));
        self
    }

    /// Returns the value of the host, if there is one of this type.
    #[must_use]
    pub fn value<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.value.0.as_deref()?.downcast_ref()
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

/// A value of the host. Clones share it, and only clones are equal.
#[derive(Clone, Default)]
pub(super) struct HostValue(Option<Arc<dyn Any + Send + Sync>>);

impl PartialEq for HostValue {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl Eq for HostValue {}
