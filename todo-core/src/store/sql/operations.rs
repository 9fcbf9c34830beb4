//! The calls of a store as values, which know their statement and its parameters.
//!
//! A store on an SQL database has a method `run` that runs any [`Operation`] on one of its connections; the macro
//! `task_store!` writes the rest.

use super::{
    super::{
        Change, Changes, Creation, Insertion, Precondition, Read, Revision, SyncPoint, TaskChange, error::StoreError,
    },
    columns::Value,
    statements::Statements,
};
use crate::{
    Group, Limit, ListName, Position, Summary, Tag, Task, TaskFilter, TaskId, TaskQuery, UserId, clock::Timestamp,
};

/// What running an operation twice does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Effect {
    /// The same as running it once.
    Read,
    /// Possibly something else than running it once.
    Write,
    /// The same as [`Write`](Self::Write). Each write in the batch can also be run on its own.
    #[cfg(feature = "postgres")]
    BatchOfWrites,
}

impl Effect {
    /// What the error of a statement means.
    pub(in crate::store) fn failed(self, error: sqlx::Error) -> StoreError {
        match self {
            Self::Read => StoreError::from(error).without_effect(),
            Self::Write => error.into(),
            #[cfg(feature = "postgres")]
            Self::BatchOfWrites => error.into(),
        }
    }

    /// What it means that the end of a statement was not waited for.
    #[cfg(feature = "postgres")]
    pub(in crate::store) fn given_up(self, reason: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
        match self {
            Self::Read => StoreError::Unavailable(reason),
            Self::Write | Self::BatchOfWrites => StoreError::Interrupted(reason),
        }
    }
}

/// A call with the owner whose rows it is about, if it is one.
pub(in crate::store) trait OfOwner {
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "only PostgreSQL limits the calls of an owner"))]
    fn owner(&self) -> Option<&UserId>;
}

/// Writes the owners of calls.
macro_rules! of_owner {
    ($($call:ty: $this:ident => $owner:expr),+ $(,)?) => {
        $(impl $crate::store::sql::operations::OfOwner for $call {
            fn owner(&self) -> Option<&$crate::UserId> {
                let $this = self;
                $owner
            }
        })+
    };
}
#[cfg(feature = "postgres")]
pub(in crate::store) use of_owner;

/// A call of a store: a statement with its parameters.
pub(in crate::store) trait Operation<C>: OfOwner + Sync {
    /// What the call returns.
    type Output: Send;

    /// What running it twice does.
    const EFFECT: Effect;

    /// Runs it on this connection.
    fn run(
        &self,
        connection: &mut C,
        sql: &Statements,
    ) -> impl Future<Output = Result<Self::Output, sqlx::Error>> + Send;
}

/// Each database adds several tasks in its own way.
pub(in crate::store) struct Insert<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) tasks: &'a [Task],
    pub(in crate::store) creation: &'a Creation,
}

/// Adds one task, as the one in this place of its request. Returns whether it was added.
pub(in crate::store) struct InsertOne<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) task: &'a Task,
    pub(in crate::store) creation: &'a Creation,
    pub(in crate::store) place: usize,
}

/// What a request has created before, if anything.
pub(in crate::store) struct Repeated<'a>(pub(in crate::store) &'a Insert<'a>);

/// Why tasks were not added.
pub(in crate::store) struct WhyNot<'a>(pub(in crate::store) &'a Insert<'a>);

pub(in crate::store) struct Count<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) filter: &'a TaskFilter,
    pub(in crate::store) known: Option<Revision>,
}

pub(in crate::store) struct Summarize<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) known: Option<Revision>,
}

pub(in crate::store) struct UpdateMatching<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) filter: &'a TaskFilter,
    pub(in crate::store) change: &'a TaskChange,
    pub(in crate::store) now: Timestamp,
}

pub(in crate::store) struct Reposition<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) positions: &'a [(TaskId, Position)],
    pub(in crate::store) moved: (TaskId, i64),
    pub(in crate::store) now: Timestamp,
}

