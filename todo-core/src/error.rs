use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;

use crate::{auth::AuthError, store::StoreError};

/// Everything an operation can answer instead of its result.
///
/// [`status`](Self::status), [`code`](Self::code) and [`detail`](Self::detail) are what goes over the wire; the source
/// of an error never does. In an HTTP response it rides in the extensions as `Arc<Error>`, for the host's log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Who is asking is not established, or is refused.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The path names another user than the caller.
    #[error("the path names another user")]
    Forbidden,
    /// No such path.
    #[error("no such path")]
    NotFound,
    /// This owner has no such task; whether another has one with this id is not said.
    #[error("no such task")]
    TaskNotFound,
    /// The path has no such method.
    #[error("the path does not have this method")]
    MethodNotAllowed {
        /// The methods that it has, as in the header `Allow`.
        allow: &'static str,
    },
    /// The body is larger than allowed.
    #[error("the body is larger than {limit} bytes")]
    PayloadTooLarge {
        /// How many bytes are allowed.
        limit: usize,
    },
    /// The body is not declared to be JSON in UTF-8.
    #[error("the content type is not supported")]
    UnsupportedMediaType {
        /// Whether the method takes a JSON merge patch too.
        merge_patch: bool,
    },
    /// The body is not JSON.
    #[error("the body is not JSON")]
    MalformedJson,
    /// The body is JSON, but not an object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// A field or a query parameter is wrong, missing or unknown.
    #[error("a field is wrong: {0:?}")]
    Validation(FieldErrors),
    /// The store has not done it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service cannot do its work now: for a readiness probe. The causes are in the log.
    #[error("not ready: {}", .failed.join(", "))]
    NotReady {
        /// Which of its parts cannot: `store`, `keys`.
        failed: Vec<&'static str>,
    },
    /// The whole did not come to an end in time. Whether a write has happened is not known.
    #[error("the request took longer than {limit:?}")]
    Timeout {
        /// How long it was given.
        limit: Duration,
    },
    /// A bug of ours.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl Error {
    /// The one place that knows which error is which status; no wildcard arm, so a new variant must choose.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Auth(AuthError::Missing | AuthError::Expired | AuthError::Invalid(_) | AuthError::Revoked) => {
                StatusCode::UNAUTHORIZED
            }
            Self::Forbidden | Self::Auth(AuthError::ForeignOrigin) => StatusCode::FORBIDDEN,
            Self::NotFound | Self::TaskNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::PayloadTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MalformedJson => StatusCode::BAD_REQUEST,
            Self::NotAnObject | Self::Validation(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Auth(AuthError::RateLimited { .. } | AuthError::OverQuota(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::Auth(AuthError::Unavailable { .. })
            | Self::Store(StoreError::Unavailable(_) | StoreError::Timeout(_))
            | Self::NotReady { .. }
            | Self::Timeout { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(StoreError::Backend(_)) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What kind of error it is, for programs; it does not change between versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Auth(AuthError::Missing) => "unauthenticated",
            Self::Auth(AuthError::Expired) => "token_expired",
            Self::Auth(AuthError::Invalid(_)) => "token_invalid",
            Self::Auth(AuthError::Revoked) => "token_revoked",
            Self::Forbidden | Self::Auth(AuthError::ForeignOrigin) => "forbidden",
            Self::NotFound => "not_found",
            Self::TaskNotFound => "task_not_found",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::UnsupportedMediaType { .. } => "unsupported_media_type",
            Self::MalformedJson => "malformed_json",
            Self::NotAnObject | Self::Validation(_) => "validation_failed",
            Self::Auth(AuthError::RateLimited { .. } | AuthError::OverQuota(_)) => "rate_limited",
            Self::Auth(AuthError::Unavailable { .. })
            | Self::Store(StoreError::Unavailable(_))
            | Self::NotReady { .. } => "unavailable",
            Self::Store(StoreError::Timeout(_)) | Self::Timeout { .. } => "timeout",
            Self::Store(StoreError::Backend(_)) | Self::Internal(_) => "internal",
        }
    }

    /// A sentence for a person. Of a 5xx it says nothing of the cause.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Auth(AuthError::Missing) => "Send one bearer token in the Authorization header.".to_owned(),
            Self::Auth(AuthError::Expired) => "The token has expired.".to_owned(),
            Self::Auth(AuthError::Invalid(_)) => "The token is not valid.".to_owned(),
            Self::Auth(AuthError::Revoked) => "The token has been revoked.".to_owned(),
            Self::Auth(AuthError::ForeignOrigin) => "A cookie counts only from the site's own pages.".to_owned(),
            Self::Forbidden => "The path names another user than the token.".to_owned(),
            Self::NotFound => "There is nothing at this path.".to_owned(),
            Self::TaskNotFound => "There is no such task.".to_owned(),
            Self::MethodNotAllowed { allow } => format!("This path answers to {allow}."),
            Self::PayloadTooLarge { limit } => format!("The body may have at most {limit} bytes."),
            Self::UnsupportedMediaType { merge_patch: false } => "Send the body as application/json.".to_owned(),
            Self::UnsupportedMediaType { merge_patch: true } => {
                "Send the body as application/json or application/merge-patch+json.".to_owned()
            }
            Self::MalformedJson => "The body is not JSON.".to_owned(),
            Self::NotAnObject => "The body must be a JSON object.".to_owned(),
            Self::Validation(errors) => errors.sentence(),
            Self::Auth(AuthError::RateLimited { .. } | AuthError::OverQuota(_)) => {
                "Too many requests; try again later.".to_owned()
            }
            Self::NotReady { .. } => "The service is not ready.".to_owned(),
            Self::Auth(AuthError::Unavailable { .. }) | Self::Store(StoreError::Unavailable(_)) => {
                "The service is unavailable; try again later.".to_owned()
            }
            Self::Store(StoreError::Timeout(_)) | Self::Timeout { .. } => {
                "The answer took too long; try again later.".to_owned()
            }
            Self::Store(StoreError::Backend(_)) | Self::Internal(_) => "Something went wrong on our side.".to_owned(),
        }
    }

    /// After how long it makes sense to try again, where it does.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Auth(AuthError::RateLimited { retry_after } | AuthError::Unavailable { retry_after, .. }) => {
                Some(*retry_after)
            }
            Self::Auth(AuthError::OverQuota(quota)) => quota.retry_after,
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    pub(crate) fn challenge(&self) -> Option<&'static str> {
        // RFC 6750, section 3: a request without credentials is told of no error.
        match self {
            Self::Auth(AuthError::Missing) => Some("Bearer"),
            Self::Auth(AuthError::Expired) => {
                Some(r#"Bearer error="invalid_token", error_description="The token has expired.""#)
            }
            Self::Auth(AuthError::Invalid(_)) => {
                Some(r#"Bearer error="invalid_token", error_description="The token is not valid.""#)
            }
            Self::Auth(AuthError::Revoked) => {
                Some(r#"Bearer error="invalid_token", error_description="The token has been revoked.""#)
            }
            _ => None,
        }
    }
}

/// What is wrong with which field: every wrong field at once, each with its messages, by name.
///
/// The messages are English and follow the name of the field: "title must not be blank".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldErrors(BTreeMap<String, Vec<String>>);

impl FieldErrors {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what is wrong with a field.
    pub fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.entry(field.to_owned()).or_default().push(message.into());
    }

    /// The fields and their messages, in the order of the fields' names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(field, messages)| (field.as_str(), messages.as_slice()))
    }

    /// Whether something is wrong with this field.
    #[must_use]
    pub fn contains(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// Nothing, or the error that names every wrong field.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`], if something was added.
    pub fn check(self) -> Result<(), Error> {
        if self.is_empty() { Ok(()) } else { Err(Error::Validation(self)) }
    }

    /// What was read, or the error that says why it is not there.
    pub(crate) fn check_and<T>(self, read: Option<T>) -> Result<T, Error> {
        self.check()?;
        read.ok_or(Error::Internal("a field was neither read nor found wrong"))
    }

    fn sentence(&self) -> String {
        let messages =
            self.iter().flat_map(|(field, messages)| messages.iter().map(move |message| format!("{field} {message}")));
        let mut sentence = messages.collect::<Vec<_>>().join("; ");
        sentence.push('.');
        sentence
    }
}
