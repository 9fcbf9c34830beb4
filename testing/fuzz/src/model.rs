//! What the API does with the tasks of one user, written again from its documentation and without regard to speed. Tasks
//! are the JSON objects of responses.

use std::{cmp::Ordering, collections::BTreeMap};

use serde_json::{Map, Value, json};
use todo_core::{Cursor, Due, DueBound, Position, SortKey, ZoneName, api::FieldErrors, clock::Timestamp};

/// The members of a task whose changes are counted.
const FIELDS: [&str; 9] =
    ["title", "description", "completed", "due", "priority", "list", "tags", "position", "metadata"];

/// How a request changes a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Create,
    Replace,
    Patch,
    /// Sets the completion, or toggles it.
    Complete,
}

/// Returns the task after a write of this body, which the API has accepted. For a new task, `before` has its id, its owner and
/// its default position.
pub(crate) fn written(write: Write, before: &Value, sent: &Value, now: Timestamp) -> Value {
    let mut task = before.clone();
    let given = |name: &str| sent.get(name);
    if write == Write::Complete {
        task["completed"] = given("completed").cloned().unwrap_or_else(|| json!(before["completed"] != json!(true)));
    } else {
        if let Some(title) = given("title") {
            task["title"] = trimmed(title);
        }
        match given("description") {
            Some(description) => task["description"] = description.clone(),
            None if write == Write::Replace => task["description"] = Value::Null,
            None => {}
        }
        for name in ["completed", "priority"] {
            if let Some(value) = given(name) {
                task[name] = value.clone();
            }
        }
        if let Some(due) = given("due") {
            task["due"] =
                due.as_str().map_or(Value::Null, |text| json!(text.parse::<Due>().expect("a due time").to_string()));
        }
        if let Some(list) = given("list") {
            task["list"] = if list.is_null() { Value::Null } else { trimmed(list) };
        }
        if let Some(tags) = given("tags") {
            task["tags"] = tags.as_array().map_or(json!([]), |tags| tags.iter().map(trimmed).collect());
        }
        if let Some(position) = given("position").filter(|position| !position.is_null()) {
            task["position"] = position.clone();
        }
        match given("metadata") {
            None => {}
            Some(Value::Null) => task["metadata"] = json!({}),
            Some(patch) if write == Write::Patch => merge(&mut task["metadata"], patch),
            Some(metadata) => task["metadata"] = metadata.clone(),
        }
    }
    if write != Write::Create && FIELDS.iter().all(|name| text(&task[*name]) == text(&before[*name])) {
        return before.clone();
    }
    // Both texts have the same length, so this compares the times.
    let updated_at = before["updated_at"].as_str().unwrap_or_default().max(&now.to_string()).to_owned();
    if task["completed"] != before["completed"] {
        task["completed_at"] = if task["completed"] == json!(true) { json!(updated_at) } else { Value::Null };
    }
    task["updated_at"] = json!(updated_at);
    task["version"] = json!(before["version"].as_i64().expect("a number") + 1);
    task
}

/// A task before its creation.
pub(crate) fn unwritten(id: &str, owner: &str, place: u64, now: Timestamp) -> Value {
    let position = Position::at(now.plus(std::time::Duration::from_micros(place)));
    json!({
        "id": id, "user_id": owner, "title": null, "description": null, "completed": false, "completed_at": null, "due": null,
        "priority": null, "list": null, "tags": [], "position": position.as_str(), "metadata": {},
        "created_at": now.to_string(), "updated_at": now.to_string(), "version": 0,
    })
}

fn trimmed(text: &Value) -> Value {
    json!(text.as_str().expect("a text").trim())
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (name, change) in changes {
        if change.is_null() {
            target.as_object_mut().expect("an object").remove(name);
        } else {
            merge(&mut target[name], change);
        }
    }
}

/// JSON in which zeros of different signs differ, and the order of members does not matter.
fn text(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> = members.iter().map(|(name, value)| (name, text(value))).collect();
            format!("{members:?}")
        }
        Value::Array(values) => format!("{:?}", values.iter().map(text).collect::<Vec<_>>()),
        value => value.to_string(),
    }
}

