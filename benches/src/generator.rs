//! A thousand users on one thread.
//!
//! Each user has a connection that stays open, and sends the next request after the response to the one before. There
//! are no queues, no tasks and no copies, since the generator shares the processors with the programs that it measures.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read as _, Write as _},
    net::{self, SocketAddr},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::{
    measure::{Latencies, float},
    response::{Checker, Parsed, Verdict, parse},
    workload::{Operation, User, task_id},
};

/// When users send requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As soon as the response to the previous request has been received (closed loop): the server determines the rate.
    Closed,
    /// At this number of requests per second from all users together, whether or not the server keeps up (open loop).
    /// The latency of a request begins when it should have been sent, so that it includes the wait for a free user.
    Open(f64),
}

/// The plan of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The address of the server.
    pub address: SocketAddr,
    /// How long the load runs before the measurement.
    pub warm_up: Duration,
    /// The duration of the measurement.
    pub window: Duration,
    /// When users send requests.
    pub pace: Pace,
}

/// A moment at which the caller reads the processor times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The measurement begins.
    Begin,
    /// The measurement ends; the load still runs.
    End,
}

/// The result of a measurement.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// By [`Operation::index`].
    pub latencies: [Latencies; 4],
    /// The number of responses in the measurement, correct or not.
    pub responses: u64,
    /// The duration of the measurement.
    pub elapsed: Duration,
    /// The number of responses by status, including the warm-up.
    pub statuses: BTreeMap<u16, u64>,
    /// Responses with an unexpected status.
    pub failures: u64,
    /// Responses with a task of another user.
    pub violations: u64,
    /// Responses without the requested tasks.
    pub wrong: u64,
    /// Broken connections and unsupported responses.
    pub broken: u64,
    /// Requests without a response that were at least five seconds old at the end, or almost as old as the load.
    pub unanswered: u64,
    /// Descriptions of some errors.
    pub examples: Vec<String>,
}

impl Outcome {
    /// Responses per second.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        float(self.responses) / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The number of errors without violations.
    #[must_use]
    pub const fn errors(&self) -> u64 {
        self.failures + self.wrong + self.broken + self.unanswered
    }

    /// The latencies of all operations.
    #[must_use]
    pub fn all(&self) -> Latencies {
        self.latencies.iter().fold(Latencies::default(), |mut all, latencies| {
            all.add(latencies);
            all
        })
    }

    fn example(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < 5 {
            self.examples.push(example());
        }
    }
}

/// Runs the load.
///
/// # Errors
///
/// The server is unreachable, or almost all responses are errors.
pub fn run(plan: Plan, users: Vec<User>, checker: &Checker, observe: &mut dyn FnMut(Edge)) -> io::Result<Outcome> {
    let poll = Poll::new()?;
    let mut connections = Vec::with_capacity(users.len());
    for user in users {
        let stream = connect(&poll, plan.address, connections.len())?;
        connections.push(Connection { stream, user, sent: None, received: Vec::new() });
    }
    let now = Instant::now();
    let mut load = Load {
        plan,
        begin: now + plan.warm_up,
        end: now + plan.warm_up + plan.window,
        idle: VecDeque::new(),
        late: VecDeque::new(),
        next_arrival: now,
        poll,
        connections,
        scratch: vec![0; 64 * 1024].into_boxed_slice(),
        checker,
        outcome: Outcome::default(),
    };
    load.run(observe)?;
    Ok(load.outcome)
}

struct Connection {
    stream: TcpStream,
    user: User,
    sent: Option<Sent>,
    /// The beginning of a response that arrives in several pieces.
    received: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Sent {
    operation: Operation,
    task: u32,
    /// The beginning of its latency.
    at: Instant,
}

struct Load<'a> {
    plan: Plan,
    begin: Instant,
    end: Instant,
    /// In an open loop: the users without a request, and the requests that are late.
    idle: VecDeque<usize>,
    late: VecDeque<Instant>,
    next_arrival: Instant,
    poll: Poll,
    connections: Vec<Connection>,
    scratch: Box<[u8]>,
    checker: &'a Checker,
    outcome: Outcome,
}

