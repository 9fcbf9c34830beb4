//! The statements, once for both databases. They are made from the description of the columns.
//!
//! Every statement names the owner. `store/isolation.rs` removes the owner from one statement after the other and shows
//! that the store suite fails each time.

use std::sync::Arc;
#[cfg(feature = "postgres")]
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Defines the statements, and lists them for tests: one that is left out does not compile.
macro_rules! statements {
    ($(#[$about:meta])* $name:ident { $($statement:ident),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug)]
        pub(in crate::store) struct $name {
            $(pub(in crate::store) $statement: SqlStr,)+
        }

        #[cfg(any(test, all(feature = "conformance", feature = "postgres")))]
        impl $name {
            fn all_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut SqlStr)> {
                [$((stringify!($statement), &mut self.$statement)),+].into_iter()
            }
        }
    };
}

/// The statements of a store, with its names put in.
///
/// A store renders them once. Its clones, and the stores within a transaction that are made from it, share them. To
/// clone a [`SqlStr`] counts a reference; the text is not copied.
#[derive(Debug)]
pub(in crate::store) struct Statements {
    pub(in crate::store) names: Names,
    #[cfg(feature = "postgres")]
    pub(in crate::store) row_security: bool,
    pub(in crate::store) call: Calls,
    /// What the statements with filters are made of.
    pub(in crate::store) selections: Selections,
    #[cfg(feature = "sqlite")]
    pub(in crate::store) sqlite: OfSqlite,
    #[cfg(feature = "postgres")]
    pub(in crate::store) postgres: OfPostgres,
    #[cfg(feature = "postgres")]
    pub(in crate::store) batch: Batches,
    #[cfg(feature = "postgres")]
    pub(in crate::store) shards: OfShards,
    /// Whether the tables are distributed by their owner over several nodes. It is found out in the database.
    #[cfg(feature = "postgres")]
    pub(in crate::store) is_sharded: AtomicBool,
}

statements! {
    /// The statements of both databases.
    Calls {
        insert, requested, taken, get, list, list_completed, summary, update, reposition, delete, erase, erase_deleted,
        erase_owner, transfer, changes, revisions, ping, has_tasks, owners, expire,
    }
}

#[cfg(feature = "sqlite")]
statements! {
    /// What only SQLite needs.
    OfSqlite { lock, transfer_delete, transfer_count, purge_until, purge, purge_owner }
}

#[cfg(feature = "postgres")]
statements! {
    /// What only PostgreSQL needs.
    OfPostgres { insert_all, update_if, delete_if, erase_lock, transfer_lock, purge }
}

#[cfg(feature = "postgres")]
statements! {
    /// The statements that serve many calls at once.
    #[expect(clippy::struct_field_names, reason = "these are also the names in the tables of tests")]
    Batches { get_many, list_many, list_completed_many, insert_many, update_many, delete_many }
}

#[cfg(feature = "postgres")]
statements! {
    /// What takes the place of other statements where the tables are distributed over several nodes.
    #[expect(clippy::struct_field_names, reason = "these are also the names in the tables of tests")]
    OfShards { room, insert_row, insert_rows, row, revisions_of_shards, lock_owner, ping_of_shards }
}

// No statement fails on purpose: in PostgreSQL a failed statement aborts the transaction, which may be the host's.
//
// In PostgreSQL each statement that writes locks the row of the owner first (`{locked}`, which `{is_locked}` makes it
// wait for), and then tasks: a trigger alone would lock the task first, and statements that lock in different orders
// wait for each other. A statement that has waited for the owner sees what was committed before it began, and the last
// version of the rows that it locks itself.

// The parameters are the columns in their order, then the key of the request, the place of the task in it, its digest,
// and the number of tasks that the owner may have. A key is known if any task of its request is, even if the first is
// not.
const INSERT: &str = "{counted}insert into {tasks} ({all}, request_key, request_place, request_digest) \
    select {row}, {request} where ({max} is null or coalesce({count}, 0) < {max}) \
    and (coalesce({place}, 1) <> 0 or {is_new}) on conflict do nothing";

// $2 the key of a request. What is left of deleted tasks has no title.
const REQUESTED: &str = "select request_digest, request_place, {columns} from {tasks} where user_id = $1 and {is_request} \
    union all select request_digest, request_place, id, {nothing} from {deleted} where user_id = $1 and {is_request}";

// $2 the ids. Whether one of them exists, and the number of tasks.
const TAKEN: &str = "select exists ({taken}), \
    coalesce((select tasks from {owners} where user_id = $1), 0)";

const GET: &str = "select {columns} from {tasks} where user_id = $1 and id = $2";

// Lists, counts and summaries begin with the revision of the owner, and read no task if it is the one that is known. A
// list without tasks is one row without an id.

// $2 the newest id, $3 the number of rows, $4 the revision that is known.
#[cfg(feature = "postgres")]
const LIST: &str = "{owner}select o.revision, {t.columns} from owner as o left join (\
        select {columns} from {tasks} where user_id = $1 and id <= $2 \
        and (select revision from owner) is distinct from $4 order by id desc limit $3\
    ) as t on true";

// A separate statement, not an `or $5 is null`: a plan that serves both would read the wrong index for one of them.
#[cfg(feature = "postgres")]
const LIST_COMPLETED: &str = "{owner}select o.revision, {t.columns} from owner as o left join (\
        select {columns} from {tasks} where user_id = $1 and completed = $5 and id <= $2 \
        and (select revision from owner) is distinct from $4 order by id desc limit $3\
    ) as t on true";

