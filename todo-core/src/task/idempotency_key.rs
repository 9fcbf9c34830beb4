use std::fmt;

use crate::InvalidValue;

/// What a client calls a request that it may send more than once: 1 to 255 visible ASCII characters.
///
/// ```
/// use todo_core::IdempotencyKey;
///
/// assert!(IdempotencyKey::new("0f9c1d3e-6f0a-4a53-9d0f-6a1f8f1f5a11").is_ok());
/// assert!(IdempotencyKey::new("not visible: \t").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// The maximum number of characters.
    pub const MAX_CHARS: usize = 255;

    /// Makes a key from its text.
    ///
    /// # Errors
    ///
    /// The text is empty, longer than [`MAX_CHARS`](Self::MAX_CHARS), or has a character that is not visible ASCII.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let text = text.as_ref();
        let is_key = (1..=Self::MAX_CHARS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_key { Ok(Self(text.into())) } else { Err(InvalidValue::NotIdempotencyKey { max: Self::MAX_CHARS }) }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
