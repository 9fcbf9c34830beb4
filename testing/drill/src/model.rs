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

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A task in a response.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) title: String,
    pub(crate) description: Option<String>,
    pub(crate) completed: bool,
    pub(crate) completed_at: Option<String>,
    pub(crate) due: Option<String>,
    pub(crate) priority: Option<String>,
    pub(crate) list: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) position: String,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
    pub(crate) version: usize,
}

impl Shown {
    fn content(&self) -> Content {
        Content {
            title: self.title.clone(),
            description: self.description.clone(),
            completed: self.completed,
            due: self.due.clone(),
            priority: self.priority.clone(),
            list: self.list.clone(),
            tags: self.tags.clone(),
            metadata: self.metadata.clone(),
        }
    }
}

/// The fields of a task that users can change, except for the position, which the server chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Content {
    pub(crate) title: String,
    pub(crate) description: Option<String>,
    pub(crate) completed: bool,
    pub(crate) due: Option<String>,
    pub(crate) priority: Option<String>,
    pub(crate) list: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) metadata: Map<String, Value>,
}

/// When the tasks are due, in the order in which they are sorted.
pub(crate) const DUES: [&str; 5] = [
    "2026-12-01",
    "2026-12-01T09:00:00",
    "2026-12-01T17:00:00+01:00[Europe/Berlin]",
    "2026-12-01T17:00:00Z",
    "2027-01-01",
];
/// The priorities, in ascending order.
pub(crate) const PRIORITIES: [&str; 4] = ["low", "medium", "high", "urgent"];

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
    completed_at: Option<String>,
    /// The place in the manual order, as far as a response has shown it.
    position: Option<String>,
    /// Since when a response has shown that the task reached this version.
    known: Option<Moment>,
}

impl Version {
    fn new(content: Content) -> Self {
        Self { content, updated_at: None, completed_at: None, position: None, known: None }
    }
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

    /// Whether a request that was sent at this moment may find the task.
    fn may_exist(&self, sent: Moment) -> bool {
        self.gone.is_none_or(|gone| gone > sent)
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
    sent: Moment,
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

/// Which tasks are meant. The default means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) completed: Option<bool>,
    /// In the list of this name; the empty name is no list.
    pub(crate) list: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) priority: Option<String>,
}

impl Filter {
    fn matches(&self, content: &Content) -> bool {
        self.completed.is_none_or(|completed| content.completed == completed)
            && self.list.as_ref().is_none_or(|list| content.list.as_deref().unwrap_or_default() == list)
            && self.tag.as_ref().is_none_or(|tag| content.tags.contains(tag))
            && self.priority.as_ref().is_none_or(|priority| content.priority.as_ref() == Some(priority))
    }
}

/// The order of a list. In every order but the first, a page must have room for all tasks of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    #[default]
    NewestFirst,
    Position,
    Due,
    Priority,
}

impl Sort {
    /// Whether one task may come right before the other.
    fn is_sorted(self, one: &Shown, other: &Shown) -> bool {
        let due = |task: &Shown| match &task.due {
            Some(due) => DUES.iter().position(|known| known == due).unwrap_or(0),
            None => DUES.len(),
        };
        let priority = |task: &Shown| {
            task.priority.as_ref().and_then(|priority| PRIORITIES.iter().position(|known| known == priority))
        };
        match self {
            Self::NewestFirst => one.id > other.id,
            Self::Position => (&one.position, &one.id) < (&other.position, &other.id),
            Self::Due => (due(one), &one.id) < (due(other), &other.id),
            Self::Priority => (priority(one), &one.id) > (priority(other), &other.id),
        }
    }
}

/// A page of a list, as it was requested.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) limit: usize,
    pub(crate) filter: Filter,
    pub(crate) sort: Sort,
    /// The last task of the page before.
    pub(crate) after: Option<String>,
}

/// Where a task is moved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    First,
    Last,
    Before(String),
    After(String),
}

impl Place {
    fn anchor(&self) -> Option<&str> {
        match self {
            Self::First | Self::Last => None,
            Self::Before(anchor) | Self::After(anchor) => Some(anchor),
        }
    }
}

/// Whether a task is in a list, or has a tag, of this name.
type Has = fn(&Content, &str) -> bool;

/// How many tasks a user has, as a response says.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Summary {
    total: usize,
    open: usize,
    lists: Vec<Group>,
    tags: Vec<Group>,
}

