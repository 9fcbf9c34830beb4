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
    /// The text is not a date, a time or a moment of the calendar.
    #[error(
        "must be a date (2026-12-01), a local time (2026-12-01T17:00), a time in a time zone \
         (2026-12-01T17:00[Europe/Berlin]) or a moment (2026-12-01T16:00Z), in the years 1 to 9999"
    )]
    NotDue,
    /// The offset of a time is not one that its time zone has then.
    #[error("must have an offset that the time zone has at that time, or none")]
    WrongOffset,
    /// No time zone has this name.
    #[error("must name a time zone of the IANA database, such as Europe/Berlin")]
    NotTimeZone,
    /// The text is not a key of fractional indexing.
    #[error("must be a key of fractional-indexing, at most {max} characters")]
    NotPosition {
        /// The maximum number of characters.
        max: usize,
    },
    /// The text cannot name a request.
    #[error("must have 1 to {max} characters of visible ASCII")]
    NotIdempotencyKey {
        /// The maximum number of characters.
        max: usize,
    },
    /// The text is not a priority.
    #[error("must be low, medium, high or urgent")]
    NotPriority,
    /// The text is not an order of tasks.
    #[error("must be one of -created, created, due, -due, priority, title, updated, -updated, position")]
    NotSort,
    /// There are too many values.
    #[error("must have at most {max} elements")]
    TooMany {
        /// The maximum number of values.
        max: usize,
    },
    /// Two values are the same.
    #[error("must have no two elements that are the same")]
    Repeated,
    /// The object is too large as JSON.
    #[error("must have at most {max} bytes as JSON")]
    TooManyBytes {
        /// The maximum number of bytes.
        max: usize,
    },
    /// Arrays and objects are nested too deeply.
    #[error("must be nested at most {max} levels deep")]
    TooDeep {
        /// The maximum number of levels, of which the object itself is the first.
        max: usize,
    },
    /// An object has two members of the same name.
    #[error("must have no two members of the same name")]
    RepeatedMember,
    /// The value is not a JSON object.
    #[error("must be an object")]
    NotObject,
    /// A cursor was made with another sort or other filters.
    #[error("must be used with the sort and the filters of the page it is from")]
    OtherQuery,
    /// The value cannot be changed for several tasks at once.
    #[error("cannot be changed for several tasks at once")]
    NotInBulk,
    /// The id that a client chose is not a UUID of version 7.
    #[error("must be a UUID of version 7 (RFC 9562) for a new task")]
    NotUuidV7,
    /// The id is not that of another task of the user.
    #[error("must be the id of another task of the user")]
    NotOtherTask,
}
