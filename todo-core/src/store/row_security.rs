//! The second wall: row security of PostgreSQL, which hides what a statement without a predicate would show.
//!
//! The policy and the functions are made by migration 2; here is what calls them, turns them on, and looks whether they
//! can work at all. Why it is done so is in `docs/decisions/0017-a-second-wall.md`.

use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgRow};

use super::{
    PostgresStore, StoreError,
    names::{Dialect, Names},
    postgres::on_connection,
    sql::{self, Statements},
};

const INSERT: &str = r#"select from "{schema}"."{table}_insert"($1, $2, $3, $4, $5, $6, $7, $8)"#;
const GET: &str = r#"select id, title, description, completed, created_at, updated_at, version from "{schema}"."{table}_get"($1, $2)"#;
const LIST: &str = r#"select id, title, description, completed, created_at, updated_at, version from "{schema}"."{table}_list"($1, $2, $3)"#;
const LIST_COMPLETED: &str = r#"select id, title, description, completed, created_at, updated_at, version from "{schema}"."{table}_list_completed"($1, $2, $3, $4)"#;
const UPDATE: &str = r#"select id, title, description, completed, created_at, updated_at, version from "{schema}"."{table}_update"($1, $2, $3, $4, $5, $6, $7, $8)"#;
const DELETE: &str = r#"select from "{schema}"."{table}_delete"($1, $2)"#;
const ERASE: &str = r#"select from "{schema}"."{table}_erase"($1)"#;
// What other calls need is needed here too, and nobody has a task with this id.
const PING: &str = r#"select from "{schema}"."{table}_get"('ping', '00000000-0000-0000-0000-000000000000')"#;

/// The statements of a store with row security: calls of the functions. There are none for batches, since a statement is
/// then for one owner.
pub(super) fn calls(statements: Statements, names: &Names) -> Statements {
    let names = names.resolve(Dialect::Postgres);
    let render = |template: &str| -> &'static str { names.render(template).leak() };
    Statements {
        insert: render(INSERT),
        get: render(GET),
        list: render(LIST),
        list_completed: render(LIST_COMPLETED),
        update: render(UPDATE),
        delete: render(DELETE),
        erase: render(ERASE),
        ping: render(PING),
        ..statements
    }
}

/// Turns row security on for everybody, the owner of the table included, if it is not on and there is a policy.
pub(super) async fn turn_on(connection: &mut PgConnection, names: &Names) -> Result<(), sqlx::Error> {
    let is_off = "select not (c.relrowsecurity and c.relforcerowsecurity) \
        and exists (select from pg_policy as p where p.polrelid = c.oid and p.polname = $2 || '_owner') \
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2";
    let is_off: Option<bool> =
        sqlx::query_scalar(is_off).bind(names.schema()).bind(names.table()).fetch_optional(&mut *connection).await?;
    if is_off == Some(true) {
        run(connection, names, "alter table {tasks} enable row level security, force row level security").await?;
    }
    Ok(())
}

/// Keeps everybody else away from the table until the transaction ends.
pub(super) async fn lock_out_others(connection: &mut PgConnection, names: &Names) -> Result<(), sqlx::Error> {
    run(connection, names, "lock table {tasks} in access exclusive mode").await
}

/// What a role needs of the tables, and no more. `{role}` is an identifier in its quotes. One after the other, or PostgreSQL
/// answers "tuple concurrently updated" to those who come at once.
const GRANT: &str = r#"
    select pg_advisory_xact_lock(hashtextextended('todo-core grants in {schema}', 0));
    grant usage on schema "{schema}" to {role};
    grant select, insert, update, delete on {tasks} to {role};
    grant select on "{schema}"."{table}_migrations" to {role};
    grant execute on function
        "{schema}"."{table}_owner"(),
        "{schema}"."{table}_get"(text, uuid),
        "{schema}"."{table}_list"(text, uuid, bigint),
        "{schema}"."{table}_list_completed"(text, uuid, bigint, boolean),
        "{schema}"."{table}_insert"(text, uuid, text, text, boolean, timestamptz, timestamptz, bigint),
        "{schema}"."{table}_update"(text, uuid, text, boolean, text, boolean, boolean, timestamptz),
        "{schema}"."{table}_delete"(text, uuid),
        "{schema}"."{table}_erase"(text)
        to {role};
