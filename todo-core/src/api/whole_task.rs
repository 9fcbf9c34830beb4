//! Reads a whole task, with the fields that only the server sets: for copies of tasks.

use serde_json::error::Category;

use super::{field_errors::FieldErrors, input::Members};
use crate::{
    Task, UserId,
    json::{Json, Number},
    timestamp::{InvalidTimestamp, Timestamp},
};

/// The members of a task.
const FIELDS: [&str; 15] = [
    "id",
    "user_id",
    "title",
    "description",
    "completed",
    "completed_at",
    "due",
    "priority",
    "list",
    "tags",
    "position",
    "metadata",
    "created_at",
    "updated_at",
    "version",
];

/// The greatest version that is read: the greatest whole number that every JSON parser keeps.
const MAX_VERSION: i64 = 9_007_199_254_740_991;

/// Why [`task_from_json`] rejects a text. Its message contains nothing of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTask {
    /// The text is not a JSON object.
    #[error("the text {0}")]
    Syntax(String),
    /// Fields are wrong, missing or unknown. An unknown one is named by its place: `member 3`.
    #[error(transparent)]
    Fields(#[from] FieldErrors),
}

/// Reads a task from the JSON that the API returns, for [`UserTasks::import`](crate::UserTasks::import).
///
/// Each field is checked like in a request, and all wrong fields are reported together. A field that a creation may
/// leave out may be absent here, too; the place is then that of a task created at that time. All fields that only the
/// server sets are required (`completed_at` if the task is completed), and must fit each other: no time is before
/// `created_at`, and `completed_at` is not after `updated_at`. Times are rounded down to microseconds.
///
/// ```
/// use todo_core::api::{InvalidTask, task_from_json};
///
/// let json = r#"{"id":"019aa3f0-5c00-7000-8000-000000000001","user_id":"ann","title":"Buy milk","description":null,
///     "completed":false,"completed_at":null,"due":"2026-12-01","priority":"high","list":null,"tags":[],"position":"a0",
///     "metadata":{},"created_at":"2025-11-21T08:00:00.000000Z","updated_at":"2025-11-21T08:00:00.000000Z","version":1}"#;
/// let task = task_from_json(json.as_bytes())?;
/// assert_eq!(task.title.as_str(), "Buy milk");
///
/// let error = task_from_json(json.replace("Buy milk", " ").as_bytes()).unwrap_err();
/// assert_eq!(error.to_string(), "title must not be blank.");
/// # Ok::<(), InvalidTask>(())
/// ```
///
/// # Errors
///
/// [`InvalidTask`] says what is wrong.
pub fn task_from_json(json: &[u8]) -> Result<Task, InvalidTask> {
    let syntax = |text: String| InvalidTask::Syntax(text);
    if let Err(error) = str::from_utf8(json) {
        return Err(syntax(format!("is not UTF-8: byte {} is invalid", error.valid_up_to() + 1)));
    }
    let members = match Json::parse(json) {
        Ok(Json::Object(members)) => members,
        Ok(_) => return Err(syntax("is not a JSON object".to_owned())),
        Err(error) => return Err(syntax(described(&error))),
    };
    let mut errors = FieldErrors::default();
    // The first, so that a large text does not become a larger message.
    if let Some(index) = members.iter().position(|(name, _)| !FIELDS.contains(&name.as_str())) {
        errors.add(&format!("member {}", index + 1), "is unknown");
    }
    let task = read(&mut Members::of(members), &mut errors);
    match task.filter(|_| errors.is_empty()) {
        Some(task) => Ok(task),
        None => Err(errors.into()),
    }
}

/// What the parser says, without the position of lines.
fn described(error: &serde_json::Error) -> String {
    if error.classify() == Category::Eof {
        return "is not valid JSON: it ends too early".to_owned();
    }
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(&*text, |(reason, _)| reason);
    let line = if error.line() > 1 { format!(" of line {}", error.line()) } else { String::new() };
    format!("is not valid JSON: {reason} at byte {}{line}", error.column())
}

