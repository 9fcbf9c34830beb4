//! The backup drills: docs/backup.md is carried out while users write, the database is deleted and restored, and all
//! tasks are compared over HTTP.

use std::{
    fmt::Write as _,
    fs, mem,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use testkit::postgres::Server;
use tokio::{task::block_in_place, time::sleep};

use crate::{
    Failure,
    commands::{Shell, block, inline, line, run},
    drills::Drill,
    host::{Host, Setup},
    load::{Load, TASKS, USERS, user_name},
    model::Moment,
    options::Options,
    report::{Allowed, Row},
    scene::{SERVER_DOWN, by_secret, postgres_with, with_secret},
};

/// How many users write during a backup, and how many have tasks that were inserted with SQL.
const BUSY_USERS: usize = 10;
const BULK_USERS: usize = 8;
/// How long the load changes the tasks of [`Service::resting`] before a backup.
const CHANGES: Duration = Duration::from_secs(3);
/// How long to wait for PostgreSQL.
const TIMEOUT: Duration = Duration::from_mins(1);
/// 503 is a matter of the load and of the machine; writes must succeed all the same.
const BUSY: Allowed = Allowed { down: false, unavailable: true };
/// The log is archived in the folder of the cluster, beside its data.
const ARCHIVING: &str = "wal_level = replica\narchive_mode = on\n\
                         archive_command = 'test ! -f ../archive/%f && cp %p ../archive/%f'";

/// A server with two kinds of tasks that do not change during a backup.
struct Service<'a> {
    options: &'a Options,
    host: Host,
    /// Their tasks were created, changed and deleted over HTTP.
    resting: Load,
    /// Their tasks were inserted with SQL, so that there are many.
    bulk: Load,
    row: Row,
}

/// What a restored database must contain.
struct Backup {
    /// Every page of [`Service::resting`] and [`Service::bulk`].
    pages: (Vec<Bytes>, Vec<Bytes>),
    /// They wrote during the backup.
    busy: Load,
    /// What the busy users had been told before the backup began, and so must be in it.
    began: Vec<Moment>,
}

impl<'a> Service<'a> {
    async fn start(row: Row, setup: &Setup, options: &'a Options) -> Result<Self, Failure> {
        let mut host = Host::start(setup)?;
        host.wait_until_ready().await?;
        let (servers, mint) = ([host.address()], by_secret());
        let mut resting = Load::of_users("restingUser", USERS, &servers, &mint);
        let bulk = Load::of_users("bulkUser", BULK_USERS, &servers, &mint);
        resting.fill().await;
        resting.start(options.rate);
        sleep(CHANGES).await;
        resting.stop().await;
        Ok(Self { options, host, resting, bulk, row })
    }

    /// How many tasks to insert with SQL.
    fn bulk_tasks(&self) -> usize {
        self.options.tasks.saturating_sub(USERS * TASKS)
    }

