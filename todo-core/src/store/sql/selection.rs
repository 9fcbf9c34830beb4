//! Statements with filters, whose text depends on the filters and on the order. It is put together from fixed pieces;
//! values are always parameters.
//!
//! The parameters have fixed numbers, so a piece is the same text in every statement. Numbers that a statement does not
//! use are bound too.

use sqlx::SqlStr;

use super::{
    columns::{self, Kind, Value, cast, static_text},
    names::{Dialect, Resolved},
};
use crate::{
    DueBound, DueFilter, ListName, Sort, SortKey, Tag, TaskFilter, TaskQuery,
    clock::Timestamp,
    store::{Revision, TaskChange},
};

/// The numbers of the parameters, with their types. 1 is the owner.
mod number {
    pub(super) const COMPLETED: usize = 2;
    pub(super) const LISTS: usize = 3;
    pub(super) const NO_LIST: usize = 4;
    pub(super) const TAGS: usize = 5;
    pub(super) const PRIORITIES: usize = 6;
    /// Five parameters: moment, local time, start and end of the gap, and the smallest sort key.
    pub(super) const DUE_FROM: usize = 7;
    /// Five parameters: moment, local time, start and end of the gap, and the greatest sort key.
    pub(super) const DUE_BEFORE: usize = 12;
    pub(super) const UPDATED_SINCE: usize = 17;
    pub(super) const TEXT: usize = 18;
    /// The following are for lists, or for changes.
    pub(super) const LIMIT: usize = 19;
    pub(super) const CURSOR_ID: usize = 20;
    pub(super) const CURSOR_TIME: usize = 21;
    pub(super) const CURSOR_TEXT: usize = 22;
    pub(super) const CURSOR_NUMBER: usize = 23;
    /// The revision that is known, in a list and in a count.
    pub(super) const KNOWN_IN_LIST: usize = 24;
    pub(super) const KNOWN_IN_COUNT: usize = 19;
    pub(super) const NOW: usize = 19;
    pub(super) const FIRST_CHANGE: usize = 20;
}

/// The number of the first parameter of a change.
#[cfg(feature = "postgres")]
pub(in crate::store) const FIRST_SET: usize = number::FIRST_CHANGE;

/// The types of the parameters of a filter, from number 1.
const FILTER_KINDS: [Kind; 18] = [
    Kind::Text,
    Kind::Bool,
    Kind::Texts,
    Kind::Bool,
    Kind::Texts,
    Kind::Smalls,
    Kind::Time,
    Kind::Time,
    Kind::Time,
    Kind::Time,
    Kind::Time,
    Kind::Time,
    Kind::Time,
    Kind::Time,
    Kind::Time,
    Kind::Time,
    Kind::Time,
    Kind::Text,
];
/// The types of the parameters of a list.
#[cfg(test)]
pub(in crate::store) fn list_kinds() -> impl Iterator<Item = Kind> {
    FILTER_KINDS.into_iter().chain(LIST_KINDS)
}

/// Those of a list, after the filter.
const LIST_KINDS: [Kind; 6] = [Kind::Big, Kind::Uuid, Kind::Time, Kind::Text, Kind::Small, Kind::Big];

/// What the statements with filters are made of, with the names put in.
///
/// Each template contains the owner, which `store/isolation.rs` takes away.
#[derive(Clone, Debug)]
pub(in crate::store) struct Selections {
    dialect: Dialect,
    /// The function that runs a statement with a bound owner, as a template of its call.
    function: Option<String>,
    /// The revision of the owner, before a list or a count.
    pub(in crate::store) revision: String,
    pub(in crate::store) list: String,
    pub(in crate::store) count: String,
    /// Locks the row of the owner, before a change. Empty for SQLite, where a change locks the database.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "only PostgreSQL reads it"))]
    pub(in crate::store) lock: String,
    /// Records the revision of the changed tasks at their owner. Empty for SQLite, where triggers do it.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "only PostgreSQL reads it"))]
    pub(in crate::store) record: String,
    pub(in crate::store) update: String,
    pub(in crate::store) delete: String,
}

const LIST: &str = "select {columns} from {tasks} where user_id = $1";
const COUNT: &str = "select count(*) from {tasks} where user_id = $1";
const UPDATE: &str = "update {tasks} set {assignments} where user_id = $1";
/// Without a filter it must not have the text of another statement: connections keep prepared statements by their text,
/// with the number of their parameters.
const DELETE: &str = "delete from {tasks} where user_id = $1 and true";
/// Records the revision of tasks that have changed, as [`super::statements`] does for one.
#[cfg(feature = "postgres")]
const RECORD: &str = ", {records} as (update {owners} as o set revision = c.revision \
    from (select max(revision) as revision from changed) as c \
    where o.user_id = $1 and c.revision > o.revision and c.revision % 2 = 0)";

