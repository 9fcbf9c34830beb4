-- {tasks}, {owners}, {deleted} and {table} are replaced by the configured names; see store/names.rs. Times are microseconds since 1970 in
-- UTC, identifiers the 16 bytes of the UUID.
create table {tasks} (
    user_id text not null check (length(user_id) between 1 and 255),
    id blob not null check (length(id) = 16),
    title text not null check (length(title) between 1 and 200),
    -- Lower case as Rust makes it, or null: then lower(title) is meant.
    title_lower text,
    description text check (length(description) <= 1000),
    description_lower text,
    completed integer not null default 0 check (completed in (0, 1)),
    completed_at integer,
    -- As Due writes it; due_at is what it is sorted by.
    due text check (length(due) <= 120),
    due_at integer check ((due is null) = (due_at is null)),
    -- 1 low, 2 medium, 3 high, 4 urgent.
    priority integer check (priority between 1 and 4),
    list text check (length(list) between 1 and 100),
    -- A JSON array of texts, or null for none, which SQLite before 3.45 does not call valid JSON.
    tags text check (tags is null or json_valid(tags) and json_type(tags) = 'array' and json_array_length(tags) <= 20),
    position text not null default 'a0' check (length(position) between 2 and 100),
    -- A JSON object, or null for none.
    metadata text check (metadata is null
        or length(cast(metadata as blob)) <= 4096 and json_valid(metadata) and json_type(metadata) = 'object'),
    created_at integer not null,
    updated_at integer not null check (updated_at >= created_at),
    version integer not null default 1 check (version >= 1),
    -- The revision of the owner when the task was last changed. A trigger sets it.
    revision integer not null default 0,
    -- The idempotency key of the request that created the task, the place of the task in it, and a digest of its body.
    request_key text check (length(request_key) between 1 and 255),
    request_place integer,
    request_digest blob check (length(request_digest) = 16),
    check ((request_key is null) = (request_place is null) and (request_key is null) = (request_digest is null)),
    -- Isolation is part of the key, and newest first is the key read backwards.
    primary key (user_id, id)
) strict, without rowid;

create index "{table}_user_id_completed_id_idx" on {tasks} (user_id, completed, id);
create index "{table}_user_id_position_id_idx" on {tasks} (user_id, position, id);
create index "{table}_user_id_due_at_id_idx" on {tasks} (user_id, due_at, id) where due_at is not null;
create index "{table}_user_id_revision_id_idx" on {tasks} (user_id, revision, id);
create unique index "{table}_user_id_request_key_idx" on {tasks} (user_id, request_key, request_place)
    where request_key is not null;

-- A row for everybody who has, or has had, a task.
create table {owners} (
    user_id text not null primary key check (length(user_id) between 1 and 255),
    -- Of the last change. The next is the time in microseconds, or one more if that is not greater: so no revision comes
    -- back after an erasure or a restore.
    revision integer not null,
    -- The number of tasks.
    tasks integer not null,
    -- Deleted tasks are known from the revision after this one on.
    purged integer not null
) strict, without rowid;

-- What is left of deleted tasks: nothing that somebody wrote.
create table {deleted} (
    user_id text not null check (length(user_id) between 1 and 255),
    id blob not null check (length(id) = 16),
    revision integer not null,
    version integer not null,
    request_key text,
    request_place integer,
    request_digest blob,
    deleted_at integer not null,
    primary key (user_id, id)
) strict, without rowid;

create index "{table}_deleted_user_id_revision_id_idx" on {deleted} (user_id, revision, id);
create index "{table}_deleted_user_id_request_key_idx" on {deleted} (user_id, request_key, request_place)
    where request_key is not null;

-- A request that is repeated does not bring a deleted task back.
create trigger "{table}_before_insert" before insert on {tasks}
    when new.request_key is not null and exists (select 1 from {deleted} where user_id = new.user_id
        and request_key = new.request_key and request_place = new.request_place)
begin
    select raise(ignore);
end;