impl Load<'_> {
    fn run(&mut self, observe: &mut dyn FnMut(Edge)) -> io::Result<()> {
        match self.plan.pace {
            Pace::Closed => (0..self.connections.len()).for_each(|index| self.send(index, Instant::now())),
            Pace::Open(_) => self.idle = (0..self.connections.len()).collect(),
        }
        let mut events = Events::with_capacity(1024);
        let mut begun = None;
        loop {
            let now = Instant::now();
            if begun.is_none() && now >= self.begin {
                observe(Edge::Begin);
                self.begin = Instant::now();
                self.end = self.begin + self.plan.window;
                begun = Some(self.begin);
            }
            if now >= self.end && begun.is_some() {
                break;
            }
            let mut patience = if begun.is_some() { self.end - now } else { self.begin - now };
            if let Pace::Open(rate) = self.plan.pace {
                self.arrive(now, rate);
                patience = patience.min(self.next_arrival.saturating_duration_since(now));
            }
            self.turn(&mut events, patience)?;
        }
        observe(Edge::End);
        self.outcome.elapsed = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        self.finish(&mut events)
    }

    /// In an open loop, waits for the requests that were due within the measurement. Then counts requests without a
    /// response.
    fn finish(&mut self, events: &mut Events) -> io::Result<()> {
        if self.plan.pace != Pace::Closed {
            let deadline = Instant::now() + Duration::from_secs(10);
            while Instant::now() < deadline && self.idle.len() < self.connections.len() {
                self.turn(events, Duration::from_millis(10))?;
            }
        }
        let now = Instant::now();
        let long = (self.plan.warm_up + self.plan.window).mul_f64(0.8).min(Duration::from_secs(5));
        let sent = self.connections.iter().filter_map(|connection| Some(connection.sent?.at));
        let old = sent.chain(self.late.iter().copied()).filter(|at| now - *at >= long).count();
        self.outcome.unanswered = old.try_into().unwrap_or(u64::MAX);
        if old > 0 {
            self.outcome.example(|| format!("{old} requests had no response after {long:?}"));
        }
        Ok(())
    }

    /// Sends the requests that are due, if users are free.
    fn arrive(&mut self, now: Instant, rate: f64) {
        let pause = Duration::from_secs_f64(1.0 / rate.max(1.0));
        while self.next_arrival <= now && self.next_arrival < self.end {
            match self.idle.pop_front() {
                Some(index) => self.send(index, self.next_arrival),
                None => self.late.push_back(self.next_arrival),
            }
            self.next_arrival += pause;
        }
    }

    /// Reads the received responses and sends the next requests.
    fn turn(&mut self, events: &mut Events, patience: Duration) -> io::Result<()> {
        match self.poll.poll(events, Some(patience)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in &*events {
            let Token(index) = event.token();
            self.receive(index)?;
        }
        Ok(())
    }

    fn send(&mut self, index: usize, at: Instant) {
        let connection = &mut self.connections[index];
        let request = connection.user.next_request();
        connection.sent = Some(Sent { operation: request.operation, task: request.task, at });
        // A request fits into the buffer of any socket, and there is one at a time. So it is written whole, or the
        // connection is broken, which the next read reports.
        let length = request.bytes.len();
        if !matches!(connection.stream.write(request.bytes), Ok(written) if written == length) {
            let _ = connection.stream.shutdown(net::Shutdown::Both);
        }
    }

    /// Continues with a user after a response.
    fn continue_with(&mut self, index: usize) {
        match self.plan.pace {
            Pace::Closed => self.send(index, Instant::now()),
            Pace::Open(_) => match self.late.pop_front() {
                Some(at) => self.send(index, at),
                None => self.idle.push_back(index),
            },
        }
    }

    fn receive(&mut self, index: usize) -> io::Result<()> {
        loop {
            let connection = &mut self.connections[index];
            let count = match connection.stream.read(&mut self.scratch) {
                Ok(0) => return self.reconnect(index, "the server closed a connection"),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return self.reconnect(index, "a connection broke"),
            };
            let Some(sent) = connection.sent else {
                return self.reconnect(index, "a response without a request");
            };
            // Most responses arrive in one piece, which is not copied.
            let in_pieces = !connection.received.is_empty();
            if in_pieces {
                connection.received.extend_from_slice(&self.scratch[..count]);
            }
            let bytes = if in_pieces { &connection.received[..] } else { &self.scratch[..count] };
            match parse(bytes) {
                Parsed::Partial => {
                    if !in_pieces {
                        connection.received.extend_from_slice(&self.scratch[..count]);
                    }
                }
                Parsed::Bad(why) => return self.reconnect(index, why),
                Parsed::Whole { length, .. } if length != bytes.len() => {
                    return self.reconnect(index, "more than one response");
                }
                Parsed::Whole { status, body, .. } => {
                    let now = Instant::now();
                    record(&mut self.outcome, self.checker, &connection.user, sent, status, body);
                    let is_measured = match self.plan.pace {
                        Pace::Closed => now >= self.begin && now <= self.end,
                        Pace::Open(_) => sent.at >= self.begin && sent.at < self.end,
                    };
                    if is_measured {
                        self.outcome.latencies[sent.operation.index()].record(now - sent.at);
                    }
                    if now >= self.begin && now <= self.end {
                        self.outcome.responses += 1;
                    }
                    connection.sent = None;
                    connection.received.clear();
                    self.continue_with(index);
                    // Nothing more can arrive before the next response, which is another event.
                    return Ok(());
                }
            }
        }
    }

    fn reconnect(&mut self, index: usize, why: &str) -> io::Result<()> {
        self.outcome.broken += 1;
        self.outcome.example(|| why.to_owned());
        let too_many = 5 * self.connections.len() as u64 + 20;
        if self.outcome.broken > too_many {
            return Err(io::Error::other(format!("{} connections broke: {why}", self.outcome.broken)));
        }
        let fresh = connect(&self.poll, self.plan.address, index)?;
        let connection = &mut self.connections[index];
        let mut old = std::mem::replace(&mut connection.stream, fresh);
        let _ = self.poll.registry().deregister(&mut old);
        connection.received.clear();
        connection.sent = None;
        self.continue_with(index);
        Ok(())
    }
}