impl Selections {
    pub(in crate::store) fn new(dialect: Dialect, names: &Resolved) -> Self {
        let columns = columns::selected_columns("");
        let render = |template: &str| names.render_with(template, &[("columns", &columns)]);
        Self {
            dialect,
            function: None,
            revision: render(columns::OWNER),
            list: render(LIST),
            count: render(COUNT),
            lock: match dialect {
                #[cfg(feature = "postgres")]
                Dialect::Postgres => render(&columns::locked()),
                #[cfg(feature = "sqlite")]
                Dialect::Sqlite => String::new(),
            },
            record: match dialect {
                #[cfg(feature = "postgres")]
                Dialect::Postgres => names.render_with(RECORD, &[("records", columns::RECORDS)]),
                #[cfg(feature = "sqlite")]
                Dialect::Sqlite => String::new(),
            },
            update: render(UPDATE),
            delete: render(DELETE),
        }
    }

    /// Whose statements run in a function that binds the owner.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn in_function(names: &super::names::Names, functions: &super::functions::Functions) -> Self {
        let plain = Self::new(Dialect::Postgres, &names.resolve(Dialect::Postgres));
        Self { function: Some(functions.run_template().to_owned()), ..plain }
    }

    /// Each template with its name, to weaken it.
    #[cfg(test)]
    pub(in crate::store) fn all_mut(&mut self) -> [(&'static str, &mut String); 7] {
        let Self { dialect: _, function: _, revision, list, count, lock, record, update, delete } = self;
        [
            ("revision", revision),
            ("list by filter", list),
            ("count", count),
            ("lock of matching", lock),
            ("record of matching", record),
            ("update_matching", update),
            ("delete_matching", delete),
        ]
    }

    /// Whether the parameters are passed to a function, as one array of texts.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn is_in_function(&self) -> bool {
        self.function.is_some()
    }

    /// The statement of a list.
    pub(in crate::store) fn list(&self, query: &TaskQuery) -> SqlStr {
        let pieces = self.pieces();
        let known = pieces.parameter(number::KNOWN_IN_LIST);
        let is_other = format!("(select revision from owner) is distinct from {known}");
        let (id, limit) = (pieces.parameter(number::CURSOR_ID), pieces.parameter(number::LIMIT));
        let filter = pieces.filter(&query.filter);
        // SQLite compares a revision for each row, but evaluates a limit once.
        let (base, limit) = if pieces.is_sqlite() {
            (format!("{}{filter}", self.list), format!("case when {is_other} then {limit} else 0 end"))
        } else {
            (format!("{}{filter} and {is_other}", self.list), limit)
        };
        let (comparison, direction) = if query.sort.is_descending() { ("<", " desc") } else { (">", "") };
        let after_id = query.cursor.as_ref().map_or_else(String::new, |_| format!(" and id {comparison} {id}"));
        let by_id = |condition: &str| format!("{base}{condition}{after_id} order by id{direction} limit {limit}");
        let text = match pieces.sort_key(query.sort) {
            None => by_id(""),
            Some(SortColumn { expression, kind, nullable }) => {
                let is_in_nulls = query.cursor.as_ref().is_some_and(|cursor| *cursor.key() == SortKey::None);
                let after = query.cursor.as_ref().filter(|_| !is_in_nulls).map_or_else(String::new, |_| {
                    let key = pieces.parameter(match kind {
                        Kind::Time => number::CURSOR_TIME,
                        Kind::Small => number::CURSOR_NUMBER,
                        _ => number::CURSOR_TEXT,
                    });
                    format!(" and ({expression}, id) {comparison} ({key}, {id})")
                });
                let present = if nullable { format!(" and {expression} is not null") } else { String::new() };
                let with_key =
                    format!("{base}{present}{after} order by {expression}{direction}, id{direction} limit {limit}");
                let absent = format!(" and {expression} is null");
                match (nullable, is_in_nulls) {
                    (true, true) => by_id(&absent),
                    // Rows without the value come last; there is no position among them yet.
                    (true, false) => {
                        let rest = format!("{base}{absent} order by id{direction} limit {limit}");
                        // Both databases return the first part first, and need not begin the second if the first is a page.
                        format!(
                            "select * from ({with_key}) as present union all select * from ({rest}) as absent limit {limit}"
                        )
                    }
                    (false, _) => with_key,
                }
            }
        };
        let text = if pieces.is_sqlite() {
            let nothing = columns::no_columns(self.dialect);
            format!(
                "{}select revision, null, {nothing} from owner union all select null, * from ({text})",
                self.revision
            )
        } else {
            let columns = columns::selected_columns("t.");
            format!("{}select o.revision, {columns} from owner as o left join ({text}) as t on true", self.revision)
        };
        self.finish(text, &|| format!("revision bigint, {}", columns_of_tasks()))
    }

    /// The values of its parameters.
    pub(in crate::store) fn list_values<'a>(
        owner: &'a str,
        query: &'a TaskQuery,
        known: Option<Revision>,
    ) -> Vec<Value<'a>> {
        let mut values = filter_values(owner, &query.filter);
        values.push(Value::Big(Some(i64::from(query.limit.get()) + 1)));
        let key = query.cursor.as_ref().map(crate::Cursor::key);
        values.push(Value::Uuid(query.cursor.as_ref().map(|cursor| cursor.task_id().as_uuid())));
        values.push(Value::Time(match key {
            Some(SortKey::Time(time)) => Some(*time),
            _ => None,
        }));
        values.push(Value::Text(match key {
            Some(SortKey::Text(text)) => Some((&**text).into()),
            _ => None,
        }));
        values.push(Value::Small(match key {
            Some(SortKey::Number(number)) => Some(*number),
            _ => None,
        }));
        values.push(Value::Big(known.map(Revision::get)));
        values
    }

    /// The statement that returns the revision of the owner, and how many tasks a filter means if it is not the one
    /// that is known.
    pub(in crate::store) fn count(&self, filter: &TaskFilter) -> SqlStr {
        let pieces = self.pieces();
        let known = pieces.parameter(number::KNOWN_IN_COUNT);
        let count = self.count_all(filter, &pieces);
        let text = format!(
            "{}select revision, case when revision is distinct from {known} then ({count}) end from owner",
            self.revision
        );
        self.finish(text, &|| "revision bigint, count bigint".to_owned())
    }

    fn count_all(&self, filter: &TaskFilter, pieces: &Pieces) -> String {
        format!("{}{}", self.count, pieces.filter(filter))
    }

    /// The values of its parameters.
    pub(in crate::store) fn count_values<'a>(
        owner: &'a str,
        filter: &'a TaskFilter,
        known: Option<Revision>,
    ) -> Vec<Value<'a>> {
        let mut values = filter_values(owner, filter);
        values.push(Value::Big(known.map(Revision::get)));
        values
    }

    /// The values of the parameters of a deletion.
    pub(in crate::store) fn filter_values<'a>(owner: &'a str, filter: &'a TaskFilter) -> Vec<Value<'a>> {
        filter_values(owner, filter)
    }

    /// The statement that changes tasks, without those that would stay as they are: it affects one row for each task
    /// that gets another value. In PostgreSQL it needs the lock before it.
    pub(in crate::store) fn update(&self, filter: &TaskFilter) -> String {
        let pieces = self.pieces();
        let parameters = columns::change_parameters();
        let parameter = |name: &str| match parameters.iter().position(|(known, _)| known == name) {
            Some(place) => pieces.typed(number::FIRST_CHANGE + place, parameters[place].1),
            None => pieces.typed(number::NOW, Kind::Time),
        };
        let columns::Update { mut assignments, changes } = columns::update(self.dialect, "", parameter);
        if !pieces.is_sqlite() {
            assignments += ", revision = (select revision from locked)";
        }
        let text = self.update.replace("{assignments}", &assignments);
        text + &pieces.filter(filter) + " and " + &changes
    }

    /// The statement that changes tasks as [`update`](Self::update) does, and returns how many the filter means and how
    /// many have changed.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn update_counted(&self, filter: &TaskFilter) -> SqlStr {
        let pieces = self.pieces();
        let count = self.count_all(filter, &pieces);
        let text = format!(
            "{}, changed as ({}{} returning revision){} select ({count}), (select count(*) from changed)",
            self.lock,
            self.update(filter),
            columns::IS_LOCKED,
            self.record
        );
        self.finish(text, &|| "matched bigint, changed bigint".to_owned())
    }

    /// The values of the parameters of a change of many tasks.
    pub(in crate::store) fn update_values<'a>(
        owner: &'a str,
        filter: &'a TaskFilter,
        change: &'a TaskChange,
        now: Timestamp,
    ) -> Vec<Value<'a>> {
        let mut values = filter_values(owner, filter);
        values.push(Value::Time(Some(now)));
        values.extend(columns::change_values(change));
        values
    }

    /// The statement that deletes tasks. In PostgreSQL it returns their number.
    pub(in crate::store) fn delete(&self, filter: &TaskFilter) -> SqlStr {
        let pieces = self.pieces();
        let text = format!("{}{}", self.delete, pieces.filter(filter));
        #[cfg(feature = "postgres")]
        if self.dialect == Dialect::Postgres {
            let text =
                format!("{}, gone as ({text}{} returning 1) select count(*) from gone", self.lock, columns::IS_LOCKED);
            return self.finish(text, &|| "count bigint".to_owned());
        }
        self.finish(text, &String::new)
    }

    fn pieces(&self) -> Pieces {
        Pieces {
            dialect: self.dialect,
            #[cfg(feature = "postgres")]
            in_array: self.function.is_some(),
        }
    }

    /// The statement, or the call of the function that runs it: with the columns of its rows.
    fn finish(&self, text: String, columns: &dyn Fn() -> String) -> SqlStr {
        match &self.function {
            None => static_text(text),
            // In dollar quotes, since the text contains quotes. It contains no dollar sign before a letter.
            Some(function) => static_text(
                function.replace("{statement}", &format!("$todo${text}$todo$")).replace("{row}", &columns()),
            ),
        }
    }
}

