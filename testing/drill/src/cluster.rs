//! Three machines with etcd, Patroni and PostgreSQL, as in docs/high-availability.md: with the files of `deploy/patroni`.
//!
//! Each machine is a network namespace with an address of its own, connected to a bridge. All processes in it end, stop
//! and continue together, and its cable can be pulled. This needs root.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use testkit::programs;

use crate::{Failure, commands::run};

const SETTINGS: &str = include_str!("../../../deploy/patroni/patroni.yml");
const OF_PATRONI: &str = include_str!("../../../deploy/patroni/node.env");
const OF_ETCD: &str = include_str!("../../../deploy/patroni/etcd.env");
const ROLES: &str = include_str!("../../../deploy/postgres/roles.sql");

/// Any password: the cluster exists for minutes, and no other machine can reach it.
const PASSWORD: &str = "only-for-drills";

/// How long the cluster may take to be whole.
const TIMEOUT: Duration = Duration::from_mins(4);

/// Three machines. They are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    keeper: Child,
    folder: PathBuf,
    pub(crate) machines: Vec<Machine>,
}

/// One of the machines.
#[derive(Debug)]
pub(crate) struct Machine {
    number: u8,
    folder: PathBuf,
    logs: PathBuf,
    children: Vec<Child>,
}

/// A machine as Patroni sees it.
#[derive(Clone, Debug, Deserialize)]
struct Member {
    name: String,
    role: String,
    state: String,
    #[serde(default)]
    timeline: u32,
}

#[derive(Clone, Debug, Deserialize)]
struct Members {
    members: Vec<Member>,
}

impl Cluster {
    /// Makes the machines, starts everything, and creates the role and the database of todo-server. The logs are
    /// written to this folder.
    pub(crate) fn start(logs: &Path) -> Result<Self, Failure> {
        let mut keeper = Command::new("sh")
            .args(["-c", include_str!("keep-machines.sh"), "keep-machines"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut said = String::new();
        let stdout = keeper.stdout.take().ok_or("standard output is piped")?;
        BufReader::new(stdout).read_line(&mut said)?;
        let Some(folder) = said.trim_end().strip_prefix("ready ").map(PathBuf::from) else {
            let _ = keeper.stdin.take();
            keeper.wait()?;
            return Err(format!("network namespaces cannot be made (this needs root and `ip`): {}", said.trim()).into());
        };
        fs::write(folder.join("patroni.yml"), SETTINGS)?;
        fs::write(folder.join("roles.sql"), ROLES)?;
        let machine = |number: u8| Machine {
            number,
            folder: folder.join(number.to_string()),
            logs: logs.to_owned(),
            children: Vec::new(),
        };
        let mut cluster = Self { keeper, machines: (1..=3).map(machine).collect(), folder };
        for machine in &mut cluster.machines {
            machine.start()?;
        }
        cluster.wait_until_whole(None)?;
        let leader = cluster.leader().ok_or("there is no leader")?;
        let roles = cluster.folder.join("roles.sql");
        let mut psql = cluster.machines[leader].psql("postgres")?;
        run(psql.env("TODO_PASSWORD", PASSWORD).arg("--file").arg(roles))?;
        cluster.sql(leader, "create table probe (number integer primary key)")?;
        Ok(cluster)
    }

    /// What `DATABASE_URL` is.
    pub(crate) fn url(&self) -> String {
        let addresses: Vec<_> = self.machines.iter().map(|machine| machine.address().to_string()).collect();
        format!("postgres://todo:{PASSWORD}@{}/todo?sslmode=disable", addresses.join(","))
    }

    /// The versions of the three programs.
    pub(crate) fn versions() -> Result<String, Failure> {
        let of = |program: &Path| run(Command::new(program).arg("--version"));
        let (etcd, postgres) = (of(&program("etcd")?)?, of(&postgres_programs()?.join("postgres"))?);
        let etcd = etcd.lines().next().unwrap_or_default().replace(" Version:", "");
        Ok(format!("{}, {etcd}, {postgres}", of(&program("patroni")?)?))
    }

    /// Which machine is the leader. A former leader may still think that it is one, but on an older timeline.
    pub(crate) fn leader(&self) -> Option<usize> {
        let views = self.machines.iter().filter_map(Machine::view);
        let leaders = views.flatten().filter(|member| member.role == "leader" && member.state == "running");
        let leader = leaders.max_by_key(|member| member.timeline)?;
        self.machines.iter().position(|machine| machine.name() == leader.name)
    }

    /// Waits until all machines agree that there is a leader, and two standbys receive its writes; one of them
    /// synchronously, or none, if that is told.
    pub(crate) fn wait_until_whole(&self, is_synchronous: Option<bool>) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let views: Vec<_> = self.machines.iter().map(|machine| machine.view().unwrap_or_default()).collect();
            let leaders: BTreeSet<_> = views.iter().map(|view| whole(view, is_synchronous)).collect();
            if leaders.len() == 1 && leaders.iter().all(Option::is_some) {
                return Ok(());
            }
            if begun.elapsed() > TIMEOUT {
                return Err(format!("the cluster is not whole: {views:?}").into());
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Executes SQL on a machine as the superuser, and returns the output.
    pub(crate) fn sql(&self, machine: usize, statement: &str) -> Result<String, Failure> {
        run(self.machines[machine].psql("postgres")?.args(["--command", statement]))
    }

    /// The same in the database of todo-server.
    pub(crate) fn sql_of_todo(&self, machine: usize, statement: &str) -> Result<String, Failure> {
        run(self.machines[machine].psql("todo")?.args(["--command", statement]))
    }

    /// Runs `patronictl`.
    pub(crate) fn control(&self, arguments: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new(program("patronictl")?);
        command.arg("-c").arg(self.folder.join("patroni.yml")).args(arguments);
        command.envs(self.machines[0].environment(OF_PATRONI)?);
        run(&mut command)
    }
}

/// The leader and its timeline, if there is one, and two standbys receive its writes.
fn whole(members: &[Member], is_synchronous: Option<bool>) -> Option<(String, u32)> {
    let leader = members.iter().find(|member| member.role == "leader" && member.state == "running")?;
    let follows = |member: &&Member| member.state == "streaming" && member.timeline == leader.timeline;
    let synchronous = members.iter().filter(|member| member.role == "sync_standby").count();
    let is_whole = members.len() == 3
        && members.iter().filter(follows).count() == 2
        && is_synchronous.is_none_or(|wanted| synchronous == usize::from(wanted));
    is_whole.then(|| (leader.name.clone(), leader.timeline))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.keeper.stdin.take();
        let _ = self.keeper.wait();
        for child in self.machines.iter_mut().flat_map(|machine| &mut machine.children) {
            let _ = child.wait();
        }
    }
}

impl Machine {
    pub(crate) fn name(&self) -> String {
        format!("db{}", self.number)
    }

    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, 10 + self.number)
    }

