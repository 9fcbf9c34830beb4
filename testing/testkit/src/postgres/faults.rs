//! What may become of a PostgreSQL server.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::keeper::User;

const PATIENCE: Duration = Duration::from_mins(1);

/// Kills, stops, freezes and restarts a private cluster, on the same port and with the same data. All of it blocks.
///
/// A cluster that was left frozen or dead is removed at the end like any other.
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
    pg_ctl: PathBuf,
    folder: PathBuf,
    port: u16,
    user: Option<User>,
}

impl Faults {
    pub(super) fn new(programs: &Path, folder: &Path, port: u16, user: Option<User>) -> Self {
        Self { pg_ctl: programs.join("pg_ctl"), folder: folder.to_owned(), port, user }
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process that is the parent of all others.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn postmaster(&self) -> io::Result<u32> {
        let text = fs::read_to_string(self.folder.join("data/postmaster.pid"))?;
        let first = text.lines().next().and_then(|line| line.parse().ok());
        first.ok_or_else(|| io::Error::other("postmaster.pid has no number"))
    }

    /// Ends all of its processes at once with SIGKILL, as when the machine has no memory left, and waits until they are
    /// gone.
    ///
    /// # Errors
    ///
    /// It does not run, or does not die.
    pub fn kill(&self) -> io::Result<()> {
        let processes = self.processes()?;
        // The postmaster first: it would start others.
        signal(&processes, Signal::KILL)?;
        wait_for("the end of PostgreSQL", || processes.iter().all(|process| parent(*process).is_none()))?;
        // Its number may be taken for a while by what is left of a process that nobody has waited for.
        fs::remove_file(self.folder.join("data/postmaster.pid"))
    }

    /// Stops it in order (`fast`: clients are sent away, nothing is waited for).
    ///
    /// # Errors
    ///
    /// `pg_ctl` fails.
    pub fn stop(&self) -> io::Result<()> {
        self.run(&["stop", "-m", "fast"])
    }

    /// Starts it again after a [`kill`](Self::kill) or a [`stop`](Self::stop), and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// `pg_ctl` fails.
    pub fn start(&self) -> io::Result<()> {
        self.run(&["start", "-o", &format!("-p {}", self.port)])
    }

    /// Restarts it in order, and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// `pg_ctl` fails.
    pub fn restart(&self) -> io::Result<()> {
        self.run(&["restart", "-m", "fast"])
    }

    /// Halts all of its processes (SIGSTOP): connections stay open, new ones are taken by the system, and nobody answers.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn freeze(&self) -> io::Result<()> {
        // Once more, for those that were being started.
        signal(&self.processes()?, Signal::STOP)?;
        signal(&self.processes()?, Signal::STOP)
    }

    /// Lets them go on.
    ///
    /// # Errors
    ///
    /// It does not run.
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
        let mut command = Command::new(&self.pg_ctl);
        command
            .arg("-D")
            .arg(self.folder.join("data"))
            .arg("-l")
            .arg(self.folder.join("log"))
            .args(["-w", "-t", "60"])
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // An interrupt from the terminal is for us.
            .process_group(0);
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        let status = command.status()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("pg_ctl {}: {status}", arguments.join(" "))))
        }
    }
}

/// The parent of a process that lives.
fn parent(process: Pid) -> Option<u32> {
    // The name of the program stands in parentheses, and may hold anything; then come the state and the parent.
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    (fields.next()? != "Z").then(|| fields.next()?.parse().ok())?
}

fn signal(processes: &[Pid], signal: Signal) -> io::Result<()> {
    for (index, process) in processes.iter().enumerate() {
        match kill_process(*process, signal) {
            Err(error) if index == 0 => return Err(error.into()),
            // A child that has just ended.
            _ => {}
        }
    }
    Ok(())
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_there() {
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, what.to_owned()));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
