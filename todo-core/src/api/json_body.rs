//! What is wrong with a body that is not JSON, and where, in the words of the response.

use std::ops::Range;

use serde_json::error::Category;

use super::printable::printable;
use crate::json::Json;

/// A body that was parsed.
pub(super) struct Parsed {
    pub(super) value: Json,
    /// The values that are not those that were sent.
    pub(super) wrong: Vec<Wrong>,
}

/// A value that is not the one that was sent, since nothing can hold that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The index of the member of the object, or of the element of the array, in the order of the text.
    pub(super) member: usize,
    /// The index of the member of that element, if it is an object in an array.
    pub(super) member_of_element: Option<usize>,
    /// What is wrong.
    pub(super) reason: &'static str,
}

/// Parses a body of UTF-8.
///
/// `JSON.stringify` writes half of a surrogate pair, such as an emoji that was cut in two, as an escape (`"\ud83c"`).
/// That is valid JSON (RFC 8259, section 8.2), but no text. The members that contain one are returned, so that each is
/// named like any other invalid field. So are those with a number that no program reads as a number, such as `1e999`, and
/// those that are nested more deeply than the parser reads.
///
/// # Errors
///
/// A sentence that says what is wrong and where.
pub(super) fn parse(body: &[u8]) -> Result<Parsed, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err("The body is empty. Send a JSON object.".to_owned());
    }
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err("The body begins with a byte order mark. Send JSON without it.".to_owned());
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        format!("The body is not UTF-8: byte {}{} is invalid.", at + 1, Place::of(body, at).described())
    })?;
    let mut error = match Json::parse(text.as_bytes()) {
        Ok(value) => return Ok(Parsed { value, wrong: Vec::new() }),
        Err(error) => error,
    };
    let mut wrong = Vec::new();
    let mut note = |text: &str, at: usize, reason: &'static str| {
        let Place { member, member_of_element, .. } = Place::of(text.as_bytes(), at);
        wrong.push(Wrong { member, member_of_element, reason });
    };
    // Each repair keeps the positions of everything else, for the description of other errors.
    let mut repaired = text.to_owned();
    if let Some((without, positions)) = without_half_pairs(text) {
        repaired = without;
        for at in positions {
            note(text, at, HALF_A_PAIR);
        }
    }
    for _ in 0..MAX_REPAIRS {
        match Json::parse(repaired.as_bytes()) {
            Ok(value) => return Ok(Parsed { value, wrong }),
            Err(next) => error = next,
        }
        let Some((range, reason)) = unreadable_value(repaired.as_bytes(), &error) else { break };
        note(&repaired, range.start, reason);
        let rest = repaired[range.clone()].bytes().skip(1).map(|byte| if byte == b'\n' { '\n' } else { ' ' });
        let replacement: String = std::iter::once('0').chain(rest).collect();
        repaired.replace_range(range, &replacement);
    }
    Err(described(body, &error))
}

const HALF_A_PAIR: &str = "must not contain half of a surrogate pair, such as an emoji that was cut in two";
const HUGE_NUMBER: &str = "must not contain a number that is out of range";
const TOO_DEEP: &str = "is nested too deeply";
/// The maximum number of values in one body that are replaced, so that their fields can be named.
const MAX_REPAIRS: usize = 8;

/// Finds the value that the parser could not read although it is JSON, and what is wrong with it.
fn unreadable_value(text: &[u8], error: &serde_json::Error) -> Option<(Range<usize>, &'static str)> {
    let near = position(text, error).min(text.len().checked_sub(1)?);
    let message = error.to_string();
    if message.starts_with("number out of range") {
        let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
        let inside = (near.saturating_sub(1)..=near).rev().find(|at| is_part(&text[*at]))?;
        let start = text[..inside].iter().rposition(|byte| !is_part(byte)).map_or(0, |before| before + 1);
        let end = text[inside..].iter().position(|byte| !is_part(byte)).map_or(text.len(), |after| inside + after);
        return Some((start..end, HUGE_NUMBER));
    }
    if message.starts_with("recursion limit exceeded") {
        let start = (near.saturating_sub(1)..text.len()).find(|at| b"[{".contains(&text[*at]))?;
        return Some((start..end_of_nested(text, start)?, TOO_DEEP));
    }
    None
}

