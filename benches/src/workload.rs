//! The requests of each user. The ids of users and tasks are computed from their numbers, so that one statement can
//! fill the database, and so that the owner of each task is known.

use std::fmt;

/// The number of users in the database.
pub const USERS: u32 = 10_000;
/// The number of tasks of each user at the beginning.
pub const TASKS: u32 = 20;
/// The number of tasks in a list.
pub const PAGE: usize = 20;

/// The operation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `GET /api/tasks?limit=20`.
    List,
    /// `GET /api/tasks/{id}` of one of the initial tasks.
    Get,
    /// `POST /api/tasks`.
    Create,
    /// `PATCH /api/tasks/{id}/complete` of one of the initial tasks.
    Toggle,
}

impl Operation {
    /// All operations, in the order of [`index`](Self::index).
    pub const ALL: [Self; 4] = [Self::List, Self::Get, Self::Create, Self::Toggle];

    /// The index in arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Get => "get",
            Self::Create => "create",
            Self::Toggle => "toggle",
        }
    }
}

/// How many requests are reads and changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mix {
    /// 60 % lists, 25 % gets, 10 % creations, 5 % toggles.
    #[default]
    Usual,
    /// 35 % lists, 15 % gets, 25 % creations, 25 % toggles.
    HalfWrites,
    /// Only lists, of which nothing changes.
    Lists,
    /// Toggles and lists in turn: no list is like the one before it.
    ChangedLists,
}

impl Mix {
    /// The number of requests with this operation among a hundred.
    #[must_use]
    pub const fn percent(self, operation: Operation) -> u64 {
        let percents = match self {
            Self::Usual => [60, 25, 10, 5],
            Self::HalfWrites => [35, 15, 25, 25],
            Self::Lists => [100, 0, 0, 0],
            Self::ChangedLists => [50, 0, 0, 50],
        };
        percents[operation.index()]
    }

    /// What the mix consists of, for a report.
    #[must_use]
    pub fn description(self) -> String {
        let parts = Operation::ALL.into_iter().filter(|operation| self.percent(*operation) > 0);
        let parts: Vec<_> =
            parts.map(|operation| format!("{} % {}", self.percent(operation), operation.name())).collect();
        parts.join(", ")
    }

    fn draw(self, random: &mut Random, last: Operation) -> Operation {
        if self == Self::ChangedLists {
            return if last == Operation::Toggle { Operation::List } else { Operation::Toggle };
        }
        let mut left = random.below(100);
        for operation in Operation::ALL {
            match left.checked_sub(self.percent(operation)) {
                Some(rest) => left = rest,
                None => return operation,
            }
        }
        Operation::List
    }
}

/// The id of a user: 32 letters and digits, like those of Better Auth.
#[must_use]
pub fn user_id(user: u32) -> String {
    format!("userOfTheLoadTest00000{}", 1_000_000_000 + user)
}

/// The id of one of the first [`TASKS`] tasks of a user: a UUID of version 7, older than those of new tasks.
#[must_use]
pub fn task_id(user: u32, task: u32) -> String {
    format!("01900000-0000-7000-8000-{}", 100_000_000_000 + u64::from(user) * 100 + u64::from(task))
}

/// SQL that fills the empty table `todo.tasks` of PostgreSQL with the tasks of so many users. They alternate, so that the
/// tasks of one user are not next to each other on disk.
#[must_use]
pub fn fill_postgres(users: u32) -> String {
    format!(
        "insert into todo.tasks (user_id, id, title, description, completed, created_at, updated_at, version)
         select 'userOfTheLoadTest00000' || (1000000000 + u),
             ('01900000-0000-7000-8000-' || (100000000000 + u * 100 + t))::uuid,
             'Task ' || t || ' of user ' || u || ': water the plants',
             case when t % 2 = 0 then 'Those on the balcony need twice as much.' end,
             t % 3 = 0, at, at, 1
         from generate_series(0, {TASKS} - 1) t, generate_series(0, {users} - 1) u,
             lateral (select timestamptz '2024-11-21 08:00Z' + (t::bigint * {users} + u) * interval '1234567 us') as moment (at)
         order by t, u"
    )
}

/// SQL that fills the empty table `todo_tasks` of SQLite with the same tasks.
#[must_use]
pub fn fill_sqlite() -> String {
    format!(
        "with recursive
             task (t) as (select 0 union all select t + 1 from task where t < {TASKS} - 1),
             person (u) as (select 0 union all select u + 1 from person where u < {USERS} - 1)
         insert into todo_tasks (user_id, id, title, description, completed, created_at, updated_at, version)
         select 'userOfTheLoadTest00000' || (1000000000 + u),
             unhex('01900000000070008000' || (100000000000 + u * 100 + t)),
             'Task ' || t || ' of user ' || u || ': water the plants',
             case when t % 2 = 0 then 'Those on the balcony need twice as much.' end,
             t % 3 = 0, 1763712000000000 + (t * 10000 + u) * 1234567, 1763712000000000 + (t * 10000 + u) * 1234567, 1
         from task, person order by t, u"
    )
}

/// The title of all created tasks.
pub const TITLE: &str = "Buy milk, bread and something for the guests";

/// The requests of one user, in a random order that is the same in each run.
pub struct User {
    number: u32,
    id: String,
    mix: Mix,
    last: Operation,
    random: Random,
    list: Vec<u8>,
    get: Vec<u8>,
    create: Vec<u8>,
    toggle: Vec<u8>,
    /// The position of the task's id in `get` and `toggle`.
    name_in_get: usize,
    name_in_toggle: usize,
}

