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
