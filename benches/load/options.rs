//! The command line.

use std::{env, ffi::OsString, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use testkit::process;
use todo_benches::workload::{self, Mix};

/// Measures todo-server against hand-written programs that do the same, with a thousand users at once.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(name = "cargo bench -p todo-benches --bench load --")]
pub(crate) struct Options {
    /// Number of rounds; ratios are computed within a round [default: 5, short: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Duration of a measurement after the warm-up [default: 10, short: 4]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// Number of users, each with its own connection
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) users: u32,
    /// Number of users who have tasks, in PostgreSQL
    #[arg(long, default_value_t = workload::USERS, value_parser = clap::value_parser!(u32).range(10_000..=1_000_000))]
    pub(crate) owners: u32,
    /// Only these programs, by their names in the table
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub(crate) only: Vec<String>,
    /// One round of a few seconds with the most important programs
    #[arg(long)]
    short: bool,
    /// todo-server only with these frameworks [default: all, short: axum]
    #[arg(long, value_delimiter = ',')]
    framework: Vec<Framework>,
    /// Another build of todo-server, to compare with in the same rounds; may be given several times
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) other: Vec<PathBuf>,
    /// This number of requests per second from all users together (open loop), instead of a closed loop
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) open: Option<f64>,
    /// How many requests are reads and changes
    #[arg(long, value_enum, default_value_t)]
    pub(crate) mix: Mix,
    /// The kind of tokens
    #[arg(long, value_enum, default_value_t = TokenKind::Hs256)]
    pub(crate) token: TokenKind,
    /// Use SQLite even if PostgreSQL is installed, without the baselines
    #[arg(long)]
    pub(crate) sqlite: bool,
    /// Print tables for a README
    #[arg(long)]
    pub(crate) markdown: bool,
    /// Set by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    /// The filter of `cargo bench`: the bench runs only if one is part of `load`
    filter: Vec<String>,
    /// Whether all benches are running, not this one by name.
    #[arg(skip)]
    by_the_way: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (1.0..=1e6).contains(&rate) { Ok(rate) } else { Err("must be from 1 to 1000000".to_owned()) }
}

/// A web framework of todo-server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Framework {
    Axum,
    Warp,
    Poem,
}

impl Framework {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Axum => "axum",
            Self::Warp => "warp",
            Self::Poem => "poem",
        }
    }
}

/// How the tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenKind {
    /// A shared secret.
    Hs256,
    /// A key pair, as with Better Auth's JWT plugin; the key set is a file.
    Eddsa,
}

impl Options {
    /// Returns `None` if there is nothing to measure. `cargo test --benches` and nextest start this program too, but
    /// without `--bench`, and with filters and flags for other benches.
    pub(crate) fn read() -> Option<Self> {
        let arguments: Vec<OsString> = env::args_os().collect();
        if !arguments.iter().any(|argument| argument == "--bench") {
            return None;
        }
        let asked_by_name = asked_by_name();
        match Self::try_parse_from(&arguments) {
            Ok(options) => {
                let is_meant = options.filter.is_empty() || options.filter.iter().any(|part| "load".contains(part));
                is_meant.then_some(Self { by_the_way: !asked_by_name, ..options })
            }
            Err(error) if asked_by_name => error.exit(),
            Err(_) => None,
        }
    }

    pub(crate) fn is_short(&self) -> bool {
        self.short || self.by_the_way && self.rounds.is_none() && self.seconds.is_none()
    }

    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.is_short() { 1 } else { 5 })
    }

    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.is_short() { 4 } else { 10 }))
    }

    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs(if self.is_short() { 1 } else { 2 })
    }

    pub(crate) fn frameworks(&self) -> Vec<Framework> {
        match (&self.framework[..], self.is_short()) {
            ([], true) => vec![Framework::Axum],
            ([], false) => Framework::value_variants().to_vec(),
            (chosen, _) => chosen.to_vec(),
        }
    }
}

/// Whether cargo runs this bench only (`--bench load`). Only the command line of cargo shows this.
fn asked_by_name() -> bool {
    let Ok(cargo) = process::parent(std::process::id()) else { return false };
    let line = std::fs::read(format!("/proc/{cargo}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|argument| argument == b"load" || argument == b"--bench=load")
        // Not started by cargo.
        || !line.split(|byte| *byte == 0).any(|argument| argument == b"bench")
}
