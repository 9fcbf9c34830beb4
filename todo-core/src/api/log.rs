use std::borrow::Cow;

use http::Method;

use super::{error::ApiError, ready::SERVER};

/// Logs a failed request: a 5xx as an error with all its causes, any other status at the debug level with its code.
pub(super) fn report(error: &ApiError) {
    // The host stops on purpose.
    let is_stopping = matches!(error, ApiError::NotReady { failed } if failed[..] == [SERVER]);
    if error.status().is_server_error() && !is_stopping {
        let causes = causes(error);
        tracing::error!(target: "todo_core::api", code = error.code(), %error, causes, "request failed");
    } else {
        tracing::debug!(target: "todo_core::api", code = error.code(), "request rejected");
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
