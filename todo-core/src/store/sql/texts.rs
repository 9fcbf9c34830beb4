//! The text of every statement on PostgreSQL, for tests that ask a database for its plan.

use super::{
    names::{Dialect, Names},
    selection::Selections,
    statements::{Scope, Statements},
};
use crate::{
    Cursor, DueFilter, ListName, Priority, Sort, SortKey, Tag, TaskFilter, TaskId, TaskQuery, clock::Timestamp,
};

/// Every statement for one call with these names, and its name.
pub(crate) fn texts(names: Names) -> Vec<(String, String)> {
    let mut statements = Statements::render(Dialect::Postgres, names);
    let mut texts = selections(&statements.selections);
    texts.push(("insert_rows".to_owned(), statements.insert_rows(3).as_str().to_owned()));
    let all = statements.all_mut(Dialect::Postgres).into_iter();
    // The parts of `insert_rows`.
    let whole = all.filter(|(name, scope, _)| *scope != Scope::Batch && !["insert_rows", "row"].contains(name));
    texts.extend(whole.map(|(name, _, sql)| (name.to_owned(), sql.as_str().to_owned())));
    texts
}

/// The statements with filters: each condition, in each order, on a first and on a later page.
fn selections(selections: &Selections) -> Vec<(String, String)> {
    let time = Timestamp::from_unix_seconds(1);
    let filters = filters();
    let mut texts = Vec::new();
    for sort in Sort::ALL {
        let query = TaskQuery::new().filter(filters[0].clone()).sort(sort);
        let id = TaskId::from(uuid::Uuid::from_u128(1));
        let key = match sort {
            Sort::NewestFirst | Sort::OldestFirst => SortKey::None,
            Sort::Due | Sort::DueDescending | Sort::Updated | Sort::UpdatedDescending => SortKey::Time(time),
            Sort::Priority => SortKey::Number(1),
            Sort::Title | Sort::Position | Sort::PositionDescending => SortKey::Text("a0".into()),
        };
        let mut add = |page: &str, query: &TaskQuery| {
            texts.push((format!("list by {sort:?}, {page}"), selections.list(query).as_str().to_owned()));
        };
        add("first page", &query);
        add("a later page", &query.clone().cursor(Cursor::new(sort, 0, key, id)));
        add("the last page", &query.clone().cursor(Cursor::new(sort, 0, SortKey::None, id)));
    }
    for (number, filter) in filters.iter().enumerate() {
        texts.push((format!("list of filter {number}"), {
            let query = TaskQuery::new().filter(filter.clone()).sort(Sort::Due);
            selections.list(&query).as_str().to_owned()
        }));
        texts.push((format!("count of filter {number}"), selections.count(filter).as_str().to_owned()));
        texts.push((format!("update of filter {number}"), selections.update_counted(filter).as_str().to_owned()));
        texts.push((format!("delete of filter {number}"), selections.delete(filter).as_str().to_owned()));
    }
    texts
}

/// No filter, one of everything, and tasks that are never due.
fn filters() -> [TaskFilter; 3] {
    let due = |text: &str| crate::Due::new(text).ok();
    let mut all = TaskFilter::new()
        .completed(true)
        .list(None)
        .text("text")
        .due(DueFilter::Between { from: due("2026-01-01"), before: due("2026-02-01") });
    all = all.updated_since(Timestamp::from_unix_seconds(1)).priority(Priority::High);
    all.lists.extend(ListName::new("Home").ok().map(Some));
    all.tags.extend(Tag::new("garden").ok());
    [TaskFilter::new(), all, TaskFilter::new().due(DueFilter::Never)]
}
