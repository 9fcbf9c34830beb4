use std::{error::Error as StdError, fmt};

type Source = Box<dyn StdError + Send + Sync>;

/// Why a call of a store has failed, and whether it may have taken effect.
///
/// | variant | the call was executed | to do |
/// | --- | --- | --- |
/// | [`Setup`](Self::Setup) | no | change what the text says |
/// | [`Unavailable`](Self::Unavailable) | no | repeat it later |
/// | [`NotWritable`](Self::NotWritable) | no | repeat it later; reads work |
/// | [`Interrupted`](Self::Interrupted) | not known | read, and then decide |
/// | [`Timeout`](Self::Timeout) | no | repeat it, if the database is less busy |
/// | [`Backend`](Self::Backend) | usually not | look into the log |
///
/// The text of an error contains no value of a task. Its source is the error of the driver, which may: it belongs into
/// the log, and not into a response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store or its database is set up wrongly: a wrong URL or password, a missing table, a role with too many or
    /// too few privileges. The text says what is wrong and what to change.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The call was certainly not executed: it was rejected before it was sent, or the database rolled it back.
    /// Repeating it later may succeed.
    #[error("the task store is unavailable")]
    Unavailable(#[source] Source),
    /// The write was certainly not executed, because the database accepts none: it is read-only, or its disk is full.
    /// Reads go on. Repeating it may succeed when somebody has changed that.
    #[error("the task store accepts no writes")]
    NotWritable(#[source] Source),
    /// A write was interrupted, and may have taken effect: the connection was lost, or the code of the store panicked,
    /// after the statement may have been sent; or the database has lost another server that may have committed it. A
    /// read never fails like this.
    ///
    /// In a store within a transaction of the host, nothing takes effect before the host commits the transaction, and
    /// on a lost connection that will fail.
    #[error("a write was interrupted and may have taken effect")]
    Interrupted(#[source] Source),
    /// The database cancelled the statement at its time limit and rolled it back.
    #[error("the statement took longer than the database allows")]
    Timeout(#[source] Source),
    /// The call failed in another way, such as a violated constraint or a row that cannot be decoded. Repeating it does
    /// not help.
    #[error("the task store failed")]
    Backend(#[source] Source),
}

impl StoreError {
    /// Whether the call may have taken effect although it failed. If not, it can be repeated safely.
    ///
    /// `true` for [`Interrupted`](Self::Interrupted); and for [`Backend`](Self::Backend), which leaves it open: a row
    /// that cannot be decoded may have been written before.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Interrupted(_) | Self::Backend(_) => true,
            Self::Setup(_) | Self::Unavailable(_) | Self::NotWritable(_) | Self::Timeout(_) => false,
        }
    }

    /// The same error of a call that changes nothing, or was never sent.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(in crate::store) fn without_effect(self) -> Self {
        match self {
            Self::Interrupted(source) => Self::Unavailable(source),
            other => other,
        }
    }

    /// The same error, whose source says what could not be done: "connect to postgres://..".
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(in crate::store) fn of_attempt(self, attempt: impl FnOnce() -> String) -> Self {
        let add = |source| -> Source { Box::new(Attempt { attempt: attempt(), source }) };
        match self {
            Self::Setup(SetupError { text, source: Some(source) }) => {
                Self::Setup(SetupError { text, source: Some(add(source)) })
            }
            Self::Unavailable(source) => Self::Unavailable(add(source)),
            Self::Backend(source) => Self::Backend(add(source)),
            other => other,
        }
    }
}

/// What PostgreSQL, or an extension such as Citus, says to do about an error.
#[cfg(feature = "postgres")]
#[derive(Debug, thiserror::Error)]
#[error("{hint}")]
struct Hinted {
    hint: String,
    source: Source,
}

#[cfg(feature = "postgres")]
impl StoreError {
    /// The same error with the hint of the database, if there is one, for an operator.
    pub(in crate::store) fn with_hint(self) -> Self {
        let Some(hint) = self.hint() else { return self };
        let hint = format!("the database gives this hint: {hint}");
        let add = |source| -> Source { Box::new(Hinted { hint: hint.clone(), source }) };
        match self {
            Self::Setup(SetupError { text, source }) => {
                Self::Setup(SetupError { text: format!("{text}; {hint}"), source })
            }
            Self::Unavailable(source) => Self::Unavailable(add(source)),
            Self::NotWritable(source) => Self::NotWritable(add(source)),
            Self::Interrupted(source) => Self::Interrupted(add(source)),
            Self::Timeout(source) => Self::Timeout(add(source)),
            Self::Backend(source) => Self::Backend(add(source)),
        }
    }

    fn hint(&self) -> Option<String> {
        let mut next = self.source();
        while let Some(error) = next {
            if let Some(sqlx::Error::Database(response)) = error.downcast_ref() {
                return response.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?.hint().map(str::to_owned);
            }
            next = error.source();
        }
        None
    }
}

/// The error of an attempt to connect, with the database.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}")]
struct Attempt {
    attempt: String,
    source: Source,
}

/// A mistake in how a store is set up.
///
/// Its text says what is wrong and what to change, for the operator. The source, if there is one, is the error in which
/// the mistake became visible; the text does not repeat it.
///
/// ```
/// use todo_core::store::{SetupError, StoreError};
///
/// let error = StoreError::from(SetupError::new("the bucket does not exist; create it"));
/// assert_eq!(error.to_string(), "the bucket does not exist; create it");
/// assert!(!error.may_have_happened());
/// ```
pub struct SetupError {
    text: String,
    source: Option<Source>,
}

impl SetupError {
    /// Makes an error from a text, which says what is wrong and what to change.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), source: None }
    }

    /// Adds the error in which the mistake became visible.
    #[must_use]
    pub fn with_source(self, source: impl Into<Source>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The texts of the error and of its sources, in which programs also end that return it from `main`.
impl fmt::Debug for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        let mut source = self.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl StdError for SetupError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
