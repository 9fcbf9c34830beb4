//! What a call asks for, and what it gets from a batch.

use std::{error::Error as StdError, fmt, sync::Arc};

use crate::{
    Page, Task, TaskId, TaskQuery, UserId,
    clock::Timestamp,
    store::{Insertion, LONG_LIST, Read, Revision, SetupError, StoreError, TaskChange},
};

/// The kind of a call. Only calls of the same kind can be in one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Get,
    List,
    LongList,
    FilteredList,
    LongFilteredList,
    Insert,
    Update,
    Delete,
}

impl Kind {
    /// The number of queues of a lane.
    pub(super) const QUEUES: usize = 5;
    /// The index of the first queue with long lists.
    pub(super) const LONG_QUEUES: usize = 3;

    /// The kind of a list, or `None` if such lists are not batched.
    pub(super) fn of_list(query: &TaskQuery) -> Option<Self> {
        query.is_simple().then(|| match (query.filter.completed.is_some(), query.limit.get() > LONG_LIST) {
            (false, false) => Self::List,
            (false, true) => Self::LongList,
            (true, false) => Self::FilteredList,
            (true, true) => Self::LongFilteredList,
        })
    }

    pub(super) fn is_write(self) -> bool {
        matches!(self, Self::Insert | Self::Update | Self::Delete)
    }

    /// The index of its queue within its lane.
    pub(super) fn queue(self) -> usize {
        match self {
            Self::Get | Self::Insert => 0,
            Self::List | Self::Update => 1,
            Self::FilteredList | Self::Delete => 2,
            Self::LongList => Self::LONG_QUEUES,
            Self::LongFilteredList => Self::LONG_QUEUES + 1,
        }
    }
}

/// A call with copies of its arguments, because another caller may send it.
pub(super) enum Call {
    /// A get or a delete.
    One(TaskId),
    /// With the revision that the caller knows.
    List(TaskQuery, Option<Revision>),
    /// With the number of tasks that the owner may have.
    Insert(Box<Task>, Option<u64>),
    Update {
        id: TaskId,
        change: TaskChange,
        now: Timestamp,
    },
}

impl Call {
    /// The task that a write changes. Reads have none: two reads of one task can be in the same batch.
    pub(super) fn written_task(&self, kind: Kind) -> Option<TaskId> {
        match self {
            Self::One(id) => kind.is_write().then_some(*id),
            Self::List(..) => None,
            Self::Insert(task, _) => Some(task.id),
            Self::Update { id, .. } => Some(*id),
        }
    }

    /// The maximum number of rows that the database returns for this call.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::List(query, _) => usize::from(query.limit.get()) + 1,
            _ => 1,
        }
    }

    /// Whether this is the outcome of such a call, and contains only rows of this owner.
    ///
    /// A batch mixes rows of many owners. This check keeps a row from another owner even if the statement is wrong.
    pub(super) fn allows(&self, owner: &UserId, outcome: &Outcome) -> bool {
        let is_own = |task: &Task| {
            task.user_id == *owner
                && match self {
                    Self::One(id) | Self::Update { id, .. } => task.id == *id,
                    Self::List(..) | Self::Insert(..) => true,
                }
        };
        match (outcome, self) {
            (Outcome::Task(task), Self::One(_) | Self::Update { .. }) => task.iter().all(is_own),
            (Outcome::Page(Read::Changed { value: page, .. }), Self::List(..)) => page.tasks.iter().all(is_own),
            // Only a caller who knows an answer can be told that it is the same.
            (Outcome::Page(Read::Unchanged), Self::List(_, known)) => known.is_some(),
            (Outcome::Applied(_), Self::One(_)) | (Outcome::Inserted(_), Self::Insert(..)) => true,
            _ => false,
        }
    }
}

/// What a call returns.
pub(super) enum Outcome {
    Task(Option<Task>),
    Page(Read<Page>),
    Applied(bool),
    Inserted(Insertion),
}

/// What a batch has for one of its calls.
#[expect(clippy::large_enum_variant, reason = "it is moved a few times; a box would be an allocation for each call")]
pub(super) enum BatchResult {
    Done(Outcome),
    /// The batch did not apply the call. The caller runs it alone.
    NotDone,
    Failed(SharedError),
}

/// An error of a batch, for each of its calls.
#[derive(Clone, Debug)]
pub(super) struct SharedError(Arc<StoreError>);

impl SharedError {
    pub(super) fn new(error: StoreError) -> Self {
        Self(Arc::new(error))
    }

    /// The error of one call: the same variant as the error of the batch, with the same source.
    pub(super) fn into_store_error(self) -> StoreError {
        let source = Box::new(self.clone());
        match &*self.0 {
            StoreError::Setup(mistake) => SetupError::new(mistake.to_string()).with_source(source).into(),
            StoreError::Unavailable(_) => StoreError::Unavailable(source),
            StoreError::NotWritable(_) => StoreError::NotWritable(source),
            StoreError::Interrupted(_) => StoreError::Interrupted(source),
            StoreError::Timeout(_) => StoreError::Timeout(source),
            StoreError::Backend(_) => StoreError::Backend(source),
        }
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch of calls failed")
    }
}

impl StdError for SharedError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_gets_the_variant_and_the_source_of_the_error_of_its_batch() {
        let source = || -> Box<dyn StdError + Send + Sync> { "the cause".into() };
        for of_batch in [
            SetupError::new("the bucket does not exist; create it").with_source(source()).into(),
            StoreError::Unavailable(source()),
            StoreError::NotWritable(source()),
            StoreError::Interrupted(source()),
            StoreError::Timeout(source()),
            StoreError::Backend(source()),
        ] {
            let (variant, text) = (std::mem::discriminant(&of_batch), of_batch.to_string());
            let may_have_happened = of_batch.may_have_happened();
            let shared = SharedError::new(of_batch);
            for of_call in [shared.clone().into_store_error(), shared.into_store_error()] {
                assert_eq!(std::mem::discriminant(&of_call), variant, "{of_call:?}");
                assert_eq!((of_call.to_string(), of_call.may_have_happened()), (text.clone(), may_have_happened));
                let cause = of_call.source().expect("the error of the batch");
                assert_eq!(cause.to_string(), "a batch of calls failed", "{of_call:?}");
                assert_eq!(cause.source().expect("its source").to_string(), "the cause", "{of_call:?}");
            }
        }
    }
}
