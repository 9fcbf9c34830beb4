//! Row-level security of PostgreSQL, behind the predicates of the statements.
//!
//! Migration 2 creates the policy; [`migrate`](super::migrate) enables row-level security and adds the functions. This
//! module grants the privileges, and checks roles and tables. The reasons are in
//! `docs/decisions/0017-row-level-security.md`.

use std::error::Error;

use sqlx::{AssertSqlSafe, PgConnection, Row as _, migrate::MigrateError, postgres::PgRow};

use super::{
    super::{
        error::{SetupError, StoreError},
        sql::{
            functions::Functions,
            migrate,
            names::{Dialect, Names},
            operations::{Effect, Operation, of_owner},
            sqlstate::{Condition, condition},
            statements::Statements,
        },
    },
    PostgresStore,
    distribution::Look,
};
use crate::clock::Timestamp;

impl PostgresStore {
    /// Returns a store that uses row-level security in addition to the predicates of the statements: a statement
    /// without its predicate then still sees and changes only tasks of the owner of the call.
    ///
    /// Each call is then a function in the database that binds its owner (`todo.user_id`) and removes the binding at
    /// its end. It is still one round trip, and nothing stays with the connection, so poolers in transaction mode are
    /// safe. A statement that reads the table without a bound owner gets an error, not an empty table.
    ///
    /// The owner of the table can disable row-level security, and superusers and roles with BYPASSRLS are not subject
    /// to it. So two roles are needed:
    ///
    /// 1. The owner of the table. [`migrate`](Self::migrate) of this store enables row-level security, for the owner
    ///    too. [`grant_to`](Self::grant_to) grants the other role what it needs.
    /// 2. The role that the application connects as. [`check_role`](Self::check_role) checks it before row-level
    ///    security is enabled, [`check_tables`](Self::check_tables) afterwards.
    ///
    /// [`CoalescingStore`](crate::store::CoalescingStore) does not batch the calls of such a store: a statement is for
    /// one owner. Backups need a role with BYPASSRLS, since `pg_dump` fails rather than leave rows out.
    ///
    /// ```no_run
    /// use todo_core::store::{PostgresOptions, PostgresStore};
    ///
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// let options = PostgresOptions::default();
    /// let owner = PostgresStore::connect_lazy("postgres://todo_owner@localhost/todo", &options)?.with_row_security();
    /// owner.migrate().await?;
    /// owner.grant_to("todo_app").await?;
    /// owner.close().await;
    ///
    /// let store = PostgresStore::connect_lazy("postgres://todo_app@localhost/todo", &options)?.with_row_security();
    /// store.check_tables().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_row_security(self) -> Self {
        let sql = Statements::with_row_security(self.sql.names.clone());
        Self { sql, ..self }
    }

    /// Grants a role what a store needs, and nothing else: the schema, the tables, the functions, and reading the
    /// ledger of migrations.
    ///
    /// The connections of this store must be those of the table's owner. It is safe to call this in many processes at
    /// once. If the role has all of it already, this only reads: it takes no lock, since every role that may connect
    /// could hold the lock.
    ///
    /// # Errors
    ///
    /// There is no such role; or the name cannot be one (`public` means every role, and no name is longer than 63
    /// bytes); or the tables are not at the newest version.
    pub async fn grant_to(&self, role: &str) -> Result<(), StoreError> {
        // Even in quotes, `public` is every role.
        if role.is_empty() || role == "public" || role.len() > 63 || role.contains('\0') {
            return Err(SetupError::new(format!("{role:?} is not the name of a role; name another one")).into());
        }
        let granted = self.run(&Grant { role }).await;
        granted.map_err(|error| match error {
            StoreError::Backend(source) if is_of(&*source, Condition::NoObject) => {
                SetupError::new(format!("there is no role {role:?}; create it, or name another one"))
                    .with_source(source)
                    .into()
            }
            error => error.with_hint(),
        })
    }

    /// Checks that row-level security applies to the role of this store, before it is enabled: once it is enabled, it
    /// is in force for all that use the table.
    ///
    /// # Errors
    ///
    /// The server cannot be reached; or the role bypasses row-level security or may disable it ([`StoreError::Setup`],
    /// with a text that says what to change).
    pub async fn check_role(&self) -> Result<(), StoreError> {
        let role = self.run(&FindRole).await?;
        match role.complaint(&self.sql.names) {
            None => Ok(()),
            Some(complaint) => Err(SetupError::new(complaint).into()),
        }
    }

    /// Returns the role that the connections of this store work as.
    ///
    /// # Errors
    ///
    /// The server cannot be reached.
    pub async fn role(&self) -> Result<String, StoreError> {
        Ok(self.run(&FindRole).await?.name)
    }

    /// Checks that the tables exist and are as new as this library, and that row-level security is as this store uses
    /// it. Call it at start where [`migrate`](Self::migrate) is not called.
    ///
    /// # Errors
    ///
    /// The server cannot be reached; or something is not as it has to be ([`StoreError::Setup`], with a text that says
    /// what to change): the tables are missing, older or newer. With row-level security: the role bypasses it or may
    /// disable it, it is not enabled, another policy shows more rows, or the role may not call the functions. Without:
    /// the role may not read and change the table, or row-level security is enabled for this role.
    pub async fn check_tables(&self) -> Result<(), StoreError> {
        let names = &self.sql.names;
        let found = self.run(&FindTable).await?;
        let distribution = self.run(&Look).await?;
        let complaint = match &found {
            None => Some(format!("the table {names} does not exist; migrate first")),
            Some(found) if self.sql.row_security => found.complaint_with_row_security(names),
            Some(found) => found.complaint_without(names),
        };
        if let Some(complaint) = complaint.or_else(|| distribution.complaint(names, self.sql.row_security)) {
            return Err(SetupError::new(complaint).into());
        }
        if distribution.has_no_lock_limit() {
            tracing::warn!(
                target: "todo_core::store",
                "a limit for locks that this store sets does not reach the nodes of the tables: alter role .. set lock_timeout = '2s'"
            );
        }
        if found.is_some_and(|found| found.may_see_ledger) && !self.run(&IsNewest).await?? {
            let text = format!("the table {names} is older than this library needs; migrate first");
            return Err(SetupError::new(text).into());
        }
        Ok(())
    }
}

