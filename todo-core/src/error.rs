use crate::{InvalidValue, Task, store::StoreError};

/// Why an operation of [`TodoService`](crate::TodoService) or [`UserTasks`](crate::UserTasks) failed.
///
/// It contains no HTTP. [`ApiError`](crate::api::ApiError) adds a status, a code and a text to it, for the API of this
/// crate and for hosts that respond in the same form.
///
/// ```
/// use todo_core::{Error, TaskId, UserTasks};
///
/// /// A host's own page.
/// async fn show(tasks: UserTasks<'_>, id: TaskId) -> Result<String, Error> {
///     match tasks.get(id).await {
///         Ok(task) => Ok(task.title.to_string()),
///         Err(Error::TaskNotFound) => Ok("There is no such task.".to_owned()),
///         Err(error) => Err(error),
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user has no task with this id. Another user may have one; the error is the same in both cases.
    #[error("task not found")]
    TaskNotFound,
    /// Too many calls of the user are waiting for other calls of the same user (see
    /// [`UserLimits`](crate::UserLimits)). Nothing was done; the call may be repeated later.
    #[error("too many calls of the user are waiting")]
    TooManyCalls,
    /// A value is not allowed together with others, or with what the store contains. Nothing was done.
    #[error("{field} {reason}")]
    InvalidField {
        /// The name of the field or parameter.
        field: &'static str,
        /// What is wrong, to follow the name.
        reason: InvalidValue,
    },
    /// The precondition of a change is not true of the task. Nothing was changed.
    #[error("the task is not as the precondition requires")]
    PreconditionFailed {
        /// The task as it is.
        current: Box<Task>,
    },
    /// The user would have more tasks than allowed (see [`TodoService::with_quota`](crate::TodoService::with_quota)).
    /// Nothing was done.
    #[error("the user may have at most {max} tasks")]
    QuotaExceeded {
        /// The number of tasks that a user may have.
        max: u64,
    },
    /// Another request had the same idempotency key. Nothing was done.
    #[error("another request had the same idempotency key")]
    IdempotencyKeyReused,
    /// The request created tasks before, one of which was deleted since. Nothing was done.
    #[error("a task that this request has created was deleted")]
    TaskDeleted,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The [`IdGenerator`](crate::clock::IdGenerator) returned several ids in a row that this user's tasks already
    /// have.
    #[error("the id generator repeats itself")]
    IdsExhausted,
}
