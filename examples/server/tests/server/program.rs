//! Starts the program, and sends requests to it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, Response, header::AUTHORIZATION};
use serde_json::Value;
use tempfile::TempDir;
use testkit::http::Client;

use crate::Framework;

/// The secret of the servers under test.
pub(crate) const SECRET: &str = "only-for-tests-only-for-tests-only-for-tests";

/// The time limit of everything that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Polls until there is a value.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The working directory and the environment of a program. It does not inherit the environment of the tests.
pub(crate) struct Setup {
    directory: Arc<TempDir>,
    variables: Vec<(String, String)>,
}

impl Setup {
    /// The framework is the only setting.
    pub(crate) fn new(framework: Framework) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        Self { directory, variables: Vec::new() }.set("FRAMEWORK", framework.0)
    }

    /// With [`SECRET`] and a free port.
    pub(crate) fn with_secret(framework: Framework) -> Self {
        Self::new(framework).set("BETTER_AUTH_SECRET", SECRET).set("PORT", "0")
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.path().join(name), content).expect("a file");
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_todo-server"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a server, and reads nothing of its log.
    pub(crate) fn serve_unread(&self) -> Unread {
        let address = free_address();
        let child = self.command(&["--port", &address.port().to_string()]).spawn().expect("the program starts");
        let mut unread = Unread { address, child, _directory: self.directory.clone() };
        until("it listens", || {
            assert!(unread.child.try_wait().expect("a child").is_none(), "it ended");
            std::net::TcpStream::connect(address).ok()
        });
        unread
    }

    /// Starts the program without waiting for it.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Program {
        self.program(self.command(arguments).spawn().expect("the program starts"))
    }

    fn program(&self, mut child: Child) -> Program {
        Program {
            output: Text::read(child.stdout.take().expect("piped")),
            log: Text::read(child.stderr.take().expect("piped")),
            child,
            _directory: self.directory.clone(),
        }
    }

    /// Starts a server and waits until it listens.
    pub(crate) fn serve(&self, arguments: &[&str]) -> Server {
        let mut program = self.spawn(arguments);
        let address = until("it listens", || {
            assert!(program.is_running(), "it ended: {}", program.log.whole());
            let log = program.log.so_far();
            let line = log.lines().find(|line| line.contains("listening"))?;
            line.split(['"', ' ', '=']).find_map(|word| word.parse().ok())
        });
        Server { address, program, metrics: OnceLock::new() }
    }

    /// Starts a server whose log level may hide where it listens.
    pub(crate) fn serve_on_known_port(&self) -> Server {
        let address = free_address();
        let mut program = self.spawn(&["--port", &address.port().to_string()]);
        until("it listens", || {
            assert!(program.is_running(), "it ended: {}", program.log.so_far());
            std::net::TcpStream::connect(address).ok()
        });
        Server { address, program, metrics: OnceLock::new() }
    }

    /// Starts the program with an input that the caller writes.
    pub(crate) fn spawn_piped(&self, arguments: &[&str]) -> (Program, ChildStdin) {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("the program starts");
        let input = child.stdin.take().expect("piped");
        (self.program(child), input)
    }

    /// Runs the program to its end with this input, and returns its output byte for byte.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Outcome {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("the program starts");
        let (mut writer, input) = (child.stdin.take().expect("piped"), input.to_vec());
        // A program that ends before it has read everything closes the pipe.
        let written = thread::spawn(move || writer.write_all(&input));
        let output = child.wait_with_output().expect("its output");
        let _ = written.join().expect("it writes");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Outcome { code: output.status.code(), output: text(output.stdout), log: text(output.stderr) }
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        let mut program = self.spawn(arguments);
        let status = program.end();
        Outcome { code: status.code(), output: program.output.whole(), log: program.log.whole() }
    }
}

pub(crate) fn free_address() -> SocketAddr {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.expect("a free port")
}

/// The exit code and the output of a program that has ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) log: String,
}

/// A running program. It is killed when this is dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) output: Text,
    pub(crate) log: Text,
    /// Kept as long as the program runs.
    _directory: Arc<TempDir>,
}

impl Program {
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// The most memory that it has had at a time, in bytes, where the system tells.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(peak.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    }

    /// Waits until it has ended.
    pub(crate) fn end(&mut self) -> ExitStatus {
        until("the program ends", || self.child.try_wait().expect("a child"))
    }

