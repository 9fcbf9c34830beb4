//! The programs that are compared, and how they are started.

use std::{
    env,
    fs::File,
    io::{self, BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::tokens::{SigningKey, now, secret_token};
use todo_benches::{generator::send, workload::user_id};

use crate::options::{Framework, Options, TokenKind};

/// The program that all others are compared with.
pub(crate) const BASE: &str = "baseline-sqlx";

/// A program that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlx,
    Pipelined,
    Ours { framework: Framework, variant: Variant },
    Empty,
    Pgbench { pipelined: bool },
}

/// A configuration of todo-server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Usual,
    /// Without statement batching.
    Uncoalesced,
    /// Without the cache of rendered responses.
    Uncached,
    /// With a log line for each request.
    AccessLog,
    /// The program of this index in [`Options::other`].
    OtherBuild(usize),
}

impl Contender {
    fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self { name: name.into(), kind }
    }

    pub(crate) const fn is_ours(&self) -> bool {
        matches!(self.kind, Kind::Ours { .. })
    }

    /// The programs of these options, in the order of the tables.
    pub(crate) fn chosen(options: &Options, on_postgres: bool) -> Result<Vec<Self>, String> {
        let ours = |framework, variant| Kind::Ours { framework, variant };
        let frameworks = options.frameworks();
        let mut all = Vec::new();
        if on_postgres {
            all.push(Self::new(BASE, Kind::Sqlx));
            all.push(Self::new("baseline-pipelined", Kind::Pipelined));
        }
        for framework in &frameworks {
            let name = match framework {
                Framework::Axum => "todo-server".to_owned(),
                other => format!("todo-server-{}", other.name()),
            };
            all.push(Self::new(name, ours(*framework, Variant::Usual)));
        }
        if frameworks.contains(&Framework::Axum) && !(options.is_short() && options.only.is_empty()) {
            all.push(Self::new("todo-server-uncoalesced", ours(Framework::Axum, Variant::Uncoalesced)));
            all.push(Self::new("todo-server-uncached", ours(Framework::Axum, Variant::Uncached)));
            all.push(Self::new("todo-server-access-log", ours(Framework::Axum, Variant::AccessLog)));
        }
        for index in 0..options.other.len() {
            let name = format!("todo-server-other-{}", index + 1);
            all.push(Self::new(name, ours(Framework::Axum, Variant::OtherBuild(index))));
        }
        all.push(Self::new("empty", Kind::Empty));
        if on_postgres && !(options.is_short() && options.only.is_empty()) {
            all.push(Self::new("pgbench", Kind::Pgbench { pipelined: false }));
            all.push(Self::new("pgbench-pipelined", Kind::Pgbench { pipelined: true }));
        }
        let names: Vec<_> = all.iter().map(|contender| contender.name.clone()).collect();
        if let Some(unknown) = options.only.iter().find(|name| !names.contains(name)) {
            return Err(format!("{unknown} is not one of: {}", names.join(", ")));
        }
        all.retain(|contender| options.only.is_empty() || options.only.contains(&contender.name));
        Ok(all)
    }
}

/// The paths of the programs.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) todo_server: PathBuf,
    /// Other builds of it.
    pub(crate) others: Vec<PathBuf>,
}

impl Programs {
    /// Builds todo-server with the release profile, by the cargo that runs this. The baselines are built with the bench
    /// profile, which has the same settings.
    pub(crate) fn build(others: &[PathBuf]) -> Result<Self, String> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
        let mut build = Command::new(cargo)
            .args(["build", "--release", "-p", "todo-server", "--all-features"])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run cargo: {error}"))?;
        let messages = BufReader::new(build.stdout.take().ok_or("cargo has no output")?);
        let executables = messages.lines().map_while(Result::ok).filter_map(|line| {
            let message: Value = serde_json::from_str(&line).ok()?;
            let is_ours = message["target"]["name"] == "todo-server";
            is_ours.then(|| message["executable"].as_str().map(PathBuf::from))?
        });
        let todo_server = executables.last();
        let status = build.wait().map_err(|error| format!("cannot wait for cargo: {error}"))?;
        match todo_server {
            Some(todo_server) if status.success() => Ok(Self { todo_server, others: others.to_vec() }),
            _ => Err("todo-server could not be built".to_owned()),
        }
    }
}

/// The keys of the tokens, and the settings of the servers for them.
#[derive(Debug)]
pub(crate) struct Keys {
    secret: String,
    pair: Option<SigningKey>,
    folder: tempfile::TempDir,
}

const ISSUER: &str = "https://app.example.com";