/// The columns of a task in a row, with their types.
fn columns_of_tasks() -> String {
    #[cfg(feature = "postgres")]
    {
        let columns = columns::COLUMNS.iter().filter(|column| column.selected);
        let typed = columns.map(|column| format!("\"{}\" {}", column.name, super::functions::column_type(column.kind)));
        typed.collect::<Vec<_>>().join(", ")
    }
    #[cfg(not(feature = "postgres"))]
    String::new()
}

fn filter_values<'a>(owner: &'a str, filter: &'a TaskFilter) -> Vec<Value<'a>> {
    let lists: Vec<_> = filter.lists.iter().flatten().map(ListName::as_str).collect();
    let tags: Vec<_> = filter.tags.iter().map(Tag::as_str).collect();
    let priorities: Vec<_> = filter.priorities.iter().map(|priority| priority.number()).collect();
    let mut values = Vec::with_capacity(48);
    values.extend([
        Value::Text(Some(owner.into())),
        Value::Bool(filter.completed),
        Value::Texts(Some(lists).filter(|_| !filter.lists.is_empty())),
        Value::Bool(Some(filter.lists.contains(&None))),
        Value::Texts(Some(tags).filter(|tags| !tags.is_empty())),
        Value::Smalls(Some(priorities).filter(|priorities| !priorities.is_empty())),
    ]);
    let (from, before) = filter.due_bounds();
    let bound = |bound: Option<DueBound>, key: fn(&DueBound) -> Timestamp| {
        let times: [fn(&DueBound) -> Timestamp; 4] =
            [|bound| bound.instant, |bound| bound.local, |bound| bound.gap.0, |bound| bound.gap.1];
        times.into_iter().chain([key]).map(move |time| Value::Time(bound.as_ref().map(time)))
    };
    values.extend(bound(from, DueBound::first_key));
    values.extend(bound(before, DueBound::last_key));
    values.push(Value::Time(filter.updated_since));
    values.push(Value::Text(filter.text.as_ref().map(|text| text.to_lowercase().into())));
    values
}

