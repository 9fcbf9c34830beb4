-- recipe
create table labels (
    user_id text not null,
    task_id uuid not null,
    label text not null,
    primary key (user_id, task_id, label),
    foreign key (user_id, task_id) references todo.tasks (user_id, id) on delete cascade
);
-- end
