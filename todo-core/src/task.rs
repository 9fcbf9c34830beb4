//! What a task is made of. Values of these types hold only what is allowed: parse, don't validate.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;

/// Why a text or a number is not a value of a type in this crate. Its text follows the name of a field: "title must
/// not be blank".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidValue {
    /// Nothing but white space.
    #[error("must not be blank")]
    Blank,
    /// More Unicode scalar values than allowed.
    #[error("must have at most {max} characters")]
    TooLong {
        /// How many are allowed.
        max: usize,
    },
    /// U+0000, which PostgreSQL cannot store.
    #[error("must not contain the NUL character")]
    Nul,
    /// Not the 36 characters of a UUID.
    #[error("must be a UUID")]
    NotUuid,
    /// A number outside its range.
    #[error("must be between {min} and {max}")]
    OutOfRange {
        /// The smallest allowed.
        min: u16,
        /// The greatest allowed.
        max: u16,
    },
    /// Not a cursor that this crate gave out.
    #[error("must be a cursor from the Link header of an earlier page")]
    NotCursor,
}

fn check_text(text: &str, max: usize) -> Result<(), InvalidValue> {
    if text.contains('\0') {
        Err(InvalidValue::Nul)
    } else if text.len() > max && text.chars().count() > max {
        Err(InvalidValue::TooLong { max })
    } else {
        Ok(())
    }
}

/// Conversions that every text type here has: it reads as a `str` and parses from one.
macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidValue;

            fn try_from(text: String) -> Result<Self, InvalidValue> {
                Self::new(text)
            }
        }
    };
}

/// Who owns tasks: an opaque text of 1 to 255 characters without NUL, as the identity provider spells it.
///
/// It is compared byte for byte. It is not a UUID: Better Auth makes 32 letters, or `1`, or whatever it was told to;
/// others make `auth0|5f7c...`.
///
/// ```
/// use todo_core::UserId;
///
/// assert!(UserId::new("auth0|1").is_ok());
/// assert!(UserId::new("").is_err());
/// ```
// Shared, because the same owner travels with every call and every task of a page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct UserId(#[serde(serialize_with = "serialize_shared")] Arc<str>);

fn serialize_shared<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl UserId {
    /// How many characters a user id has at most.
    pub const MAX_CHARS: usize = 255;

    /// Takes the text as it is.
    ///
    /// # Errors
    ///
    /// It is empty, longer than [`MAX_CHARS`](Self::MAX_CHARS) or holds NUL.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, InvalidValue> {
        let text = text.into();
        if text.is_empty() {
            return Err(InvalidValue::Blank);
        }
        check_text(&text, Self::MAX_CHARS)?;
        Ok(Self(text))
    }
}

text_type!(UserId);

/// What is to be done: 1 to 200 characters (Unicode scalar values) after white space is trimmed from both ends, without
/// NUL.
///
/// ```
/// use todo_core::{InvalidValue, Title};
///
/// assert_eq!(Title::new("  Buy milk ")?.as_str(), "Buy milk");
/// assert_eq!(Title::new(" \n"), Err(InvalidValue::Blank));
/// assert_eq!(Title::new("ü".repeat(201)), Err(InvalidValue::TooLong { max: 200 }));
/// # Ok::<(), InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Title(String);

impl Title {
    /// How many characters a title has at most.
    pub const MAX_CHARS: usize = 200;

    /// Trims and checks the text.
    ///
    /// # Errors
    ///
    /// Nothing is left after trimming, it is longer than [`MAX_CHARS`](Self::MAX_CHARS) or holds NUL.
    pub fn new<'a>(text: impl Into<Cow<'a, str>>) -> Result<Self, InvalidValue> {
        let text = text.into();
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(InvalidValue::Blank);
        }
        check_text(trimmed, Self::MAX_CHARS)?;
        Ok(Self(if trimmed.len() == text.len() { text.into_owned() } else { trimmed.to_owned() }))
    }
}

text_type!(Title);

/// More about a task: at most 1000 characters (Unicode scalar values), kept as they are, without NUL. The empty text
/// is a description too.
///
/// ```
/// use todo_core::Description;
///
/// assert!(Description::new("").is_ok());
/// assert!(Description::new("x".repeat(1001)).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Description(String);

impl Description {
    /// How many characters a description has at most.
    pub const MAX_CHARS: usize = 1000;

    /// Takes the text as it is.
    ///
    /// # Errors
    ///
    /// It is longer than [`MAX_CHARS`](Self::MAX_CHARS) or holds NUL.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidValue> {
        let text = text.into();
        check_text(&text, Self::MAX_CHARS)?;
        Ok(Self(text))
    }
}