    /// Takes a backup while users with this prefix write. They still write when this returns.
    async fn back_up<T>(
        &mut self,
        name: &str,
        busy: &str,
        take: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<(Backup, T), Failure> {
        let pages = (self.resting.snapshot().await?, self.bulk.snapshot().await?);
        let mut busy = Load::of_users(busy, BUSY_USERS, &[self.host.address()], &by_secret());
        busy.fill().await;
        busy.start(self.options.rate);
        sleep(Duration::from_millis(500)).await;
        let began = busy.moments();
        let (before, start) = (busy.tally().acknowledged, Instant::now());
        let taken = block_in_place(take)?;
        let (during, took) = (busy.tally().acknowledged, start.elapsed());
        sleep(Duration::from_millis(500)).await;
        if busy.tally().acknowledged == during {
            self.row.failures.push(format!("no write was acknowledged in the 0.5 s after {name}"));
        }
        self.row.notes.push(format!(
            "{name}: {:.2} s with {} resting tasks, while {} writes were acknowledged",
            took.as_secs_f64(),
            self.resting.census().0 + self.bulk_tasks(),
            during - before
        ));
        Ok((Backup { pages, busy, began }, taken))
    }

    /// Does what the page says to do before the server starts, as the role of this URL if it is not the server's. Starts
    /// the server on the restored database, and compares all tasks with what was acknowledged before the backup began.
    async fn check(&mut self, name: &str, backup: Backup, admin_url: Option<&str>) -> Result<(), Failure> {
        let expired = block_in_place(|| self.host.run("expire-sync-tokens", admin_url))?;
        self.row.notes.push(format!("{name}: {expired}"));
        let start = Instant::now();
        self.host.restart()?;
        self.host.wait_until_ready().await?;
        self.row.notes.push(format!("{name}: the server was ready {} ms after its start", start.elapsed().as_millis()));

        // Byte for byte.
        let Backup { pages, busy, began } = backup;
        for (who, before, load) in [("resting", pages.0, &self.resting), ("bulk", pages.1, &self.bulk)] {
            let after = load.snapshot().await?;
            if let Some(difference) = difference(&before, &after) {
                self.row.failures.push(format!("{name}: the pages of the {who} users have changed: {difference}"));
            }
        }
        // Field by field: what was acknowledged later is in the backup as it was acknowledged, or is not in it.
        let known = busy.known();
        busy.restored(&began);
        let required = busy.known();
        for load in [&self.resting, &busy] {
            if let Err(why) = load.check_everything().await {
                self.row.failures.push(format!("{name}: {why}"));
            }
        }
        let found = busy.known() - required;
        self.row.notes.push(format!(
            "{name}: {required} versions and deletions of busy users were acknowledged before it and are required; of {} later ones, \
             {found} are restored",
            known - required
        ));
        self.row.tally.add(mem::take(&mut *busy.tally()));

        let before = self.resting.tally().acknowledged;
        self.resting.start(self.options.rate);
        sleep(Duration::from_secs(1)).await;
        self.resting.stop().await;
        if self.resting.tally().acknowledged == before {
            self.row.failures.push(format!("{name}: no write succeeds after the restore"));
        }
        if let Err(why) = self.resting.check_everything().await {
            self.row.failures.push(format!("{name}: {why}"));
        }
        Ok(())
    }

    /// Stops the server, and returns the result of the drill.
    async fn finish(mut self) -> Result<Row, Failure> {
        self.host.terminate()?;
        let status = self.host.end().await?;
        if !status.success() {
            self.row.failures.push(format!("after SIGTERM, the server exited with {status}"));
        }
        self.row.tally.add(mem::take(&mut *self.resting.tally()));
        Ok(self.row)
    }
}

/// The first difference between pages, with the text around it.
fn difference(before: &[Bytes], after: &[Bytes]) -> Option<String> {
    let (before, after) = (before.concat(), after.concat());
    let at = before.iter().zip(&after).position(|(one, other)| one != other);
    let at = at.or((before.len() != after.len()).then_some(before.len().min(after.len())))?;
    let excerpt =
        |text: &[u8]| String::from_utf8_lossy(&text[at.saturating_sub(60)..text.len().min(at + 60)]).into_owned();
    Some(format!("..{}.. was ..{}..", excerpt(&after), excerpt(&before)))
}

/// SQLite: each of the two commands in turn. The server is killed while users write.
pub(crate) async fn sqlite(drill: Drill, options: &Options) -> Result<Row, Failure> {
    let mut row = Row { name: drill.name(), allowed: SERVER_DOWN, ..Row::default() };
    let version = run(Command::new("sqlite3").arg("--version"))?;
    row.notes.push(format!("SQLite {}", version.split(' ').next().unwrap_or_default()));
    let backup = inline(".backup ")?;
    let methods = if options.sabotage {
        // The page says not to do this: the last writes are in another file.
        vec![("cp", "cp todo.db copy.db; echo ok".to_owned())]
    } else {
        vec![
            ("vacuum into", block("vacuum into")?.to_owned()),
            (backup, format!("sqlite3 -cmd '.timeout 10000' todo.db '{backup}'\n{}", line("integrity_check")?)),
        ]
    };
    for (number, (name, script)) in methods.into_iter().enumerate() {
        let folder = options.out.join(format!("{}-{number}", drill.name()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let file = folder.join("todo.db");
        let setup = with_secret(drill, options, &format!("sqlite://{}", file.display()));
        let mut service = Service::start(row, &setup, options).await?;
        block_in_place(|| insert_into_sqlite(&file, service.bulk_tasks()))?;
        let take = || run(Command::new("sh").args(["-e", "-c", &script]).current_dir(&folder));
        let (mut backup, integrity) = service.back_up(name, "busyUser", take).await?;
        if integrity != "ok" {
            service.row.failures.push(format!("{name}: the copy is damaged: {integrity}"));
        }
        service.host.kill()?;
        backup.busy.stop().await;
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(folder.join(format!("todo.db{suffix}")));
        }
        fs::copy(folder.join("copy.db"), &file)?;
        service.check(name, backup, None).await?;
        row = service.finish().await?;
    }
    Ok(row)
}

/// Inserts tasks with ids of version 7 that the server does not create.
fn insert_into_sqlite(file: &Path, count: usize) -> Result<(), Failure> {
    let mut script = String::from(".timeout 10000\nbegin;\n");
    for number in 0..count {
        let owner = user_name("bulkUser", number % BULK_USERS);
        let time = 1_700_000_000_000_000 + number * 1000;
        let _ = writeln!(
            script,
            "insert into todo_tasks (user_id, id, title, completed, created_at, updated_at, version) values \
             ('{owner}', x'{:012x}70008000{number:012x}', 'Bulk {number}', {}, {time}, {time}, 1);",
            1_700_000_000_000 + number,
            number % 2
        );
    }
    script += "commit;\n";
    let input = file.with_file_name("bulk.sql");
    fs::write(&input, script)?;
    let status =
        Command::new("sqlite3").arg("-bail").arg(file).stdin(fs::File::open(&input)?).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("sqlite3 cannot insert tasks: {status}").into()) }
}

