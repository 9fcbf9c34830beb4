//! Every statement names the owner for every table: it is parsed, and each of its references to a table of ours must
//! have a predicate of its own, or be the target of an insert whose first column is the owner.
//!
//! Then a statement returns nothing of another owner, whatever is joined; an index serves every part of it; and Citus
//! sends the statement of a single call to the one node with the rows of its owner, since each table has `user_id = $1`
//! itself. It does not follow equality from one table to the next in every case.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use regex::Regex;
use sqlparser::{
    ast::{
        BinaryOperator, Delete, Expr, FromTable, Insert, JoinConstraint, JoinOperator, ObjectName, Query, Select,
        SelectItem, SetExpr, Statement, TableFactor, TableObject, TableWithJoins, UpdateTableFromKind, Visit as _,
        Visitor,
    },
    dialect::PostgreSqlDialect,
    parser::Parser,
};

use super::{
    names::{Dialect, Names},
    statements::{Scope, Statements},
};
use crate::{
    Due, DueFilter, ListName, NewTask, Priority, Sort, Tag, Task, TaskFilter, TaskQuery, Title, UserId,
    clock::Timestamp,
};

/// Statements that need not name an owner, and why.
const EXCEPTIONS: [(&str, &str); 6] = [
    ("expire", "for operators, of all owners in a range"),
    ("owners", "for operators, of all owners after one"),
    ("has_tasks", "for migrations, which ask for any task"),
    ("lock", "takes the write lock of SQLite, and means no row"),
    ("ping", "reads no row"),
    ("revisions_of_shards", "for live updates, of many owners at once"),
];

/// What a predicate may compare the owner with.
fn owners(name: &str, scope: Scope) -> &'static [&'static str] {
    match (name, scope) {
        // Of several owners, each with a row of its own in `k`.
        ("revisions" | "transfer_lock", _) => &["k.user_id", "k.value"],
        // Or of the rows that the statement has added (`a`) or changed (`c`), or of the row of the owner (`o`).
        (_, Scope::Batch) => &["k.user_id", "a.user_id", "c.user_id", "o.user_id"],
        // The second parameter is the new owner.
        ("transfer", _) => &["$1", "$2"],
        _ => &["$1"],
    }
}

/// A reference to a table, by the name that columns have before them.
#[derive(Debug)]
struct Reference {
    table: String,
    alias: String,
}

/// Goes through a statement.
struct Check<'a> {
    owners: &'a [&'a str],
    /// The references that were compared with predicates, and those that the parser knows.
    checked: usize,
    known: usize,
    problems: Vec<String>,
}

impl Check<'_> {
    /// The tables of ours, without their schema.
    const OURS: [&'static str; 6] =
        ["tasks", "tasks_owners", "tasks_deleted", "todo_tasks", "todo_tasks_owners", "todo_tasks_deleted"];

    fn ours(name: &ObjectName) -> Option<String> {
        let name = name.0.last()?.as_ident()?.value.clone();
        Self::OURS.contains(&&*name).then_some(name)
    }

    /// Compares the tables of one `from` with the conditions that hold for it.
    fn compare(&mut self, tables: &[&TableWithJoins], selection: Option<&Expr>) {
        let mut references = Vec::new();
        let mut conditions = Vec::new();
        let mut collect = |factor: &TableFactor| {
            if let TableFactor::Table { name, alias, .. } = factor
                && let Some(table) = Self::ours(name)
            {
                let alias = alias.as_ref().map_or_else(|| table.clone(), |alias| alias.name.value.clone());
                references.push(Reference { table, alias });
            }
        };
        for table in tables {
            collect(&table.relation);
            for join in &table.joins {
                collect(&join.relation);
                if let JoinOperator::Join(on)
                | JoinOperator::Inner(on)
                | JoinOperator::Left(on)
                | JoinOperator::LeftOuter(on) = &join.join_operator
                    && let JoinConstraint::On(on) = on
                {
                    conjuncts(on, &mut conditions);
                }
            }
        }
        if let Some(selection) = selection {
            conjuncts(selection, &mut conditions);
        }
        self.checked += references.len();
        let is_alone = references.len() == 1;
        for Reference { table, alias } in references {
            let is_named = conditions.iter().any(|condition| {
                let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = condition else { return false };
                let is_own = match &**left {
                    Expr::Identifier(column) => is_alone && column.value == "user_id",
                    Expr::CompoundIdentifier(parts) => {
                        matches!(&**parts, [.., of, column] if of.value == alias && column.value == "user_id")
                    }
                    _ => false,
                };
                is_own && self.owners.contains(&&*right.to_string())
            });
            if !is_named {
                self.problems.push(format!("{table} as {alias} has no owner"));
            }
        }
    }

    /// The first column of an insert is the owner.
    fn insert(&mut self, insert: &Insert) {
        let TableObject::TableName(name) = &insert.table else { return };
        let Some(table) = Self::ours(name) else { return };
        self.checked += 1;
        let is_first = insert.columns.first().is_some_and(|column| column.to_string() == "user_id");
        let value = insert.source.as_ref().and_then(|source| first_value(&source.body));
        let is_owner = value.is_some_and(|value| self.owners.contains(&&*without_cast(value).to_string()));
        if !(is_first && is_owner) {
            self.problems.push(format!("a row of {table} is inserted without its owner"));
        }
    }
}

