use super::error::ApiError;

/// Logs a failed request: a 5xx as an error with all its causes, any other status at the debug level with its code.
pub(super) fn report(error: &ApiError) {
    if error.status().is_server_error() {
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
        causes.push_str(&cause.to_string());
        source = cause.source();
    }
    causes
}
