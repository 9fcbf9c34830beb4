//! The columns of the table, once: their names and types, what a task has in them, and how a change changes them.
//!
//! The statements, the batches, the functions for row-level security and the parameters of all of them are made from
//! [`COLUMNS`]. The update rule stands here and in [`TaskChange::apply`]; a test compares the two in every store.

use std::{borrow::Cow, sync::Arc};

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

use super::{super::TaskChange, names::Dialect};
use crate::{
    Description, Due, ListName, Metadata, Patch, Position, Priority, Tags, Task, Title, clock::Timestamp,
    store::Completion,
};

/// The type of a column or a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Kind {
    Text,
    Uuid,
    Bool,
    Small,
    Big,
    Time,
    /// Several texts, as text: an array literal of PostgreSQL, or JSON.
    Texts,
    /// Several small numbers, in the same way.
    Smalls,
}

/// A parameter of a statement.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store) enum Value<'a> {
    Text(Option<Cow<'a, str>>),
    Uuid(Option<uuid::Uuid>),
    Bool(Option<bool>),
    Small(Option<i16>),
    Big(Option<i64>),
    Time(Option<Timestamp>),
    /// Of no column that a task has.
    Bytes(Option<&'a [u8]>),
    Texts(Option<Vec<&'a str>>),
    Smalls(Option<Vec<i16>>),
}

/// A column.
pub(in crate::store) struct Column {
    pub(in crate::store) name: &'static str,
    pub(in crate::store) kind: Kind,
    /// Whether the rows of tasks contain it.
    pub(in crate::store) selected: bool,
    /// What it contains for a task.
    pub(in crate::store) value: for<'a> fn(&'a Task) -> Value<'a>,
    pub(in crate::store) rule: Rule,
}

type NewValue = for<'a> fn(&'a TaskChange) -> Option<Value<'a>>;

/// How a column changes.
pub(in crate::store) enum Rule {
    /// Never.
    Fixed,
    /// To the value of a parameter, unless that is null. The column is never null.
    Set(NewValue),
    /// To the value of a parameter, which may be null, if another parameter is true.
    Patch(NewValue),
    /// To the value of a parameter, which may be null, if this other column changes by its own parameters.
    With(&'static str, NewValue),
    /// As [`Completion`] says.
    Completed,
    /// To an expression, in which `{completed}` is the new value of that column, `{changes}` says whether a column gets
    /// another value, and `{t}` precedes old values.
    Derived(&'static str),
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Some(Cow::Borrowed(text)))
}

fn optional<T>(value: Option<&T>, text: impl Fn(&T) -> &str) -> Value<'_> {
    Value::Text(value.map(|value| Cow::Borrowed(text(value))))
}

/// The new value of a column that may become null.
fn patch<'a, T>(patch: &'a Patch<T>, value: impl Fn(Option<&'a T>) -> Value<'a>) -> Option<Value<'a>> {
    match patch {
        Patch::Keep => None,
        Patch::Clear => Some(value(None)),
        Patch::Set(new) => Some(value(Some(new))),
    }
}

/// The lower-case form of a text, which is searched and sorted by. Null if it is the one that the database would make by
/// lowering the letters a to z.
fn lowered(text: Option<&str>) -> Value<'_> {
    Value::Text(text.filter(|text| !text.is_ascii()).map(|text| Cow::Owned(text.to_lowercase())))
}

fn due_text(due: Option<&Due>) -> Value<'_> {
    optional(due, Due::stored_text)
}

fn due_at(due: Option<&Due>) -> Value<'_> {
    Value::Time(due.map(Due::sort_key))
}

fn priority(priority: Option<Priority>) -> Value<'static> {
    Value::Small(priority.map(Priority::number))
}

/// Null if there are none, since most tasks have none and null is the quickest to read.
fn tags(tags: &Tags) -> Value<'_> {
    let tags: Vec<_> = tags.iter().map(crate::Tag::as_str).collect();
    Value::Texts(Some(tags).filter(|tags| !tags.is_empty()))
}

/// Null if there are none.
fn metadata(metadata: &Metadata) -> Value<'_> {
    Value::Text(Some(metadata.as_str()).filter(|json| *json != "{}").map(Cow::Borrowed))
}

