//! The tasks that a user must see, as a model of all requests and responses so far.
//!
//! Each user is the only one who writes to his tasks, and has at most one write to a task in flight. So the client
//! knows every version that a task can have: those that were acknowledged, and at most one whose outcome is unknown. A
//! response is right if it shows a version that may have been current while the request was in flight: not older than
//! the version that was known before the request was sent, and not newer than what was requested before the response
//! came. A version that a response has shown is known from then on, as if its write had been acknowledged.
//!
//! The outcome of a write without a response, or with a 5xx response, is unknown. No further write is sent to its task
//! until a read has shown the outcome, because the write may still happen.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

/// A task in a response.
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

/// The fields of a task that users can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) title: String,
    pub(crate) description: Option<String>,
    pub(crate) completed: bool,
}

/// Why a response is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    /// An existing task is missing.
    Missing,
    /// A task is shown as it was before an acknowledged change.
    Outdated,
    /// A deleted task is shown.
    Resurrected,
    /// The task belongs to another user.
    Foreign,
    /// No request of this user led to this task, to this version or to its content.
    Unexpected,
    /// One creation made two tasks.
    Duplicated,
    /// A page is not in order, is too long or too short, or does not continue the page before.
    WrongPage,
    /// A task does not match the filter of its list.
    WrongFilter,
    /// The status, a header or the body is none that the API has for this request.
    Malformed,
}

impl Violation {
    /// Whether it means that an acknowledged write was lost.
    pub(crate) const fn is_loss(self) -> bool {
        matches!(self, Self::Missing | Self::Outdated | Self::Resurrected)
    }
}

/// A violation, and the response or task that shows it.
pub(crate) type Finding = (Violation, String);

/// A point in the order of a user's requests and responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

#[derive(Clone, Debug)]
struct Version {
    content: Content,
    updated_at: Option<String>,
    /// Since when a response has shown that the task reached this version.
    known: Option<Moment>,
}

#[derive(Clone, Debug)]
struct Task {
    created_at: Option<String>,
    /// The first is version 1.
    versions: Vec<Version>,
    /// A deletion was sent.
    deletion: bool,
    /// Since when a response has shown that the task is deleted.
    gone: Option<Moment>,
    /// A write is in flight.
    busy: bool,
    /// The outcome of the last write is unknown.
    unresolved: bool,
}

impl Task {
    /// The version that was known to be reached at this moment; 0 if none was.
    fn floor(&self, moment: Moment) -> usize {
        let known = |version: &Version| version.known.is_some_and(|known| known <= moment);
        self.versions.iter().rposition(known).map_or(0, |index| index + 1)
    }

    fn is_free(&self) -> bool {
        !(self.busy || self.unresolved || self.deletion)
    }

    fn last(&self) -> &Content {
        &self.versions[self.versions.len() - 1].content
    }
}

/// A creation that was not acknowledged yet.
#[derive(Clone, Debug)]
struct Draft {
    content: Content,
    /// The task in which a read has shown it meanwhile.
    seen: Option<String>,
}

/// The tasks of one user.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    user: String,
    now: u64,
    tasks: BTreeMap<String, Task>,
    /// By title: each title is used once.
    drafts: HashMap<String, Draft>,
}

