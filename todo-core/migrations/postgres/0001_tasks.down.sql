-- All tasks go with it: the caller has looked whether there are any.
drop table {tasks}, {owners}, {deleted};
drop function "{schema}"."{table}_before_insert"(), "{schema}"."{table}_after_insert"(),
    "{schema}"."{table}_before_update"(), "{schema}"."{table}_after_delete"(), "{schema}"."{table}_before_truncate"();
