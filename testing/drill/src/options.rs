//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::{drills::Drill, flood::Flood};

/// Breaks the server and PostgreSQL under load, and checks that no acknowledged write is lost: see docs/drills.md.
#[derive(Clone, Debug, Parser)]
#[command(name = "scripts/drill")]
pub(crate) struct Options {
    /// The drills to run (default: all)
    #[arg(value_parser = drill)]
    pub(crate) drills: Vec<Drill>,
    /// A drill to leave out
    #[arg(long, value_parser = drill, value_name = "DRILL")]
    pub(crate) skip: Vec<Drill>,
    /// Lists the drills that would be run
    #[arg(long)]
    pub(crate) list: bool,
    /// Runs a short selection at 200 requests a second, with shorter faults
    #[arg(long)]
    pub(crate) short: bool,
    /// Requests a second
    #[arg(long, default_value_t = 500, default_value_if("short", "true", "200"))]
    pub(crate) rate: u32,
    /// The length of the soak
    #[arg(long, default_value_t = 30.0, value_name = "MINUTES")]
    pub(crate) soak: f64,
    /// In sync: how many rounds (default: 100). In high-availability: how many of each fault (default: 3)
    #[arg(long)]
    pub(crate) rounds: Option<u32>,
    /// The framework of the server: axum, warp or poem
    #[arg(long, default_value = "axum")]
    pub(crate) framework: String,
    /// A setting of the server, by its name in the environment
    #[arg(long, value_parser = setting, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<(String, String)>,
    /// The todo-server binary
    #[arg(long, env = "TODO_SERVER", hide_env = true, value_name = "PATH")]
    pub(crate) server: PathBuf,
    /// The folder of report.md and of the server logs
    #[arg(long, default_value = "target/drill", value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// The build profile of the server, for the report
    #[arg(long, default_value = "unknown", hide = true)]
    pub(crate) profile: String,
    /// Loses a write on purpose, to show that the drill then fails
    #[arg(long, hide = true)]
    pub(crate) sabotage: bool,
    /// In one-user-floods: what the user sends
    #[arg(long, value_enum, default_value_t = Flood::Toggles)]
    pub(crate) flood: Flood,
    /// In the backup drills: how many tasks there are; those above 2000 are inserted with SQL
    #[arg(long, default_value_t = 2000)]
    pub(crate) tasks: usize,
}

impl Options {
    /// The drills to run.
    pub(crate) fn chosen(&self) -> impl Iterator<Item = Drill> {
        let chosen = match (self.drills.as_slice(), self.short) {
            ([], true) => &Drill::SHORT[..],
            ([], false) => &Drill::ALL[..],
            (chosen, _) => chosen,
        };
        chosen.iter().copied().filter(|drill| !self.skip.contains(drill))
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

fn drill(name: &str) -> Result<Drill, String> {
    Drill::named(name).ok_or_else(|| "see --list".to_owned())
}
