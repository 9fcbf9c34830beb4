-- Moves all tasks of $1 to $2, as the statement in store/sql/statements.rs does. Each step binds the owner whose rows it
-- reads or writes, and the owner that was bound before is bound again at the end. The tasks are locked first, so that the
-- copies contain the last change of a concurrent transaction. {schema}, {table} and {tasks} are replaced by the configured
-- names; see store/sql/names.rs.
create function "{schema}"."{table}_transfer"(text, text) returns table (moved bigint, remaining bigint)
    language plpgsql rows 1 as $$
declare
    former constant text := pg_catalog.current_setting('todo.user_id', true);
    source {tasks}[];
    copied uuid[];
begin
    perform pg_catalog.set_config('todo.user_id', $1, true);
    source := array(select t from {tasks} as t where user_id = $1 order by id for update);
    perform pg_catalog.set_config('todo.user_id', $2, true);
    with copies as (
        insert into {tasks} (user_id, id, title, description, completed, created_at, updated_at, version)
            select $2, s.id, s.title, s.description, s.completed, s.created_at, s.updated_at, s.version
            from pg_catalog.unnest(source) as s on conflict do nothing returning id
    )
    select coalesce(pg_catalog.array_agg(id), array[]::uuid[]) into copied from copies;
    perform pg_catalog.set_config('todo.user_id', $1, true);
    delete from {tasks} where user_id = $1 and id = any (copied);
    perform pg_catalog.set_config('todo.user_id', coalesce(former, ''), true);
    moved := pg_catalog.cardinality(copied);
    remaining := pg_catalog.cardinality(source) - moved;
    return next;
end $$;

revoke all on function "{schema}"."{table}_transfer"(text, text) from public;
