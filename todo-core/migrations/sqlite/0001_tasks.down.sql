-- All tasks go with it: the caller has looked whether there are any.
drop table {tasks};
drop table {owners};
drop table {deleted};