/// The columns in the order of the table.
pub(in crate::store) const COLUMNS: &[Column] = &[
    Column {
        name: "user_id",
        kind: Kind::Text,
        selected: false,
        value: |task| text(task.user_id.as_str()),
        rule: Rule::Fixed,
    },
    Column {
        name: "id",
        kind: Kind::Uuid,
        selected: true,
        value: |task| Value::Uuid(Some(task.id.as_uuid())),
        rule: Rule::Fixed,
    },
    Column {
        name: "title",
        kind: Kind::Text,
        selected: true,
        value: |task| text(task.title.as_str()),
        rule: Rule::Set(|change| change.title.as_ref().map(|title| text(title.as_str()))),
    },
    Column {
        name: "title_lower",
        kind: Kind::Text,
        selected: false,
        value: |task| lowered(Some(task.title.as_str())),
        rule: Rule::With("title", |change| change.title.as_ref().map(|title| lowered(Some(title.as_str())))),
    },
    Column {
        name: "description",
        kind: Kind::Text,
        selected: true,
        value: |task| optional(task.description.as_ref(), Description::as_str),
        rule: Rule::Patch(|change| patch(&change.description, |new| optional(new, Description::as_str))),
    },
    Column {
        name: "description_lower",
        kind: Kind::Text,
        selected: false,
        value: |task| lowered(task.description.as_ref().map(Description::as_str)),
        rule: Rule::With("description", |change| {
            patch(&change.description, |new| lowered(new.map(Description::as_str)))
        }),
    },
    Column {
        name: "completed",
        kind: Kind::Bool,
        selected: true,
        value: |task| Value::Bool(Some(task.completed)),
        rule: Rule::Completed,
    },
    Column {
        name: "completed_at",
        kind: Kind::Time,
        selected: true,
        value: |task| Value::Time(task.completed_at),
        rule: Rule::Derived(
            "case when not {completed} then null when {t}completed then {t}completed_at \
             else {greatest}({t}updated_at, {now}) end",
        ),
    },
    Column {
        name: "due",
        kind: Kind::Text,
        selected: true,
        value: |task| due_text(task.due.as_ref()),
        rule: Rule::Patch(|change| patch(&change.due, due_text)),
    },
    Column {
        name: "due_at",
        kind: Kind::Time,
        selected: true,
        value: |task| due_at(task.due.as_ref()),
        rule: Rule::With("due", |change| patch(&change.due, due_at)),
    },
    Column {
        name: "priority",
        kind: Kind::Small,
        selected: true,
        value: |task| priority(task.priority),
        rule: Rule::Patch(|change| patch(&change.priority, |new| priority(new.copied()))),
    },
    Column {
        name: "list",
        kind: Kind::Text,
        selected: true,
        value: |task| optional(task.list.as_ref(), ListName::as_str),
        rule: Rule::Patch(|change| patch(&change.list, |new| optional(new, ListName::as_str))),
    },
    Column {
        name: "tags",
        kind: Kind::Texts,
        selected: true,
        value: |task| tags(&task.tags),
        rule: Rule::Patch(|change| change.tags.as_ref().map(tags)),
    },
    Column {
        name: "position",
        kind: Kind::Text,
        selected: true,
        value: |task| text(task.position.as_str()),
        rule: Rule::Set(|change| change.position.as_ref().map(|position| text(position.as_str()))),
    },
    Column {
        name: "metadata",
        kind: Kind::Text,
        selected: true,
        value: |task| metadata(&task.metadata),
        rule: Rule::Patch(|change| change.metadata.as_ref().map(metadata)),
    },
    Column {
        name: "created_at",
        kind: Kind::Time,
        selected: true,
        value: |task| Value::Time(Some(task.created_at)),
        rule: Rule::Fixed,
    },
    Column {
        name: "updated_at",
        kind: Kind::Time,
        selected: true,
        value: |task| Value::Time(Some(task.updated_at)),
        rule: Rule::Derived("case when {changes} then {greatest}({t}updated_at, {now}) else {t}updated_at end"),
    },
    Column {
        name: "version",
        kind: Kind::Big,
        selected: true,
        value: |task| Value::Big(Some(task.version)),
        rule: Rule::Derived("case when {changes} then {t}version + 1 else {t}version end"),
    },
];

