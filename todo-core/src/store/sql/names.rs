use std::fmt;

/// The names of the schema and the table in the host's database.
///
/// By default the table is `"todo"."tasks"` in PostgreSQL, and `"todo_tasks"` in SQLite, which has no schemas. The
/// ledger of the migrations and two more tables have the same name with the endings `_migrations`, `_owners` and
/// `_deleted`. So the host's own tables and sqlx migrations are not touched, and stores with different names are
/// independent of each other in one database.
///
/// ```
/// use todo_core::store::Names;
///
/// let names = Names::new("billing", "reminders")?;
/// assert!(Names::new("billing", "tasks; drop table users").is_err());
/// # Ok::<(), todo_core::store::InvalidName>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Names {
    schema: String,
    table: String,
}

/// A name that is not allowed: it must have 1 to 30 characters, only `a` to `z`, `0` to `9` and `_`, and must not begin
/// with a digit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name {0:?} must have 1 to 30 characters, only a-z, 0-9 and _, and must not begin with a digit")]
pub struct InvalidName(String);

impl Default for Names {
    fn default() -> Self {
        Self { schema: "todo".to_owned(), table: "tasks".to_owned() }
    }
}

impl Names {
    /// Makes names from those of the schema and the table.
    ///
    /// # Errors
    ///
    /// One of them does not have 1 to 30 characters of `a` to `z`, `0` to `9` and `_`, or begins with a digit.
    /// (PostgreSQL truncates names after 63 bytes, and the names of indexes and functions are longer than these.)
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Result<Self, InvalidName> {
        let check = |name: String| {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            let allowed = (1..=30).contains(&name.len())
                && name.bytes().all(plain)
                && !name.as_bytes().first().is_some_and(u8::is_ascii_digit);
            if allowed { Ok(name) } else { Err(InvalidName(name)) }
        };
        Ok(Self { schema: check(schema.into())?, table: check(table.into())? })
    }

    /// Returns the name of the PostgreSQL schema.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Returns the name of the table within the schema.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    pub(in crate::store) fn resolve(&self, dialect: Dialect) -> Resolved {
        match dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => Resolved {
                schema: self.schema.clone(),
                table: self.table.clone(),
                tasks: format!(r#""{}"."{}""#, self.schema, self.table),
                owners: format!(r#""{}"."{}_owners""#, self.schema, self.table),
                deleted: format!(r#""{}"."{}_deleted""#, self.schema, self.table),
                ledger: format!(r#""{}"."{}_migrations""#, self.schema, self.table),
            },
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => {
                let table = format!("{}_{}", self.schema, self.table);
                let of = |ending: &str| format!(r#""{table}{ending}""#);
                let (tasks, owners, deleted, ledger) = (of(""), of("_owners"), of("_deleted"), of("_migrations"));
                Resolved { schema: String::new(), tasks, owners, deleted, ledger, table }
            }
        }
    }
}

/// A dialect of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Dialect {
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "sqlite")]
    Sqlite,
}

/// The names as statements contain them: qualified and quoted, so that no search path matters.
#[derive(Clone, Debug)]
pub(in crate::store) struct Resolved {
    /// The name of the schema without quotes; empty for SQLite.
    schema: String,
    /// The name of the table without quotes, with which the names of indexes and functions begin.
    pub(in crate::store) table: String,
    pub(in crate::store) tasks: String,
    /// A row for each owner, with the revision.
    pub(in crate::store) owners: String,
    /// What is left of deleted tasks.
    deleted: String,
    pub(in crate::store) ledger: String,
}

impl Resolved {
    /// Puts the names into a template.
    pub(in crate::store) fn render(&self, template: &str) -> String {
        self.render_with(template, &[])
    }

    /// Puts the names and other values into a template, in one pass: a placeholder within a value stays as it is.
    pub(in crate::store) fn render_with(&self, template: &str, values: &[(&str, &str)]) -> String {
        let names = [
            ("tasks", &*self.tasks),
            ("owners", &*self.owners),
            ("deleted", &*self.deleted),
            ("schema", &*self.schema),
            ("table", &*self.table),
        ];
        let value = |name| values.iter().chain(&names).find(|(known, _)| *known == name).map(|(_, value)| *value);
        let mut rendered = String::with_capacity(2 * template.len());
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            rendered.push_str(before);
            let placeholder = after.split_once('}').and_then(|(name, after)| Some((value(name)?, after)));
            rest = match placeholder {
                Some((value, after)) => {
                    rendered.push_str(value);
                    after
                }
                None => {
                    rendered.push('{');
                    after
                }
            };
        }
        rendered.push_str(rest);
        rendered
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_end_their_quotes_are_rejected() {
        for wrong in ["", "1a", "Tasks", "ta-sks", "ta\"sks", "ta.sks", "ta sks", "tåsks", "x\0", &"x".repeat(31)] {
            assert!(Names::new(wrong, "tasks").is_err(), "{wrong:?}");
            assert!(Names::new("todo", wrong).is_err(), "{wrong:?}");
        }
        assert!(Names::new("_", "select").is_ok());
    }

    #[test]
    fn a_value_is_not_searched_for_placeholders() {
        #[cfg(feature = "postgres")]
        let (dialect, tasks) = (Dialect::Postgres, r#""todo"."tasks""#);
        #[cfg(not(feature = "postgres"))]
        let (dialect, tasks) = (Dialect::Sqlite, r#""todo_tasks""#);
        let names = Names::default().resolve(dialect);
        let rendered = names.render_with("grant {tasks} to {role}, {unknown} {", &[("role", "{tasks}{role}{")]);
        assert_eq!(rendered, format!("grant {tasks} to {{tasks}}{{role}}{{, {{unknown}} {{"));
    }
}