/// PostgreSQL: a dump, then a base backup with the archived log, for a server with or without row-level security.
pub(crate) async fn postgres(drill: Drill, options: &Options, row_security: bool) -> Result<Row, Failure> {
    let server = postgres_with(ARCHIVING).await?;
    let shell = block_in_place(|| Shell::new(&server, row_security))?;
    block_in_place(|| shell.run(line("roles.sql")?))?;
    let setup = if row_security {
        // A role that owns nothing; the owner migrates.
        with_secret(drill, options, &shell.url("todo_app"))
            .set("DATABASE_DIRECT_URL", shell.url("todo"))
            .set("ROW_SECURITY", "on")
    } else {
        with_secret(drill, options, &shell.url("todo"))
    };
    let mut row = Row { name: drill.name(), allowed: BUSY, ..Row::default() };
    row.notes.push(format!("PostgreSQL {}", server.version()));
    let mut service = Service::start(row, &setup, options).await?;
    let insert = format!(
        "insert into todo.tasks (user_id, id, title, completed, created_at, updated_at, version) \
         select 'bulkUser000000' || lpad((i % {BULK_USERS})::text, 18, '0'), \
         (lpad(to_hex(1700000000000 + i), 12, '0') || '70008000' || lpad(to_hex(i), 12, '0'))::uuid, 'Bulk ' || i, i % 2 = 1, \
         to_timestamp(1700000000 + i * 0.001), to_timestamp(1700000000 + i * 0.001), 1 from generate_series(1, {}) i",
        service.bulk_tasks()
    );
    execute(&shell.url("postgres"), &insert).await?;
    dump_and_restore(&mut service, &server, &shell).await?;
    point_in_time(&mut service, &server, &shell).await?;
    service.finish().await
}

async fn execute(url: &str, statement: &str) -> Result<(), Failure> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

async fn dump_and_restore(service: &mut Service<'_>, server: &Server, shell: &Shell<'_>) -> Result<(), Failure> {
    let dump = block("pg_dump ")?;
    let (mut backup, _) = service.back_up("pg_dump", "dumpUser", || shell.run(dump)).await?;
    if shell.has_row_security() {
        // The owner is subject to the policies, and must not get a dump that lacks rows.
        match block_in_place(|| shell.run_as("todo", &dump.replace("todo.dump", "owner.dump"))) {
            Err(error) if error.to_string().contains("row-level security") => {}
            outcome => service.row.failures.push(format!("pg_dump as the owner: {outcome:?}")),
        }
    }
    backup.busy.stop().await;
    service.host.terminate()?;
    service.host.end().await?;
    for statement in ["drop database todo with (force)", "drop role todo", "drop role if exists todo_app"] {
        execute(server.url(), statement).await?;
    }
    let start = Instant::now();
    block_in_place(|| shell.run(block("pg_restore ")?))?;
    service.row.notes.push(format!("pg_restore: {:.2} s", start.elapsed().as_secs_f64()));
    if service.options.sabotage {
        let (user, id) = service.resting.victim().ok_or("there is no task")?;
        let delete = format!("delete from todo.tasks where user_id = '{user}' and id = '{id}'");
        execute(&shell.url("postgres"), &delete).await?;
    }
    let admin_url = shell.has_row_security().then(|| shell.url("postgres"));
    service.check("pg_dump", backup, admin_url.as_deref()).await
}