/// A parameter of a change: its name and type.
pub(in crate::store) type Parameter = (Cow<'static, str>, Kind);

/// The parameters of a change, in the order of [`change_values`].
pub(in crate::store) fn change_parameters() -> Vec<Parameter> {
    let mut parameters = Vec::new();
    for column in COLUMNS {
        match column.rule {
            Rule::Fixed | Rule::Derived(_) => {}
            Rule::Set(_) | Rule::With(..) => parameters.push((column.name.into(), column.kind)),
            Rule::Patch(_) => {
                parameters.push((format!("set_{}", column.name).into(), Kind::Bool));
                parameters.push((column.name.into(), column.kind));
            }
            Rule::Completed => {
                parameters.push(("toggle".into(), Kind::Bool));
                parameters.push((column.name.into(), Kind::Bool));
            }
        }
    }
    parameters
}

/// The values of the parameters of a change.
pub(in crate::store) fn change_values(change: &TaskChange) -> Vec<Value<'_>> {
    let mut values = Vec::with_capacity(24);
    for column in COLUMNS {
        match column.rule {
            Rule::Fixed | Rule::Derived(_) => {}
            Rule::Set(new) | Rule::With(_, new) => {
                values.push(new(change).unwrap_or_else(|| Value::null(column.kind)));
            }
            Rule::Patch(new) => {
                let new = new(change);
                values.push(Value::Bool(Some(new.is_some())));
                values.push(new.unwrap_or_else(|| Value::null(column.kind)));
            }
            Rule::Completed => {
                values.push(Value::Bool(Some(change.completed == Some(Completion::Toggle))));
                values.push(Value::Bool(match change.completed {
                    Some(Completion::Set(completed)) => Some(completed),
                    Some(Completion::Toggle) | None => None,
                }));
            }
        }
    }
    values
}

/// The values of a row, in the order of the columns. The owner is that of the task.
pub(in crate::store) fn row_values(task: &Task) -> impl Iterator<Item = Value<'_>> {
    COLUMNS.iter().map(move |column| (column.value)(task))
}

/// The names of all columns, for an insert.
pub(in crate::store) fn all_columns() -> String {
    COLUMNS.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

/// The columns of a task in a row, each with this prefix.
pub(in crate::store) fn selected_columns(prefix: &str) -> String {
    let columns = COLUMNS.iter().filter(|column| column.selected);
    columns.map(|column| format!("{prefix}{}", column.name)).collect::<Vec<_>>().join(", ")
}

/// No value for each column of a task in a row except the id, which comes first.
pub(in crate::store) fn no_columns(dialect: Dialect) -> String {
    let columns = COLUMNS.iter().filter(|column| column.selected).skip(1);
    let nothing = columns.map(|column| match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => format!("null::{}", super::functions::column_type(column.kind)),
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => format!("null as {}", column.name),
    });
    nothing.collect::<Vec<_>>().join(", ")
}

/// Marks a statement that takes the next revision and records it at the owner itself: it is the name of the part that
/// records, or the alias of the function that is called. The triggers (first migration) let pass the rows of such a
/// statement. A comment would not do: it does not reach a node of Citus.
#[cfg(feature = "postgres")]
pub(in crate::store) const RECORDS: &str = "todo_records_revision";

/// The next revision of an owner, from its row. It is even; those that triggers give are odd.
#[cfg(feature = "postgres")]
pub(in crate::store) const NEXT_REVISION: &str =
    "(greatest(revision, cast(extract(epoch from statement_timestamp()) * 1000000 as bigint)) / 2 + 1) * 2";

/// The beginning of a statement that locks the row of the owner, and takes the next revision.
#[cfg(feature = "postgres")]
pub(in crate::store) fn locked() -> String {
    format!(
        "with locked as materialized (select {NEXT_REVISION} as revision from {{owners}} where user_id = $1 for no key update)"
    )
}

/// The condition that makes a statement of PostgreSQL lock the row of the owner before it does anything else.
#[cfg(feature = "postgres")]
pub(in crate::store) const IS_LOCKED: &str = " and (select count(*) from locked) is not null";