// SQLite compares a revision for each row, but evaluates a limit once.
#[cfg(feature = "sqlite")]
const SQLITE_LIST: &str = "select {revision}, null, {nothing} union all select null, {columns} from (\
    select {columns} from {tasks} where user_id = $1 and id <= $2 order by id desc \
    limit case when {revision} is distinct from $4 then $3 else 0 end)";

// Without statistics SQLite (3.51) assumes that every other task is completed, and reads all tasks by their key until a
// page is full instead of using the index for this.
#[cfg(feature = "sqlite")]
const SQLITE_LIST_COMPLETED: &str = "select {revision}, null, {nothing} union all select null, {columns} from (\
    select {columns} from {tasks} where user_id = $1 and unlikely(completed = $5) and id <= $2 order by id desc \
    limit case when {revision} is distinct from $4 then $3 else 0 end)";

// The kind of the group (0: a list or none, 1: a tag), its name, the number of its tasks and of those that are open.
// The first row (kind 2) has the revision instead. $2 the revision that is known.
#[cfg(feature = "postgres")]
const SUMMARY: &str = "{owner}select cast(2 as bigint) as kind, cast(null as text) as name, revision as total, cast(0 as bigint) as open \
    from owner \
    union all select 0, list, count(*), count(case when not completed then 1 end) from {tasks} \
    where user_id = $1 and (select revision from owner) is distinct from $2 group by list \
    union all select 1, tag.value, count(*), count(case when not completed then 1 end) \
    from {tasks} cross join unnest(tags) as tag (value) \
    where user_id = $1 and (select revision from owner) is distinct from $2 group by tag.value";

// The owner comes first, so that SQLite compares the revision once.
#[cfg(feature = "sqlite")]
const SQLITE_SUMMARY: &str = "select 2, null, {revision}, 0 \
    union all select 0, list, count(*), count(case when not completed then 1 end) from {owners} as o cross join {tasks} as t \
    where o.user_id = $1 and o.revision is distinct from $2 and t.user_id = $1 group by list \
    union all select 1, tag.value, count(*), count(case when not completed then 1 end) \
    from {owners} as o cross join {tasks} as t cross join json_each(t.tags) as tag \
    where o.user_id = $1 and o.revision is distinct from $2 and t.user_id = $1 group by tag.value";

// $3 now, then the parameters of the change.
#[cfg(feature = "sqlite")]
const SQLITE_UPDATE: &str = "update {tasks} set {assignments} where user_id = $1 and id = $2 returning {columns}";

// The changes of tasks in PostgreSQL take the revision and record it at the owner themselves, which the triggers would do
// for each row. Where the triggers have done so nevertheless, the revision is odd; a change of nothing leaves the revision
// as it was. `{recorded}` joins what has changed: in a subquery it would be executed again, which fails, when the row of
// the owner has a newer version than the snapshot of the statement.
#[cfg(feature = "postgres")]
const UPDATE: &str = "{locked_and}changed as (\
        update {tasks} set {assignments} where user_id = $1 and id = $2{is_locked} returning {columns}, revision\
    ){recorded} \
    select {columns} from changed";

// The parameters of an update, then those of the precondition. The task is locked before it is compared, so that it is
// the last version. Returns whether the change was made, and the task.
#[cfg(feature = "postgres")]
const UPDATE_IF: &str = "{locked_and}found as materialized (\
        select * from {tasks} where user_id = $1 and id = $2{is_locked} for no key update\
    ), changed as (\
        update {tasks} as t set {t.assignments} from found as f where t.user_id = $1 and t.id = $2 and {met_by_update} \
        returning {t.columns}, t.revision\
    ){recorded} \
    select true as done, {columns} from changed \
    union all select false, {columns} from found where not exists (select from changed)";

// $2 the ids and $3 the positions, $4 now, $5 the task that is moved and $6 its version.
const REPOSITION: &str = "{moved}update {tasks} set position = k.position, \
    updated_at = case when k.position <> {tasks}.position then {greatest}(updated_at, $4) else updated_at end, \
    version = case when k.position <> {tasks}.position then version + 1 else version end \
    from {moves} where user_id = $1 and {tasks}.id = k.id and {moved_version} = $6 returning {own_columns}";

const DELETE: &str = "{locked}delete from {tasks} where user_id = $1 and id = $2{is_locked}";

// $3 and on: the precondition. Returns whether the task was deleted, and the task.
#[cfg(feature = "postgres")]
const DELETE_IF: &str = "{locked_and}found as materialized (\
        select * from {tasks} where user_id = $1 and id = $2{is_locked} for update\
    ), removed as (\
        delete from {tasks} as t using found as f where t.user_id = $1 and t.id = $2 and {met_by_delete} returning t.id\
    ) \
    select exists (select from removed) as done, {columns} from found";

// The three parts of an erasure, in a transaction. A trigger of a host may keep tasks, or add some: then their owner stays.
const ERASE: &str = "delete from {tasks} where user_id = $1";
const ERASE_DELETED: &str = "delete from {deleted} where user_id = $1";
const ERASE_OWNER: &str =
    "delete from {owners} where user_id = $1 and not exists (select 1 from {tasks} where user_id = $1)";

// The owner is locked before in a statement of its own, so that the others see the tasks that were committed meanwhile.
#[cfg(feature = "postgres")]
const ERASE_LOCK: &str = "select 1 from {owners} where user_id = $1 for update";

