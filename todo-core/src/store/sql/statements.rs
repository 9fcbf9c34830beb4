//! The statements, once for both databases.
//!
//! Every statement names the owner. `store/isolation.rs` removes the owner from one statement after the other and shows
//! that the store suite fails each time.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

use super::names::{Dialect, Names, Resolved};

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
    pub(in crate::store) update: SqlStr,
    pub(in crate::store) delete: SqlStr,
    pub(in crate::store) erase: SqlStr,
    pub(in crate::store) transfer: SqlStr,
    pub(in crate::store) ping: SqlStr,
    pub(in crate::store) has_tasks: SqlStr,
    #[cfg(feature = "sqlite")]
    pub(in crate::store) lock: SqlStr,
    #[cfg(feature = "sqlite")]
    pub(in crate::store) transfer_delete: SqlStr,
    #[cfg(feature = "sqlite")]
    pub(in crate::store) transfer_count: SqlStr,
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
const INSERT: &str = "insert into {tasks} (user_id, id, title, description, completed, created_at, updated_at, version) \
    values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing";

const GET: &str = "select id, title, description, completed, created_at, updated_at, version from {tasks} \
    where user_id = $1 and id = $2";

const LIST: &str = "select id, title, description, completed, created_at, updated_at, version from {tasks} \
    where user_id = $1 and id <= $2 order by id desc limit $3";

// A separate statement, not an `or $4 is null`: a plan that serves both would read the wrong index for one of them.
const LIST_COMPLETED: &str = "select id, title, description, completed, created_at, updated_at, version from {tasks} \
    where user_id = $1 and {completed} and id <= $2 order by id desc limit $3";

// $3 title or null; $4 whether the description changes, $5 to what; $6 toggle; $7 completed or null; $8 now.
const UPDATE: &str = "update {tasks} set \
    title = coalesce($3, title), \
    description = case when $4 then $5 else description end, \
    completed = case when $6 then not completed else coalesce($7, completed) end, \
    updated_at = case when {changes} then {greatest}(updated_at, $8) else updated_at end, \
    version = case when {changes} then version + 1 else version end \
    where user_id = $1 and id = $2 \
    returning id, title, description, completed, created_at, updated_at, version";

const CHANGES: &str = "(coalesce($3, title) <> title or ($4 and $5 is distinct from description) or $6 \
    or coalesce($7, completed) <> completed)";

const DELETE: &str = "delete from {tasks} where user_id = $1 and id = $2";

const ERASE: &str = "delete from {tasks} where user_id = $1";

// $1 the owner, $2 the new owner. The tasks are locked first, so that the copies contain the last change of a concurrent
// transaction. Tasks whose id the new owner has stay. Returns the numbers of tasks that were moved and that stay.
#[cfg(feature = "postgres")]
const TRANSFER: &str = "with source as materialized (\
        select id, title, description, completed, created_at, updated_at, version from {tasks} \
        where user_id = $1 order by id for update\
    ), moved as (\
        insert into {tasks} (user_id, id, title, description, completed, created_at, updated_at, version) \
        select $2, id, title, description, completed, created_at, updated_at, version from source \
        on conflict do nothing returning id\
    ), removed as (\
        delete from {tasks} where user_id = $1 and id in (select id from moved)\
    ) \
    select (select count(*) from moved), (select count(*) from source) - (select count(*) from moved)";

// SQLite cannot change rows in a `with`, so that it needs three statements in a transaction. It has one writer at a
// time, so that no row has to be locked.
#[cfg(feature = "sqlite")]
const TRANSFER_COPY: &str = "insert into {tasks} (user_id, id, title, description, completed, created_at, updated_at, version) \
    select $2, id, title, description, completed, created_at, updated_at, version from {tasks} where user_id = $1 \
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

// Batches: the parameters of the calls are arrays, and `n` is the position of a call in them. Each row contains its
// owner, which the caller compares. `lateral` and `offset 0` make the planner use one index search for each call.

#[cfg(feature = "postgres")]
const GET_MANY: &str = "select k.n, t.user_id, t.id, t.title, t.description, t.completed, t.created_at, t.updated_at, t.version \
    from unnest($1::text[], $2::uuid[]) with ordinality as k (user_id, id, n) \
    cross join lateral (select * from {tasks} as t where t.user_id = k.user_id and t.id = k.id offset 0) as t";

