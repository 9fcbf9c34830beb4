//! The statements, once for both databases. They are made from the description of the columns.
//!
//! Every statement names the owner. `store/isolation.rs` removes the owner from one statement after the other and shows
//! that the store suite fails each time.

use std::sync::Arc;

use sqlx::SqlStr;

#[cfg(feature = "postgres")]
use super::{
    columns::Kind,
    functions::{self, Definition, Functions, Rows},
};
use super::{
    columns::{self, COLUMNS, cast, static_text},
    names::{Dialect, Names, Resolved},
    selection::Selections,
};

/// The statements of a store, with its names put in.
///
/// A store renders them once. Its clones, and the stores within a transaction that are made from it, share them. To
/// clone a [`SqlStr`] counts a reference; the text is not copied.
#[derive(Debug)]
pub(in crate::store) struct Statements {
    pub(in crate::store) names: Names,
    #[cfg(feature = "postgres")]
    pub(in crate::store) row_security: bool,
    pub(in crate::store) insert: SqlStr,
    pub(in crate::store) get: SqlStr,
    pub(in crate::store) list: SqlStr,
    pub(in crate::store) list_completed: SqlStr,
    pub(in crate::store) summary: SqlStr,
    pub(in crate::store) update: SqlStr,
    pub(in crate::store) reposition: SqlStr,
    pub(in crate::store) delete: SqlStr,
    pub(in crate::store) erase: SqlStr,
    pub(in crate::store) transfer: SqlStr,
    pub(in crate::store) ping: SqlStr,
    pub(in crate::store) has_tasks: SqlStr,
    /// What the statements with filters are made of.
    pub(in crate::store) selections: Selections,
    #[cfg(feature = "sqlite")]
    pub(in crate::store) lock: SqlStr,
    #[cfg(feature = "sqlite")]
    pub(in crate::store) transfer_delete: SqlStr,
    #[cfg(feature = "sqlite")]
    pub(in crate::store) transfer_count: SqlStr,
    #[cfg(feature = "postgres")]
    pub(in crate::store) insert_all: SqlStr,
    #[cfg(feature = "postgres")]
    pub(in crate::store) batch: Batches,
}

/// The statements that serve many calls at once.
#[cfg(feature = "postgres")]
#[derive(Debug)]
pub(in crate::store) struct Batches {
    pub(in crate::store) get: SqlStr,
    pub(in crate::store) list: SqlStr,
    pub(in crate::store) list_completed: SqlStr,
    pub(in crate::store) insert: SqlStr,
    pub(in crate::store) update: SqlStr,
    pub(in crate::store) delete: SqlStr,
}

// No statement fails on purpose: in PostgreSQL a failed statement aborts the transaction, which may be the host's.
// The parameters are the columns in their order.
const INSERT: &str = "insert into {tasks} ({all}) values ({row}) on conflict do nothing";

const GET: &str = "select {columns} from {tasks} where user_id = $1 and id = $2";

const LIST: &str = "select {columns} from {tasks} where user_id = $1 and id <= $2 order by id desc limit $3";

// A separate statement, not an `or $4 is null`: a plan that serves both would read the wrong index for one of them.
const LIST_COMPLETED: &str =
    "select {columns} from {tasks} where user_id = $1 and {completed} and id <= $2 order by id desc limit $3";

// The kind of the group (0: a list or none, 1: a tag), its name, the number of its tasks and of those that are open.
const SUMMARY: &str = "select cast(0 as bigint), list, count(*), count(case when not completed then 1 end) from {tasks} \
    where user_id = $1 group by list \
    union all select cast(1 as bigint), tag.value, count(*), count(case when not completed then 1 end) \
    from {tasks} cross join {each_tag} where user_id = $1 group by tag.value";

// $3 now, $4 the version or null, then the parameters of the change.
const UPDATE: &str = "update {tasks} set {assignments} \
    where user_id = $1 and id = $2 and ($4 is null or version = $4) returning {columns}";

// $2 the ids and $3 the positions, $4 now.
const REPOSITION: &str = "update {tasks} set position = k.position, \
    updated_at = case when k.position <> {tasks}.position then {greatest}(updated_at, $4) else updated_at end, \
    version = case when k.position <> {tasks}.position then version + 1 else version end \
    from {moves} where user_id = $1 and {tasks}.id = k.id returning {own_columns}";