/// The revision of an owner, of whom there may be no row, at the beginning of a statement.
pub(in crate::store) const OWNER: &str = "with owner as materialized (\
    select coalesce((select revision from {owners} where user_id = $1), 0) as revision) ";

/// The part of an update that sets the columns, and the condition that is true if one of them gets another value.
pub(in crate::store) struct Update {
    pub(in crate::store) assignments: String,
    pub(in crate::store) changes: String,
}

/// Writes an update. `old` precedes the names of columns (such as `t.`), `parameter` returns a parameter by its name; the
/// time is the parameter `now`.
pub(in crate::store) fn update(dialect: Dialect, old: &str, parameter: impl Fn(&str) -> String) -> Update {
    let new_value = |column: &Column| {
        let (name, value) = (column.name, parameter(column.name));
        match &column.rule {
            Rule::Set(_) => Some(format!("coalesce({value}, {old}{name})")),
            Rule::Patch(_) => {
                let set = parameter(&format!("set_{name}"));
                Some(format!("case when {set} then {value} else {old}{name} end"))
            }
            Rule::With(leader, _) => {
                let changes = match COLUMNS.iter().find(|column| column.name == *leader).map(|column| &column.rule) {
                    Some(Rule::Patch(_)) => parameter(&format!("set_{leader}")),
                    _ => format!("{} is not null", parameter(leader)),
                };
                Some(format!("case when {changes} then {value} else {old}{name} end"))
            }
            Rule::Completed => {
                let toggle = parameter("toggle");
                Some(format!("(case when {toggle} then not {old}{name} else coalesce({value}, {old}{name}) end)"))
            }
            Rule::Fixed | Rule::Derived(_) => None,
        }
    };
    // Short for the usual rules, since this is computed for every row that is written.
    let change = |column: &Column| {
        let (name, value) = (column.name, parameter(column.name));
        match &column.rule {
            Rule::Set(_) => Some(format!("coalesce({value} <> {old}{name}, false)")),
            Rule::Patch(_) => {
                let set = parameter(&format!("set_{name}"));
                Some(format!("({set} and {value} is distinct from {old}{name})"))
            }
            Rule::Completed => Some(format!("{} or coalesce({value} <> {old}{name}, false)", parameter("toggle"))),
            Rule::With(..) | Rule::Fixed | Rule::Derived(_) => None,
        }
    };
    let greatest = match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => "greatest",
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => "max",
    };
    let changes = format!("({})", COLUMNS.iter().filter_map(change).collect::<Vec<_>>().join(" or "));
    let completed = COLUMNS.iter().find(|column| column.name == "completed").and_then(&new_value).unwrap_or_default();
    let assignments = COLUMNS.iter().filter_map(|column| {
        let new = match &column.rule {
            Rule::Derived(template) => template
                .replace("{t}", old)
                .replace("{greatest}", greatest)
                .replace("{now}", &parameter("now"))
                .replace("{changes}", &changes)
                .replace("{completed}", &completed),
            _ => new_value(column)?,
        };
        Some(format!("{} = {new}", column.name))
    });
    Update { assignments: assignments.collect::<Vec<_>>().join(", "), changes }
}

impl Update {
    /// The assignments, with a revision for a task that gets another value. `old` precedes the names of columns.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn with_revision(&self, old: &str, revision: &str) -> String {
        let Self { assignments, changes } = self;
        format!("{assignments}, revision = case when {changes} then {revision} else {old}revision end")
    }
}

impl Value<'_> {
    /// No value, of a type.
    pub(in crate::store) fn null(kind: Kind) -> Self {
        match kind {
            Kind::Text => Value::Text(None),
            Kind::Uuid => Value::Uuid(None),
            Kind::Bool => Value::Bool(None),
            Kind::Small => Value::Small(None),
            Kind::Big => Value::Big(None),
            Kind::Time => Value::Time(None),
            Kind::Texts => Value::Texts(None),
            Kind::Smalls => Value::Smalls(None),
        }
    }
}

/// The name of a type of PostgreSQL. A parameter with several values is a text.
#[cfg(feature = "postgres")]
pub(in crate::store) fn postgres_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Texts | Kind::Smalls => "text",
        Kind::Uuid => "uuid",
        Kind::Bool => "boolean",
        Kind::Small => "smallint",
        Kind::Big => "bigint",
        Kind::Time => "timestamptz",
    }
}

