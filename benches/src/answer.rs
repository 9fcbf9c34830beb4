//! Reads an answer of HTTP/1.1 and judges it: a fast wrong answer is wrong.

use memchr::memmem;

use crate::workload::{Operation, PAGE, TITLE};

/// What has been read of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// There is more to come.
    Partial,
    /// All of it.
    Whole {
        /// The status code.
        status: u16,
        /// The body.
        body: &'a [u8],
        /// How many bytes head and body have together.
        length: usize,
    },
    /// Not what this reads: no HTTP/1.1, or a body without a length.
    Bad(&'static str),
}

/// Reads an answer, as far as it is there.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    const START: &[u8] = b"HTTP/1.1 ";
    let known = bytes.len().min(START.len());
    if bytes[..known] != START[..known] {
        return Parsed::Bad("not HTTP/1.1");
    }
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > 16 * 1024 { Parsed::Bad("a head without an end") } else { Parsed::Partial };
    };
    let Some(status) = bytes.get(9..12).and_then(number).and_then(|status| u16::try_from(status).ok()) else {
        return Parsed::Bad("a status that is no number");
    };
    let mut length = None;
    let head = &bytes[..end];
    let mut at = memmem::find(head, b"\r\n");
    while let Some(before) = at {
        let line = &head[before + 2..];
        let line_end = memmem::find(line, b"\r\n").unwrap_or(line.len());
        if let Some(colon) = memchr::memchr(b':', &line[..line_end]) {
            let (name, value) = (&line[..colon], line[colon + 1..line_end].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                length = number(value);
                if length.is_none() {
                    return Parsed::Bad("a length that is no number");
                }
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                return Parsed::Bad("a body in chunks");
            }
        }
        at = (line_end < line.len()).then_some(before + 2 + line_end);
    }
    let length = match (length, status) {
        (Some(length), _) => length,
        (None, 204 | 304) => 0,
        (None, _) => return Parsed::Bad("a body without a length"),
    };
    let begin = end + 4;
    match bytes.get(begin..begin.saturating_add(length)) {
        Some(body) => Parsed::Whole { status, body, length: begin + length },
        None => Parsed::Partial,
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + usize::from(digit - b'0')))
}

/// What is thought of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what was asked for.
    Right,
    /// Another status than that of success.
    Status,
    /// It shows a task of another user.
    Foreign,
    /// It has not what was asked for.
    Wrong(&'static str),
}

/// Which answers are right.
#[derive(Debug)]
pub struct Judge {
    owner: memmem::Finder<'static>,
    id: memmem::Finder<'static>,
    title: memmem::Finder<'static>,
    looks_inside: bool,
}

impl Judge {
    /// One that looks at status and body.
    #[must_use]
    pub fn of_tasks() -> Self {
        Self {
            owner: memmem::Finder::new(b"\"user_id\":\""),
            id: memmem::Finder::new(b"{\"id\":\""),
            title: memmem::Finder::new(TITLE),
            looks_inside: true,
        }
    }

    /// One that looks at the status alone, for a program that answers always the same.
    #[must_use]
    pub fn of_statuses() -> Self {
        Self { looks_inside: false, ..Self::of_tasks() }
    }