const DELETE: &str = "delete from {tasks} where user_id = $1 and id = $2";

const ERASE: &str = "delete from {tasks} where user_id = $1";

// $1 the owner, $2 the new owner. The tasks are locked first, so that the copies contain the last change of a concurrent
// transaction. Tasks whose id the new owner has stay. Returns the numbers of tasks that were moved and that stay.
#[cfg(feature = "postgres")]
const TRANSFER: &str = "with source as materialized (\
        select {copied} from {tasks} where user_id = $1 order by id for update\
    ), moved as (\
        insert into {tasks} (user_id, {copied}) select $2, {copied} from source on conflict do nothing returning id\
    ), removed as (\
        delete from {tasks} where user_id = $1 and id in (select id from moved)\
    ) \
    select (select count(*) from moved), (select count(*) from source) - (select count(*) from moved)";

// SQLite cannot change rows in a `with`, so that it needs three statements in a transaction. It has one writer at a
// time, so that no row has to be locked.
#[cfg(feature = "sqlite")]
const TRANSFER_COPY: &str = "insert into {tasks} (user_id, {copied}) select $2, {copied} from {tasks} where user_id = $1 \
    on conflict do nothing returning id";

// $2 the ids that were copied, in hexadecimal, as a JSON array.
#[cfg(feature = "sqlite")]
const TRANSFER_DELETE: &str =
    "delete from {tasks} where user_id = $1 and id in (select unhex(value) from json_each($2))";

#[cfg(feature = "sqlite")]
const TRANSFER_COUNT: &str = "select count(*) from {tasks} where user_id = $1";

// Fails if there is no table, and reads no row.
const PING: &str = "select 1 from {tasks} where false";

// Of any owner: only for migrations.
const HAS_TASKS: &str = "select exists (select 1 from {tasks})";

// A write of nothing, which takes the write lock of SQLite.
#[cfg(feature = "sqlite")]
const LOCK: &str = "delete from {tasks} where false";

// All rows or none: the first condition looks for ids that exist, and no other call creates tasks with these ids.
// $1 the owner, then the other columns as arrays.
#[cfg(feature = "postgres")]
const INSERT_ALL: &str = "insert into {tasks} ({all}) select k.* from (select $1, {unnested}) as k ({all}) \
    where not exists (select from {tasks} where user_id = $1 and id = any ($2)) on conflict do nothing";

// Batches: the parameters of the calls are arrays, and `n` is the position of a call in them. Each row contains its
// owner, which the caller compares. `lateral` and `offset 0` make the planner use one index search for each call.

#[cfg(feature = "postgres")]
const GET_MANY: &str = "select k.n, t.user_id, {t.columns} \
    from unnest($1::text[], $2::uuid[]) with ordinality as k (user_id, id, n) \
    cross join lateral (select * from {tasks} as t where t.user_id = k.user_id and t.id = k.id offset 0) as t";

#[cfg(feature = "postgres")]
const LIST_MANY: &str = "select k.n, t.user_id, {t.columns} \
    from unnest($1::text[], $2::uuid[], $3::bigint[]) with ordinality as k (user_id, newest, rows, n) \
    cross join lateral (select * from {tasks} as t where t.user_id = k.user_id and t.id <= k.newest \
        order by t.id desc limit k.rows) as t";

#[cfg(feature = "postgres")]
const LIST_COMPLETED_MANY: &str = "select k.n, t.user_id, {t.columns} \
    from unnest($1::text[], $2::uuid[], $3::bigint[], $4::boolean[]) with ordinality as k (user_id, newest, rows, completed, n) \
    cross join lateral (select * from {tasks} as t where t.user_id = k.user_id and t.completed = k.completed and t.id <= k.newest \
        order by t.id desc limit k.rows) as t";

#[cfg(feature = "postgres")]
const INSERT_MANY: &str = "insert into {tasks} ({all}) select {cast} from unnest({arrays}) as k ({all}) \
    on conflict do nothing returning user_id, id";

