//! `todo-server dev`: serves the API on this machine without settings.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use todo_core::UserId;

use super::{serve::Api, token};
use crate::{
    app,
    connection::MemoryBudget,
    database,
    failure::Failure,
    key_sources::key_sources,
    serve::{self, StopSignals},
    settings::{self, Database, Group, Http, Keys, Log, Secret, Sources, Tasks},
    telemetry,
};

/// The directory of the database and the secret, below the current directory.
const DIRECTORY: &str = ".todo-dev";
/// The user of the printed token.
const USER: &str = "alice";
const TOKEN_LIFETIME: Duration = Duration::from_hours(30 * 24);

/// Serves until a stop signal.
pub(super) async fn run(mut sources: Sources) -> Result<(), Failure> {
    let port = settings::port(&mut sources);
    let http = Http::read(&mut sources);
    let tasks = Tasks::read(&mut sources);
    let log = Log::read(&mut sources);
    let ignored = sources.names_in(&[Group::Host, Group::Database, Group::Keys, Group::Metrics]);
    let http = sources.finish(http)?;
    let telemetry = telemetry::install(log)?;
    let stop = StopSignals::subscribe()?;

    let listener = serve::listen((Ipv4Addr::LOCALHOST, port).into()).await?;
    let directory = PathBuf::from(DIRECTORY);
    let keys = Keys::from_secret(open_secret(&directory)?);
    let database = database_in(&directory);
    let limit = serve::connection_limit(http.max_connections, database.open_files());
    let store = database::open(&database).await?;
    let key_sources = key_sources(&keys).map_err(|_| Failure::fatal("the secret of dev is invalid"))?;
    let api = Api::new(&http, tasks, &store, key_sources, keys.leeway)?;
    let address = listener.local_addr().map_err(|error| Failure::fatal(format!("cannot listen: {error}")))?;
    let instructions = instructions(address, &keys, &ignored)?;
    // The server also works if its standard output is closed.
    let _ = io::stdout().write_all(instructions.as_bytes());
    let memory = MemoryBudget::new(http.connection_memory, limit.max());
    serve::serve(listener, api.app, limit, memory, http.stop(stop, api.todo)).await;
    store.close().await;
    telemetry.finish().await;
    Ok(())
}

/// The secret of `dev` in the current directory, if there is one.
pub(super) fn existing_secret() -> Result<Option<Secret>, Failure> {
    let path = Path::new(DIRECTORY).join("secret");
    if path.exists() { read_secret(&path).map(Some) } else { Ok(None) }
}

/// Reads the secret in this directory. Creates the directory and the secret if they do not exist.
fn open_secret(directory: &Path) -> Result<Secret, Failure> {
    let failed = |error| Failure::fatal(format!("cannot write the secret into {DIRECTORY}: {error}"));
    create_directory(directory).map_err(failed)?;
    let path = directory.join("secret");
    match create_secret(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    read_secret(&path)
}

fn database_in(directory: &Path) -> Database {
    Database::Sqlite {
        url: format!("sqlite://{}", directory.join("todo.db").display()),
        is_default: false,
        max_waiting: None,
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path)?;
    // So that the secret is not committed by mistake.
    fs::write(path.join(".gitignore"), "*\n")
}

/// Writes a new secret that only its owner can read. Fails if the file exists.
fn create_secret(path: &Path) -> io::Result<()> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system has no random numbers"))?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(URL_SAFE_NO_PAD.encode(bytes).as_bytes())?;
    file.sync_all()
}

fn read_secret(path: &Path) -> Result<Secret, Failure> {
    let text =
        fs::read_to_string(path).map_err(|error| Failure::fatal(format!("cannot read {}: {error}", path.display())))?;
    let secret = text.trim();
    if secret.len() < 32 {
        return Err(Failure::fatal(format!(
            "the secret in {} is too short; delete the file to get a new secret",
            path.display()
        )));
    }
    Ok(Secret::new(secret))
}

/// What `dev` prints: where the API is, and commands to try it. They work in any shell and any directory once the line
/// `TOKEN=..` has been pasted.
fn instructions(address: SocketAddr, keys: &Keys, ignored: &[&str]) -> Result<String, Failure> {
    let user = UserId::new(USER).map_err(|error| Failure::fatal(error.to_string()))?;
    let token = token::sign_token(keys, &user, TOKEN_LIFETIME)?;
    let mount = app::MOUNT;
    let program = std::env::args().next().unwrap_or_else(|| "todo-server".to_owned());
    let tasks = format!("http://{address}{mount}/tasks");
    let authorization = r#"-H "Authorization: Bearer $TOKEN""#;
    let json = "-H 'Content-Type: application/json'";
    let ignored = match ignored {
        [] => String::new(),
        names => format!("\nThese settings are set, but dev ignores them: {}.\n", names.join(", ")),
    };
    // `sed` finds the id, since not every machine has `jq`.
    let newest = format!(r#"$(curl -sS "{tasks}?limit=1" {authorization} | sed 's/.*"id":"\([^"]*\)".*/\1/')"#);
    Ok(format!(
        r#"The API:            http://{address}{mount}
Its documentation:  http://{address}/docs

The server accepts connections from this machine only. Tasks and secret are in {DIRECTORY}/. Ctrl-C stops it.
{ignored}
A token of the user {USER}, valid for 30 days (for another user: {program} token --dev --user bob):

TOKEN={token}

Create a task, list the tasks, and complete the newest one:

curl -sS -w '\n' {tasks} {authorization} {json} -d '{{"title":"Buy milk"}}'
curl -sS -w '\n' {tasks} {authorization}
curl -sS -w '\n' -X PATCH "{tasks}/{newest}/complete" {authorization} {json} -d '{{"completed":true}}'

"#
    ))
}