fn connect(poll: &Poll, address: SocketAddr, index: usize) -> io::Result<TcpStream> {
    let stream = net::TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream);
    poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
    Ok(stream)
}

fn record(outcome: &mut Outcome, checker: &Checker, user: &User, sent: Sent, status: u16, body: &[u8]) {
    *outcome.statuses.entry(status).or_default() += 1;
    let task = task_id(user.number(), sent.task);
    let why = match checker.check(sent.operation, user.id(), &task, status, body) {
        Verdict::Right => return,
        Verdict::Status => {
            outcome.failures += 1;
            "not the status of success"
        }
        Verdict::Foreign => {
            outcome.violations += 1;
            "a task of another user"
        }
        Verdict::Wrong(why) => {
            outcome.wrong += 1;
            why
        }
    };
    outcome.example(|| {
        let start = String::from_utf8_lossy(&body[..body.len().min(200)]);
        format!("{} of {}: {status}, {why}: {start}", sent.operation.name(), user.id())
    });
}

/// Sends a request on a separate connection and waits for the response. Returns status and body.
///
/// # Errors
///
/// The connection broke, no response arrived in time, or the response is not supported.
pub fn send(stream: &mut net::TcpStream, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    stream.write_all(request)?;
    let mut received = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(&piece[..count]);
        match parse(&received) {
            Parsed::Partial => {}
            Parsed::Whole { status, body, .. } => return Ok((status, body.to_vec())),
            Parsed::Bad(why) => return Err(io::Error::other(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;
    use crate::workload::{Mix, PAGE, TITLE, user_id};

    /// A server for these tests: `response` gets the first line of a request and the user, which is the token.
    fn serve(respond: impl Fn(&str, &str) -> (u16, String) + Clone + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, respond) = (stream.unwrap(), respond.clone());
                stream.set_nodelay(true).unwrap();
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        let request = String::from_utf8_lossy(&buffer[..count]).into_owned();
                        let user = request.split("Bearer ").nth(1).unwrap().lines().next().unwrap();
                        let (status, body) = respond(request.lines().next().unwrap(), user);
                        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
                        // In two pieces.
                        let whole = head + &body;
                        let (one, other) = whole.split_at(whole.len() / 2);
                        stream.write_all(one.as_bytes()).unwrap();
                        stream.write_all(other.as_bytes()).unwrap();
                    }
                });
            }
        });
        address
    }

    fn task(id: &str, user: &str) -> String {
        format!(r#"{{"id":"{id}","user_id":"{user}","title":"{TITLE}"}}"#)
    }

    /// The correct response.
    fn honest(line: &str, user: &str) -> (u16, String) {
        let some = task_id(0, 0);
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["GET", "/api/tasks?limit=20", _] => (200, format!("[{}]", vec![task(&some, user); PAGE].join(","))),
            ["POST", ..] => (201, task(&some, user)),
            [_, path, _] => (200, task(path.split('/').nth(3).unwrap(), user)),
            _ => (400, String::new()),
        }
    }

    fn outcome_of(address: SocketAddr, pace: Pace) -> Outcome {
        let plan = Plan { address, warm_up: Duration::from_millis(50), window: Duration::from_millis(300), pace };
        let users = (0..5).map(|number| User::new(number, &user_id(number), Mix::Usual)).collect();
        let mut edges = Vec::new();
        let outcome = run(plan, users, &Checker::for_tasks(), &mut |edge| edges.push(edge)).unwrap();
        assert_eq!(edges, [Edge::Begin, Edge::End]);
        outcome
    }

    #[test]
    fn a_correct_server_has_no_errors() {
        let outcome = outcome_of(serve(honest), Pace::Closed);
        assert_eq!((outcome.errors(), outcome.violations), (0, 0), "{:?}", outcome.examples);
        assert!(outcome.responses > 20 && outcome.all().count() == outcome.responses);
        assert!(outcome.latencies.iter().all(|latencies| latencies.count() > 0));
        assert_eq!(outcome.statuses.keys().copied().collect::<Vec<_>>(), [200, 201]);
    }

    #[test]
    fn tasks_of_other_users_are_counted_as_violations() {
        let other = user_id(77);
        let outcome = outcome_of(
            serve(move |line, user| {
                let (status, body) = honest(line, user);
                // One of twenty tasks, for one of five users.
                (status, if user == user_id(3) { body.replacen(user, &other, 1) } else { body })
            }),
            Pace::Closed,
        );
        assert!(outcome.violations > 0 && outcome.violations < outcome.responses);
        assert_eq!(outcome.errors(), 0);
    }

    #[test]
    fn a_missing_task_is_counted_as_wrong() {
        let short = |line: &str, user: &str| {
            let (status, body) = honest(line, user);
            (status, body.replacen(&(task(&task_id(0, 0), user) + ","), "", 1))
        };
        let outcome = outcome_of(serve(short), Pace::Closed);
        assert!(outcome.wrong > 0 && outcome.wrong < outcome.responses);
        assert_eq!((outcome.failures, outcome.violations), (0, 0));
    }

    #[test]
    fn an_error_status_is_counted_as_a_failure() {
        let failing =
            |line: &str, user: &str| if line.starts_with("POST") { (500, String::new()) } else { honest(line, user) };
        let outcome = outcome_of(serve(failing), Pace::Closed);
        assert!(outcome.failures > 0 && outcome.failures == outcome.statuses[&500]);
        assert_eq!((outcome.wrong, outcome.violations), (0, 0));
        assert!(outcome.examples[0].starts_with("create of "), "{:?}", outcome.examples);
    }

    #[test]
    fn an_open_loop_keeps_its_rate() {
        let outcome = outcome_of(serve(honest), Pace::Open(200.0));
        // 300 ms at 200 per second.
        let count = outcome.all().count();
        assert!((55..=65).contains(&count), "{count}");
        assert_eq!((outcome.errors(), outcome.violations), (0, 0), "{:?}", outcome.examples);
    }

    #[test]
    fn the_latency_includes_the_wait_for_a_free_user() {
        // 5 users with 50 ms per request reach 100 requests per second; 200 are due.
        let slow = |line: &str, user: &str| {
            thread::sleep(Duration::from_millis(50));
            honest(line, user)
        };
        let closed = outcome_of(serve(slow), Pace::Closed).all().quantile(0.9);
        let open = outcome_of(serve(slow), Pace::Open(200.0)).all().quantile(0.9);
        assert!(open > closed + 50.0, "{open} ms are not much more than {closed} ms");
    }

    #[test]
    fn a_missing_response_is_counted() {
        let silent = |_: &str, user: &str| {
            if user == user_id(2) {
                thread::sleep(Duration::from_secs(5));
            }
            honest("GET /api/tasks?limit=20 HTTP/1.1", user)
        };
        let outcome = outcome_of(serve(silent), Pace::Closed);
        assert_eq!(outcome.unanswered, 1, "{:?}", outcome.examples);
        assert!(outcome.errors() > 0);
    }

    #[test]
    fn a_server_that_closes_every_connection_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || listener.incoming().for_each(drop));
        let plan = Plan { address, warm_up: Duration::ZERO, window: Duration::from_secs(5), pace: Pace::Closed };
        let users = vec![User::new(0, "token", Mix::Usual)];
        let error = run(plan, users, &Checker::for_tasks(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("broke"), "{error}");
    }
}
