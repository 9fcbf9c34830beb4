//! One measurement: a fresh database, a server, and the load.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use testkit::process;
use todo_benches::{
    generator::{Edge, Pace, Plan, run, send},
    measure::{Latencies, Spread, Summary, float},
    response::Checker,
    workload::{Operation, User},
};

use crate::{
    contenders::{Contender, Keys, Kind, Programs, Running, Variant},
    options::{Framework, Options},
    postgres::{Databases, Failure, Pgbench, Wal},
};

/// The resources of a measurement.
pub(crate) struct Bench<'a> {
    pub(crate) options: &'a Options,
    pub(crate) programs: &'a Programs,
    pub(crate) keys: &'a Keys,
    /// A token for each user.
    pub(crate) tokens: &'a [String],
    pub(crate) databases: &'a mut Databases,
    /// The folder of the servers' logs.
    pub(crate) folder: PathBuf,
}

/// The result of one contender in one round.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Measured {
    pub(crate) contender: String,
    pub(crate) round: u32,
    /// The rate of an open loop; `None` for a closed loop.
    pub(crate) offered: Option<f64>,
    pub(crate) requests_per_second: f64,
    pub(crate) operations: BTreeMap<&'static str, Summary>,
    pub(crate) all: Summary,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) errors: u64,
    pub(crate) violations: u64,
    pub(crate) examples: Vec<String>,
    /// Processor seconds per thousand requests.
    pub(crate) server_cpu: Option<f64>,
    pub(crate) database_cpu: Option<f64>,
    /// The peak of the resident memory; for the database, the sum of Pss at the end.
    pub(crate) server_mib: Option<f64>,
    pub(crate) database_mib: Option<f64>,
    /// As a share of one processor.
    pub(crate) generator_cpu: Option<f64>,
    /// Processor time outside of the measurement: other programs, the host of the virtual machine, interrupts. As a
    /// share of one processor.
    pub(crate) elsewhere_cpu: Option<f64>,
    /// The maximum latency of the probes, which are sent twice per second, and the number of failed ones.
    pub(crate) health_max_ms: Option<f64>,
    pub(crate) health_failures: u64,
    /// Bytes of the write-ahead log for each request.
    pub(crate) wal: Option<f64>,
    /// The share of lists that were in the cache of rendered responses.
    pub(crate) cache_hits: Option<f64>,
    #[serde(skip)]
    pub(crate) latencies: Latencies,
}

/// The start of a server and its memory without load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Footprint {
    pub(crate) contender: String,
    pub(crate) database: &'static str,
    pub(crate) first_answer_ms: Spread,
    pub(crate) starts: usize,
    pub(crate) idle_mib: f64,
    pub(crate) connections: u32,
    pub(crate) idle_with_connections_mib: f64,
}

