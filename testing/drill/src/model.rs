//! What a user's tasks must look like, by what was asked and answered so far.
//!
//! Each user is the only one who writes his tasks, and has at most one write to a task under way. So a task has a row of
//! versions, of which the client knows each: those that were answered, and at most one that may or may not be there. An
//! answer is right if it shows a version that could be there while it was asked for: not older than what was known
//! before the question was sent, not newer than what was asked for by the time of the answer. What has once been seen
//! is known from then on, as if its write had been answered.
//!
//! A write without an answer, or with an answer that says nothing of it (5xx), leaves its task in limbo: no further
//! write is sent to it, because the one of unknown fate may still happen, until a read has shown that it did.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

/// A task as the server shows it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) title: String,
    pub(crate) description: Option<String>,
    pub(crate) completed: bool,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
    pub(crate) version: usize,
}

/// What users can change of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) title: String,
    pub(crate) description: Option<String>,
    pub(crate) completed: bool,
}

/// Why an answer is not right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A task that must be there is not.
    Missing,
    /// A task is as it was before a change that was answered.
    Outdated,
    /// A deleted task is there.
    Resurrected,
    /// It belongs to somebody else.
    Foreign,
    /// A version that nobody asked for, or with other contents than those that were asked for.
    Invented,
    /// One creation made two tasks.
    Doubled,
    /// A page is not in order, is too long, or does not begin where the one before ended.
    Disordered,
    /// A task stands in a list for others.
    Unasked,
    /// It is no answer of this API.
    Malformed,
}

impl Fault {
    /// Whether it means that an acknowledged write is not there.
    pub(crate) const fn is_loss(self) -> bool {
        matches!(self, Self::Missing | Self::Outdated | Self::Resurrected)
    }
}

/// A fault, and what it was seen in.
pub(crate) type Finding = (Fault, String);

/// A moment in the order of what this client has sent and received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

#[derive(Debug)]
struct Version {
    content: Content,
    updated_at: Option<String>,
    /// Since when it is known that it was reached.
    known: Option<Moment>,
}

#[derive(Debug)]
struct Task {
    created_at: Option<String>,
    /// The first is version 1.
    versions: Vec<Version>,
    deletion: bool,
    gone: Option<Moment>,
    /// A write is under way.
    busy: bool,
    /// The fate of the last write is not known.
    limbo: bool,
}

impl Task {
    /// The version that must have been reached at that moment.
    fn floor(&self, moment: Moment) -> usize {
        let known = |version: &Version| version.known.is_some_and(|known| known <= moment);
        self.versions.iter().rposition(known).map_or(0, |index| index + 1)
    }

    fn is_free(&self) -> bool {
        !(self.busy || self.limbo || self.deletion)
    }

    fn last(&self) -> &Content {
        &self.versions[self.versions.len() - 1].content
    }
}

/// A creation whose task is not known by an answer.
#[derive(Debug)]
struct Draft {
    content: Content,
    /// The task that a read has shown in the meantime.
    seen: Option<String>,
}

/// The tasks of one user.
#[derive(Debug)]
pub(crate) struct Model {
    user: String,
    now: u64,
    tasks: BTreeMap<String, Task>,
    /// By title: each is used once.
    drafts: HashMap<String, Draft>,
}

/// Which page of which list was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) limit: usize,
    pub(crate) completed: Option<bool>,
    /// The last task of the page before.
    pub(crate) after: Option<String>,
}

impl Model {
    pub(crate) fn new(user: &str) -> Self {
        Self { user: user.to_owned(), now: 0, tasks: BTreeMap::new(), drafts: HashMap::new() }
    }

    /// The moment before a question is sent.
    pub(crate) fn now(&self) -> Moment {
        Moment(self.now)
    }

    fn tick(&mut self) -> Moment {
        self.now += 1;
        Moment(self.now)
    }

    /// How many tasks there are, as far as it is known.
    pub(crate) fn len(&self) -> usize {
        self.tasks.values().filter(|task| !task.deletion).count()
    }

