//! Tables that Citus has distributed over several nodes, by their owner.
//!
//! `docs/decisions/0031-citus.md` has the reasons.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::{
    super::{
        error::{SetupError, StoreError},
        sql::{
            migrate::triggers,
            names::{Dialect, Names},
            operations::{Effect, Operation, of_owner},
            statements::Statements,
        },
    },
    PostgresStore,
    functions::{add_functions, execute, roles},
};

impl PostgresStore {
    /// Whether the tables are distributed over several nodes, as far as [`migrate`](Self::migrate) and
    /// [`check_tables`](Self::check_tables) have found out.
    #[must_use]
    pub fn is_distributed(&self) -> bool {
        self.sql.is_sharded()
    }
}

/// How Citus has placed a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// Citus does not know it.
    Ordinary,
    /// By this column.
    By { column: String, group: i64 },
    /// On every node.
    Everywhere,
    /// Its schema is on one node.
    OnOneNode,
}

/// What Citus knows about the tables.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is the answer to a question of its own")]
pub(super) struct Found {
    pub(super) has_citus: bool,
    is_coordinator: bool,
    owns: bool,
    tasks: Placement,
    owners: Placement,
    deleted: Placement,
    ledger: Placement,
    /// Our triggers that the table of the tasks has.
    triggers: Vec<String>,
    /// Whether row-level security is in force for the owner of the tables.
    is_forced: bool,
    /// The functions for row-level security that do not run on the node of their owner.
    functions: Vec<String>,
    /// Whether there is a limit for locks that holds on each node: one of the role or of the database.
    limits_locks: bool,
}

impl Found {
    pub(super) fn is_sharded(&self) -> bool {
        matches!(self.tasks, Placement::By { .. })
    }

    /// Whether calls wait on the nodes of locked rows for longer than this store allows, whose settings do not reach them.
    pub(super) fn has_no_lock_limit(&self) -> bool {
        self.is_sharded() && !self.limits_locks
    }