pub(in crate::store) struct DeleteMatching<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) filter: &'a TaskFilter,
}

pub(in crate::store) struct Get<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) id: TaskId,
}

pub(in crate::store) struct List<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) query: &'a TaskQuery,
    pub(in crate::store) known: Option<Revision>,
}

pub(in crate::store) struct Update<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) id: TaskId,
    pub(in crate::store) change: &'a TaskChange,
    pub(in crate::store) now: Timestamp,
}

pub(in crate::store) struct Delete<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) id: TaskId,
}

/// Each database has its own way of the following, too.
pub(in crate::store) struct UpdateIf<'a> {
    pub(in crate::store) update: Update<'a>,
    pub(in crate::store) precondition: &'a Precondition,
}

pub(in crate::store) struct DeleteIf<'a> {
    pub(in crate::store) delete: Delete<'a>,
    pub(in crate::store) precondition: &'a Precondition,
}

pub(in crate::store) struct Purge<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) before: Timestamp,
    pub(in crate::store) limit: Limit,
}

pub(in crate::store) struct Revisions<'a>(pub(in crate::store) &'a [UserId]);

pub(in crate::store) struct ChangesSince<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) since: Option<SyncPoint>,
    pub(in crate::store) limit: Limit,
}

pub(in crate::store) struct Erase<'a> {
    pub(in crate::store) owner: &'a UserId,
}

pub(in crate::store) struct TransferAll<'a> {
    pub(in crate::store) owner: &'a UserId,
    pub(in crate::store) to: &'a UserId,
}

pub(in crate::store) struct Ping;

/// Whether any owner has a task: for migrations.
pub(in crate::store) struct HasTasks;

/// Some owners after one, in the order of the database, and the oldest revision of a deletion of each: for operators.
pub(in crate::store) struct OwnersAfter<'a> {
    pub(in crate::store) after: &'a str,
    pub(in crate::store) limit: u16,
}

/// Forgets all deletions of the owners after one, up to another one: for operators. Returns the number of owners.
pub(in crate::store) struct Expire<'a> {
    pub(in crate::store) after: &'a str,
    pub(in crate::store) last: &'a str,
}

of_owner! {
    Insert<'_>: call => Some(call.owner),
    InsertOne<'_>: call => Some(call.owner),
    Repeated<'_>: call => Some(call.0.owner),
    WhyNot<'_>: call => Some(call.0.owner),
    Count<'_>: call => Some(call.owner),
    Summarize<'_>: call => Some(call.owner),
    UpdateMatching<'_>: call => Some(call.owner),
    Reposition<'_>: call => Some(call.owner),
    DeleteMatching<'_>: call => Some(call.owner),
    Get<'_>: call => Some(call.owner),
    List<'_>: call => Some(call.owner),
    Update<'_>: call => Some(call.owner),
    Delete<'_>: call => Some(call.owner),
    UpdateIf<'_>: call => Some(call.update.owner),
    DeleteIf<'_>: call => Some(call.delete.owner),
    Purge<'_>: call => Some(call.owner),
    ChangesSince<'_>: call => Some(call.owner),
    Erase<'_>: call => Some(call.owner),
    TransferAll<'_>: call => Some(call.owner),
    Revisions<'_>: _call => None,
    Ping: _call => None,
    HasTasks: _call => None,
    OwnersAfter<'_>: _call => None,
    Expire<'_>: _call => None,
}

impl Update<'_> {
    /// The values of the parameters before those of the change.
    pub(in crate::store) fn fixed_values(&self) -> [Value<'_>; 3] {
        [
            Value::Text(Some(self.owner.as_str().into())),
            Value::Uuid(Some(self.id.as_uuid())),
            Value::Time(Some(self.now)),
        ]
    }
}

/// The rows of a summary: the kind of the group, its name, and the numbers of its tasks and of the open ones.
pub(in crate::store) type GroupRow = (i64, Option<String>, i64, i64);