// $1 the owner, $2 the new owner. Both owners get a row and are locked before, in the order of their names: who has no row
// cannot be locked, and may have tasks a moment later. The tasks are locked,
// too, so that the copies contain the last change of a transaction of the host. Tasks whose id the new owner has stay.
// Returns the numbers of tasks that were moved and that stay.
#[cfg(feature = "postgres")]
const TRANSFER: &str = "with source as materialized (\
        select {copied} from {tasks} where user_id = $1 order by id for update\
    ), moved as (\
        insert into {tasks} (user_id, {copied}) select $2, {copied} from source on conflict do nothing returning id\
    ), removed as (\
        delete from {tasks} where user_id = $1 and id in (select id from moved)\
    ) \
    select (select count(*) from moved), (select count(*) from source) - (select count(*) from moved)";

#[cfg(feature = "postgres")]
const TRANSFER_LOCK: &str = "insert into {owners} as o (user_id, revision, tasks, purged) \
    select k.user_id, c.now - 1, 0, c.now - 1 from (select distinct unnest(array[$1, $2]::text[]) as user_id) as k \
    cross join (select cast(extract(epoch from clock_timestamp()) * 1000000 as bigint) as now) as c \
    order by k.user_id collate \"C\" on conflict (user_id) do update set revision = o.revision";

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

// The changes after a revision ($2) and an id ($3), $4 of them; of the deletions those after $5 and $6. Each row has
// the revision of the owner and the one up to which deletions were forgotten; without a change, that is all.
const CHANGES: &str = "with owner as materialized (\
        select coalesce((select revision from {owners} where user_id = $1), 0) as revision, \
            coalesce((select purged from {owners} where user_id = $1), 0) as purged\
    ) \
    select o.revision, o.purged, c.revision, c.gone, {c.columns} from owner as o left join (\
        select * from (\
            select revision, false as gone, {columns} from {tasks} \
            where user_id = $1 and (revision, id) > ($2, $3) order by revision, id limit $4\
        ) as t union all select * from (\
            select revision, true as gone, id, {nothing} from {deleted} \
            where user_id = $1 and (revision, id) > ($5, $6) order by revision, id limit $4\
        ) as d order by revision, id limit $4\
    ) as c on true";

// $1 the owners. In their order.
#[cfg(feature = "postgres")]
const REVISIONS: &str = "select coalesce(o.revision, 0) from unnest($1::text[]) with ordinality as k (user_id, n) \
    left join lateral (select o.revision from {owners} as o where o.user_id = k.user_id offset 0) as o on true order by k.n";

#[cfg(feature = "sqlite")]
const SQLITE_REVISIONS: &str = "select coalesce(o.revision, 0) from json_each($1) as k \
    left join {owners} as o on o.user_id = k.value order by k.key";

// $2 the revision from which on nothing is forgotten, $3 how many deletions.
#[cfg(feature = "postgres")]
const PURGE: &str = "{locked_and}until as materialized (\
        select max(revision) as revision from (\
            select revision from {deleted} where user_id = $1 and revision < $2{is_locked} order by revision limit $3\
        ) as d\
    ), gone as (\
        delete from {deleted} where user_id = $1 and revision <= (select revision from until) returning 1\
    ), purged as (\
        update {owners} set purged = greatest(purged, (select revision from until)) where user_id = $1 and exists (select from gone)\
    ) \
    select count(*) from gone";

#[cfg(feature = "sqlite")]
const PURGE_UNTIL: &str = "select max(revision) from (\
    select revision from {deleted} where user_id = $1 and revision < $2 order by revision limit $3)";

#[cfg(feature = "sqlite")]
const SQLITE_PURGE: &str = "delete from {deleted} where user_id = $1 and revision <= $2";

#[cfg(feature = "sqlite")]
const PURGE_OWNER: &str = "update {owners} set purged = max(purged, $2) where user_id = $1";

// Fails if there is no table, and reads no row.
const PING: &str = "select 1 from {tasks}, {owners}, {deleted} where false";

// The owners after one ($1), $2 of them, and the oldest revision of a deletion of each: only for operators. It reads the
// table of the owners in the order of its key, and one entry of an index for each of them. On Citus it goes to all shards.
const OWNERS_AFTER: &str = "select o.user_id, (select min(d.revision) from {deleted} as d where d.user_id = o.user_id) \
    from {owners} as o where o.user_id > $1 order by o.user_id limit $2";

// The owners after one ($1) up to another one ($2) go on as if all deletions had been forgotten: only for operators.
const EXPIRE: &str = "update {owners} set revision = {greatest}(revision + 1, {clock}), purged = {greatest}(revision + 1, {clock}) \
    where user_id > $1 and user_id <= $2";

// Of any owner: only for migrations.
const HAS_TASKS: &str = "select exists (select 1 from {tasks})";

// A write of nothing, which takes the write lock of SQLite.
#[cfg(feature = "sqlite")]
const LOCK: &str = "delete from {tasks} where false";

// Several tasks of one owner. $1 the owner, then the other columns as arrays, then the key of the request, its digest,
// and the number of tasks that the owner may have. The caller rolls back if not all are added.
#[cfg(feature = "postgres")]
const INSERT_ALL: &str = "{counted}insert into {tasks} ({all}, request_key, request_place, request_digest) \
    select $1, {unnested}, {request_of_all} from unnest({arrays_of_all}) with ordinality as k ({copied}, n) \
    where ({max_of_all} is null or coalesce({count}, 0) + cardinality($2) <= {max_of_all}) \
    and ({key} is null or {is_new}) order by k.n on conflict do nothing";