/// A column by which lists are sorted.
struct SortColumn {
    expression: &'static str,
    kind: Kind,
    nullable: bool,
}

/// The pieces of the statements.
struct Pieces {
    dialect: Dialect,
    /// The parameters are arrays, which the function passes on.
    #[cfg(feature = "postgres")]
    in_array: bool,
}

impl Pieces {
    fn parameter(&self, number: usize) -> String {
        let kind = FILTER_KINDS.iter().chain(&LIST_KINDS).nth(number - 1).copied().unwrap_or(Kind::Text);
        self.typed(number, kind)
    }

    fn typed(&self, number: usize, kind: Kind) -> String {
        #[cfg(feature = "postgres")]
        if self.in_array {
            return match kind {
                _ if number == 1 => "$1".to_owned(),
                Kind::Time => format!("$3[{number}]"),
                Kind::Texts if number >= FIRST_SET => "$4".to_owned(),
                _ => format!("($2[{number}])::{}", super::functions::column_type(kind)),
            };
        }
        cast(self.dialect, format!("${number}"), kind)
    }

    /// The conditions of a filter, each with `and` before it.
    fn filter(&self, filter: &TaskFilter) -> String {
        let is_sqlite = self.is_sqlite();
        let mut conditions = Vec::new();
        let parameter = |number| self.parameter(number);
        if filter.completed.is_some() {
            let condition = format!("completed = {}", parameter(number::COMPLETED));
            // See `Statements`: without statistics SQLite would not use the index for this.
            conditions.push(if is_sqlite { format!("unlikely({condition})") } else { condition });
        }
        if !filter.lists.is_empty() {
            let (lists, none) = (parameter(number::LISTS), parameter(number::NO_LIST));
            conditions.push(if is_sqlite {
                format!("(list in (select value from json_each({lists})) or ({none} and list is null))")
            } else {
                format!("(list = any ({lists}) or ({none} and list is null))")
            });
        }
        if !filter.tags.is_empty() {
            let tags = parameter(number::TAGS);
            conditions.push(if is_sqlite {
                format!(
                    "not exists (select 1 from json_each({tags}) as wanted \
                     where wanted.value not in (select value from json_each(coalesce(tags, '[]'))))"
                )
            } else {
                format!("tags @> {tags}")
            });
        }
        if !filter.priorities.is_empty() {
            let priorities = parameter(number::PRIORITIES);
            conditions.push(if is_sqlite {
                format!("priority in (select value from json_each({priorities}))")
            } else {
                format!("priority = any ({priorities})")
            });
        }
        match &filter.due {
            None => {}
            Some(DueFilter::Never) => conditions.push("due_at is null".to_owned()),
            Some(DueFilter::Between { from, before }) => {
                conditions.push("due_at is not null".to_owned());
                if from.is_some() {
                    let first = parameter(number::DUE_FROM + 4);
                    conditions.push(format!("due_at >= {first} and {}", self.is_due_from(number::DUE_FROM)));
                }
                if before.is_some() {
                    let last = parameter(number::DUE_BEFORE + 4);
                    conditions.push(format!("due_at < {last} and not {}", self.is_due_from(number::DUE_BEFORE)));
                }
            }
        }
        if filter.updated_since.is_some() {
            conditions.push(format!("updated_at >= {}", parameter(number::UPDATED_SINCE)));
        }
        if filter.text.is_some() {
            let text = parameter(number::TEXT);
            let contains = |column: &str| {
                let lowered = self.lowered(column);
                let find = if is_sqlite { "instr" } else { "strpos" };
                format!("{find}({lowered}, {text}) > 0")
            };
            conditions.push(format!("({} or {})", contains("title"), contains("description")));
        }
        conditions.iter().flat_map(|condition| [" and ", condition]).collect()
    }

