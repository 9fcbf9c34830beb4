//! Finds the differences between two transcripts.

use std::{collections::BTreeSet, fmt};

use crate::{
    cases::Case,
    wire::{Afterwards, Exchange, Reply, Transcript},
};

/// A difference that a framework forces, which neither its adapter nor the core can remove.
#[derive(Debug)]
pub struct Forced {
    /// The framework that differs.
    pub framework: &'static str,
    /// The exact name of the case.
    pub case: &'static str,
    /// The part that differs, as in [`Difference::what`].
    pub what: &'static str,
    /// Why it cannot be removed.
    pub reason: &'static str,
}

/// All differences that a framework forces.
pub const FORCED: &[Forced] = &[];

/// A difference between the responses of two frameworks.
#[derive(Debug)]
pub struct Difference<'a> {
    /// The case, with its number.
    pub case: (usize, &'a Case),
    /// The part of the response: `status line`, ``header `content-type` ``, `body`, `connection afterwards`.
    pub what: String,
    /// The first framework and its value.
    pub reference: (&'static str, String),
    /// The other framework and its value.
    pub other: (&'static str, String),
}

impl Difference<'_> {
    /// Whether this is the given forced difference.
    #[must_use]
    pub fn is(&self, forced: &Forced) -> bool {
        (self.other.0, self.case.1.name.as_str(), self.what.as_str()) == (forced.framework, forced.case, forced.what)
    }
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((number, case), reference, other) = (self.case, &self.reference, &self.other);
        writeln!(f, "request {number}, \u{ab}{}\u{bb}: the {} of {} differs", case.name, self.what, other.0)?;
        writeln!(f, "    {:<7} {}", reference.0, reference.1)?;
        writeln!(f, "    {:<7} {}", other.0, other.1)?;
        write!(f, "    request {case}")
    }
}

/// Returns the differences of the second transcript from the first, in the order of the cases.
#[must_use]
pub fn differences<'a>(cases: &'a [Case], reference: &Transcript, other: &Transcript) -> Vec<Difference<'a>> {
    let exchanges = reference.exchanges.iter().zip(&other.exchanges);
    let mut all = Vec::new();
    for (case, (first, second)) in cases.iter().enumerate().zip(exchanges) {
        let mut found = Vec::new();
        compare_exchanges(first, second, &mut found);
        all.extend(found.into_iter().map(|Found { what, first, second }| Difference {
            case,
            what,
            reference: (reference.framework, first),
            other: (other.framework, second),
        }));
    }
    all
}

struct Found {
    what: String,
    first: String,
    second: String,
}

fn compare_exchanges(first: &Exchange, second: &Exchange, found: &mut Vec<Found>) {
    for (number, (first_reply, second_reply)) in first.replies.iter().zip(&second.replies).enumerate() {
        let several = first.replies.len().max(second.replies.len()) > 1;
        let which = if several { format!(" (response {})", number + 1) } else { String::new() };
        compare_responses(first_reply, second_reply, &which, found);
    }
    if first.replies.len() != second.replies.len() {
        let [first, second] = [first, second].map(|exchange| exchange.replies.len().to_string());
        found.push(Found { what: "number of responses".to_owned(), first, second });
    }
    if first.rest != second.rest {
        let [first, second] = [first, second].map(|exchange| exchange.rest.escape_ascii().to_string());
        found.push(Found { what: "bytes at the end of the connection".to_owned(), first, second });
    }
    match (&first.afterwards, &second.afterwards) {
        (Afterwards::Reply(first), Afterwards::Reply(second)) => {
            compare_responses(first, second, " (of the request afterwards)", found);
        }
        (first, second) if first != second => {
            let (first, second) = (first.to_string(), second.to_string());
            found.push(Found { what: "connection afterwards".to_owned(), first, second });
        }
        _ => {}
    }
}

fn compare_responses(first: &Reply, second: &Reply, which: &str, found: &mut Vec<Found>) {
    if first.status_line != second.status_line {
        let [first, second] = [first, second].map(|reply| reply.status_line.clone());
        found.push(Found { what: format!("status line{which}"), first, second });
    }
    let names: BTreeSet<_> = first.headers.iter().chain(&second.headers).map(|(name, _)| name.as_str()).collect();
    let mut alike = true;
    for name in names {
        // Byte for byte: not even the case of the name may differ.
        let [first, second] = [first, second].map(|reply| {
            reply.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        });
        if first != second {
            alike = false;
            let [first, second] = [first, second]
                .map(|values| if values.is_empty() { "has none".to_owned() } else { format!("says {values:?}") });
            found.push(Found { what: format!("header `{name}`{which}"), first, second });
        }
    }
    let [first_order, second_order] =
        [first, second].map(|reply| reply.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>());
    if alike && first_order != second_order {
        found.push(Found {
            what: format!("order of headers{which}"),
            first: first_order.join(", "),
            second: second_order.join(", "),
        });
    }
    if first.body != second.body {
        let same = first.body.iter().zip(&second.body).take_while(|(first, second)| first == second).count();
        let [first, second] = [first, second].map(|reply| excerpt(&reply.body, same));
        found.push(Found { what: format!("body{which}"), first, second });
    }
}

/// The bytes around a position. A list of tasks is too long to show completely.
fn excerpt(bytes: &[u8], position: usize) -> String {
    let (begin, end) = (position.saturating_sub(40), bytes.len().min(position + 200));
    let cut = |missing| if missing { "..." } else { "" };
    format!("\"{}{}{}\"", cut(begin > 0), bytes[begin..end].escape_ascii(), cut(end < bytes.len()))
}
