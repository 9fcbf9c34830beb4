//! The command line.

use std::{collections::BTreeMap, time::Duration};

use clap::{Arg, ArgAction, ArgMatches};
use todo_core::{UserId, store::DataLoss};

use crate::{
    commands::user::UserCommand,
    database::{Distribution, Migration},
    settings::{Group, MAX_DAYS, SETTINGS, Setting, Settings, Sources},
};

const DEV: &[Group] = &[Group::Port, Group::Http, Group::Tasks, Group::Deletions, Group::Log];
const TOKEN: &[Group] = &[Group::Keys];
const MIGRATE: &[Group] = &[Group::Database, Group::Log];
const PURGE: &[Group] = &[Group::Database, Group::Deletions, Group::Log];
const HEALTHCHECK: &[Group] = &[Group::Host, Group::Port];

/// The chosen command, with the values of the settings that it takes.
#[derive(Debug)]
pub(crate) enum Command {
    Serve(Sources),
    Dev(Sources),
    Token(Sources, TokenOptions),
    Migrate(Sources, Migration),
    User(Sources, UserCommand),
    /// The age in days from which on deletions are forgotten, if it is given.
    Purge(Sources, Option<u64>),
    ExpireSyncTokens(Sources),
    OpenApi,
    /// Whether only the process is asked, and not the database.
    Healthcheck(Sources, bool),
}

/// The options of the command `token`.
#[derive(Debug)]
pub(crate) struct TokenOptions {
    pub(crate) user: UserId,
    pub(crate) lifetime: Duration,
    /// Whether to sign for `todo-server dev`, whatever is set.
    pub(crate) dev: bool,
}

