use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};

use super::field_errors::FieldErrors;
use crate::{
    Error, Task,
    auth::{AuthError, Credentials, is_scope_character},
    store::StoreError,
};

/// The part that is not ready after [`TodoApi::begin_stop`](super::TodoApi::begin_stop).
pub(super) const SERVER: &str = "server";

/// Why a request failed, as the API responds: a status, a code for programs and a text for people.
///
/// [`problem`](super::problem) makes a response of it, and the response carries the error in its extensions as
/// `Arc<ApiError>`, for the log of the host. A host whose own handlers use the service converts an [`Error`] with
/// `From`:
///
/// ```
/// use todo_core::{Error, api::ApiError};
///
/// let error = ApiError::from(Error::TaskNotFound);
/// assert_eq!((error.status().as_u16(), error.code()), (404, "task_not_found"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The caller could not be authenticated, or was rejected by a [`Gate`](crate::auth::Gate).
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The path names another user than the caller.
    #[error("the path names another user")]
    Forbidden,
    /// The path does not exist.
    #[error("path not found")]
    NotFound,
    /// The path exists without the slash at its end.
    #[error("path not found: it ends with a slash")]
    TrailingSlash,
    /// The path exists, but not with this method.
    #[error("method not allowed")]
    MethodNotAllowed {
        /// The methods of the path, as in the header `Allow`.
        allow: &'static str,
        /// The method of the request.
        method: Method,
    },
    /// The body is larger than allowed.
    #[error("the body is too large")]
    PayloadTooLarge {
        /// The maximum size in bytes, or `None` if the limit is one of the host, which this crate does not know.
        limit: Option<usize>,
    },
    /// The head of the request is larger than allowed. The API has no such limit; this is for hosts that have one.
    #[error("the head of the request is too large")]
    HeadTooLarge {
        /// The maximum number of headers.
        headers: usize,
        /// The maximum size in bytes, of the target and all headers.
        bytes: usize,
    },
    /// The content type of the body is not JSON in UTF-8, or the body is compressed.
    #[error("unsupported media type")]
    UnsupportedMediaType {
        /// A sentence for the caller that says what to send instead.
        reason: String,
        /// Whether the body is compressed. The response then has `Accept-Encoding: identity` (RFC 9110, section
        /// 12.5.3).
        compressed: bool,
    },
    /// The body is not valid JSON.
    #[error("the body is not valid JSON")]
    MalformedJson {
        /// A sentence for the caller that says what is wrong, and where.
        reason: String,
    },
    /// The connection failed before the whole body had arrived.
    #[error("the body is incomplete")]
    IncompleteBody,
    /// The body did not arrive in the time that [`TodoApi::with_timeout`](super::TodoApi::with_timeout) allows. Nothing
    /// was done.
    #[error("the body did not arrive within {limit:?}")]
    SlowBody {
        /// The time limit.
        limit: Duration,
    },
    /// The body is JSON, but not an object, or (for a new task) an array.
    #[error("the body is not a JSON object")]
    NotAnObject {
        /// Whether the body may be an array.
        or_array: bool,
    },
    /// Fields or query parameters are invalid, missing or unknown.
    #[error("validation failed: {0}")]
    Validation(FieldErrors),
    /// The body contains a version of the task that is not its version any more. Nothing was changed.
    #[error("the version in the body is not that of the task")]
    VersionConflict {
        /// The task as it is.
        current: Box<Task>,
    },
    /// The request has no precondition, and the API [requires](super::TodoApi::require_preconditions) one.
    #[error("the request has no precondition")]
    PreconditionRequired,
    /// The token of a client that follows changes cannot be continued: it belongs to another user, the user never had
    /// its revision, or deletions after it have been forgotten. The client has to begin again without a token.
    #[error("the sync token cannot be continued")]
    SyncTokenExpired,
    /// The user has too many streams of events open.
    #[error("the user has {max} streams open")]
    TooManyStreams {
        /// The number of streams that a user may have open.
        max: usize,
    },
    /// The operation failed. `from` makes [`Validation`](Self::Validation) of an invalid field.
    #[error(transparent)]
    Service(Error),
    /// A readiness probe failed. The causes are in the log.
    #[error("not ready: {}", .failed.join(", "))]
    NotReady {
        /// The parts that failed: `store`, `keys`; or `server`, after
        /// [`TodoApi::begin_stop`](super::TodoApi::begin_stop).
        failed: Vec<&'static str>,
    },
    /// The request took longer than [`TodoApi::with_timeout`](super::TodoApi::with_timeout) allows. A write may have
    /// happened.
    #[error("the request took longer than {limit:?}")]
    Timeout {
        /// The time limit.
        limit: Duration,
    },
    /// A bug in this crate or in the host.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidField { field, reason } => {
                let mut errors = FieldErrors::default();
                errors.add(field, reason.to_string());
                Self::Validation(errors)
            }
            Error::IdempotencyKeyReused => {
                let mut errors = FieldErrors::default();
                errors.add("Idempotency-Key", "was used for another body");
                Self::Validation(errors)
            }
            error => Self::Service(error),
        }
    }
}