/// The tasks in the manual order.
pub(crate) fn in_order(tasks: &BTreeMap<String, Value>) -> Vec<&str> {
    let mut ids: Vec<_> = tasks.keys().map(String::as_str).collect();
    ids.sort_by_key(|id| (tasks[*id]["position"].as_str(), *id));
    ids
}

/// What a query asks for.
#[derive(Default)]
pub(crate) struct Wanted {
    completed: Option<bool>,
    lists: Vec<String>,
    tags: Vec<String>,
    priorities: Vec<String>,
    never_due: bool,
    due_from: Option<DueBound>,
    due_before: Option<DueBound>,
    updated_since: Option<Timestamp>,
    text: Option<String>,
    sort: String,
    limit: usize,
    cursor: Option<Cursor>,
}

type Key = Option<(i64, String)>;

impl Wanted {
    /// Reads a query that the API has accepted.
    pub(crate) fn parse(query: &str) -> Self {
        let pairs: Vec<_> = pairs(query).collect();
        let all = |wanted: &str| {
            pairs.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        let one = |wanted: &str| all(wanted).pop();
        let zone = one("time_zone").map_or(ZoneName::default(), |name| name.parse().expect("a time zone"));
        let bound = |name: &str| one(name).map(|text| DueBound::new(&text.parse().expect("a due time"), &zone));
        let trimmed = |values: Vec<String>| values.iter().map(|value| value.trim().to_owned()).collect();
        Self {
            completed: one("completed").map(|value| value == "true"),
            lists: trimmed(all("list")),
            tags: trimmed(all("tag")),
            priorities: all("priority"),
            never_due: one("due").is_some(),
            due_from: bound("due_from"),
            due_before: bound("due_before"),
            updated_since: one("updated_since").map(|text| text.parse().expect("a time")),
            text: one("q").map(|text| text.to_lowercase()),
            sort: one("sort").unwrap_or_else(|| "-created".to_owned()),
            limit: one("limit").map_or(100, |limit| limit.parse().expect("a number")),
            cursor: one("cursor").map(|cursor| cursor.parse().expect("a cursor")),
        }
    }

    /// Whether the filters mean this task.
    pub(crate) fn includes(&self, task: &Value) -> bool {
        let member = |name: &str| task[name].as_str();
        let due = member("due").map(|due| due.parse::<Due>().expect("a due time"));
        let is_in = |bound: &DueBound| due.as_ref().is_some_and(|due| bound.includes(due));
        let contains = |name: &str, text: &str| member(name).is_some_and(|own| own.to_lowercase().contains(text));
        self.completed.is_none_or(|completed| task["completed"] == json!(completed))
            && (self.lists.is_empty() || self.lists.iter().any(|list| list == member("list").unwrap_or_default()))
            && self.tags.iter().all(|tag| task["tags"].as_array().expect("an array").contains(&json!(tag)))
            && (self.priorities.is_empty()
                || member("priority").is_some_and(|own| self.priorities.iter().any(|priority| priority == own)))
            && (!self.never_due || due.is_none())
            && self.due_from.is_none_or(|from| is_in(&from))
            && self.due_before.is_none_or(|before| due.is_some() && !is_in(&before))
            && self.updated_since.is_none_or(|time| member("updated_at") >= Some(&time.to_string()))
            && self.text.as_ref().is_none_or(|text| contains("title", text) || contains("description", text))
    }

    /// The page, and whether there are more tasks after it.
    pub(crate) fn page<'a>(&self, tasks: impl IntoIterator<Item = &'a Value>) -> (Vec<&'a Value>, bool) {
        let is_after = |task: &Value| {
            self.cursor.as_ref().is_none_or(|cursor| {
                let (key, id) = (self.key_of_cursor(cursor.key()), cursor.task_id().to_string());
                self.compare((&key, &id), (&self.key(task), id_of(task))) == Ordering::Less
            })
        };
        let mut listed: Vec<_> = tasks.into_iter().filter(|task| self.includes(task) && is_after(task)).collect();
        listed.sort_by(|one, other| self.compare((&self.key(one), id_of(one)), (&self.key(other), id_of(other))));
        let more = listed.len() > self.limit;
        listed.truncate(self.limit);
        (listed, more)
    }