/// What is for all owners.
impl PostgresStore {
    /// Forgets the deletions of all owners that were made before a time, and returns their number: for an operator, from
    /// time to time. [`TodoService`](crate::TodoService) forgets some of an owner's old deletions when the owner deletes
    /// tasks, so that without this call those of owners who delete nothing are kept.
    ///
    /// Each statement takes little time, however many owners and deletions there are: it reads at most 500 owners, or
    /// forgets at most 200 deletions of one owner. If the call fails, what it has done stays done.
    ///
    /// # Errors
    ///
    /// Those of every call; and [`StoreError::Setup`], if row-level security hides other owners from the role of the
    /// connections. It does not apply to superusers and to roles with BYPASSRLS, such as the one that makes backups.
    /// That role calls this without [`with_row_security`](Self::with_row_security).
    pub async fn purge_all(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.check_sees_all_owners().await?;
        self.purge_owners(before).await
    }

    /// Makes every client begin again that follows the [changes](crate::store::TaskStore::changes) of an owner, and returns the
    /// number of owners. Call it after a backup was restored, before clients are served: they may have seen changes that
    /// are lost now, and would not notice it once their owner makes others. Lists that they have kept are not current
    /// any more, either.
    ///
    /// At most 500 owners are changed at once. If the call fails, call it again.
    ///
    /// # Errors
    ///
    /// Those of every call; and [`StoreError::Setup`], if row-level security hides other owners from the role of the
    /// connections. It does not apply to superusers and to roles with BYPASSRLS, such as the one that makes backups.
    /// That role calls this without [`with_row_security`](Self::with_row_security).
    pub async fn expire_sync_points(&self) -> Result<u64, StoreError> {
        self.check_sees_all_owners().await?;
        self.expire_owners().await
    }

    async fn check_sees_all_owners(&self) -> Result<(), StoreError> {
        if !self.run(&AreOwnersHidden).await? {
            return Ok(());
        }
        let role = self.run(&FindRole).await?.name;
        let text = format!(
            "row-level security hides other owners from the role {role:?}; connect as a superuser or as a role with \
             BYPASSRLS, such as the one that makes backups"
        );
        Err(SetupError::new(text).into())
    }
}