/// The answer of a read, unless the owner has the revision that is known.
pub(in crate::store) fn read<T>(revision: i64, known: Option<Revision>, value: T) -> Read<T> {
    let revision = Revision::new(revision);
    if known == Some(revision) { Read::Unchanged } else { Read::Changed { revision, value } }
}

/// What a request has created before: digests, places, and tasks, or nothing for those that were deleted.
pub(in crate::store) fn repeated(
    mut found: Vec<(Vec<u8>, i16, Option<Task>)>,
    creation: &Creation,
) -> Option<Insertion> {
    let request = creation.request.as_ref()?;
    found.sort_by_key(|(_, place, _)| *place);
    let (digest, ..) = found.first()?;
    if *digest != request.digest {
        return Some(Insertion::KeyTaken);
    }
    let tasks: Option<Vec<_>> = found.into_iter().map(|(.., task)| task).collect();
    Some(tasks.map_or(Insertion::Deleted, Insertion::Repeated))
}

/// A page of the changes that were found, one more than fits if there is one more.
pub(in crate::store) fn changes(
    call: &ChangesSince<'_>,
    (revision, purged): (i64, i64),
    mut found: Vec<(Revision, TaskId, Change)>,
) -> Option<Changes> {
    let (revision, purged) = (Revision::new(revision), Revision::new(purged));
    let from = call.since.unwrap_or(SyncPoint { begun: revision, ..SyncPoint::default() });
    if call.since.is_some() && !from.is_within(revision, purged) {
        return None;
    }
    // In practice they are in order.
    found.sort_by_key(|(revision, id, _)| (*revision, *id));
    Some(Changes::from_one_more(found, from, revision, call.limit))
}

/// The summary that the rows make, and the revision of the owner.
pub(in crate::store) fn summary(rows: Vec<GroupRow>) -> Result<(i64, Summary), sqlx::Error> {
    let (mut summary, mut revision) = (Summary::default(), 0);
    for (kind, name, total, open) in rows {
        if kind == 2 {
            revision = total;
            continue;
        }
        let (total, open) = (total.unsigned_abs(), open.unsigned_abs());
        let decode = |error: crate::InvalidValue| sqlx::Error::Decode(Box::new(error));
        match (kind, name) {
            // Each task is in one list or in none, so these groups are all tasks.
            (0, name) => {
                summary.total += total;
                summary.open += open;
                if let Some(name) = name {
                    summary.lists.push(Group { name: ListName::new(name).map_err(decode)?, open, total });
                }
            }
            (_, Some(name)) => summary.tags.push(Group { name: Tag::new(name).map_err(decode)?, open, total }),
            (_, None) => {}
        }
    }
    summary.lists.sort_by(|one, other| one.name.cmp(&other.name));
    summary.tags.sort_by(|one, other| one.name.cmp(&other.name));
    Ok((revision, summary))
}

/// A page of the rows that a list has returned. In practice they are in order; SQL promises this for each of the two parts
/// of a list by itself.
pub(in crate::store) fn page(mut tasks: Vec<Task>, query: &TaskQuery) -> crate::Page {
    let sort = query.sort;
    if query.is_simple() {
        if !tasks.is_sorted_by(|one, next| one.id > next.id) {
            tasks.sort_by_key(|task| std::cmp::Reverse(task.id));
        }
    } else if tasks.len() > 1 {
        let mut keyed: Vec<_> = tasks.into_iter().map(|task| (sort.key(&task), task)).collect();
        let compare = |(key, task): &(_, Task), (other_key, other): &(_, Task)| {
            sort.compare((key, task.id), (other_key, other.id))
        };
        if !keyed.is_sorted_by(|one, other| compare(one, other).is_le()) {
            keyed.sort_by(compare);
        }
        tasks = keyed.into_iter().map(|(_, task)| task).collect();
    }
    crate::Page::from_one_more(tasks, query)
}