    fn key(&self, task: &Value) -> Key {
        let text = |name: &str| task[name].as_str().expect("a text").to_owned();
        match self.sort.trim_start_matches('-') {
            "due" => task["due"]
                .as_str()
                .map(|due| (due.parse::<Due>().expect("a due time").sort_key().unix_micros(), String::new())),
            "priority" => task["priority"].as_str().map(|own| {
                let place = ["low", "medium", "high", "urgent"].iter().position(|priority| *priority == own);
                (place.map_or(0, |place| i64::try_from(place).expect("small") + 1), String::new())
            }),
            "title" => Some((0, text("title").to_lowercase())),
            "updated" => Some((0, text("updated_at"))),
            "position" => Some((0, text("position"))),
            _ => Some((0, String::new())),
        }
    }

    fn key_of_cursor(&self, key: &SortKey) -> Key {
        match key {
            SortKey::None => self.sort.ends_with("created").then(|| (0, String::new())),
            SortKey::Time(time) if self.sort.ends_with("due") => Some((time.unix_micros(), String::new())),
            SortKey::Time(time) => Some((0, time.to_string())),
            SortKey::Number(number) => Some((i64::from(*number), String::new())),
            SortKey::Text(text) => Some((0, text.to_string())),
        }
    }

    fn compare(&self, one: (&Key, &str), other: (&Key, &str)) -> Ordering {
        let is_descending = self.sort.starts_with('-') || self.sort == "priority";
        // Tasks without the value come last in both directions.
        one.0.is_none().cmp(&other.0.is_none()).then_with(|| {
            let order = one.cmp(&other);
            if is_descending { order.reverse() } else { order }
        })
    }
}

fn id_of(task: &Value) -> &str {
    task["id"].as_str().expect("a text")
}

/// The response to a request for the summary.
pub(crate) fn summary<'a>(tasks: impl Iterator<Item = &'a Value> + Clone) -> Value {
    let is_open = |task: &Value| task["completed"] == json!(false);
    let (mut lists, mut tags) = (BTreeMap::<_, [u64; 2]>::new(), BTreeMap::<_, [u64; 2]>::new());
    for task in tasks.clone() {
        let count = |counts: &mut BTreeMap<&'a str, [u64; 2]>, name: &'a str| {
            let [open, total] = counts.entry(name).or_default();
            *open += u64::from(is_open(task));
            *total += 1;
        };
        if let Some(list) = task["list"].as_str() {
            count(&mut lists, list);
        }
        for tag in task["tags"].as_array().expect("an array") {
            count(&mut tags, tag.as_str().expect("a text"));
        }
    }
    let groups = |counts: BTreeMap<&str, [u64; 2]>| -> Value {
        counts.into_iter().map(|(name, [open, total])| json!({"name": name, "open": open, "total": total})).collect()
    };
    let open = tasks.clone().filter(|task| is_open(task)).count();
    json!({"total": tasks.count(), "open": open, "lists": groups(lists), "tags": groups(tags)})
}

/// The names and values of a query.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

/// The names of the parameters that are not percent-encoded UTF-8.
pub(crate) fn malformed(query: &str) -> impl Iterator<Item = String> {
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
        let is_byte = |(at, _): (usize, &str)| {
            pair.as_bytes().get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        let is_encoded = pair.match_indices('%').all(is_byte) && String::from_utf8(bytes(pair)).is_ok();
        (!is_encoded).then(|| decoded(pair.split_once('=').unwrap_or((pair, "")).0))
    })
}

/// A name as a response shows it.
pub(crate) fn shown(name: &str) -> String {
    let start: String = name.chars().take(FieldErrors::MAX_NAME_CHARS).collect();
    if start == name { start } else { start + "…" }
}

fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&bytes(text)).into_owned()
}

/// Decodes `application/x-www-form-urlencoded` (URL standard, section 5.1).
fn bytes(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match (bytes[at], digits) {
            (b'%', Some(digits)) => {
                let digits = std::str::from_utf8(digits).expect("ASCII");
                decoded.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    decoded
}
