//! `todo-server dev`: everything that a first try needs, in one directory.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use todo_core::UserId;

use crate::{
    failure::Failure,
    settings::{Database, Hidden, Keys},
    token,
};

/// Where `dev` keeps its things, below the current directory.
const DIRECTORY: &str = ".todo-dev";
/// Whose token is printed.
const USER: &str = "alice";
/// Long enough that a token in somebody's notes still works after the holidays.
const LIFETIME: Duration = Duration::from_hours(30 * 24);

/// The files of `dev`, made at first start.
#[derive(Debug)]
pub(crate) struct Home {
    directory: PathBuf,
    pub(crate) secret: Hidden,
}

impl Home {
    /// The directory and the secret in it, which are made if they are not there.
    pub(crate) fn open() -> Result<Self, Failure> {
        let directory = PathBuf::from(DIRECTORY);
        let failed = |error| Failure::fatal(format!("cannot keep the secret in {DIRECTORY}: {error}"));
        make_directory(&directory).map_err(failed)?;
        let path = directory.join("secret");
        match make_secret(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let secret = read_secret(&path)?;
        Ok(Self { directory, secret })
    }

    /// The secret, if `dev` was started in this directory before.
    pub(crate) fn existing_secret() -> Result<Option<Hidden>, Failure> {
        let path = Path::new(DIRECTORY).join("secret");
        if path.exists() { read_secret(&path).map(Some) } else { Ok(None) }
    }

    pub(crate) fn database(&self) -> Database {
        Database::Sqlite {
            url: format!("sqlite://{}", self.directory.join("todo.db").display()),
            is_default: false,
            max_waiting: None,
        }
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path)?;
    // So that nobody checks the secret in.
    fs::write(path.join(".gitignore"), "*\n")
}

/// Writes a new secret for its owner only; it fails if there is one.
fn make_secret(path: &Path) -> io::Result<()> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no randomness"))?;
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

fn read_secret(path: &Path) -> Result<Hidden, Failure> {
    let text =
        fs::read_to_string(path).map_err(|error| Failure::fatal(format!("cannot read {}: {error}", path.display())))?;
    let secret = text.trim();
    if secret.len() < 32 {
        return Err(Failure::fatal(format!(
            "{} does not hold a whole secret; delete it, and a new one will be made",
            path.display()
        )));
    }
    Ok(Hidden::new(secret))
}

/// What was started, with commands that can be pasted as they are: each holds all that it needs.
pub(crate) fn greeting(address: SocketAddr, keys: &Keys, ignored: &[&str]) -> Result<String, Failure> {
    let user = UserId::new(USER).map_err(|error| Failure::fatal(error.to_string()))?;
    let token = token::mint(keys, &user, LIFETIME)?;
    let tasks = format!("http://{address}/api/tasks");
    let authorization = format!("-H 'Authorization: Bearer {token}'");
    let json = "-H 'Content-Type: application/json'";
    let not_used = match ignored {
        [] => String::new(),
        names => format!("Set, but not used by dev: {}.\n", names.join(", ")),
    };
    // Without jq, which not every machine has.
    let newest = format!(r#"$(curl -sS '{tasks}?limit=1' {authorization} | sed 's/.*"id":"\([^"]*\)".*/\1/')"#);
    Ok(format!(
        r#"The todo API is at http://{address}/api, for this machine only. Tasks and secret are in {DIRECTORY}/.
{not_used}
A token of the user {USER}, good for 30 days (for others: todo-server token --user bob):

{token}

Paste these to create a task, to list the tasks, and to complete the newest one:

curl -sS -w '\n' {tasks} {authorization} {json} -d '{{"title":"Buy milk"}}'
curl -sS -w '\n' {tasks} {authorization}
curl -sS -w '\n' -X PATCH "{tasks}/{newest}/complete" {authorization} {json} -d '{{"completed":true}}'

Ctrl-C stops it.

"#
    ))
}