/// The tasks of a list or with a tag.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    name: String,
    open: usize,
    total: usize,
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
        let draft = Draft { content: content.clone(), sent: self.now(), seen: None };
        self.drafts.insert(content.title.clone(), draft);
    }

    /// A change is about to be sent to a [`free`](Self::free) task.
    pub(crate) fn changing(&mut self, id: &str, content: &Content) {
        let task = self.task(id);
        task.busy = true;
        let position = task.versions.last().and_then(|version| version.position.clone());
        task.versions.push(Version { position, ..Version::new(content.clone()) });
    }

    /// A task is about to be moved: it and its new neighbour are [`free`](Self::free). No write is sent to the neighbour
    /// before the outcome is known.
    pub(crate) fn moving(&mut self, id: &str, place: &Place) {
        let content = self.task(id).last().clone();
        self.changing(id, &content);
        self.task(id).versions.last_mut().unwrap_or_else(|| unreachable!("it was added")).position = None;
        if let Some(anchor) = place.anchor() {
            self.task(anchor).busy = true;
        }
    }

    /// Whether a move is in flight, or may be. Two moves at once may choose the same key, and a later one between these
    /// tasks would then change a third task.
    pub(crate) fn is_moving(&self) -> bool {
        let is_moving = |task: &Task| task.versions.last().is_some_and(|version| version.position.is_none());
        self.tasks.values().any(|task| (task.busy || task.unresolved) && is_moving(task))
    }

    /// The neighbour of a move is free again.
    pub(crate) fn release(&mut self, place: &Place) {
        if let Some(anchor) = place.anchor() {
            self.task(anchor).busy = false;
        }
    }

    /// The tasks in a list, if no other task may be in it when the next request is executed.
    pub(crate) fn members(&self, list: &str) -> Option<Vec<String>> {
        let is_in = |content: &Content| content.list.as_deref() == Some(list);
        let may_be_in =
            |task: &Task| task.gone.is_none() && task.versions.iter().any(|version| is_in(&version.content));
        let drafts = self.drafts.values().any(|draft| draft.seen.is_none() && is_in(&draft.content));
        let uncertain = self.tasks.values().any(|task| !task.is_free() && may_be_in(task));
        let members = self.tasks.iter().filter(|(_, task)| task.is_free() && is_in(task.last()));
        (!drafts && !uncertain).then(|| members.map(|(id, _)| id.clone()).collect())
    }

    /// All [`members`](Self::members) of a list are about to be changed in one step.
    pub(crate) fn changing_all(&mut self, ids: &[String], change: impl Fn(&mut Content)) {
        for id in ids {
            let mut content = self.task(id).last().clone();
            change(&mut content);
            self.changing(id, &content);
        }
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
        // A list may have shown the task long before, so that it has been changed or deleted since.
        let sent = draft.sent;
        let now = self.tick();
        self.see(shown, sent, now)?;
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

    /// A move was acknowledged. A task that was at its place already has not changed.
    pub(crate) fn moved(&mut self, id: &str, place: &Place, shown: &Shown) -> Result<(), Finding> {
        self.release(place);
        let task = self.task(id);
        let is_unchanged = shown.version + 1 == task.versions.len() && task.versions[shown.version].known.is_none();
        if shown.id == id && is_unchanged {
            task.versions.pop();
        }
        self.changed(id, shown)?;
        let Some(anchor) = place.anchor() else { return Ok(()) };
        let Some(position) = self.task(anchor).versions.last().and_then(|version| version.position.as_ref()) else {
            return Ok(());
        };
        let (moved, anchor) = ((shown.position.as_str(), id), (position.as_str(), anchor));
        let is_there = if matches!(place, Place::Before(_)) { moved < anchor } else { anchor < moved };
        if is_there {
            Ok(())
        } else {
            Err((Violation::Unexpected, format!("{shown:?} moved to {place:?}, {anchor:?}")))
        }
    }

    /// A change of several tasks was acknowledged, which says how many tasks it has found and changed.
    pub(crate) fn changed_all(&mut self, ids: &[String], matched: usize, changed: usize) -> Result<(), Finding> {
        let moment = self.tick();
        let is_complete = (matched, changed) == (ids.len(), ids.len());
        for id in ids {
            let task = self.task(id);
            task.busy = false;
            task.unresolved = !is_complete;
            if is_complete && let Some(version) = task.versions.last_mut() {
                version.known.get_or_insert(moment);
            }
        }
        if is_complete {
            return Ok(());
        }
        let violation = if matched < ids.len() { Violation::Missing } else { Violation::Unexpected };
        Err((violation, format!("{matched} tasks matched and {changed} changed, instead of {}", ids.len())))
    }

    /// How many tasks may have matched while a request was in flight: at least and at most.
    fn bounds(&self, sent: Moment, matches: impl Fn(&Content) -> bool) -> (usize, usize) {
        let matches = |version: &Version| matches(&version.content);
        let (mut least, mut most) = (0, 0);
        for task in self.tasks.values().filter(|task| task.may_exist(sent)) {
            let floor = task.floor(sent);
            let possible = &task.versions[floor.saturating_sub(1)..];
            least += usize::from(floor > 0 && !task.deletion && possible.iter().all(matches));
            most += usize::from(possible.iter().any(matches));
        }
        let drafts = self.drafts.values().filter(|draft| draft.seen.is_none());
        most += drafts.filter(|draft| matches(&Version::new(draft.content.clone()))).count();
        (least, most)
    }

    fn counted_as(
        &self,
        sent: Moment,
        what: &str,
        count: usize,
        matches: impl Fn(&Content) -> bool,
    ) -> Result<(), Finding> {
        let (least, most) = self.bounds(sent, matches);
        match count {
            _ if count < least => Err((Violation::Missing, format!("{count} tasks {what}, but there are {least}"))),
            _ if count > most => Err((Violation::Unexpected, format!("{count} tasks {what}, but there are {most}"))),
            _ => Ok(()),
        }
    }

    /// The response to a request for the number of tasks that was sent at `sent`.
    pub(crate) fn counted(&mut self, filter: &Filter, sent: Moment, count: usize) -> Result<(), Finding> {
        self.tick();
        self.counted_as(sent, &format!("of {filter:?}"), count, |content| filter.matches(content))
    }

    /// The response to a request for the summary that was sent at `sent`.
    pub(crate) fn summarized(&mut self, sent: Moment, summary: &Summary) -> Result<(), Vec<Finding>> {
        self.tick();
        let mut checks = vec![
            self.counted_as(sent, "in all", summary.total, |_| true),
            self.counted_as(sent, "open", summary.open, |content| !content.completed),
        ];
        let contents = || {
            let tasks = self.tasks.values().filter(|task| task.may_exist(sent));
            let versions = tasks.flat_map(|task| task.versions.iter().map(|version| &version.content));
            versions.chain(self.drafts.values().map(|draft| &draft.content))
        };
        let lists: BTreeSet<&str> = contents().filter_map(|content| content.list.as_deref()).collect();
        let tags: BTreeSet<&str> = contents().flat_map(|content| &content.tags).map(String::as_str).collect();
        let of_list: Has = |content, name| content.list.as_deref() == Some(name);
        let of_tag: Has = |content, name| content.tags.iter().any(|tag| tag == name);
        for (what, groups, names, has) in
            [("list", &summary.lists, lists, of_list), ("tag", &summary.tags, tags, of_tag)]
        {
            if !groups.is_sorted_by(|one, other| one.name < other.name) || groups.iter().any(|group| group.total == 0) {
                checks.push(Err((Violation::Unexpected, format!("the {what}s {groups:?}"))));
            }
            let shown = groups.iter().map(|group| group.name.as_str());
            for name in shown.chain(names).collect::<BTreeSet<_>>() {
                let group = groups.iter().find(|group| group.name == name);
                let (open, total) = group.map_or((0, 0), |group| (group.open, group.total));
                let what = format!("of {what} {name:?}");
                checks.push(self.counted_as(sent, &what, total, |content| has(content, name)));
                checks.push(self.counted_as(sent, &what, open, |content| has(content, name) && !content.completed));
            }
        }
        let findings: Vec<_> = checks.into_iter().filter_map(Result::err).collect();
        if findings.is_empty() { Ok(()) } else { Err(findings) }
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
        let is_by_id = page.sort == Sort::NewestFirst;
        if let (true, Some(after), Some(first)) = (is_by_id, &page.after, shown.first())
            && *after <= first.id
        {
            findings.push((Violation::WrongPage, format!("{} after {after}", first.id)));
        }
        let mut pairs = shown.iter().zip(shown.iter().skip(1));
        if let Some((one, other)) = pairs.find(|(one, other)| !page.sort.is_sorted(one, other)) {
            findings.push((Violation::WrongPage, format!("by {:?}, {other:?} after {one:?}", page.sort)));
        }
        if shown.len() > page.limit || (!is_last && shown.len() < page.limit) {
            findings.push((Violation::WrongPage, format!("{} tasks on a page of {}", shown.len(), page.limit)));
        }
        for task in shown {
            if !page.filter.matches(&task.content()) {
                findings.push((Violation::WrongFilter, format!("{task:?}")));
            }
            if let Err(finding) = self.see(task, sent, now) {
                findings.push(finding);
            }
        }
        let from = if is_last || !is_by_id { "" } else { shown.last().map_or("", |task| task.id.as_str()) };
        let is_covered = |id: &str| id >= from && page.after.as_ref().is_none_or(|after| id < after.as_str());
        let is_shown: std::collections::HashSet<_> = shown.iter().map(|task| task.id.as_str()).collect();
        for (id, task) in self.tasks.iter_mut().filter(|(id, _)| is_covered(id) && !is_shown.contains(id.as_str())) {
            let floor = task.floor(sent);
            if floor == 0 || task.gone.is_some() {
                continue;
            }
            let matches = |version: &Version| page.filter.matches(&version.content);
            if !task.deletion {
                if task.versions[floor - 1..].iter().all(matches) {
                    findings.push((Violation::Missing, format!("{id} is not in a list")));
                }
            } else if page.filter == Filter::default() {
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
        if version.content != shown.content() {
            return Err((Violation::Unexpected, format!("{shown:?} instead of {:?}", version.content)));
        }
        if version.updated_at.as_ref().is_some_and(|known| *known != shown.updated_at)
            || version.position.as_ref().is_some_and(|known| *known != shown.position)
            || task.created_at.as_ref().is_some_and(|known| *known != shown.created_at)
        {
            return Err((Violation::Unexpected, format!("{shown:?} has other times or another place than before")));
        }
        let before = task.versions[..shown.version - 1].iter().rev().find_map(|version| version.updated_at.as_ref());
        if before.or(task.created_at.as_ref()).is_some_and(|before| *before > shown.updated_at) {
            return Err((Violation::Unexpected, format!("{shown:?} has an earlier time than the version before")));
        }
        let before = shown.version.checked_sub(2).map(|index| &task.versions[index]);
        // The version that completed the task has the time.
        let completed_at = match before.filter(|before| before.content.completed) {
            _ if !shown.completed => None,
            None => Some(&shown.updated_at),
            Some(before) => before.completed_at.as_ref().or(shown.completed_at.as_ref()),
        };
        if completed_at != shown.completed_at.as_ref() || shown.completed != shown.completed_at.is_some() {
            return Err((Violation::Unexpected, format!("{shown:?} was completed at {completed_at:?}")));
        }
        task.created_at.get_or_insert_with(|| shown.created_at.clone());
        let is_last = shown.version == task.versions.len();
        let version = &mut task.versions[shown.version - 1];
        version.updated_at.get_or_insert_with(|| shown.updated_at.clone());
        version.position.get_or_insert_with(|| shown.position.clone());
        version.completed_at.clone_from(&shown.completed_at);
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
        let first = Version { known: Some(now), ..Version::new(draft.content.clone()) };
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
        Content { title: title.to_owned(), completed, ..Content::default() }
    }

    fn shown(id: &str, content: &Content, version: usize) -> Shown {
        Shown {
            id: id.to_owned(),
            user_id: "ann".to_owned(),
            title: content.title.clone(),
            description: content.description.clone(),
            completed: content.completed,
            completed_at: content.completed.then(|| format!("2026-01-01T00:00:0{version}.000000Z")),
            due: content.due.clone(),
            priority: content.priority.clone(),
            list: content.list.clone(),
            tags: content.tags.clone(),
            position: format!("a{id}"),
            metadata: content.metadata.clone(),
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
        Page { limit, ..Page::default() }
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
    fn a_creation_may_be_acknowledged_after_a_later_write() {
        let mut model = three();
        for title in ["d", "e"] {
            let first = first(title);
            model.creating(&content(title, false));
            let sent = model.now();
            model.got(title, sent, &first).unwrap();
        }
        model.changing("d", &content("d2", false));
        model.changed("d", &shown("d", &content("d2", false), 2)).unwrap();
        model.deleting("e");
        model.deleted("e");
        for title in ["d", "e"] {
            model.created(title, &first(title)).unwrap();
        }
        let sent = model.now();
        assert_eq!(violation(model.got("d", sent, &first("d"))), Some(Violation::Outdated));
        assert_eq!(violation(model.got("e", sent, &first("e"))), Some(Violation::Resurrected));
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
        let done = Page { filter: Filter { completed: Some(true), ..Filter::default() }, ..all(10) };
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

    #[test]
    fn a_field_that_is_lost_or_changed_is_noticed() {
        let mut model = Model::new("ann");
        let full = Content {
            due: Some(DUES[0].to_owned()),
            priority: Some("high".to_owned()),
            list: Some("Home".to_owned()),
            tags: vec!["a".to_owned(), "b".to_owned()],
            metadata: serde_json::from_str(r#"{"n":1}"#).unwrap(),
            ..content("a", true)
        };
        model.creating(&full);
        model.created("a", &shown("a", &full, 1)).unwrap();
        let sent = model.now();
        let right = shown("a", &full, 1);
        model.got("a", sent, &right).unwrap();
        for wrong in [
            Shown { due: None, ..right.clone() },
            Shown { priority: Some("low".to_owned()), ..right.clone() },
            Shown { list: None, ..right.clone() },
            Shown { tags: vec!["b".to_owned(), "a".to_owned()], ..right.clone() },
            Shown { metadata: Map::new(), ..right.clone() },
            Shown { position: "b".to_owned(), ..right.clone() },
            Shown { completed_at: None, ..right.clone() },
            Shown { completed_at: Some("2026-01-01T00:00:09.000000Z".to_owned()), ..right.clone() },
        ] {
            assert_eq!(violation(model.got("a", sent, &wrong)), Some(Violation::Unexpected), "{wrong:?}");
        }
        // The time of the completion stays with later changes.
        let later = Content { list: None, ..full };
        model.changing("a", &later);
        let changed = shown("a", &later, 2);
        assert_eq!(violation(model.changed("a", &changed)), Some(Violation::Unexpected));
        model.changed("a", &Shown { completed_at: right.completed_at, ..changed }).unwrap();
    }

    #[test]
    fn a_move_that_is_lost_or_to_another_place_is_noticed() {
        let at = |position: &str, version| Shown {
            position: position.to_owned(),
            ..shown("a", &content("a", false), version)
        };
        let after_b = Place::After("b".to_owned());
        let mut model = three();
        model.moving("a", &after_b);
        assert!(model.free().iter().all(|(id, _)| *id == "c"), "no write is sent to the neighbour");
        model.moved("a", &after_b, &at("abV", 2)).unwrap();
        assert_eq!(model.free().len(), 3);
        let sent = model.now();
        assert_eq!(violation(model.got("a", sent, &first("a"))), Some(Violation::Outdated));
        model.got("a", sent, &at("abV", 2)).unwrap();
        assert_eq!(violation(model.got("a", sent, &at("ac", 2))), Some(Violation::Unexpected));
        // It is there already, so it does not change.
        assert!(!model.is_moving());
        model.moving("a", &after_b);
        assert!(model.is_moving());
        model.moved("a", &after_b, &at("abV", 2)).unwrap();
        assert!(!model.is_moving());
        model.moving("a", &Place::First);
        assert_eq!(violation(model.clone().moved("a", &Place::First, &first("a"))), Some(Violation::Outdated));
        model.moved("a", &Place::First, &at("a0", 3)).unwrap();
        for place in [Place::Before("b".to_owned()), Place::After("c".to_owned())] {
            let mut model = model.clone();
            model.moving("a", &place);
            let between = at("abV", 4);
            assert_eq!(violation(model.moved("a", &place, &between)), Some(Violation::Unexpected), "{place:?}");
        }
    }

    #[test]
    fn a_change_of_a_list_that_misses_or_loses_a_task_is_noticed() {
        let in_list = |title: &str, list: &str| Content { list: Some(list.to_owned()), ..content(title, false) };
        let mut model = three();
        for id in ["d", "e"] {
            model.creating(&in_list(id, "old"));
            model.created(id, &shown(id, &in_list(id, "old"), 1)).unwrap();
        }
        model.changing("c", &in_list("c", "old"));
        assert_eq!(model.members("old"), None, "a task may be in it or not");
        model.unsent("c");
        model.creating(&in_list("f", "old"));
        assert_eq!(model.members("old"), None, "a task may be created in it");
        model.uncreated("f");
        let ids = model.members("old").unwrap();
        assert_eq!(ids, ["d", "e"]);
        model.changing_all(&ids, |content| content.list = Some("new".to_owned()));
        assert_eq!(violation(model.clone().changed_all(&ids, 1, 1)), Some(Violation::Missing));
        assert_eq!(violation(model.clone().changed_all(&ids, 3, 3)), Some(Violation::Unexpected));
        let mut unknown = model.clone();
        for id in &ids {
            unknown.unknown(id);
        }
        let sent = unknown.now();
        unknown.got("d", sent, &shown("d", &in_list("d", "old"), 1)).unwrap();
        unknown.got("d", sent, &shown("d", &in_list("d", "new"), 2)).unwrap();
        assert_eq!(unknown.unresolved(), 1);
        model.changed_all(&ids, 2, 2).unwrap();
        let sent = model.now();
        assert_eq!(violation(model.got("d", sent, &shown("d", &in_list("d", "old"), 1))), Some(Violation::Outdated));
        model.got("d", sent, &shown("d", &in_list("d", "new"), 2)).unwrap();
    }

    #[test]
    fn a_wrong_number_of_tasks_is_noticed() {
        let mut model = three();
        let of_home = Content { list: Some("Home".to_owned()), tags: vec!["x".to_owned()], ..content("d", true) };
        model.creating(&of_home);
        model.created("d", &shown("d", &of_home, 1)).unwrap();
        let home = Filter { list: Some("Home".to_owned()), ..Filter::default() };
        let sent = model.now();
        let counted = |model: &Model, filter: &Filter, count| violation(model.clone().counted(filter, sent, count));
        assert_eq!(counted(&model, &Filter::default(), 3), Some(Violation::Missing));
        assert_eq!(counted(&model, &Filter::default(), 4), None);
        assert_eq!(counted(&model, &Filter::default(), 5), Some(Violation::Unexpected));
        assert_eq!(counted(&model, &home, 0), Some(Violation::Missing));
        let group = |name: &str, open, total| Group { name: name.to_owned(), open, total };
        let right = Summary { total: 4, open: 3, lists: vec![group("Home", 0, 1)], tags: vec![group("x", 0, 1)] };
        model.clone().summarized(sent, &right).unwrap();
        for wrong in [
            Summary { total: 3, ..right.clone() },
            Summary { open: 4, ..right.clone() },
            Summary { lists: Vec::new(), ..right.clone() },
            Summary { lists: vec![group("Home", 1, 1)], ..right.clone() },
            Summary { lists: vec![group("A", 0, 1), group("Home", 0, 1)], ..right.clone() },
            Summary { tags: vec![group("x", 0, 0)], ..right.clone() },
            Summary { tags: vec![group("x", 0, 1), group("x", 0, 1)], ..right.clone() },
        ] {
            assert!(model.clone().summarized(sent, &wrong).is_err(), "{wrong:?}");
        }
        // A change, a creation and a deletion that may have happened.
        model.changing("d", &Content { list: None, ..of_home.clone() });
        model.creating(&Content { title: "e".to_owned(), ..of_home });
        model.deleting("a");
        for (filter, counts) in [(&Filter::default(), 3..=5), (&home, 0..=2)] {
            for count in 0..8 {
                assert_eq!(counted(&model, filter, count).is_none(), counts.contains(&count), "{count} of {filter:?}");
            }
        }
    }

    #[test]
    fn a_list_in_another_order_is_noticed() {
        let task = |id: &str, due: Option<&str>, priority: Option<&str>| {
            let due = due.map(str::to_owned);
            Content { due, priority: priority.map(str::to_owned), ..content(id, false) }
        };
        let tasks = [
            task("a", None, Some("low")),
            task("b", Some(DUES[3]), Some("urgent")),
            task("c", Some(DUES[2]), None),
            task("d", Some(DUES[2]), Some("urgent")),
        ];
        let mut model = Model::new("ann");
        for task in &tasks {
            model.creating(task);
            model.created(&task.title, &shown(&task.title, task, 1)).unwrap();
        }
        let sent = model.now();
        let list = |ids: &str| ids.chars().map(|id| id.to_string()).collect::<Vec<_>>();
        for (sort, order) in [(Sort::Position, "abcd"), (Sort::Due, "cdba"), (Sort::Priority, "dbac")] {
            let page = Page { sort, ..all(10) };
            for ids in ["abcd", "cdba", "dbac", "dcba"] {
                let tasks: Vec<_> = list(ids)
                    .into_iter()
                    .map(|id| shown(&id, tasks.iter().find(|task| task.title == id).unwrap(), 1))
                    .collect();
                let found = violations(model.listed(&page, sent, &tasks, true));
                assert_eq!(found.is_empty(), ids == order, "{ids} by {sort:?}: {found:?}");
                let missing = violations(model.listed(&page, sent, &tasks[1..], true));
                assert!(missing.contains(&Violation::Missing));
            }
        }
    }
}