/// Whether this is an error of the driver with this condition.
fn is_of(error: &(dyn Error + 'static), expected: Condition) -> bool {
    error.downcast_ref::<sqlx::Error>().is_some_and(|error| condition(error) == expected)
}

/// What a role needs. `{role}` is an identifier in its quotes. The lock makes concurrent grants run one after the
/// other; otherwise PostgreSQL fails with "tuple concurrently updated".
const GRANT: &str = r#"
    select pg_advisory_xact_lock(hashtextextended('todo-core grants in {schema}', 0));
    grant usage on schema "{schema}" to {role};
    grant select, insert, update, delete on {tasks}, {owners} to {role};
    grant select, delete on {deleted} to {role};
    grant select on "{schema}"."{table}_migrations" to {role};
    grant execute on function {functions} to {role};
"#;

/// Whether a role has what [`GRANT`] grants on the tables of the schema `n`. `$role` is its oid with a comma, or
/// nothing for the current one.
macro_rules! may_use_tables {
    ($role:literal) => {
        concat!(
            "(select count(*) = 3 and bool_and(t.relname = $2 || '_deleted' or has_table_privilege(",
            $role,
            "t.oid, 'insert') and has_table_privilege(",
            $role,
            "t.oid, 'update')) and bool_and(has_table_privilege(",
            $role,
            "t.oid, 'select') and has_table_privilege(",
            $role,
            "t.oid, 'delete')) from pg_class as t where t.relnamespace = n.oid \
            and t.relname in ($2, $2 || '_owners', $2 || '_deleted'))"
        )
    };
}

/// Whether a role has what [`GRANT`] grants. A superuser has it, but may be none tomorrow.
const IS_GRANTED: &str = concat!(
    "select not r.rolsuper and has_schema_privilege(r.oid, n.oid, 'usage') and ",
    may_use_tables!("r.oid, "),
    " and has_table_privilege(r.oid, l.oid, 'select') \
        and (select count(*) = cardinality($3::text[]) and bool_and(has_function_privilege(r.oid, p.oid, 'execute')) \
            from pg_proc as p where p.pronamespace = n.oid and p.proname = any ($3::text[])) \
    from pg_roles as r, pg_namespace as n join pg_class as c on c.relnamespace = n.oid \
        join pg_class as l on l.relnamespace = n.oid and l.relname = $2 || '_migrations' \
    where r.rolname = $4 and n.nspname = $1 and c.relname = $2"
);

of_owner! {
    Grant<'_>: _call => None,
    AreOwnersHidden: _call => None,
    FindRole: _call => None,
    FindTable: _call => None,
    IsNewest: _call => None,
}

struct Grant<'a> {
    role: &'a str,
}

impl Operation<PgConnection> for Grant<'_> {
    type Output = ();
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<(), sqlx::Error> {
        // Where row-level security has never been used, there are no functions to call.
        let existing = "select proname::text from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace \
            where n.nspname = $1 and p.proname = any ($2::text[])";
        let existing: Vec<String> = sqlx::query_scalar(existing)
            .bind(sql.names.schema())
            .bind(function_names(&sql.names))
            .fetch_all(&mut *connection)
            .await?;
        let is_needed = |name: &String| sql.row_security || existing.contains(name);
        let names: Vec<_> = function_names(&sql.names).into_iter().filter(is_needed).collect();
        let is_granted: Option<bool> = sqlx::query_scalar(IS_GRANTED)
            .bind(sql.names.schema())
            .bind(sql.names.table())
            .bind(names)
            .bind(self.role)
            .fetch_optional(&mut *connection)
            .await?;
        if is_granted == Some(true) {
            return Ok(());
        }
        let role = format!(r#""{}""#, self.role.replace('"', r#""""#));
        let functions = functions(&sql.names).0.into_iter().filter(|function| is_needed(&function.full_name));
        let owner = format!(r#""{}"."{}_owner"()"#, sql.names.schema(), sql.names.table());
        let signatures = functions.map(|function| function.signature).chain([owner]);
        let functions = signatures.collect::<Vec<_>>().join(", ");
        let parts = [("role", &*role), ("functions", &*functions)];
        let grant = sql.names.resolve(Dialect::Postgres).render_with(GRANT, &parts);
        sqlx::raw_sql(AssertSqlSafe(grant)).execute(connection).await.map(|_| ())
    }
}

/// The role of the connections, and what it may do about row-level security.
#[derive(Debug)]
struct Role {
    name: String,
    is_superuser: bool,
    bypasses: bool,
    is_owner: bool,
}

impl Role {
    fn complaint(&self, names: &Names) -> Option<String> {
        let role = &self.name;
        if self.is_superuser || self.bypasses {
            let what = if self.is_superuser { "is a superuser" } else { "has BYPASSRLS" };
            return Some(format!(
                "the role {role:?} {what}, so row-level security does not apply to it; connect as a role that is neither a \
                 superuser nor has BYPASSRLS"
            ));
        }
        self.is_owner.then(|| {
            format!(
                "the role {role:?} is the owner of the table {names} or a member of it, and may disable row-level security; \
                 connect as another role"
            )
        })
    }
}

/// Whether row-level security applies to the role of the connections.
struct AreOwnersHidden;

impl Operation<PgConnection> for AreOwnersHidden {
    type Output = bool;
    const EFFECT: Effect = Effect::Read;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("select row_security_active($1::text)")
            .bind(sql.names.resolve(Dialect::Postgres).owners)
            .fetch_one(connection)
            .await
    }
}