/// Reads the fields of a task from a row, from a column on. `$time` reads a time and `$texts` several texts.
///
/// The types of the columns are not compared with those of the fields, since our statements and tables agree; for each row
/// of a page that would take as long as reading it.
macro_rules! fields {
    ($row:ident, $first:expr, $time:path, $texts:path) => {{
        let mut next = $first;
        let mut column = || {
            next += 1;
            next - 1
        };
        $crate::store::sql::columns::Fields {
            id: $row.try_get_unchecked(column())?,
            title: $row.try_get_unchecked(column())?,
            description: $row.try_get_unchecked(column())?,
            completed: $row.try_get_unchecked(column())?,
            completed_at: $time($row, column())?,
            due: $row.try_get_unchecked(column())?,
            due_at: $time($row, column())?,
            priority: $row.try_get_unchecked(column())?,
            list: $row.try_get_unchecked(column())?,
            tags: $texts($row, column())?,
            position: $row.try_get_unchecked(column())?,
            metadata: $row.try_get_unchecked(column())?,
            created_at: $time($row, column())?.unwrap_or(Timestamp::from_unix_micros(0)),
            updated_at: $time($row, column())?.unwrap_or(Timestamp::from_unix_micros(0)),
            version: $row.try_get_unchecked(column())?,
        }
    }};
}
pub(in crate::store) use fields;

