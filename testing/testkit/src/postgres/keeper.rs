//! A process that cleans up after this one, even after SIGKILL.

use std::{
    ffi::OsString,
    io::{self, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdout, Command, Stdio},
};

/// A shell that waits for the end of its standard input, and then cleans up. This process holds the other end of the
/// pipe.
///
/// A static is never dropped, and nothing is dropped after SIGKILL, but the system closes the pipes of a process in any
/// case. The standard library sets close-on-exec for our end of the pipe, so that no other child of this process can
/// hold it open.
#[derive(Debug)]
pub(super) struct Keeper {
    shell: Child,
}

/// A user of this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Keeper {
    /// Starts the script, as this user if one is given. Also returns its standard output.
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
            // The keeper may not have access to the current folder, and should not keep it in use.
            .current_dir("/")
            // An interrupt from the terminal is not for the keeper.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // If it were that of the tests, a reader of their output would wait for the end of the keeper.
            .stderr(Stdio::null());
        if let Some(User { uid, gid }) = user {
            command.uid(uid).gid(gid);
        }
        // The programs of PostgreSQL would use them.
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

    /// Tells the keeper to clean up, and waits until it has.
    pub(super) fn stop(mut self) {
        drop(self.shell.stdin.take());
        // This fails only if another thread has waited for the child, and then the child has ended, too.
        let _ = self.shell.wait();
    }
}