impl From<FieldErrors> for ApiError {
    fn from(errors: FieldErrors) -> Self {
        Self::Validation(errors)
    }
}

impl ApiError {
    /// Returns the HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        // The only place that maps errors to statuses. No wildcard arm, so that a new variant must choose.
        match self {
            Self::Auth(AuthError::Missing | AuthError::Expired | AuthError::Invalid(_) | AuthError::Revoked) => {
                StatusCode::UNAUTHORIZED
            }
            Self::Forbidden
            | Self::Auth(AuthError::InsufficientScope { .. } | AuthError::ForeignOrigin)
            | Self::Service(Error::QuotaExceeded { .. }) => StatusCode::FORBIDDEN,
            Self::Service(Error::PreconditionFailed { .. }) => StatusCode::PRECONDITION_FAILED,
            Self::VersionConflict { .. } => StatusCode::CONFLICT,
            Self::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
            Self::SyncTokenExpired | Self::Service(Error::TaskDeleted) => StatusCode::GONE,
            Self::NotFound | Self::TrailingSlash | Self::Service(Error::TaskNotFound) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::PayloadTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnsupportedMediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MalformedJson { .. } | Self::IncompleteBody => StatusCode::BAD_REQUEST,
            Self::SlowBody { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::NotAnObject { .. }
            | Self::Validation(_)
            | Self::Service(Error::InvalidField { .. } | Error::IdempotencyKeyReused) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::Auth(AuthError::RateLimited { .. } | AuthError::OverQuota(_))
            | Self::TooManyStreams { .. }
            | Self::Service(Error::TooManyCalls) => StatusCode::TOO_MANY_REQUESTS,
            Self::Auth(AuthError::Unavailable { .. } | AuthError::KeyMayBeNew { .. })
            | Self::Service(Error::Store(
                StoreError::Unavailable(_)
                | StoreError::NotWritable(_)
                | StoreError::Interrupted(_)
                | StoreError::Timeout(_),
            ))
            | Self::NotReady { .. }
            | Self::Timeout { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Service(Error::Store(StoreError::Setup(_) | StoreError::Backend(_)) | Error::IdsExhausted)
            | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns the code of the error, for programs. Codes do not change between versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Auth(AuthError::Missing) => "unauthenticated",
            Self::Auth(AuthError::Expired) => "token_expired",
            Self::Auth(AuthError::Invalid(_)) => "token_invalid",
            Self::Auth(AuthError::Revoked) => "token_revoked",
            Self::Auth(AuthError::InsufficientScope { .. }) => "insufficient_scope",
            Self::Forbidden | Self::Auth(AuthError::ForeignOrigin) => "forbidden",
            Self::NotFound | Self::TrailingSlash => "not_found",
            Self::Service(Error::TaskNotFound) => "task_not_found",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::HeadTooLarge { .. } => "head_too_large",
            Self::UnsupportedMediaType { .. } => "unsupported_media_type",
            Self::MalformedJson { .. } => "malformed_json",
            Self::IncompleteBody => "incomplete_body",
            Self::SlowBody { .. } => "request_timeout",
            Self::NotAnObject { .. }
            | Self::Validation(_)
            | Self::Service(Error::InvalidField { .. } | Error::IdempotencyKeyReused) => "validation_failed",
            Self::SyncTokenExpired => "sync_token_expired",
            Self::Service(Error::PreconditionFailed { .. }) => "precondition_failed",
            Self::VersionConflict { .. } => "version_conflict",
            Self::PreconditionRequired => "precondition_required",
            Self::Service(Error::QuotaExceeded { .. }) => "quota_exceeded",
            Self::Service(Error::TaskDeleted) => "task_deleted",
            Self::Auth(AuthError::RateLimited { .. } | AuthError::OverQuota(_))
            | Self::TooManyStreams { .. }
            | Self::Service(Error::TooManyCalls) => "rate_limited",
            Self::Auth(AuthError::Unavailable { .. } | AuthError::KeyMayBeNew { .. })
            | Self::Service(Error::Store(
                StoreError::Unavailable(_) | StoreError::NotWritable(_) | StoreError::Interrupted(_),
            ))
            | Self::NotReady { .. } => "unavailable",
            Self::Service(Error::Store(StoreError::Timeout(_))) | Self::Timeout { .. } => "timeout",
            Self::Service(Error::Store(StoreError::Setup(_) | StoreError::Backend(_)) | Error::IdsExhausted)
            | Self::Internal(_) => "internal",
        }
    }

    /// Whether this service has failed, so that its operator should look at the log: every 5xx, except for
    /// [`AuthError::KeyMayBeNew`], which anyone can cause with a key that does not exist, and for a readiness probe of a
    /// host that stops on purpose.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        let is_expected = match self {
            Self::Auth(AuthError::KeyMayBeNew { .. }) => true,
            Self::NotReady { failed } => failed[..] == [SERVER],
            _ => false,
        };
        self.status().is_server_error() && !is_expected
    }

    /// Returns a sentence for people. It does not contain the cause of a 5xx.
    ///
    /// An [`Authenticator`](crate::auth::Authenticator) may say something else in a 401; see
    /// [`TodoApi::problem`](super::TodoApi::problem).
    #[must_use]
    pub fn detail(&self) -> String {
        self.detail_for(&Credentials::bearer())
    }

    /// The sentence, for callers who present these credentials.
    pub(super) fn detail_for(&self, credentials: &Credentials) -> String {
        match self {
            Self::Auth(
                error @ (AuthError::Missing | AuthError::Expired | AuthError::Invalid(_) | AuthError::Revoked),
            ) => credentials.detail(error).unwrap_or_default(),
            Self::Auth(AuthError::InsufficientScope { .. }) => "The token lacks a required scope.".to_owned(),
            Self::Auth(AuthError::ForeignOrigin) => "Cookies are accepted only from the site's own pages.".to_owned(),
            Self::Forbidden => "The user in the path is not the caller.".to_owned(),
            Self::NotFound => "This path does not exist.".to_owned(),
            Self::TrailingSlash => "This path does not exist. Remove the slash at its end.".to_owned(),
            Self::Service(Error::TaskNotFound) => "Task not found.".to_owned(),
            Self::MethodNotAllowed { allow, method } => {
                match allow.split(", ").find(|own| own.eq_ignore_ascii_case(method.as_str())) {
                    Some(own) => format!("Methods are written in capitals: {own}, not {method}."),
                    None => format!("This path supports {allow}."),
                }
            }
            Self::PayloadTooLarge { limit: Some(limit) } => format!("The body must have at most {limit} bytes."),
            Self::PayloadTooLarge { limit: None } => "The body is too large.".to_owned(),
            Self::HeadTooLarge { headers, bytes } => {
                format!("The head of the request must have at most {headers} headers and {bytes} bytes.")
            }
            Self::UnsupportedMediaType { reason, .. } | Self::MalformedJson { reason } => reason.clone(),
            Self::IncompleteBody => "The connection failed before the whole body had arrived.".to_owned(),
            Self::SlowBody { limit } => {
                format!("The body did not arrive within {} s.", limit.as_secs_f64())
            }
            Self::NotAnObject { or_array: false } => "The body must be a JSON object.".to_owned(),
            Self::NotAnObject { or_array: true } => "The body must be a JSON object, or an array of them.".to_owned(),
            Self::Validation(errors) => errors.to_string(),
            Self::TooManyStreams { max } => format!("A user may have at most {max} streams open."),
            Self::SyncTokenExpired => {
                "The token cannot be continued. Read all tasks again, without a token.".to_owned()
            }
            Self::Service(error @ Error::InvalidField { .. }) => format!("{error}."),
            Self::Service(Error::IdempotencyKeyReused) => "The Idempotency-Key was used for another body.".to_owned(),
            Self::Service(Error::PreconditionFailed { .. }) => {
                "The task is not as the precondition of the request requires.".to_owned()
            }
            Self::VersionConflict { .. } => "The task has changed since the version in the body.".to_owned(),
            Self::PreconditionRequired => {
                "Send If-Match with the ETag of the task, or * to change it whatever it is.".to_owned()
            }
            Self::Service(Error::QuotaExceeded { max }) => format!("A user may have at most {max} tasks."),
            Self::Service(Error::TaskDeleted) => "A task that this request has created was deleted.".to_owned(),
            Self::Auth(AuthError::RateLimited { .. } | AuthError::OverQuota(_))
            | Self::Service(Error::TooManyCalls) => "Too many requests. Retry later.".to_owned(),
            Self::NotReady { .. } => "The service is not ready.".to_owned(),
            Self::Auth(AuthError::Unavailable { .. } | AuthError::KeyMayBeNew { .. })
            | Self::Service(Error::Store(StoreError::Unavailable(_))) => {
                "The service is unavailable. Retry later.".to_owned()
            }
            Self::Service(Error::Store(StoreError::NotWritable(_))) => {
                "The service accepts no writes at present. Retry later.".to_owned()
            }
            Self::Service(Error::Store(StoreError::Interrupted(_))) => {
                "The service is unavailable. The write may have happened.".to_owned()
            }
            Self::Service(Error::Store(StoreError::Timeout(_))) | Self::Timeout { .. } => {
                "The request timed out. Retry later.".to_owned()
            }
            Self::Service(Error::Store(StoreError::Setup(_) | StoreError::Backend(_)) | Error::IdsExhausted)
            | Self::Internal(_) => "Internal server error.".to_owned(),
        }
    }

    /// Returns the task that a failed precondition is about, as it is now.
    #[must_use]
    pub fn current(&self) -> Option<&Task> {
        match self {
            Self::VersionConflict { current } | Self::Service(Error::PreconditionFailed { current }) => Some(current),
            _ => None,
        }
    }

    /// Returns how long to wait before a retry, as in the header `Retry-After`; `None` if a retry does not help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Auth(
                AuthError::RateLimited { retry_after }
                | AuthError::KeyMayBeNew { retry_after }
                | AuthError::Unavailable { retry_after, .. },
            ) => Some(*retry_after),
            Self::Auth(AuthError::OverQuota(quota)) => quota.retry_after,
            Self::Service(Error::TooManyCalls) => Some(Duration::from_secs(1)),
            // The server notices within this time that a client has gone away.
            Self::TooManyStreams { .. } => Some(Duration::from_secs(15)),
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Returns the value of the header `WWW-Authenticate`, for a 401 and for a token that lacks a scope.
    #[must_use]
    pub fn challenge(&self) -> Option<HeaderValue> {
        self.challenge_for(&Credentials::bearer())
    }

    /// The challenge, for callers who present these credentials.
    pub(super) fn challenge_for(&self, credentials: &Credentials) -> Option<HeaderValue> {
        match self {
            Self::Auth(AuthError::InsufficientScope { required }) => {
                // An authenticator of the host may have put anything into it.
                let is_allowed = |character: &char| *character == ' ' || is_scope_character(*character);
                let scope: String = required.chars().filter(is_allowed).collect();
                let error =
                    r#"Bearer error="insufficient_scope", error_description="The token lacks a required scope.""#;
                HeaderValue::try_from(format!("{error}, scope=\"{scope}\"")).ok()
            }
            Self::Auth(error) => credentials.challenge_for(error),
            _ => None,
        }
    }
}
