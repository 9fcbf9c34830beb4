//! The events that a service reports to the host.

use std::{fmt, sync::Arc};

use crate::{Task, TaskId, UserId};

/// A change that a [`TodoService`](crate::TodoService) has made, for its [observer](crate::TodoService::with_observer).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskEvent {
    /// Tasks were created: one, or several in one step.
    #[non_exhaustive]
    Created {
        /// The owner of the tasks.
        owner: UserId,
        /// The new tasks.
        tasks: Vec<Task>,
    },
    /// A task was changed, but not completed. It may have been reopened.
    #[non_exhaustive]
    Changed {
        /// The owner of the task.
        owner: UserId,
        /// The task after the change.
        task: Task,
    },
    /// An open task was completed. Other fields may have changed in the same step.
    #[non_exhaustive]
    Completed {
        /// The owner of the task.
        owner: UserId,
        /// The task after the change.
        task: Task,
    },
    /// A task was deleted.
    #[non_exhaustive]
    Deleted {
        /// The owner of the task.
        owner: UserId,
        /// The id of the task.
        id: TaskId,
    },
    /// All tasks of an owner were deleted.
    #[non_exhaustive]
    Erased {
        /// The owner of the tasks.
        owner: UserId,
        /// The number of the tasks, which is not 0.
        count: u64,
    },
    /// Tasks were moved to another owner.
    #[non_exhaustive]
    Transferred {
        /// The former owner of the tasks.
        owner: UserId,
        /// The new owner of the tasks.
        to: UserId,
        /// The number of the tasks that were moved, which is not 0.
        count: u64,
    },
}

impl TaskEvent {
    /// Returns the owner of the tasks; after a transfer, the former owner.
    #[must_use]
    pub fn owner(&self) -> &UserId {
        match self {
            Self::Created { owner, .. }
            | Self::Changed { owner, .. }
            | Self::Completed { owner, .. }
            | Self::Deleted { owner, .. }
            | Self::Erased { owner, .. }
            | Self::Transferred { owner, .. } => owner,
        }
    }
}

/// The observer of a service, if it has one.
#[derive(Clone, Default)]
pub(crate) struct Hook(Option<Arc<dyn Fn(TaskEvent) + Send + Sync>>);

impl Hook {
    pub(crate) fn new(observer: impl Fn(TaskEvent) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(observer)))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Calls the observer. The event is made only for an observer.
    pub(crate) fn call(&self, event: impl FnOnce() -> TaskEvent) {
        if let Some(observer) = &self.0 {
            observer(event());
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { "Observer" } else { "None" })
    }
}
