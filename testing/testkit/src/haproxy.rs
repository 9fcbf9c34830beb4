//! A real HAProxy before several servers. It sends requests only to those whose readiness probe responds with 200.
//!
//! ```no_run
//! use testkit::haproxy::HaProxy;
//!
//! let servers = [([127, 0, 0, 1], 8001).into(), ([127, 0, 0, 1], 8002).into()];
//! let proxy = HaProxy::before(&servers);
//! // connect to proxy.address()
//! ```

use std::{
    fmt::Write as _,
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::programs;

/// How often each server is asked. One wrong response is enough.
pub const INTERVAL: Duration = Duration::from_millis(500);

/// A running HAProxy. It is killed when this is dropped.
#[derive(Debug)]
pub struct HaProxy {
    process: Child,
    port: u16,
    directory: TempDir,
}

impl HaProxy {
    /// Starts one, and waits until it accepts connections.
    ///
    /// # Panics
    ///
    /// If the program is missing, or does not start.
    #[must_use]
    pub fn before(servers: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = crate::http::lasting_port().expect("a free port");
        let mut settings = format!(
            "global\n    maxconn 4000\n\
             defaults\n    mode http\n    timeout connect 2s\n    timeout client 60s\n    timeout server 60s\n    \
             timeout check 2s\n    option httpchk GET /health/ready\n\
             frontend api\n    bind 127.0.0.1:{port}\n    default_backend servers\n\
             backend servers\n    balance roundrobin\n"
        );
        for (number, server) in servers.iter().enumerate() {
            let interval = INTERVAL.as_millis();
            writeln!(settings, "    server s{number} {server} check inter {interval}ms fall 1 rise 1")
                .expect("writing to a string does not fail");
        }
        let path = directory.path().join("haproxy.cfg");
        std::fs::write(&path, settings).expect("the directory is writable");
        let log = File::create(directory.path().join("log")).expect("the directory is writable");
        // In the foreground.
        let process = Command::new(programs::find("haproxy"))
            .args(["-db", "-f"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("HAProxy can be run");
        let proxy = Self { process, port, directory };
        for _ in 0..500 {
            if TcpStream::connect(proxy.address()).is_ok() {
                return proxy;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("HAProxy does not listen:\n{}", proxy.log());
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// What it has logged: mainly which servers are up and down.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // This fails only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
