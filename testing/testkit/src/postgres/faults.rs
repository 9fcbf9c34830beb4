//! Faults of a PostgreSQL server: killed, stopped, frozen, restarted.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::keeper::User;

const TIMEOUT: Duration = Duration::from_mins(1);

/// Kills, stops, freezes and restarts a private cluster, on the same port and with the same data. All methods block.
///
/// A cluster that is frozen or dead at the end of the process is removed like any other.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// let server = testkit::postgres::Server::start_local("").await.expect("it starts").expect("it is installed");
/// let faults = server.faults().expect("it is a private cluster");
/// faults.kill()?;
/// faults.start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Faults {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    user: Option<User>,
}

impl Faults {
    pub(super) fn new(programs: &Path, folder: &Path, port: u16, user: Option<User>) -> Self {
        Self { programs: programs.to_owned(), folder: folder.to_owned(), port, user }
    }

    /// The port of the server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the cluster, with its data in `data`. It is removed with the cluster, and everything else in it,
    /// too.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command that runs in [`folder`](Self::folder) as the user of the cluster, finds PostgreSQL's programs in
    /// `PATH`, and has none of the `PG..` variables of this process.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.programs.clone()).chain(env::split_paths(&path));
        let mut command = Command::new(program);
        command
            .env("PATH", env::join_paths(folders).unwrap_or(path.clone()))
            .current_dir(&self.folder)
            // An interrupt from the terminal is for this process only.
            .process_group(0);
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        command
    }

    /// The parent of all processes of the server.
    ///
    /// # Errors
    ///
    /// The server does not run.
    pub fn postmaster(&self) -> io::Result<u32> {
        let text = fs::read_to_string(self.folder.join("data/postmaster.pid"))?;
        let first = text.lines().next().and_then(|line| line.parse().ok());
        first.ok_or_else(|| io::Error::other("postmaster.pid has no number"))
    }

    /// Sends SIGKILL to all processes of the server, as happens when a machine is out of memory, and waits until they
    /// have ended.
    ///
    /// # Errors
    ///
    /// The server does not run, or does not end.
    pub fn kill(&self) -> io::Result<()> {
        let processes = self.processes()?;
        // The postmaster first, since it starts others.
        signal(&processes, Signal::KILL)?;
        wait_for("the end of PostgreSQL", || processes.iter().all(|process| parent(*process).is_none()))?;
        // Else pg_ctl may find a process with this number: the zombie, or a new one.
        fs::remove_file(self.folder.join("data/postmaster.pid"))
    }

    /// Stops the server (mode `fast`: connections are closed, transactions rolled back).
    ///
    /// # Errors
    ///
    /// `pg_ctl` fails.
    pub fn stop(&self) -> io::Result<()> {
        self.run(&["stop", "-m", "fast"])
    }

    /// Starts the server again after a [`kill`](Self::kill) or a [`stop`](Self::stop), and waits until it accepts
    /// connections.
    ///
    /// # Errors
    ///
    /// `pg_ctl` fails.
    pub fn start(&self) -> io::Result<()> {
        self.run(&["start", "-o", &format!("-p {}", self.port)])
    }

    /// Restarts the server (mode `fast`), and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// `pg_ctl` fails.
    pub fn restart(&self) -> io::Result<()> {
        self.run(&["restart", "-m", "fast"])
    }

    /// Sends SIGSTOP to all processes of the server: connections stay open, the system accepts new ones, and no query
    /// is processed.
    ///
    /// # Errors
    ///
    /// The server does not run.
    pub fn freeze(&self) -> io::Result<()> {
        // Twice, for processes that were being started.
        signal(&self.processes()?, Signal::STOP)?;
        signal(&self.processes()?, Signal::STOP)
    }

    /// Sends SIGCONT to all processes of the server.
    ///
    /// # Errors
    ///
    /// The server does not run.
    pub fn thaw(&self) -> io::Result<()> {
        signal(&self.processes()?, Signal::CONT)
    }

    /// The postmaster, then its children.
    fn processes(&self) -> io::Result<Vec<Pid>> {
        let postmaster = self.postmaster()?;
        let children = fs::read_dir("/proc")?.filter_map(|entry| {
            let process = Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?)?;
            (parent(process) == Some(postmaster)).then_some(process)
        });
        let postmaster = i32::try_from(postmaster).ok().and_then(Pid::from_raw);
        Ok(postmaster.into_iter().chain(children).collect())
    }

    fn run(&self, arguments: &[&str]) -> io::Result<()> {
        let mut command = self.command("pg_ctl");
        command
            .arg("-D")
            .arg(self.folder.join("data"))
            .arg("-l")
            .arg(self.folder.join("log"))
            .args(["-w", "-t", "60"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let status = command.status()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("pg_ctl {}: {status}", arguments.join(" "))))
        }
    }
}

/// The parent of a process, unless the process is a zombie.
fn parent(process: Pid) -> Option<u32> {
    // The name of the program is in parentheses and may contain any character; the state and the parent follow.
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    (fields.next()? != "Z").then(|| fields.next()?.parse().ok())?
}

fn signal(processes: &[Pid], signal: Signal) -> io::Result<()> {
    for (index, process) in processes.iter().enumerate() {
        match kill_process(*process, signal) {
            Err(error) if index == 0 => return Err(error.into()),
            // A child may have just ended.
            _ => {}
        }
    }
    Ok(())
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) -> io::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !is_there() {
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("timed out waiting for {what}")));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
