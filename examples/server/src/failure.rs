//! Why the program ends before somebody asked it to.

use std::process::ExitCode;

use crate::settings::Mistakes;

/// Why a command has not done what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The settings are wrong; to try again does not help. Exit code 2, as for wrong flags.
    Settings(Mistakes),
    /// Something else. Exit code 1.
    Fatal(String),
}

impl Failure {
    pub(crate) fn fatal(message: impl Into<String>) -> Self {
        Self::Fatal(message.into())
    }

    /// Tells the person who started the program, and answers the exit code.
    #[expect(clippy::print_stderr, reason = "before logs begin there is no other way to speak")]
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Settings(mistakes) => {
                eprintln!("{mistakes}\n");
                ExitCode::from(2)
            }
            Self::Fatal(message) => {
                // In the form of the other logs, if there are any.
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