fn read(members: &mut Members, errors: &mut FieldErrors) -> Option<Task> {
    let time = |text: &str| text.parse::<Timestamp>().map_err(|error: InvalidTimestamp| error.to_string());
    let id =
        members.required("id", errors, |text| text.parse().map_err(|error: crate::InvalidValue| error.to_string()));
    let user_id = members.required("user_id", errors, |text| UserId::new(text).map_err(|error| error.to_string()));
    let created_at = members.required("created_at", errors, time);
    let updated_at = members.required("updated_at", errors, time);
    let version = version(members, errors);
    let completed_at = members.optional("completed_at", errors, |text| time(&text));
    let has_completed = !errors.contains("completed_at");
    let new = members.new_task(errors);
    let (new, created_at, updated_at) = (new?, created_at?, updated_at?);
    if updated_at < created_at {
        errors.add("updated_at", "must not be before created_at");
    } else if has_completed {
        let wrong = match completed_at {
            None => new.completed.then_some("must be a time, since completed is true"),
            Some(_) if !new.completed => Some("must be null, since completed is false"),
            Some(time) if time < created_at || time > updated_at => {
                Some("must not be before created_at or after updated_at")
            }
            Some(_) => None,
        };
        if let Some(wrong) = wrong {
            errors.add("completed_at", wrong);
        }
    }
    let task = new.into_task(user_id?, id?, created_at);
    Some(Task { completed_at, updated_at, version: version?, ..task })
}

