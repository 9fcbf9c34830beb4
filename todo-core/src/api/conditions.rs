//! The conditions of a request (RFC 9110, section 13), and the entity tags that they compare.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, ETAG, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, VARY},
};

use super::{digest::short_digest, field_errors::FieldErrors, routes::Operation};
use crate::{
    Task, UserId,
    clock::Timestamp,
    store::{Precondition, Revision},
};

/// The maximum number of entity tags in a header.
const MAX_TAGS: usize = 100;

/// What is wrong with a header of entity tags.
const NOT_TAGS: &str = "must be * or entity tags such as \"3\", separated by commas";

/// An entity tag of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EntityTag<'a> {
    is_weak: bool,
    /// The text between the quotes.
    text: &'a [u8],
}

/// The value of `If-Match` or `If-None-Match`.
#[derive(Debug, PartialEq, Eq)]
enum Tags<'a> {
    /// `*`, which every task matches.
    Any,
    These(Vec<EntityTag<'a>>),
}

impl<'a> Tags<'a> {
    /// Reads a header, which may have several lines. `None` if there is none.
    fn read(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<Self>, String> {
        let mut lines = headers.get_all(name).into_iter().map(HeaderValue::as_bytes).peekable();
        let Some(first) = lines.peek() else { return Ok(None) };
        if first.trim_ascii() == b"*" {
            lines.next();
            return if lines.next().is_none() { Ok(Some(Self::Any)) } else { Err(NOT_TAGS.to_owned()) };
        }
        let mut tags = Vec::new();
        for line in lines {
            read_tags(line, &mut tags).ok_or(NOT_TAGS)?;
        }
        match tags.len() {
            0 => Err(NOT_TAGS.to_owned()),
            1..=MAX_TAGS => Ok(Some(Self::These(tags))),
            _ => Err(format!("must have at most {MAX_TAGS} entity tags")),
        }
    }
}

/// Reads a list of entity tags, whose texts may contain commas. Empty elements are skipped (RFC 9110, section 5.6.1.2).
fn read_tags<'a>(line: &'a [u8], tags: &mut Vec<EntityTag<'a>>) -> Option<()> {
    let mut rest = line.trim_ascii_start();
    loop {
        while let Some(after) = rest.strip_prefix(b",") {
            rest = after.trim_ascii_start();
        }
        if rest.is_empty() {
            return Some(());
        }
        let (is_weak, quoted) = rest.strip_prefix(b"W/").map_or((false, rest), |quoted| (true, quoted));
        let text = quoted.strip_prefix(b"\"")?;
        let end = text.iter().position(|byte| *byte == b'"')?;
        let (text, after) = text.split_at(end);
        if !text.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..)) {
            return None;
        }
        tags.push(EntityTag { is_weak, text });
        rest = after.strip_prefix(b"\"")?.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
}

/// A positive number as this API writes it. All other texts are those of other tags.
fn number(text: &[u8]) -> Option<i64> {
    let number = str::from_utf8(text).ok()?.parse::<i64>().ok()?;
    (number >= 0 && number.to_string().as_bytes() == text).then_some(number)
}

/// The conditions of a request about one task.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// What must be true of the task.
    pub(super) precondition: Precondition,
    /// Whether the task must not exist: `If-None-Match: *`.
    pub(super) is_absent: bool,
    /// Whether the request has a condition, even if it is true of every task.
    pub(super) is_given: bool,
}

impl Conditions {
    /// Reads the headers of a change.
    ///
    /// `If-Unmodified-Since` does not count if there is an `If-Match` (RFC 9110, section 13.1.4). It is compared in
    /// seconds, which is the precision of dates in headers. Unlike the RFC requires, a date that cannot be read is an
    /// error: who sends one does not want to overwrite the changes of others.
    pub(super) fn of_change(headers: &HeaderMap, errors: &mut FieldErrors) -> Self {
        let if_none_match = tags(headers, &IF_NONE_MATCH, "If-None-Match", errors);
        Self::new(headers, if_none_match.as_ref(), errors)
    }

    /// Reads the headers of a read, in which `If-None-Match` is no condition but says [what is known](is_known).
    pub(super) fn of_read(headers: &HeaderMap, errors: &mut FieldErrors) -> Self {
        Self::new(headers, None, errors)
    }

    fn new(headers: &HeaderMap, if_none_match: Option<&Tags<'_>>, errors: &mut FieldErrors) -> Self {
        let mut conditions = Self::default();
        let if_match = tags(headers, &IF_MATCH, "If-Match", errors);
        if let Some(Tags::These(tags)) = &if_match {
            let strong = tags.iter().filter(|tag| !tag.is_weak);
            conditions.precondition.version_in = Some(strong.filter_map(|tag| number(tag.text)).collect());
        }
        match if_none_match {
            Some(Tags::Any) => conditions.is_absent = true,
            Some(Tags::These(tags)) => {
                conditions.precondition.version_not_in = tags.iter().filter_map(|tag| number(tag.text)).collect();
            }
            None => {}
        }
        let mut dates = headers.get_all(IF_UNMODIFIED_SINCE).into_iter();
        let date = dates.next().filter(|_| if_match.is_none());
        conditions.is_given = if_match.is_some() || if_none_match.is_some() || date.is_some();
        if let Some(date) = date {
            match (read_date(date), dates.next()) {
                (_, Some(_)) => errors.add("If-Unmodified-Since", "must be given only once"),
                (None, None) => {
                    errors.add("If-Unmodified-Since", "must be a date such as Tue, 01 Dec 2026 16:00:00 GMT");
                }
                (Some(date), None) => conditions.precondition.updated_before = Some(date),
            }
        }
        conditions
    }