impl Keys {
    pub(crate) fn new(kind: TokenKind) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let pair = (kind == TokenKind::Eddsa).then(SigningKey::ed25519);
        if let Some(pair) = &pair {
            let set = json!({ "keys": [pair.jwk("1")] });
            std::fs::write(folder.path().join("jwks.json"), set.to_string())?;
        }
        Ok(Self { secret: "a secret of the load test, longer than thirty-two bytes".to_owned(), pair, folder })
    }

    pub(crate) fn token(&self, user: u32) -> String {
        let id = user_id(user);
        let mut claims = json!({
            "sub": id, "iat": now(), "exp": now() + 24 * 60 * 60, "name": "Ann Example", "email": "ann@example.com",
        });
        match &self.pair {
            None => secret_token(self.secret.as_bytes(), &claims),
            Some(pair) => {
                claims["iss"] = ISSUER.into();
                claims["aud"] = ISSUER.into();
                pair.token("1", &claims)
            }
        }
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        match &self.pair {
            None => vec![("BETTER_AUTH_SECRET", self.secret.clone())],
            Some(_) => vec![
                ("JWKS_FILE", self.folder.path().join("jwks.json").display().to_string()),
                ("JWT_ISSUER", ISSUER.to_owned()),
                ("JWT_AUDIENCE", ISSUER.to_owned()),
            ],
        }
    }
}

/// A running server. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
    metrics: Option<SocketAddr>,
    started: Instant,
}

impl Running {
    /// Starts a server, with its output in the file `log`.
    pub(crate) fn start(kind: Kind, programs: &Programs, keys: &Keys, database: &str, log: &Path) -> io::Result<Self> {
        let program = match kind {
            Kind::Sqlx => Path::new(env!("CARGO_BIN_EXE_baseline-sqlx")),
            Kind::Pipelined => Path::new(env!("CARGO_BIN_EXE_baseline-pipelined")),
            Kind::Empty => Path::new(env!("CARGO_BIN_EXE_empty")),
            Kind::Ours { variant: Variant::OtherBuild(index), .. } => &programs.others[index],
            Kind::Ours { .. } => &programs.todo_server,
            Kind::Pgbench { .. } => return Err(io::Error::other("pgbench is not a server")),
        };
        // Another program could take a port before the server does, which is unlikely.
        let ports = [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
        let (address, metrics) = (ports[0].local_addr()?, ports[1].local_addr()?);
        drop(ports);
        let log = File::create(log)?;
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOST", address.ip().to_string())
            .env("PORT", address.port().to_string())
            .env("DATABASE_URL", database)
            .envs(keys.environment())
            // A directory without a .env.
            .current_dir(keys.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // To measure with other values than the defaults.
        for name in ["POOL_SIZE", "PIPELINES", "DATABASE_MAX_CONNECTIONS", "TOKIO_WORKER_THREADS"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Kind::Ours { framework, variant } = kind {
            command.env("FRAMEWORK", framework.name()).env("METRICS_PORT", metrics.port().to_string());
            command.env("LOG_LEVEL", if variant == Variant::AccessLog { "info" } else { "warn" });
            match variant {
                Variant::Uncoalesced => drop(command.env("COALESCE", "off")),
                Variant::Uncached => drop(command.env("CACHE_MEGABYTES", "0")),
                _ => {}
            }
        }
        let started = Instant::now();
        let metrics = matches!(kind, Kind::Ours { .. }).then_some(metrics);
        Ok(Self { child: command.spawn()?, address, metrics, started })
    }

    /// Waits for the first 200 to this request. Returns the time since the start of the process.
    pub(crate) fn first_response(&mut self, request: &[u8]) -> io::Result<Duration> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the server has ended: {status}")));
            }
            if let Ok(mut stream) = TcpStream::connect(self.address) {
                stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                if let Ok((200, _)) = send(&mut stream, request) {
                    return Ok(self.started.elapsed());
                }
            }
            if self.started.elapsed() > Duration::from_secs(30) {
                return Err(io::Error::other("the server does not respond with 200"));
            }
            thread::sleep(Duration::from_micros(500));
        }
    }

    /// The share of lists that the cache of rendered responses had. `None` without a cache.
    pub(crate) fn cache_hits(&self) -> io::Result<Option<f64>> {
        let Some(metrics) = self.metrics else { return Ok(None) };
        let mut stream = TcpStream::connect(metrics)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let (_, body) = send(&mut stream, b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")?;
        let text = String::from_utf8_lossy(&body);
        let value = |result: &str| {
            let name = format!("todo_cache_reads_total{{result=\"{result}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok())
        };
        let (hits, misses) = (value("hit").unwrap_or_default(), value("miss").unwrap_or_default());
        Ok((hits > 0.0).then(|| hits / (hits + misses)))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
