//! The functions for row-level security, in the database.

use sqlx::{AssertSqlSafe, PgConnection};

use super::super::sql::{
    functions::Function,
    names::{Dialect, Names},
    statements::Statements,
};

/// Finds functions of this library's, of any version: their names end in the digits of a digest.
const OUR_FUNCTIONS: &str = "select p.oid, p.proname, \
        coalesce(substring(obj_description(p.oid, 'pg_proc') from 'generation (\\d+)$')::bigint, 0) as generation \
    from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace \
    where n.nspname = $1 and p.proname ~ ('^' || $2 || '_[a-z_]+_[0-9a-f]{10}$')";

/// The functions of this version that the database does not have.
pub(super) async fn missing_functions(
    connection: &mut PgConnection,
    names: &Names,
) -> Result<Vec<Function>, sqlx::Error> {
    let found = format!("select proname::text from ({OUR_FUNCTIONS}) as f");
    let found: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(found)).bind(names.schema()).bind(names.table()).fetch_all(connection).await?;
    let mut functions = Statements::render(Dialect::Postgres, names.clone()).functions().0;
    functions.retain(|function| !found.contains(&function.full_name));
    Ok(functions)
}

/// Adds the functions that are missing, with the privileges of the table, and drops those that were replaced two
/// generations ago: servers of the version before still use theirs.
pub(super) async fn add_functions(connection: &mut PgConnection, names: &Names) -> Result<(), sqlx::Error> {
    let missing = missing_functions(&mut *connection, names).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let newest = format!("select coalesce(max(generation), 0) from ({OUR_FUNCTIONS}) as f");
    let newest: i64 = sqlx::query_scalar(AssertSqlSafe(newest))
        .bind(names.schema())
        .bind(names.table())
        .fetch_one(&mut *connection)
        .await?;
    let roles = roles(connection, names).await?;
    for function in &missing {
        let Function { signature, create, .. } = function;
        let mut statements = format!("{create}; revoke all on function {signature} from public;");
        for role in &roles {
            statements = format!("{statements} grant execute on function {signature} to {role};");
        }
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *connection).await?;
    }
    let generation = newest + 1;
    for function in &Statements::render(Dialect::Postgres, names.clone()).functions().0 {
        let comment = format!("comment on function {} is 'todo-core, generation {generation}'", function.signature);
        sqlx::raw_sql(AssertSqlSafe(comment)).execute(&mut *connection).await?;
    }
    drop_functions(connection, names, &format!("generation < {newest}")).await
}

/// The roles that may call the functions, quoted: who may change the table, other than its owner, has been granted what
/// `grant_to` grants.
pub(super) async fn roles(connection: &mut PgConnection, names: &Names) -> Result<Vec<String>, sqlx::Error> {
    let roles = "select distinct quote_ident(r.rolname) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace \
        cross join lateral aclexplode(c.relacl) as a join pg_roles as r on r.oid = a.grantee \
        where n.nspname = $1 and c.relname = $2 and a.privilege_type = 'INSERT' and a.grantee <> c.relowner";
    sqlx::query_scalar(roles).bind(names.schema()).bind(names.table()).fetch_all(connection).await
}

/// Drops the functions of this library's, of any version, for which a condition is true.
pub(super) async fn drop_functions(
    connection: &mut PgConnection,
    names: &Names,
    condition: &str,
) -> Result<(), sqlx::Error> {
    let old = format!("select oid::regprocedure::text from ({OUR_FUNCTIONS}) as f where {condition}");
    let old: Vec<String> = sqlx::query_scalar(AssertSqlSafe(old))
        .bind(names.schema())
        .bind(names.table())
        .fetch_all(&mut *connection)
        .await?;
    for function in old {
        sqlx::raw_sql(AssertSqlSafe(format!("drop function {function}"))).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Executes a statement with the names put in, which are validated.
pub(super) async fn execute(connection: &mut PgConnection, names: &Names, template: &str) -> Result<(), sqlx::Error> {
    let statement = names.resolve(Dialect::Postgres).render(template);
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(|_| ())
}
