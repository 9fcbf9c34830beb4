//! What the command line asks for.

use std::{env, ffi::OsString, time::Duration};

use clap::{Parser, ValueEnum};
use testkit::process;

/// Measures todo-server against hand-written programs that do the same, with a thousand users at once.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(name = "cargo bench -p todo-benches --bench load --")]
pub(crate) struct Options {
    /// How often everything is measured; ratios are taken within a round [default: 5, short: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How long each is measured in a round, after a warm-up [default: 10, short: 4]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// How many users ask at once, each on its own connection
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) users: u32,
    /// Only these, by the names in the table
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub(crate) only: Vec<String>,
    /// Once, for a few seconds, and only the programs that matter most
    #[arg(long)]
    short: bool,
    /// Of todo-server only with these frameworks [default: all, short: axum]
    #[arg(long, value_delimiter = ',')]
    framework: Vec<Framework>,
    /// So many requests a second from all users together, instead of each asking as soon as it has its answer
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) open: Option<f64>,
    /// Which tokens the users have
    #[arg(long, value_enum, default_value_t = TokenKind::Hs256)]
    pub(crate) token: TokenKind,
    /// On SQLite, which the baselines do not know, also where there is PostgreSQL
    #[arg(long)]
    pub(crate) sqlite: bool,
    /// Tables for a README
    #[arg(long)]
    pub(crate) markdown: bool,
    /// As cargo says that this is `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    /// As for other benches: without one that is part of `load`, nothing is done
    filter: Vec<String>,
    /// Nobody asked for this by name.
    #[arg(skip)]
    by_the_way: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (1.0..=1e6).contains(&rate) { Ok(rate) } else { Err("must be from 1 to 1000000".to_owned()) }
}

/// A web framework that todo-server can use.
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

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenKind {
    /// A shared secret.
    Hs256,
    /// A key pair, as with Better Auth's JWT plugin; the key set is a file.
    Eddsa,
}

impl Options {
    /// `None`: there is nothing to do. `cargo test --benches` and nextest start this program too, but without
    /// `--bench`; and what others' filters and flags mean is not for us to say.
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

/// Whether cargo was told to run this bench (`--bench load`), or runs all there are. Its command line is the only one
/// that knows.
fn asked_by_name() -> bool {
    let Ok(cargo) = process::parent(std::process::id()) else { return false };
    let line = std::fs::read(format!("/proc/{cargo}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|argument| argument == b"load" || argument == b"--bench=load")
        // Started by hand, not by cargo.
        || !line.split(|byte| *byte == 0).any(|argument| argument == b"bench")
}
