//! Todos: tasks of the library, each with an optional position, which the host stores in its own table.

use std::{cmp::Ordering, collections::HashMap, str::FromStr as _, time::Duration};

use sqlx::{
    Executor as _, PgPool, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
    types::Uuid,
};
use todo_core::{
    Error, NewTask, Patch, Task, TaskId, TaskPatch, TaskQuery, TodoService, UserId,
    store::{PostgresInTransaction, PostgresStore, SqliteInTransaction, SqliteStore, StoreError},
};

// The foreign key makes the database delete the position of a deleted task. Before the commit, only the transaction
// that creates a task can insert its position.
const SQLITE_SCHEMA: &str = "create table if not exists todobackend_order (
    user_id text not null,
    task_id blob not null,
    position integer not null,
    primary key (user_id, task_id),
    foreign key (user_id, task_id) references todo_tasks (user_id, id) on delete cascade
) strict, without rowid";

const POSTGRES_SCHEMA: &str = "create table if not exists todobackend_order (
    user_id text not null,
    task_id uuid not null,
    position bigint not null,
    primary key (user_id, task_id),
    foreign key (user_id, task_id) references todo.tasks (user_id, id) on delete cascade
)";

// These statements are the same for both databases.
const ALL: &str = "select task_id, position from todobackend_order where user_id = $1";
const GET: &str = "select position from todobackend_order where user_id = $1 and task_id = $2";
const SET: &str = "insert into todobackend_order (user_id, task_id, position) values ($1, $2, $3)
    on conflict (user_id, task_id) do update set position = excluded.position";
const CLEAR: &str = "delete from todobackend_order where user_id = $1 and task_id = $2";

/// A task and its position.
pub(crate) struct Todo {
    pub(crate) task: Task,
    pub(crate) order: Option<i64>,
}

/// The todos of all users, in a database of the host. Cloning is cheap, and clones share the database.
#[derive(Clone, Debug)]
pub struct Todos {
    database: Database,
    service: TodoService,
}

#[derive(Clone, Debug)]
enum Database {
    Sqlite(SqlitePool, SqliteStore),
    Postgres(PgPool, PostgresStore),
}

