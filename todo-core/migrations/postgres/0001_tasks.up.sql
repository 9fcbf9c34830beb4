-- {tasks} and {table} are replaced by the configured names; see store/names.rs.
create table {tasks} (
    user_id text not null check (char_length(user_id) between 1 and 255),
    id uuid not null,
    title text not null check (char_length(title) between 1 and 200),
    description text check (char_length(description) <= 1000),
    completed boolean not null default false,
    created_at timestamptz not null,
    updated_at timestamptz not null check (updated_at >= created_at),
    version bigint not null default 1 check (version >= 1),
    -- Isolation is part of the key, and newest first is the key read backwards.
    primary key (user_id, id)
);

create index "{table}_user_id_completed_id_idx" on {tasks} (user_id, completed, id);