    /// What its Patroni knows of all machines.
    fn view(&self) -> Option<Vec<Member>> {
        let body = get((self.address(), 8008).into(), "/cluster").ok()?;
        Some(serde_json::from_str::<Members>(&body).ok()?.members)
    }

    fn namespace(&self) -> String {
        format!("todo-ha{}", self.number)
    }

    /// Starts etcd and Patroni, which starts PostgreSQL.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        for child in &mut self.children {
            child.wait()?;
        }
        let etcd = self.spawn(&program("etcd")?, &[], OF_ETCD, "etcd")?;
        let settings = self.folder.with_file_name("patroni.yml").display().to_string();
        let patroni = self.spawn(&program("patroni")?, &[&settings], OF_PATRONI, "patroni")?;
        self.children = vec![etcd, patroni];
        Ok(())
    }

    fn spawn(&self, program: &Path, arguments: &[&str], environment: &str, log: &str) -> Result<Child, Failure> {
        // As the user postgres, with a folder of its own for the socket.
        let script = "mkdir -p /run/postgresql && mount -t tmpfs -o mode=1777 none /run/postgresql && \
                      exec setpriv --reuid postgres --regid postgres --init-groups \"$@\"";
        let log = self.logs.join(format!("high-availability-{}-{log}.log", self.name()));
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = self.command("sh");
        command.args(["-c", script, "sh"]).arg(program).args(arguments);
        command.envs(self.environment(environment)?).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command.spawn()?)
    }

    /// A command on this machine, in its folder.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(), program]);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("LANG", "C.UTF-8").current_dir(&self.folder).process_group(0);
        command
    }

    /// The settings of a file of `deploy/patroni` for this machine: with its name, its address, its folders and the
    /// passwords.
    fn environment(&self, file: &str) -> Result<Vec<(String, String)>, Failure> {
        let settings = file.lines().filter_map(|line| line.split_once('=')).filter(|(name, _)| !name.starts_with('#'));
        let programs = postgres_programs()?.display().to_string();
        let folder = |name: &str| self.folder.join(name).display().to_string();
        Ok(settings
            .map(|(name, value)| {
                let value = match name {
                    "ETCD_DATA_DIR" => folder("etcd"),
                    "PATRONI_POSTGRESQL_DATA_DIR" => folder("data"),
                    "PATRONI_POSTGRESQL_PGPASS" => folder("pgpass"),
                    "PATRONI_POSTGRESQL_BIN_DIR" => programs.clone(),
                    _ if name.ends_with("_PASSWORD") => PASSWORD.to_owned(),
                    // All machines.
                    "ETCD_INITIAL_CLUSTER" | "PATRONI_ETCD3_HOSTS" => value.to_owned(),
                    _ => value.replace("198.51.100.11", &self.address().to_string()).replace("db1", &self.name()),
                };
                (name.to_owned(), value)
            })
            .collect())
    }

    fn psql(&self, database: &str) -> Result<Command, Failure> {
        let mut command = self.command(&postgres_programs()?.join("psql").display().to_string());
        command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--quiet"]);
        command.envs([("PGHOST", "127.0.0.1"), ("PGUSER", "postgres"), ("PGPASSWORD", PASSWORD)]);
        command.envs([("PGCONNECT_TIMEOUT", "2"), ("PGDATABASE", database)]);
        Ok(command)
    }

    /// Inserts numbers, as a client beside the PostgreSQL of this machine, until told to stop. Returns those that were
    /// acknowledged, and when.
    pub(crate) fn probe(&self, first: u32, stop: &dyn Fn() -> bool) -> Result<Vec<(u32, Instant)>, Failure> {
        let mut acknowledged = Vec::new();
        for number in first.. {
            if stop() {
                break;
            }
            let mut psql = self.psql("postgres")?;
            psql.args(["--command", &format!("insert into probe values ({number})")]);
            let mut child = psql.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            let deadline = Instant::now() + Duration::from_secs(3);
            let status = loop {
                match child.try_wait()? {
                    None if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
                    None => {
                        // It waits for the standby. Whether it happens is not known.
                        child.kill()?;
                        break child.wait()?;
                    }
                    Some(status) => break status,
                }
            };
            if status.success() {
                acknowledged.push((number, Instant::now()));
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(acknowledged)
    }

    /// Sends SIGKILL to all processes.
    pub(crate) fn kill(&self) -> Result<(), Failure> {
        self.signal(Signal::KILL)
    }

    /// Sends SIGSTOP to all processes, as if its host had paused the machine.
    pub(crate) fn freeze(&self) -> Result<(), Failure> {
        // Twice, for processes that were being started.
        self.signal(Signal::STOP)?;
        self.signal(Signal::STOP)
    }

    /// Sends SIGCONT to all processes.
    pub(crate) fn thaw(&self) -> Result<(), Failure> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let processes = run(Command::new("ip").args(["netns", "pids", &self.namespace()]))?;
        for process in processes.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)) {
            // It may have just ended.
            let _ = kill_process(process, signal);
        }
        Ok(())
    }

    /// Pulls its cable: no packet reaches it or leaves it, and no connection is reset.
    pub(crate) fn cut_off(&self) -> Result<(), Failure> {
        run(Command::new("ip").args(["link", "set", &self.namespace(), "nomaster"]))?;
        Ok(())
    }

    pub(crate) fn connect(&self) -> Result<(), Failure> {
        run(Command::new("ip").args(["link", "set", &self.namespace(), "master", "todo-ha"]))?;
        Ok(())
    }
}

