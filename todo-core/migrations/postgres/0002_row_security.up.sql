-- The second wall, behind the predicate that every statement has: with row security turned on, the tables show and take
-- only what belongs to the owner that is bound in todo.user_id. Until then this policy has no effect. The functions that
-- bind the owner are not here: `migrate` makes them from the statements, see store/sql/functions.rs.
-- {schema}, {table}, {tasks}, {owners} and {deleted} are replaced by the configured names; see store/names.rs.

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
create policy "{table}_owner" on {owners} for all
    using (user_id = "{schema}"."{table}_owner"()) with check (user_id = "{schema}"."{table}_owner"());
create policy "{table}_owner" on {deleted} for all
    using (user_id = "{schema}"."{table}_owner"()) with check (user_id = "{schema}"."{table}_owner"());

revoke all on function "{schema}"."{table}_owner"() from public;
