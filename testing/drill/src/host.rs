//! Runs todo-server as a supervisor does: always on the same port, with its log in a file.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use testkit::process::resident_kib;
use tokio::time::sleep;

use crate::{Failure, commands::run};

/// How long to wait for a start or an end.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The program, the settings and the log of a server.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    binary: PathBuf,
    log: PathBuf,
    settings: Vec<(String, String)>,
}

impl Setup {
    /// Sets the framework and the log level only.
    pub(crate) fn new(binary: &Path, framework: &str, log: PathBuf) -> Self {
        let settings =
            vec![("FRAMEWORK".to_owned(), framework.to_owned()), ("LOG_LEVEL".to_owned(), "warn".to_owned())];
        Self { binary: binary.to_owned(), log, settings }
    }

    pub(crate) fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.push((name.to_owned(), value.into()));
        self
    }

    /// The log of all servers with this setup.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The program, with these settings and no others.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        // A folder without `.env`.
        command.current_dir("/").env_clear().envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    fn spawn(&self, port: u16) -> Result<Child, Failure> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = self.command();
        command.env("PORT", port.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().map_err(|error| format!("{} cannot be started: {error}", self.binary.display()).into())
    }
}

/// A server process. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Host {
    setup: Setup,
    port: u16,
    child: Child,
}

impl Host {
    /// Starts a server, without waiting until it is ready.
    pub(crate) fn start(setup: &Setup) -> Result<Self, Failure> {
        let port = testkit::http::lasting_port()?;
        Ok(Self { child: setup.spawn(port)?, setup: setup.clone(), port })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Waits until `/health/ready` responds with 200.
    pub(crate) async fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + TIMEOUT;
        while !tokio::task::block_in_place(|| is_ready(self.address())) {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the server exited ({status}):\n{}", last_lines(&self.setup.log())).into());
            }
            if Instant::now() >= deadline {
                return Err(format!("the server is not ready:\n{}", last_lines(&self.setup.log())).into());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Its resident memory in MiB.
    #[expect(clippy::cast_precision_loss, reason = "a float represents such a number of KiB exactly")]
    pub(crate) fn memory(&self) -> f64 {
        resident_kib(self.child.id()) as f64 / 1024.0
    }

    /// Sends SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) -> Result<(), Failure> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        Ok(())
    }

    /// Waits for the end of the process.
    pub(crate) async fn end(&mut self) -> Result<ExitStatus, Failure> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err("the server does not exit".into());
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts it again on the same port, without waiting until it is ready.
    /// Runs another command of the program to its end, on the database of this URL or on that of the server.
    pub(crate) fn run(&self, argument: &str, database_url: Option<&str>) -> Result<String, Failure> {
        let mut command = self.setup.command();
        command.arg(argument);
        if let Some(url) = database_url {
            command.env("DATABASE_URL", url);
        }
        run(&mut command)
    }

    pub(crate) fn restart(&mut self) -> Result<(), Failure> {
        self.child = self.setup.spawn(self.port)?;
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the server at this address is ready.
fn is_ready(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return false };
    let mut head = [0; 12];
    stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
        && stream.write_all(b"GET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").is_ok()
        && stream.read_exact(&mut head).is_ok()
        && &head == b"HTTP/1.1 200"
}

fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
