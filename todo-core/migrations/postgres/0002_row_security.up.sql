-- The second wall, behind the predicate that every statement has: with row security turned on, the table shows and takes
-- only what belongs to the owner that is bound in todo.user_id. Until then this policy has no effect, and nobody uses
-- these functions. {schema}, {table} and {tasks} are replaced by the configured names; see store/names.rs.

-- Who has bound no owner is to notice it, and not to see an empty table.
create function "{schema}"."{table}_owner"() returns text language plpgsql stable parallel safe as $$
declare
    owner constant text := pg_catalog.current_setting('todo.user_id', true);
begin
    if owner is null or owner = '' then
        raise insufficient_privilege using message = 'no owner is bound, and row security is on for this table',
            hint = 'Bind one in the transaction: select set_config(''todo.user_id'', .., true).';
    end if;
    return owner;
end $$;

create policy "{table}_owner" on {tasks} for all
    using (user_id = "{schema}"."{table}_owner"()) with check (user_id = "{schema}"."{table}_owner"());

-- Each operation binds its owner ($1), does the same as the statement in store/sql.rs, and binds whoever was bound before.
-- So it is one round trip, and nothing is left behind: neither for the next one who gets this connection from a pooler,
-- nor in a transaction that goes on. If it fails, the binding ends with the transaction or savepoint.

create function "{schema}"."{table}_get"(text, uuid) returns setof {tasks} language plpgsql rows 1 as $$
declare
    former constant text := pg_catalog.current_setting('todo.user_id', true);
begin
    perform pg_catalog.set_config('todo.user_id', $1, true);
    return query select * from {tasks} where user_id = $1 and id = $2;
    perform pg_catalog.set_config('todo.user_id', coalesce(former, ''), true);
end $$;

-- $2 the newest id, $3 how many.
create function "{schema}"."{table}_list"(text, uuid, bigint) returns setof {tasks} language plpgsql rows 100 as $$
declare
    former constant text := pg_catalog.current_setting('todo.user_id', true);
begin
    perform pg_catalog.set_config('todo.user_id', $1, true);
    return query select * from {tasks} where user_id = $1 and id <= $2 order by id desc limit $3;
    perform pg_catalog.set_config('todo.user_id', coalesce(former, ''), true);
end $$;

create function "{schema}"."{table}_list_completed"(text, uuid, bigint, boolean) returns setof {tasks}
    language plpgsql rows 100 as $$
declare
    former constant text := pg_catalog.current_setting('todo.user_id', true);
begin
    perform pg_catalog.set_config('todo.user_id', $1, true);
    return query select * from {tasks} where user_id = $1 and completed = $4 and id <= $2 order by id desc limit $3;
    perform pg_catalog.set_config('todo.user_id', coalesce(former, ''), true);
end $$;

-- The columns in their order. One row if it was inserted, none if the key was taken.
create function "{schema}"."{table}_insert"(text, uuid, text, text, boolean, timestamptz, timestamptz, bigint)
    returns setof boolean language plpgsql rows 1 as $$
declare
    former constant text := pg_catalog.current_setting('todo.user_id', true);
begin
    perform pg_catalog.set_config('todo.user_id', $1, true);
    return query insert into {tasks} (user_id, id, title, description, completed, created_at, updated_at, version)
        values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing returning true;
    perform pg_catalog.set_config('todo.user_id', coalesce(former, ''), true);
end $$;

-- $3 title or null; $4 whether the description changes, $5 to what; $6 toggle; $7 completed or null; $8 now.
create function "{schema}"."{table}_update"(text, uuid, text, boolean, text, boolean, boolean, timestamptz)
    returns setof {tasks} language plpgsql rows 1 as $$
declare
    former constant text := pg_catalog.current_setting('todo.user_id', true);
begin
    perform pg_catalog.set_config('todo.user_id', $1, true);
    return query update {tasks} set
        title = coalesce($3, title),
        description = case when $4 then $5 else description end,
        completed = case when $6 then not completed else coalesce($7, completed) end,
        updated_at = case when coalesce($3, title) <> title or ($4 and $5 is distinct from description) or $6
            or coalesce($7, completed) <> completed then greatest(updated_at, $8) else updated_at end,
        version = case when coalesce($3, title) <> title or ($4 and $5 is distinct from description) or $6
            or coalesce($7, completed) <> completed then version + 1 else version end
        where user_id = $1 and id = $2 returning *;
    perform pg_catalog.set_config('todo.user_id', coalesce(former, ''), true);
end $$;

-- One row for each that was removed.
create function "{schema}"."{table}_delete"(text, uuid) returns setof boolean language plpgsql rows 1 as $$
declare
    former constant text := pg_catalog.current_setting('todo.user_id', true);
begin
    perform pg_catalog.set_config('todo.user_id', $1, true);
    return query delete from {tasks} where user_id = $1 and id = $2 returning true;
    perform pg_catalog.set_config('todo.user_id', coalesce(former, ''), true);
end $$;

create function "{schema}"."{table}_erase"(text) returns setof boolean language plpgsql as $$
declare
    former constant text := pg_catalog.current_setting('todo.user_id', true);
begin
    perform pg_catalog.set_config('todo.user_id', $1, true);
    return query delete from {tasks} where user_id = $1 returning true;
    perform pg_catalog.set_config('todo.user_id', coalesce(former, ''), true);
end $$;

revoke all on function
    "{schema}"."{table}_owner"(),
    "{schema}"."{table}_get"(text, uuid),
    "{schema}"."{table}_list"(text, uuid, bigint),
    "{schema}"."{table}_list_completed"(text, uuid, bigint, boolean),
    "{schema}"."{table}_insert"(text, uuid, text, text, boolean, timestamptz, timestamptz, bigint),
    "{schema}"."{table}_update"(text, uuid, text, boolean, text, boolean, boolean, timestamptz),
    "{schema}"."{table}_delete"(text, uuid),
    "{schema}"."{table}_erase"(text)
    from public;
