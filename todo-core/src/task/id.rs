use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::invalid_value::InvalidValue;

/// The id of a task, which is unique among the tasks of its owner.
///
/// Its text is a UUID of 36 characters (RFC 9562, section 4). Upper and lower case are accepted. Braces, the prefix
/// `urn:uuid:` and a form without hyphens are rejected.
///
/// ```
/// use todo_core::TaskId;
///
/// let id: TaskId = "019AA3F0-5C00-7000-8000-000000000001".parse()?;
/// assert_eq!(id.to_string(), "019aa3f0-5c00-7000-8000-000000000001");
/// assert!("019aa3f05c0070008000000000000001".parse::<TaskId>().is_err());
/// # Ok::<(), todo_core::InvalidValue>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(Uuid);

impl TaskId {
    /// Returns the UUID.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for TaskId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for TaskId {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.len() != 36 {
            return Err(InvalidValue::NotUuid);
        }
        Uuid::try_parse(text).map(Self).map_err(|_| InvalidValue::NotUuid)
    }
}