#[cfg(feature = "postgres")]
const LIST_MANY: &str = "select k.n, t.user_id, t.id, t.title, t.description, t.completed, t.created_at, t.updated_at, t.version \
    from unnest($1::text[], $2::uuid[], $3::bigint[]) with ordinality as k (user_id, newest, rows, n) \
    cross join lateral (select * from {tasks} as t where t.user_id = k.user_id and t.id <= k.newest \
        order by t.id desc limit k.rows) as t";

#[cfg(feature = "postgres")]
const LIST_COMPLETED_MANY: &str = "select k.n, t.user_id, t.id, t.title, t.description, t.completed, t.created_at, t.updated_at, t.version \
    from unnest($1::text[], $2::uuid[], $3::bigint[], $4::boolean[]) with ordinality as k (user_id, newest, rows, completed, n) \
    cross join lateral (select * from {tasks} as t where t.user_id = k.user_id and t.completed = k.completed and t.id <= k.newest \
        order by t.id desc limit k.rows) as t";

#[cfg(feature = "postgres")]
const INSERT_MANY: &str = "insert into {tasks} (user_id, id, title, description, completed, created_at, updated_at, version) \
    select * from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::boolean[], $6::timestamptz[], $7::timestamptz[], $8::bigint[]) \
    on conflict do nothing returning user_id, id";

// Rows that another transaction has locked are left out, so that only the calls for these rows have to wait.
#[cfg(feature = "postgres")]
const UPDATE_MANY: &str = "with k as materialized (\
        select * from unnest($1::text[], $2::uuid[], $3::text[], $4::boolean[], $5::text[], $6::boolean[], $7::boolean[], $8::timestamptz[]) \
        with ordinality as k (user_id, id, title, describe, description, toggle, completed, now, n)\
    ), free as materialized (\
        select k.n, t.id from k cross join lateral (\
            select t.id from {tasks} as t where t.user_id = k.user_id and t.id = k.id for no key update skip locked) as t\
    ) \
    update {tasks} as t set \
    title = coalesce(k.title, t.title), \
    description = case when k.describe then k.description else t.description end, \
    completed = case when k.toggle then not t.completed else coalesce(k.completed, t.completed) end, \
    updated_at = case when {changes} then greatest(t.updated_at, k.now) else t.updated_at end, \
    version = case when {changes} then t.version + 1 else t.version end \
    from k join free using (n) where t.user_id = k.user_id and t.id = k.id \
    returning k.n, t.user_id, t.id, t.title, t.description, t.completed, t.created_at, t.updated_at, t.version";

#[cfg(feature = "postgres")]
const CHANGES_MANY: &str = "(coalesce(k.title, t.title) <> t.title \
    or (k.describe and k.description is distinct from t.description) or k.toggle \
    or coalesce(k.completed, t.completed) <> t.completed)";

#[cfg(feature = "postgres")]
const DELETE_MANY: &str = "with free as materialized (\
        select k.n, k.user_id, k.id from unnest($1::text[], $2::uuid[]) with ordinality as k (user_id, id, n) cross join lateral (\
            select t.id from {tasks} as t where t.user_id = k.user_id and t.id = k.id for update skip locked) as t\
    ) \
    delete from {tasks} as t using free as k where t.user_id = k.user_id and t.id = k.id returning k.n, t.user_id, t.id";

// With row-level security: the functions of the migrations bind the owner and run the same statements. There are none for
// batches, since a statement is then for one owner.

#[cfg(feature = "postgres")]
const CALL_INSERT: &str = r#"select from "{schema}"."{table}_insert"($1, $2, $3, $4, $5, $6, $7, $8)"#;

#[cfg(feature = "postgres")]
const CALL_GET: &str = r#"select id, title, description, completed, created_at, updated_at, version from "{schema}"."{table}_get"($1, $2)"#;

#[cfg(feature = "postgres")]
const CALL_LIST: &str = r#"select id, title, description, completed, created_at, updated_at, version from "{schema}"."{table}_list"($1, $2, $3)"#;

#[cfg(feature = "postgres")]
const CALL_LIST_COMPLETED: &str = r#"select id, title, description, completed, created_at, updated_at, version from "{schema}"."{table}_list_completed"($1, $2, $3, $4)"#;

#[cfg(feature = "postgres")]
const CALL_UPDATE: &str = r#"select id, title, description, completed, created_at, updated_at, version from "{schema}"."{table}_update"($1, $2, $3, $4, $5, $6, $7, $8)"#;