/// A request to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The operation.
    pub operation: Operation,
    /// The number of the task, if the operation has one.
    pub task: u32,
    /// The bytes of the request.
    pub bytes: &'a [u8],
}

impl User {
    /// Creates the requests of this user.
    #[must_use]
    pub fn new(number: u32, token: &str, mix: Mix) -> Self {
        let head = |line: &str, more: &str| {
            let fixed = "host: 127.0.0.1\r\naccept: application/json\r\n";
            format!("{line} HTTP/1.1\r\n{fixed}authorization: Bearer {token}\r\n{more}\r\n")
        };
        let get = "GET /api/tasks/";
        let toggle = "PATCH /api/tasks/";
        let some = task_id(number, 0);
        let body = format!(r#"{{"title":"{TITLE}","description":"Not the one from last time."}}"#);
        let json = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        Self {
            number,
            id: user_id(number),
            mix,
            last: Operation::List,
            random: Random::new(u64::from(number)),
            list: head(&format!("GET /api/tasks?limit={PAGE}"), "").into_bytes(),
            get: head(&format!("{get}{some}"), "").into_bytes(),
            create: (head("POST /api/tasks", &json) + &body).into_bytes(),
            toggle: head(&format!("{toggle}{some}/complete"), "content-length: 0\r\n").into_bytes(),
            name_in_get: get.len(),
            name_in_toggle: toggle.len(),
        }
    }

    /// The user's id, which is the owner of all tasks in the responses.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The user's number.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The next request.
    pub fn next_request(&mut self) -> Request<'_> {
        let operation = self.mix.draw(&mut self.random, self.last);
        self.last = operation;
        let task = u32::try_from(self.random.below(u64::from(TASKS))).unwrap_or(0);
        let (bytes, position) = match operation {
            Operation::List => (&mut self.list, None),
            Operation::Create => (&mut self.create, None),
            Operation::Get => (&mut self.get, Some(self.name_in_get)),
            Operation::Toggle => (&mut self.toggle, Some(self.name_in_toggle)),
        };
        if let Some(position) = position {
            bytes[position..position + 36].copy_from_slice(task_id(self.number, task).as_bytes());
        }
        Request { operation, task, bytes }
    }

    /// A list, outside of the random order.
    #[must_use]
    pub fn list(&self) -> &[u8] {
        &self.list
    }
}

/// Without the token.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("id", &self.id).finish_non_exhaustive()
    }
}

/// `SplitMix64`: sufficient here, and the same on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// Mixes the seed, since neighbouring seeds would otherwise give shifted copies of one sequence.
    fn new(seed: u64) -> Self {
        let mut first = Self(seed);
        Self(first.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn ids_are_as_long_as_real_ones() {
        assert_eq!(user_id(0).len(), 32);
        assert_eq!(user_id(USERS - 1).len(), 32);
        for id in [task_id(0, 0), task_id(USERS - 1, TASKS - 1)] {
            let id: uuid::Uuid = id.parse().unwrap();
            assert_eq!(id.get_version_num(), 7);
        }
    }

    #[test]
    fn the_mix_of_operations_is_as_documented() {
        for mix in Mix::value_variants() {
            let mut counts = [0_u32; 4];
            for number in 0..100 {
                let mut user = User::new(number, "token", *mix);
                for _ in 0..1000 {
                    counts[user.next_request().operation.index()] += 1;
                }
            }
            for (operation, count) in Operation::ALL.into_iter().zip(counts) {
                let percent = f64::from(count) / 1000.0;
                let wanted = f64::from(u32::try_from(mix.percent(operation)).unwrap());
                assert!((percent - wanted).abs() < 0.5, "{mix:?}, {}: {percent} %", operation.name());
            }
            assert_eq!(Operation::ALL.iter().map(|operation| mix.percent(*operation)).sum::<u64>(), 100);
        }
        assert_eq!(Mix::Usual.description(), "60 % list, 25 % get, 10 % create, 5 % toggle");
    }

    #[test]
    fn a_request_contains_the_id_of_its_task() {
        let mut user = User::new(7, "token", Mix::Usual);
        let mut seen = [false; 4];
        for _ in 0..1000 {
            let Request { operation, task, bytes } = user.next_request();
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            let id = task_id(7, task);
            let line = match operation {
                Operation::List => "GET /api/tasks?limit=20 HTTP/1.1\r\n".to_owned(),
                Operation::Get => format!("GET /api/tasks/{id} HTTP/1.1\r\n"),
                Operation::Create => "POST /api/tasks HTTP/1.1\r\n".to_owned(),
                Operation::Toggle => format!("PATCH /api/tasks/{id}/complete HTTP/1.1\r\n"),
            };
            assert!(text.starts_with(&line), "{text}");
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("\r\nauthorization: Bearer token"), "{head}");
            if operation == Operation::Create {
                assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
            }
            seen[operation.index()] = true;
        }
        assert_eq!(seen, [true; 4]);
    }

    #[test]
    fn runs_are_the_same_and_users_differ() {
        let drawn = |number| {
            let mut user = User::new(number, "token", Mix::Usual);
            let mut next = || {
                let request = user.next_request();
                (request.operation, request.task)
            };
            (0..50).map(|_| next()).collect::<Vec<_>>()
        };
        let mut random = drawn(1);
        assert_eq!(random, drawn(1));
        assert_ne!(random, drawn(2));
        random.rotate_left(1);
        assert_ne!(random[..49], drawn(2)[..49]);
    }
}
