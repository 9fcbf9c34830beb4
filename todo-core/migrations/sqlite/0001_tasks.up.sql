-- {tasks} and {table} are replaced by the configured names; see store/names.rs. Times are microseconds since 1970 in
-- UTC, identifiers the 16 bytes of the UUID.
create table {tasks} (
    user_id text not null check (length(user_id) between 1 and 255),
    id blob not null check (length(id) = 16),
    title text not null check (length(title) between 1 and 200),
    -- Lower case as Rust makes it, or null: then lower(title) is meant.
    title_lower text,
    description text check (length(description) <= 1000),
    description_lower text,
    completed integer not null default 0 check (completed in (0, 1)),
    completed_at integer,
    -- As Due writes it; due_at is what it is sorted by.
    due text check (length(due) <= 120),
    due_at integer check ((due is null) = (due_at is null)),
    -- 1 low, 2 medium, 3 high, 4 urgent.
    priority integer check (priority between 1 and 4),
    list text check (length(list) between 1 and 100),
    -- A JSON array of texts, or null for none, which SQLite before 3.45 does not call valid JSON.
    tags text check (tags is null or json_valid(tags) and json_type(tags) = 'array' and json_array_length(tags) <= 20),
    position text not null default 'a0' check (length(position) between 2 and 100),
    -- A JSON object, or null for none.
    metadata text check (metadata is null
        or length(cast(metadata as blob)) <= 4096 and json_valid(metadata) and json_type(metadata) = 'object'),
    created_at integer not null,
    updated_at integer not null check (updated_at >= created_at),
    version integer not null default 1 check (version >= 1),
    -- Isolation is part of the key, and newest first is the key read backwards.
    primary key (user_id, id)
) strict, without rowid;

create index "{table}_user_id_completed_id_idx" on {tasks} (user_id, completed, id);
create index "{table}_user_id_position_id_idx" on {tasks} (user_id, position, id);
create index "{table}_user_id_due_at_id_idx" on {tasks} (user_id, due_at, id) where due_at is not null;

-- Somebody else's SQL changes a text and not its lower case, which is then no longer that of the text. This library
-- changes the version in the same statement.
create trigger "{table}_title_lower" after update of title on {tasks}
    when old.title_lower is not null and new.title_lower is old.title_lower and new.title <> old.title
        and new.version = old.version
begin
    update {tasks} set title_lower = null where user_id = new.user_id and id = new.id;
end;

create trigger "{table}_description_lower" after update of description on {tasks}
    when old.description_lower is not null and new.description_lower is old.description_lower
        and new.description is not old.description and new.version = old.version
begin
    update {tasks} set description_lower = null where user_id = new.user_id and id = new.id;
end;