/// Deletes all tasks by mistake, and restores the state before.
async fn point_in_time(service: &mut Service<'_>, server: &Server, shell: &Shell<'_>) -> Result<(), Failure> {
    let faults = server.faults().ok_or("PostgreSQL is no private cluster")?;
    let (mut backup, _) = service.back_up("pg_basebackup", "baseUser", || shell.run(block("pg_basebackup ")?)).await?;
    // Well after the base backup, so that the restored tasks come from the log.
    sleep(Duration::from_secs(1)).await;
    backup.began = backup.busy.moments();
    let mut connection = PgConnection::connect(&shell.url("postgres")).await?;
    let good: String = sqlx::query_scalar("select clock_timestamp()::text").fetch_one(&mut connection).await?;
    backup.busy.stop().await;
    sqlx::raw_sql("delete from todo.tasks").execute(&mut connection).await?;
    let switched: String =
        sqlx::query_scalar("select pg_walfile_name(pg_switch_wal())").fetch_one(&mut connection).await?;
    drop(connection);
    service.host.kill()?;
    let (data, archive) = (faults.folder().join("data"), faults.folder().join("archive"));
    wait_for("the last file of the log in the archive", async || Ok(archive.join(&switched).exists())).await?;
    block_in_place(|| faults.kill())?;

    let start = Instant::now();
    fs::remove_dir_all(&data)?;
    fs::rename(faults.folder().join("base"), &data)?;
    run(faults.command("touch").arg(data.join("recovery.signal")))?;
    fs::write(data.join("postgresql.conf"), recovery_settings(&data, &archive, &good)?)?;
    block_in_place(|| faults.start())?;
    wait_for("the end of the recovery", async || {
        let mut connection = PgConnection::connect(server.url()).await?;
        let recovers: bool = sqlx::query_scalar("select pg_is_in_recovery()").fetch_one(&mut connection).await?;
        Ok(!recovers)
    })
    .await?;
    service.row.notes.push(format!(
        "recovery: {:.2} s with {} files of the log",
        start.elapsed().as_secs_f64(),
        fs::read_dir(&archive)?.count()
    ));
    let admin_url = shell.has_row_security().then(|| shell.url("postgres"));
    service.check("recovery", backup, admin_url.as_deref()).await
}

/// The configuration of the base backup, with the settings of the page for this archive and this time.
fn recovery_settings(data: &Path, archive: &Path, time: &str) -> Result<String, Failure> {
    let mut settings = fs::read_to_string(data.join("postgresql.conf"))?;
    for line in block("restore_command")?.lines() {
        let line = if line.starts_with("recovery_target_time") {
            format!("recovery_target_time = '{time}'")
        } else {
            line.replace("/archive/", &format!("{}/", archive.display()))
        };
        let _ = writeln!(settings, "{line}");
    }
    Ok(settings)
}

async fn wait_for(what: &str, mut is_done: impl AsyncFnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let deadline = Instant::now() + TIMEOUT;
    while !is_done().await? {
        if Instant::now() > deadline {
            return Err(format!("timed out waiting for {what}").into());
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_between_pages_is_found() {
        let pages =
            |texts: &[&'static str]| texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect::<Vec<_>>();
        let before = pages(&["[1,2]", "[3]"]);
        assert_eq!(difference(&before, &before.clone()), None);
        assert_eq!(difference(&before, &pages(&["[1,2]", "[4]"])).as_deref(), Some("..[1,2][4].. was ..[1,2][3].."));
        for other in [pages(&["[1,2]"]), pages(&["[1,2]", "[3]", "[]"])] {
            assert!(difference(&before, &other).is_some(), "{other:?}");
        }
    }
}