    /// Whether this is an answer to the operation, for this user, with this task where one is named.
    #[must_use]
    pub fn judge(&self, operation: Operation, user: &str, task: &str, status: u16, body: &[u8]) -> Verdict {
        let wanted = if operation == Operation::Create { 201 } else { 200 };
        // Whatever the status: nobody may see what is another's.
        let mut tasks = 0;
        if self.looks_inside {
            for at in self.owner.find_iter(body) {
                let owner = &body[at + self.owner.needle().len()..];
                if owner.strip_prefix(user.as_bytes()).is_none_or(|rest| rest.first() != Some(&b'"')) {
                    return Verdict::Foreign;
                }
                tasks += 1;
            }
        }
        if status != wanted {
            return Verdict::Status;
        }
        if !self.looks_inside {
            return Verdict::Right;
        }
        if self.id.find_iter(body).count() != tasks {
            return Verdict::Wrong("a task without an owner");
        }
        match operation {
            Operation::List if !(body.starts_with(b"[") && body.ends_with(b"]")) => Verdict::Wrong("no list"),
            Operation::List if tasks != PAGE => Verdict::Wrong("another number of tasks"),
            Operation::List => Verdict::Right,
            _ if tasks != 1 => Verdict::Wrong("not one task"),
            Operation::Create if self.title.find(body).is_none() => Verdict::Wrong("another title"),
            Operation::Create => Verdict::Right,
            Operation::Get | Operation::Toggle => {
                let id = self.id.find(body).map(|at| &body[at + self.id.needle().len()..]);
                match id.and_then(|id| id.strip_prefix(task.as_bytes())) {
                    Some([b'"', ..]) => Verdict::Right,
                    _ => Verdict::Wrong("another task"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{task_id, user_id};

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length:  3 \r\nx: y\r\n\r\nabcHTTP/1.1 ";

    #[test]
    fn an_answer_is_read_wherever_it_was_cut() {
        let whole = ANSWER.len() - 9;
        for cut in 0..whole {
            assert_eq!(parse(&ANSWER[..cut]), Parsed::Partial, "{cut}");
        }
        for cut in whole..=ANSWER.len() {
            assert_eq!(parse(&ANSWER[..cut]), Parsed::Whole { status: 200, body: b"abc", length: whole });
        }
    }

    #[test]
    fn a_length_may_stand_anywhere_in_the_head() {
        for head in
            ["content-length: 1\r\na: b", "a: b\r\ncontent-length: 1", "x-content-length: 9\r\nCONTENT-LENGTH:1"]
        {
            let bytes = format!("HTTP/1.1 404 Not Found\r\n{head}\r\n\r\nx");
            let parsed = parse(bytes.as_bytes());
            assert_eq!(parsed, Parsed::Whole { status: 404, body: b"x", length: bytes.len() });
        }
        let none = b"HTTP/1.1 204 No Content\r\na: b\r\n\r\n";
        assert_eq!(parse(none), Parsed::Whole { status: 204, body: b"", length: none.len() });
    }

    #[test]
    fn what_cannot_be_read_is_not_guessed() {
        for bytes in [
            "HTTP/1.0 200 OK\r\n",
            "SSH-2.0",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert!(matches!(parse(bytes.as_bytes()), Parsed::Bad(_)), "{bytes:?}");
        }
        let endless = [b"HTTP/1.1 200 OK\r\na: ".as_slice(), &vec![b'a'; 20_000]].concat();
        assert!(matches!(parse(&endless), Parsed::Bad(_)));
    }

    fn task(user: u32, task: u32) -> String {
        format!(
            r#"{{"id":"{}","user_id":"{}","title":"{TITLE}","description":null,"completed":false,"version":1}}"#,
            task_id(user, task),
            user_id(user)
        )
    }

    fn list(tasks: &[String]) -> String {
        format!("[{}]", tasks.join(","))
    }

    fn judged(operation: Operation, status: u16, body: &str) -> Verdict {
        Judge::of_tasks().judge(operation, &user_id(1), &task_id(1, 3), status, body.as_bytes())
    }

    #[test]
    fn right_answers_are_right() {
        let tasks: Vec<_> = (0..20).map(|number| task(1, number)).collect();
        assert_eq!(judged(Operation::List, 200, &list(&tasks)), Verdict::Right);
        assert_eq!(judged(Operation::Get, 200, &task(1, 3)), Verdict::Right);
        assert_eq!(judged(Operation::Toggle, 200, &task(1, 3)), Verdict::Right);
        assert_eq!(judged(Operation::Create, 201, &task(1, 99)), Verdict::Right);
    }

    #[test]
    fn a_task_of_another_user_is_noticed_wherever_it_is() {
        for place in [0, 7, 19] {
            let mut tasks: Vec<_> = (0..20).map(|number| task(1, number)).collect();
            tasks[place] = task(2, 3);
            assert_eq!(judged(Operation::List, 200, &list(&tasks)), Verdict::Foreign, "{place}");
        }
        for operation in [Operation::Get, Operation::Toggle, Operation::Create] {
            assert_eq!(judged(operation, 200, &task(2, 3)), Verdict::Foreign);
            // In an error too.
            assert_eq!(judged(operation, 500, &task(2, 3)), Verdict::Foreign);
        }
        // A user whose name begins like the caller's is another user.
        let longer = task(1, 3).replace(&user_id(1), &(user_id(1) + "0"));
        assert_eq!(judged(Operation::Get, 200, &longer), Verdict::Foreign);
    }

    #[test]
    fn a_wrong_number_of_tasks_is_noticed() {
        for count in [0, 1, 19, 21] {
            let tasks: Vec<_> = (0..count).map(|number| task(1, number)).collect();
            assert!(matches!(judged(Operation::List, 200, &list(&tasks)), Verdict::Wrong(_)), "{count}");
        }
        assert!(matches!(judged(Operation::Get, 200, ""), Verdict::Wrong(_)));
        assert!(matches!(judged(Operation::List, 200, &task(1, 3)), Verdict::Wrong(_)));
        let without_owner = task(1, 3).replace("user_id", "owner");
        assert!(matches!(judged(Operation::Get, 200, &without_owner), Verdict::Wrong(_)));
    }

    #[test]
    fn another_task_than_the_one_asked_for_is_noticed() {
        for operation in [Operation::Get, Operation::Toggle] {
            assert!(matches!(judged(operation, 200, &task(1, 4)), Verdict::Wrong(_)));
        }
        let other = task(1, 99).replace("milk", "wine");
        assert!(matches!(judged(Operation::Create, 201, &other), Verdict::Wrong(_)));
    }

    #[test]
    fn a_failure_is_noticed() {
        let tasks: Vec<_> = (0..20).map(|number| task(1, number)).collect();
        for status in [500, 503, 429, 404, 204] {
            assert_eq!(judged(Operation::List, status, &list(&tasks)), Verdict::Status);
        }
        assert_eq!(judged(Operation::Create, 200, &task(1, 3)), Verdict::Status);
        let fixed = Judge::of_statuses();
        assert_eq!(fixed.judge(Operation::List, "ann", "", 200, b"anything"), Verdict::Right);
        assert_eq!(fixed.judge(Operation::List, "ann", "", 500, b"anything"), Verdict::Status);
    }
}