/// The parts of a condition that all hold.
fn conjuncts<'a>(condition: &'a Expr, into: &mut Vec<&'a Expr>) {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(left, into);
            conjuncts(right, into);
        }
        Expr::Nested(inner) => conjuncts(inner, into),
        condition => into.push(condition),
    }
}

fn first_value(rows: &SetExpr) -> Option<&Expr> {
    match rows {
        SetExpr::Select(select) => match select.projection.first()? {
            SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. } => Some(value),
            _ => None,
        },
        SetExpr::Values(values) => values.rows.first()?.content.first(),
        _ => None,
    }
}

fn without_cast(value: &Expr) -> &Expr {
    if let Expr::Cast { expr, .. } = value { without_cast(expr) } else { value }
}

impl Visitor for Check<'_> {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.known += usize::from(Self::ours(relation).is_some());
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        self.compare(&select.from.iter().collect::<Vec<_>>(), select.selection.as_ref());
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        match statement {
            Statement::Insert(insert) => self.insert(insert),
            Statement::Update(update) => {
                let from = match &update.from {
                    Some(UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from)) => &**from,
                    None => &[],
                };
                let tables: Vec<_> = std::iter::once(&update.table).chain(from).collect();
                self.compare(&tables, update.selection.as_ref());
            }
            Statement::Delete(Delete { from, using, selection, .. }) => {
                let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = from;
                let tables: Vec<_> = from.iter().chain(using.iter().flatten()).collect();
                self.compare(&tables, selection.as_ref());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// What is wrong with a statement, and the number of its tables.
fn problems(sql: &str, owners: &[&str]) -> (Vec<String>, usize) {
    // The parser knows two of the four strengths of locks; and of SQLite's dialect less than its statements contain.
    let sql = sql.replace("for no key update", "for update");
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, &sql);
    let parsed = parsed.unwrap_or_else(|error| panic!("{error}: {sql}"));
    let mut check = Check { owners, checked: 0, known: 0, problems: Vec::new() };
    let _ = parsed.visit(&mut check);
    assert_eq!(check.checked, check.known, "each reference is found, and compared once: {sql}");
    (check.problems, check.known)
}

/// The statement without one of its predicates on the owner, for each of them.
fn without_predicate(sql: &str) -> Vec<String> {
    let predicate =
        Regex::new(r"(\b[a-z]\.)?\buser_id = (\$1|k\.user_id|k\.value|pair\[place\]|one)").expect("a pattern");
    let removed = |found: regex::Match<'_>| format!("{}true{}", &sql[..found.start()], &sql[found.end()..]);
    predicate.find_iter(sql).map(removed).collect()
}

/// The statements with filters: every order from the beginning and from a task on, without a filter and with all.
fn selections(statements: &Statements, dialect: Dialect) -> Vec<(String, String)> {
    let title = Title::new("Buy milk").expect("a title");
    let owner = UserId::new("ann").expect("a user");
    let now = Timestamp::from_unix_seconds(1);
    let task = NewTask::new(title).into_task(owner, uuid::Uuid::nil().into(), now);
    let due: Due = "2026-01-01".parse().expect("a day");
    let last = Task { priority: Some(Priority::High), due: Some(due.clone()), ..task.clone() };
    let filter = TaskFilter::new()
        .completed(true)
        .list(ListName::new("Home").ok())
        .tag(Tag::new("home").expect("a tag"))
        .priority(Priority::High)
        .due(DueFilter::Between { from: Some(due.clone()), before: Some(due) })
        .updated_since(now)
        .text("milk");
    let made = &statements.selections;
    let mut all = Vec::new();
    for filter in [TaskFilter::new(), filter] {
        for sort in Sort::ALL {
            let query = TaskQuery::new().sort(sort).filter(filter.clone());
            let from = [None, Some(query.cursor_after(&task)), Some(query.cursor_after(&last))];
            for (place, cursor) in from.into_iter().enumerate() {
                let name = format!("list by {sort:?} from {place}, filter {}", !filter.is_empty());
                all.push((name, made.list(&query.clone().cursor(cursor)).as_str().to_owned()));
            }
        }
        let change = match dialect {
            Dialect::Postgres => made.update_counted(&filter).as_str().to_owned(),
            Dialect::Sqlite => made.update(&filter),
        };
        all.extend([
            ("count".to_owned(), made.count(&filter).as_str().to_owned()),
            ("change of matching".to_owned(), change),
            ("deletion of matching".to_owned(), made.delete(&filter).as_str().to_owned()),
        ]);
    }
    all
}

