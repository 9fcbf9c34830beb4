-- The role and the database of todo-server, for psql as a superuser; a second time it only sets the password again:
--
--   TODO_PASSWORD=.. psql --set=ON_ERROR_STOP=1 --file=deploy/postgres/roles.sql postgres
--
-- The server must not be a superuser: for one, PostgreSQL looks at no policy and at no privilege.
\getenv password TODO_PASSWORD
select 'create role todo login' where not exists (select from pg_roles where rolname = 'todo') \gexec
alter role todo nosuperuser nobypassrls nocreatedb nocreaterole noreplication password :'password';
select 'create database todo owner todo' where not exists (select from pg_database where datname = 'todo') \gexec
revoke all on database todo from public;
-- For ROW_SECURITY=on a role that owns nothing, if APP_PASSWORD is set: todo_app is then in DATABASE_URL, and todo, who owns the
-- tables, in DATABASE_DIRECT_URL.
\getenv app_password APP_PASSWORD
\if :{?app_password}
select 'create role todo_app login' where not exists (select from pg_roles where rolname = 'todo_app') \gexec
alter role todo_app nosuperuser nobypassrls nocreatedb nocreaterole noreplication password :'app_password';
grant connect on database todo to todo_app;
\endif
