-- All tasks go with it: the caller has looked whether there are any. A block, which sends each statement by itself: Citus
-- passes the text of a query on to its nodes, which take one statement.
do $$
begin
    drop table {tasks}, {owners}, {deleted};
    drop function if exists "{schema}"."{table}_before_insert"(), "{schema}"."{table}_after_insert"(),
        "{schema}"."{table}_before_update"(), "{schema}"."{table}_after_delete"(), "{schema}"."{table}_before_truncate"();
end $$;
