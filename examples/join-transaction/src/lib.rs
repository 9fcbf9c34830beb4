//! Writes rows of a host and tasks in one transaction: both are committed, or neither.
//!
//! ```sh
//! cargo run -p join-transaction                                                   # on SQLite, in a temporary file
//! DATABASE_URL=postgres://user@localhost/database cargo run -p join-transaction   # on PostgreSQL
//! ```
//!
//! The host has a table of employees. A new employee gets a checklist for the first day as tasks. An employee without a
//! checklist, or a checklist without an employee, must never exist.
//!
//! The steps are the same with both databases:
//!
//! 1. The host begins a transaction and writes its own row.
//! 2. It passes the transaction to the `in_transaction` method of its store, which returns a store for the transaction.
//! 3. [`TodoService::with_store`] returns a service over that store, with which the host creates the tasks.
//! 4. The host takes the transaction back and commits it or rolls it back.

use std::{error::Error, str::FromStr as _, time::Duration};

use sqlx::{
    Executor as _, PgPool, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use todo_core::{
    NewTask, Task, TaskQuery, Title, TodoService, UserId,
    store::{PostgresInTransaction, PostgresStore, SqliteInTransaction, SqliteStore},
};

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

const INSERT: &str = "insert into employees (name) values ($1) returning id";

/// The employees of the host and their tasks.
#[derive(Clone, Debug)]
pub struct Staff {
    database: Database,
    tasks: TodoService,
}

#[derive(Clone, Debug)]
enum Database {
    Sqlite(SqlitePool, SqliteStore),
    Postgres(PgPool, PostgresStore),
}

impl Staff {
    /// Opens the database at this URL, and creates the tables of the host and of the tasks if they are missing.
    ///
    /// # Errors
    ///
    /// The database cannot be opened, or it fails.
    pub async fn open(url: &str) -> Result<Self, BoxError> {
        if url.starts_with("sqlite:") {
            let tasks = SqliteStore::from_url(url)?;
            tasks.migrate().await?;
            let options = SqliteConnectOptions::from_str(url)?
                .journal_mode(SqliteJournalMode::Wal)
                .busy_timeout(Duration::from_secs(5));
            let pool = SqlitePool::connect_with(options).await?;
            pool.execute("create table if not exists employees (id integer primary key, name text not null)").await?;
            Ok(Self { database: Database::Sqlite(pool, tasks.clone()), tasks: TodoService::new(tasks) })
        } else {
            let pool = PgPool::connect(url).await?;
            let tasks = PostgresStore::new(pool.clone());
            tasks.migrate().await?;
            pool.execute(
                "create table if not exists employees (
                     id bigint primary key generated always as identity,
                     name text not null
                 )",
            )
            .await?;
            Ok(Self { database: Database::Postgres(pool, tasks.clone()), tasks: TodoService::new(tasks) })
        }
    }

    /// Hires an employee with a checklist, in a transaction that ends with [`Hiring::commit`] or [`Hiring::rollback`].
    ///
    /// # Errors
    ///
    /// An entry of the checklist is not a valid title, or the database fails. The transaction is then rolled back.
    pub async fn hire(&self, name: &str, checklist: &[&str]) -> Result<Hiring, BoxError> {
        let (id, joined): (i64, _) = match &self.database {
            Database::Sqlite(pool, store) => {
                let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
                let id = sqlx::query_scalar(INSERT).bind(name).fetch_one(&mut *transaction).await?;
                (id, Joined::Sqlite(store.in_transaction(transaction).await?))
            }
            Database::Postgres(pool, store) => {
                let mut transaction = pool.begin().await?;
                let id = sqlx::query_scalar(INSERT).bind(name).fetch_one(&mut *transaction).await?;
                (id, Joined::Postgres(store.in_transaction(transaction)))
            }
        };
        let employee = user_id(id)?;
        let service = match &joined {
            Joined::Sqlite(store) => self.tasks.with_store(store.clone()),
            Joined::Postgres(store) => self.tasks.with_store(store.clone()),
        };
        let tasks = service.for_user(employee.clone());
        for entry in checklist {
            tasks.create(NewTask::new(Title::new(*entry)?)).await?;
        }
        Ok(Hiring { employee, joined })
    }

    /// Returns all employees: the owners of their tasks, and their names.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub async fn employees(&self) -> Result<Vec<(UserId, String)>, BoxError> {
        let select = "select id, name from employees order by id";
        let rows: Vec<(i64, String)> = match &self.database {
            Database::Sqlite(pool, _) => sqlx::query_as(select).fetch_all(pool).await?,
            Database::Postgres(pool, _) => sqlx::query_as(select).fetch_all(pool).await?,
        };
        rows.into_iter().map(|(id, name)| Ok((user_id(id)?, name))).collect()
    }

    /// Returns the newest tasks of an employee.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub async fn tasks(&self, employee: &UserId) -> Result<Vec<Task>, BoxError> {
        Ok(self.tasks.for_user(employee.clone()).list(&TaskQuery::default()).await?.tasks)
    }
}

fn user_id(id: i64) -> Result<UserId, BoxError> {
    Ok(UserId::new(format!("employee-{id}"))?)
}

/// A new employee in an open transaction, which is rolled back when this is dropped.
#[derive(Debug)]
pub struct Hiring {
    /// The owner of the tasks of the employee.
    pub employee: UserId,
    joined: Joined,
}

/// The host's transaction, as a store.
#[derive(Debug)]
enum Joined {
    Sqlite(SqliteInTransaction),
    Postgres(PostgresInTransaction),
}

impl Hiring {
    /// Commits the employee and the tasks.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub async fn commit(self) -> Result<(), BoxError> {
        match self.joined {
            Joined::Sqlite(store) => store.take().await.ok_or(TAKEN)?.commit().await?,
            Joined::Postgres(store) => store.take().await.ok_or(TAKEN)?.commit().await?,
        }
        Ok(())
    }

    /// Discards the employee and the tasks.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub async fn rollback(self) -> Result<(), BoxError> {
        match self.joined {
            Joined::Sqlite(store) => store.take().await.ok_or(TAKEN)?.rollback().await?,
            Joined::Postgres(store) => store.take().await.ok_or(TAKEN)?.rollback().await?,
        }
        Ok(())
    }
}

const TAKEN: &str = "the transaction was already taken back";
