//! Parsers of values. An error is the text after the name of the setting.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

use url::Url;

use super::{Sources, quoted, sources::wrapping};

/// A number in this range.
pub(super) fn within<T>(range: RangeInclusive<T>) -> impl FnOnce(&str) -> Result<T, String>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    move |text| match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("{} is not a number from {} to {}", quoted(text), range.start(), range.end())),
    }
}

/// Reads a setting that is one of several words. The first is the default.
pub(super) fn choice<T: Copy, const N: usize>(sources: &mut Sources, name: &'static str, choices: [(&str, T); N]) -> T {
    let chosen = sources.read(name, |text| match choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
        Some((_, value)) => Ok(*value),
        None => {
            let words = choices.map(|(word, _)| word).join(", ");
            Err(format!("{} is not one of: {words}", quoted(text)))
        }
    });
    chosen.unwrap_or(choices[0].1)
}

/// Texts between commas.
pub(super) fn list(text: &str) -> Result<Vec<String>, String> {
    let texts: Vec<_> = text.split(',').map(|text| text.trim().to_owned()).collect();
    if texts.iter().any(String::is_empty) {
        return Err(format!("{} has an empty entry between its commas", quoted(text)));
    }
    if let Some((entry, problem)) = texts.iter().find_map(|text| Some((text, wrapping(text)?))) {
        return Err(format!("the entry {} {problem}", quoted(entry)));
    }
    Ok(texts)
}

/// An IP address, or `localhost`.
pub(super) fn host(text: &str) -> Result<IpAddr, String> {
    let text = if text == "localhost" { "127.0.0.1" } else { text };
    text.parse().map_err(|_| {
        format!("{} is not an IP address; use 127.0.0.1 for this machine only, 0.0.0.0 for all networks", quoted(text))
    })
}

/// The path of a claim: names between dots.
pub(super) fn claim(path: &str) -> Result<String, String> {
    if path.split('.').any(str::is_empty) {
        return Err(format!("{} is not the name of a claim", quoted(path)));
    }
    Ok(path.to_owned())
}

/// A prefix for user ids.
pub(super) fn user_prefix(text: &str) -> Result<String, String> {
    if text.chars().count() > 100 || text.contains('\0') {
        return Err(format!("{} is longer than 100 characters", quoted(text)));
    }
    Ok(text.to_owned())
}

/// Scopes between spaces (RFC 6749, section 3.3).
pub(super) fn scopes(text: &str) -> Result<String, String> {
    let scopes: Vec<_> = text.split_ascii_whitespace().collect();
    let is_allowed = |character| matches!(character, '!' | '#'..='[' | ']'..='~');
    if !scopes.iter().all(|scope| scope.chars().all(is_allowed)) {
        return Err(format!("{} is not a list of scopes separated by spaces", quoted(text)));
    }
    Ok(scopes.join(" "))
}

/// A URL of HTTP or HTTPS without user, query and fragment.
pub(super) fn http_url(text: &str) -> Result<Url, String> {
    let wrong = |problem: &str| Err(format!("{} {problem}", quoted(text)));
    let Ok(url) = Url::parse(text) else {
        return wrong("is not a URL, such as https://app.example.com");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return wrong("must begin with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("must not contain a user or a password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("must not have a query or a fragment");
    }
    Ok(url)
}