impl Todos {
    /// Opens the database at this URL (`sqlite://todos.db`, `postgres://...`) and creates missing tables.
    ///
    /// # Errors
    ///
    /// The database cannot be opened, or it fails.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        if url.starts_with("sqlite:") {
            let store = SqliteStore::from_url(url)?;
            store.migrate().await?;
            let options = SqliteConnectOptions::from_str(url)?
                .journal_mode(SqliteJournalMode::Wal)
                .busy_timeout(Duration::from_secs(5));
            let pool = SqlitePool::connect_with(options).await?;
            pool.execute(SQLITE_SCHEMA).await?;
            Ok(Self { database: Database::Sqlite(pool, store.clone()), service: TodoService::new(store) })
        } else {
            let pool = PgPool::connect(url).await?;
            let store = PostgresStore::new(pool.clone());
            store.migrate().await?;
            pool.execute(POSTGRES_SCHEMA).await?;
            Ok(Self { database: Database::Postgres(pool, store.clone()), service: TodoService::new(store) })
        }
    }

    /// Lists all todos of a user by their order, todos without one last, older before newer.
    pub(crate) async fn list(&self, owner: &UserId) -> Result<Vec<Todo>, Error> {
        let tasks = self.service.for_user(owner.clone());
        let mut all = Vec::new();
        let mut query = TaskQuery::default();
        loop {
            let page = tasks.list(&query).await?;
            all.extend(page.tasks);
            query.cursor = page.next;
            if query.cursor.is_none() {
                break;
            }
        }
        // Read after the tasks, so that the position of each listed task is included.
        let positions = self.positions(owner).await?;
        let todo = |task: Task| Todo { order: positions.get(&task.id.as_uuid()).copied(), task };
        let mut todos: Vec<_> = all.into_iter().map(todo).collect();
        todos.sort_by(|one, other| match (one.order, other.order) {
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (order, others) => order.cmp(&others).then(one.task.id.cmp(&other.task.id)),
        });
        Ok(todos)
    }

    /// Reads a todo of a user.
    pub(crate) async fn get(&self, owner: &UserId, id: TaskId) -> Result<Todo, Error> {
        let task = self.service.for_user(owner.clone()).get(id).await?;
        Ok(Todo { order: self.position(owner, id).await?, task })
    }

    /// Adds a todo.
    pub(crate) async fn add(&self, owner: &UserId, new: NewTask, order: Option<i64>) -> Result<Todo, Error> {
        let joined = self.begin().await?;
        let task = joined.service(&self.service).for_user(owner.clone()).create(new).await?;
        let order = joined.commit(owner, task.id, order.map_or(Patch::Keep, Patch::Set)).await?;
        Ok(Todo { task, order })
    }

    /// Changes a todo.
    pub(crate) async fn change(
        &self,
        owner: &UserId,
        id: TaskId,
        patch: TaskPatch,
        order: Patch<i64>,
    ) -> Result<Todo, Error> {
        let joined = self.begin().await?;
        let task = joined.service(&self.service).for_user(owner.clone()).patch(id, patch).await?;
        let order = joined.commit(owner, id, order).await?;
        Ok(Todo { task, order })
    }

    /// Deletes a todo.
    pub(crate) async fn remove(&self, owner: &UserId, id: TaskId) -> Result<(), Error> {
        self.service.for_user(owner.clone()).delete(id).await
    }

    /// Deletes all todos of a user.
    pub(crate) async fn clear(&self, owner: &UserId) -> Result<(), Error> {
        self.service.for_user(owner.clone()).erase().await.map(drop)
    }

    async fn positions(&self, owner: &UserId) -> Result<HashMap<Uuid, i64>, StoreError> {
        let positions: Vec<(Uuid, i64)> = match &self.database {
            Database::Sqlite(pool, _) => sqlx::query_as(ALL).bind(owner.as_str()).fetch_all(pool).await?,
            Database::Postgres(pool, _) => sqlx::query_as(ALL).bind(owner.as_str()).fetch_all(pool).await?,
        };
        Ok(positions.into_iter().collect())
    }

    async fn position(&self, owner: &UserId, id: TaskId) -> Result<Option<i64>, StoreError> {
        let (owner, id) = (owner.as_str(), id.as_uuid());
        Ok(match &self.database {
            Database::Sqlite(pool, _) => sqlx::query_scalar(GET).bind(owner).bind(id).fetch_optional(pool).await?,
            Database::Postgres(pool, _) => sqlx::query_scalar(GET).bind(owner).bind(id).fetch_optional(pool).await?,
        })
    }

    async fn begin(&self) -> Result<Joined, StoreError> {
        Ok(match &self.database {
            Database::Sqlite(pool, store) => {
                Joined::Sqlite(store.in_transaction(pool.begin_with("BEGIN IMMEDIATE").await?).await?)
            }
            Database::Postgres(pool, store) => Joined::Postgres(store.in_transaction(pool.begin().await?)),
        })
    }
}

/// A transaction of the host, as a store. It is rolled back when this is dropped before the commit.
enum Joined {
    Sqlite(SqliteInTransaction),
    Postgres(PostgresInTransaction),
}

impl Joined {
    /// Returns the service over the store in the transaction.
    fn service(&self, service: &TodoService) -> TodoService {
        match self {
            Self::Sqlite(store) => service.with_store(store.clone()),
            Self::Postgres(store) => service.with_store(store.clone()),
        }
    }

    /// Writes the position of the task, commits, and returns the position.
    async fn commit(self, owner: &UserId, id: TaskId, order: Patch<i64>) -> Result<Option<i64>, StoreError> {
        let (owner, id) = (owner.as_str(), id.as_uuid());
        macro_rules! commit {
            ($store:expr) => {{
                let taken = $store.take().await;
                let mut transaction =
                    taken.ok_or_else(|| StoreError::Backend("the transaction was already taken back".into()))?;
                let order = match order {
                    Patch::Keep => {
                        sqlx::query_scalar(GET).bind(owner).bind(id).fetch_optional(&mut *transaction).await?
                    }
                    Patch::Clear => {
                        sqlx::query(CLEAR).bind(owner).bind(id).execute(&mut *transaction).await?;
                        None
                    }
                    Patch::Set(order) => {
                        sqlx::query(SET).bind(owner).bind(id).bind(order).execute(&mut *transaction).await?;
                        Some(order)
                    }
                };
                transaction.commit().await?;
                Ok(order)
            }};
        }
        match self {
            Self::Sqlite(store) => commit!(store),
            Self::Postgres(store) => commit!(store),
        }
    }
}