// Rows that another transaction has locked are left out, so that only the calls for these rows have to wait.
#[cfg(feature = "postgres")]
const UPDATE_MANY: &str = "with k as materialized (select * from unnest({change_arrays}) with ordinality as k ({change_names}, n)), \
    free as materialized (\
        select k.n, t.id from k cross join lateral (\
            select t.id from {tasks} as t where t.user_id = k.user_id and t.id = k.id for no key update skip locked) as t\
    ) \
    update {tasks} as t set {assignments} from k join free using (n) \
    where t.user_id = k.user_id and t.id = k.id and (k.if_version is null or t.version = k.if_version) \
    returning k.n, t.user_id, {t.columns}";

#[cfg(feature = "postgres")]
const DELETE_MANY: &str = "with free as materialized (\
        select k.n, k.user_id, k.id from unnest($1::text[], $2::uuid[]) with ordinality as k (user_id, id, n) cross join lateral (\
            select t.id from {tasks} as t where t.user_id = k.user_id and t.id = k.id for update skip locked) as t\
    ) \
    delete from {tasks} as t using free as k where t.user_id = k.user_id and t.id = k.id returning k.n, t.user_id, t.id";

/// The number of the first parameter of a change, in an update of one task.
const FIRST_CHANGE: usize = 5;

