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

    /// The maximum number of fields whose errors are kept. A client that sends thousands of unknown names has made one
    /// mistake, not thousands, and a response many times as large as its request would serve an attacker.
    pub const MAX_FIELDS: usize = 100;

    /// The maximum number of characters of a name; longer ones are cut.
    pub const MAX_NAME_CHARS: usize = 100;

    /// Adds a message to a field, once.
    pub fn add(&mut self, field: &str, message: impl Into<String>) {
        let name = match field.char_indices().nth(Self::MAX_NAME_CHARS) {
            None => field.to_owned(),
            Some((end, _)) => format!("{}…", &field[..end]),
        };
        self.add_all(name, vec![message.into()]);
    }

    fn add_all(&mut self, name: String, new: Vec<String>) {
        if self.0.len() >= Self::MAX_FIELDS && !self.0.contains_key(&name) {
            return;
        }
        let messages = self.0.entry(name).or_default();
        for message in new {
            if !messages.contains(&message) {
                messages.push(message);
            }
        }
    }

    /// Adds the errors of an element, whose fields are then named after it: `3.title`.
    pub(super) fn add_of_element(&mut self, element: usize, errors: Self) {
        for (field, messages) in errors.0 {
            self.add_all(format!("{element}.{field}"), messages);
        }
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
            let field = if field.is_empty() { "\"\"" } else { field };
            write!(f, "{}{field} {message}", if number > 0 { "; " } else { "" })?;
        }
        f.write_str(".")
    }
}

impl std::error::Error for FieldErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_and_long_names_make_no_large_response() {
        let mut errors = FieldErrors::default();
        for number in 0..10_000 {
            errors.add(&format!("{number}{}", "x".repeat(10_000)), "is unknown");
        }
        assert_eq!(errors.iter().count(), FieldErrors::MAX_FIELDS);
        assert!(errors.to_string().len() < 20_000, "{}", errors.to_string().len());
    }

    #[test]
    fn a_message_is_given_once_and_a_name_without_characters_is_shown() {
        let mut errors = FieldErrors::default();
        errors.add("", "is unknown");
        errors.add("", "is unknown");
        assert_eq!(errors.to_string(), "\"\" is unknown.");
    }
}
