-- {tasks}, {owners}, {deleted}, {schema} and {table} are replaced by the configured names; see store/names.rs.
create table {tasks} (
    user_id text not null check (char_length(user_id) between 1 and 255),
    id uuid not null,
    title text not null check (char_length(title) between 1 and 200),
    -- Lower case as Rust makes it, or null: then lower(title collate "C") is meant.
    title_lower text collate "C",
    description text check (char_length(description) <= 1000),
    description_lower text collate "C",
    completed boolean not null default false,
    completed_at timestamptz,
    -- As Due writes it; due_at is what it is sorted by.
    due text check (char_length(due) <= 120),
    due_at timestamptz check ((due is null) = (due_at is null)),
    -- 1 low, 2 medium, 3 high, 4 urgent.
    priority smallint check (priority between 1 and 4),
    list text check (char_length(list) between 1 and 100),
    -- Null for none.
    tags text[] check (cardinality(tags) <= 20 and array_position(tags, null) is null and '' <> all (tags)),
    position text collate "C" not null default 'a0' check (char_length(position) between 2 and 100),
    -- A JSON object, or null for none.
    metadata text check (octet_length(metadata) <= 4096 and left(metadata, 1) = '{'),
    created_at timestamptz not null,
    updated_at timestamptz not null check (updated_at >= created_at),
    version bigint not null default 1 check (version >= 1),
    -- The revision of the owner when the task was last changed. Leave it out: a trigger sets it.
    revision bigint not null default 0,
    -- The idempotency key of the request that created the task, the place of the task in it, and a digest of its body.
    request_key text check (char_length(request_key) between 1 and 255),
    request_place smallint,
    request_digest bytea check (octet_length(request_digest) = 16),
    check ((request_key is null) = (request_place is null) and (request_key is null) = (request_digest is null)),
    -- Isolation is part of the key, and newest first is the key read backwards.
    primary key (user_id, id)
);

create index "{table}_user_id_completed_id_idx" on {tasks} (user_id, completed, id);
create index "{table}_user_id_position_id_idx" on {tasks} (user_id, position, id);
create index "{table}_user_id_due_at_id_idx" on {tasks} (user_id, due_at, id) where due_at is not null;
create index "{table}_user_id_revision_id_idx" on {tasks} (user_id, revision, id);
create unique index "{table}_user_id_request_key_idx" on {tasks} (user_id, request_key, request_place)
    where request_key is not null;

-- A row for everybody who has, or has had, a task. Who changes a task keeps this row locked until the end of the
-- transaction: whoever has seen a revision has seen all changes up to it.
create table {owners} (
    user_id text not null check (char_length(user_id) between 1 and 255),
    -- Of the last change. The next is the time in microseconds, or one more if that is not greater: so no revision comes
    -- back after an erasure, a restore or a failover.
    revision bigint not null,
    -- The number of tasks.
    tasks bigint not null,
    -- Deleted tasks are known from the revision after this one on.
    purged bigint not null,
    primary key (user_id)
) with (fillfactor = 50);

-- What is left of deleted tasks: nothing that somebody wrote.
create table {deleted} (
    user_id text not null check (char_length(user_id) between 1 and 255),
    id uuid not null,
    revision bigint not null,
    version bigint not null,
    request_key text,
    request_place smallint,
    request_digest bytea,
    deleted_at timestamptz not null,
    primary key (user_id, id)
);

create index "{table}_deleted_user_id_revision_id_idx" on {deleted} (user_id, revision, id);
create index "{table}_deleted_user_id_request_key_idx" on {deleted} (user_id, request_key, request_place)
    where request_key is not null;

-- The functions of the triggers work with the rights of the owner of the tables, whoever changes a task. With row security
-- they bind the owner of the task while they run. A function sees what was committed while its first statement waited
-- for the owner's row.
--
-- Most statements of the library take the next revision and record it at the owner themselves, once for many tasks. They
-- contain a name that says so, and the triggers let pass what they write; not what a trigger of a host writes then.
-- Revisions of triggers are odd, the others even. The text of the statement is looked at last: it may be long.
--
-- Each task that a trigger counts makes a new version of the owner's row. The index leads to all versions that the
-- transaction has made, which is slow when there are thousands. So the triggers remember where the last one is. It does no
-- harm if somebody else sets todo.owner_at, or it is of another owner: then no row is found there.

create function "{schema}"."{table}_before_insert"() returns trigger language plpgsql
    security definer set search_path = pg_catalog, pg_temp as $$
