//! The health probes: whether the process runs, and whether the parts behind the API work.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use serde::Serialize;
use tokio::time::{error::Elapsed, timeout};

use super::{error::ApiError, log::causes};
use crate::{TodoService, auth::Authenticator};

/// The parts, as responses name them.
pub(super) const PARTS: [&str; 2] = ["store", "keys"];

/// Everything that `failed` may contain.
#[cfg(feature = "openapi")]
pub(super) const FAILED: [&str; 3] = [PARTS[0], PARTS[1], super::error::SERVER];

/// How long a part may take. The clients of a probe wait little longer, and a probe that they abandon tells them
/// nothing about the other part.
const PART_TIMEOUT: Duration = Duration::from_secs(2);

/// The status of the server.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(super) struct Status {
    status: &'static str,
}

impl Status {
    pub(super) const OK: Self = Self { status: "ok" };
}

/// The server is ready, part by part.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(super) struct Readiness {
    status: &'static str,
    /// The store with the tasks.
    store: &'static str,
    /// The keys that verify tokens.
    keys: &'static str,
    /// `failing` while the store accepts no writes, because it is read-only or its disk is full; otherwise `ok`.
    writes: &'static str,
}

impl Readiness {
    pub(super) fn ready(writes_are_failing: bool) -> Self {
        let writes = if writes_are_failing { "failing" } else { "ok" };
        Self { status: "ready", store: "ok", keys: "ok", writes }
    }
}

/// Checks the store and the authenticator at the same time, for a request that may take `limit`.
///
/// # Errors
///
/// [`ApiError::NotReady`] with the parts that failed or did not respond in time.
pub(super) async fn check(
    service: &TodoService,
    authenticator: &dyn Authenticator,
    limit: Duration,
) -> Result<(), ApiError> {
    // A request that times out could not say which part is slow.
    let part_timeout = PART_TIMEOUT.min(limit / 2);
    let store = timeout(part_timeout, async { Ok(service.ping().await?) });
    let keys = timeout(part_timeout, async { Ok(authenticator.ready().await?) });
    let (store, keys) = both(store, keys).await;
    let results = PARTS.into_iter().zip([store, keys]);
    let failed: Vec<_> = results.filter(|(part, result)| !is_ready(part, result)).map(|(part, _)| part).collect();
    if failed.is_empty() { Ok(()) } else { Err(ApiError::NotReady { failed }) }
}

/// Whether a part is ready; logs the cause if it is not.
fn is_ready(part: &str, result: &Result<Result<(), ApiError>, Elapsed>) -> bool {
    match result {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => {
            tracing::warn!(target: "todo_core::api", part, %error, causes = causes(error), "not ready");
        }
        Err(_) => tracing::warn!(target: "todo_core::api", part, "not ready: no response in time"),
    }
    false
}

async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut first, mut second) = (None, None);
    poll_fn(|context| {
        if first.is_none()
            && let Poll::Ready(output) = one.as_mut().poll(context)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = other.as_mut().poll(context)
        {
            second = Some(output);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (one, other) => {
                (first, second) = (one, other);
                Poll::Pending
            }
        }
    })
    .await
}
