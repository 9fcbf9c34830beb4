//! What is asked for on the command line.

use std::path::PathBuf;

use clap::Parser;

use crate::drills::Drill;

/// Breaks things under load and looks what becomes of acknowledged writes: see docs/drills.md.
#[derive(Clone, Debug, Parser)]
#[command(name = "scripts/drill")]
pub(crate) struct Options {
    /// Which drills to run; all, if none is named
    #[arg(value_parser = drill)]
    pub(crate) drills: Vec<Drill>,
    /// Which not to run
    #[arg(long, value_parser = drill, value_name = "DRILL")]
    pub(crate) skip: Vec<Drill>,
    /// Says which drills there are
    #[arg(long)]
    pub(crate) list: bool,
    /// A short selection at 200 requests a second, with shorter faults
    #[arg(long)]
    pub(crate) short: bool,
    /// Requests in a second
    #[arg(long, default_value_t = 500, default_value_if("short", "true", "200"))]
    pub(crate) rate: u32,
    /// Minutes of soak
    #[arg(long, default_value_t = 30.0, value_name = "MINUTES")]
    pub(crate) soak: f64,
    /// axum, warp or poem
    #[arg(long, default_value = "axum")]
    pub(crate) framework: String,
    /// A setting of the server, by its name in the environment
    #[arg(long, value_parser = setting, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<(String, String)>,
    /// The program todo-server
    #[arg(long, env = "TODO_SERVER", hide_env = true, value_name = "PATH")]
    pub(crate) server: PathBuf,
    /// Where report.md and the logs of the servers go
    #[arg(long, default_value = "target/drill", value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// How the server was built, for the report
    #[arg(long, default_value = "unknown", hide = true)]
    pub(crate) profile: String,
    /// Deletes a task behind the server's back before the last look, which has to notice
    #[arg(long, hide = true)]
    pub(crate) sabotage: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("it is NAME=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

fn drill(name: &str) -> Result<Drill, String> {
    Drill::named(name).ok_or_else(|| "see --list".to_owned())
}
