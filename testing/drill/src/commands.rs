//! The commands of docs/backup.md, taken from the page itself, so that the drills run what the page says.

use std::process::{Command, Stdio};

use testkit::postgres::{Faults, Server};
use url::Url;

use crate::Failure;

const PAGE: &str = include_str!("../../../docs/backup.md");
const ROLES: &str = include_str!("../../../deploy/postgres/roles.sql");
/// Any password: it is in no configuration and guards a cluster that exists for minutes.
const PASSWORD: &str = "only-for-drills";

/// The code block of the page that contains this text.
pub(crate) fn block(text: &str) -> Result<&'static str, Failure> {
    let blocks = PAGE.split("```").skip(1).step_by(2).filter_map(|block| Some(block.split_once('\n')?.1));
    let mut found = blocks.filter(|block| block.contains(text));
    found.next().ok_or_else(|| format!("docs/backup.md has no code block with `{text}`").into())
}

/// The line with this text of the code block that contains it.
pub(crate) fn line(text: &str) -> Result<&'static str, Failure> {
    block(text)?.lines().find(|line| line.contains(text)).ok_or_else(|| unreachable!("the block contains the text"))
}

/// The command in backticks that begins with this text.
pub(crate) fn inline(text: &str) -> Result<&'static str, Failure> {
    let prose = PAGE.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
    let mut found = prose.filter(|command| command.starts_with(text));
    found.next().ok_or_else(|| format!("docs/backup.md has no command `{text} ..`").into())
}

/// Runs a command, and returns what it has written to standard output.
pub(crate) fn run(command: &mut Command) -> Result<String, Failure> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{command:?}: {}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

/// A shell with the programs and the superuser of a private cluster, in the cluster's folder.
#[derive(Debug)]
pub(crate) struct Shell<'a> {
    faults: &'a Faults,
    superuser: Url,
    row_security: bool,
}

impl<'a> Shell<'a> {
    pub(crate) fn new(server: &'a Server, row_security: bool) -> Result<Self, Failure> {
        let faults = server.faults().ok_or("PostgreSQL is no private cluster")?;
        let folder = faults.folder().join("deploy/postgres");
        run(faults.command("mkdir").arg("-p").arg(&folder).arg(faults.folder().join("archive")))?;
        std::fs::write(folder.join("roles.sql"), ROLES)?;
        Ok(Self { faults, superuser: Url::parse(server.url())?, row_security })
    }

    /// The address of the database `todo` for a role of deploy/postgres/roles.sql, or for the superuser.
    pub(crate) fn url(&self, role: &str) -> String {
        let mut url = self.superuser.clone();
        url.set_path("todo");
        if role != url.username() {
            let is_set = url.set_username(role).and_then(|()| url.set_password(Some(PASSWORD)));
            is_set.unwrap_or_else(|()| unreachable!("the URL has a host"));
        }
        url.into()
    }

    pub(crate) fn has_row_security(&self) -> bool {
        self.row_security
    }

    /// Runs commands of the page, with `$ADMIN_URL` for this role.
    pub(crate) fn run_as(&self, role: &str, script: &str) -> Result<String, Failure> {
        let url = &self.superuser;
        let mut shell = self.faults.command("sh");
        // The page has `..` for passwords.
        shell.args(["-e", "-c", &script.replace("_PASSWORD=..", "_PASSWORD=\"$PASSWORD\"")]);
        shell
            .env("PASSWORD", PASSWORD)
            .env("ADMIN_URL", self.url(role))
            .env("PGHOST", url.host_str().unwrap_or_default())
            .env("PGPORT", url.port().unwrap_or_default().to_string())
            .env("PGUSER", url.username())
            .env("PGPASSWORD", url.password().unwrap_or_default());
        if self.row_security {
            shell.env("APP_PASSWORD", PASSWORD);
        }
        run(&mut shell)
    }

    /// Runs commands of the page, with `$ADMIN_URL` for the superuser.
    pub(crate) fn run(&self, script: &str) -> Result<String, Failure> {
        self.run_as(self.superuser.username(), script)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_command_that_the_drills_run() {
        for text in [
            "vacuum into",
            "pg_dump ",
            "roles.sql",
            "pg_restore ",
            "pg_basebackup ",
            "recovery_target_time",
            "restore_command",
            "expire-sync-tokens",
        ] {
            assert!(line(text).unwrap().contains(text));
        }
        assert!(block("vacuum into").unwrap().contains("integrity_check"));
        assert_eq!(inline(".backup ").unwrap(), ".backup copy.db");
        assert!(block("no such text").is_err() && inline("no such text").is_err());
    }
}