fn mib(kib: u64) -> f64 {
    float(kib) / 1024.0
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Processor times at a moment, or between two moments.
#[derive(Clone, Copy)]
struct Used {
    at: Instant,
    server: Duration,
    database: Duration,
    generator: Duration,
    machine: Duration,
}

impl Bench<'_> {
    fn user(&self, number: u32) -> User {
        User::new(number, &self.tokens[number as usize], self.options.mix)
    }

    fn start(&self, contender: &Contender, database: &str) -> io::Result<Running> {
        let log = self.folder.join(format!("{}.log", contender.name));
        Running::start(contender.kind, self.programs, self.keys, database, &log)
    }

    /// Measures a contender once, on a new database.
    pub(crate) fn measure(&mut self, contender: &Contender, round: u32, pace: Pace) -> Result<Measured, Failure> {
        let fresh = self.databases.fresh(contender.kind, self.programs)?;
        let mut measured = match contender.kind {
            Kind::Pgbench { pipelined } => self.pgbench(&fresh, pipelined)?,
            _ => self.load(contender, &fresh.url, pace)?,
        };
        self.databases.discard(&fresh)?;
        measured.contender.clone_from(&contender.name);
        measured.round = round;
        Ok(measured)
    }

    fn load(&mut self, contender: &Contender, database: &str, pace: Pace) -> Result<Measured, Failure> {
        let users: Vec<_> = (0..self.options.users).map(|number| self.user(number)).collect();
        let mut server = self.start(contender, database)?;
        server.first_response(users[0].list())?;
        let (id, address) = (server.id(), server.address);
        let plan = Plan { address, warm_up: self.options.warm_up(), window: self.options.window(), pace };
        let checker = if contender.kind == Kind::Empty { Checker::for_statuses() } else { Checker::for_tasks() };

        let (mut edges, mut memory) = (Vec::new(), None);
        let databases = &*self.databases;
        let mut wal = databases.wal()?;
        let mut written = Vec::new();
        let mut observe = |edge| {
            written.extend(wal.as_mut().and_then(Wal::bytes));
            edges.push(Used {
                at: Instant::now(),
                server: process::cpu(id),
                database: databases.cpu(),
                generator: process::cpu_of_this_thread(),
                machine: process::cpu_of_machine(),
            });
            if edge == Edge::End {
                memory = Some((process::peak_kib(id), databases.memory_kib()));
            }
        };
        let stop = AtomicBool::new(false);
        let (outcome, health) = thread::scope(|scope| {
            let health = scope.spawn(|| probe(address, plan.warm_up, &stop));
            let outcome = run(plan, users, &checker, &mut observe);
            stop.store(true, Ordering::Relaxed);
            (outcome, health.join())
        });
        let outcome = outcome?;
        let health = health.map_err(|_| "the probe panicked")?;

        let [begin, end] = edges[..] else { return Err("the load has no beginning or no end".into()) };
        let used = Used {
            at: end.at,
            server: end.server.saturating_sub(begin.server),
            database: end.database.saturating_sub(begin.database),
            generator: end.generator.saturating_sub(begin.generator),
            machine: end.machine.saturating_sub(begin.machine),
        };
        let share = |used: Duration| used.as_secs_f64() / (end.at - begin.at).as_secs_f64();
        let per_thousand = |used: Duration| used.as_secs_f64() * 1000.0 / float(outcome.responses.max(1));
        let needs_no_database = contender.kind == Kind::Empty;
        let (server_kib, database_kib) = memory.unwrap_or_default();
        Ok(Measured {
            offered: match pace {
                Pace::Closed => None,
                Pace::Open(rate) => Some(rate),
            },
            requests_per_second: outcome.throughput(),
            operations: Operation::ALL
                .map(|operation| (operation.name(), outcome.latencies[operation.index()].summary()))
                .into(),
            all: outcome.all().summary(),
            errors: outcome.errors(),
            violations: outcome.violations,
            server_cpu: Some(per_thousand(used.server)),
            database_cpu: database_kib.filter(|_| !needs_no_database).map(|_| per_thousand(used.database)),
            server_mib: Some(mib(server_kib)),
            database_mib: database_kib.filter(|_| !needs_no_database).map(mib),
            generator_cpu: Some(share(used.generator)),
            elsewhere_cpu: Some(share(used.machine.saturating_sub(used.server + used.database + used.generator))),
            health_max_ms: Some(milliseconds(health.slowest)),
            health_failures: health.failures,
            wal: match written[..] {
                [begin, end] => Some(float(end.saturating_sub(begin)) / float(outcome.responses.max(1))),
                _ => None,
            },
            cache_hits: server.cache_hits()?,
            latencies: outcome.all(),
            statuses: outcome.statuses,
            examples: outcome.examples,
            ..Measured::default()
        })
    }

    fn pgbench(&mut self, fresh: &crate::postgres::Fresh, pipelined: bool) -> Result<Measured, Failure> {
        let Databases::Postgres(cluster) = &*self.databases else { return Err("pgbench needs PostgreSQL".into()) };
        let (users, duration) = (self.options.users, self.options.window());
        let before = self.databases.cpu();
        let rate = cluster.pgbench(fresh, Pgbench { pipelined, users, duration })?;
        let used = self.databases.cpu().saturating_sub(before);
        Ok(Measured {
            requests_per_second: rate,
            database_cpu: Some(used.as_secs_f64() * 1000.0 / (rate * duration.as_secs_f64()).max(1.0)),
            ..Measured::default()
        })
    }

    /// Measures the time to the first response, and the memory without load.
    pub(crate) fn footprint(&mut self, contender: &Contender, starts: usize) -> Result<Footprint, Failure> {
        let database = if matches!(self.databases, Databases::Postgres(_)) { "PostgreSQL" } else { "SQLite" };
        let fresh = self.databases.fresh(contender.kind, self.programs)?;
        let first = self.user(0);
        let mut times = Vec::new();
        for _ in 1..starts {
            times.push(milliseconds(self.start(contender, &fresh.url)?.first_response(first.list())?));
        }
        let mut server = self.start(contender, &fresh.url)?;
        times.push(milliseconds(server.first_response(first.list())?));
        thread::sleep(Duration::from_secs(1));
        let idle = process::resident_kib(server.id());
        let mut connections = Vec::new();
        for number in 0..self.options.users {
            let mut stream = TcpStream::connect(server.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            send(&mut stream, self.user(number).list())?;
            connections.push(stream);
        }
        thread::sleep(Duration::from_secs(1));
        let footprint = Footprint {
            contender: contender.name.clone(),
            database,
            first_answer_ms: Spread::of(times).ok_or("no start was measured")?,
            starts,
            idle_mib: mib(idle),
            connections: self.options.users,
            idle_with_connections_mib: mib(process::resident_kib(server.id())),
        };
        drop((server, connections));
        self.databases.discard(&fresh)?;
        Ok(footprint)
    }
}

/// todo-server with axum and its defaults.
pub(crate) fn usual() -> Contender {
    let kind = Kind::Ours { framework: Framework::Axum, variant: Variant::Usual };
    Contender { name: "todo-server".to_owned(), kind }
}

#[derive(Default)]
struct Health {
    slowest: Duration,
    failures: u64,
}

/// Sends a liveness probe twice per second, like an orchestrator.
fn probe(address: SocketAddr, warm_up: Duration, stop: &AtomicBool) -> Health {
    thread::sleep(warm_up);
    let mut health = Health::default();
    let mut kept: Option<TcpStream> = None;
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let connect = || {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            Ok(stream)
        };
        let response = kept.take().map_or_else(connect, Ok).and_then(|mut stream: TcpStream| {
            let (status, _) = send(&mut stream, b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")?;
            Ok::<_, io::Error>((status, stream))
        });
        // A probe that is interrupted by the end of the load is not a failure.
        if stop.load(Ordering::Relaxed) {
            break;
        }
        health.slowest = health.slowest.max(asked.elapsed());
        match response {
            Ok((200, stream)) => kept = Some(stream),
            _ => health.failures += 1,
        }
        thread::sleep(Duration::from_millis(500).saturating_sub(asked.elapsed()));
    }
    health
}
