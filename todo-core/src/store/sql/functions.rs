//! The functions in the database that bind the owner, for row-level security. Each runs the statement of a call.
//!
//! The names end in a digest of the text, so that servers of two versions of this library can work beside each other:
//! `migrate` adds the functions that are missing, and removes those that are two generations old.

use aws_lc_rs::digest::{SHA256, digest};
use sqlx::SqlStr;

use super::{
    columns::{COLUMNS, Kind, Parameter, RECORDS, static_text},
    names::Resolved,
};

/// The type of a column, and of the argument of a function for it.
pub(in crate::store) fn column_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Uuid => "uuid",
        Kind::Bool => "boolean",
        Kind::Small => "smallint",
        Kind::Big => "bigint",
        Kind::Time => "timestamptz",
        Kind::Texts => "text[]",
        Kind::Smalls => "smallint[]",
    }
}

/// What a function returns for each row.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum Rows {
    /// A task.
    Tasks,
    /// The revision of the owner, and a task of a list.
    Listed,
    /// Whether a change was made, and the task.
    Outcomes,
    /// A change.
    Changes,
    /// A task that a request has created.
    Requested,
    /// Whether an id exists, and the number of tasks.
    Taken,
    /// Nothing that matters: the number of rows counts.
    Counted,
    /// One number.
    Number,
    /// A group of a summary.
    Groups,
}

impl Rows {
    /// The columns with their types.
    fn columns(self) -> Vec<(&'static str, &'static str)> {
        let before: &[_] = match self {
            Self::Tasks => &[],
            Self::Listed => &[("revision", "bigint")],
            Self::Outcomes => &[("done", "boolean")],
            Self::Changes => {
                &[("current", "bigint"), ("purged", "bigint"), ("revision", "bigint"), ("gone", "boolean")]
            }
            Self::Requested => &[("request_digest", "bytea"), ("request_place", "smallint")],
            Self::Taken => return vec![("taken", "boolean"), ("tasks", "bigint")],
            Self::Counted => return vec![("done", "boolean")],
            Self::Number => return vec![("number", "bigint")],
            Self::Groups => {
                return vec![("kind", "bigint"), ("name", "text"), ("total", "bigint"), ("open", "bigint")];
            }
        };
        let selected = COLUMNS.iter().filter(|column| column.selected);
        before.iter().copied().chain(selected.map(|column| (column.name, column_type(column.kind)))).collect()
    }

    /// How many rows the planner expects.
    fn estimate(self) -> usize {
        match self {
            Self::Listed | Self::Changes => 100,
            Self::Groups => 20,
            _ => 1,
        }
    }
}

/// A function: what it is for, the types of its arguments, and the statement that it runs, with what is around it.
pub(in crate::store) struct Definition<'a> {
    pub(in crate::store) name: &'static str,
    pub(in crate::store) arguments: Vec<&'static str>,
    pub(in crate::store) rows: Rows,
    pub(in crate::store) statement: &'a str,
    pub(in crate::store) around: (&'a str, &'a str),
}

/// A function of the database.
#[derive(Clone, Debug)]
pub(in crate::store) struct Function {
    name: &'static str,
    /// Its name in the schema, with the digest.
    pub(in crate::store) full_name: String,
    /// Its qualified name with the types of the arguments.
    pub(in crate::store) signature: String,
    /// The statement that creates it.
    pub(in crate::store) create: String,
    call: String,
}

/// The functions of one version of this library.
#[derive(Clone, Debug)]
pub(in crate::store) struct Functions(pub(in crate::store) Vec<Function>);

/// The number of digits of the digest, two for each byte.
const DIGITS: usize = 10;

const BODY: &str = "language plpgsql{rows} as $body$
#variable_conflict use_column
declare
    former constant text := pg_catalog.current_setting('todo.user_id', true);
begin
    perform pg_catalog.set_config('todo.user_id', $1, true);
    {before}return query {statement};{after}
    perform pg_catalog.set_config('todo.user_id', coalesce(former, ''), true);
end $body$";