    fn tables(&self) -> [(&'static str, &Placement); 3] {
        [("{tasks}", &self.tasks), ("{owners}", &self.owners), ("{deleted}", &self.deleted)]
    }

    fn misses_triggers(&self, names: &Names) -> bool {
        triggers(names).iter().any(|(name, _)| !self.triggers.contains(name))
    }

    /// What is wrong with how the tables are distributed, and what to do.
    pub(super) fn complaint(&self, names: &Names, row_security: bool) -> Option<String> {
        if let Some(complaint) = self.wrong_placement(names) {
            return Some(complaint);
        }
        let are_together = self.tables().iter().all(|(_, placement)| *placement == &self.tasks);
        if !are_together || self.is_sharded() && self.misses_triggers(names) {
            return Some(format!(
                "the tables of {names} are distributed only in part, or without their triggers; complete it, as their owner: \
                 todo-server migrate --distribute (PostgresStore::distribute)"
            ));
        }
        (row_security && self.is_sharded() && !self.functions.is_empty()).then(|| {
            format!(
                "functions of {names} for row-level security do not run on the node of the owner whom they bind: {}; distribute \
                 them, as the owner of the tables: ROW_SECURITY=on todo-server migrate --distribute \
                 (PostgresStore::distribute)",
                self.functions.join(", ")
            )
        })
    }

    fn wrong_placement(&self, names: &Names) -> Option<String> {
        let resolved = names.resolve(Dialect::Postgres);
        for (table, placement) in self.tables() {
            let table = resolved.render(table).replace('"', "");
            match placement {
                Placement::By { column, .. } if column != "user_id" => {
                    return Some(format!(
                        "the table {table} is distributed by {column}, so that lists would ask every node; distribute it by \
                         user_id: select undistribute_table('{table}') after its triggers were dropped, then todo-server \
                         migrate --distribute"
                    ));
                }
                Placement::Everywhere => {
                    return Some(format!(
                        "the table {table} is a reference table, which has all its rows on every node; make it an ordinary \
                         one first: select undistribute_table('{table}')"
                    ));
                }
                Placement::By { .. } | Placement::Ordinary | Placement::OnOneNode => {}
            }
        }
        None
    }

    /// Why nothing can be distributed in this database.
    pub(super) fn wrong_server(&self) -> Option<String> {
        if !self.has_citus {
            return Some(
                "the database has no Citus; add it to shared_preload_libraries on every node, run `create extension citus` in \
                 this database on every node, and add the workers on the coordinator (citus_set_coordinator_host, \
                 citus_add_node)"
                    .to_owned(),
            );
        }
        if !self.is_coordinator {
            return Some(
                "this is a worker of the Citus cluster; connect to the coordinator (DATABASE_DIRECT_URL)".to_owned(),
            );
        }
        None
    }

    /// Why the tables cannot be distributed, or the opposite.
    fn obstacle(&self, names: &Names) -> Option<String> {
        if !self.owns {
            return Some(format!(
                "the role of the database connection does not own the table {names}; connect as its owner"
            ));
        }
        let wrong = self.wrong_placement(names);
        if wrong.is_some() {
            return wrong;
        }
        if self.tables().iter().any(|(_, placement)| **placement == Placement::OnOneNode) {
            let schema = names.schema();
            return Some(format!(
                "the schema {schema} is on one node (schema-based sharding), where nothing is to be done; to distribute its \
                 tables over several nodes, take that back first: select citus_schema_undistribute('{schema}')"
            ));
        }
        let groups = self.tables().map(|(_, placement)| match placement {
            Placement::By { group, .. } => Some(*group),
            _ => None,
        });
        let mut groups = groups.iter().flatten();
        let first = groups.next();
        groups.any(|group| Some(group) != first).then(|| {
            format!(
                "the tables of {names} are distributed, but the rows of an owner are not on the same node (co-located); make \
                 ordinary tables of them first (undistribute_table), then distribute them here"
            )
        })
    }
}

/// Finds out how the tables are distributed. In a database without Citus this is one small query.
pub(super) struct Look;

/// Whether the role owns the tables, whether row-level security is in force for it, whether locks are limited, our triggers,
/// and the functions that do not run on the node of their owner.
type Facts = (bool, bool, bool, Vec<String>, Vec<String>);

of_owner! {
    Look: _call => None,
}

impl Operation<PgConnection> for Look {
    type Output = Found;
    const EFFECT: Effect = Effect::Read;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Found, sqlx::Error> {
        look(connection, sql).await
    }
}

/// Finds out how the tables are distributed, and remembers it. Two queries, since the first is valid without Citus.
pub(super) async fn look(connection: &mut PgConnection, sql: &Statements) -> Result<Found, sqlx::Error> {
    let names = &sql.names;
    let has_citus = "select to_regclass('pg_catalog.pg_dist_partition') is not null";
    let mut found = Found {
        has_citus: sqlx::query_scalar(has_citus).fetch_one(&mut *connection).await?,
        is_coordinator: false,
        owns: false,
        tasks: Placement::Ordinary,
        owners: Placement::Ordinary,
        deleted: Placement::Ordinary,
        ledger: Placement::Ordinary,
        triggers: Vec::new(),
        is_forced: false,
        functions: Vec::new(),
        limits_locks: false,
    };
    if found.has_citus {
        let is_coordinator = "select groupid = 0 from pg_catalog.pg_dist_local_group";
        found.is_coordinator = sqlx::query_scalar(is_coordinator).fetch_one(&mut *connection).await?;
        placements(connection, names, &mut found).await?;
        facts(connection, names, &mut found).await?;
    }
    sql.set_sharded(found.is_sharded());
    Ok(found)
}

async fn placements(connection: &mut PgConnection, names: &Names, found: &mut Found) -> Result<(), sqlx::Error> {
    // By catalog, since names in a schema without the privilege `usage` cannot be resolved. Tables that stay on one node
    // are replicated by `s`, those on every node by `t`.
    const PLACED: &str = "select c.relname::text, d.partmethod::text, d.repmodel::text, d.colocationid::bigint, \
            case when d.partmethod = 'h' then column_to_column_name(d.logicalrelid, d.partkey) end \
        from pg_catalog.pg_dist_partition as d join pg_class as c on c.oid = d.logicalrelid \
        join pg_namespace as n on n.oid = c.relnamespace \
        where n.nspname = $1 and c.relname in ($2, $2 || '_owners', $2 || '_deleted', $2 || '_migrations')";
    type Row = (String, String, String, i64, Option<String>);
    let rows: Vec<Row> = sqlx::query_as(PLACED).bind(names.schema()).bind(names.table()).fetch_all(connection).await?;
    for (table, method, replication, group, column) in rows {
        let placement = match (&*method, &*replication, column) {
            ("h", _, Some(column)) => Placement::By { column, group },
            (_, "t", _) => Placement::Everywhere,
            // A local table that Citus knows because of a foreign key.
            _ if group == 0 => Placement::Ordinary,
            _ => Placement::OnOneNode,
        };
        match table.strip_prefix(names.table()) {
            Some("") => found.tasks = placement,
            Some("_owners") => found.owners = placement,
            Some("_deleted") => found.deleted = placement,
            _ => found.ledger = placement,
        }
    }
    Ok(())
}

async fn facts(connection: &mut PgConnection, names: &Names, found: &mut Found) -> Result<(), sqlx::Error> {
    const FACTS: &str = "select coalesce(pg_has_role(c.relowner, 'member'), false), coalesce(c.relforcerowsecurity, false), \
            exists (select from pg_db_role_setting as s cross join lateral unnest(s.setconfig) as l (setting) \
                where l.setting like 'lock_timeout=%' \
                and s.setrole in (0, (select r.oid from pg_roles as r where r.rolname = current_user)) \
                and s.setdatabase in (0, (select d.oid from pg_database as d where d.datname = current_database()))), \
            array(select t.tgname::text from pg_trigger as t where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled <> 'D'), \
            array(select p.proname::text from pg_proc as p where p.pronamespace = n.oid and p.proname = any ($3) \
                and not exists (select from pg_catalog.pg_dist_object as d where d.classid = 'pg_proc'::regclass \
                    and d.objid = p.oid and (p.proname <> all ($4) or d.distribution_argument_index = 0 and d.force_delegation \
                        and d.colocationid = (select q.colocationid from pg_catalog.pg_dist_partition as q where q.logicalrelid = c.oid)))) \
        from pg_namespace as n join pg_class as c on c.relnamespace = n.oid where n.nspname = $1 and c.relname = $2";
    let functions = Statements::render(Dialect::Postgres, names.clone()).functions();
    let all: Vec<&str> = functions.0.iter().map(|function| &*function.full_name).collect();
    let of_one: Vec<&str> =
        functions.0.iter().filter(|function| function.is_of_one_owner()).map(|function| &*function.full_name).collect();
    let facts: Option<Facts> = sqlx::query_as(FACTS)
        .bind(names.schema())
        .bind(names.table())
        .bind(all)
        .bind(of_one)
        .fetch_optional(connection)
        .await?;
    if let Some((owns, is_forced, limits_locks, triggers, functions)) = facts {
        *found = Found { owns, triggers, is_forced, functions, limits_locks, ..found.clone() };
    }
    Ok(())
}

/// How a transaction that changes distributed tables begins. The nodes then do one thing after the other, which a
/// transaction with several kinds of changes needs, and wait for locks as long as this one. Without Citus, the settings
/// have no effect.
const SETTINGS: [&str; 4] = [
    "set local citus.multi_shard_modify_mode = 'sequential'",
    "set local citus.propagate_set_commands = 'local'",
    "set local citus.enable_unsafe_triggers = on",
    "set local lock_timeout = '1s'",
];

/// Prepares a transaction for changes of distributed tables. Each setting is a text of its own, since Citus passes it on.
pub(super) async fn prepare(transaction: &mut PgConnection) -> Result<(), sqlx::Error> {
    for setting in SETTINGS {
        sqlx::raw_sql(setting).execute(&mut *transaction).await?;
    }
    Ok(())
}

/// Distributes the tables, or completes what is half done. The advisory lock of the migrations is held.
pub(super) async fn distribute(connection: &mut PgConnection, sql: &Statements) -> Result<Vec<String>, StoreError> {
    let names = &sql.names;
    let mut transaction = connection.begin().await?;
    prepare(&mut transaction).await?;
    let found = look(&mut transaction, sql).await?;
    if let Some(obstacle) = found.obstacle(names) {
        return Err(SetupError::new(obstacle).into());
    }
    let mut steps = Vec::new();
    let ordinary: Vec<_> = found
        .tables()
        .into_iter()
        .filter(|(_, placement)| **placement == Placement::Ordinary)
        .map(|(table, _)| table)
        .collect();
    let has_lost_triggers = found.misses_triggers(names);
    if !ordinary.is_empty() || has_lost_triggers {
        // Nobody changes a task that no trigger counts.
        lock_tables(&mut transaction, names).await?;
        let unforced = Unforced::new(&mut transaction, names, found.is_forced).await?;
        if !ordinary.is_empty() {
            drop_triggers(&mut transaction, names).await?;
        }
        for table in &ordinary {
            let name = names.resolve(Dialect::Postgres).render(table);
            let together = if *table == "{tasks}" { "" } else { ", colocate_with := '{tasks}'" };
            execute(
                &mut transaction,
                names,
                &format!("select create_distributed_table('{table}', 'user_id'{together})"),
            )
            .await?;
            // Otherwise the rows stay on the coordinator, where nobody sees them any more, also after an erasure.
            execute(
                &mut transaction,
                names,
                &format!("select truncate_local_data_after_distributing_table('{table}')"),
            )
            .await?;
            steps.push(format!("The table {} is now distributed by user_id.", name.replace('"', "")));
        }
        create_triggers(&mut transaction, names).await?;
        if has_lost_triggers {
            for recount in RECOUNT {
                execute(&mut transaction, names, recount).await?;
            }
            steps.push(
                "Triggers were missing; they are there again, the tasks of each owner were counted again, and clients that \
                 follow changes begin again."
                    .to_owned(),
            );
        }
        unforced.force(&mut transaction, names).await?;
    }
    if found.ledger == Placement::Ordinary {
        let ledger = names.resolve(Dialect::Postgres).ledger;
        execute(&mut transaction, names, &format!("select create_reference_table('{ledger}')")).await?;
        steps.push(format!("The ledger {} is now on every node.", ledger.replace('"', "")));
    }
    if sql.row_security {
        add_functions(&mut transaction, names).await?;
    }
    let moved = distribute_functions(&mut transaction, sql).await?;
    if moved > 0 {
        steps.push(format!(
            "{moved} functions for row-level security now run on the node of the owner whom they bind, and only the roles that \
             were granted them may call them."
        ));
    }
    transaction.commit().await?;
    look(connection, sql).await?;
    Ok(steps)
}

/// Makes ordinary tables of the distributed ones. The advisory lock of the migrations is held.
pub(super) async fn undistribute(connection: &mut PgConnection, sql: &Statements) -> Result<Vec<String>, StoreError> {
    let names = &sql.names;
    let mut transaction = connection.begin().await?;
    prepare(&mut transaction).await?;
    let found = look(&mut transaction, sql).await?;
    if let Some(obstacle) = found.obstacle(names) {
        return Err(SetupError::new(obstacle).into());
    }
    let distributed = found.tables().into_iter().filter(|(_, placement)| matches!(placement, Placement::By { .. }));
    let distributed: Vec<_> = distributed.map(|(table, _)| table).collect();
    let mut steps = Vec::new();
    if !distributed.is_empty() {
        lock_tables(&mut transaction, names).await?;
        let unforced = Unforced::new(&mut transaction, names, found.is_forced).await?;
        drop_triggers(&mut transaction, names).await?;
        for table in &distributed {
            execute(&mut transaction, names, &format!("select undistribute_table('{table}')")).await?;
            let name = names.resolve(Dialect::Postgres).render(table).replace('"', "");
            steps.push(format!("The table {name} is now an ordinary table on the coordinator."));
        }
        create_triggers(&mut transaction, names).await?;
        unforced.force(&mut transaction, names).await?;
    }
    transaction.commit().await?;
    look(connection, sql).await?;
    Ok(steps)
}

/// Counts the tasks of each owner, and gives all of them a new revision, after changes that no trigger has seen. Clients
/// begin again.
const RECOUNT: [&str; 2] = [
    "update {owners} as o set revision = greatest(o.revision + 1, cast(extract(epoch from statement_timestamp()) * 1000000 as bigint)), \
        purged = greatest(o.revision + 1, cast(extract(epoch from statement_timestamp()) * 1000000 as bigint)), \
        tasks = (select count(*) from {tasks} as t where t.user_id = o.user_id)",
    "insert into {owners} (user_id, revision, tasks, purged) \
        select t.user_id, max(t.revision), count(*), max(t.revision) from {tasks} as t group by t.user_id on conflict do nothing",
];

async fn lock_tables(transaction: &mut PgConnection, names: &Names) -> Result<(), sqlx::Error> {
    // In the order in which calls lock them.
    execute(transaction, names, "lock table {owners}, {tasks}, {deleted} in access exclusive mode").await
}

async fn drop_triggers(transaction: &mut PgConnection, names: &Names) -> Result<(), sqlx::Error> {
    for (name, _) in triggers(names) {
        execute(transaction, names, &format!(r#"drop trigger if exists "{name}" on {{tasks}}"#)).await?;
    }
    Ok(())
}

/// Creates those that are missing.
async fn create_triggers(transaction: &mut PgConnection, names: &Names) -> Result<(), sqlx::Error> {
    let there = "select t.tgname::text from pg_trigger as t join pg_class as c on c.oid = t.tgrelid \
        join pg_namespace as n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2";
    let there: Vec<String> =
        sqlx::query_scalar(there).bind(names.schema()).bind(names.table()).fetch_all(&mut *transaction).await?;
    for (_, create) in triggers(names).into_iter().filter(|(name, _)| !there.contains(name)) {
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *transaction).await?;
    }
    Ok(())
}

/// Row-level security that is not in force for the owner of the tables, until the transaction ends: the copy would see
/// no row.
struct Unforced(bool);

impl Unforced {
    async fn new(transaction: &mut PgConnection, names: &Names, is_forced: bool) -> Result<Self, sqlx::Error> {
        if is_forced {
            for table in ["{tasks}", "{owners}", "{deleted}"] {
                execute(transaction, names, &format!("alter table {table} no force row level security")).await?;
            }
        }
        Ok(Self(is_forced))
    }

    async fn force(self, transaction: &mut PgConnection, names: &Names) -> Result<(), sqlx::Error> {
        if self.0 {
            for table in ["{tasks}", "{owners}", "{deleted}"] {
                execute(transaction, names, &format!("alter table {table} force row level security")).await?;
            }
        }
        Ok(())
    }
}

/// Makes the functions for row-level security run on the node of the owner whom they bind, if the tables are
/// distributed. Returns how many did not.
pub(super) async fn distribute_functions(
    transaction: &mut PgConnection,
    sql: &Statements,
) -> Result<usize, sqlx::Error> {
    let names = &sql.names;
    let found = look(transaction, sql).await?;
    if !found.is_sharded() {
        return Ok(0);
    }
    let functions = Statements::render(Dialect::Postgres, names.clone()).functions();
    for function in functions.0.iter().filter(|function| found.functions.contains(&function.full_name)) {
        let signature = &function.signature;
        let mut distribute = format!("select create_distributed_function('{signature}'");
        if function.is_of_one_owner() {
            // In a transaction of the host too.
            let _ = write!(distribute, ", '$1', colocate_with := '{{tasks}}', force_delegation := true");
        }
        execute(transaction, names, &(distribute + ")")).await?;
        // Their copies on other nodes begin with the privileges of new functions.
        execute(transaction, names, &format!("revoke all on function {signature} from public")).await?;
        for role in roles(transaction, names).await? {
            execute(transaction, names, &format!("grant execute on function {signature} to {role}")).await?;
        }
    }
    Ok(found.functions.len())
}