text_type!(Description);

/// The name of a task among the tasks of its owner.
///
/// As text it is a UUID of 36 characters (RFC 9562, section 4), in either case; braces, `urn:uuid:` and a form without
/// hyphens are refused.
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
    /// The UUID.
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

/// A task, as it is stored and as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Task {
    /// Its name among the tasks of its owner.
    pub id: TaskId,
    /// Its owner.
    pub user_id: UserId,
    /// What is to be done.
    pub title: Title,
    /// More about it.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub description: Option<Description>,
    /// Whether it is done.
    pub completed: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed; never before `created_at` and never going backwards.
    pub updated_at: Timestamp,
    /// 1 when created, one more with each change. A write that changes nothing is no change.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub version: i64,
}

/// What a caller gives to create a task.
///
/// ```
/// use todo_core::{Description, NewTask, Title};
///
/// let task = NewTask { description: Some(Description::new("Two bottles")?), ..NewTask::new(Title::new("Buy milk")?) };
/// assert!(!task.completed);
/// # Ok::<(), todo_core::InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// What is to be done.
    pub title: Title,
    /// More about it.
    pub description: Option<Description>,
    /// Whether it is done already.
    pub completed: bool,
}

impl NewTask {
    /// An open task without description.
    #[must_use]
    pub fn new(title: Title) -> Self {
        Self { title, description: None, completed: false }
    }
}

/// What a caller gives to replace a task (PUT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskReplacement {
    /// The title from now on.
    pub title: Title,
    /// The description from now on; `None` removes it.
    pub description: Option<Description>,
    /// Whether it is done; `None` leaves that as it is, since replacing the text of a task is not to reopen it.
    pub completed: Option<bool>,
}

/// A change to a value that may be absent: leave it, remove it, or put another in its place (RFC 7396).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// Leave it as it is.
    #[default]
    Keep,
    /// Remove it.
    Clear,
    /// Put this in its place.
    Set(T),
}

/// What a caller gives to change parts of a task (PATCH). The default changes nothing.
///
/// ```
/// use todo_core::{Patch, TaskPatch};
///
/// let clear_description = TaskPatch { description: Patch::Clear, ..TaskPatch::default() };
/// assert_eq!(clear_description.title, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskPatch {
    /// The new title, if it is to change.
    pub title: Option<Title>,
    /// What is to become of the description.
    pub description: Patch<Description>,
    /// Whether it is done, if that is to change.
    pub completed: Option<bool>,
}

/// How many tasks a page has at most: 1 to 200, 100 if nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Limit(u16);

impl Limit {
    /// The smallest page.
    pub const MIN: u16 = 1;
    /// The greatest page.
    pub const MAX: u16 = 200;

    /// Checks the number.
    ///
    /// # Errors
    ///
    /// It is outside [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
    pub const fn new(limit: u16) -> Result<Self, InvalidValue> {
        if limit < Self::MIN || limit > Self::MAX {
            return Err(InvalidValue::OutOfRange { min: Self::MIN, max: Self::MAX });
        }
        Ok(Self(limit))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl FromStr for Limit {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let out_of_range = InvalidValue::OutOfRange { min: Self::MIN, max: Self::MAX };
        // `u16::from_str` takes "+5" too.
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(out_of_range);
        }
        text.parse().map_err(|_| out_of_range).and_then(Self::new)
    }
}

/// A place in the list of one owner's tasks: what comes after it is older.
///
/// It is a bare position and says nothing of its owner: with another owner it shows that owner's tasks older than the
/// same moment. As text it is opaque.
///
/// ```
/// use todo_core::Cursor;
///
/// let cursor: Cursor = "AZqj8FwAcACAAAAAAAAAAQ".parse()?;
/// assert_eq!(cursor.to_string(), "AZqj8FwAcACAAAAAAAAAAQ");
/// assert!("not a cursor".parse::<Cursor>().is_err());
/// # Ok::<(), todo_core::InvalidValue>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(TaskId);

impl Cursor {
    /// The place right after this task, wherever it is or was.
    #[must_use]
    pub const fn after(id: TaskId) -> Self {
        Self(id)
    }

    /// The task it stands after.
    #[must_use]
    pub const fn task_id(self) -> TaskId {
        self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.as_uuid().as_bytes()))
    }
}

impl FromStr for Cursor {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidValue::NotCursor)?;
        let id = Uuid::from_slice(&bytes).map_err(|_| InvalidValue::NotCursor)?;
        Ok(Self(TaskId(id)))
    }
}

