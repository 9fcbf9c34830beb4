//! What the revision of an owner is for: reads that return nothing new, changes under a condition, requests that are
//! sent twice, and the changes since a revision.

use std::fmt;

use crate::{IdempotencyKey, Limit, Task, TaskId, clock::Timestamp};

/// The number of an owner's last change. Every change of a task increases the revision of its owner, whoever makes it.
///
/// Who has seen a revision has seen all changes up to it. There are gaps, and after an erasure, a restored backup or a
/// failover no revision comes back (unless the clock of the database goes back, too). An owner who has never had a task
/// has the default, 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(i64);

impl Revision {
    /// Makes a revision from its number.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a read returns to a caller who may know the answer already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read<T> {
    /// The owner still has the revision that the caller knows, so the answer is the one that the caller has.
    Unchanged,
    /// The answer, and the revision that it belongs to.
    Changed {
        /// The owner's revision.
        revision: Revision,
        /// The answer.
        value: T,
    },
}

/// What must be true of a task for a change to be made (RFC 9110, section 13). The default is true of every task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The version must be one of these.
    pub version_in: Option<Vec<i64>>,
    /// The version must not be one of these.
    pub version_not_in: Vec<i64>,
    /// The last change must be before this time.
    pub updated_before: Option<Timestamp>,
}

impl Precondition {
    /// Returns the condition that the task has this version.
    #[must_use]
    pub fn version(version: i64) -> Self {
        Self { version_in: Some(vec![version]), ..Self::default() }
    }

    /// Whether this is true of every task.
    #[must_use]
    pub fn is_always_met(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this is true of a task.
    #[must_use]
    pub fn is_met_by(&self, task: &Task) -> bool {
        self.version_in.as_ref().is_none_or(|versions| versions.contains(&task.version))
            && !self.version_not_in.contains(&task.version)
            && self.updated_before.is_none_or(|time| task.updated_at < time)
    }
}

/// What a change of one task has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The change was made.
    Done(T),
    /// This owner has no such task.
    Missing,
    /// The precondition is not true of the task, which is returned as it is. Nothing was changed.
    Unmet(Box<Task>),
}

impl<T> Outcome<T> {
    /// Returns the result of a change that was made.
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(result) => Some(result),
            Self::Missing | Self::Unmet(_) => None,
        }
    }
}

/// A request to create tasks, which may be sent more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the client calls the request.
    pub key: IdempotencyKey,
    /// A digest of the body: another body is another request.
    pub digest: [u8; 16],
}

/// What must be true for tasks to be created. The default is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Creation {
    /// The request, if it has a key. It creates its tasks once.
    pub request: Option<Request>,
    /// The number of tasks that the owner may have.
    pub max_tasks: Option<u64>,
}

/// What creating tasks has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// The tasks were created.
    Done,
    /// This owner already has a task with one of the ids.
    IdTaken,
    /// The request has created these tasks before, which are returned as they are now, in the order of the request.
    Repeated(Vec<Task>),
    /// Another request has the same key.
    KeyTaken,
    /// The request has created tasks before, one of which was deleted.
    Deleted,
    /// The owner would have too many tasks.
    QuotaExceeded,
}

/// A change that a client has to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A task was created or changed; this is how it is now.
    Task(Box<Task>),
    /// A task was deleted.
    Deleted(TaskId),
}

/// How far a client has followed the changes of an owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncPoint {
    /// The revision of the last change that the client knows.
    pub revision: Revision,
    /// The task of that change: other changes may have the same revision. `None` if the client knows all of them.
    pub id: Option<TaskId>,
    /// The revision at which the client began with nothing. Deletions before it do not concern the client.
    pub begun: Revision,
}

/// Some changes of an owner, in the order of their revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The changes. A task is among them once, as it is now.
    pub changes: Vec<Change>,
    /// How far a client is that has followed these changes.
    pub next: SyncPoint,
    /// Whether there are more.
    pub more: bool,
    /// The owner's revision.
    pub revision: Revision,
}

impl SyncPoint {
    /// Whether a client can go on from here: it is no later than the owner's revision, and all deletions that concern
    /// the client are known.
    pub(in crate::store) fn is_within(self, revision: Revision, purged: Revision) -> bool {
        self.revision <= revision && self.begun <= revision && self.revision.max(self.begun) >= purged
    }

    /// Whether a change comes after this.
    pub(in crate::store) fn is_before(self, revision: Revision, id: TaskId) -> bool {
        revision > self.revision || revision == self.revision && self.id.is_some_and(|known| id > known)
    }
}

impl Changes {
    /// Makes a page of one change more than fits, if there is one more. The owner has this revision now.
    pub(in crate::store) fn from_one_more(
        mut found: Vec<(Revision, TaskId, Change)>,
        from: SyncPoint,
        revision: Revision,
        limit: Limit,
    ) -> Self {
        let more = found.len() > usize::from(limit.get());
        found.truncate(limit.get().into());
        let next = match found.last() {
            Some((revision, id, _)) if more => SyncPoint { revision: *revision, id: Some(*id), begun: from.begun },
            // All is known up to the owner's revision.
            _ => SyncPoint { revision, id: None, begun: from.begun },
        };
        Self { changes: found.into_iter().map(|(.., change)| change).collect(), next, more, revision }
    }
}