/// The statements in the body of a function. What surrounds them is not SQL.
fn statements_of_function(create: &str) -> Vec<String> {
    let body = create.split("$body$").nth(1).expect("a body");
    let (_, body) = body.split_once("\nbegin\n").expect("a block");
    // The condition of an `if` is a statement of its own.
    let condition = Regex::new(r"\bif ([^;]*?)\s+then\b").expect("a pattern");
    let body = condition.replace_all(body, "select $1;");
    let into = Regex::new(r" into (is_made|copies)\b").expect("a pattern");
    let first = Regex::new(r"\b(with|select|insert|update|delete|perform)\b").expect("a pattern");
    let of_ours = |statement: &&str| statement.contains(r#""todo"."tasks"#);
    let cut = |statement: &str| {
        let start = first.find(statement).expect("a statement").start();
        let statement = statement[start..].replacen("perform", "select", 1);
        // The rest of an assignment: source := array(..).
        let statement = if statement.matches('(').count() < statement.matches(')').count() {
            statement.trim_end().trim_end_matches(')').to_owned()
        } else {
            statement
        };
        into.replace_all(&statement, "").into_owned()
    };
    body.split(';').filter(of_ours).map(cut).collect()
}

/// All statements by their names, with what they may compare the owner with.
fn all_statements(dialect: Dialect) -> Vec<(String, String, &'static [&'static str])> {
    let mut statements = Statements::render(dialect, Names::default());
    let mut all: Vec<_> =
        selections(&statements, dialect).into_iter().map(|(name, sql)| (name, sql, owners("", Scope::Call))).collect();
    if dialect == Dialect::Postgres {
        for function in statements.functions().0 {
            for sql in statements_of_function(&function.create) {
                // Each of these binds the owners in turn.
                let owners: &[_] = match function.full_name.rsplit_once('_').map(|(name, _)| name) {
                    Some("tasks_transfer") => &["$1", "$2", "pair[place]"],
                    Some("tasks_revisions") => &["one"],
                    _ => &["$1"],
                };
                all.push((function.full_name.clone(), sql, owners));
            }
        }
    }
    for (name, scope, sql) in statements.all_mut(dialect) {
        // A part of a statement, and one that reads no table.
        if !["insert_rows", "row", "ping_of_shards"].contains(&name) {
            all.push((name.to_owned(), sql.as_str().to_owned(), owners(name, scope)));
        }
    }
    if dialect == Dialect::Postgres {
        all.push(("insert_rows".to_owned(), statements.insert_rows(2).as_str().to_owned(), &["$1"]));
    }
    all
}

#[test]
fn every_table_in_every_statement_names_its_owner() {
    for (dialect, least) in [(Dialect::Postgres, 120), (Dialect::Sqlite, 80)] {
        let mut tables = BTreeMap::new();
        let mut excepted = BTreeSet::new();
        for (name, sql, owners) in all_statements(dialect) {
            let (problems, count) = problems(&sql, owners);
            if EXCEPTIONS.iter().any(|(exception, _)| *exception == name) {
                assert!(!problems.is_empty(), "{name} is no exception any more");
                excepted.insert(name);
                continue;
            }
            assert!(problems.is_empty(), "{dialect:?}, {name}: {problems:?}\n{sql}");
            assert!(count > 0, "{name} has no table");
            *tables.entry(name).or_insert(0) += count;
        }
        let count: usize = tables.values().sum();
        assert!(count >= least, "only {count} tables were found");
        assert_eq!(excepted.len(), 5, "{excepted:?}");
    }
}

#[test]
fn a_statement_that_loses_one_predicate_is_noticed() {
    for (dialect, least) in [(Dialect::Postgres, 120), (Dialect::Sqlite, 70)] {
        let mut tried = 0;
        for (name, sql, owners) in all_statements(dialect) {
            for weakened in without_predicate(&sql) {
                let (problems, _) = problems(&weakened, owners);
                assert!(!problems.is_empty(), "{dialect:?}, {name} is not noticed:\n{weakened}");
                tried += 1;
            }
        }
        assert!(tried >= least, "only {tried} predicates were removed");
    }
}

#[test]
fn a_predicate_of_another_table_or_under_an_or_does_not_count() {
    for (sql, tables) in [
        ("select from tasks_owners as o, tasks as t where o.user_id = $1 and t.user_id = o.user_id", 1),
        ("select from tasks where user_id = $1 or completed", 1),
        ("select from tasks where user_id <> $1", 1),
        ("select from tasks where user_id = $1 and id in (select id from tasks_deleted)", 1),
        ("delete from tasks as t using tasks_owners as o where t.user_id = $1", 1),
        ("update tasks as t set title = '' from tasks_owners as o where o.user_id = $1", 1),
        ("insert into tasks (user_id, id) select 'ann', $1", 1),
        ("insert into tasks (id, user_id) select $1, $2", 1),
        ("with gone as (delete from tasks where id = $2) delete from tasks_deleted where user_id = $1", 1),
        ("select from tasks_owners as o left join tasks as t on t.user_id = $1 where o.user_id = $1", 0),
    ] {
        assert_eq!(problems(sql, &["$1"]).0.len(), tables, "{sql}");
    }
}
