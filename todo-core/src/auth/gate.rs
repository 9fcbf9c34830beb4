use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{authenticator::Identity, error::AuthError, quota::Quota};

/// Accepts or rejects each request of an authenticated caller: for disabled users, revoked credentials and rate limits.
///
/// A gate is called for every request whose credential was accepted, and its verdicts are not cached: a change takes
/// effect with the next request.
///
/// ```
/// use std::{collections::HashMap, sync::{PoisonError, RwLock}};
/// use todo_core::{UserId, auth::{Gate, GateError, Identity, Verdict}, clock::Timestamp};
///
/// #[derive(Debug)]
/// struct Account {
///     is_disabled: bool,
///     signed_out_at: Timestamp,
/// }
///
/// #[derive(Debug, Default)]
/// struct Accounts(RwLock<HashMap<UserId, Account>>);
///
/// #[async_trait::async_trait]
/// impl Gate for Accounts {
///     async fn judge(&self, identity: &Identity) -> Result<Verdict, GateError> {
///         let accounts = self.0.read().unwrap_or_else(PoisonError::into_inner);
///         Ok(match accounts.get(&identity.user_id) {
///             Some(account) if account.is_disabled || identity.issued_before(account.signed_out_at) => Verdict::Deny,
///             Some(_) => Verdict::Allow,
///             None => Verdict::Deny,
///         })
///     }
/// }
/// ```
///
/// The API calls its gates in the order in which they were [added](crate::api::TodoApi::with_gate), and stops at the
/// first one that rejects the request. If several gates return a [`Quota`], the response contains the quota with the
/// fewest remaining requests.
#[async_trait]
pub trait Gate: fmt::Debug + Send + Sync {
    /// Returns the verdict on a request of this caller.
    ///
    /// # Errors
    ///
    /// [`GateError`], if the gate cannot decide now, for example because its database cannot be reached. The request is
    /// rejected with 503 `unavailable`. To reject a caller, return a [`Verdict`].
    async fn judge(&self, identity: &Identity) -> Result<Verdict, GateError>;
}

#[async_trait]
impl<T: Gate + ?Sized> Gate for Arc<T> {
    async fn judge(&self, identity: &Identity) -> Result<Verdict, GateError> {
        (**self).judge(identity).await
    }
}

/// What a [`Gate`] decides about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The request is accepted.
    Allow,
    /// The request is rejected with 401 `token_revoked`: the user is disabled, or the credential was revoked.
    Deny,
    /// The request is rejected with 429 `rate_limited`. Use [`Quota`](Self::Quota) instead to send the limit to the
    /// client.
    RateLimited {
        /// When to retry, sent as `Retry-After`.
        retry_after: Duration,
    },
    /// The request is accepted, or rejected with 429 `rate_limited` if the quota is [refused](Quota::refused). The
    /// response contains the quota in both cases.
    Quota(Quota),
}

/// A [`Gate`] cannot decide now: the request is rejected with 503 `unavailable`.
///
/// ```
/// # use todo_core::auth::{GateError, Identity, Verdict};
/// # async fn is_disabled(_: &Identity) -> Result<bool, std::io::Error> { Ok(false) }
/// async fn judge(identity: &Identity) -> Result<Verdict, GateError> {
///     let is_disabled = is_disabled(identity).await.map_err(GateError::new)?;
///     Ok(if is_disabled { Verdict::Deny } else { Verdict::Allow })
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[error("the gate cannot decide now")]
pub struct GateError {
    retry_after: Duration,
    source: Box<dyn StdError + Send + Sync>,
}

impl GateError {
    /// Returns an error with this cause, which is for the log only.
    #[must_use]
    pub fn new(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { retry_after: Duration::from_secs(1), source: source.into() }
    }

    /// Sets when to retry, sent as `Retry-After`. Default: 1 second.
    #[must_use]
    pub fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = time;
        self
    }
}

impl From<GateError> for AuthError {
    fn from(GateError { retry_after, source }: GateError) -> Self {
        Self::Unavailable { retry_after, source }
    }
}

/// The gates of an API, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gates(Arc<[Arc<dyn Gate>]>);

impl Gates {
    /// Adds a gate at the end.
    pub(crate) fn with(self, gate: impl Gate + 'static) -> Self {
        let gate: Arc<dyn Gate> = Arc::new(gate);
        Self(self.0.iter().cloned().chain([gate]).collect())
    }

    /// Calls the gates for a request. Returns the quota for the response, if there is one.
    pub(crate) async fn check(&self, identity: &Identity) -> Result<Option<Quota>, AuthError> {
        let mut lowest: Option<Quota> = None;
        for gate in &*self.0 {
            // Not through the `Arc`, whose implementation would allocate a second future.
            match (**gate).judge(identity).await? {
                Verdict::Allow => {}
                Verdict::Deny => return Err(AuthError::Revoked),
                Verdict::RateLimited { retry_after } => return Err(AuthError::RateLimited { retry_after }),
                Verdict::Quota(quota) if quota.retry_after.is_some() => return Err(AuthError::OverQuota(quota)),
                Verdict::Quota(quota) => {
                    if lowest.is_none_or(|lowest| quota.remaining < lowest.remaining) {
                        lowest = Some(quota);
                    }
                }
            }
        }
        Ok(lowest)
    }
}
