-- All tasks go with it: the caller has looked whether there are any.
drop table {tasks};
drop function "{schema}"."{table}_forget_lower"();