/// What is put into the templates.
struct Parts(Vec<(&'static str, String)>);

impl Parts {
    fn new(dialect: Dialect, resolved: &Resolved) -> Self {
        let parameters = columns::change_parameters();
        let numbered = |name: &str| {
            if name == "now" {
                return "$3".to_owned();
            }
            let place = parameters.iter().position(|(known, _)| known == name).unwrap_or_default();
            cast(dialect, format!("${}", FIRST_CHANGE + place), parameters[place].1)
        };
        let row = COLUMNS.iter().zip(1..).map(|(column, number)| cast(dialect, format!("${number}"), column.kind));
        let (greatest, completed, each_tag, moves) = match dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => (
                "greatest",
                "completed = $4",
                "unnest(tags) as tag (value)",
                "unnest($2::uuid[], $3::text[]) as k (id, position)",
            ),
            // Without statistics SQLite (3.51) assumes that every other task is completed, and reads all tasks by their
            // key until a page is full instead of using the index for this.
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => (
                "max",
                "unlikely(completed = $4)",
                "json_each(tags) as tag",
                "(select unhex(key) as id, value as position from json_each($2)) as k",
            ),
        };
        let own = format!("{}.", resolved.tasks);
        #[cfg_attr(not(feature = "postgres"), expect(unused_mut, reason = "only PostgreSQL has batches"))]
        let mut parts = vec![
            ("all", columns::all_columns()),
            ("columns", columns::selected_columns("")),
            ("copied", COLUMNS.iter().skip(1).map(|column| column.name).collect::<Vec<_>>().join(", ")),
            ("own_columns", columns::selected_columns(&own)),
            ("row", row.collect::<Vec<_>>().join(", ")),
            ("assignments", columns::update(dialect, "", numbered).assignments),
            ("greatest", greatest.to_owned()),
            ("completed", completed.to_owned()),
            ("each_tag", each_tag.to_owned()),
            ("moves", moves.to_owned()),
        ];
        #[cfg(feature = "postgres")]
        if dialect == Dialect::Postgres {
            parts.extend(Self::of_batches(&parameters));
        }
        Self(parts)
    }

    #[cfg(feature = "postgres")]
    fn of_batches(parameters: &[columns::Parameter]) -> [(&'static str, String); 6] {
        let array = |number: usize, kind: Kind| format!("${number}::{}[]", columns::postgres_type(kind));
        let casted = |prefix: &str| {
            let columns = COLUMNS.iter();
            let columns =
                columns.map(|column| cast(Dialect::Postgres, format!("{prefix}{}", column.name), column.kind));
            columns.collect::<Vec<_>>().join(", ")
        };
        let arrays = COLUMNS.iter().zip(1..).map(|(column, number)| array(number, column.kind));
        let unnested = COLUMNS.iter().zip(1..).skip(1).map(|(column, number)| {
            cast(Dialect::Postgres, format!("unnest({})", array(number, column.kind)), column.kind)
        });
        let change = [("user_id".into(), Kind::Text), ("id".into(), Kind::Uuid), ("now".into(), Kind::Time)];
        let change = change.into_iter().chain([("if_version".into(), Kind::Big)]).chain(parameters.iter().cloned());
        let (names, kinds): (Vec<_>, Vec<_>) = change.unzip();
        let change_arrays = kinds.into_iter().zip(1..).map(|(kind, number)| array(number, kind));
        [
            ("t.columns", columns::selected_columns("t.")),
            ("arrays", arrays.collect::<Vec<_>>().join(", ")),
            ("cast", casted("k.")),
            ("unnested", unnested.collect::<Vec<_>>().join(", ")),
            ("change_arrays", change_arrays.collect::<Vec<_>>().join(", ")),
            ("change_names", names.join(", ")),
        ]
    }

    fn render(&self, names: &Resolved, template: &str) -> SqlStr {
        let parts: Vec<_> = self.0.iter().map(|(name, part)| (*name, &**part)).collect();
        static_text(names.render_with(template, &parts))
    }
}

impl Statements {
    /// Renders the statements for these names.
    pub(in crate::store) fn new(dialect: Dialect, names: Names) -> Arc<Self> {
        Arc::new(Self::render(dialect, names))
    }

    /// Renders the statements for these names as calls of the functions that bind the owner.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn with_row_security(names: Names) -> Arc<Self> {
        let plain = Self::render(Dialect::Postgres, names);
        let functions = plain.functions();
        let selections = Selections::in_function(&plain.names, &functions);
        Arc::new(Self {
            row_security: true,
            insert: functions.call("insert"),
            get: functions.call("get"),
            list: functions.call("list"),
            list_completed: functions.call("list_completed"),
            summary: functions.call("summary"),
            update: functions.call("update"),
            reposition: functions.call("reposition"),
            delete: functions.call("delete"),
            erase: functions.call("erase"),
            transfer: functions.call("transfer"),
            insert_all: functions.call("insert_all"),
            // Needs the same privileges as the other calls. No owner has a task with this id.
            ping: functions.call_with("get", "'ping', '00000000-0000-0000-0000-000000000000'"),
            selections,
            ..plain
        })
    }

    /// The functions that bind the owner and run these statements.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn functions(&self) -> Functions {
        let change = functions::change_types(&columns::change_parameters());
        let update = ["text", "uuid", "timestamptz", "bigint"].into_iter().chain(change).collect();
        let arrays = COLUMNS.iter().skip(1).map(|column| match columns::postgres_type(column.kind) {
            "uuid" => "uuid[]",
            "boolean" => "boolean[]",
            "smallint" => "smallint[]",
            "bigint" => "bigint[]",
            "timestamptz" => "timestamptz[]",
            _ => "text[]",
        });
        let insert_all = std::iter::once("text").chain(arrays).collect();
        let definition = |name, arguments, rows, statement| Definition { name, arguments, rows, statement };
        let definitions = [
            definition("insert", functions::row_types(), Rows::Counted, self.insert.as_str()),
            definition("insert_all", insert_all, Rows::Counted, self.insert_all.as_str()),
            definition("get", vec!["text", "uuid"], Rows::Tasks, self.get.as_str()),
            definition("list", vec!["text", "uuid", "bigint"], Rows::Tasks, self.list.as_str()),
            definition(
                "list_completed",
                vec!["text", "uuid", "bigint", "boolean"],
                Rows::Tasks,
                self.list_completed.as_str(),
            ),
            definition("summary", vec!["text"], Rows::Groups, self.summary.as_str()),
            definition("update", update, Rows::Tasks, self.update.as_str()),
            definition(
                "reposition",
                vec!["text", "uuid[]", "text[]", "timestamptz"],
                Rows::Tasks,
                self.reposition.as_str(),
            ),
            definition("delete", vec!["text", "uuid"], Rows::Counted, self.delete.as_str()),
            definition("erase", vec!["text"], Rows::Counted, self.erase.as_str()),
        ];
        Functions::new(&self.names.resolve(Dialect::Postgres), definitions)
    }

    pub(in crate::store) fn render(dialect: Dialect, names: Names) -> Self {
        let resolved = names.resolve(dialect);
        let parts = Parts::new(dialect, &resolved);
        let render = |template: &str| parts.render(&resolved, template);
        Self {
            #[cfg(feature = "postgres")]
            row_security: false,
            insert: render(INSERT),
            get: render(GET),
            list: render(LIST),
            list_completed: render(LIST_COMPLETED),
            summary: render(SUMMARY),
            update: render(UPDATE),
            reposition: render(REPOSITION),
            delete: render(DELETE),
            erase: render(ERASE),
            transfer: render(match dialect {
                #[cfg(feature = "postgres")]
                Dialect::Postgres => TRANSFER,
                #[cfg(feature = "sqlite")]
                Dialect::Sqlite => TRANSFER_COPY,
            }),
            ping: render(PING),
            has_tasks: render(HAS_TASKS),
            selections: Selections::new(dialect, &resolved),
            #[cfg(feature = "sqlite")]
            lock: render(LOCK),
            #[cfg(feature = "sqlite")]
            transfer_delete: render(TRANSFER_DELETE),
            #[cfg(feature = "sqlite")]
            transfer_count: render(TRANSFER_COUNT),
            #[cfg(feature = "postgres")]
            insert_all: render(INSERT_ALL),
            #[cfg(feature = "postgres")]
            batch: {
                let parameter = |name: &str| match columns::change_parameters().iter().find(|(known, _)| known == name)
                {
                    Some((_, kind)) => cast(Dialect::Postgres, format!("k.{name}"), *kind),
                    None => format!("k.{name}"),
                };
                let assignments = columns::update(Dialect::Postgres, "t.", parameter).assignments;
                Batches {
                    get: render(GET_MANY),
                    list: render(LIST_MANY),
                    list_completed: render(LIST_COMPLETED_MANY),
                    insert: render(INSERT_MANY),
                    update: render(&UPDATE_MANY.replace("{assignments}", &assignments)),
                    delete: render(DELETE_MANY),
                }
            },
            names,
        }
    }
}
/// Whether a statement serves one call or a batch of calls.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Scope {
    Call,
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "only PostgreSQL has batches"))]
    Batch,
}