#[cfg(feature = "postgres")]
const CALL_DELETE: &str = r#"select from "{schema}"."{table}_delete"($1, $2)"#;

#[cfg(feature = "postgres")]
const CALL_ERASE: &str = r#"select from "{schema}"."{table}_erase"($1)"#;

#[cfg(feature = "postgres")]
const CALL_TRANSFER: &str = r#"select moved, remaining from "{schema}"."{table}_transfer"($1, $2)"#;

// Needs the same privileges as the other calls. No owner has a task with this id.
#[cfg(feature = "postgres")]
const CALL_PING: &str = r#"select from "{schema}"."{table}_get"('ping', '00000000-0000-0000-0000-000000000000')"#;

impl Statements {
    /// Renders the statements for these names.
    pub(in crate::store) fn new(dialect: Dialect, names: Names) -> Arc<Self> {
        Arc::new(Self::render(dialect, names))
    }

    /// Renders the statements for these names as calls of the functions that bind the owner.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn with_row_security(names: Names) -> Arc<Self> {
        let resolved = names.resolve(Dialect::Postgres);
        let render = |template: &str| sql(&resolved, template, &[]);
        Arc::new(Self {
            row_security: true,
            insert: render(CALL_INSERT),
            get: render(CALL_GET),
            list: render(CALL_LIST),
            list_completed: render(CALL_LIST_COMPLETED),
            update: render(CALL_UPDATE),
            delete: render(CALL_DELETE),
            erase: render(CALL_ERASE),
            transfer: render(CALL_TRANSFER),
            ping: render(CALL_PING),
            ..Self::render(Dialect::Postgres, names)
        })
    }

    pub(in crate::store) fn render(dialect: Dialect, names: Names) -> Self {
        let (greatest, completed, transfer) = match dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => ("greatest", "completed = $4", TRANSFER),
            // Without statistics SQLite (3.51) assumes that every other task is completed, and reads all tasks by their
            // key until a page is full instead of using the index for this.
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => ("max", "unlikely(completed = $4)", TRANSFER_COPY),
        };
        let resolved = names.resolve(dialect);
        let parts = [("changes", CHANGES), ("greatest", greatest), ("completed", completed)];
        let render = |template: &str| sql(&resolved, template, &parts);
        Self {
            #[cfg(feature = "postgres")]
            row_security: false,
            insert: render(INSERT),
            get: render(GET),
            list: render(LIST),
            list_completed: render(LIST_COMPLETED),
            update: render(UPDATE),
            delete: render(DELETE),
            erase: render(ERASE),
            transfer: render(transfer),
            ping: render(PING),
            has_tasks: render(HAS_TASKS),
            #[cfg(feature = "sqlite")]
            lock: render(LOCK),
            #[cfg(feature = "sqlite")]
            transfer_delete: render(TRANSFER_DELETE),
            #[cfg(feature = "sqlite")]
            transfer_count: render(TRANSFER_COUNT),
            #[cfg(feature = "postgres")]
            batch: Batches {
                get: render(GET_MANY),
                list: render(LIST_MANY),
                list_completed: render(LIST_COMPLETED_MANY),
                insert: render(INSERT_MANY),
                update: sql(&resolved, UPDATE_MANY, &[("changes", CHANGES_MANY)]),
                delete: render(DELETE_MANY),
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
            update,
            delete,
            erase,
            transfer,
            ping,
            has_tasks,
            #[cfg(feature = "sqlite")]
            lock,
            #[cfg(feature = "sqlite")]
            transfer_delete,
            #[cfg(feature = "sqlite")]
            transfer_count,
            #[cfg(feature = "postgres")]
            batch,
        } = self;
        let calls = [
            ("insert", insert),
            ("get", get),
            ("list", list),
            ("list_completed", list_completed),
            ("update", update),
            ("delete", delete),
            ("erase", erase),
            ("transfer", transfer),
            ("ping", ping),
            ("has_tasks", has_tasks),
            #[cfg(feature = "sqlite")]
            ("lock", lock),
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

/// A statement that is our text with validated names put in.
fn sql(names: &Resolved, template: &str, parts: &[(&str, &str)]) -> SqlStr {
    let text: Arc<str> = names.render_with(template, parts).into();
    AssertSqlSafe(text).into_sql_str()
}
