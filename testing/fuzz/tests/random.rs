//! Runs the check of requests with random, mostly valid requests, the same in every run: on stable Rust, without a fuzzer.
//!
//! `RANDOM_REQUESTS` is the number of inputs, of up to 16 requests each.

use todo_core::api::{Operation, PROBES, RESOURCES, Resource};

/// A generator of random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }
}

/// The bytes with which [`todo_fuzz::respond::check`] makes mostly valid requests.
struct Choices {
    random: Random,
    bytes: Vec<u8>,
}

impl Choices {
    /// Adds one of these choices, or now and then any other.
    fn add(&mut self, choices: &[u8]) {
        let byte =
            if self.random.next().is_multiple_of(300) { self.random.byte() } else { self.random.choose(choices) };
        self.bytes.push(byte);
    }

    fn request(&mut self) {
        let resources: Vec<&Resource> = RESOURCES.iter().chain(PROBES).collect();
        // The first request creates a task, since requests about one have other choices if there is none. Later ones are mostly
        // creations, and requests about one task.
        let is_first = self.bytes.is_empty();
        let number = match self.random.byte() {
            _ if is_first => 0,
            0..80 => 0,
            80..180 => self.random.choose(&[6, 6, 7, 8, 15, 15, 16, 17]),
            _ => self.random.byte() % 19,
        };
        let resource = resources[usize::from(number)];
        let operations = resource.operations;
        let (method, operation) = match self.random.byte() {
            _ if is_first => &operations[1],
            0..100 if number == 0 => &operations[1],
            100..180 if number == 0 => &operations[0],
            // A change of one task, or what else a path is for; reads of one task say little.
            0..200 if number != 0 => &operations[operations.len().saturating_sub(2).min(2)],
            _ => &operations[usize::from(self.random.byte()) % operations.len()],
        };
        let methods = ["GET", "POST", "PATCH", "PUT", "DELETE"];
        let method = methods.iter().position(|known| *known == method.as_str()).expect("a method of the API");
        // Mostly the same user, so that requests find tasks.
        let user = u8::from(self.random.byte() < 50);
        if is_first {
            // The user with a valid token, no query, and an object with a title.
            return self.bytes.extend([20, 0, 1, 6 + user, 0, 0, 0, 0, 0, 5, 4, 1, 0, 0, 0, 0, 0]);
        }
        self.add(&[5, 6, 8, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20]);
        if self.bytes.last().is_some_and(|step| *step < 16) {
            return;
        }
        self.add(&[number]);
        self.add(&[u8::try_from(method).expect("small")]);
        self.add(&[6 + user]);
        self.add(&[0]);
        self.add(&[0, 1, 2]);
        for segment in resource.path.split('/') {
            match segment {
                "{user_id}" => self.add(&[user, user + 2]),
                "{id}" => {
                    self.add(&[0]);
                    let task = self.random.byte();
                    self.add(&[task]);
                    self.add(&[0, 0, 0, 250]);
                }
                _ => {}
            }
        }
        self.add(&[0]);
        self.query(*operation);
        self.add(&[0]);
        self.add(&[5]);
        self.body(*operation);
    }

    fn query(&mut self, operation: Operation) {
        let (is_list, takes_filters) = match operation {
            Operation::ListTasks => (true, true),
            Operation::CountTasks | Operation::PatchTasks | Operation::DeleteTasks => (false, true),
            _ => (false, false),
        };
        if matches!(operation, Operation::ListChanges | Operation::StreamEvents) {
            // The changes that come next, or all.
            return self.add(&[4, 4, 0]);
        }
        if !takes_filters {
            return self.add(&[0]);
        }
        if is_list && self.random.byte() < 90 {
            // The next page of the last list, if there is one.
            return self.add(&[4]);
        }
        self.add(&[6]);
        let count = 1 + self.random.byte() % 3;
        self.add(&[count]);
        for _ in 0..count {
            let names: &[u8] = if is_list {
                &[0, 0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 12]
            } else {
                &[1, 3, 4, 5, 6, 7, 8, 9, 10, 11]
            };
            self.add(names);
            self.add(&[0]);
            if self.bytes.iter().rev().nth(1) == Some(&12) {
                // Any of the sorts.
                self.add(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
            } else {
                self.add(&[0, 1, 0, 1, 0, 1, 2]);
            }
        }
    }

    fn body(&mut self, operation: Operation) {
        let kind = match operation {
            Operation::CreateTask => self.random.choose(&[3, 4]),
            _ => 4,
        };
        self.add(&[kind]);
        let objects = if kind == 3 { 1 + self.random.byte() % 4 } else { 1 };
        if kind == 3 {
            self.add(&[objects]);
        }
        for _ in 0..objects {
            self.object(operation);
        }
        self.add(&[0, 0, 0, 4, 6, 7]);
    }

    fn object(&mut self, operation: Operation) {
        let mut members: Vec<u8> = match operation {
            Operation::CreateTask | Operation::ReplaceTask => vec![self.random.choose(&[0, 1])],
            Operation::MoveTask => vec![self.random.choose(&[12, 13, 14, 15])],
            Operation::TransferTasks => vec![16],
            _ => Vec::new(),
        };
        let optional: &[u8] = match operation {
            Operation::CreateTask | Operation::ReplaceTask | Operation::PatchTask => &[3, 4, 5, 6, 7, 8, 9, 10],
            Operation::PatchTasks => &[0, 3, 4, 5, 6, 7, 8, 9],
            Operation::CompleteTask => &[4],
            _ => &[],
        };
        for member in optional {
            if members.len() < 5 && self.random.byte() < 90 {
                members.push(*member);
            }
        }
        self.add(&[u8::try_from(members.len()).expect("few")]);
        for member in members {
            self.add(&[member]);
            self.add(&[0]);
            if matches!(member, 14 | 15) {
                let task = self.random.byte();
                self.add(&[task]);
            } else {
                // Mostly the values that are valid, which come first.
                let valid = match member {
                    0 | 1 | 3 | 7 => 3,
                    5 | 10 => 6,
                    6 | 8 | 9 => 4,
                    _ => 2,
                };
                let value = if self.random.byte() < 8 { self.random.byte() } else { self.random.byte() % valid };
                self.add(&[value]);
            }
        }
        self.add(&[0, 1, 2]);
    }
}

#[test]
fn random_requests_have_the_responses_of_the_model() {
    let count = std::env::var("RANDOM_REQUESTS").ok().and_then(|count| count.parse().ok()).unwrap_or(2000);
    for seed in 0..count {
        let mut choices = Choices { random: Random(seed), bytes: Vec::new() };
        for _ in 0..16 {
            choices.request();
        }
        let outcome = std::panic::catch_unwind(|| todo_fuzz::respond::check(&choices.bytes));
        assert!(outcome.is_ok(), "the check fails for seed {seed}");
    }
}