/// Finds the role. There may be no table yet.
struct FindRole;

impl Operation<PgConnection> for FindRole {
    type Output = Role;
    const EFFECT: Effect = Effect::Read;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Role, sqlx::Error> {
        const FIND_ROLE: &str = "select r.rolname::text, r.rolsuper, r.rolbypassrls, coalesce(pg_has_role(c.relowner, 'member'), false) \
            from pg_roles as r left join pg_namespace as n on n.nspname = $1 \
            left join pg_class as c on c.relnamespace = n.oid and c.relname = $2 where r.rolname = current_user";
        let row = sqlx::query(FIND_ROLE).bind(sql.names.schema()).bind(sql.names.table()).fetch_one(connection).await?;
        read_role(&row)
    }
}

fn read_role(row: &PgRow) -> Result<Role, sqlx::Error> {
    Ok(Role {
        name: row.try_get(0)?,
        is_superuser: row.try_get(1)?,
        bypasses: row.try_get(2)?,
        is_owner: row.try_get(3)?,
    })
}

/// What the catalogs say about the table and the role.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Found {
    role: Role,
    is_on: bool,
    is_active: bool,
    has_policy: bool,
    has_others: bool,
    functions: i64,
    may_use: bool,
    may_see_ledger: bool,
    may_change: bool,
}

/// The functions that this version calls.
fn functions(names: &Names) -> Functions {
    Statements::render(Dialect::Postgres, names.clone()).functions()
}

/// Their names, and that of the function that the policy calls.
fn function_names(names: &Names) -> Vec<String> {
    let owner = format!("{}_owner", names.table());
    functions(names).0.into_iter().map(|function| function.full_name).chain([owner]).collect()
}

/// Finds the table. Every role may read the catalogs, while names in a schema without the privilege `usage` cannot be
/// resolved.
struct FindTable;

