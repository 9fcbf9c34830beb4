-- {tasks} and {table} are replaced by the configured names; see store/names.rs.
create table {tasks} (
    user_id text not null check (char_length(user_id) between 1 and 255),
    id uuid not null,
    title text not null check (char_length(title) between 1 and 200),
    -- Lower case as Rust makes it, or null: then lower(title collate "C") is meant.
    title_lower text collate "C",
    description text check (char_length(description) <= 1000),
    description_lower text collate "C",
    completed boolean not null default false,
    completed_at timestamptz,
    -- As Due writes it; due_at is what it is sorted by.
    due text check (char_length(due) <= 120),
    due_at timestamptz check ((due is null) = (due_at is null)),
    -- 1 low, 2 medium, 3 high, 4 urgent.
    priority smallint check (priority between 1 and 4),
    list text check (char_length(list) between 1 and 100),
    -- Null for none.
    tags text[] check (cardinality(tags) <= 20 and array_position(tags, null) is null and '' <> all (tags)),
    position text collate "C" not null default 'a0' check (char_length(position) between 2 and 100),
    -- A JSON object, or null for none.
    metadata text check (octet_length(metadata) <= 4096 and left(metadata, 1) = '{'),
    created_at timestamptz not null,
    updated_at timestamptz not null check (updated_at >= created_at),
    version bigint not null default 1 check (version >= 1),
    -- Isolation is part of the key, and newest first is the key read backwards.
    primary key (user_id, id)
);

create index "{table}_user_id_completed_id_idx" on {tasks} (user_id, completed, id);
create index "{table}_user_id_position_id_idx" on {tasks} (user_id, position, id);
create index "{table}_user_id_due_at_id_idx" on {tasks} (user_id, due_at, id) where due_at is not null;

-- Somebody else's SQL changes a text and not its lower case, which is then no longer that of the text. This library
-- changes the version in the same statement.
create function "{schema}"."{table}_forget_lower"() returns trigger language plpgsql as $$
begin
    if new.title is distinct from old.title and new.title_lower is not distinct from old.title_lower then
        new.title_lower := null;
    end if;
    if new.description is distinct from old.description
        and new.description_lower is not distinct from old.description_lower then
        new.description_lower := null;
    end if;
    return new;
end $$;

create trigger "{table}_forget_lower" before update of title, description on {tasks} for each row
    when (new.version = old.version and (old.title_lower is not null or old.description_lower is not null))
    execute function "{schema}"."{table}_forget_lower"();