/// Parses the command line of this process. Ends the process after `--help`, `--version` or a mistake.
pub(crate) fn parse() -> Command {
    let matches = definition().get_matches();
    match matches.subcommand() {
        Some(("dev", matches)) => Command::Dev(sources(matches, DEV)),
        Some(("token", matches)) => Command::Token(sources(matches, TOKEN), token_options(matches)),
        Some(("migrate", matches)) => Command::Migrate(sources(matches, MIGRATE), migration(matches)),
        Some(("user", matches)) => user_command(matches),
        Some(("purge", matches)) => Command::Purge(sources(matches, PURGE), matches.get_one("older-than").copied()),
        Some(("expire-sync-tokens", matches)) => Command::ExpireSyncTokens(sources(matches, MIGRATE)),
        Some(("openapi", _)) => Command::OpenApi,
        Some(("healthcheck", matches)) => Command::Healthcheck(sources(matches, HEALTHCHECK), matches.get_flag("live")),
        Some((_, matches)) => Command::Serve(sources(matches, Settings::GROUPS)),
        None => Command::Serve(sources(&matches, Settings::GROUPS)),
    }
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn definition() -> clap::Command {
    clap::Command::new("todo-server")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Serves the todo API")
        .after_help(
            "Each setting can also be an environment variable, or a line of .env in the current directory, under its name \
             in capitals. A flag has priority over the environment, and the environment has priority over .env. Secrets \
             have no flags.",
        )
        .args_conflicts_with_subcommands(true)
        .args(flags(Settings::GROUPS))
        .subcommand(
            clap::Command::new("serve")
                .about("Serves the API; the default without a command")
                .args(flags(Settings::GROUPS)),
        )
        .subcommand(
            clap::Command::new("dev")
                .about("Serves the API on this machine without settings: SQLite, a secret and a token")
                .args(flags(DEV)),
        )
        .subcommand(
            clap::Command::new("token")
                .about("Prints a token of a user, signed with BETTER_AUTH_SECRET or else with the secret of dev")
                .arg(
                    Arg::new("user")
                        .long("user")
                        .value_name("ID")
                        .required(true)
                        .value_parser(|id: &str| UserId::new(id))
                        .help("The user's id"),
                )
                .arg(
                    Arg::new("ttl")
                        .long("ttl")
                        .value_name("TIME")
                        .default_value("1h")
                        .value_parser(lifetime)
                        .help("How long the token is valid: 90s, 15m, 12h, 30d"),
                )
                .arg(
                    Arg::new("dev")
                        .long("dev")
                        .action(ArgAction::SetTrue)
                        .help("Sign with the secret of `todo-server dev`, also if keys are set"),
                )
                .args(flags(TOKEN)),
        )
        .subcommand(
            clap::Command::new("migrate")
                .about("Migrates the database to the newest version; serve does this too")
                .arg(
                    Arg::new("to")
                        .long("to")
                        .value_name("VERSION")
                        .value_parser(clap::value_parser!(u32))
                        .help("Migrate to this version, which may be older; 0 removes the tables"),
                )
                .arg(
                    Arg::new("delete-all-tasks")
                        .long("delete-all-tasks")
                        .action(ArgAction::SetTrue)
                        .requires("to")
                        .help("With --to 0: remove the tables even if they contain tasks"),
                )
                .arg(
                    Arg::new("grant-to")
                        .long("grant-to")
                        .value_name("ROLE")
                        .conflicts_with("to")
                        .help("PostgreSQL: grant this role what a server needs that does not own the tables"),
                )
                .arg(
                    Arg::new("distribute")
                        .long("distribute")
                        .action(ArgAction::SetTrue)
                        .conflicts_with("to")
                        .help("PostgreSQL with Citus: distribute the tables over the nodes by user; see docs/citus.md"),
                )
                .arg(
                    Arg::new("undistribute")
                        .long("undistribute")
                        .action(ArgAction::SetTrue)
                        .conflicts_with_all(["to", "distribute"])
                        .help("PostgreSQL with Citus: make ordinary tables of them again, on the coordinator"),
                )
                .args(flags(MIGRATE)),
        )
        .subcommand(user_definition())
        .subcommand(purge_definition())
        .subcommand(expire_definition())
        .subcommand(clap::Command::new("openapi").about("Prints the OpenAPI document, as served at /openapi.json"))
        .subcommand(
            clap::Command::new("healthcheck")
                .about("Fails unless the server on this machine is ready; for images without curl")
                .arg(
                    Arg::new("live")
                        .long("live")
                        .action(ArgAction::SetTrue)
                        .help("Ask only whether the process responds, and not the database"),
                )
                .args(flags(HEALTHCHECK)),
        )
}

fn purge_definition() -> clap::Command {
    clap::Command::new("purge")
                .about("Forgets the old deletions of all users, and prints how many there were")
                .long_about(
                    "Forgets the old deletions of all users, and prints how many there were. Clients that have been away \
                     since before such a deletion have to read all tasks again.\n\n\
                     Servers forget a few old deletions of a user when this user deletes tasks. This command is for users \
                     who delete nothing any more. It works in small steps beside running servers, and can be run again. With \
                     row-level security, DATABASE_URL names a superuser or a role with BYPASSRLS.",
                )
                .arg(
                    Arg::new("older-than")
                        .long("older-than")
                        .value_name("DAYS")
                        .value_parser(clap::value_parser!(u64).range(0..=MAX_DAYS))
                        .help("The age from which on deletions are forgotten [default: DELETIONS_KEPT_DAYS]"),
                )
                .args(flags(PURGE))
}

fn expire_definition() -> clap::Command {
    clap::Command::new("expire-sync-tokens")
                .about("Makes all clients that follow changes begin again: run it after a backup was restored")
                .long_about(
                    "Makes all clients that follow changes begin again, and prints how many users have such clients at most. \
                     Run it after a backup was restored, before the server starts: clients may have seen changes that are \
                     lost now.\n\n\
                     It works in small steps, and can be run again. With row-level security, DATABASE_URL names a superuser \
                     or a role with BYPASSRLS.",
                )
                .args(flags(MIGRATE))
}

fn user_definition() -> clap::Command {
    let id = |name: &'static str, help: &'static str| {
        Arg::new(name).required(true).value_parser(|id: &str| UserId::new(id)).help(help)
    };
    clap::Command::new("user")
        .about("Deletes, moves or copies all tasks of a user")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            clap::Command::new("erase")
                .about("Deletes all tasks of a user in one atomic step, and prints how many there were")
                .arg(id("ID", "The user's id"))
                .args(flags(MIGRATE)),
        )
        .subcommand(
            clap::Command::new("move")
                .about(
                    "Moves all tasks of a user to another user in one atomic step, and prints how many there were. Tasks \
                     whose id the other user already has stay",
                )
                .arg(id("FROM", "The id of the former owner of the tasks"))
                .arg(id("TO", "The id of the new owner"))
                .args(flags(MIGRATE)),
        )
        .subcommand(
            clap::Command::new("export")
                .about("Writes all tasks of a user to standard output as JSON lines")
                .long_about(
                    "Writes all tasks of a user to standard output as JSON lines, the oldest first: each line is a task as the \
                     API returns it.\n\n\
                     The tasks are read in pages. What changes meanwhile may be in the output or not. If the exit code is \
                     not 0, the output is not complete.",
                )
                .arg(id("ID", "The user's id"))
                .args(flags(MIGRATE)),
        )
        .subcommand(
            clap::Command::new("import")
                .about("Adds tasks from standard input, as `export` writes them, and prints how many there were")
                .long_about(
                    "Adds tasks from standard input, as `export` writes them, and prints how many there were. Ids, times, \
                     versions and all other fields are kept; user_id becomes ID.\n\n\
                     The tasks are added in batches of 100, each completely or not at all. A line that is not a valid \
                     task, or whose id the user already has, stops the import. The message says what is wrong with which \
                     line, what was imported before, and how to go on.",
                )
                .arg(id("ID", "The id of the user who gets the tasks"))
                .args(flags(MIGRATE)),
        )
}