"#;

/// Names are checked, and roles are quoted.
async fn run(connection: &mut PgConnection, names: &Names, template: &str) -> Result<(), sqlx::Error> {
    let statement = names.resolve(Dialect::Postgres).render(template);
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(|_| ())
}

/// Row security.
impl PostgresStore {
    /// The same connections, with a second wall behind the predicates: row security of PostgreSQL. A statement that forgot
    /// its owner would still see and change only what belongs to the owner of the call.
    ///
    /// Each call is then a function that binds its owner within the statement (`todo.user_id`) and takes the binding back at its
    /// end: still one round trip, and nothing of it stays with the connection, so a pooler in transaction mode does no
    /// harm. Whoever reads the table without an owner bound gets an error, not an empty table.
    ///
    /// It counts only for a role that neither owns the table nor may pass by row security, so two roles are needed:
    ///
    /// 1. The owner: [`migrate`](Self::migrate) of this store turns row security on, also for the owner itself, and
    ///    [`grant_to`](Self::grant_to) lets the other one in.
    /// 2. The one that the application connects as. [`check_role`](Self::check_role) says whether it will do, before row
    ///    security is on; [`check_tables`](Self::check_tables) says what is wrong, if something is, afterwards.
    ///
    /// [`CoalescingStore`](super::CoalescingStore) joins no calls of such a store: a statement is for one owner.
    /// Whoever takes backups needs a role with BYPASSRLS, since `pg_dump` stops rather than leave rows out.
    ///
    /// ```no_run
    /// use todo_core::store::{PostgresOptions, PostgresStore};
    ///
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// let options = PostgresOptions::default();
    /// let owner = PostgresStore::connect("postgres://todo_owner@localhost/todo", &options)?.with_row_security();
    /// owner.migrate().await?;
    /// owner.grant_to("todo_app").await?;
    /// owner.close().await;
    ///
    /// let store = PostgresStore::connect("postgres://todo_app@localhost/todo", &options)?.with_row_security();
    /// store.check_tables().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_row_security(self) -> Self {
        self.binding_owners()
    }

    /// Gives a role what a store needs, and no more: the schema, the table, the functions, and a look at the ledger of
    /// migrations. The connections of this store must be the owner's. It is safe to run this in many processes at once.
    ///
    /// # Errors
    ///
    /// There is no such role, it is no name of one (`public` is everybody; longer than 63 bytes there is none), or the tables are not at the newest
    /// version.
    pub async fn grant_to(&self, role: &str) -> Result<(), StoreError> {
        // Even in quotes it would be everybody.
        if role.is_empty() || role == "public" || role.len() > 63 || role.contains('\0') {
            return Err(StoreError::Backend(format!("{role:?} is not the name of a role").into()));
        }
        let grant = GRANT.replace("{role}", &format!(r#""{}""#, role.replace('"', r#""""#)));
        on_connection!(self, connection => run(&mut connection, self.names(), &grant))
    }

    /// Looks whether row security can apply to the role as which the connections of this store work, before it is turned on:
    /// afterwards it holds for everybody who uses the table.
    ///
    /// # Errors
    ///
    /// The server cannot be reached; or the role passes by row security, or may turn it off
    /// ([`StoreError::Backend`], with a text that says what to change).
    pub async fn check_role(&self) -> Result<(), StoreError> {
        let names = self.names();
        let complaint: Result<_, StoreError> = on_connection!(read self, connection => async {
            let row = sqlx::query(FIND_ROLE).bind(names.schema()).bind(names.table()).fetch_one(&mut *connection).await?;
            let role: String = row.try_get(0)?;
            Ok(complaint_of_role(&role, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, names))
        });
        match complaint? {
            None => Ok(()),
            Some(complaint) => Err(StoreError::Backend(complaint.into())),
        }
    }

    /// The role as which the connections of this store work.
    ///
    /// # Errors
    ///
    /// The server cannot be reached.
    pub async fn role(&self) -> Result<String, StoreError> {
        on_connection!(read self, connection => async {
            sqlx::query_scalar("select current_user::text").fetch_one(&mut *connection).await
        })
    }

    /// Looks whether the tables are there and as new as this library, and whether row security is as this store has it. For
    /// a start that does not migrate, or that is to find mistakes before the first call does.
    ///
    /// # Errors
    ///
    /// The server cannot be reached; or something is not as it has to be ([`StoreError::Backend`], with a text that says
    /// what to change): the tables are missing, older or newer. With row security: the role passes by it or may turn it
    /// off, it is not turned on, another policy lets others in, or the role may not call the functions. Without: row
    /// security is on for this role.
    pub async fn check_tables(&self) -> Result<(), StoreError> {
        let names = self.names();
        let found = self.found().await?;
        let complaint = match &found {
            None => Some(format!("the table {names} is not there; migrate first")),
            Some(found) if self.has_row_security() => found.complaint_with_row_security(names),
            Some(found) => found.complaint_without(names),
        };
        if let Some(complaint) = complaint {
            return Err(StoreError::Backend(complaint.into()));
        }
        if found.is_some_and(|found| found.may_see_ledger) {
            let version = self.version().await?;
            let newest = i64::from(sql::newest_version(Dialect::Postgres));
            if version > newest {
                return Err(sql::newer_version(Dialect::Postgres, version));
            }
            if version < newest {
                let text = format!("the table {names} is at version {version}, and {newest} is needed; migrate first");
                return Err(StoreError::Backend(text.into()));
            }
        }
        Ok(())
    }

    async fn found(&self) -> Result<Option<Found>, StoreError> {
        on_connection!(read self, connection => find(&mut connection, self.names()))
    }

    async fn version(&self) -> Result<i64, StoreError> {
        on_connection!(read self, connection => version(&mut connection, self.names()))
    }
}

/// What the catalogs say about the table and who asks.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are facts, each by itself")]
struct Found {
    role: String,
    is_superuser: bool,
    bypasses: bool,
    is_owner: bool,
    is_on: bool,
    is_active: bool,
    has_policy: bool,
    has_others: bool,
    functions: i64,
    may_use: bool,
    may_see_ledger: bool,
}

/// Facts for [`Found`]. The catalogs can be read by everybody, while names in a schema that one may not use cannot be
/// resolved.
const FIND: &str = "select current_user::text, r.rolsuper, r.rolbypassrls, pg_has_role(c.relowner, 'member'), \
        c.relrowsecurity and c.relforcerowsecurity, row_security_active(c.oid), \
        exists (select from pg_policy as p where p.polrelid = c.oid and p.polname = $2 || '_owner' and p.polcmd = '*' \
            and p.polroles = '{0}' and pg_get_expr(p.polqual, c.oid) ~ f.expected and pg_get_expr(p.polwithcheck, c.oid) ~ f.expected), \
        exists (select from pg_policy as p where p.polrelid = c.oid and p.polname <> $2 || '_owner' and p.polpermissive), \
        coalesce(f.count, 0), \
        coalesce(f.may, false) and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') \
            and has_table_privilege(c.oid, 'insert') and has_table_privilege(c.oid, 'update') \
            and has_table_privilege(c.oid, 'delete') and coalesce(has_table_privilege(l.oid, 'select'), false), \
        has_schema_privilege(n.oid, 'usage') and coalesce(has_table_privilege(l.oid, 'select'), false) \
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace join pg_roles as r on r.rolname = current_user \
    left join pg_class as l on l.relnamespace = n.oid and l.relname = $2 || '_migrations' \
    left join lateral (select count(*), bool_and(has_function_privilege(p.oid, 'execute')) as may, \
            '^[(]user_id = (\"?' || $1 || '\"?[.])?\"?' || $2 || '_owner\"?[(][)][)]$' as expected from pg_proc as p \
        where p.pronamespace = n.oid and p.proname = any (array(select $2 || s from unnest($3::text[]) as s))) as f on true \
    where n.nspname = $1 and c.relname = $2";

/// The role alone: there may be no table yet.
const FIND_ROLE: &str = "select r.rolname::text, r.rolsuper, r.rolbypassrls, coalesce(pg_has_role(c.relowner, 'member'), false) \
    from pg_roles as r left join pg_namespace as n on n.nspname = $1 \
    left join pg_class as c on c.relnamespace = n.oid and c.relname = $2 where r.rolname = current_user";

/// What the names of the functions end with.
const FUNCTIONS: [&str; 8] = ["_owner", "_get", "_list", "_list_completed", "_insert", "_update", "_delete", "_erase"];

async fn find(connection: &mut PgConnection, names: &Names) -> Result<Option<Found>, sqlx::Error> {
    let row = sqlx::query(FIND)
        .bind(names.schema())
        .bind(names.table())
        .bind(&FUNCTIONS[..])
        .fetch_optional(connection)
        .await?;
    let read = |row: PgRow| -> Result<Found, sqlx::Error> {
        Ok(Found {
            role: row.try_get(0)?,
            is_superuser: row.try_get(1)?,
            bypasses: row.try_get(2)?,
            is_owner: row.try_get(3)?,
            is_on: row.try_get(4)?,
            is_active: row.try_get(5)?,
            has_policy: row.try_get(6)?,
            has_others: row.try_get(7)?,
            functions: row.try_get(8)?,
            may_use: row.try_get(9)?,
            may_see_ledger: row.try_get(10)?,
        })
    };
    row.map(read).transpose()
}

async fn version(connection: &mut PgConnection, names: &Names) -> Result<i64, sqlx::Error> {
    let ledger = names.resolve(Dialect::Postgres).ledger;
    let version = format!("select coalesce(max(version), 0) from {ledger}");
    sqlx::query_scalar(AssertSqlSafe(version)).fetch_one(connection).await
}

fn complaint_of_role(role: &str, is_superuser: bool, bypasses: bool, is_owner: bool, names: &Names) -> Option<String> {
    if is_superuser || bypasses {
        let what = if is_superuser { "is a superuser" } else { "has BYPASSRLS" };
        return Some(format!(
            "the role {role:?} {what}, so row security does not apply to it; connect as a role that is neither \
             superuser nor BYPASSRLS"
        ));
    }
    is_owner.then(|| {
        format!(
            "the role {role:?} is, or belongs to, the owner of the table {names}, who may turn row security off; \
             connect as another role"
        )
    })
}

impl Found {
    fn complaint_with_row_security(&self, names: &Names) -> Option<String> {
        let role = &self.role;
        if let Some(complaint) = complaint_of_role(role, self.is_superuser, self.bypasses, self.is_owner, names) {
            return Some(complaint);
        }
        if !self.has_policy || usize::try_from(self.functions) != Ok(FUNCTIONS.len()) {
            return Some(format!(
                "the table {names} has not the policy and the functions for row security as they were made; migrate first, \
                 as its owner (to version 1 and back, if somebody has changed them)"
            ));
        }
        if !self.is_on {
            return Some(format!(
                "row security is not enabled and forced for the table {names}; migrate with row security, as its owner"
            ));
        }
        if self.has_others {
            return Some(format!(
                "the table {names} has another policy that is permissive, and so shows more than its owner's tasks; \
                 drop it, or make it restrictive"
            ));
        }
        if !self.may_use {
            return Some(format!(
                "the role {role:?} lacks privileges on the table {names}, its ledger or its functions; grant them, as the owner"
            ));
        }
        None
    }

    fn complaint_without(&self, names: &Names) -> Option<String> {
        self.is_active.then(|| {
            format!(
                "row security is on for the table {names}, and this store does not use it; turn it on here, too (or off \
                 there, as the owner: alter table {names} no force row level security, disable row level security)"
            )
        })
    }
}
