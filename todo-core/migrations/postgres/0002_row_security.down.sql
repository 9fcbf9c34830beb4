-- Row security without a policy would show nothing to anybody, so it goes first. The tasks stay.
alter table {tasks} no force row level security, disable row level security;

drop policy "{table}_owner" on {tasks};

drop function
    "{schema}"."{table}_get"(text, uuid),
    "{schema}"."{table}_list"(text, uuid, bigint),
    "{schema}"."{table}_list_completed"(text, uuid, bigint, boolean),
    "{schema}"."{table}_insert"(text, uuid, text, text, boolean, timestamptz, timestamptz, bigint),
    "{schema}"."{table}_update"(text, uuid, text, boolean, text, boolean, boolean, timestamptz),
    "{schema}"."{table}_delete"(text, uuid),
    "{schema}"."{table}_erase"(text),
    "{schema}"."{table}_owner"();