    /// How many writes have an unknown fate.
    pub(crate) fn in_limbo(&self) -> usize {
        self.tasks.values().filter(|task| task.limbo).count()
            + self.drafts.values().filter(|draft| draft.seen.is_none()).count()
    }

    /// Tasks that a write may be sent to, with what they hold.
    pub(crate) fn free(&self) -> Vec<(&str, &Content)> {
        let free = self.tasks.iter().filter(|(_, task)| task.is_free());
        free.map(|(id, task)| (id.as_str(), task.last())).collect()
    }

    /// Tasks that may be there.
    pub(crate) fn present(&self) -> Vec<&str> {
        self.tasks.iter().filter(|(_, task)| task.gone.is_none()).map(|(id, _)| id.as_str()).collect()
    }

    /// Tasks that must not be there any more.
    pub(crate) fn gone(&self) -> Vec<&str> {
        self.tasks.iter().filter(|(_, task)| task.gone.is_some()).map(|(id, _)| id.as_str()).collect()
    }

    /// A creation is about to be sent.
    pub(crate) fn creating(&mut self, content: &Content) {
        self.drafts.insert(content.title.clone(), Draft { content: content.clone(), seen: None });
    }

    /// A change is about to be sent to a [`free`](Self::free) task.
    pub(crate) fn changing(&mut self, id: &str, content: &Content) {
        let task = self.task(id);
        task.busy = true;
        task.versions.push(Version { content: content.clone(), updated_at: None, known: None });
    }

    /// A deletion is about to be sent to a [`free`](Self::free) task.
    pub(crate) fn deleting(&mut self, id: &str) {
        let task = self.task(id);
        task.busy = true;
        task.deletion = true;
    }

    fn task(&mut self, id: &str) -> &mut Task {
        self.tasks.get_mut(id).unwrap_or_else(|| unreachable!("only tasks of this model are written to"))
    }

    /// A creation was answered.
    pub(crate) fn created(&mut self, title: &str, shown: &Shown) -> Result<(), Finding> {
        let Some(draft) = self.drafts.get(title) else {
            return Err((Fault::Invented, format!("nobody creates {title}")));
        };
        if shown.title != title || shown.version != 1 {
            return Err((Fault::Invented, format!("{shown:?} for a new {title}")));
        }
        if draft.seen.as_ref().is_some_and(|seen| *seen != shown.id) {
            return Err((Fault::Doubled, format!("{title} is also {}", shown.id)));
        }
        let moment = self.tick();
        self.see(shown, moment, moment)?;
        self.drafts.remove(title);
        Ok(())
    }

    /// A change was answered.
    pub(crate) fn changed(&mut self, id: &str, shown: &Shown) -> Result<(), Finding> {
        let versions = self.task(id).versions.len();
        self.task(id).busy = false;
        if shown.id != id || shown.version != versions {
            self.task(id).limbo = true;
            let fault = if shown.version < versions { Fault::Outdated } else { Fault::Invented };
            return Err((fault, format!("{shown:?} after a change to version {versions}")));
        }
        let moment = self.tick();
        self.see(shown, moment, moment)
    }

    /// A deletion was answered.
    pub(crate) fn deleted(&mut self, id: &str) {
        let moment = self.tick();
        let task = self.task(id);
        task.busy = false;
        task.gone.get_or_insert(moment);
    }

    /// A write to this task was told that there is no such task.
    pub(crate) fn not_found(&mut self, id: &str) -> Finding {
        let task = self.task(id);
        task.busy = false;
        task.limbo = true;
        (Fault::Missing, format!("{id} cannot be written to"))
    }

    /// A write to this task may have happened, or may still happen.
    pub(crate) fn unknown(&mut self, id: &str) {
        let task = self.task(id);
        task.busy = false;
        // A read may have shown it already.
        let version_is_known = task.versions.last().is_some_and(|version| version.known.is_some());
        task.limbo = if task.deletion { task.gone.is_none() } else { !version_is_known };
    }

    /// A write to this task has never been sent.
    pub(crate) fn unsent(&mut self, id: &str) {
        let task = self.task(id);
        task.busy = false;
        if task.deletion {
            task.deletion = false;
        } else {
            task.versions.pop();
        }
    }

