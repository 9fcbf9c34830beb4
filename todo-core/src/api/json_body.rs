//! What is wrong with a body that is not JSON, and where, in the words of the response.

use serde_json::error::Category;

use super::printable::printable;
use crate::json::Json;

/// A body that was parsed.
pub(super) struct Parsed {
    pub(super) value: Json,
    /// The indices of the members of the object (or of the elements of the array), in the order of the text, whose values
    /// are not those that were sent, with what is wrong.
    pub(super) wrong: Vec<(usize, &'static str)>,
}

/// Parses a body of UTF-8.
///
/// `JSON.stringify` writes half of a surrogate pair, such as an emoji that was cut in two, as an escape (`"\ud83c"`).
/// That is valid JSON (RFC 8259, section 8.2), but no text. The members that contain one are returned, so that each is
/// named like any other invalid field. So is a number that no program reads as a number, such as `1e999`.
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
    let mut repaired = text.to_owned();
    if let Some((without, positions)) = without_half_pairs(text) {
        repaired = without;
        wrong.extend(positions.into_iter().map(|at| (Place::of(body, at).member, HALF_A_PAIR)));
    }
    for _ in 0..MAX_REPAIRS {
        match Json::parse(repaired.as_bytes()) {
            Ok(value) => return Ok(Parsed { value, wrong }),
            Err(next) => error = next,
        }
        let Some((without, at)) = without_huge_number(&repaired, &error) else { break };
        wrong.push((Place::of(repaired.as_bytes(), at).member, HUGE_NUMBER));
        repaired = without;
    }
    Err(described(body, &error))
}

const HALF_A_PAIR: &str = "must not contain half of a surrogate pair, such as an emoji that was cut in two";
const HUGE_NUMBER: &str = "must not contain a number that is out of range";
/// The maximum number of huge numbers in one body that are reported by the names of their fields.
const MAX_REPAIRS: usize = 8;

/// The text with 0 instead of the number that the parser could not read, and the position of the number.
fn without_huge_number(text: &str, error: &serde_json::Error) -> Option<(String, usize)> {
    if !error.to_string().starts_with("number out of range") {
        return None;
    }
    let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let near = position(text.as_bytes(), error).min(text.len().checked_sub(1)?);
    let bytes = text.as_bytes();
    let inside = (near.saturating_sub(1)..=near).rev().find(|at| is_part(&bytes[*at]))?;
    let start = bytes[..inside].iter().rposition(|byte| !is_part(byte)).map_or(0, |before| before + 1);
    let end = bytes[inside..].iter().position(|byte| !is_part(byte)).map_or(bytes.len(), |after| inside + after);
    Some((format!("{}0{}", &text[..start], &text[end..]), start))
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

/// A position in the text of an object.
struct Place<'a> {
    /// The index of the member.
    member: usize,
    /// The name of the member as it is written, if the position is after the name.
    name: Option<&'a [u8]>,
}

impl<'a> Place<'a> {
    /// Finds the member of the outermost object at a position. The text before the position is valid JSON.
    fn of(body: &'a [u8], position: usize) -> Self {
        let mut place = Self { member: 0, name: None };
        let (mut depth, mut string_start, mut last_string, mut escaped) = (0_usize, None, None, false);
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
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        place.name = None;
                    }
                }
                b':' if depth == 1 => place.name = last_string,
                b',' if depth == 1 => {
                    place.member += 1;
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

    #[test]
    fn half_of_a_surrogate_pair_is_found_in_its_member() {
        for (body, halved) in [
            (r#"{"title":"\ud83c"}"#, vec![0]),
            (r#"{"title":"\\ud83c \ud83c\udf89","description":"a \udf89"}"#, vec![1]),
            (r#"{"a":{"b":["\ud83c","x, {"]},"b,":1,"c":"\ud83c\ud83c\udf89"}"#, vec![0, 2]),
            (r#"{"title":"\ud83c\n"}"#, vec![0]),
        ] {
            let halved = halved.into_iter().map(|member| (member, HALF_A_PAIR)).collect();
            assert_eq!(parse(body.as_bytes()).map(|parsed| parsed.wrong), Ok(halved), "{body}");
        }
        assert!(problem(br#"{"title":"\ud83c",}"#).starts_with("The body is not valid JSON: "));
        assert!(problem(br#"{"title":"\ud8"}"#).starts_with("The body is not valid JSON: "));
        assert!(problem(br#"{"title":"\"#).contains("ends too early"));
    }

    #[test]
    fn a_number_out_of_range_is_found_in_its_member() {
        for (body, members) in [
            (r#"{"title":"x","metadata":{"n":1e100000}}"#, vec![1]),
            (r#"{"a":[1,-1.5e+999],"b":1e5,"c":1E400}"#, vec![0, 2]),
            ("{\n\"a\": 1e999}", vec![0]),
            (r#"[{"a":1},{"a":1e999}]"#, vec![1]),
        ] {
            let wrong = members.into_iter().map(|member| (member, HUGE_NUMBER)).collect();
            assert_eq!(parse(body.as_bytes()).map(|parsed| parsed.wrong), Ok(wrong), "{body}");
        }
        let many = format!("[{}]", vec!["1e999"; 100].join(","));
        assert!(problem(many.as_bytes()).contains("number out of range"));
    }

    #[test]
    fn the_name_of_a_field_in_an_error_is_short_and_printable() {
        let long = format!(r#"{{"{}\n\u0007":x}}"#, "k".repeat(50_000));
        let text = problem(long.as_bytes());
        assert!(text.len() < 200 && text.chars().all(|character| !character.is_control()), "{text}");
    }
}
