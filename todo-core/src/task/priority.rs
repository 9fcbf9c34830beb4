use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::invalid_value::InvalidValue;

/// How important a task is. The order is that of the variants.
///
/// ```
/// use todo_core::Priority;
///
/// assert!(Priority::Urgent > Priority::High);
/// assert_eq!("medium".parse(), Ok(Priority::Medium));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Less than usual.
    Low,
    /// In the middle.
    Medium,
    /// More than usual.
    High,
    /// Before everything else.
    Urgent,
}

impl Priority {
    /// All priorities, in ascending order.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Urgent];

    /// Returns the name: `low`, `medium`, `high` or `urgent`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }

    /// Returns the number that stores keep, 1 to 4.
    #[must_use]
    pub const fn number(self) -> i16 {
        match self {
            Self::Low => 1,
            Self::Medium => 2,
            Self::High => 3,
            Self::Urgent => 4,
        }
    }

    /// Returns the priority that a store has kept as this number.
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.number() == number)
    }
}

impl FromStr for Priority {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == text).ok_or(InvalidValue::NotPriority)
    }
}
