-- Creates the role and the database of todo-server. Run it with psql as a superuser; a second run only sets the password:
--
--   TODO_PASSWORD=.. psql --set=ON_ERROR_STOP=1 --file=deploy/postgres/roles.sql postgres
--
-- The server's role must not be a superuser, because PostgreSQL does not check policies and privileges for superusers.
\getenv password TODO_PASSWORD
select 'create role todo login' where not exists (select from pg_roles where rolname = 'todo') \gexec
alter role todo nosuperuser nobypassrls nocreatedb nocreaterole noreplication password :'password';
select 'create database todo owner todo' where not exists (select from pg_database where datname = 'todo') \gexec
revoke all on database todo from public;
-- For ROW_SECURITY=on, set APP_PASSWORD, too. DATABASE_URL then uses the role todo_app, which owns nothing, and DATABASE_DIRECT_URL uses
-- todo, which owns the tables.
\getenv app_password APP_PASSWORD
\if :{?app_password}
select 'create role todo_app login' where not exists (select from pg_roles where rolname = 'todo_app') \gexec
alter role todo_app nosuperuser nobypassrls nocreatedb nocreaterole noreplication password :'app_password';
grant connect on database todo to todo_app;
\endif
