/// Why a text or a number was rejected by a type of this crate.
///
/// It is displayed as a phrase that follows the name of a field: "must not be blank" of "title must not be blank".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidValue {
    /// The text is empty or only white space.
    #[error("must not be blank")]
    Blank,
    /// The text has too many characters (Unicode scalar values).
    #[error("must have at most {max} characters")]
    TooLong {
        /// The maximum number of characters.
        max: usize,
    },
    /// The text contains U+0000, which PostgreSQL cannot store.
    #[error("must not contain the NUL character")]
    Nul,
    /// The text is not a UUID of 36 characters.
    #[error("must be a UUID")]
    NotUuid,
    /// The number is outside its range.
    #[error("must be between {min} and {max}")]
    OutOfRange {
        /// The minimum.
        min: u16,
        /// The maximum.
        max: u16,
    },
    /// The text is not a cursor of this crate.
    #[error("must be a cursor from the Link header of an earlier page")]
    NotCursor,
}