fn version(members: &mut Members, errors: &mut FieldErrors) -> Option<i64> {
    match members.take("version", errors) {
        Some(Json::Number(Number::Integer(version @ 1..=MAX_VERSION))) => return Some(version),
        Some(_) => errors.add("version", format!("must be a whole number from 1 to {MAX_VERSION}")),
        None if errors.contains("version") => {}
        None => errors.add("version", "is required"),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Position;

    const FULL: &str = r#"{"id":"019aa3f0-5c00-7000-8000-000000000001","user_id":"ann","title":"Buy milk","description":"Two","completed":true,"completed_at":"2025-11-21T08:00:01.000000Z","due":"2026-12-01T17:00:00+01:00[Europe/Berlin]","priority":"high","list":"Home","tags":["a","b"],"position":"a0V","metadata":{"a":[1,2.5]},"created_at":"2025-11-21T08:00:00.000000Z","updated_at":"2025-11-21T08:00:02.000000Z","version":3}"#;

    fn message(json: &str) -> String {
        task_from_json(json.as_bytes()).expect_err(json).to_string()
    }

    #[test]
    fn a_task_is_read_as_it_was_rendered() {
        let task = task_from_json(FULL.as_bytes()).expect("a task");
        assert_eq!(serde_json::to_string(&task).expect("JSON"), FULL);
        // A line that ended with CR and LF, in another order, with other spaces.
        let (id, rest) = FULL.split_once(',').expect("several members");
        let reordered = format!("  {{ {} , {} }}\r", rest.trim_end_matches('}'), id.trim_start_matches('{'));
        // `trim_end_matches` took the brace of nothing else: the last member is a number.
        assert_eq!(task_from_json(reordered.as_bytes()), Ok(task));
    }

    #[test]
    fn what_a_creation_may_leave_out_may_be_absent() {
        let json = r#"{"id":"019aa3f0-5c00-7000-8000-000000000001","user_id":"ann","title":"x","created_at":"2025-11-21T08:00:00Z","updated_at":"2025-11-21T09:00:00+01:00","version":1}"#;
        let task = task_from_json(json.as_bytes()).expect("a task");
        assert_eq!(task.position, Position::at(task.created_at));
        assert_eq!((task.completed_at, task.updated_at), (None, task.created_at));
    }

    #[test]
    fn everything_wrong_is_named_without_what_it_is() {
        let long = "x".repeat(201);
        for (old, new, expected) in [
            ("019aa3f0-5c00", "{019aa3f0-5c00", "id must be a UUID."),
            (r#""id":"019aa3f0-5c00-7000-8000-000000000001""#, r#""id":7"#, "id must be a string."),
            (r#""user_id":"ann","#, "", "user_id is required."),
            (r#""user_id":"ann""#, r#""user_id":"""#, "user_id must not be blank."),
            (r#""user_id":"ann""#, r#""user_id":null"#, "user_id must be a string."),
            ("Buy milk", &*long, "title must have at most 200 characters."),
            ("Buy milk", r"a\u0000b", "title must not contain the NUL character."),
            (r#""title":"Buy milk","#, "", "title is required."),
            (r#""title":"Buy milk""#, r#""title":"a","title":"b""#, "title must be given only once."),
            (
                "[Europe/Berlin]",
                "[Europe/Bonn]",
                "due must name a time zone of the IANA database, such as Europe/Berlin.",
            ),
            ("\"high\"", "1", "priority must be a string or null."),
            (r#"["a","b"]"#, r#"["a","a"]"#, "tags must have no two elements that are the same."),
            ("a0V", "a00", "position must be a key of fractional-indexing, at most 100 characters."),
            (r#"{"a":[1,2.5]}"#, r#"{"a":1,"a":2}"#, "metadata must have no two members of the same name."),
            (r#""version":3"#, r#""version":0"#, "version must be a whole number from 1 to 9007199254740991."),
            (
                r#""version":3"#,
                r#""version":9007199254740992"#,
                "version must be a whole number from 1 to 9007199254740991.",
            ),
            (r#""version":3"#, r#""version":3.0"#, "version must be a whole number from 1 to 9007199254740991."),
            (r#","version":3"#, "", "version is required."),
            (r#""version":3"#, r#""version":3,"secret name":1,"other":2"#, "member 16 is unknown."),
            (
                r#""created_at":"2025-11-21T08:00:00.000000Z""#,
                r#""created_at":"yesterday""#,
                "created_at is not an RFC 3339 time.",
            ),
            (
                r#""updated_at":"2025-11-21T08:00:02.000000Z""#,
                r#""updated_at":"2025-11-21T07:00:00Z""#,
                "updated_at must not be before created_at.",
            ),
            (
                r#""2025-11-21T08:00:01.000000Z""#,
                r#""2025-11-21T08:00:03Z""#,
                "completed_at must not be before created_at or after updated_at.",
            ),
            (
                r#""2025-11-21T08:00:01.000000Z""#,
                r#""2025-11-21T07:59:59Z""#,
                "completed_at must not be before created_at or after updated_at.",
            ),
            (r#""2025-11-21T08:00:01.000000Z""#, "1", "completed_at must be a string or null."),
            (r#""2025-11-21T08:00:01.000000Z""#, "null", "completed_at must be a time, since completed is true."),
            (r#""completed":true"#, r#""completed":false"#, "completed_at must be null, since completed is false."),
            (
                r#""completed":true"#,
                r#""completed":null"#,
                "completed must be true or false; completed_at must be null, since completed is false.",
            ),
            ("\"Two\"", "\"\\ud83c\"", "the text is not valid JSON: unexpected end of hex escape at byte 102"),
            ("2.5", "1e999", "the text is not valid JSON: number out of range at byte 301"),
            ("{\"id\"", "[{\"id\"", "the text is not valid JSON: it ends too early"),
            ("\"version\"", "'version'", "the text is not valid JSON: key must be a string at byte 389"),
            ("{\"id\"", "\u{feff}{\"id\"", "the text is not valid JSON: expected value at byte 1"),
        ] {
            let json = FULL.replacen(old, new, 1);
            assert_ne!(json, FULL, "{old}");
            assert_eq!(message(&json), expected);
        }
        for (json, expected) in [
            ("", "the text is not valid JSON: it ends too early"),
            ("[]", "the text is not a JSON object"),
            ("null", "the text is not a JSON object"),
            (
                "{}",
                "created_at is required; id is required; title is required; updated_at is required; user_id is required; version is required.",
            ),
            ("{\n]", "the text is not valid JSON: key must be a string at byte 1 of line 2"),
        ] {
            assert_eq!(message(json), expected, "{json}");
        }
        let error = task_from_json(b"{\"title\":\"\xfc\"}").expect_err("not UTF-8");
        assert_eq!(error.to_string(), "the text is not UTF-8: byte 11 is invalid");
    }
}