    /// What must be true of a task that exists.
    pub(super) fn of_existing(self) -> Precondition {
        if self.is_absent {
            Precondition { version_in: Some(Vec::new()), ..self.precondition }
        } else {
            self.precondition
        }
    }
}

fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName, shown: &str, errors: &mut FieldErrors) -> Option<Tags<'a>> {
    Tags::read(headers, name).unwrap_or_else(|error| {
        errors.add(shown, error);
        None
    })
}

/// Whether a client has the task already: whether `If-None-Match` of a read names it. A header that cannot be read names
/// nothing.
pub(super) fn is_known(headers: &HeaderMap, task: &Task) -> bool {
    match Tags::read(headers, &IF_NONE_MATCH) {
        Ok(Some(Tags::Any)) => true,
        Ok(Some(Tags::These(tags))) => tags.iter().any(|tag| number(tag.text) == Some(task.version)),
        Ok(None) | Err(_) => false,
    }
}

/// The latest version of a task that `If-None-Match` of a read names.
pub(super) fn newest_known(headers: &HeaderMap) -> Option<i64> {
    match Tags::read(headers, &IF_NONE_MATCH) {
        Ok(Some(Tags::These(tags))) => tags.iter().filter_map(|tag| number(tag.text)).max(),
        Ok(Some(Tags::Any) | None) | Err(_) => None,
    }
}

/// Reads the time after all times that are not after a date.
fn read_date(value: &HeaderValue) -> Option<Timestamp> {
    let date = httpdate::parse_http_date(value.to_str().ok()?.trim()).ok()?;
    let seconds = date.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
    Some(Timestamp::from_unix_seconds(i64::try_from(seconds).ok()?.saturating_add(1)))
}

/// The entity tag of a task, which is its version.
pub(super) fn tag_of(task: &Task) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{}\"", task.version)).ok()
}

/// Gives a response an entity tag, and says who may keep it: the client alone, who has to ask each time.
pub(super) fn tagged(headers: &mut HeaderMap, tag: Option<HeaderValue>) {
    if let Some(tag) = tag {
        headers.insert(ETAG, tag);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        headers.insert(VARY, HeaderValue::from_static("authorization, cookie"));
    }
}

/// The entity tags of a read of many tasks: `W/"owner-revision-query"`. They are weak, because the bytes that other
/// servers render may differ.
#[derive(Debug)]
pub(super) struct ReadTags {
    owner: String,
    query: String,
}

impl ReadTags {
    pub(super) fn new(owner: &UserId, operation: Operation, query: &str) -> Self {
        // Another version may render the same tasks in another way.
        let read = [env!("CARGO_PKG_VERSION"), operation.name(), query].join("\n");
        Self { owner: hexadecimal(short_digest(owner.as_str())), query: hexadecimal(short_digest(&read)) }
    }

    /// The tag of what the read returns at this revision.
    pub(super) fn at(&self, revision: Revision) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("W/\"{}-{revision}-{}\"", self.owner, self.query)).ok()
    }

    /// Which revisions `If-None-Match` says that the client has.
    pub(super) fn known(&self, headers: &HeaderMap) -> Known {
        match Tags::read(headers, &IF_NONE_MATCH) {
            Ok(Some(Tags::Any)) => Known { any: true, revisions: Vec::new() },
            Ok(Some(Tags::These(tags))) => {
                let revision = |tag: &EntityTag<'_>| {
                    let rest = tag.text.strip_prefix(self.owner.as_bytes())?.strip_prefix(b"-")?;
                    number(rest.strip_suffix(self.query.as_bytes())?.strip_suffix(b"-")?).map(Revision::new)
                };
                Known { any: false, revisions: tags.iter().filter_map(revision).collect() }
            }
            Ok(None) | Err(_) => Known::default(),
        }
    }
}

/// The revisions of which a client has the response to a read.
#[derive(Debug, Default)]
pub(super) struct Known {
    any: bool,
    revisions: Vec<Revision>,
}

impl Known {
    pub(super) fn contains(&self, revision: Revision) -> bool {
        self.any || self.revisions.contains(&revision)
    }

    /// The one that is most likely still current.
    pub(super) fn newest(&self) -> Option<Revision> {
        self.revisions.iter().max().copied()
    }
}