    /// A creation has never been sent.
    pub(crate) fn uncreated(&mut self, title: &str) {
        self.drafts.remove(title);
    }

    /// A task was asked for at that moment, and this is the answer.
    pub(crate) fn got(&mut self, id: &str, asked: Moment, shown: &Shown) -> Result<(), Finding> {
        if shown.id != id {
            return Err((Fault::Invented, format!("{} instead of {id}", shown.id)));
        }
        let now = self.tick();
        self.see(shown, asked, now)
    }

    /// A task was asked for at that moment, and there is none.
    pub(crate) fn absent(&mut self, id: &str) -> Result<(), Finding> {
        let now = self.tick();
        match self.tasks.get_mut(id) {
            Some(task) if !task.deletion => Err((Fault::Missing, format!("{id} is not there"))),
            Some(task) => {
                task.gone.get_or_insert(now);
                if !task.busy {
                    task.limbo = false;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A page was asked for at that moment, and this is the answer.
    pub(crate) fn listed(
        &mut self,
        page: &Page,
        asked: Moment,
        shown: &[Shown],
        is_last: bool,
    ) -> Result<(), Vec<Finding>> {
        let now = self.tick();
        let mut findings = Vec::new();
        let ids = || page.after.iter().map(String::as_str).chain(shown.iter().map(|task| task.id.as_str()));
        if let Some((one, other)) = ids().zip(ids().skip(1)).find(|(one, other)| one <= other) {
            findings.push((Fault::Disordered, format!("{other} after {one}")));
        }
        if shown.len() > page.limit || (!is_last && shown.len() < page.limit) {
            findings.push((Fault::Disordered, format!("{} tasks on a page of {}", shown.len(), page.limit)));
        }
        for task in shown {
            if page.completed.is_some_and(|completed| completed != task.completed) {
                findings.push((Fault::Unasked, format!("{task:?}")));
            }
            if let Err(finding) = self.see(task, asked, now) {
                findings.push(finding);
            }
        }
        let from = if is_last { "" } else { shown.last().map_or("", |task| task.id.as_str()) };
        let is_covered = |id: &str| id >= from && page.after.as_ref().is_none_or(|after| id < after.as_str());
        let is_shown: std::collections::HashSet<_> = shown.iter().map(|task| task.id.as_str()).collect();
        for (id, task) in self.tasks.iter_mut().filter(|(id, _)| is_covered(id) && !is_shown.contains(id.as_str())) {
            let floor = task.floor(asked);
            if floor == 0 || task.gone.is_some() {
                continue;
            }
            let fits =
                |version: &Version| page.completed.is_none_or(|completed| version.content.completed == completed);
            if !task.deletion {
                if task.versions[floor - 1..].iter().all(fits) {
                    findings.push((Fault::Missing, format!("{id} is not in a list")));
                }
            } else if page.completed.is_none() {
                task.gone = Some(now);
                task.limbo &= task.busy;
            }
        }
        if findings.is_empty() { Ok(()) } else { Err(findings) }
    }

    /// A task was shown in an answer of now to a question of then.
    fn see(&mut self, shown: &Shown, asked: Moment, now: Moment) -> Result<(), Finding> {
        if shown.user_id != self.user {
            return Err((Fault::Foreign, format!("{shown:?} shown to {}", self.user)));
        }
        if !self.tasks.contains_key(&shown.id) {
            self.adopt(shown, now)?;
        }
        let task = self.task(&shown.id);
        if task.gone.is_some_and(|gone| gone <= asked) {
            return Err((Fault::Resurrected, format!("{shown:?}")));
        }
        let floor = task.floor(asked);
        let Some(version) = shown.version.checked_sub(1).and_then(|index| task.versions.get(index)) else {
            return Err((Fault::Invented, format!("{shown:?}, of {} versions", task.versions.len())));
        };
        if shown.version < floor {
            return Err((Fault::Outdated, format!("{shown:?}, but version {floor} was acknowledged")));
        }
        let Content { title, description, completed } = &version.content;
        if (title, description, *completed) != (&shown.title, &shown.description, shown.completed) {
            return Err((Fault::Invented, format!("{shown:?} instead of {:?}", version.content)));
        }
        if version.updated_at.as_ref().is_some_and(|known| *known != shown.updated_at)
            || task.created_at.as_ref().is_some_and(|known| *known != shown.created_at)
        {
            return Err((Fault::Invented, format!("{shown:?} has other times than before")));
        }
        let before = task.versions[..shown.version - 1].iter().rev().find_map(|version| version.updated_at.as_ref());
        if before.or(task.created_at.as_ref()).is_some_and(|before| *before > shown.updated_at) {
            return Err((Fault::Invented, format!("{shown:?} was changed before it was changed")));
        }
        task.created_at.get_or_insert_with(|| shown.created_at.clone());
        let is_last = shown.version == task.versions.len();
        let version = &mut task.versions[shown.version - 1];
        version.updated_at.get_or_insert_with(|| shown.updated_at.clone());
        version.known.get_or_insert(now);
        if is_last && !task.deletion && !task.busy {
            task.limbo = false;
        }
        Ok(())
    }

    /// A task that is not known yet: one of those whose creation was not answered yet.
    fn adopt(&mut self, shown: &Shown, now: Moment) -> Result<(), Finding> {
        let Some(draft) = self.drafts.get_mut(&shown.title) else {
            return Err((Fault::Invented, format!("nobody made {shown:?}")));
        };
        if let Some(seen) = &draft.seen {
            return Err((Fault::Doubled, format!("{} and {seen} are one creation", shown.id)));
        }
        draft.seen = Some(shown.id.clone());
        let first = Version { content: draft.content.clone(), updated_at: None, known: Some(now) };
        let task =
            Task { created_at: None, versions: vec![first], deletion: false, gone: None, busy: false, limbo: false };
        self.tasks.insert(shown.id.clone(), task);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(title: &str, completed: bool) -> Content {
        Content { title: title.to_owned(), description: None, completed }
    }

    fn shown(id: &str, content: &Content, version: usize) -> Shown {
        Shown {
            id: id.to_owned(),
            user_id: "ann".to_owned(),
            title: content.title.clone(),
            description: content.description.clone(),
            completed: content.completed,
            created_at: "2026-01-01T00:00:00.000000Z".to_owned(),
            updated_at: format!("2026-01-01T00:00:0{version}.000000Z"),
            version,
        }
    }

    /// A model of tasks a, b and c, each created and acknowledged.
    fn three() -> Model {
        let mut model = Model::new("ann");
        for id in ["a", "b", "c"] {
            model.creating(&content(id, false));
            model.created(id, &shown(id, &content(id, false), 1)).unwrap();
        }
        model
    }

    fn first(id: &str) -> Shown {
        shown(id, &content(id, false), 1)
    }

    fn all(limit: usize) -> Page {
        Page { limit, completed: None, after: None }
    }

    fn faults(result: Result<(), Vec<Finding>>) -> Vec<Fault> {
        result.err().unwrap_or_default().into_iter().map(|(fault, _)| fault).collect()
    }

    fn fault(result: Result<(), Finding>) -> Option<Fault> {
        result.err().map(|(fault, _)| fault)
    }

    #[test]
    fn what_was_acknowledged_is_right() {
        let mut model = three();
        model.changing("b", &content("b2", true));
        model.changed("b", &shown("b", &content("b2", true), 2)).unwrap();
        model.deleting("a");
        model.deleted("a");
        let asked = model.now();
        model.got("b", asked, &shown("b", &content("b2", true), 2)).unwrap();
        model.absent("a").unwrap();
        model.listed(&all(10), asked, &[first("c"), shown("b", &content("b2", true), 2)], true).unwrap();
        assert_eq!((model.len(), model.in_limbo()), (2, 0));
    }

    #[test]
    fn a_lost_task_is_noticed() {
        let mut model = three();
        let asked = model.now();
        assert_eq!(fault(model.absent("b")), Some(Fault::Missing));
        assert_eq!(faults(model.listed(&all(10), asked, &[first("c"), first("a")], true)), [Fault::Missing]);
        // At both ends of a page, too; but not past its end.
        assert_eq!(faults(model.listed(&all(2), asked, &[first("b"), first("a")], false)), [Fault::Missing]);
        assert_eq!(faults(model.listed(&all(10), asked, &[first("c"), first("b")], true)), [Fault::Missing]);
        model.listed(&all(2), asked, &[first("c"), first("b")], false).unwrap();
        let after = Page { after: Some("b".to_owned()), ..all(2) };
        assert_eq!(faults(model.listed(&after, asked, &[], true)), [Fault::Missing]);
        assert_eq!(model.not_found("b").0, Fault::Missing);
    }

    #[test]
    fn a_lost_change_is_noticed() {
        let mut model = three();
        let before = model.now();
        model.changing("b", &content("b2", true));
        model.changed("b", &shown("b", &content("b2", true), 2)).unwrap();
        // Asked before the change was acknowledged: either is right.
        model.got("b", before, &first("b")).unwrap();
        let asked = model.now();
        assert_eq!(fault(model.got("b", asked, &first("b"))), Some(Fault::Outdated));
        let list = [first("c"), first("b"), first("a")];
        assert_eq!(faults(model.listed(&all(10), asked, &list, true)), [Fault::Outdated]);
        // The next change does not build on it.
        model.changing("b", &content("b3", true));
        assert_eq!(fault(model.changed("b", &shown("b", &content("b3", true), 2))), Some(Fault::Outdated));
    }

    #[test]
    fn a_deleted_task_that_is_back_is_noticed() {
        let mut model = three();
        let before = model.now();
        model.deleting("b");
        model.got("b", before, &first("b")).unwrap();
        model.deleted("b");
        let asked = model.now();
        assert_eq!(fault(model.got("b", asked, &first("b"))), Some(Fault::Resurrected));
        let list = [first("c"), first("b"), first("a")];
        assert_eq!(faults(model.listed(&all(10), asked, &list, true)), [Fault::Resurrected]);
    }

    #[test]
    fn a_task_of_another_user_is_noticed() {
        let mut model = three();
        let asked = model.now();
        let foreign = Shown { user_id: "bob".to_owned(), ..first("b") };
        assert_eq!(fault(model.got("b", asked, &foreign)), Some(Fault::Foreign));
        let list = [first("c"), foreign, first("a")];
        assert_eq!(faults(model.listed(&all(10), asked, &list, true)), [Fault::Foreign]);
    }

    #[test]
    fn what_nobody_asked_for_is_noticed() {
        let mut model = three();
        let asked = model.now();
        for wrong in [
            shown("b", &content("other", false), 1),
            shown("b", &content("b", true), 1),
            shown("b", &content("b", false), 2),
            shown("b", &content("b", false), 0),
            shown("d", &content("d", false), 1),
            first("a"),
        ] {
            assert_eq!(fault(model.got("b", asked, &wrong)), Some(Fault::Invented), "{wrong:?}");
        }
        // A toggle that was done twice.
        model.changing("b", &content("b", true));
        assert_eq!(fault(model.changed("b", &shown("b", &content("b", false), 3))), Some(Fault::Invented));
    }

    #[test]
    fn times_do_not_change_and_do_not_go_back() {
        let mut model = three();
        let asked = model.now();
        let other = Shown { updated_at: "2026-01-01T00:00:09.000000Z".to_owned(), ..first("b") };
        assert_eq!(fault(model.got("b", asked, &other)), Some(Fault::Invented));
        model.changing("b", &content("b2", true));
        let back =
            Shown { updated_at: "2026-01-01T00:00:00.500000Z".to_owned(), ..shown("b", &content("b2", true), 2) };
        assert_eq!(fault(model.changed("b", &back)), Some(Fault::Invented));
    }

    #[test]
    fn one_creation_is_one_task() {
        let mut model = three();
        let asked = model.now();
        model.creating(&content("new", false));
        // It is seen before its answer comes.
        model.got("d", asked, &shown("d", &content("new", false), 1)).unwrap();
        assert_eq!(fault(model.got("e", asked, &shown("e", &content("new", false), 1))), Some(Fault::Doubled));
        assert_eq!(fault(model.created("new", &shown("e", &content("new", false), 1))), Some(Fault::Doubled));
        model.created("new", &shown("d", &content("new", false), 1)).unwrap();
        assert_eq!(fault(model.got("e", asked, &shown("e", &content("new", false), 1))), Some(Fault::Invented));
    }

    #[test]
    fn pages_are_in_order_and_of_their_length() {
        let mut model = three();
        let asked = model.now();
        let list = [first("c"), first("a"), first("b")];
        assert_eq!(faults(model.listed(&all(10), asked, &list, true)), [Fault::Disordered]);
        let list = [first("c"), first("b"), first("b"), first("a")];
        assert_eq!(faults(model.listed(&all(10), asked, &list, true)), [Fault::Disordered]);
        let list = [first("c"), first("b"), first("a")];
        assert_eq!(faults(model.listed(&all(2), asked, &list, true)), [Fault::Disordered]);
        assert_eq!(faults(model.listed(&all(5), asked, &list, false)), [Fault::Disordered]);
        let after = Page { after: Some("b".to_owned()), ..all(2) };
        assert_eq!(faults(model.listed(&after, asked, &[first("b"), first("a")], true)), [Fault::Disordered]);
    }

    #[test]
    fn a_filtered_list_has_what_fits_and_nothing_else() {
        let mut model = three();
        model.changing("b", &content("b", true));
        model.changed("b", &shown("b", &content("b", true), 2)).unwrap();
        let asked = model.now();
        let done = Page { completed: Some(true), ..all(10) };
        let b = shown("b", &content("b", true), 2);
        model.listed(&done, asked, std::slice::from_ref(&b), true).unwrap();
        assert_eq!(faults(model.listed(&done, asked, &[], true)), [Fault::Missing]);
        assert_eq!(faults(model.listed(&done, asked, &[first("c"), b], true)), [Fault::Unasked]);
        // While it may be either, it may be missing.
        model.changing("b", &content("b", false));
        model.listed(&done, asked, &[], true).unwrap();
    }

    #[test]
    fn a_write_of_unknown_fate_may_have_happened_or_not_until_it_is_seen() {
        let mut model = three();
        model.changing("b", &content("b2", true));
        model.unknown("b");
        assert_eq!(model.in_limbo(), 1);
        assert!(!model.free().iter().any(|(id, _)| *id == "b"));
        let asked = model.now();
        model.got("b", asked, &first("b")).unwrap();
        assert_eq!(model.in_limbo(), 1, "it may still happen");
        model.got("b", asked, &shown("b", &content("b2", true), 2)).unwrap();
        assert_eq!(model.in_limbo(), 0);
        let asked = model.now();
        assert_eq!(fault(model.got("b", asked, &first("b"))), Some(Fault::Outdated), "it was seen");

        model.deleting("a");
        model.unknown("a");
        let asked = model.now();
        model.got("a", asked, &first("a")).unwrap();
        model.absent("a").unwrap();
        let asked = model.now();
        assert_eq!(fault(model.got("a", asked, &first("a"))), Some(Fault::Resurrected), "it was seen to be gone");

        model.creating(&content("new", false));
        let asked = model.now();
        model.listed(&all(10), asked, &[first("c"), shown("b", &content("b2", true), 2)], true).unwrap();
        let new = shown("d", &content("new", false), 1);
        model.got("d", asked, &new).unwrap();
        assert_eq!(fault(model.absent("d")), Some(Fault::Missing), "it was seen");
        assert_eq!(model.in_limbo(), 0);
    }

    #[test]
    fn what_was_never_sent_leaves_nothing() {
        let mut model = three();
        model.changing("b", &content("b2", true));
        model.unsent("b");
        model.deleting("c");
        model.unsent("c");
        model.creating(&content("new", false));
        model.uncreated("new");
        assert_eq!((model.free().len(), model.in_limbo()), (3, 0));
        let asked = model.now();
        assert_eq!(fault(model.got("b", asked, &shown("b", &content("b2", true), 2))), Some(Fault::Invented));
        assert_eq!(fault(model.absent("c")), Some(Fault::Missing));
    }
}
