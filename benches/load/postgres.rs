//! Databases with the tasks of many users, a new one for each measurement: on PostgreSQL if it is installed, otherwise on
//! SQLite.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr as _,
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, SqliteConnection, query_scalar, raw_sql, sqlite::SqliteConnectOptions,
};
use testkit::{
    postgres::{Server, Source},
    process::{cpu_of_family, memory_of_family_kib},
};
use todo_benches::{
    measure::float,
    workload::{Mix, Operation, fill_postgres, fill_sqlite},
};
use tokio::runtime::Runtime;

use crate::contenders::{Kind, Programs, Variant};

/// Settings other than the defaults of PostgreSQL: memory for all rows, and no checkpoint in the middle of a
/// measurement. `fsync` and `synchronous_commit` are on.
const SETTINGS: &str = "shared_buffers = 256MB\nmax_wal_size = 4GB\ncheckpoint_timeout = 30min";

/// The settings in the report.
const SHOWN: [&str; 8] = [
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "max_connections",
    "autovacuum",
];

pub(crate) type Failure = Box<dyn std::error::Error>;

/// The source of the databases.
pub(crate) enum Databases {
    Postgres(Box<Cluster>),
    Sqlite(Files),
}

/// A database for one measurement.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) url: String,
    name: String,
}

impl Databases {
    /// Starts a private PostgreSQL server, or uses SQLite.
    pub(crate) fn open(sqlite: bool, owners: u32, todo_server: &Path) -> Result<Self, Failure> {
        if !sqlite && let Some(cluster) = Cluster::start(owners)? {
            return Ok(Self::Postgres(Box::new(cluster)));
        }
        Ok(Self::Sqlite(Files::make(todo_server)?))
    }

    /// A database with the tables of this program.
    pub(crate) fn fresh(&mut self, kind: Kind, programs: &Programs) -> Result<Fresh, Failure> {
        match self {
            Self::Postgres(cluster) => cluster.fresh(kind, programs),
            Self::Sqlite(files) => files.fresh(),
        }
    }

    pub(crate) fn discard(&mut self, fresh: &Fresh) -> Result<(), Failure> {
        match self {
            Self::Postgres(cluster) => cluster.run(&[&format!("drop database {} with (force)", fresh.name)]),
            Self::Sqlite(files) => Ok(fs::remove_dir_all(files.folder.path().join(&fresh.name))?),
        }
    }

    /// The processor time of the database so far. That of SQLite belongs to the server.
    pub(crate) fn cpu(&self) -> Duration {
        match self {
            Self::Postgres(cluster) => cpu_of_family(cluster.postmaster),
            Self::Sqlite(_) => Duration::ZERO,
        }
    }

    /// The memory of the database, with shared memory counted once. That of SQLite belongs to the server.
    pub(crate) fn memory_kib(&self) -> Option<u64> {
        match self {
            Self::Postgres(cluster) => Some(memory_of_family_kib(cluster.postmaster)),
            Self::Sqlite(_) => None,
        }
    }

    /// Reads how much the database has written ahead. SQLite does not say.
    pub(crate) fn wal(&self) -> Result<Option<Wal<'_>>, Failure> {
        let Self::Postgres(cluster) = self else { return Ok(None) };
        let connection = cluster.runtime.block_on(PgConnection::connect(cluster.server.url()))?;
        Ok(Some(Wal { runtime: &cluster.runtime, connection }))
    }

    /// A description for the report.
    pub(crate) fn description(&mut self) -> Result<String, Failure> {
        match self {
            Self::Postgres(cluster) => cluster.description(),
            Self::Sqlite(_) => Ok("SQLite, WAL, synchronous = FULL".to_owned()),
        }
    }

    pub(crate) fn close(self) {
        if let Self::Postgres(cluster) = self {
            cluster.server.stop();
        }
    }
}

fn migrate(todo_server: &Path, url: &str) -> Result<(), Failure> {
    let output =
        Command::new(todo_server).arg("migrate").env_clear().env("DATABASE_URL", url).current_dir("/").output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

/// The write-ahead log of PostgreSQL.
pub(crate) struct Wal<'a> {
    runtime: &'a Runtime,
    connection: PgConnection,
}

impl Wal<'_> {
    /// The number of bytes that were ever written.
    pub(crate) fn bytes(&mut self) -> Option<u64> {
        let bytes = query_scalar("select cast(pg_current_wal_insert_lsn() - '0/0' as bigint)");
        self.runtime
            .block_on(bytes.fetch_one(&mut self.connection))
            .ok()
            .and_then(|bytes: i64| u64::try_from(bytes).ok())
    }
}

