//! Whether the parts behind the API do their work, each by itself.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time::{error::Elapsed, timeout};

use super::{ApiError, causes};
use crate::{TodoService, auth::Authenticator};

/// The parts, as they are named over the wire.
pub(super) const PARTS: [&str; 2] = ["store", "keys"];

/// How long a part may take. Whoever probes waits little longer, and then learns nothing of the other part.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks store and authenticator, both at once, for a request that may take so long.
///
/// # Errors
///
/// [`ApiError::NotReady`] with the names of those that do not answer well, or not in time.
pub(super) async fn check(
    service: &TodoService,
    authenticator: &dyn Authenticator,
    limit: Duration,
) -> Result<(), ApiError> {
    // A request that runs out of time would not say which part it was.
    let patience = PATIENCE.min(limit / 2);
    let store = timeout(patience, async { Ok(service.ping().await?) });
    let keys = timeout(patience, async { Ok(authenticator.ready().await?) });
    let (store, keys) = both(store, keys).await;
    let answers = PARTS.into_iter().zip([store, keys]);
    let failed: Vec<_> = answers.filter(|(part, answer)| !is_good(part, answer)).map(|(part, _)| part).collect();
    if failed.is_empty() { Ok(()) } else { Err(ApiError::NotReady { failed }) }
}

/// Tells the log why not.
fn is_good(part: &str, answer: &Result<Result<(), ApiError>, Elapsed>) -> bool {
    match answer {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => {
            tracing::warn!(target: "todo_core::api", part, %error, causes = causes(error), "not ready");
        }
        Err(_) => tracing::warn!(target: "todo_core::api", part, "not ready: no answer in time"),
    }
    false
}

async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut first, mut second) = (None, None);
    poll_fn(|context| {
        if first.is_none()
            && let Poll::Ready(answer) = one.as_mut().poll(context)
        {
            first = Some(answer);
        }
        if second.is_none()
            && let Poll::Ready(answer) = other.as_mut().poll(context)
        {
            second = Some(answer);
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