// Batches: the parameters of the calls are arrays, and `n` is the position of a call in them. Each row contains its
// owner, which the caller compares. `lateral` and `offset 0` make the planner use one index search for each call.

#[cfg(feature = "postgres")]
const GET_MANY: &str = "select k.n, t.user_id, {t.columns} \
    from unnest($1::text[], $2::uuid[]) with ordinality as k (user_id, id, n) \
    cross join lateral (select * from {tasks} as t where t.user_id = k.user_id and t.id = k.id offset 0) as t";

// $4 the revisions that are known. A call whose owner has this revision, or no task, gets one row without a task.
#[cfg(feature = "postgres")]
const LIST_MANY: &str = "select k.n, coalesce(o.revision, 0), t.user_id, {t.columns} \
    from unnest($1::text[], $2::uuid[], $3::bigint[], $4::bigint[]) with ordinality as k (user_id, newest, rows, known, n) \
    left join lateral (select o.revision from {owners} as o where o.user_id = k.user_id offset 0) as o on true \
    left join lateral (select * from {tasks} as t where t.user_id = k.user_id and t.id <= k.newest \
        and coalesce(o.revision, 0) is distinct from k.known order by t.id desc limit k.rows) as t on true";

#[cfg(feature = "postgres")]
const LIST_COMPLETED_MANY: &str = "select k.n, coalesce(o.revision, 0), t.user_id, {t.columns} \
    from unnest($1::text[], $2::uuid[], $3::bigint[], $4::bigint[], $5::boolean[]) with ordinality \
        as k (user_id, newest, rows, known, completed, n) \
    left join lateral (select o.revision from {owners} as o where o.user_id = k.user_id offset 0) as o on true \
    left join lateral (select * from {tasks} as t where t.user_id = k.user_id and t.completed = k.completed and t.id <= k.newest \
        and coalesce(o.revision, 0) is distinct from k.known order by t.id desc limit k.rows) as t on true";

// Owners and tasks that another transaction has locked are left out, and so are owners who have no row yet, so that
// only the calls for these have to wait. So are tasks that were deleted before, whose versions a trigger continues.
// Each owner has a row, so that `on conflict` always updates: an update that joins could be planned as a scan of all owners.
// If an owner has changed since the beginning of the statement, a task that was deleted meanwhile would not be seen.
#[cfg(feature = "postgres")]
const INSERT_MANY: &str = "with k as materialized (select * from unnest({arrays}, {max_array}::bigint[]) with ordinality as k ({all}, max, n)), \
    free as materialized (\
        select k.n, o.revision from k cross join lateral (\
            select {next_revision} as revision, o.tasks, \
                o.revision = (select s.revision from {owners} as s where s.user_id = o.user_id) as is_unchanged \
            from {owners} as o where o.user_id = k.user_id for no key update skip locked) as o \
        where (k.max is null or o.tasks < k.max) and o.is_unchanged \
        and not exists (select from {deleted} as d where d.user_id = k.user_id and d.id = k.id offset 0)\
    ), \
    added as (\
        insert into {tasks} ({all}, revision) select {cast}, free.revision from k join free using (n) order by n \
        on conflict do nothing returning user_id, id, revision\
    ), \
    {records} as (\
        insert into {owners} as o (user_id, revision, tasks, purged) \
        select a.user_id, max(a.revision), count(*), 0 from added as a where a.revision % 2 = 0 group by a.user_id \
        on conflict (user_id) do update set revision = excluded.revision, tasks = o.tasks + excluded.tasks\
    ) \
    select user_id, id from added";

#[cfg(feature = "postgres")]
const UPDATE_MANY: &str = "with k as materialized (select * from unnest({change_arrays}) with ordinality as k ({change_names}, n)), \
    owner as materialized (\
        select k.n, o.revision from k cross join lateral (\
            select {next_revision} as revision from {owners} as o where o.user_id = k.user_id for no key update skip locked) as o\
    ), \
    free as materialized (\
        select k.n, t.id, owner.revision from k join owner using (n) cross join lateral (\
            select t.id from {tasks} as t where t.user_id = k.user_id and t.id = k.id for no key update skip locked) as t\
    ), \
    changed as (\
        update {tasks} as t set {k.assignments} from k join free using (n) where t.user_id = k.user_id and t.id = k.id \
        returning k.n, t.user_id, {t.columns}, t.revision\
    ), \
    {records} as (\
        insert into {owners} as o (user_id, revision, tasks, purged) \
        select c.user_id, max(c.revision), 0, 0 from changed as c where c.revision % 2 = 0 group by c.user_id \
        on conflict (user_id) do update set revision = excluded.revision where excluded.revision > o.revision\
    ) \
    select n, user_id, {columns} from changed";

#[cfg(feature = "postgres")]
const DELETE_MANY: &str = "with k as materialized (select * from unnest($1::text[], $2::uuid[]) with ordinality as k (user_id, id, n)), \
    owner as materialized (\
        select k.n, o.user_id from k cross join lateral (\
            select o.user_id from {owners} as o where o.user_id = k.user_id for no key update skip locked) as o\
    ), \
    free as materialized (\
        select k.n, k.user_id, k.id from k join owner using (n) cross join lateral (\
            select t.id from {tasks} as t where t.user_id = k.user_id and t.id = k.id for update skip locked) as t\
    ) \
    delete from {tasks} as t using free as k where t.user_id = k.user_id and t.id = k.id returning k.n, t.user_id, t.id";

