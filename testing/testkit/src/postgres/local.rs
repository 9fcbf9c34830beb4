//! A private cluster of the PostgreSQL programs of this machine.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, BufRead as _, Read as _},
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Error,
    keeper::{Keeper, User},
};

/// Where packages install the programs, which are seldom in PATH: the folder of all versions, and the prefix of the
/// name of each.
const PACKAGES: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
    ("/Library/PostgreSQL", ""),
];

/// The folder of PostgreSQL's programs: the first in `PATH` that has all of them, else the newest version that is
/// installed. `None` if there is none.
#[must_use]
pub fn programs() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    in_path(&path).or_else(|| PACKAGES.iter().find_map(|(folder, prefix)| newest(Path::new(folder), prefix)))
}

fn in_path(path: &OsStr) -> Option<PathBuf> {
    // PATH may have links, and the folder of the target has all programs.
    env::split_paths(path)
        .filter_map(|folder| fs::canonicalize(folder.join("initdb")).ok())
        .filter_map(|initdb| initdb.parent().map(Path::to_owned))
        .find(|folder| has_all_programs(folder))
}

fn newest(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let mut found: Vec<(f64, PathBuf)> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, bin)| has_all_programs(bin))
        .collect();
    found.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    found.pop().map(|(_, bin)| bin)
}

fn has_all_programs(folder: &Path) -> bool {
    ["initdb", "pg_ctl", "postgres"].iter().all(|program| folder.join(program).is_file())
}

/// A cluster on `127.0.0.1`. It is removed at the end of its keeper.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) keeper: Keeper,
    pub(super) port: u16,
    /// The folder of its data and its log.
    pub(super) folder: PathBuf,
    /// The user that it runs as, if that is not the user of this process.
    pub(super) user: Option<User>,
}

/// Starts a cluster on a free port, with these lines in its `postgresql.conf`.
pub(super) fn start(programs: &Path, password: &str, settings: &str) -> Result<Cluster, Error> {
    start_on(&free_ports().map_err(Error::Keeper)?, programs, password, settings)
}

/// Starts a cluster on the first of the ports that is still free.
fn start_on(ports: &[u16], programs: &Path, password: &str, settings: &str) -> Result<Cluster, Error> {
    let user = unprivileged_user().map_err(Error::Keeper)?;
    let arguments = std::iter::once(programs.into()).chain(ports.iter().map(|port| port.to_string().into()));
    let (mut keeper, mut said) =
        Keeper::start(include_str!("keep-cluster.sh"), arguments, &[("TESTKIT_SETTINGS", settings)], user)
            .map_err(Error::Keeper)?;
    let mut line = String::new();
    keeper.tell(password).and_then(|()| said.read_line(&mut line)).map_err(Error::Keeper)?;
    let ready = line.strip_prefix("ready ").and_then(|line| {
        let (port, folder) = line.trim_end().split_once(' ')?;
        Some((port.parse().ok()?, folder.into()))
    });
    if let Some((port, folder)) = ready {
        return Ok(Cluster { keeper, port, folder, user });
    }
    let mut log = String::new();
    said.read_to_string(&mut log).map_err(Error::Keeper)?;
    keeper.stop();
    Err(Error::Cluster { programs: programs.to_owned(), log })
}

/// Several ports, since another program may take one before the server does.
pub(super) fn free_ports() -> io::Result<Vec<u16>> {
    (0..5).map(|_| crate::http::lasting_port()).collect()
}

/// The user for PostgreSQL, which does not run as root. `None` if this process does not run as root.
pub(super) fn unprivileged_user() -> io::Result<Option<User>> {
    if id(&["-u"])? != Some(0) {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let (Some(uid), Some(gid)) = (id(&["-u", name])?, id(&["-g", name])?) {
            return Ok(Some(User { uid, gid }));
        }
    }
    Err(io::Error::other("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`"))
}

fn id(arguments: &[&str]) -> io::Result<Option<u32>> {
    let output = Command::new("id").args(arguments).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn programs_in(folder: &Path) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        for program in ["initdb", "pg_ctl", "postgres"] {
            fs::write(folder.join(program), "").unwrap();
        }
        fs::canonicalize(folder).unwrap()
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let root = tempfile::tempdir().unwrap();
        programs_in(&root.path().join("pgsql-9.6/bin"));
        let newest_one = programs_in(&root.path().join("pgsql-18/bin"));
        fs::create_dir_all(root.path().join("pgsql-19/bin")).unwrap();
        assert_eq!(newest(&fs::canonicalize(root.path()).unwrap(), "pgsql-"), Some(newest_one));
        assert_eq!(newest(root.path(), ""), None);
    }

    #[test]
    fn a_link_in_path_leads_to_the_programs() {
        let root = tempfile::tempdir().unwrap();
        let programs = programs_in(&root.path().join("17/bin"));
        let client_only = root.path().join("client");
        let links = root.path().join("links");
        fs::create_dir_all(&client_only).unwrap();
        fs::write(client_only.join("initdb"), "").unwrap();
        fs::create_dir_all(&links).unwrap();
        std::os::unix::fs::symlink(programs.join("initdb"), links.join("initdb")).unwrap();
        let path = env::join_paths([&client_only, &links]).unwrap();
        assert_eq!(in_path(&path), Some(programs));
    }

    #[test]
    fn a_port_in_use_is_skipped() {
        let Some(programs) = programs() else { return };
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let free = free_ports().unwrap();
        let cluster = start_on(&[taken_port, free[0]], &programs, "secret", "").unwrap();
        assert_eq!(cluster.port, free[0]);
        cluster.keeper.stop();
    }

    #[test]
    fn an_error_contains_the_output_of_the_programs() {
        let root = tempfile::tempdir_in("/tmp").unwrap();
        let programs = programs_in(&root.path().join("bin"));
        for folder in [root.path(), &programs] {
            fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        fs::write(programs.join("initdb"), "#!/bin/sh\necho the disk is full >&2\nexit 1\n").unwrap();
        fs::set_permissions(programs.join("initdb"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let error = start_on(&[1], &programs, "secret", "").unwrap_err();
        assert!(error.to_string().contains("the disk is full"), "{error}");
    }
}
