//! The failure of a command, and how errors are printed.

use std::{borrow::Cow, error::Error, process::ExitCode};

use crate::settings::Mistakes;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Settings are wrong, so a retry does not help. Exit code 2, like wrong flags.
    Settings(Mistakes),
    /// Anything else. Exit code 1.
    Fatal(String),
}

impl Failure {
    pub(crate) fn fatal(message: impl Into<String>) -> Self {
        Self::Fatal(message.into())
    }

    /// Prints the failure to standard error, or logs it if logging has started. Returns the exit code.
    #[expect(clippy::print_stderr, reason = "logging may not have started")]
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Settings(mistakes) => {
                eprintln!("{mistakes}\n");
                ExitCode::from(2)
            }
            Self::Fatal(message) => {
                if tracing::enabled!(tracing::Level::ERROR) {
                    tracing::error!("{message}");
                } else {
                    eprintln!("todo-server: {message}");
                }
                ExitCode::FAILURE
            }
        }
    }
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Self::Settings(mistakes)
    }
}

/// The error and the chain of its sources, each text once: "cannot connect: connection refused".
///
/// Errors of `todo-core` contain no password of a URL, so the result may be logged. Each text is [`shortened`]: some
/// errors of HTTP/2 contain up to 16 KiB that the client has sent.
pub(crate) fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = shortened(&error.to_string()).into_owned();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        let next = shortened(&next);
        // Some errors include the text of their source.
        if !text.ends_with(&*next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

/// The maximum length of a text of somebody else in a log line.
const MAX_TEXT: usize = 300;

/// A text for the log. A long one is cut.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Nested(&'static str, Option<Box<Nested>>);

    impl fmt::Display for Nested {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Nested {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|source| source as _)
        }
    }

    #[test]
    fn each_text_of_an_error_chain_is_printed_once() {
        let refused = || Some(Box::new(Nested("connection refused", None)));
        assert_eq!(error_chain(&Nested("no sources", None)), "no sources");
        assert_eq!(error_chain(&Nested("cannot connect", refused())), "cannot connect: connection refused");
        let with_source_text = Nested("cannot connect: connection refused", refused());
        assert_eq!(error_chain(&with_source_text), "cannot connect: connection refused");
        let three = Nested("not migrated", Some(Box::new(Nested("cannot connect", refused()))));
        assert_eq!(error_chain(&three), "not migrated: cannot connect: connection refused");
    }

    #[test]
    fn a_long_text_is_cut() {
        let (short, long) = ("\u{fc}".repeat(300), "\u{fc}".repeat(16_384));
        assert_eq!(shortened(&short), short);
        assert_eq!(shortened(&long), format!("{short}... (32768 bytes)"));
    }
}
