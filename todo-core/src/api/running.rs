use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{
    HeaderValue,
    header::{AUTHORIZATION, COOKIE},
    request::Parts,
};

use super::log::report_rejection;
use crate::{
    TodoService,
    auth::{AuthError, Authenticator, Gates, Identity, Quota, Refusal, RejectionLog},
};

/// What requests use, and streams for as long as they are open: the service, those who decide about callers, the time
/// limit, and whether the host stops.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) service: TodoService,
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) gates: Gates,
    pub(super) rejections: RejectionLog,
    /// The time limit of a request.
    pub(super) timeout: Duration,
    is_stopping: Arc<AtomicBool>,
}

impl Running {
    pub(super) fn new(service: TodoService, authenticator: Arc<dyn Authenticator>) -> Self {
        Self {
            service,
            authenticator,
            gates: Gates::default(),
            rejections: RejectionLog::shared(),
            timeout: Duration::from_secs(10),
            is_stopping: Arc::default(),
        }
    }

    pub(super) fn begin_stop(&self) {
        self.is_stopping.store(true, Relaxed);
        self.service.listeners().wake_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Relaxed)
    }

    /// Returns the caller, and the caller's quota if a gate has one.
    pub(super) async fn admit(&self, head: &Parts) -> Result<(Identity, Option<Quota>), AuthError> {
        // Called on the trait objects: a call on the `Arc`s would allocate one more future.
        let identity = (*self.authenticator).authenticate(head).await;
        let identity = identity.inspect_err(|error| report_rejection(&self.rejections, error))?;
        let quota = self.gates.check(&identity).await?;
        Ok((identity, quota))
    }

    /// Returns the user of a token in the body of a request, as if it were the token of the request.
    pub(super) async fn admit_token(&self, head: &Parts, token: &str) -> Result<Identity, AuthError> {
        let mut head = head.clone();
        let bearer = HeaderValue::try_from(format!("Bearer {token}"));
        let mut bearer = bearer.map_err(|_| AuthError::Invalid(Refusal::Malformed))?;
        bearer.set_sensitive(true);
        head.headers.remove(COOKIE);
        head.headers.insert(AUTHORIZATION, bearer);
        let admitted = self.admit(&head).await;
        if let Err(error) = &admitted {
            tracing::debug!(target: "todo_core::auth", reason = error.reason(), "the token in the body was rejected");
        }
        Ok(admitted?.0)
    }
}