/// A parameter as the columns need it: PostgreSQL reads several values from their text.
pub(in crate::store) fn cast(dialect: Dialect, parameter: String, kind: Kind) -> String {
    match (dialect, kind) {
        #[cfg(feature = "postgres")]
        (Dialect::Postgres, Kind::Texts) => format!("{parameter}::text[]"),
        #[cfg(feature = "postgres")]
        (Dialect::Postgres, Kind::Smalls) => format!("{parameter}::smallint[]"),
        _ => parameter,
    }
}

/// A statement that is our text with validated names put in.
pub(in crate::store) fn static_text(text: String) -> SqlStr {
    AssertSqlSafe(Arc::<str>::from(text)).into_sql_str()
}

/// Several texts as JSON.
#[cfg(feature = "sqlite")]
pub(in crate::store) fn json_array<T: serde::Serialize>(values: &[T]) -> String {
    serde_json::to_string(values).unwrap_or_else(|_| "[]".to_owned())
}

/// Several texts as an array literal of PostgreSQL.
#[cfg(feature = "postgres")]
pub(in crate::store) fn array_literal<'a>(values: impl IntoIterator<Item = &'a str>) -> String {
    let mut literal = String::from("{");
    for (number, value) in values.into_iter().enumerate() {
        if number > 0 {
            literal.push(',');
        }
        literal.push('"');
        for character in value.chars() {
            if matches!(character, '"' | '\\') {
                literal.push('\\');
            }
            literal.push(character);
        }
        literal.push('"');
    }
    literal.push('}');
    literal
}

/// The title of a task in a row, and so on: no check can fail that the database repeats, so they are not repeated here
/// for values that only this library writes.
pub(in crate::store) struct Fields<T> {
    pub(in crate::store) id: uuid::Uuid,
    pub(in crate::store) title: String,
    pub(in crate::store) description: Option<String>,
    pub(in crate::store) completed: bool,
    pub(in crate::store) completed_at: Option<T>,
    pub(in crate::store) due: Option<String>,
    pub(in crate::store) due_at: Option<T>,
    pub(in crate::store) priority: Option<i16>,
    pub(in crate::store) list: Option<String>,
    pub(in crate::store) tags: Option<Vec<String>>,
    pub(in crate::store) position: String,
    pub(in crate::store) metadata: Option<String>,
    pub(in crate::store) created_at: T,
    pub(in crate::store) updated_at: T,
    pub(in crate::store) version: i64,
}

impl<T: Into<Timestamp>> Fields<T> {
    /// Makes the task. A value that is no value of its type is an error.
    pub(in crate::store) fn into_task(self, owner: &crate::UserId) -> Result<Task, sqlx::Error> {
        fn decode(error: crate::InvalidValue) -> sqlx::Error {
            sqlx::Error::Decode(Box::new(error))
        }
        let due = match (self.due, self.due_at) {
            (Some(text), Some(key)) => Some(Due::from_stored(text, key.into())),
            // Somebody else has written the text alone.
            (Some(text), None) => Some(Due::new(&text).map_err(decode)?),
            (None, _) => None,
        };
        let tags = match self.tags {
            None => Tags::default(),
            Some(tags) => {
                let tags = tags.into_iter().map(crate::Tag::new).collect::<Result<_, _>>().map_err(decode)?;
                Tags::new(tags).map_err(decode)?
            }
        };
        Ok(Task {
            id: self.id.into(),
            user_id: owner.clone(),
            title: Title::new(self.title).map_err(decode)?,
            description: self.description.map(Description::new).transpose().map_err(decode)?,
            completed: self.completed,
            completed_at: self.completed_at.map(Into::into),
            due,
            priority: self.priority.and_then(Priority::from_number),
            list: self.list.map(ListName::new).transpose().map_err(decode)?,
            tags,
            position: Position::new(self.position).map_err(decode)?,
            metadata: self.metadata.map(Metadata::from_stored).unwrap_or_default(),
            created_at: self.created_at.into(),
            updated_at: self.updated_at.into(),
            version: self.version,
        })
    }
}