fn hexadecimal(bytes: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(HeaderName, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        headers
    }

    fn change(lines: &[(HeaderName, &[u8])]) -> Result<Conditions, String> {
        let mut errors = FieldErrors::default();
        let conditions = Conditions::of_change(&headers(lines), &mut errors);
        if errors.is_empty() { Ok(conditions) } else { Err(errors.to_string()) }
    }

    #[test]
    fn if_match_compares_strongly_and_if_none_match_weakly() {
        let lists: &[(&[u8], &[i64], &[i64])] = &[
            (br#""3""#, &[3], &[3]),
            (br#"W/"3""#, &[], &[3]),
            (br#" "3" , W/"4",, "5","#, &[3, 5], &[3, 4, 5]),
            (br#""a,b", "7""#, &[7], &[7]),
            // Not the tags of this API.
            (br#""03", "+3", "", "3 ", "-1", "99999999999999999999""#.trim_ascii(), &[], &[]),
            (b"\"\xfc\"", &[], &[]),
        ];
        for (line, strong, weak) in lists {
            if line.windows(2).any(|pair| pair == b"3 ") {
                // A space is not part of a tag.
                assert!(change(&[(IF_MATCH, line)]).is_err());
                continue;
            }
            let conditions = change(&[(IF_MATCH, line)]).expect("tags");
            assert_eq!(conditions.precondition.version_in.as_deref(), Some(*strong), "{line:?}");
            let conditions = change(&[(IF_NONE_MATCH, line)]).expect("tags");
            assert_eq!(conditions.precondition.version_not_in, *weak, "{line:?}");
        }
        let lines = [(IF_MATCH, &br#""1""#[..]), (IF_MATCH, br#""2""#)];
        assert_eq!(change(&lines).expect("tags").precondition.version_in, Some(vec![1, 2]));
    }

    #[test]
    fn a_star_means_any_task() {
        let any = change(&[(IF_MATCH, b" * ")]).expect("a star");
        assert!(any.is_given && any.precondition.is_always_met() && !any.is_absent);
        let none = change(&[(IF_NONE_MATCH, b"*")]).expect("a star");
        assert!(none.is_given && none.is_absent);
        assert_eq!(none.of_existing().version_in, Some(Vec::new()));
    }

    #[test]
    fn what_is_not_a_list_of_tags_is_an_error() {
        let many = "\"1\",".repeat(MAX_TAGS + 1);
        for line in [
            &b""[..],
            b",",
            b"3",
            b"'3'",
            br#""3"#,
            br#"3""#,
            br#"w/"3""#,
            br#"W/ "3""#,
            br#""3" "4""#,
            br#"*, "3""#,
            br#""3", *"#,
            b"\"a b\"",
            many.as_bytes(),
        ] {
            for name in [IF_MATCH, IF_NONE_MATCH] {
                assert!(change(&[(name, line)]).is_err(), "{line:?}");
            }
        }
        for lines in [[b"*", b"*"], [b"*", b"3"]] {
            assert!(change(&lines.map(|line| (IF_MATCH, &line[..]))).is_err());
        }
    }

    #[test]
    fn dates_have_seconds() {
        let date = b"Tue, 01 Dec 2026 16:00:00 GMT";
        let before = change(&[(IF_UNMODIFIED_SINCE, date)]).expect("a date").precondition.updated_before;
        assert_eq!(before.expect("a time").to_string(), "2026-12-01T16:00:01.000000Z");
        let ignored = change(&[(IF_UNMODIFIED_SINCE, b"yesterday"), (IF_MATCH, b"*")]).expect("If-Match counts");
        assert_eq!(ignored.precondition.updated_before, None);
        for line in [&b"yesterday"[..], b"2026-12-01T16:00:00Z", b"", b"\xff"] {
            assert!(change(&[(IF_UNMODIFIED_SINCE, line)]).is_err(), "{line:?}");
        }
        assert!(change(&[(IF_UNMODIFIED_SINCE, date), (IF_UNMODIFIED_SINCE, date)]).is_err());
    }

    #[test]
    fn the_tags_of_a_read_belong_to_its_owner_and_query() {
        let (ann, bob) = (UserId::new("ann").expect("an id"), UserId::new("bob").expect("an id"));
        let tags = ReadTags::new(&ann, Operation::ListTasks, "limit=5");
        let revision = Revision::new(1_763_712_000_000_001);
        let tag = tags.at(revision).expect("a tag");
        let sent = headers(&[(IF_NONE_MATCH, b"\"x\""), (IF_NONE_MATCH, tag.as_bytes())]);
        assert!(tags.known(&sent).contains(revision) && tags.known(&sent).newest() == Some(revision));
        assert!(!tags.known(&sent).contains(Revision::new(1)));
        for other in [
            ReadTags::new(&bob, Operation::ListTasks, "limit=5"),
            ReadTags::new(&ann, Operation::CountTasks, "limit=5"),
            ReadTags::new(&ann, Operation::ListTasks, "limit=50"),
        ] {
            assert!(!other.known(&sent).contains(revision), "{other:?}");
            assert_eq!(other.known(&sent).newest(), None);
        }
        assert!(tags.known(&headers(&[(IF_NONE_MATCH, b"*")])).contains(revision));
        assert!(!tags.known(&headers(&[(IF_NONE_MATCH, b"nonsense")])).contains(revision));
    }
}
