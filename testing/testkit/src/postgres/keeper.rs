//! A process that outlives this one, to clean up after it.

use std::{
    ffi::OsString,
    io::{self, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdout, Command, Stdio},
};

/// A shell that waits for the end of its standard input, which we hold open, and then cleans up.
///
/// Neither a static nor the victim of a SIGKILL is ever dropped, but the system closes its pipes. Our end of the pipe
/// is closed on exec (the standard library sees to it), so no other child of ours can hold it open.
#[derive(Debug)]
pub(super) struct Keeper {
    shell: Child,
}

/// A user of this machine, by numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Keeper {
    /// Starts the script, as another user if one is given, and answers what it writes to standard output, too.
    pub(super) fn start(
        script: &str,
        arguments: impl IntoIterator<Item = OsString>,
        environment: &[(&str, &str)],
        user: Option<User>,
    ) -> io::Result<(Self, BufReader<ChildStdout>)> {
        let mut command = Command::new("sh");
        command
            .args(["-c", script, "testkit-keeper"])
            .args(arguments)
            .envs(environment.iter().copied())
            // The keeper and what it starts may not be able to enter our folder, and should not keep it busy.
            .current_dir("/")
            // An interrupt from the terminal is for us, not for the keeper.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Were it ours, whoever reads what the tests print would wait for the keeper's end.
            .stderr(Stdio::null());
        if let Some(User { uid, gid }) = user {
            command.uid(uid).gid(gid);
        }
        // The programs of PostgreSQL would heed them.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        let mut shell = command.spawn()?;
        let said = BufReader::new(shell.stdout.take().expect("standard output is piped"));
        Ok((Self { shell }, said))
    }

    /// Writes a line to the keeper.
    pub(super) fn tell(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.shell.stdin.as_mut().expect("standard input is piped"), "{line}")
    }

    /// Asks the keeper to clean up and waits until it has.
    pub(super) fn stop(mut self) {
        drop(self.shell.stdin.take());
        // It can only fail if somebody else has waited for our child, and then it is gone as well.
        let _ = self.shell.wait();
    }
}