fn program(name: &str) -> Result<PathBuf, Failure> {
    let found = programs::all(name).into_iter().next();
    found.ok_or_else(|| format!("the program {name} is missing; scripts/drill installs it").into())
}

fn postgres_programs() -> Result<PathBuf, Failure> {
    testkit::postgres::programs().ok_or_else(|| "PostgreSQL is not installed; install it with scripts/setup".into())
}

/// The body of a response.
fn get(server: SocketAddr, path: &str) -> Result<String, Failure> {
    let patience = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: x\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response.split_once("\r\n\r\n").ok_or("no HTTP")?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_cluster_is_whole_with_a_leader_and_two_standbys_on_its_timeline() {
        let member = |name: &str, role: &str, state: &str, timeline| Member {
            name: name.to_owned(),
            role: role.to_owned(),
            state: state.to_owned(),
            timeline,
        };
        let mut members = vec![
            member("db1", "replica", "streaming", 2),
            member("db2", "leader", "running", 2),
            member("db3", "sync_standby", "streaming", 2),
        ];
        let leader = Some(("db2".to_owned(), 2));
        assert_eq!(whole(&members, Some(true)), leader);
        assert_eq!(whole(&members, None), leader);
        assert_eq!(whole(&members, Some(false)), None);
        for (state, timeline) in [("running", 2), ("streaming", 1)] {
            members[0] = member("db1", "replica", state, timeline);
            assert_eq!(whole(&members, None), None, "{state}, {timeline}");
        }
        assert_eq!(whole(&members[1..], None), None);
    }

    #[test]
    fn a_machine_has_its_own_name_and_address_and_knows_the_others() {
        let machine = Machine { number: 2, folder: "/x/2".into(), logs: "/x".into(), children: Vec::new() };
        let of: HashMap<_, _> = machine.environment(OF_ETCD).unwrap().into_iter().collect();
        assert_eq!(of["ETCD_NAME"], "db2");
        assert_eq!(of["ETCD_LISTEN_PEER_URLS"], "http://198.51.100.12:2380");
        for number in 1..=3 {
            assert!(of["ETCD_INITIAL_CLUSTER"].contains(&format!("db{number}=http://198.51.100.1{number}:2380")));
        }
        if testkit::postgres::programs().is_some() {
            let of: HashMap<_, _> = machine.environment(OF_PATRONI).unwrap().into_iter().collect();
            assert_eq!(of["PATRONI_NAME"], "db2");
            assert_eq!(of["PATRONI_POSTGRESQL_LISTEN"], "198.51.100.12,127.0.0.1:5432");
            assert_eq!(of["PATRONI_ETCD3_HOSTS"].matches("198.51.100.1").count(), 3);
            assert_eq!(of["PATRONI_REWIND_PASSWORD"], PASSWORD);
        }
    }
}
