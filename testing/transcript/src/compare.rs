//! Finds what differs between two transcripts, and says it so that somebody can act on it.

use std::{collections::BTreeSet, fmt};

use crate::{
    cases::Case,
    wire::{Afterwards, Answer, Exchange, Transcript},
};

/// A difference that a framework forces: nothing in its adapter or in the core could remove it.
///
/// README lists them, with the reason.
#[derive(Debug)]
pub struct Forced {
    /// The framework that is different.
    pub framework: &'static str,
    /// The name of the case, to the letter.
    pub case: &'static str,
    /// What differs, as [`Difference::what`].
    pub what: &'static str,
    /// Why it cannot be helped.
    pub reason: &'static str,
}

/// All differences that a framework forces.
pub const FORCED: &[Forced] = &[];

/// Something that one framework answers otherwise than the one it is compared with.
#[derive(Debug)]
pub struct Difference<'a> {
    /// The case, with its number.
    pub case: (usize, &'a Case),
    /// The part of the answer: `status line`, ``header `content-type` ``, `body`, `connection afterwards`.
    pub what: String,
    /// A framework, and what it says.
    pub reference: (&'static str, String),
    /// The other, and what it says in its place.
    pub other: (&'static str, String),
}

impl Difference<'_> {
    /// Whether this is the difference that is forced.
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

/// What the second transcript says otherwise than the first, in the order of the cases.
#[must_use]
pub fn differences<'a>(cases: &'a [Case], reference: &Transcript, other: &Transcript) -> Vec<Difference<'a>> {
    let exchanges = reference.exchanges.iter().zip(&other.exchanges);
    let mut all = Vec::new();
    for (case, (ours, theirs)) in cases.iter().enumerate().zip(exchanges) {
        let mut found = Vec::new();
        compare_exchanges(ours, theirs, &mut found);
        all.extend(found.into_iter().map(|Found { what, ours, theirs }| Difference {
            case,
            what,
            reference: (reference.framework, ours),
            other: (other.framework, theirs),
        }));
    }
    all
}

struct Found {
    what: String,
    ours: String,
    theirs: String,
}

fn compare_exchanges(ours: &Exchange, theirs: &Exchange, found: &mut Vec<Found>) {
    for (number, (ours_there, theirs_there)) in ours.answers.iter().zip(&theirs.answers).enumerate() {
        let several = ours.answers.len().max(theirs.answers.len()) > 1;
        let which = if several { format!(" (answer {})", number + 1) } else { String::new() };
        compare_answers(ours_there, theirs_there, &which, found);
    }
    if ours.answers.len() != theirs.answers.len() {
        let [ours, theirs] = [ours, theirs].map(|exchange| exchange.answers.len().to_string());
        found.push(Found { what: "number of answers".to_owned(), ours, theirs });
    }
    if ours.rest != theirs.rest {
        let [ours, theirs] = [ours, theirs].map(|exchange| exchange.rest.escape_ascii().to_string());
        found.push(Found { what: "end of the connection".to_owned(), ours, theirs });
    }
    match (&ours.afterwards, &theirs.afterwards) {
        (Afterwards::Answered(ours), Afterwards::Answered(theirs)) => {
            compare_answers(ours, theirs, " (of the request afterwards)", found);
        }
        (ours, theirs) if ours != theirs => {
            let (ours, theirs) = (ours.to_string(), theirs.to_string());
            found.push(Found { what: "connection afterwards".to_owned(), ours, theirs });
        }
        _ => {}
    }
}

fn compare_answers(ours: &Answer, theirs: &Answer, which: &str, found: &mut Vec<Found>) {
    if ours.status_line != theirs.status_line {
        let [ours, theirs] = [ours, theirs].map(|answer| answer.status_line.clone());
        found.push(Found { what: format!("status line{which}"), ours, theirs });
    }
    let names: BTreeSet<_> = ours.headers.iter().chain(&theirs.headers).map(|(name, _)| name.as_str()).collect();
    let mut alike = true;
    for name in names {
        // To the letter: not even the case of the name may differ.
        let [ours, theirs] = [ours, theirs].map(|answer| {
            answer.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        });
        if ours != theirs {
            alike = false;
            let [ours, theirs] = [ours, theirs]
                .map(|values| if values.is_empty() { "has none".to_owned() } else { format!("says {values:?}") });
            found.push(Found { what: format!("header `{name}`{which}"), ours, theirs });
        }
    }
    let [ours_in_order, theirs_in_order] =
        [ours, theirs].map(|answer| answer.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>());
    if alike && ours_in_order != theirs_in_order {
        found.push(Found {
            what: format!("order of headers{which}"),
            ours: ours_in_order.join(", "),
            theirs: theirs_in_order.join(", "),
        });
    }
    if ours.body != theirs.body {
        let same = ours.body.iter().zip(&theirs.body).take_while(|(ours, theirs)| ours == theirs).count();
        let [ours, theirs] = [ours, theirs].map(|answer| excerpt(&answer.body, same));
        found.push(Found { what: format!("body{which}"), ours, theirs });
    }
}

/// What bytes say from here on, and a little before; not all of it, because a list of tasks is long.
fn excerpt(bytes: &[u8], position: usize) -> String {
    let (begin, end) = (position.saturating_sub(40), bytes.len().min(position + 200));
    let cut = |missing| if missing { "..." } else { "" };
    format!("\"{}{}{}\"", cut(begin > 0), bytes[begin..end].escape_ascii(), cut(end < bytes.len()))
}