/// Writes the operations for the connections of one database, which differ only in types, over which sqlx can be
/// generic only with a page of bounds. These functions are its own: `arguments` makes arguments of values, `read_task`
/// a task of a row, `id_list` and `text_list` one parameter of several values, and `selected_rows` runs a statement
/// with filters.
macro_rules! operations {
    ($connection:ty) => {
        const _: () = {
            use $crate::{
                Page, Summary, Task, TaskId, UserId,
                store::{
                    Change, Changes, Insertion, Read, Revision,
                    sql::{
                        columns::{Value, change_values, row_values},
                        operations::{
                            ChangesSince, Count, Delete, Effect, Expire, Get, HasTasks, Insert, InsertOne, List,
                            Operation, OwnersAfter, Ping, Repeated, Revisions, Summarize, Update, WhyNot, changes,
                            page, read, repeated, summary,
                        },
                        selection::Selections,
                        statements::Statements,
                    },
                },
            };

            impl Operation<$connection> for InsertOne<'_> {
                type Output = bool;
                const EFFECT: Effect = Effect::Write;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<bool, sqlx::Error> {
                    // The owner of the call, whatever the task says.
                    let owner = Value::Text(Some(self.owner.as_str().into()));
                    let request = self.creation.request.as_ref();
                    let values = std::iter::once(owner).chain(row_values(self.task).skip(1)).chain([
                        Value::Text(request.map(|request| request.key.as_str().into())),
                        Value::Small(request.and_then(|_| i16::try_from(self.place).ok())),
                        Value::Bytes(request.map(|request| &request.digest[..])),
                        Value::Big(self.creation.max_tasks.map(|max| i64::try_from(max).unwrap_or(i64::MAX))),
                    ]);
                    let statement = sqlx::query_with(sql.call.insert.clone(), arguments(values)?);
                    Ok(statement.execute(connection).await?.rows_affected() == 1)
                }
            }

            impl Operation<$connection> for Repeated<'_> {
                type Output = Option<Insertion>;
                const EFFECT: Effect = Effect::Read;

                async fn run(
                    &self,
                    connection: &mut $connection,
                    sql: &Statements,
                ) -> Result<Option<Insertion>, sqlx::Error> {
                    let Self(Insert { owner, creation, .. }) = self;
                    let Some(request) = &creation.request else { return Ok(None) };
                    let rows = sqlx::query(sql.call.requested.clone())
                        .bind(owner.as_str())
                        .bind(request.key.as_str())
                        .fetch_all(connection)
                        .await?;
                    let mut found = Vec::with_capacity(rows.len());
                    for row in &rows {
                        let is_deleted = row.try_get::<Option<&str>, _>(3)?.is_none();
                        let task = if is_deleted { None } else { Some(read_task(owner, row, 2)?) };
                        found.push((row.try_get(0)?, row.try_get(1)?, task));
                    }
                    Ok(repeated(found, creation))
                }
            }

            impl Operation<$connection> for WhyNot<'_> {
                type Output = Insertion;
                const EFFECT: Effect = Effect::Read;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<Insertion, sqlx::Error> {
                    if let Some(repeated) = Repeated(self.0).run(&mut *connection, sql).await? {
                        return Ok(repeated);
                    }
                    let Self(Insert { owner, tasks, creation }) = self;
                    let (is_taken, count): (bool, i64) = sqlx::query_as(sql.call.taken.clone())
                        .bind(owner.as_str())
                        .bind(id_list(tasks.iter().map(|task| task.id)))
                        .fetch_one(connection)
                        .await?;
                    let would_be = count.unsigned_abs() + tasks.len() as u64;
                    let is_too_many = creation.max_tasks.is_some_and(|max| would_be > max);
                    // If neither is true any more, new ids are as good as another attempt.
                    Ok(if is_too_many && !is_taken { Insertion::QuotaExceeded } else { Insertion::IdTaken })
                }
            }

            impl Operation<$connection> for Get<'_> {
                type Output = Option<Task>;
                const EFFECT: Effect = Effect::Read;

                async fn run(
                    &self,
                    connection: &mut $connection,
                    sql: &Statements,
                ) -> Result<Option<Task>, sqlx::Error> {
                    let row = sqlx::query(sql.call.get.clone())
                        .bind(self.owner.as_str())
                        .bind(self.id.as_uuid())
                        .fetch_optional(connection)
                        .await?;
                    row.map(|row| read_task(self.owner, &row, 0)).transpose()
                }
            }

            impl Operation<$connection> for List<'_> {
                type Output = Read<Page>;
                const EFFECT: Effect = Effect::Read;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<Read<Page>, sqlx::Error> {
                    let Self { owner, query, known } = self;
                    let rows = if query.is_simple() {
                        // A query that matches nothing asks for 0 rows from the nil UUID on.
                        let newest = query.newest();
                        let completed = query.filter.completed;
                        let statement = if completed.is_some() { &sql.call.list_completed } else { &sql.call.list };
                        let mut statement = sqlx::query(statement.clone())
                            .bind(owner.as_str())
                            .bind(newest.map_or(uuid::Uuid::nil(), TaskId::as_uuid))
                            .bind(newest.map_or(0, |_| i64::from(query.limit.get()) + 1))
                            .bind(known.map(Revision::get));
                        if let Some(completed) = completed {
                            statement = statement.bind(completed);
                        }
                        statement.fetch_all(connection).await?
                    } else {
                        let values = Selections::list_values(owner.as_str(), query, *known);
                        selected_rows(connection, sql, sql.selections.list(query), values).await?
                    };
                    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
                    let revision = first.try_get(0)?;
                    let mut tasks = Vec::with_capacity(rows.len());
                    for row in &rows {
                        if row.try_get_unchecked::<Option<uuid::Uuid>, _>(1)?.is_some() {
                            tasks.push(read_task(owner, row, 1)?);
                        }
                    }
                    Ok(read(revision, *known, page(tasks, query)))
                }
            }

            impl Operation<$connection> for Count<'_> {
                type Output = Read<u64>;
                const EFFECT: Effect = Effect::Read;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<Read<u64>, sqlx::Error> {
                    let Self { owner, filter, known } = self;
                    let values = Selections::count_values(owner.as_str(), filter, *known);
                    let rows = selected_rows(connection, sql, sql.selections.count(filter), values).await?;
                    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
                    let count: Option<i64> = row.try_get(1)?;
                    Ok(read(row.try_get(0)?, *known, count.unwrap_or_default().unsigned_abs()))
                }
            }

            impl Operation<$connection> for Summarize<'_> {
                type Output = Read<Summary>;
                const EFFECT: Effect = Effect::Read;

                async fn run(
                    &self,
                    connection: &mut $connection,
                    sql: &Statements,
                ) -> Result<Read<Summary>, sqlx::Error> {
                    let rows = sqlx::query_as(sql.call.summary.clone())
                        .bind(self.owner.as_str())
                        .bind(self.known.map(Revision::get))
                        .fetch_all(connection)
                        .await?;
                    let (revision, summary) = summary(rows)?;
                    Ok(read(revision, self.known, summary))
                }
            }

            impl Operation<$connection> for Update<'_> {
                type Output = Option<Task>;
                const EFFECT: Effect = Effect::Write;

                async fn run(
                    &self,
                    connection: &mut $connection,
                    sql: &Statements,
                ) -> Result<Option<Task>, sqlx::Error> {
                    let values = self.fixed_values().into_iter().chain(change_values(self.change));
                    // Not `fetch_optional`: on SQLite it returns with the first row, and the statement commits only
                    // when it has been read to its end.
                    let rows =
                        sqlx::query_with(sql.call.update.clone(), arguments(values)?).fetch_all(connection).await?;
                    rows.first().map(|row| read_task(self.owner, row, 0)).transpose()
                }
            }

            impl Operation<$connection> for Delete<'_> {
                type Output = bool;
                const EFFECT: Effect = Effect::Write;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<bool, sqlx::Error> {
                    let done = sqlx::query(sql.call.delete.clone())
                        .bind(self.owner.as_str())
                        .bind(self.id.as_uuid())
                        .execute(connection)
                        .await?;
                    Ok(done.rows_affected() == 1)
                }
            }

            impl Operation<$connection> for ChangesSince<'_> {
                type Output = Option<Changes>;
                const EFFECT: Effect = Effect::Read;

                async fn run(
                    &self,
                    connection: &mut $connection,
                    sql: &Statements,
                ) -> Result<Option<Changes>, sqlx::Error> {
                    let from = self.since.unwrap_or_default();
                    // After the greatest id with a revision there is none.
                    let after = |revision: Revision, id: Option<TaskId>| {
                        (revision.get(), id.map_or(uuid::Uuid::max(), TaskId::as_uuid))
                    };
                    // Deletions from before the client began do not concern it, and none a client that begins now.
                    let deleted = match self.since {
                        None => after(Revision::new(i64::MAX), None),
                        Some(since) if since.revision < since.begun => after(since.begun, None),
                        Some(since) => after(since.revision, since.id),
                    };
                    let (revision, id) = after(from.revision, from.id);
                    let rows = sqlx::query(sql.call.changes.clone())
                        .bind(self.owner.as_str())
                        .bind(revision)
                        .bind(id)
                        .bind(i64::from(self.limit.get()) + 1)
                        .bind(deleted.0)
                        .bind(deleted.1)
                        .fetch_all(connection)
                        .await?;
                    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
                    let (revision, purged) = (first.try_get(0)?, first.try_get(1)?);
                    let mut found = Vec::with_capacity(rows.len());
                    for row in &rows {
                        let (Some(revision), Some(is_gone)) = (row.try_get(2)?, row.try_get::<Option<bool>, _>(3)?)
                        else {
                            continue;
                        };
                        let id = TaskId::from(row.try_get::<uuid::Uuid, _>(4)?);
                        let change = if is_gone {
                            Change::Deleted(id)
                        } else {
                            Change::Task(Box::new(read_task(self.owner, row, 4)?))
                        };
                        found.push((Revision::new(revision), id, change));
                    }
                    Ok(changes(self, (revision, purged), found))
                }
            }

            impl Operation<$connection> for Revisions<'_> {
                type Output = Vec<Revision>;
                const EFFECT: Effect = Effect::Read;

                async fn run(
                    &self,
                    connection: &mut $connection,
                    sql: &Statements,
                ) -> Result<Vec<Revision>, sqlx::Error> {
                    let owners = text_list(self.0.iter().map(UserId::as_str));
                    let revisions: Vec<i64> =
                        sqlx::query_scalar(sql.call.revisions.clone()).bind(owners).fetch_all(connection).await?;
                    if revisions.len() != self.0.len() {
                        return Err(sqlx::Error::Decode("there is not one revision for each owner".into()));
                    }
                    Ok(revisions.into_iter().map(Revision::new).collect())
                }
            }

            impl Operation<$connection> for Ping {
                type Output = ();
                const EFFECT: Effect = Effect::Read;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<(), sqlx::Error> {
                    sqlx::query(sql.call.ping.clone()).execute(connection).await.map(|_| ())
                }
            }

            impl Operation<$connection> for HasTasks {
                type Output = bool;
                const EFFECT: Effect = Effect::Read;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<bool, sqlx::Error> {
                    sqlx::query_scalar(sql.call.has_tasks.clone()).fetch_one(connection).await
                }
            }

            impl Operation<$connection> for OwnersAfter<'_> {
                type Output = Vec<(String, Option<i64>)>;
                const EFFECT: Effect = Effect::Read;

                async fn run(
                    &self,
                    connection: &mut $connection,
                    sql: &Statements,
                ) -> Result<Self::Output, sqlx::Error> {
                    sqlx::query_as(sql.call.owners.clone())
                        .bind(self.after)
                        .bind(i64::from(self.limit))
                        .fetch_all(connection)
                        .await
                }
            }

            impl Operation<$connection> for Expire<'_> {
                type Output = u64;
                const EFFECT: Effect = Effect::Write;

                async fn run(&self, connection: &mut $connection, sql: &Statements) -> Result<u64, sqlx::Error> {
                    let expire = sqlx::query(sql.call.expire.clone()).bind(self.after).bind(self.last);
                    Ok(expire.execute(connection).await?.rows_affected())
                }
            }
        };
    };
}
pub(in crate::store) use operations;

