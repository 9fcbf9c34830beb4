//! The probe of a container that has no `curl`.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use crate::failure::Failure;

const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the server at this address whether it is ready.
pub(crate) fn check(mut address: SocketAddr) -> Result<(), Failure> {
    // Who listens on all networks is found on this machine.
    address.set_ip(match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    });
    match ask(address) {
        Ok(200) => Ok(()),
        Ok(status) => Err(Failure::fatal(format!("not ready: {address} answers {status}"))),
        Err(error) => Err(Failure::fatal(format!("not ready: {address} does not answer: {error}"))),
    }
}

fn ask(address: SocketAddr) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /health/ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    // "HTTP/1.1 200"
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    std::str::from_utf8(&line)
        .ok()
        .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "that is not HTTP"))
}