// On Citus, a statement that names one owner in each table runs on the node of this owner. What inserts the rows of a
// query would run on the node that was asked. So rows are values there, and what they depend on is read before: the
// number of tasks may be exceeded by calls that run at the same time, and two requests with one key have an index
// against each other.

// $2 the key of a request. The number of tasks, and whether the key is known.
#[cfg(feature = "postgres")]
const ROOM: &str = "select coalesce((select tasks from {owners} where user_id = $1), 0), not {is_new_to_room}";

#[cfg(feature = "postgres")]
const INSERT_ROW: &str = "insert into {tasks} ({all}, request_key, request_place, request_digest) \
    values ({row}, {request}) on conflict do nothing";

// As INSERT_ALL, with a row for each task (`{n}`, from 1). The parameters are the same but for the number of tasks.
#[cfg(feature = "postgres")]
const INSERT_ROWS: &str = "insert into {tasks} ({all}, request_key, request_place, request_digest) values ";

#[cfg(feature = "postgres")]
const ROW: &str = "($1, {elements}, {request_of_element})";

// What the functions for row-level security do before they insert one task, or several.
#[cfg(feature = "postgres")]
const BEFORE_INSERT: &str = "perform from {owners} where user_id = $1 for no key update;
    if ({max} is null or coalesce((select tasks from {owners} where user_id = $1), 0) < {max})
        and (coalesce({place}, 1) <> 0 or {is_new}) then
        ";

#[cfg(feature = "postgres")]
const BEFORE_INSERT_ALL: &str = "perform from {owners} where user_id = $1 for no key update;
    if ({max_of_all} is null
            or coalesce((select tasks from {owners} where user_id = $1), 0) + pg_catalog.cardinality($2) <= {max_of_all})
        and ({key} is null or {is_new}) then
        for n in 1..pg_catalog.cardinality($2) loop
            ";

// As REVISIONS, which Citus does not accept. It asks the shards of these owners.
#[cfg(feature = "postgres")]
const REVISIONS_OF_SHARDS: &str = "select coalesce(o.revision, 0) from unnest($1::text[]) with ordinality as k (user_id, n) \
    left join (select user_id, revision from {owners} where user_id = any ($1)) as o on o.user_id = k.user_id order by k.n";

// With row-level security: no node is asked, so that all servers stay ready if one fails. It fails if there is no table.
#[cfg(feature = "postgres")]
const PING_OF_SHARDS: &str = "select has_table_privilege('{tasks}', 'select') and has_table_privilege('{owners}', 'select') \
    and has_table_privilege('{deleted}', 'select')";

// One owner of a transfer gets a row and is locked. Two in one statement would be locked in any order.
#[cfg(feature = "postgres")]
const LOCK_OWNER: &str = "insert into {owners} as o (user_id, revision, tasks, purged) \
    values ($1, {clock} - 1, 0, {clock} - 1) on conflict (user_id) do update set revision = o.revision";

