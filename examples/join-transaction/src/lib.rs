//! Rows of a host and tasks in one transaction: both are there, or neither is.
//!
//! ```sh
//! cargo run -p join-transaction                                                   # on SQLite, in a temporary file
//! DATABASE_URL=postgres://user@localhost/database cargo run -p join-transaction   # on PostgreSQL
//! ```
//!
//! The host keeps a list of employees. Whoever is hired finds a checklist for the first day among their tasks; and an
//! employee without checklist, or a checklist without employee, must never be.
//!
//! The way, the same on both databases: the host begins a transaction and writes what is its own; hands the
//! transaction to the store (`in_transaction`), which returns a store like any other for it;
//! [`TodoService::with_store`] puts the rules of its service over that store; and when the tasks are written, the host takes
//! the transaction back, and commits or rolls back.

use std::{error::Error, str::FromStr as _, time::Duration};

use sqlx::{
    Executor as _, PgPool, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use todo_core::{
    NewTask, Task, TaskQuery, Title, TodoService, UserId,
    store::{PostgresInTransaction, PostgresStore, SqliteInTransaction, SqliteStore},
};

/// Whatever may go wrong.
pub type BoxError = Box<dyn Error + Send + Sync>;

const INSERT: &str = "insert into employees (name) values ($1) returning id";

/// The employees of the host, and the tasks that they have.
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
    /// Opens the database at this URL, and makes the host's table and ours if they are not there.
    ///
    /// # Errors
    ///
    /// The database cannot be opened, or does not do as it is told.
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

    /// Hires somebody with a checklist, in a transaction that waits for [`Hiring::commit`] or [`Hiring::rollback`].
    ///
    /// # Errors
    ///
    /// An entry of the checklist can be no title, or the database does not do as it is told. The transaction is rolled
    /// back then.
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

    /// Who is employed: what their tasks are kept under, and their names.
    ///
    /// # Errors
    ///
    /// The database does not do as it is told.
    pub async fn employees(&self) -> Result<Vec<(UserId, String)>, BoxError> {
        let select = "select id, name from employees order by id";
        let rows: Vec<(i64, String)> = match &self.database {
            Database::Sqlite(pool, _) => sqlx::query_as(select).fetch_all(pool).await?,
            Database::Postgres(pool, _) => sqlx::query_as(select).fetch_all(pool).await?,
        };
        rows.into_iter().map(|(id, name)| Ok((user_id(id)?, name))).collect()
    }

    /// The newest tasks of an employee.
    ///
    /// # Errors
    ///
    /// The database does not do as it is told.
    pub async fn tasks(&self, employee: &UserId) -> Result<Vec<Task>, BoxError> {
        Ok(self.tasks.for_user(employee.clone()).list(&TaskQuery::default()).await?.tasks)
    }
}

fn user_id(id: i64) -> Result<UserId, BoxError> {
    Ok(UserId::new(format!("employee-{id}"))?)
}

/// Somebody who is hired as soon as the transaction is committed. Dropped, it is rolled back.
#[derive(Debug)]
pub struct Hiring {
    /// What the tasks of the new employee are kept under.
    pub employee: UserId,
    joined: Joined,
}

/// The host's transaction, with the store that has joined it.
#[derive(Debug)]
enum Joined {
    Sqlite(SqliteInTransaction),
    Postgres(PostgresInTransaction),
}

impl Hiring {
    /// The employee and the tasks are there from now on.
    ///
    /// # Errors
    ///
    /// The database does not do as it is told.
    pub async fn commit(self) -> Result<(), BoxError> {
        match self.joined {
            Joined::Sqlite(store) => store.take().await.ok_or(TAKEN)?.commit().await?,
            Joined::Postgres(store) => store.take().await.ok_or(TAKEN)?.commit().await?,
        }
        Ok(())
    }

    /// Neither the employee nor the tasks have ever been there.
    ///
    /// # Errors
    ///
    /// The database does not do as it is told.
    pub async fn rollback(self) -> Result<(), BoxError> {
        match self.joined {
            Joined::Sqlite(store) => store.take().await.ok_or(TAKEN)?.rollback().await?,
            Joined::Postgres(store) => store.take().await.ok_or(TAKEN)?.rollback().await?,
        }
        Ok(())
    }
}

const TAKEN: &str = "the transaction was taken back before";
