use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::invalid_value::InvalidValue;

fn check_text(text: &str, max: usize) -> Result<(), InvalidValue> {
    if text.contains('\0') {
        Err(InvalidValue::Nul)
    } else if text.len() > max && text.chars().count() > max {
        Err(InvalidValue::TooLong { max })
    } else {
        Ok(())
    }
}

fn trimmed(text: Cow<'_, str>, max: usize) -> Result<String, InvalidValue> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(InvalidValue::Blank);
    }
    check_text(trimmed, max)?;
    Ok(if trimmed.len() == text.len() { text.into_owned() } else { trimmed.to_owned() })
}

/// Implements the conversions of a text type from and to `str`.
macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// Returns the text.
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

/// The id of a user, who owns tasks: an opaque text of 1 to 255 characters without NUL.
///
/// It is the id that the identity provider assigns, and it is compared byte for byte. Its form depends on the provider:
/// Better Auth assigns 32 letters, or `1`, or what it is configured to; others assign `auth0|5f7c...`.
///
/// ```
/// use todo_core::UserId;
///
/// assert!(UserId::new("auth0|1").is_ok());
/// assert!(UserId::new("").is_err());
/// ```
// Shared, because every call and every task of a page has the same owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct UserId(#[serde(serialize_with = "serialize_shared")] Arc<str>);

fn serialize_shared<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl UserId {
    /// The maximum number of characters.
    pub const MAX_CHARS: usize = 255;

    /// Creates a user id. The text is not changed.
    ///
    /// # Errors
    ///
    /// The text is empty, longer than [`MAX_CHARS`](Self::MAX_CHARS) or contains NUL.
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

/// The title of a task: 1 to 200 characters (Unicode scalar values) without NUL, trimmed of white space at both ends.
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
    /// The maximum number of characters.
    pub const MAX_CHARS: usize = 200;

    /// Creates a title from a text, which is trimmed first.
    ///
    /// # Errors
    ///
    /// The trimmed text is empty, longer than [`MAX_CHARS`](Self::MAX_CHARS) or contains NUL.
    pub fn new<'a>(text: impl Into<Cow<'a, str>>) -> Result<Self, InvalidValue> {
        trimmed(text.into(), Self::MAX_CHARS).map(Self)
    }
}

impl Title {
    /// A title for a value that is thrown away because its own title is invalid.
    pub(crate) fn placeholder() -> Self {
        Self("-".to_owned())
    }
}

text_type!(Title);

/// The description of a task: at most 1000 characters (Unicode scalar values) without NUL, not trimmed.
///
/// A description may be empty. An empty description is different from no description.
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
    /// The maximum number of characters.
    pub const MAX_CHARS: usize = 1000;

    /// Creates a description. The text is not changed.
    ///
    /// # Errors
    ///
    /// The text is longer than [`MAX_CHARS`](Self::MAX_CHARS) or contains NUL.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidValue> {
        let text = text.into();
        check_text(&text, Self::MAX_CHARS)?;
        Ok(Self(text))
    }
}

text_type!(Description);

/// A text of 1 to `MAX_CHARS` characters without NUL, trimmed of white space at both ends.
macro_rules! name_type {
    ($(#[$docs:meta])* $name:ident, $max:literal) => {
        $(#[$docs])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// The maximum number of characters.
            pub const MAX_CHARS: usize = $max;

            /// Creates a name from a text, which is trimmed first.
            ///
            /// # Errors
            ///
            /// The trimmed text is empty, longer than [`MAX_CHARS`](Self::MAX_CHARS) or contains NUL.
            pub fn new<'a>(text: impl Into<Cow<'a, str>>) -> Result<Self, InvalidValue> {
                trimmed(text.into(), Self::MAX_CHARS).map(Self)
            }
        }

        text_type!($name);
    };
}

name_type! {
    /// The name of the list that a task is in: 1 to 100 characters (Unicode scalar values) without NUL, trimmed of white
    /// space at both ends. A list exists while a task is in it.
    ///
    /// ```
    /// use todo_core::ListName;
    ///
    /// assert_eq!(ListName::new(" Groceries ")?.as_str(), "Groceries");
    /// # Ok::<(), todo_core::InvalidValue>(())
    /// ```
    ListName, 100
}

name_type! {
    /// A tag of a task: 1 to 50 characters (Unicode scalar values) without NUL, trimmed of white space at both ends. Tags
    /// are compared exactly.
    Tag, 50
}

/// The tags of a task: at most 20 different ones, in the order in which they were given.
///
/// ```
/// use todo_core::{Tag, Tags};
///
/// let tags = Tags::new(vec![Tag::new("home")?, Tag::new("Home")?])?;
/// assert_eq!(tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["home", "Home"]);
/// assert!(Tags::new(vec![Tag::new("home")?, Tag::new("home")?]).is_err());
/// # Ok::<(), todo_core::InvalidValue>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Tag>")]
pub struct Tags(Vec<Tag>);

impl Tags {
    /// The maximum number of tags.
    pub const MAX: usize = 20;

    /// Creates the tags of a task.
    ///
    /// # Errors
    ///
    /// There are more than [`MAX`](Self::MAX), or two are the same.
    pub fn new(tags: Vec<Tag>) -> Result<Self, InvalidValue> {
        if tags.len() > Self::MAX {
            return Err(InvalidValue::TooMany { max: Self::MAX });
        }
        let is_repeated = |(index, tag)| tags[..index].contains(tag);
        if tags.iter().enumerate().any(is_repeated) {
            return Err(InvalidValue::Repeated);
        }
        Ok(Self(tags))
    }

    /// Returns the tags in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Tag> {
        self.0.iter()
    }

    /// Returns the tags in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[Tag] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Tags {
    type Item = &'a Tag;
    type IntoIter = std::slice::Iter<'a, Tag>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl TryFrom<Vec<Tag>> for Tags {
    type Error = InvalidValue;

    fn try_from(tags: Vec<Tag>) -> Result<Self, InvalidValue> {
        Self::new(tags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_counted_in_unicode_scalar_values() {
        assert!(Title::new("🦀".repeat(200)).is_ok());
        assert_eq!(Title::new("🦀".repeat(201)), Err(InvalidValue::TooLong { max: 200 }));
        // A flag is one symbol of two scalar values.
        assert!(Title::new("🇪🇺".repeat(100)).is_ok());
        assert!(Title::new("🇪🇺".repeat(101)).is_err());
        assert!(Description::new("é".repeat(1000)).is_ok());
        assert!(Description::new("é".repeat(1001)).is_err());
        assert!(UserId::new("ß".repeat(255)).is_ok());
        assert!(UserId::new("ß".repeat(256)).is_err());
    }

    #[test]
    fn titles_are_trimmed_before_the_length_is_checked() {
        let padded = format!("\u{3000} {}\t\n", "x".repeat(200));
        assert_eq!(Title::new(padded).map(|title| title.as_str().len()), Ok(200));
        assert_eq!(Title::new("\u{2003}\u{a0}"), Err(InvalidValue::Blank));
        // A zero-width space is not white space.
        assert!(Title::new("\u{200b}").is_ok());
    }

    #[test]
    fn nul_is_rejected_in_every_text() {
        assert_eq!(Title::new("a\0b"), Err(InvalidValue::Nul));
        assert_eq!(Description::new("\0"), Err(InvalidValue::Nul));
        assert_eq!(UserId::new("a\0"), Err(InvalidValue::Nul));
    }
}