/// Which tasks of an owner to list. The default is the first page of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskQuery {
    /// How many at most.
    pub limit: Limit,
    /// Only those after this place.
    pub cursor: Option<Cursor>,
    /// Only those that are done, or only those that are not.
    pub completed: Option<bool>,
}

impl TaskQuery {
    /// The greatest identifier that this query lets through, or `None` if it lets none through. Stores compare with
    /// `id <= newest()`: one comparison serves the first page and every other.
    #[must_use]
    pub fn newest(&self) -> Option<TaskId> {
        match self.cursor {
            None => Some(TaskId(Uuid::max())),
            Some(Cursor(id)) => id.0.as_u128().checked_sub(1).map(|before| TaskId(Uuid::from_u128(before))),
        }
    }
}

/// Some of an owner's tasks, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Where the next page begins; `None` if this is the last.
    pub next: Option<Cursor>,
}

impl Page {
    /// A page of at most `limit` tasks, from one more than that if there are more: what a store has read.
    #[must_use]
    pub fn from_one_more(mut tasks: Vec<Task>, limit: Limit) -> Self {
        let limit = usize::from(limit.get());
        let more = tasks.len() > limit;
        tasks.truncate(limit);
        let next = tasks.last().filter(|_| more).map(|task| Cursor::after(task.id));
        Self { tasks, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_measured_in_unicode_scalar_values() {
        assert!(Title::new("🦀".repeat(200)).is_ok());
        assert_eq!(Title::new("🦀".repeat(201)), Err(InvalidValue::TooLong { max: 200 }));
        // A flag is two scalar values and one thing to look at.
        assert!(Title::new("🇪🇺".repeat(100)).is_ok());
        assert!(Title::new("🇪🇺".repeat(101)).is_err());
        assert!(Description::new("é".repeat(1000)).is_ok());
        assert!(Description::new("é".repeat(1001)).is_err());
        assert!(UserId::new("ß".repeat(255)).is_ok());
        assert!(UserId::new("ß".repeat(256)).is_err());
    }

    #[test]
    fn titles_are_trimmed_before_they_are_measured() {
        let padded = format!("\u{3000} {}\t\n", "x".repeat(200));
        assert_eq!(Title::new(padded).map(|title| title.as_str().len()), Ok(200));
        assert_eq!(Title::new("\u{2003}\u{a0}"), Err(InvalidValue::Blank));
        // A zero-width space is no white space.
        assert!(Title::new("\u{200b}").is_ok());
    }

    #[test]
    fn nul_is_refused_everywhere() {
        assert_eq!(Title::new("a\0b"), Err(InvalidValue::Nul));
        assert_eq!(Description::new("\0"), Err(InvalidValue::Nul));
        assert_eq!(UserId::new("a\0"), Err(InvalidValue::Nul));
    }

    #[test]
    fn a_limit_is_a_plain_number() {
        for wrong in ["", "0", "201", "+5", "-1", "1e2", " 5", "99999999999999999999", "५"] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong:?}");
        }
        assert_eq!("200".parse(), Limit::new(200));
        assert_eq!("007".parse(), Limit::new(7));
    }

    #[test]
    fn a_cursor_is_exactly_sixteen_bytes() {
        let cursor = Cursor::after(TaskId(Uuid::from_u128(42)));
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for wrong in ["", "AAAA", "AZqj8FwAcACAAAAAAAAAAQ==", "AZqj8FwAcACAAAAAAAAAAR", "AZqj8FwAcACAAAAAAAAA+/"] {
            assert_eq!(wrong.parse::<Cursor>(), Err(InvalidValue::NotCursor), "{wrong:?}");
        }
    }

    #[test]
    fn nothing_is_older_than_the_least_identifier() {
        let query = TaskQuery { cursor: Some(Cursor::after(TaskId(Uuid::nil()))), ..TaskQuery::default() };
        assert_eq!(query.newest(), None);
    }

    #[test]
    fn a_task_is_written_and_read_back() {
        let json = r#"{"id":"019aa3f0-5c00-7000-8000-000000000001","user_id":"ann","title":"Buy milk","description":null,"completed":false,"created_at":"2025-11-21T08:00:00.000000Z","updated_at":"2025-11-21T08:00:00.000000Z","version":1}"#;
        let task: Task = serde_json::from_str(json).expect("a task");
        assert_eq!(serde_json::to_string(&task).expect("JSON"), json);
        assert!(serde_json::from_str::<Task>(&json.replace("Buy milk", " ")).is_err());
    }
}
