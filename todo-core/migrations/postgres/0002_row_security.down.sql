-- Row security without a policy would show nothing to anybody, so it goes first. The tasks stay. The functions that bind
-- the owner have been dropped before this runs. A block, as in 0001.
do $$
begin
    alter table {tasks} no force row level security, disable row level security;
    alter table {owners} no force row level security, disable row level security;
    alter table {deleted} no force row level security, disable row level security;
    drop policy if exists "{table}_owner" on {tasks};
    drop policy if exists "{table}_owner" on {owners};
    drop policy if exists "{table}_owner" on {deleted};
    drop function if exists "{schema}"."{table}_owner"();
end $$;