/// A private PostgreSQL server.
pub(crate) struct Cluster {
    server: Server,
    runtime: Runtime,
    postmaster: u32,
    /// The number of users who have tasks.
    owners: u32,
    made: u32,
    /// The databases that are copied.
    templates: Vec<String>,
    programs: PathBuf,
}

/// What a hand-written program has no use for: revisions, and indexes for them.
const WITHOUT_REVISIONS: &str = "alter table todo.tasks disable trigger user;
    drop index todo.tasks_user_id_revision_id_idx, todo.tasks_user_id_request_key_idx";

impl Cluster {
    fn start(owners: u32) -> Result<Option<Self>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let Some(server) = runtime.block_on(Server::start_local(SETTINGS))? else { return Ok(None) };
        let Source::Local(programs) = server.source().clone() else { return Ok(None) };
        let folder: String = runtime.block_on(async {
            let mut connection = PgConnection::connect(server.url()).await?;
            query_scalar("show data_directory").fetch_one(&mut connection).await
        })?;
        let lines = fs::read_to_string(Path::new(&folder).join("postmaster.pid"))?;
        let postmaster = lines.lines().next().unwrap_or_default().trim().parse()?;
        Ok(Some(Self { server, runtime, postmaster, owners, made: 0, templates: Vec::new(), programs }))
    }

    /// The database to copy for this program. It is filled when it is needed for the first time.
    fn template(&mut self, kind: Kind, programs: &Programs) -> Result<String, Failure> {
        let (name, todo_server, has_revisions) = match kind {
            Kind::Ours { variant: Variant::OtherBuild(index), .. } => {
                (format!("template_of_other_{index}"), &programs.others[index], true)
            }
            Kind::Ours { .. } => ("template".to_owned(), &programs.todo_server, true),
            _ => ("template_without_revisions".to_owned(), &programs.todo_server, false),
        };
        if !self.templates.contains(&name) {
            self.run(&[&format!("create database {name}")])?;
            let url = self.server.url_of(&name);
            migrate(todo_server, &url)?;
            if !has_revisions {
                self.run_in(&url, &[WITHOUT_REVISIONS])?;
            }
            self.run_in(&url, &[&fill_postgres(self.owners), "vacuum (full, freeze, analyze)"])?;
            self.templates.push(name.clone());
        }
        Ok(name)
    }

    fn run(&mut self, statements: &[&str]) -> Result<(), Failure> {
        let url = self.server.url().to_owned();
        self.run_in(&url, statements)
    }

    fn run_in(&mut self, url: &str, statements: &[&str]) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(url).await?;
            for statement in statements {
                raw_sql(AssertSqlSafe((*statement).to_owned())).execute(&mut connection).await?;
            }
            Ok(connection.close().await?)
        })
    }

    /// A copy of the template. A checkpoint writes it to disk before the measurement.
    fn fresh(&mut self, kind: Kind, programs: &Programs) -> Result<Fresh, Failure> {
        let template = self.template(kind, programs)?;
        self.made += 1;
        let name = format!("load_{}", self.made);
        self.run(&[&format!("create database {name} template {template}"), "checkpoint"])?;
        Ok(Fresh { url: self.server.url_of(&name), name })
    }

    fn description(&mut self) -> Result<String, Failure> {
        let url = self.server.url().to_owned();
        let (settings, commit) = self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&url).await?;
            let mut settings = Vec::new();
            for name in SHOWN {
                let value: String =
                    query_scalar("select current_setting($1)").bind(name).fetch_one(&mut connection).await?;
                settings.push(format!("{name} = {value}"));
            }
            // The duration of a commit shows whether it waits for the disk.
            raw_sql("create table commits (n int)").execute(&mut connection).await?;
            let mut times = Vec::new();
            for n in 0..200 {
                let begun = Instant::now();
                sqlx::query("insert into commits values ($1)").bind(n).execute(&mut connection).await?;
                times.push(begun.elapsed());
            }
            raw_sql("drop table commits").execute(&mut connection).await?;
            times.sort();
            Ok::<_, sqlx::Error>((settings, times[times.len() / 2]))
        })?;
        let commit = float(u64::try_from(commit.as_micros())?) / 1000.0;
        Ok(format!("PostgreSQL, {}; one commit of one connection takes {commit:.2} ms", settings.join(", ")))
    }

    /// Sends the statements of the load with pgbench. Returns their number per second.
    pub(crate) fn pgbench(&self, fresh: &Fresh, run: Pgbench) -> Result<f64, Failure> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(self.programs.join("pgbench"));
        command.args(["-n", "-M", "prepared"]).args(["-T", &run.duration.as_secs().to_string()]);
        let statements_each = if run.pipelined {
            let script = folder.path().join("pipeline.sql");
            fs::write(&script, pipeline(run.users))?;
            command.args(["-c", "4"]).arg("-f").arg(script);
            float(PIPELINED)
        } else {
            command.args(["-c", "16"]);
            for operation in Operation::ALL {
                let path = folder.path().join(operation.name());
                fs::write(&path, draw("", run.users) + &statement(operation, ""))?;
                command.arg("-f").arg(format!("{}@{}", path.display(), Mix::Usual.percent(operation)));
            }
            1.0
        };
        // postgres://postgres:password@127.0.0.1:port/postgres
        let (user, server) = self.server.url().rsplit_once('@').ok_or("a URL without a user")?;
        let password = user.rsplit_once(':').ok_or("a URL without a password")?.1;
        let port = server.split(['/', ':']).nth(1).ok_or("a URL without a port")?;
        let output = command
            .args(["-h", "127.0.0.1", "-p", port, "-U", "postgres", &fresh.name])
            .env("PGPASSWORD", password)
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
        match rate {
            Some(rate) if output.status.success() => Ok(rate * statements_each),
            _ => Err(format!("pgbench failed: {said}{}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    }
}

/// A run of pgbench.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pgbench {
    pub(crate) pipelined: bool,
    pub(crate) users: u32,
    pub(crate) duration: Duration,
}

/// Variables of pgbench for a random user and one of the user's initial tasks. The suffix makes their names unique.
fn draw(suffix: &str, users: u32) -> String {
    format!(
        "\\set u{suffix} 1000000000 + random(0, {})\n\\set t{suffix} 100000000000 + (:u{suffix} - 1000000000) * 100 + random(0, 19)\n",
        users - 1
    )
}

/// A statement as todo-server and the baselines send it.
fn statement(operation: Operation, suffix: &str) -> String {
    let user = format!("'userOfTheLoadTest00000' || :u{suffix}");
    let task = format!("('01900000-0000-7000-8000-' || :t{suffix})::uuid");
    let columns = "id, title, description, completed, created_at, updated_at, version";
    match operation {
        Operation::List => format!(
            "select {columns} from todo.tasks where user_id = {user} \
             and id <= 'ffffffff-ffff-ffff-ffff-ffffffffffff' order by id desc limit 21;\n"
        ),
        Operation::Get => format!("select {columns} from todo.tasks where user_id = {user} and id = {task};\n"),
        Operation::Create => format!(
            "insert into todo.tasks (user_id, {columns}) values ({user}, gen_random_uuid(), \
             'Buy milk, bread and something for the guests', 'Not the one from last time.', false, now(), now(), 1) \
             on conflict do nothing;\n"
        ),
        Operation::Toggle => format!(
            "update todo.tasks set completed = not completed, updated_at = greatest(updated_at, now()), \
             version = version + 1 where user_id = {user} and id = {task} returning {columns};\n"
        ),
    }
}

const PIPELINED: u64 = 20;

/// The same mix in pipelines of twenty statements, which are one transaction.
fn pipeline(users: u32) -> String {
    let operations: Vec<_> = Operation::ALL
        .into_iter()
        .flat_map(|operation| {
            std::iter::repeat_n(operation, usize::try_from(Mix::Usual.percent(operation) / 5).unwrap_or(0))
        })
        .collect();
    let draws: String = (0..operations.len()).map(|index| draw(&index.to_string(), users)).collect();
    let statements: String =
        operations.iter().enumerate().map(|(index, operation)| statement(*operation, &index.to_string())).collect();
    format!("{draws}\\startpipeline\n{statements}\\endpipeline\n")
}

/// Copies of one SQLite database.
pub(crate) struct Files {
    folder: tempfile::TempDir,
    made: u32,
}

impl Files {
    pub(crate) fn make(todo_server: &Path) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let template = format!("sqlite://{}", folder.path().join("template.db").display());
        migrate(todo_server, &template)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let options = SqliteConnectOptions::from_str(&template)?;
            let mut connection = SqliteConnection::connect_with(&options).await?;
            raw_sql(AssertSqlSafe(fill_sqlite())).execute(&mut connection).await?;
            raw_sql("analyze; pragma wal_checkpoint(truncate)").execute(&mut connection).await?;
            connection.close().await
        })?;
        Ok(Self { folder, made: 0 })
    }

    pub(crate) fn fresh(&mut self) -> Result<Fresh, Failure> {
        self.made += 1;
        let name = format!("copy-{}", self.made);
        let folder = self.folder.path().join(&name);
        fs::create_dir(&folder)?;
        let file = folder.join("todo.db");
        fs::copy(self.folder.path().join("template.db"), &file)?;
        sync(&file)?;
        Ok(Fresh { url: format!("sqlite://{}", file.display()), name })
    }
}

fn sync(file: &Path) -> io::Result<()> {
    fs::File::open(file)?.sync_all()
}