/// The number of the first parameter of a change, in an update of one task.
const FIRST_CHANGE: usize = 4;

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
        // What follows the columns.
        let next = |number: usize| format!("${}", COLUMNS.len() + number);
        let is_new = |key: &str| {
            resolved.render_with(
                "(not exists (select 1 from {tasks} where user_id = $1 and request_key = {key}) \
                 and not exists (select 1 from {deleted} where user_id = $1 and request_key = {key}))",
                &[("key", key)],
            )
        };
        let own = format!("{}.", resolved.tasks);
        let mut parts = vec![
            ("all", columns::all_columns()),
            ("columns", columns::selected_columns("")),
            ("c.columns", columns::selected_columns("c.")),
            ("nothing", columns::no_columns(dialect)),
            ("copied", COLUMNS.iter().skip(1).map(|column| column.name).collect::<Vec<_>>().join(", ")),
            ("own_columns", columns::selected_columns(&own)),
            ("row", row.collect::<Vec<_>>().join(", ")),
            ("request", [next(1), next(2), next(3)].join(", ")),
            ("key", next(1)),
            ("place", next(2)),
            ("max", next(4)),
            ("is_new", is_new(&next(1))),
        ];
        match dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => {
                let revision = "(select revision from locked)";
                parts.push(("assignments", columns::update(dialect, "", numbered).with_revision("", revision)));
                parts.push(("t.assignments", columns::update(dialect, "t.", numbered).with_revision("t.", revision)));
                parts.push(("is_new_to_room", is_new("$2")));
                parts.extend(Self::of_postgres(resolved, FIRST_CHANGE + parameters.len()));
                parts.extend(Self::of_batches(&parameters));
            }
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => {
                let revision = resolved.render("coalesce((select revision from {owners} where user_id = $1), 0)");
                parts.extend([
                    ("assignments", columns::update(dialect, "", numbered).assignments),
                    ("greatest", "max".to_owned()),
                    ("clock", "cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000".to_owned()),
                    (
                        "taken",
                        resolved.render(
                            "select 1 from {tasks} where user_id = $1 and id in (select unhex(value) from json_each($2))",
                        ),
                    ),
                    // Without statistics SQLite would read all tasks of the owner by their key.
                    ("is_request", "unlikely(request_key = $2)".to_owned()),
                    ("moves", "(select unhex(key) as id, value as position from json_each($2)) as k".to_owned()),
                    ("moved", String::new()),
                    (
                        "moved_version",
                        resolved.render("(select version from {tasks} where user_id = $1 and id = $5)"),
                    ),
                    ("locked", String::new()),
                    ("is_locked", String::new()),
                    ("counted", String::new()),
                    ("count", resolved.render("(select tasks from {owners} where user_id = $1)")),
                    ("revision", revision),
                ]);
            }
        }
        Self(parts)
    }

    /// `precondition`: the number of its first parameter in an update.
    #[cfg(feature = "postgres")]
    fn of_postgres(resolved: &Resolved, precondition: usize) -> Vec<(&'static str, String)> {
        let met = |first: usize| {
            let [within, not, before] = [0, 1, 2].map(|place| format!("${}", first + place));
            format!(
                "({within}::bigint[] is null or f.version = any ({within})) and f.version <> all ({not}::bigint[]) \
                 and ({before}::timestamptz is null or f.updated_at < {before})"
            )
        };
        let locked = resolved.render(&columns::locked());
        let is_locked = columns::IS_LOCKED.to_owned();
        let moved = format!(
            "{locked}, moved as materialized (select version from {} where user_id = $1 and id = $5{is_locked} for no key update) ",
            resolved.tasks
        );
        let counted = "with owner as materialized (select tasks from {owners} where user_id = $1 for no key update) ";
        vec![
            ("greatest", "greatest".to_owned()),
            ("records", columns::RECORDS.to_owned()),
            // The same in the whole statement.
            ("clock", "cast(extract(epoch from statement_timestamp()) * 1000000 as bigint)".to_owned()),
            (
                "taken",
                // One search of the key for each id, in every plan.
                resolved.render(
                    "select from unnest($2::uuid[]) as k (id) cross join lateral \
                     (select from {tasks} as t where t.user_id = $1 and t.id = k.id offset 0) as t",
                ),
            ),
            ("is_request", "request_key = $2".to_owned()),
            ("moves", "unnest($2::uuid[], $3::text[]) as k (id, position)".to_owned()),
            ("moved", moved),
            ("moved_version", "(select version from moved)".to_owned()),
            ("locked", format!("{locked} ")),
            ("locked_and", format!("{locked}, ")),
            ("is_locked", is_locked),
            (
                "recorded",
                resolved.render(&format!(
                    ", {} as (update {{owners}} as o set revision = c.revision from changed as c \
                     where o.user_id = $1 and c.revision > o.revision and c.revision % 2 = 0)",
                    columns::RECORDS
                )),
            ),
            ("counted", resolved.render(counted)),
            ("count", "(select tasks from owner)".to_owned()),
            ("owner", resolved.render(columns::OWNER)),
            ("met_by_update", met(precondition)),
            ("met_by_delete", met(3)),
        ]
    }

    #[cfg(feature = "postgres")]
    fn of_batches(parameters: &[columns::Parameter]) -> [(&'static str, String); 14] {
        let array = |number: usize, kind: Kind| format!("${number}::{}[]", columns::postgres_type(kind));
        let casted = |first: usize| {
            let columns = COLUMNS.iter().skip(first);
            let columns = columns.map(|column| cast(Dialect::Postgres, format!("k.{}", column.name), column.kind));
            columns.collect::<Vec<_>>().join(", ")
        };
        let arrays = |first: usize| {
            let arrays = COLUMNS.iter().zip(1..).skip(first).map(|(column, number)| array(number, column.kind));
            arrays.collect::<Vec<_>>().join(", ")
        };
        // Of one task, whose number is put in later.
        let elements = COLUMNS.iter().zip(1..).skip(1).map(|(column, number)| {
            cast(Dialect::Postgres, format!("({})[{{n}}]", array(number, column.kind)), column.kind)
        });
        let change = [("user_id".into(), Kind::Text), ("id".into(), Kind::Uuid), ("now".into(), Kind::Time)];
        let (names, kinds): (Vec<_>, Vec<_>) = change.into_iter().chain(parameters.iter().cloned()).unzip();
        let change_arrays = kinds.into_iter().zip(1..).map(|(kind, number)| array(number, kind));
        let parameter = |name: &str| match parameters.iter().find(|(known, _)| known == name) {
            Some((_, kind)) => cast(Dialect::Postgres, format!("k.{name}"), *kind),
            None => format!("k.{name}"),
        };
        let [key, digest, max] = [1, 2, 3].map(|number| format!("${}", COLUMNS.len() + number));
        [
            ("t.columns", columns::selected_columns("t.")),
            ("arrays", arrays(0)),
            ("arrays_of_all", arrays(1)),
            ("max_array", format!("${}", COLUMNS.len() + 1)),
            ("cast", casted(0)),
            ("unnested", casted(1)),
            // The place in an array of a request.
            (
                "request_of_all",
                format!("{key}, case when {key} is not null then cast(k.n - 1 as smallint) end, {digest}"),
            ),
            ("max_of_all", max),
            ("elements", elements.collect::<Vec<_>>().join(", ")),
            (
                "request_of_element",
                format!(
                    "{key}::text, case when {key}::text is not null then {{n}}::smallint - 1::smallint end, {digest}::bytea"
                ),
            ),
            ("change_arrays", change_arrays.collect::<Vec<_>>().join(", ")),
            ("change_names", names.join(", ")),
            ("k.assignments", columns::update(Dialect::Postgres, "t.", parameter).with_revision("t.", "free.revision")),
            ("next_revision", columns::NEXT_REVISION.replace("revision", "o.revision")),
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
        let call = |name: &str| functions.call(name);
        Arc::new(Self {
            row_security: true,
            call: Calls {
                insert: call("insert"),
                requested: call("requested"),
                taken: call("taken"),
                get: call("get"),
                list: call("list"),
                list_completed: call("list_completed"),
                summary: call("summary"),
                update: call("update"),
                reposition: call("reposition"),
                delete: call("delete"),
                erase: call("erase"),
                // The function does all.
                erase_deleted: SqlStr::from_static(""),
                erase_owner: SqlStr::from_static(""),
                transfer: call("transfer"),
                changes: call("changes"),
                revisions: call("revisions"),
                // Needs the same privileges as the other calls. No owner has a task with this id.
                ping: functions.call_with("get", "'ping', '00000000-0000-0000-0000-000000000000'"),
                has_tasks: plain.call.has_tasks,
                // An operator's role is not subject to row-level security.
                owners: plain.call.owners,
                expire: plain.call.expire,
            },
            postgres: OfPostgres {
                insert_all: call("insert_all"),
                update_if: call("update_if"),
                delete_if: call("delete_if"),
                // The functions lock what they need.
                erase_lock: SqlStr::from_static(""),
                transfer_lock: SqlStr::from_static(""),
                purge: call("purge"),
            },
            selections,
            ..plain
        })
    }

    /// The functions that bind the owner and run these statements.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn functions(&self) -> Functions {
        let Self { call, postgres, .. } = self;
        let change = functions::change_types(&columns::change_parameters());
        let precondition = ["bigint[]", "bigint[]", "timestamptz"];
        let update: Vec<_> = ["text", "uuid", "timestamptz"].into_iter().chain(change).collect();
        let update_if = update.iter().copied().chain(precondition).collect();
        let delete_if = ["text", "uuid"].into_iter().chain(precondition).collect();
        let insert = functions::row_types().into_iter().chain(["text", "smallint", "bytea", "bigint"]).collect();
        let arrays = COLUMNS.iter().skip(1).map(|column| match columns::postgres_type(column.kind) {
            "uuid" => "uuid[]",
            "boolean" => "boolean[]",
            "smallint" => "smallint[]",
            "bigint" => "bigint[]",
            "timestamptz" => "timestamptz[]",
            _ => "text[]",
        });
        let insert_all = std::iter::once("text").chain(arrays).chain(["text", "bytea", "bigint"]).collect();
        let definition =
            |name, arguments, rows, statement| Definition { name, arguments, rows, statement, around: ("", "") };
        // Rows are values, as in the statements for several nodes, but the owner is locked before they are counted.
        let resolved = self.names.resolve(Dialect::Postgres);
        let parts = Parts::new(Dialect::Postgres, &resolved);
        let (before_one, before_all) =
            (parts.render(&resolved, BEFORE_INSERT), parts.render(&resolved, BEFORE_INSERT_ALL));
        let each_row = self.shards.insert_rows.as_str().to_owned()
            + &self.shards.row.as_str().replace("{n}", "n")
            + " on conflict do nothing";
        let definitions = [
            Definition {
                around: (before_one.as_str(), "\n    end if;"),
                ..definition("insert", insert, Rows::Counted, self.shards.insert_row.as_str())
            },
            Definition {
                around: (before_all.as_str(), "\n        end loop;\n    end if;"),
                ..definition("insert_all", insert_all, Rows::Counted, &each_row)
            },
            definition("requested", vec!["text", "text"], Rows::Requested, call.requested.as_str()),
            definition("taken", vec!["text", "uuid[]"], Rows::Taken, call.taken.as_str()),
            definition("get", vec!["text", "uuid"], Rows::Tasks, call.get.as_str()),
            definition("list", vec!["text", "uuid", "bigint", "bigint"], Rows::Listed, call.list.as_str()),
            definition(
                "list_completed",
                vec!["text", "uuid", "bigint", "bigint", "boolean"],
                Rows::Listed,
                call.list_completed.as_str(),
            ),
            definition("summary", vec!["text", "bigint"], Rows::Groups, call.summary.as_str()),
            definition("update", update, Rows::Tasks, call.update.as_str()),
            definition("update_if", update_if, Rows::Outcomes, postgres.update_if.as_str()),
            definition(
                "reposition",
                vec!["text", "uuid[]", "text[]", "timestamptz", "uuid", "bigint"],
                Rows::Tasks,
                call.reposition.as_str(),
            ),
            definition("delete", vec!["text", "uuid"], Rows::Counted, call.delete.as_str()),
            definition("delete_if", delete_if, Rows::Outcomes, postgres.delete_if.as_str()),
            definition(
                "changes",
                vec!["text", "bigint", "uuid", "bigint", "bigint", "uuid"],
                Rows::Changes,
                call.changes.as_str(),
            ),
            definition("purge", vec!["text", "bigint", "bigint"], Rows::Number, postgres.purge.as_str()),
        ];
        Functions::new(&self.names.resolve(Dialect::Postgres), definitions)
    }

    pub(in crate::store) fn render(dialect: Dialect, names: Names) -> Self {
        let resolved = names.resolve(dialect);
        let parts = Parts::new(dialect, &resolved);
        let render = |template: &str| parts.render(&resolved, template);
        let (list, list_completed, summary, update, transfer, revisions) = match dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => (LIST, LIST_COMPLETED, SUMMARY, UPDATE, TRANSFER, REVISIONS),
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => {
                (SQLITE_LIST, SQLITE_LIST_COMPLETED, SQLITE_SUMMARY, SQLITE_UPDATE, TRANSFER_COPY, SQLITE_REVISIONS)
            }
        };
        Self {
            #[cfg(feature = "postgres")]
            row_security: false,
            call: Calls {
                insert: render(INSERT),
                requested: render(REQUESTED),
                taken: render(TAKEN),
                get: render(GET),
                list: render(list),
                list_completed: render(list_completed),
                summary: render(summary),
                update: render(update),
                reposition: render(REPOSITION),
                delete: render(DELETE),
                erase: render(ERASE),
                erase_deleted: render(ERASE_DELETED),
                erase_owner: render(ERASE_OWNER),
                transfer: render(transfer),
                changes: render(CHANGES),
                revisions: render(revisions),
                ping: render(PING),
                has_tasks: render(HAS_TASKS),
                owners: render(OWNERS_AFTER),
                expire: render(EXPIRE),
            },
            selections: Selections::new(dialect, &resolved),
            #[cfg(feature = "sqlite")]
            sqlite: OfSqlite {
                lock: render(LOCK),
                transfer_delete: render(TRANSFER_DELETE),
                transfer_count: render(TRANSFER_COUNT),
                purge_until: render(PURGE_UNTIL),
                purge: render(SQLITE_PURGE),
                purge_owner: render(PURGE_OWNER),
            },
            #[cfg(feature = "postgres")]
            postgres: OfPostgres {
                insert_all: render(INSERT_ALL),
                update_if: render(UPDATE_IF),
                delete_if: render(DELETE_IF),
                erase_lock: render(ERASE_LOCK),
                transfer_lock: render(TRANSFER_LOCK),
                purge: render(PURGE),
            },
            #[cfg(feature = "postgres")]
            batch: Batches {
                get_many: render(GET_MANY),
                list_many: render(LIST_MANY),
                list_completed_many: render(LIST_COMPLETED_MANY),
                insert_many: render(INSERT_MANY),
                update_many: render(UPDATE_MANY),
                delete_many: render(DELETE_MANY),
            },
            #[cfg(feature = "postgres")]
            shards: OfShards {
                room: render(ROOM),
                insert_row: render(INSERT_ROW),
                insert_rows: render(INSERT_ROWS),
                row: render(ROW),
                revisions_of_shards: render(REVISIONS_OF_SHARDS),
                lock_owner: render(LOCK_OWNER),
                ping_of_shards: render(PING_OF_SHARDS),
            },
            #[cfg(feature = "postgres")]
            is_sharded: AtomicBool::new(false),
            names,
        }
    }

    /// Whether the tables are distributed by their owner, as far as is known.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn is_sharded(&self) -> bool {
        self.is_sharded.load(Ordering::Relaxed)
    }

    /// Remembers whether the tables are distributed by their owner. Returns whether that is new.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn set_sharded(&self, is_sharded: bool) -> bool {
        self.is_sharded.swap(is_sharded, Ordering::Relaxed) != is_sharded
    }

    /// The statement that returns the revisions of many owners. With row-level security it is a function.
    pub(in crate::store) fn revisions(&self) -> SqlStr {
        #[cfg(feature = "postgres")]
        if self.is_sharded() && !self.row_security {
            return self.shards.revisions_of_shards.clone();
        }
        self.call.revisions.clone()
    }

    /// The statement that asks whether the database is there.
    pub(in crate::store) fn ping(&self) -> SqlStr {
        #[cfg(feature = "postgres")]
        if self.is_sharded() && self.row_security {
            return self.shards.ping_of_shards.clone();
        }
        self.call.ping.clone()
    }

    /// The statement that adds this number of tasks of one owner, where the tables are distributed.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn insert_rows(&self, count: usize) -> SqlStr {
        let OfShards { insert_rows, row, .. } = &self.shards;
        let rows = (1..=count).map(|number| row.as_str().replace("{n}", &number.to_string()));
        static_text(insert_rows.as_str().to_owned() + &rows.collect::<Vec<_>>().join(", ") + " on conflict do nothing")
    }
}

/// Whether a statement serves one call or a batch of calls; and whether it does so only where the tables are distributed.
#[cfg(any(test, all(feature = "conformance", feature = "postgres")))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Scope {
    Call,
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "only PostgreSQL has batches"))]
    Batch,
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "only PostgreSQL has several nodes"))]
    Shards,
}

#[cfg(any(test, all(feature = "conformance", feature = "postgres")))]
impl Statements {
    /// Every statement that a store of this database runs, with its name.
    pub(in crate::store) fn all_mut(&mut self, dialect: Dialect) -> Vec<(&'static str, Scope, &mut SqlStr)> {
        let mut all: Vec<_> = self.call.all_mut().map(|(name, sql)| (name, Scope::Call, sql)).collect();
        match dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => {
                all.extend(self.postgres.all_mut().map(|(name, sql)| (name, Scope::Call, sql)));
                all.extend(self.batch.all_mut().map(|(name, sql)| (name, Scope::Batch, sql)));
                all.extend(self.shards.all_mut().map(|(name, sql)| (name, Scope::Shards, sql)));
            }
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => all.extend(self.sqlite.all_mut().map(|(name, sql)| (name, Scope::Call, sql))),
        }
        all
    }
}
