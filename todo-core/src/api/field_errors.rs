use std::{collections::BTreeMap, fmt};

/// The fields and query parameters of a request that are invalid, each with its messages.
///
/// All invalid fields are collected and reported together. A message is an English phrase that follows the name of the
/// field: "must not be blank" of "title must not be blank".
///
/// ```
/// use todo_core::api::{ApiError, FieldErrors};
///
/// fn checked(title: &str) -> Result<(), ApiError> {
///     let mut errors = FieldErrors::default();
///     if title.is_empty() {
///         errors.add("title", "must not be blank");
///     }
///     Ok(errors.check()?)
/// }
///
/// assert_eq!(checked("").unwrap_err().detail(), "title must not be blank.");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldErrors(BTreeMap<String, Vec<String>>);

impl FieldErrors {
    /// Whether no field is invalid.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a message to a field.
    pub fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.entry(field.to_owned()).or_default().push(message.into());
    }

    /// Adds the errors of an element, whose fields are then named after it: `3.title`.
    pub(super) fn add_of_element(&mut self, element: usize, errors: Self) {
        let renamed = errors.0.into_iter().map(|(field, messages)| (format!("{element}.{field}"), messages));
        self.0.extend(renamed);
    }

    /// Returns the fields and their messages, sorted by the name of the field.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(field, messages)| (field.as_str(), messages.as_slice()))
    }

    /// Whether this field is invalid.
    #[must_use]
    pub fn contains(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// Returns the collected errors as an `Err` if there are any.
    ///
    /// # Errors
    ///
    /// `self`, if a message was added.
    pub fn check(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages = self.iter().flat_map(|(field, messages)| messages.iter().map(move |message| (field, message)));
        for (number, (field, message)) in messages.enumerate() {
            write!(f, "{}{field} {message}", if number > 0 { "; " } else { "" })?;
        }
        f.write_str(".")
    }
}

impl std::error::Error for FieldErrors {}