declare
    former constant text := current_setting('todo.user_id', true);
    binds constant boolean := former is distinct from new.user_id and row_security_active('{owners}');
    clock constant bigint := extract(epoch from clock_timestamp()) * 1000000;
    owner_at constant tid := nullif(current_setting('todo.owner_at', true), '');
    last bigint;
    deleted record;
    is_deleted boolean := false;
begin
    if binds then
        perform set_config('todo.user_id', new.user_id, true);
    end if;
    if owner_at is not null then
        select revision into last from {owners} where ctid = owner_at and user_id = new.user_id for no key update;
    end if;
    if last is null then
        select revision into last from {owners} where user_id = new.user_id for no key update;
    end if;
    while last is null loop
        insert into {owners} (user_id, revision, tasks, purged)
            select new.user_id, clock - 1, count(*), clock - 1 from {tasks} where user_id = new.user_id
            on conflict do nothing;
        select revision into last from {owners} where user_id = new.user_id for no key update;
    end loop;
    new.revision := greatest(last + 1, clock) | 1;
    -- A request that is repeated does not bring a deleted task back.
    if new.request_key is not null then
        is_deleted := exists (select from {deleted} where user_id = new.user_id and request_key = new.request_key
            and request_place = new.request_place);
    end if;
    -- A task that is created again continues its versions, and is still what its request has created.
    select * into deleted from {deleted} where user_id = new.user_id and id = new.id;
    if found then
        new.version := greatest(new.version, deleted.version + 1);
        if new.request_key is null then
            new.request_key := deleted.request_key;
            new.request_place := deleted.request_place;
            new.request_digest := deleted.request_digest;
        end if;
    end if;
    if binds then
        perform set_config('todo.user_id', coalesce(former, ''), true);
    end if;
    return case when is_deleted then null else new end;
end $$;

create function "{schema}"."{table}_after_insert"() returns trigger language plpgsql
    security definer set search_path = pg_catalog, pg_temp as $$
declare
    former constant text := current_setting('todo.user_id', true);
    binds constant boolean := former is distinct from new.user_id and row_security_active('{owners}');
    owner_at tid := nullif(current_setting('todo.owner_at', true), '');
    now_at tid;
begin
    if binds then
        perform set_config('todo.user_id', new.user_id, true);
    end if;
    if owner_at is not null then
        update {owners} set revision = greatest(revision, new.revision), tasks = tasks + 1
            where ctid = owner_at and user_id = new.user_id returning ctid into now_at;
    end if;
    if now_at is null then
        update {owners} set revision = greatest(revision, new.revision), tasks = tasks + 1 where user_id = new.user_id
            returning ctid into now_at;
    end if;
    perform set_config('todo.owner_at', coalesce(now_at::text, ''), true);
    -- Another trigger may have deleted it already.
    if new.version > 1 and exists (select from {tasks} where user_id = new.user_id and id = new.id) then
        delete from {deleted} where user_id = new.user_id and id = new.id;
    end if;
    if binds then
        perform set_config('todo.user_id', coalesce(former, ''), true);
    end if;
    return null;
end $$;

create function "{schema}"."{table}_before_update"() returns trigger language plpgsql
    security definer set search_path = pg_catalog, pg_temp as $$
declare
    former constant text := current_setting('todo.user_id', true);
    binds constant boolean := former is distinct from new.user_id and row_security_active('{owners}');
    clock constant bigint := extract(epoch from clock_timestamp()) * 1000000;
    owner_at constant tid := nullif(current_setting('todo.owner_at', true), '');
    now_at tid;
    next bigint;
