//! Reads a response of HTTP/1.1 and checks it, so that a fast wrong response does not count as a success.

use memchr::memmem;

use crate::workload::{Operation, PAGE, TITLE};

/// A response, as far as it has been received.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// Incomplete.
    Partial,
    /// Complete.
    Whole {
        /// The status code.
        status: u16,
        /// The body.
        body: &'a [u8],
        /// The number of bytes of head and body.
        length: usize,
    },
    /// Not supported: not HTTP/1.1, or a body without a length.
    Bad(&'static str),
}

/// Parses the bytes received so far.
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
        return Parsed::Bad("a status that is not a number");
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
                    return Parsed::Bad("a length that is not a number");
                }
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                return Parsed::Bad("a chunked body");
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

/// The result of checking a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The requested tasks.
    Right,
    /// A status other than that of success.
    Status,
    /// A task of another user.
    Foreign,
    /// Not the requested tasks.
    Wrong(&'static str),
}

/// Checks responses.
#[derive(Debug)]
pub struct Checker {
    owner: memmem::Finder<'static>,
    id: memmem::Finder<'static>,
    title: memmem::Finder<'static>,
    looks_inside: bool,
}

impl Checker {
    /// Checks status and body.
    #[must_use]
    pub fn for_tasks() -> Self {
        Self {
            owner: memmem::Finder::new(b"\"user_id\":\""),
            id: memmem::Finder::new(b"{\"id\":\""),
            title: memmem::Finder::new(TITLE),
            looks_inside: true,
        }
    }

    /// Checks the status only, for a program with a constant response.
    #[must_use]
    pub fn for_statuses() -> Self {
        Self { looks_inside: false, ..Self::for_tasks() }
    }

    /// Checks a response to this operation of this user, with this task if the operation has one.
    #[must_use]
    pub fn check(&self, operation: Operation, user: &str, task: &str, status: u16, body: &[u8]) -> Verdict {
        let wanted = if operation == Operation::Create { 201 } else { 200 };
        // With any status: no response may contain a task of another user.
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

    const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length:  3 \r\nx: y\r\n\r\nabcHTTP/1.1 ";

    #[test]
    fn a_response_is_read_in_any_pieces() {
        let whole = RESPONSE.len() - 9;
        for cut in 0..whole {
            assert_eq!(parse(&RESPONSE[..cut]), Parsed::Partial, "{cut}");
        }
        for cut in whole..=RESPONSE.len() {
            assert_eq!(parse(&RESPONSE[..cut]), Parsed::Whole { status: 200, body: b"abc", length: whole });
        }
    }

    #[test]
    fn the_length_may_be_any_header_of_the_head() {
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
    fn unsupported_responses_are_reported() {
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

    fn checked(operation: Operation, status: u16, body: &str) -> Verdict {
        Checker::for_tasks().check(operation, &user_id(1), &task_id(1, 3), status, body.as_bytes())
    }

    #[test]
    fn correct_responses_are_accepted() {
        let tasks: Vec<_> = (0..20).map(|number| task(1, number)).collect();
        assert_eq!(checked(Operation::List, 200, &list(&tasks)), Verdict::Right);
        assert_eq!(checked(Operation::Get, 200, &task(1, 3)), Verdict::Right);
        assert_eq!(checked(Operation::Toggle, 200, &task(1, 3)), Verdict::Right);
        assert_eq!(checked(Operation::Create, 201, &task(1, 99)), Verdict::Right);
    }

    #[test]
    fn a_task_of_another_user_is_found_anywhere() {
        for position in [0, 7, 19] {
            let mut tasks: Vec<_> = (0..20).map(|number| task(1, number)).collect();
            tasks[position] = task(2, 3);
            assert_eq!(checked(Operation::List, 200, &list(&tasks)), Verdict::Foreign, "{position}");
        }
        for operation in [Operation::Get, Operation::Toggle, Operation::Create] {
            assert_eq!(checked(operation, 200, &task(2, 3)), Verdict::Foreign);
            // Also in an error.
            assert_eq!(checked(operation, 500, &task(2, 3)), Verdict::Foreign);
        }
        // A user whose id begins with the id of this user is another user.
        let longer = task(1, 3).replace(&user_id(1), &(user_id(1) + "0"));
        assert_eq!(checked(Operation::Get, 200, &longer), Verdict::Foreign);
    }

    #[test]
    fn a_wrong_number_of_tasks_is_found() {
        for count in [0, 1, 19, 21] {
            let tasks: Vec<_> = (0..count).map(|number| task(1, number)).collect();
            assert!(matches!(checked(Operation::List, 200, &list(&tasks)), Verdict::Wrong(_)), "{count}");
        }
        assert!(matches!(checked(Operation::Get, 200, ""), Verdict::Wrong(_)));
        assert!(matches!(checked(Operation::List, 200, &task(1, 3)), Verdict::Wrong(_)));
        let without_owner = task(1, 3).replace("user_id", "owner");
        assert!(matches!(checked(Operation::Get, 200, &without_owner), Verdict::Wrong(_)));
    }

    #[test]
    fn a_task_other_than_the_requested_one_is_found() {
        for operation in [Operation::Get, Operation::Toggle] {
            assert!(matches!(checked(operation, 200, &task(1, 4)), Verdict::Wrong(_)));
        }
        let other = task(1, 99).replace("milk", "wine");
        assert!(matches!(checked(Operation::Create, 201, &other), Verdict::Wrong(_)));
    }

    #[test]
    fn an_error_status_is_found() {
        let tasks: Vec<_> = (0..20).map(|number| task(1, number)).collect();
        for status in [500, 503, 429, 404, 204] {
            assert_eq!(checked(Operation::List, status, &list(&tasks)), Verdict::Status);
        }
        assert_eq!(checked(Operation::Create, 200, &task(1, 3)), Verdict::Status);
        let fixed = Checker::for_statuses();
        assert_eq!(fixed.check(Operation::List, "ann", "", 200, b"anything"), Verdict::Right);
        assert_eq!(fixed.check(Operation::List, "ann", "", 500, b"anything"), Verdict::Status);
    }
}