    /// Sends SIGTERM, like a container engine.
    pub(crate) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Sends SIGINT, like Ctrl-C.
    pub(crate) fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    /// Sends SIGHUP, like a terminal that is closed.
    pub(crate) fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("it runs");
    }

    /// Sends SIGKILL, which is as abrupt as a crash.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.end();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running server whose log nobody reads. It is killed when this is dropped.
pub(crate) struct Unread {
    pub(crate) address: SocketAddr,
    child: Child,
    _directory: Arc<TempDir>,
}

impl Unread {
    /// Sends SIGTERM and waits until it has ended. Returns its exit code, and what it has written to its log.
    pub(crate) fn stop(&mut self) -> (Option<i32>, String) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it runs");
        let code = until("the program ends", || self.child.try_wait().expect("a child")).code();
        let mut log = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut log).expect("UTF-8");
        (code, log)
    }

    /// Reads lines of its log up to one with this text.
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        let mut reader = BufReader::new(self.child.stderr.as_mut().expect("piped"));
        let mut log = String::new();
        while !log.contains(text) {
            assert!(reader.read_line(&mut log).expect("UTF-8") > 0, "the log ends: {log}");
        }
        log
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text that a program has written so far.
pub(crate) struct Text {
    text: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Text {
    fn read(stream: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let written = text.clone();
        let reader = thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { return };
                let mut text = written.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&line);
                text.push('\n');
            }
        });
        Self { text, reader: Some(reader) }
    }

    pub(crate) fn so_far(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The whole text. Call this after the program has ended.
    pub(crate) fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("it reads");
        }
        self.so_far()
    }
}

/// A program that accepts connections.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) program: Program,
    metrics: OnceLock<SocketAddr>,
}

impl Server {
    /// A client with a token of this user.
    pub(crate) fn user(&self, user: &str) -> User {
        User::new(self.address, &testkit::tokens::user_token(SECRET.as_bytes(), user))
    }

    /// The address of the metrics. `METRICS_PORT` must be set.
    pub(crate) fn metrics_address(&self) -> SocketAddr {
        let read = || {
            until("it serves metrics", || {
                let log = self.program.log.so_far();
                let line = log.lines().find(|line| line.contains("metrics are served"))?;
                line.split(['"', ' ', '=']).find_map(|word| word.parse().ok())
            })
        };
        *self.metrics.get_or_init(read)
    }

    /// Stops it gracefully. Returns its exit code and its log.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        self.program.terminate();
        let code = self.program.end().code();
        (code, self.program.log.whole())
    }
}

/// A client with a token of one user.
pub(crate) struct User {
    client: Client,
    token: String,
}

impl User {
    pub(crate) fn new(address: SocketAddr, token: &str) -> Self {
        Self { client: Client::new(address), token: token.to_owned() }
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: &str) -> Response<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Bytes::copy_from_slice(body.as_bytes()));
        self.client.send(request.expect("a request")).await
    }

    /// The JSON of a response, which must have this status.
    #[track_caller]
    pub(crate) fn json(response: &Response<Bytes>, status: u16) -> Value {
        let text = String::from_utf8_lossy(response.body());
        assert_eq!(response.status(), status, "{text}");
        serde_json::from_slice(response.body()).expect("JSON")
    }

    /// Creates a task, lists it and completes it.
    pub(crate) async fn use_tasks(&self) -> Value {
        let created = Self::json(&self.send(Method::POST, "/api/tasks", r#"{"title":"Buy milk"}"#).await, 201);
        let listed = Self::json(&self.send(Method::GET, "/api/v1/tasks", "").await, 200);
        assert_eq!(listed[0], created);
        let path = format!("/api/tasks/{}/complete", created["id"].as_str().expect("an id"));
        let completed = Self::json(&self.send(Method::PATCH, &path, r#"{"completed":true}"#).await, 200);
        assert_eq!((&completed["id"], &completed["completed"]), (&created["id"], &Value::Bool(true)));
        completed
    }

    /// The ids of all tasks, read page by page.
    pub(crate) async fn all_ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        let mut path = "/api/tasks?limit=200".to_owned();
        loop {
            let response = self.send(Method::GET, &path, "").await;
            let page = Self::json(&response, 200);
            let tasks = page.as_array().expect("a list");
            ids.extend(tasks.iter().map(|task| task["id"].as_str().expect("an id").to_owned()));
            let Some(link) = response.headers().get("link") else {
                return ids;
            };
            let link = link.to_str().expect("text");
            let next = link.strip_prefix('<').and_then(|link| link.split_once('>')).expect("a link").0;
            path = format!("/api/tasks{next}");
        }
    }
}