/// The end of the array or object that starts here, or `None` if it has none.
fn end_of_nested(text: &[u8], start: usize) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.iter().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The position at which the parser has stopped.
fn position(body: &[u8], error: &serde_json::Error) -> usize {
    let line_start = match error.line().saturating_sub(2) {
        _ if error.line() < 2 => 0,
        breaks => body.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(breaks).map_or(0, |(at, _)| at + 1),
    };
    line_start + error.column().saturating_sub(1)
}

fn described(body: &[u8], error: &serde_json::Error) -> String {
    if error.classify() == Category::Eof {
        return "The body is not valid JSON: it ends too early.".to_owned();
    }
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(&*text, |(reason, _)| reason);
    let at = position(body, error);
    format!("The body is not valid JSON: {reason} at byte {}{}.", at + 1, Place::of(body, at).described())
}

/// A position in the text of an object, or of an array of objects.
struct Place<'a> {
    /// The index of the member, or of the element.
    member: usize,
    /// The index of the member of the element, if it is an object.
    member_of_element: Option<usize>,
    /// The name of the innermost of these members as it is written, if the position is after the name.
    name: Option<&'a [u8]>,
}

impl<'a> Place<'a> {
    /// Finds the member at a position. The text before the position is valid JSON.
    fn of(body: &'a [u8], position: usize) -> Self {
        let mut place = Self { member: 0, member_of_element: None, name: None };
        let (mut depth, mut string_start, mut last_string, mut escaped) = (0_usize, None, None, false);
        // The depth of the members.
        let mut level = 1;
        for (at, byte) in body.iter().enumerate().take(position) {
            if let Some(start) = string_start {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => {
                        last_string = Some(&body[start..at]);
                        string_start = None;
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => string_start = Some(at + 1),
                b'{' | b'[' => {
                    match (depth, byte) {
                        (0, b'[') => level = 2,
                        (1, b'{') if level == 2 => place.member_of_element = Some(0),
                        _ => {}
                    }
                    depth += 1;
                }
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if depth < level {
                        place.name = None;
                        place.member_of_element = None;
                    }
                }
                b':' if depth == level => place.name = last_string,
                b',' if depth == 1 => {
                    place.member += 1;
                    place.name = None;
                }
                b',' if depth == level => {
                    place.member_of_element = place.member_of_element.map(|member| member + 1);
                    place.name = None;
                }
                _ => {}
            }
        }
        place
    }

    /// The name of the member, to follow the position in a sentence.
    fn described(&self) -> String {
        self.name.map_or_else(String::new, |name| format!(" (in `{}`)", printable(name)))
    }
}

