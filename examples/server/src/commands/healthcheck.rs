//! `todo-server healthcheck`: a check of readiness, or with `--live` of liveness, for containers without `curl`.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    failure::Failure,
    settings::{self, Sources},
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Fails unless the server on this machine is ready; with `live`, unless it responds. Only the former asks the database.
pub(super) fn run(mut sources: Sources, live: bool) -> Result<(), Failure> {
    let address = settings::address(&mut sources);
    let mut address = sources.finish(Some(address))?;
    // A server that listens on all networks is reachable on the loopback address.
    address.set_ip(match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    });
    let (path, not_well) = if live { ("/health", "not alive") } else { ("/health/ready", "not ready") };
    match status(address, path) {
        Ok(200) => Ok(()),
        Ok(status) => Err(Failure::fatal(format!("{not_well}: {address} responds with {status}"))),
        Err(error) => Err(Failure::fatal(format!("{not_well}: {address} does not respond: {error}"))),
    }
}

/// The status of the response to a GET.
fn status(address: SocketAddr, path: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    // "HTTP/1.1 200"
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    std::str::from_utf8(&line)
        .ok()
        .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the response is not HTTP/1.1"))
}
