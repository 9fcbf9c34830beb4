-- {tasks} and {table} are replaced by the configured names; see store/names.rs. Times are microseconds since 1970 in
-- UTC, identifiers the 16 bytes of the UUID.
create table {tasks} (
    user_id text not null check (length(user_id) between 1 and 255),
    id blob not null check (length(id) = 16),
    title text not null check (length(title) between 1 and 200),
    description text check (length(description) <= 1000),
    completed integer not null default 0 check (completed in (0, 1)),
    created_at integer not null,
    updated_at integer not null check (updated_at >= created_at),
    version integer not null default 1 check (version >= 1),
    -- Isolation is part of the key, and newest first is the key read backwards.
    primary key (user_id, id)
) strict, without rowid;

create index "{table}_user_id_completed_id_idx" on {tasks} (user_id, completed, id);