/// Makes a type that runs operations (`async fn run(&self, operation)`) a [`TaskStore`](super::super::TaskStore).
macro_rules! task_store {
    ($store:ty) => {
        const _: () = {
            use $crate::{
                Limit, Page, Position, Summary, Task, TaskFilter, TaskId, TaskQuery, UserId,
                clock::Timestamp,
                store::{
                    BulkResult, Changes, Creation, Insertion, Outcome, Precondition, Read, Revision, StoreError,
                    SyncPoint, TaskChange, TaskStore, Transfer,
                    sql::operations::{
                        ChangesSince, Count, Delete, DeleteIf, DeleteMatching, Erase, Get, Insert, List, Ping, Purge,
                        Reposition, Revisions, Summarize, TransferAll, Update, UpdateIf, UpdateMatching,
                    },
                },
            };

            #[async_trait::async_trait]
            impl TaskStore for $store {
                async fn insert(
                    &self,
                    owner: &UserId,
                    tasks: &[Task],
                    creation: &Creation,
                ) -> Result<Insertion, StoreError> {
                    self.run(&Insert { owner, tasks, creation }).await
                }

                async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
                    self.run(&Get { owner, id }).await
                }

                async fn list(
                    &self,
                    owner: &UserId,
                    query: &TaskQuery,
                    known: Option<Revision>,
                ) -> Result<Read<Page>, StoreError> {
                    self.run(&List { owner, query, known }).await
                }

                async fn count(
                    &self,
                    owner: &UserId,
                    filter: &TaskFilter,
                    known: Option<Revision>,
                ) -> Result<Read<u64>, StoreError> {
                    self.run(&Count { owner, filter, known }).await
                }

                async fn summary(&self, owner: &UserId, known: Option<Revision>) -> Result<Read<Summary>, StoreError> {
                    self.run(&Summarize { owner, known }).await
                }

                async fn update(
                    &self,
                    owner: &UserId,
                    id: TaskId,
                    change: &TaskChange,
                    precondition: &Precondition,
                    now: Timestamp,
                ) -> Result<Outcome<Task>, StoreError> {
                    let update = Update { owner, id, change, now };
                    if precondition.is_always_met() {
                        return Ok(self.run(&update).await?.map_or(Outcome::Missing, Outcome::Done));
                    }
                    self.run(&UpdateIf { update, precondition }).await
                }

                async fn update_matching(
                    &self,
                    owner: &UserId,
                    filter: &TaskFilter,
                    change: &TaskChange,
                    now: Timestamp,
                ) -> Result<BulkResult, StoreError> {
                    self.run(&UpdateMatching { owner, filter, change, now }).await
                }

                async fn reposition(
                    &self,
                    owner: &UserId,
                    positions: &[(TaskId, Position)],
                    moved: (TaskId, i64),
                    now: Timestamp,
                ) -> Result<Vec<Task>, StoreError> {
                    self.run(&Reposition { owner, positions, moved, now }).await
                }

                async fn delete(
                    &self,
                    owner: &UserId,
                    id: TaskId,
                    precondition: &Precondition,
                ) -> Result<Outcome<()>, StoreError> {
                    let delete = Delete { owner, id };
                    if precondition.is_always_met() {
                        return Ok(if self.run(&delete).await? { Outcome::Done(()) } else { Outcome::Missing });
                    }
                    self.run(&DeleteIf { delete, precondition }).await
                }

                async fn delete_matching(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
                    self.run(&DeleteMatching { owner, filter }).await
                }

                async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
                    self.run(&Erase { owner }).await
                }

                async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
                    self.run(&TransferAll { owner, to }).await
                }

                async fn changes(
                    &self,
                    owner: &UserId,
                    since: Option<SyncPoint>,
                    limit: Limit,
                ) -> Result<Option<Changes>, StoreError> {
                    self.run(&ChangesSince { owner, since, limit }).await
                }

                async fn revisions(&self, owners: &[UserId]) -> Result<Vec<Revision>, StoreError> {
                    self.run(&Revisions(owners)).await
                }

                async fn purge(&self, owner: &UserId, before: Timestamp, limit: Limit) -> Result<u64, StoreError> {
                    self.run(&Purge { owner, before, limit }).await
                }

                async fn ping(&self) -> Result<(), StoreError> {
                    self.run(&Ping).await
                }
            }
        };
    };
}
pub(in crate::store) use task_store;