begin
    if new.user_id <> old.user_id or new.id <> old.id then
        raise feature_not_supported using message = 'the owner and the id of a task do not change',
            hint = 'Delete the task and insert another one, or call transfer.';
    end if;
    -- Somebody else's SQL does not change the version.
    if new.version = old.version then
        new.version := old.version + 1;
        if new.updated_at = old.updated_at then
            new.updated_at := greatest(old.updated_at, clock_timestamp());
        end if;
        if new.completed <> old.completed and new.completed_at is not distinct from old.completed_at then
            new.completed_at := case when new.completed then new.updated_at end;
        end if;
        if new.title <> old.title and new.title_lower is not distinct from old.title_lower then
            new.title_lower := null;
        end if;
        if new.description is distinct from old.description
            and new.description_lower is not distinct from old.description_lower then
            new.description_lower := null;
        end if;
    end if;
    if binds then
        perform set_config('todo.user_id', new.user_id, true);
    end if;
    if owner_at is not null then
        update {owners} set revision = greatest(revision + 1, clock) | 1 where ctid = owner_at and user_id = new.user_id
            returning revision, ctid into next, now_at;
    end if;
    if now_at is null then
        update {owners} set revision = greatest(revision + 1, clock) | 1 where user_id = new.user_id
            returning revision, ctid into next, now_at;
    end if;
    -- Somebody has deleted the row of the owner.
    if now_at is null then
        insert into {owners} as o (user_id, revision, tasks, purged)
            select new.user_id, clock | 1, count(*), clock from {tasks} where user_id = new.user_id
            on conflict (user_id) do update set revision = greatest(o.revision + 1, clock) | 1
            returning revision, ctid into next, now_at;
    end if;
    new.revision := next;
    perform set_config('todo.owner_at', coalesce(now_at::text, ''), true);
    if binds then
        perform set_config('todo.user_id', coalesce(former, ''), true);
    end if;
    return new;
end $$;

create function "{schema}"."{table}_after_delete"() returns trigger language plpgsql
    security definer set search_path = pg_catalog, pg_temp as $$
declare
    former constant text := current_setting('todo.user_id', true);
    binds constant boolean := former is distinct from old.user_id and row_security_active('{owners}');
    clock constant bigint := extract(epoch from clock_timestamp()) * 1000000;
    owner_at constant tid := nullif(current_setting('todo.owner_at', true), '');
    now_at tid;
    next bigint;
begin
    if binds then
        perform set_config('todo.user_id', old.user_id, true);
    end if;
    if owner_at is not null then
        update {owners} set revision = greatest(revision + 1, clock), tasks = tasks - 1
            where ctid = owner_at and user_id = old.user_id returning revision, ctid into next, now_at;
    end if;
    if now_at is null then
        update {owners} set revision = greatest(revision + 1, clock), tasks = tasks - 1 where user_id = old.user_id
            returning revision, ctid into next, now_at;
    end if;
    perform set_config('todo.owner_at', coalesce(now_at::text, ''), true);
    -- A task that the same statement has inserted again is not deleted.
    if exists (select from {tasks} where user_id = old.user_id and id = old.id) then
        update {tasks} set version = greatest(version, old.version + 1) where user_id = old.user_id and id = old.id;
    elsif now_at is not null then
        insert into {deleted} (user_id, id, revision, version, request_key, request_place, request_digest, deleted_at)
            values (old.user_id, old.id, next, old.version, old.request_key, old.request_place, old.request_digest,
                clock_timestamp())
            on conflict (user_id, id) do update set revision = excluded.revision, version = excluded.version,
                request_key = excluded.request_key, request_place = excluded.request_place,
                request_digest = excluded.request_digest, deleted_at = excluded.deleted_at;
    end if;
    if binds then
        perform set_config('todo.user_id', coalesce(former, ''), true);
    end if;
    return null;
end $$;

create function "{schema}"."{table}_before_truncate"() returns trigger language plpgsql
    set search_path = pg_catalog, pg_temp as $$
begin
    raise feature_not_supported using message = 'tasks cannot be truncated, since clients would not notice that they are gone',
        hint = 'Delete them.';
end $$;

-- Triggers run in the order of their names: these see what those of a host have made of a row.
create trigger "zz_todo_before_insert" before insert on {tasks} for each row
    when ((new.revision > 0 and new.revision % 2 = 0 and pg_trigger_depth() = 0
            and strpos(current_query(), 'todo_records_revision') > 0) is not true)
    execute function "{schema}"."{table}_before_insert"();
create trigger "todo_after_insert" after insert on {tasks} for each row when (new.revision % 2 = 1)
    execute function "{schema}"."{table}_after_insert"();
-- A change of nothing is none.
create trigger "zz_todo_before_update" before update on {tasks} for each row
    when ((new.revision <> old.revision and new.revision % 2 = 0 and pg_trigger_depth() = 0
            and strpos(current_query(), 'todo_records_revision') > 0) is not true
        and old.* is distinct from new.*)
    execute function "{schema}"."{table}_before_update"();
create trigger "todo_after_delete" after delete on {tasks} for each row
    execute function "{schema}"."{table}_after_delete"();
create trigger "zz_todo_before_truncate" before truncate on {tasks} for each statement
    execute function "{schema}"."{table}_before_truncate"();