// Moves all tasks of $1 to $2, as the statements do. Each step binds the owner whose rows it reads or writes. Both owners
// get a row and are locked in the order of their names; a row that was made for nothing is deleted again. The owners are
// bound by `set local`, which Citus passes on to their nodes within a transaction, if it is asked to; it does not pass on
// `set_config`. No variable has a type of the table, since it could not be sent there.
const TRANSFER: &str = "returns table (moved bigint, remaining bigint) language plpgsql rows 1 as $body$
declare
    former constant text := pg_catalog.current_setting('todo.user_id', true);
    pair constant text[] := array[least($1 collate \"C\", $2 collate \"C\"), greatest($1 collate \"C\", $2 collate \"C\")];
    clock constant bigint := extract(epoch from pg_catalog.clock_timestamp()) * 1000000;
    made boolean[] := array[false, false];
    is_made boolean;
    source jsonb;
    copies uuid[];
    passing constant text := pg_catalog.current_setting('citus.propagate_set_commands', true);
begin
    perform pg_catalog.set_config('citus.propagate_set_commands', 'local', true);
    for place in 1..2 loop
        execute pg_catalog.format('set local todo.user_id = %L', pair[place]);
        if place = 1 or pair[1] <> pair[2] then
            insert into {owners} as o (user_id, revision, tasks, purged) values (pair[place], clock - 1, 0, clock - 1)
                on conflict (user_id) do update set revision = o.revision returning o.xmax = 0 into is_made;
            made[place] := is_made;
        end if;
    end loop;
    execute pg_catalog.format('set local todo.user_id = %L', $1);
    source := (select coalesce(pg_catalog.jsonb_agg(t), '[]') from (
        select {copied} from {tasks} where user_id = $1 order by id for update
    ) as t);
    execute pg_catalog.format('set local todo.user_id = %L', $2);
    with inserted as (
        insert into {tasks} (user_id, {copied}) select $2, {of_source} from pg_catalog.jsonb_to_recordset(source) as s ({typed})
            on conflict do nothing returning id
    )
    select coalesce(pg_catalog.array_agg(id), array[]::uuid[]) into copies from inserted;
    execute pg_catalog.format('set local todo.user_id = %L', $1);
    delete from {tasks} where user_id = $1 and id = any (copies);
    moved := pg_catalog.cardinality(copies);
    remaining := pg_catalog.jsonb_array_length(source) - moved;
    for place in 1..2 loop
        if made[place] and moved = 0 then
            execute pg_catalog.format('set local todo.user_id = %L', pair[place]);
            delete from {owners} where user_id = pair[place];
        end if;
    end loop;
    execute pg_catalog.format('set local todo.user_id = %L', coalesce(former, ''));
    perform pg_catalog.set_config('citus.propagate_set_commands', coalesce(passing, ''), true);
    return next;
end $body$";

// Deletes all of $1, as the statements do.
const ERASE: &str = "returns table (erased bigint) language plpgsql rows 1 as $body$
declare
    former constant text := pg_catalog.current_setting('todo.user_id', true);
begin
    perform pg_catalog.set_config('todo.user_id', $1, true);
    erased := 0;
    perform from {owners} where user_id = $1 for update;
    if found then
        delete from {tasks} where user_id = $1;
        get diagnostics erased = row_count;
        delete from {deleted} where user_id = $1;
        delete from {owners} where user_id = $1 and not exists (select from {tasks} where user_id = $1);
    end if;
    perform pg_catalog.set_config('todo.user_id', coalesce(former, ''), true);
    return next;
end $body$";

// The revisions of several owners, each of whom is bound in turn, in the way of `transfer`.
const REVISIONS: &str = "returns setof bigint language plpgsql as $body$
#variable_conflict use_column
declare
    former constant text := pg_catalog.current_setting('todo.user_id', true);
    one text;
    passing constant text := pg_catalog.current_setting('citus.propagate_set_commands', true);
begin
    perform pg_catalog.set_config('citus.propagate_set_commands', 'local', true);
    foreach one in array $1 loop
        execute pg_catalog.format('set local todo.user_id = %L', one);
        return query select coalesce((select revision from {owners} where user_id = one), 0);
    end loop;
    execute pg_catalog.format('set local todo.user_id = %L', coalesce(former, ''));
    perform pg_catalog.set_config('citus.propagate_set_commands', coalesce(passing, ''), true);
end $body$";

impl Functions {
    /// Makes the functions; and four more: one that runs any statement ([`run_template`](Self::run_template)), those
    /// that need several statements, and the one that binds many owners.
    pub(in crate::store) fn new<'a>(names: &Resolved, definitions: impl IntoIterator<Item = Definition<'a>>) -> Self {
        let mut functions: Vec<_> =
            definitions.into_iter().map(|definition| Function::new(names, &definition)).collect();
        functions.push(Function::runner(names));
        functions.push(Function::transfer(names));
        functions.push(Function::finish(
            names,
            "erase",
            "text",
            &names.render(ERASE),
            "select erased from {function}($1)",
        ));
        functions.push(Function::finish(
            names,
            "revisions",
            "text[]",
            &names.render(REVISIONS),
            "select * from {function}($1)",
        ));
        Self(functions)
    }

    fn get(&self, name: &str) -> Option<&Function> {
        self.0.iter().find(|function| function.name == name)
    }

    /// The statement that calls a function with its arguments as parameters.
    pub(in crate::store) fn call(&self, name: &str) -> SqlStr {
        static_text(self.get(name).map(|function| function.call.clone()).unwrap_or_default())
    }

    /// The statement that calls a function with these arguments.
    pub(in crate::store) fn call_with(&self, name: &str, arguments: &str) -> SqlStr {
        let call = self.get(name).map(|function| &*function.call).unwrap_or_default();
        let (before, _) = call.rsplit_once('(').unwrap_or_default();
        static_text(format!("{before}({arguments})"))
    }

    /// The call of the function that runs a statement (`{statement}`) for an owner (`$1`) with an array of texts as
    /// parameters (`$2`), with the columns of its rows (`{row}`). Within the statement they are `$1` and `$2[n]`. Two kinds
    /// of values are not read from a text, which Citus does not accept within an expression: times are `$3[n]`, and several
    /// texts that a change sets are `$4`.
    ///
    /// The function runs with the rights of its caller, so it allows nothing that the caller could not do: the owner is
    /// bound and the policy applies, whatever the statement says.
    pub(in crate::store) fn run_template(&self) -> &str {
        self.get("run").map(|function| &*function.call).unwrap_or_default()
    }
}

impl Function {
    /// Whether its first argument is the one owner whose rows it reads and writes.
    pub(in crate::store) fn is_of_one_owner(&self) -> bool {
        !matches!(self.name, "transfer" | "revisions")
    }

    fn new(names: &Resolved, definition: &Definition<'_>) -> Self {
        let Definition { name, arguments, rows, statement, around: (before, after) } = definition;
        let types = arguments.join(", ");
        let columns = rows.columns();
        let with_types: Vec<_> = columns.iter().map(|(name, kind)| format!("\"{name}\" {kind}")).collect();
        let columns = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let (returns, estimate, returning) = match rows {
            Rows::Counted => ("setof boolean".to_owned(), String::new(), " returning true"),
            _ => (format!("table ({})", with_types.join(", ")), format!(" rows {}", rows.estimate()), ""),
        };
        let columns = if matches!(rows, Rows::Counted) { String::new() } else { columns };
        let body = BODY.replace("{rows}", &estimate).replace("{statement}", &format!("{statement}{returning}"));
        let body = body.replace("{before}", before).replace("{after}", after);
        let numbers: Vec<_> = (1..=arguments.len()).map(|number| format!("${number}")).collect();
        let mut call = format!("select {columns} from {{function}}({})", numbers.join(", "));
        if statement.contains(RECORDS) {
            call = format!("{call} as {RECORDS}");
        }
        Self::finish(names, name, &types, &format!("returns {returns} {body}"), &call)
    }

    fn runner(names: &Resolved) -> Self {
        let body = BODY.replace("{rows}", "").replace("{statement}", "execute $5 using $1, $2, $3, $4");
        let body = body.replace("{before}", "").replace("{after}", "");
        let call = "select * from {function}($1, $2, $3, $4, {statement}) as t ({row})";
        Self::finish(
            names,
            "run",
            "text, text[], timestamptz[], text[], text",
            &format!("returns setof record {body}"),
            call,
        )
    }

    fn transfer(names: &Resolved) -> Self {
        let copied: Vec<_> = COLUMNS.iter().skip(1).map(|column| column.name).collect();
        let of_source: Vec<_> = copied.iter().map(|name| format!("s.{name}")).collect();
        let typed: Vec<_> =
            COLUMNS.iter().skip(1).map(|column| format!("{} {}", column.name, column_type(column.kind))).collect();
        let parts =
            [("copied", &*copied.join(", ")), ("of_source", &*of_source.join(", ")), ("typed", &*typed.join(", "))];
        let rest = names.render_with(TRANSFER, &parts);
        Self::finish(names, "transfer", "text, text", &rest, "select moved, remaining from {function}($1, $2)")
    }

    fn finish(names: &Resolved, name: &'static str, types: &str, rest: &str, call: &str) -> Self {
        let text = format!("({types}) {rest}");
        let digest = digest(&SHA256, text.as_bytes());
        let start = digest.as_ref().iter().take(DIGITS / 2);
        let full_name = start.fold(format!("{}_{name}_", names.table), |name, byte| format!("{name}{byte:02x}"));
        let qualified = format!("{}.\"{full_name}\"", names.render("\"{schema}\""));
        Self {
            name,
            signature: format!("{qualified}({types})"),
            create: format!("create function {qualified}{text}"),
            call: call.replace("{function}", &qualified),
            full_name,
        }
    }
}

/// The types of the columns, as the arguments of a function.
pub(in crate::store) fn row_types() -> Vec<&'static str> {
    COLUMNS.iter().map(|column| column_type(column.kind)).collect()
}

/// The types of the parameters of a change, as the arguments of a function.
pub(in crate::store) fn change_types(parameters: &[Parameter]) -> Vec<&'static str> {
    parameters.iter().map(|(_, kind)| column_type(*kind)).collect()
}