/// A page of a list, as it was requested.
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

    /// The moment before the next request is sent.
    pub(crate) fn now(&self) -> Moment {
        Moment(self.now)
    }

    fn tick(&mut self) -> Moment {
        self.now += 1;
        Moment(self.now)
    }

    /// The number of tasks that are not deleted, as far as this is known.
    pub(crate) fn len(&self) -> usize {
        self.tasks.values().filter(|task| !task.deletion).count()
    }

    /// The number of writes whose outcome is unknown.
    pub(crate) fn unresolved(&self) -> usize {
        self.tasks.values().filter(|task| task.unresolved).count()
            + self.drafts.values().filter(|draft| draft.seen.is_none()).count()
    }

    /// The number of versions and deletions that responses have shown.
    pub(crate) fn known(&self) -> usize {
        let known = |task: &Task| {
            task.versions.iter().filter(|version| version.known.is_some()).count() + usize::from(task.gone.is_some())
        };
        self.tasks.values().map(known).sum()
    }

    /// The tasks that a write may be sent to, with their content.
    pub(crate) fn free(&self) -> Vec<(&str, &Content)> {
        let free = self.tasks.iter().filter(|(_, task)| task.is_free());
        free.map(|(id, task)| (id.as_str(), task.last())).collect()
    }

    /// The tasks that may exist.
    pub(crate) fn present(&self) -> Vec<&str> {
        self.tasks.iter().filter(|(_, task)| task.gone.is_none()).map(|(id, _)| id.as_str()).collect()
    }

    /// The tasks that are deleted.
    pub(crate) fn gone(&self) -> Vec<&str> {
        self.tasks.iter().filter(|(_, task)| task.gone.is_some()).map(|(id, _)| id.as_str()).collect()
    }

    /// The database was restored from a backup that began at this moment: writes that were acknowledged later may be in
    /// it or not.
    ///
    /// No write may be sent after this.
    pub(crate) fn restored(&mut self, backup: Moment) {
        for task in self.tasks.values_mut() {
            for version in &mut task.versions {
                version.known = version.known.filter(|known| *known <= backup);
            }
            task.gone = task.gone.filter(|gone| *gone <= backup);
        }
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
        self.tasks.get_mut(id).unwrap_or_else(|| unreachable!("writes are sent to tasks of this model only"))
    }

    /// A creation was acknowledged.
    pub(crate) fn created(&mut self, title: &str, shown: &Shown) -> Result<(), Finding> {
        let Some(draft) = self.drafts.get(title) else {
            return Err((Violation::Unexpected, format!("no request creates {title}")));
        };
        if shown.title != title || shown.version != 1 {
            return Err((Violation::Unexpected, format!("{shown:?} for a new {title}")));
        }
        if draft.seen.as_ref().is_some_and(|seen| *seen != shown.id) {
            return Err((Violation::Duplicated, format!("{title} is also {}", shown.id)));
        }
        let moment = self.tick();
        self.see(shown, moment, moment)?;
        self.drafts.remove(title);
        Ok(())
    }

    /// A change was acknowledged.
    pub(crate) fn changed(&mut self, id: &str, shown: &Shown) -> Result<(), Finding> {
        let versions = self.task(id).versions.len();
        self.task(id).busy = false;
        if shown.id != id || shown.version != versions {
            self.task(id).unresolved = true;
            let violation = if shown.version < versions { Violation::Outdated } else { Violation::Unexpected };
            return Err((violation, format!("{shown:?} after a change to version {versions}")));
        }
        let moment = self.tick();
        self.see(shown, moment, moment)
    }

    /// A deletion was acknowledged.
    pub(crate) fn deleted(&mut self, id: &str) {
        let moment = self.tick();
        let task = self.task(id);
        task.busy = false;
        task.gone.get_or_insert(moment);
    }

    /// The response to a write to this existing task was 404.
    pub(crate) fn not_found(&mut self, id: &str) -> Finding {
        let task = self.task(id);
        task.busy = false;
        task.unresolved = true;
        (Violation::Missing, format!("a write to {id} is 404"))
    }

    /// The outcome of a write to this task is unknown: it may have happened, and may still happen.
    pub(crate) fn unknown(&mut self, id: &str) {
        let task = self.task(id);
        task.busy = false;
        // A read may have shown it already.
        let version_is_known = task.versions.last().is_some_and(|version| version.known.is_some());
        task.unresolved = if task.deletion { task.gone.is_none() } else { !version_is_known };
    }

    /// A write to this task was not sent.
    pub(crate) fn unsent(&mut self, id: &str) {
        let task = self.task(id);
        task.busy = false;
        if task.deletion {
            task.deletion = false;
        } else {
            task.versions.pop();
        }
    }

    /// A creation was not sent.
    pub(crate) fn uncreated(&mut self, title: &str) {
        self.drafts.remove(title);
    }

    /// The response to a request for a task that was sent at `sent`.
    pub(crate) fn got(&mut self, id: &str, sent: Moment, shown: &Shown) -> Result<(), Finding> {
        if shown.id != id {
            return Err((Violation::Unexpected, format!("{} instead of {id}", shown.id)));
        }
        let now = self.tick();
        self.see(shown, sent, now)
    }

    /// The response to a request for a task was 404.
    pub(crate) fn absent(&mut self, id: &str) -> Result<(), Finding> {
        let now = self.tick();
        match self.tasks.get_mut(id) {
            Some(task) if !task.deletion => Err((Violation::Missing, format!("{id} is 404"))),
            Some(task) => {
                task.gone.get_or_insert(now);
                if !task.busy {
                    task.unresolved = false;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The response to a request for a page that was sent at `sent`.
    pub(crate) fn listed(
        &mut self,
        page: &Page,
        sent: Moment,
        shown: &[Shown],
        is_last: bool,
    ) -> Result<(), Vec<Finding>> {
        let now = self.tick();
        let mut findings = Vec::new();
        let ids = || page.after.iter().map(String::as_str).chain(shown.iter().map(|task| task.id.as_str()));
        if let Some((one, other)) = ids().zip(ids().skip(1)).find(|(one, other)| one <= other) {
            findings.push((Violation::WrongPage, format!("{other} after {one}")));
        }
        if shown.len() > page.limit || (!is_last && shown.len() < page.limit) {
            findings.push((Violation::WrongPage, format!("{} tasks on a page of {}", shown.len(), page.limit)));
        }
        for task in shown {
            if page.completed.is_some_and(|completed| completed != task.completed) {
                findings.push((Violation::WrongFilter, format!("{task:?}")));
            }
            if let Err(finding) = self.see(task, sent, now) {
                findings.push(finding);
            }
        }
        let from = if is_last { "" } else { shown.last().map_or("", |task| task.id.as_str()) };
        let is_covered = |id: &str| id >= from && page.after.as_ref().is_none_or(|after| id < after.as_str());
        let is_shown: std::collections::HashSet<_> = shown.iter().map(|task| task.id.as_str()).collect();
        for (id, task) in self.tasks.iter_mut().filter(|(id, _)| is_covered(id) && !is_shown.contains(id.as_str())) {
            let floor = task.floor(sent);
            if floor == 0 || task.gone.is_some() {
                continue;
            }
            let matches =
                |version: &Version| page.completed.is_none_or(|completed| version.content.completed == completed);
            if !task.deletion {
                if task.versions[floor - 1..].iter().all(matches) {
                    findings.push((Violation::Missing, format!("{id} is not in a list")));
                }
            } else if page.completed.is_none() {
                task.gone = Some(now);
                task.unresolved &= task.busy;
            }
        }
        if findings.is_empty() { Ok(()) } else { Err(findings) }
    }

    /// A response at `now` to a request at `sent` shows a task.
    fn see(&mut self, shown: &Shown, sent: Moment, now: Moment) -> Result<(), Finding> {
        if shown.user_id != self.user {
            return Err((Violation::Foreign, format!("{shown:?} shown to {}", self.user)));
        }
        if !self.tasks.contains_key(&shown.id) {
            self.adopt(shown, now)?;
        }
        let task = self.task(&shown.id);
        if task.gone.is_some_and(|gone| gone <= sent) {
            return Err((Violation::Resurrected, format!("{shown:?}")));
        }
        let floor = task.floor(sent);
        let Some(version) = shown.version.checked_sub(1).and_then(|index| task.versions.get(index)) else {
            return Err((Violation::Unexpected, format!("{shown:?}, of {} versions", task.versions.len())));
        };
        if shown.version < floor {
            return Err((Violation::Outdated, format!("{shown:?}, but version {floor} was acknowledged")));
        }
        let Content { title, description, completed } = &version.content;
        if (title, description, *completed) != (&shown.title, &shown.description, shown.completed) {
            return Err((Violation::Unexpected, format!("{shown:?} instead of {:?}", version.content)));
        }
        if version.updated_at.as_ref().is_some_and(|known| *known != shown.updated_at)
            || task.created_at.as_ref().is_some_and(|known| *known != shown.created_at)
        {
            return Err((Violation::Unexpected, format!("{shown:?} has other times than before")));
        }
        let before = task.versions[..shown.version - 1].iter().rev().find_map(|version| version.updated_at.as_ref());
        if before.or(task.created_at.as_ref()).is_some_and(|before| *before > shown.updated_at) {
            return Err((Violation::Unexpected, format!("{shown:?} has an earlier time than the version before")));
        }
        task.created_at.get_or_insert_with(|| shown.created_at.clone());
        let is_last = shown.version == task.versions.len();
        let version = &mut task.versions[shown.version - 1];
        version.updated_at.get_or_insert_with(|| shown.updated_at.clone());
        version.known.get_or_insert(now);
        if is_last && !task.deletion && !task.busy {
            task.unresolved = false;
        }
        Ok(())
    }

    /// A task that is not in the model yet must come from a creation that was not acknowledged yet.
    fn adopt(&mut self, shown: &Shown, now: Moment) -> Result<(), Finding> {
        let Some(draft) = self.drafts.get_mut(&shown.title) else {
            return Err((Violation::Unexpected, format!("no request created {shown:?}")));
        };
        if let Some(seen) = &draft.seen {
            return Err((Violation::Duplicated, format!("{} and {seen} are from one creation", shown.id)));
        }
        draft.seen = Some(shown.id.clone());
        let first = Version { content: draft.content.clone(), updated_at: None, known: Some(now) };
        let task = Task {
            created_at: None,
            versions: vec![first],
            deletion: false,
            gone: None,
            busy: false,
            unresolved: false,
        };
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

    fn violations(result: Result<(), Vec<Finding>>) -> Vec<Violation> {
        result.err().unwrap_or_default().into_iter().map(|(violation, _)| violation).collect()
    }

    fn violation(result: Result<(), Finding>) -> Option<Violation> {
        result.err().map(|(violation, _)| violation)
    }

    #[test]
    fn acknowledged_writes_are_right() {
        let mut model = three();
        model.changing("b", &content("b2", true));
        model.changed("b", &shown("b", &content("b2", true), 2)).unwrap();
        model.deleting("a");
        model.deleted("a");
        let sent = model.now();
        model.got("b", sent, &shown("b", &content("b2", true), 2)).unwrap();
        model.absent("a").unwrap();
        model.listed(&all(10), sent, &[first("c"), shown("b", &content("b2", true), 2)], true).unwrap();
        assert_eq!((model.len(), model.unresolved()), (2, 0));
    }

    #[test]
    fn a_lost_task_is_noticed() {
        let mut model = three();
        let sent = model.now();
        assert_eq!(violation(model.absent("b")), Some(Violation::Missing));
        assert_eq!(violations(model.listed(&all(10), sent, &[first("c"), first("a")], true)), [Violation::Missing]);
        // At both ends of a page, too, but not past its end.
        assert_eq!(violations(model.listed(&all(2), sent, &[first("b"), first("a")], false)), [Violation::Missing]);
        assert_eq!(violations(model.listed(&all(10), sent, &[first("c"), first("b")], true)), [Violation::Missing]);
        model.listed(&all(2), sent, &[first("c"), first("b")], false).unwrap();
        let after = Page { after: Some("b".to_owned()), ..all(2) };
        assert_eq!(violations(model.listed(&after, sent, &[], true)), [Violation::Missing]);
        assert_eq!(model.not_found("b").0, Violation::Missing);
    }

    #[test]
    fn a_lost_change_is_noticed() {
        let mut model = three();
        let before = model.now();
        model.changing("b", &content("b2", true));
        model.changed("b", &shown("b", &content("b2", true), 2)).unwrap();
        // Sent before the change was acknowledged: either version is right.
        model.got("b", before, &first("b")).unwrap();
        let sent = model.now();
        assert_eq!(violation(model.got("b", sent, &first("b"))), Some(Violation::Outdated));
        let list = [first("c"), first("b"), first("a")];
        assert_eq!(violations(model.listed(&all(10), sent, &list, true)), [Violation::Outdated]);
        // The next change lacks the one before.
        model.changing("b", &content("b3", true));
        assert_eq!(violation(model.changed("b", &shown("b", &content("b3", true), 2))), Some(Violation::Outdated));
    }

    #[test]
    fn a_resurrected_task_is_noticed() {
        let mut model = three();
        let before = model.now();
        model.deleting("b");
        model.got("b", before, &first("b")).unwrap();
        model.deleted("b");
        let sent = model.now();
        assert_eq!(violation(model.got("b", sent, &first("b"))), Some(Violation::Resurrected));
        let list = [first("c"), first("b"), first("a")];
        assert_eq!(violations(model.listed(&all(10), sent, &list, true)), [Violation::Resurrected]);
    }

    #[test]
    fn a_task_of_another_user_is_noticed() {
        let mut model = three();
        let sent = model.now();
        let foreign = Shown { user_id: "bob".to_owned(), ..first("b") };
        assert_eq!(violation(model.got("b", sent, &foreign)), Some(Violation::Foreign));
        let list = [first("c"), foreign, first("a")];
        assert_eq!(violations(model.listed(&all(10), sent, &list, true)), [Violation::Foreign]);
    }

    #[test]
    fn an_unexpected_task_or_version_is_noticed() {
        let mut model = three();
        let sent = model.now();
        for wrong in [
            shown("b", &content("other", false), 1),
            shown("b", &content("b", true), 1),
            shown("b", &content("b", false), 2),
            shown("b", &content("b", false), 0),
            shown("d", &content("d", false), 1),
            first("a"),
        ] {
            assert_eq!(violation(model.got("b", sent, &wrong)), Some(Violation::Unexpected), "{wrong:?}");
        }
        // A toggle that happened twice.
        model.changing("b", &content("b", true));
        assert_eq!(violation(model.changed("b", &shown("b", &content("b", false), 3))), Some(Violation::Unexpected));
    }

    #[test]
    fn a_changed_or_earlier_time_is_noticed() {
        let mut model = three();
        let sent = model.now();
        let other = Shown { updated_at: "2026-01-01T00:00:09.000000Z".to_owned(), ..first("b") };
        assert_eq!(violation(model.got("b", sent, &other)), Some(Violation::Unexpected));
        model.changing("b", &content("b2", true));
        let back =
            Shown { updated_at: "2026-01-01T00:00:00.500000Z".to_owned(), ..shown("b", &content("b2", true), 2) };
        assert_eq!(violation(model.changed("b", &back)), Some(Violation::Unexpected));
    }

    #[test]
    fn a_creation_that_made_two_tasks_is_noticed() {
        let mut model = three();
        let sent = model.now();
        model.creating(&content("new", false));
        // A read shows it before the creation is acknowledged.
        model.got("d", sent, &shown("d", &content("new", false), 1)).unwrap();
        assert_eq!(
            violation(model.got("e", sent, &shown("e", &content("new", false), 1))),
            Some(Violation::Duplicated)
        );
        assert_eq!(
            violation(model.created("new", &shown("e", &content("new", false), 1))),
            Some(Violation::Duplicated)
        );
        model.created("new", &shown("d", &content("new", false), 1)).unwrap();
        assert_eq!(
            violation(model.got("e", sent, &shown("e", &content("new", false), 1))),
            Some(Violation::Unexpected)
        );
    }

    #[test]
    fn a_page_in_the_wrong_order_or_of_the_wrong_length_is_noticed() {
        let mut model = three();
        let sent = model.now();
        let list = [first("c"), first("a"), first("b")];
        assert_eq!(violations(model.listed(&all(10), sent, &list, true)), [Violation::WrongPage]);
        let list = [first("c"), first("b"), first("b"), first("a")];
        assert_eq!(violations(model.listed(&all(10), sent, &list, true)), [Violation::WrongPage]);
        let list = [first("c"), first("b"), first("a")];
        assert_eq!(violations(model.listed(&all(2), sent, &list, true)), [Violation::WrongPage]);
        assert_eq!(violations(model.listed(&all(5), sent, &list, false)), [Violation::WrongPage]);
        let after = Page { after: Some("b".to_owned()), ..all(2) };
        assert_eq!(violations(model.listed(&after, sent, &[first("b"), first("a")], true)), [Violation::WrongPage]);
    }

    #[test]
    fn a_filtered_list_has_all_matching_tasks_and_no_others() {
        let mut model = three();
        model.changing("b", &content("b", true));
        model.changed("b", &shown("b", &content("b", true), 2)).unwrap();
        let sent = model.now();
        let done = Page { completed: Some(true), ..all(10) };
        let b = shown("b", &content("b", true), 2);
        model.listed(&done, sent, std::slice::from_ref(&b), true).unwrap();
        assert_eq!(violations(model.listed(&done, sent, &[], true)), [Violation::Missing]);
        assert_eq!(violations(model.listed(&done, sent, &[first("c"), b], true)), [Violation::WrongFilter]);
        // While a change is in flight, it may match or not.
        model.changing("b", &content("b", false));
        model.listed(&done, sent, &[], true).unwrap();
    }

    #[test]
    fn a_write_with_an_unknown_outcome_may_have_happened_until_a_read_shows_it() {
        let mut model = three();
        model.changing("b", &content("b2", true));
        model.unknown("b");
        assert_eq!(model.unresolved(), 1);
        assert!(!model.free().iter().any(|(id, _)| *id == "b"));
        let sent = model.now();
        model.got("b", sent, &first("b")).unwrap();
        assert_eq!(model.unresolved(), 1, "it may still happen");
        model.got("b", sent, &shown("b", &content("b2", true), 2)).unwrap();
        assert_eq!(model.unresolved(), 0);
        let sent = model.now();
        assert_eq!(violation(model.got("b", sent, &first("b"))), Some(Violation::Outdated), "it was seen");

        model.deleting("a");
        model.unknown("a");
        let sent = model.now();
        model.got("a", sent, &first("a")).unwrap();
        model.absent("a").unwrap();
        let sent = model.now();
        assert_eq!(violation(model.got("a", sent, &first("a"))), Some(Violation::Resurrected), "its deletion was seen");

        model.creating(&content("new", false));
        let sent = model.now();
        model.listed(&all(10), sent, &[first("c"), shown("b", &content("b2", true), 2)], true).unwrap();
        let new = shown("d", &content("new", false), 1);
        model.got("d", sent, &new).unwrap();
        assert_eq!(violation(model.absent("d")), Some(Violation::Missing), "it was seen");
        assert_eq!(model.unresolved(), 0);
    }

    #[test]
    fn a_write_that_was_not_sent_changes_nothing() {
        let mut model = three();
        model.changing("b", &content("b2", true));
        model.unsent("b");
        model.deleting("c");
        model.unsent("c");
        model.creating(&content("new", false));
        model.uncreated("new");
        assert_eq!((model.free().len(), model.unresolved()), (3, 0));
        let sent = model.now();
        assert_eq!(violation(model.got("b", sent, &shown("b", &content("b2", true), 2))), Some(Violation::Unexpected));
        assert_eq!(violation(model.absent("c")), Some(Violation::Missing));
    }

    #[test]
    fn a_restored_backup_may_lack_only_writes_that_were_acknowledged_after_it_began() {
        let mut model = three();
        model.deleting("a");
        model.deleted("a");
        let backup = model.now();
        model.creating(&content("d", false));
        model.created("d", &first("d")).unwrap();
        model.changing("b", &content("b2", true));
        model.changed("b", &shown("b", &content("b2", true), 2)).unwrap();
        model.deleting("c");
        model.deleted("c");
        let before = model.known();
        model.restored(backup);
        assert_eq!(before - model.known(), 3, "a creation, a change and a deletion");

        let sent = model.now();
        // With all of the later writes, with none, or with some.
        let b2 = shown("b", &content("b2", true), 2);
        for list in [vec![first("d"), b2], vec![first("c"), first("b")], vec![first("d"), first("c"), first("b")]] {
            let mut model = model.clone();
            model.listed(&all(10), sent, &list, true).unwrap();
        }
        // Earlier writes must be there, and later ones exactly as they were acknowledged.
        for (list, expected) in [
            (vec![first("c")], Violation::Missing),
            (vec![first("c"), first("b"), first("a")], Violation::Resurrected),
            (vec![shown("d", &content("d", true), 1), first("b")], Violation::Unexpected),
            (
                vec![Shown { updated_at: "2026-01-01T00:00:09.000000Z".to_owned(), ..first("d") }, first("b")],
                Violation::Unexpected,
            ),
            (vec![first("b"), first("b")], Violation::WrongPage),
        ] {
            let mut model = model.clone();
            assert_eq!(violations(model.listed(&all(10), sent, &list, true)), [expected], "{list:?}");
        }
    }
}