    /// Whether a task is due from a bound on, whose first parameter has this number: see [`DueBound`].
    fn is_due_from(&self, first: usize) -> String {
        let [instant, local, start, end] = [0, 1, 2, 3].map(|place| self.parameter(first + place));
        let last_character = if self.is_sqlite() { "substr(due, -1)" } else { "right(due, 1)" };
        format!(
            "(case when {last_character} in ('Z', ']') then due_at >= {instant} \
             else due_at >= {local} or (due_at >= {start} and due_at < {end}) end)"
        )
    }

    /// The lower-case form of a column: ours, or that of the database, which knows only the letters a to z.
    fn lowered(&self, column: &str) -> String {
        if self.is_sqlite() {
            format!("coalesce({column}_lower, lower({column}))")
        } else {
            format!(r#"coalesce({column}_lower, lower({column} collate "C"))"#)
        }
    }

    /// What a list is sorted by before the id.
    fn sort_key(&self, sort: Sort) -> Option<SortColumn> {
        let title = if self.is_sqlite() {
            "coalesce(title_lower, lower(title))"
        } else {
            r#"coalesce(title_lower, lower(title collate "C"))"#
        };
        let (expression, kind, nullable) = match sort {
            Sort::NewestFirst | Sort::OldestFirst => return None,
            Sort::Due | Sort::DueDescending => ("due_at", Kind::Time, true),
            Sort::Priority => ("priority", Kind::Small, true),
            Sort::Title => (title, Kind::Text, false),
            Sort::Updated | Sort::UpdatedDescending => ("updated_at", Kind::Time, false),
            Sort::Position | Sort::PositionDescending => ("position", Kind::Text, false),
        };
        Some(SortColumn { expression, kind, nullable })
    }

    fn is_sqlite(&self) -> bool {
        match self.dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => false,
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => true,
        }
    }
}