impl Operation<PgConnection> for FindTable {
    type Output = Option<Found>;
    const EFFECT: Effect = Effect::Read;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Option<Found>, sqlx::Error> {
        const FIND: &str = concat!(
            "select current_user::text, r.rolsuper, r.rolbypassrls, pg_has_role(c.relowner, 'member'), \
                a.is_on, a.is_active, a.has_policy, a.has_others, coalesce(f.count, 0), \
                coalesce(f.may, false) and has_schema_privilege(n.oid, 'usage') and ",
            may_use_tables!(""),
            " and coalesce(has_table_privilege(l.oid, 'select'), false), \
                has_schema_privilege(n.oid, 'usage') and coalesce(has_table_privilege(l.oid, 'select'), false), \
                has_schema_privilege(n.oid, 'usage') and ",
            may_use_tables!(""),
            " from pg_class as c join pg_namespace as n on n.oid = c.relnamespace join pg_roles as r on r.rolname = current_user \
            left join pg_class as l on l.relnamespace = n.oid and l.relname = $2 || '_migrations' \
            left join lateral (select count(*), bool_and(has_function_privilege(p.oid, 'execute')) as may, \
                    '^[(]user_id = (\"?' || $1 || '\"?[.])?\"?' || $2 || '_owner\"?[(][)][)]$' as expected from pg_proc as p \
                where p.pronamespace = n.oid and p.proname = any ($3::text[])) as f on true \
            left join lateral (select count(*) = 3 and bool_and(t.relrowsecurity and t.relforcerowsecurity) as is_on, \
                    bool_or(row_security_active(t.oid)) as is_active, \
                    bool_and(exists (select from pg_policy as p where p.polrelid = t.oid and p.polname = $2 || '_owner' \
                        and p.polcmd = '*' and p.polroles = '{0}' and pg_get_expr(p.polqual, t.oid) ~ f.expected \
                        and pg_get_expr(p.polwithcheck, t.oid) ~ f.expected)) as has_policy, \
                    bool_or(exists (select from pg_policy as p \
                        where p.polrelid = t.oid and p.polname <> $2 || '_owner' and p.polpermissive)) as has_others \
                from pg_class as t \
                where t.relnamespace = n.oid and t.relname in ($2, $2 || '_owners', $2 || '_deleted')) as a on true \
            where n.nspname = $1 and c.relname = $2"
        );
        let row = sqlx::query(FIND)
            .bind(sql.names.schema())
            .bind(sql.names.table())
            .bind(function_names(&sql.names))
            .fetch_optional(connection)
            .await?;
        let read = |row: PgRow| -> Result<Found, sqlx::Error> {
            Ok(Found {
                role: read_role(&row)?,
                is_on: row.try_get(4)?,
                is_active: row.try_get(5)?,
                has_policy: row.try_get(6)?,
                has_others: row.try_get(7)?,
                functions: row.try_get(8)?,
                may_use: row.try_get(9)?,
                may_see_ledger: row.try_get(10)?,
                may_change: row.try_get(11)?,
            })
        };
        row.map(read).transpose()
    }
}

/// Whether the ledger has all migrations of this library. It fails if it has others.
struct IsNewest;

impl Operation<PgConnection> for IsNewest {
    type Output = Result<bool, StoreError>;
    const EFFECT: Effect = Effect::Read;

    async fn run(&self, connection: &mut PgConnection, sql: &Statements) -> Result<Self::Output, sqlx::Error> {
        let migrator = migrate::migrator(Dialect::Postgres, &sql.names);
        match migrate::is_at(&migrator, connection, migrate::newest_version(Dialect::Postgres)).await {
            Err(MigrateError::Execute(error)) => Err(error),
            found => Ok(found.map_err(|error| migrate::migration_failed(Dialect::Postgres, error))),
        }
    }
}

impl Found {
    fn complaint_with_row_security(&self, names: &Names) -> Option<String> {
        if let Some(complaint) = self.role.complaint(names) {
            return Some(complaint);
        }
        if !self.is_on {
            return Some(format!(
                "row-level security is not enabled and forced for the table {names}; migrate with row-level security, as its \
                 owner"
            ));
        }
        if !self.has_policy || usize::try_from(self.functions) != Ok(function_names(names).len()) {
            return Some(format!(
                "the policy and the functions of the table {names} for row-level security are missing or were changed; \
                 migrate with row-level security, as its owner (if the policy was changed: to version 1 and back)"
            ));
        }
        if self.has_others {
            return Some(format!(
                "the table {names} has another permissive policy, which shows more than the owner's tasks; drop it or make \
                 it restrictive"
            ));
        }
        if !self.may_use {
            let role = &self.role.name;
            return Some(format!(
                "the role {role:?} lacks privileges on the table {names}, those beside it, their ledger or their functions; grant \
                 them, as the owner"
            ));
        }
        None
    }

    fn complaint_without(&self, names: &Names) -> Option<String> {
        if self.is_active {
            return Some(format!(
                "row-level security is enabled for the table {names}, but not for this store; enable it here too (or disable \
                 it there, as the owner: alter table {names} no force row level security, disable row level security; the \
                 same for {names}_owners and {names}_deleted)"
            ));
        }
        (!self.may_change).then(|| {
            let role = &self.role.name;
            format!(
                "the role {role:?} may not read and change the table {names} and those beside it; as its owner, grant usage \
                 on its schema, select, insert, update and delete on {names} and {names}_owners, and select and delete on \
                 {names}_deleted (grant_to does)"
            )
        })
    }
}