fn user_command(matches: &ArgMatches) -> Command {
    let get = "clap checks that there is a value";
    let id = |matches: &ArgMatches, name| matches.get_one::<UserId>(name).expect(get).clone();
    match matches.subcommand().expect("clap checks that there is a subcommand") {
        ("erase", matches) => Command::User(sources(matches, MIGRATE), UserCommand::Erase { user: id(matches, "ID") }),
        ("export", matches) => {
            Command::User(sources(matches, MIGRATE), UserCommand::Export { user: id(matches, "ID") })
        }
        ("import", matches) => {
            Command::User(sources(matches, MIGRATE), UserCommand::Import { user: id(matches, "ID") })
        }
        (_, matches) => {
            let (from, to) = (id(matches, "FROM"), id(matches, "TO"));
            if from == to {
                definition().error(clap::error::ErrorKind::ValueValidation, "FROM and TO are the same user").exit();
            }
            Command::User(sources(matches, MIGRATE), UserCommand::Move { from, to })
        }
    }
}

/// The settings of these groups that have a flag.
fn settings_in(groups: &'static [Group]) -> impl Iterator<Item = (&'static Setting, &'static str)> {
    let settings = SETTINGS.iter().filter(|setting| groups.contains(&setting.group));
    settings.filter_map(|setting| Some((setting, setting.flag?)))
}

fn flags(groups: &'static [Group]) -> impl Iterator<Item = Arg> {
    settings_in(groups)
        .map(|(setting, flag)| Arg::new(setting.name).long(flag).value_name(setting.value).help(setting.help))
}

fn sources(matches: &ArgMatches, groups: &'static [Group]) -> Sources {
    let given = settings_in(groups).filter_map(|(setting, _)| {
        let value = matches.get_one::<String>(setting.name)?;
        Some((setting.name, value.clone()))
    });
    Sources::from_process(given.collect::<BTreeMap<_, _>>())
}

fn token_options(matches: &ArgMatches) -> TokenOptions {
    let get = "clap checks that the option has a value";
    TokenOptions {
        user: matches.get_one::<UserId>("user").expect(get).clone(),
        lifetime: *matches.get_one("ttl").expect(get),
        dev: matches.get_flag("dev"),
    }
}

fn migration(matches: &ArgMatches) -> Migration {
    Migration {
        to: matches.get_one("to").copied(),
        loss: if matches.get_flag("delete-all-tasks") { DataLoss::Accept } else { DataLoss::Refuse },
        grant_to: matches.get_one("grant-to").cloned(),
        distribution: match (matches.get_flag("distribute"), matches.get_flag("undistribute")) {
            (true, _) => Some(Distribution::Distributed),
            (_, true) => Some(Distribution::Undistributed),
            _ => None,
        },
    }
}

/// A duration: `90s`, `15m`, `12h`, `30d`.
fn lifetime(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => 0,
    };
    match digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit)) {
        // At most a hundred years, so that the date of expiry has four digits for the year.
        Some(seconds @ 1..=3_155_760_000) => Ok(Duration::from_secs(seconds)),
        _ => Err("write a number and a unit: 90s, 15m, 12h or 30d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn a_lifetime_is_a_number_and_a_unit() {
        let seconds = |text| lifetime(text).map(|lifetime| lifetime.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("30d"), Ok(2_592_000));
        for wrong in ["", "15", "m", "0s", "-1m", "1.5h", "1 h", "1w", "99999999999d", "99999999999999999999d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