/// Writes what a store does for an operator and for all owners, in many small statements.
macro_rules! for_all_owners {
    ($store:ty) => {
        const _: () = {
            use $crate::{
                Limit, UserId,
                clock::Timestamp,
                store::{
                    StoreError, TaskStore as _,
                    sql::operations::{Expire, OWNERS_AT_ONCE, OwnersAfter},
                },
            };

            impl $store {
                async fn purge_owners(&self, before: Timestamp) -> Result<u64, StoreError> {
                    let limit = Limit::new(Limit::MAX).unwrap_or_default();
                    let (mut forgotten, mut after) = (0, String::new());
                    loop {
                        let owners = self.run(&OwnersAfter { after: &after, limit: OWNERS_AT_ONCE }).await?;
                        let Some((last, _)) = owners.last() else { return Ok(forgotten) };
                        after.clone_from(last);
                        for (owner, oldest) in owners {
                            if oldest.is_none_or(|revision| revision >= before.unix_micros()) {
                                continue;
                            }
                            let Ok(owner) = UserId::new(owner) else { continue };
                            loop {
                                let count = self.purge(&owner, before, limit).await?;
                                forgotten += count;
                                if count < u64::from(limit.get()) {
                                    break;
                                }
                            }
                        }
                    }
                }

                async fn expire_owners(&self) -> Result<u64, StoreError> {
                    let (mut expired, mut after) = (0, String::new());
                    loop {
                        let owners = self.run(&OwnersAfter { after: &after, limit: OWNERS_AT_ONCE }).await?;
                        let Some((last, _)) = owners.last() else { return Ok(expired) };
                        expired += self.run(&Expire { after: &after, last }).await?;
                        after.clone_from(last);
                    }
                }
            }
        };
    };
}
pub(in crate::store) use for_all_owners;

/// How many owners a statement for all owners reads or changes.
pub(in crate::store) const OWNERS_AT_ONCE: u16 = 500;