-- A trigger of SQLite cannot change the row that is written, so it changes it afterwards. A task that is created again
-- continues its versions, and is still what its request has created. The clock counts milliseconds. An owner begins with the next one, later than all that an owner
-- who was erased in this one has had.
create trigger "{table}_after_insert" after insert on {tasks}
begin
    insert into {owners} (user_id, revision, tasks, purged)
        values (new.user_id, cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000 + 1000, 1,
            cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000 + 999)
        on conflict (user_id) do update set revision = max(revision + 1, excluded.revision - 1000), tasks = tasks + 1;
    update {tasks} set revision = (select revision from {owners} where user_id = new.user_id),
        version = max(version, coalesce((select version + 1 from {deleted} where user_id = new.user_id and id = new.id), 1))
        where user_id = new.user_id and id = new.id;
    update {tasks} set (request_key, request_place, request_digest) =
        (select request_key, request_place, request_digest from {deleted} where user_id = new.user_id and id = new.id)
        where user_id = new.user_id and id = new.id and request_key is null
        and exists (select 1 from {deleted} where user_id = new.user_id and id = new.id and request_key is not null);
    delete from {deleted} where user_id = new.user_id and id = new.id;
end;

create trigger "{table}_before_update" before update of user_id, id on {tasks}
    when new.user_id <> old.user_id or new.id <> old.id
begin
    select raise(abort, 'the owner and the id of a task do not change; delete the task and insert another one');
end;

-- A change of nothing is none. What this trigger itself changes has another revision. Somebody else's SQL does not change
-- the version.
create trigger "{table}_after_update" after update of title, title_lower, description, description_lower, completed, completed_at,
    due, due_at, priority, list, tags, position, metadata, created_at, updated_at, version
    on {tasks}
    when new.revision = old.revision and (
        new.title is not old.title
        or new.title_lower is not old.title_lower
        or new.description is not old.description
        or new.description_lower is not old.description_lower
        or new.completed is not old.completed
        or new.completed_at is not old.completed_at
        or new.due is not old.due
        or new.due_at is not old.due_at
        or new.priority is not old.priority
        or new.list is not old.list
        or new.tags is not old.tags
        or new.position is not old.position
        or new.metadata is not old.metadata
        or new.created_at is not old.created_at
        or new.updated_at is not old.updated_at
        or new.version is not old.version
    )
begin
    update {owners} set revision = max(revision + 1, cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000)
        where user_id = new.user_id;
    update {tasks} set
        revision = (select revision from {owners} where user_id = new.user_id),
        version = case when new.version = old.version then old.version + 1 else new.version end,
        updated_at = case when new.version = old.version and new.updated_at = old.updated_at
            then max(old.updated_at, cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000) else new.updated_at end,
        completed_at = case when new.version <> old.version or new.completed = old.completed
                or new.completed_at is not old.completed_at then new.completed_at
            when new.completed then max(old.updated_at, cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000) end,
        title_lower = case when new.version = old.version and new.title <> old.title
            and new.title_lower is old.title_lower then null else new.title_lower end,
        description_lower = case when new.version = old.version and new.description is not old.description
            and new.description_lower is old.description_lower then null else new.description_lower end
        where user_id = new.user_id and id = new.id;
end;

create trigger "{table}_after_delete" after delete on {tasks}
    when exists (select 1 from {owners} where user_id = old.user_id)
begin
    update {owners} set revision = max(revision + 1, cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000), tasks = tasks - 1
        where user_id = old.user_id;
    insert into {deleted} (user_id, id, revision, version, request_key, request_place, request_digest, deleted_at)
        values (old.user_id, old.id, (select revision from {owners} where user_id = old.user_id), old.version,
            old.request_key, old.request_place, old.request_digest, cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000)
        on conflict (user_id, id) do update set revision = excluded.revision, version = excluded.version,
            request_key = excluded.request_key, request_place = excluded.request_place,
            request_digest = excluded.request_digest, deleted_at = excluded.deleted_at;
end;