/// Finds the escapes that are half of a surrogate pair, such as `\ud83c` alone. Returns the text with `\ufffd` in their
/// place, and their positions; or `None`, if the text has no such escape.
fn without_half_pairs(text: &str) -> Option<(String, Vec<usize>)> {
    let escape = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut repaired = text.to_owned();
    let mut positions = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        at += found;
        let first = escape(at);
        let second = escape(at + 6);
        at += match (first, second) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                repaired.replace_range(at..at + 6, "\\ufffd");
                positions.push(at);
                6
            }
            // Also the character after the backslash, which may be a backslash.
            _ => 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    (!positions.is_empty()).then_some((repaired, positions))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(body: &[u8]) -> String {
        parse(body).err().expect("an error")
    }

    #[test]
    fn a_body_that_is_not_json_is_described_with_the_byte_and_the_field() {
        for (body, expected) in [
            (&b""[..], "The body is empty. Send a JSON object."),
            (b" \r\n", "The body is empty. Send a JSON object."),
            (b"\xef\xbb\xbf{}", "The body begins with a byte order mark. Send JSON without it."),
            (b"{\"title\":\"\xfc\"}", "The body is not UTF-8: byte 11 (in `title`) is invalid."),
            (b"\xff\xfe{\0", "The body is not UTF-8: byte 1 is invalid."),
            (b"{\"title\":\"x\"", "The body is not valid JSON: it ends too early."),
            (b"{\"a\":1,\n\"title\":\"x\",}", "The body is not valid JSON: trailing comma at byte 21."),
            (b"{\"title\":\"x\"} {}", "The body is not valid JSON: trailing characters at byte 15."),
            (b"{\"title\":'x'}", "The body is not valid JSON: expected value at byte 10 (in `title`)."),
        ] {
            assert_eq!(problem(body), expected, "{}", String::from_utf8_lossy(body));
        }
    }

    /// The members with wrong values, all for the same reason.
    fn wrong(body: &str) -> Vec<(usize, Option<usize>, &'static str)> {
        let parsed = parse(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"));
        parsed.wrong.into_iter().map(|wrong| (wrong.member, wrong.member_of_element, wrong.reason)).collect()
    }

    #[test]
    fn half_of_a_surrogate_pair_is_found_in_its_member() {
        for (body, members) in [
            (r#"{"title":"\ud83c"}"#, vec![(0, None)]),
            (r#"{"title":"\\ud83c \ud83c\udf89","description":"a \udf89"}"#, vec![(1, None)]),
            (r#"{"a":{"b":["\ud83c","x, {"]},"b,":1,"c":"\ud83c\ud83c\udf89"}"#, vec![(0, None), (2, None)]),
            (r#"{"title":"\ud83c\n"}"#, vec![(0, None)]),
            (r#"[{"a":1},{"a":{"b":[0,1]},"b":["x","\ud83c"]},"\ud83c"]"#, vec![(1, Some(1)), (2, None)]),
        ] {
            let expected: Vec<_> = members.into_iter().map(|(member, inner)| (member, inner, HALF_A_PAIR)).collect();
            assert_eq!(wrong(body), expected, "{body}");
        }
        assert!(problem(br#"{"title":"\ud83c",}"#).starts_with("The body is not valid JSON: "));
        assert!(problem(br#"{"title":"\ud8"}"#).starts_with("The body is not valid JSON: "));
        assert!(problem(br#"{"title":"\"#).contains("ends too early"));
    }

    #[test]
    fn a_number_out_of_range_is_found_in_its_member() {
        for (body, members) in [
            (r#"{"title":"x","metadata":{"n":1e100000}}"#, vec![(1, None)]),
            (r#"{"a":[1,-1.5e+999],"b":1e5,"c":1E400}"#, vec![(0, None), (2, None)]),
            (r#"{"a":[1e999,-5],"b":-1e999 }"#, vec![(0, None), (1, None)]),
            ("{\n\"a\": 1e999}", vec![(0, None)]),
            (r#"[{"a":1},{"b":[2],"a":1e999}]"#, vec![(1, Some(1))]),
        ] {
            let expected: Vec<_> = members.into_iter().map(|(member, inner)| (member, inner, HUGE_NUMBER)).collect();
            assert_eq!(wrong(body), expected, "{body}");
        }
        let many = format!("[{}]", vec!["1e999"; 100].join(","));
        assert!(problem(many.as_bytes()).contains("number out of range"));
        let expected = "The body is not valid JSON: expected value at byte 22 (in `b`).";
        assert_eq!(problem(br#"{"a":1e99999999, "b":x}"#), expected, "the byte of the body as it was sent");
    }

    #[test]
    fn a_value_that_is_nested_too_deeply_is_found_in_its_member() {
        let nested = |depth: usize| {
            format!(r#"{{"x":"]","a":{}"}}]"{}}}"#, r#"{"b":["#.repeat(depth / 2), "]}".repeat(depth / 2))
        };
        assert_eq!(wrong(&nested(100)), []);
        for depth in [128, 130, 10_000] {
            assert_eq!(wrong(&nested(depth)), [(1, None, TOO_DEEP)], "{depth}");
        }
        let in_array = format!("[{{}},{}]", nested(200));
        assert_eq!(wrong(&in_array), [(1, Some(1), TOO_DEEP)]);
        assert!(problem("[".repeat(10_000).as_bytes()).contains("recursion limit exceeded"));
    }

    #[test]
    fn the_member_of_an_element_is_named() {
        let expected = "The body is not valid JSON: expected value at byte 33 (in `list`).";
        assert_eq!(problem(br#"[{"title":"x"},{"a":[1],"list": x}]"#), expected);
    }

    #[test]
    fn the_name_of_a_field_in_an_error_is_short_and_printable() {
        let long = format!(r#"{{"{}\n\u0007":x}}"#, "k".repeat(50_000));
        let text = problem(long.as_bytes());
        assert!(text.len() < 200 && text.chars().all(|character| !character.is_control()), "{text}");
    }
}