#[cfg(test)]
impl Statements {
    /// Every statement, with its name. One that is left out does not compile.
    pub(in crate::store) fn all_mut(&mut self) -> Vec<(&'static str, Scope, &mut SqlStr)> {
        let Self {
            names: _,
            #[cfg(feature = "postgres")]
                row_security: _,
            insert,
            get,
            list,
            list_completed,
            summary,
            update,
            reposition,
            delete,
            erase,
            transfer,
            ping,
            has_tasks,
            selections: _,
            #[cfg(feature = "sqlite")]
            lock,
            #[cfg(feature = "sqlite")]
            transfer_delete,
            #[cfg(feature = "sqlite")]
            transfer_count,
            #[cfg(feature = "postgres")]
            insert_all,
            #[cfg(feature = "postgres")]
            batch,
        } = self;
        let calls = [
            ("insert", insert),
            ("get", get),
            ("list", list),
            ("list_completed", list_completed),
            ("summary", summary),
            ("update", update),
            ("reposition", reposition),
            ("delete", delete),
            ("erase", erase),
            ("transfer", transfer),
            ("ping", ping),
            ("has_tasks", has_tasks),
            #[cfg(feature = "sqlite")]
            ("lock", lock),
            #[cfg(feature = "postgres")]
            ("insert_all", insert_all),
            #[cfg(feature = "sqlite")]
            ("transfer_delete", transfer_delete),
            #[cfg(feature = "sqlite")]
            ("transfer_count", transfer_count),
        ];
        let calls = calls.map(|(name, sql)| (name, Scope::Call, sql)).into_iter();
        #[cfg(feature = "postgres")]
        let calls = {
            let Batches { get, list, list_completed, insert, update, delete } = batch;
            let batches = [
                ("get_many", get),
                ("list_many", list),
                ("list_completed_many", list_completed),
                ("insert_many", insert),
                ("update_many", update),
                ("delete_many", delete),
            ];
            calls.chain(batches.map(|(name, sql)| (name, Scope::Batch, sql)))
        };
        calls.collect()
    }
}
