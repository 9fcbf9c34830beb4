use std::borrow::Cow;

use http::Method;

use super::error::ApiError;
use crate::auth::{AuthError, Refusal, RejectionLog};

/// Logs a failed request: a failure of the service as an error with all its causes, any other at the debug level with its
/// code.
pub(super) fn report(error: &ApiError) {
    if error.is_failure() {
        let causes = causes(error);
        tracing::error!(target: "todo_core::api", code = error.code(), %error, causes, "request failed");
    } else {
        tracing::debug!(target: "todo_core::api", code = error.code(), "request rejected");
    }
}

/// Logs the reason of the host's own authenticator. The response does not contain it. (`JwtVerifier` logs its reasons
/// itself.)
pub(super) fn report_rejection(log: &RejectionLog, error: &AuthError) {
    if let AuthError::Invalid(refusal @ Refusal::Other(_)) = error
        && let Some(left_out) = log.take(error.reason())
    {
        tracing::info!(
            target: "todo_core::auth",
            reason = error.reason(),
            left_out = left_out.count(),
            "a credential was rejected: {refusal}"
        );
    }
}

/// Logs a request whose path names another user than the caller. The ids of users are not logged.
pub(super) fn report_other_user(log: &RejectionLog) {
    if let Some(left_out) = log.take("other_user") {
        tracing::info!(
            target: "todo_core::auth",
            reason = "other_user",
            left_out = left_out.count(),
            "a request was rejected: the path names another user than the token; compare with /auth/session, or use \
             paths without a user"
        );
    }
}

/// The causes of an error, from the nearest to the farthest.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut causes = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push_str(if causes.is_empty() { "" } else { ": " });
        causes.push_str(&shortened(&cause.to_string()));
        source = cause.source();
    }
    causes
}

/// The maximum length of the text of a cause. A database may quote what a client has sent.
const MAX_CAUSE: usize = 300;

fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_CAUSE) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()).into(),
        None => text.into(),
    }
}

/// The name of a method for a span, which is part of each log line within. A method that the API does not know may be
/// thousands of characters of arbitrary text.
pub(super) fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|name| *name == method.as_str()).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_causes_are_cut() {
        let cause = StdError(Some(Box::new(StdError(None))));
        let causes = causes(&cause);
        assert!(causes.starts_with("xxx") && causes.ends_with("... (4000 bytes)") && causes.len() < 350, "{causes}");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{}", "x".repeat(4000))]
    struct StdError(#[source] Option<Box<StdError>>);

    #[test]
    fn unknown_methods_have_one_name() {
        let name = |method: &str| method_name(&method.parse().expect("a method"));
        assert_eq!((name("GET"), name("OPTIONS")), ("GET", "OPTIONS"));
        for other in ["get", "TRACE", "CONNECT", &"X".repeat(4000)] {
            assert_eq!(name(other), "other");
        }
    }
}
