//! A standby of a cluster.

use std::io::{BufRead as _, Read as _};

use url::Url;

use super::{Error, Server, Source, keeper::Keeper, local};

/// A hot standby of a private cluster, by streaming replication. It is removed at the end of this process.
#[derive(Debug)]
pub struct Standby {
    url: String,
    keeper: Keeper,
}

impl Standby {
    /// Starts a standby of a server that [`Server::start_local`] has started. Blocks.
    ///
    /// # Errors
    ///
    /// The standby does not start.
    ///
    /// # Panics
    ///
    /// If the server is no private cluster.
    pub fn of(primary: &Server) -> Result<Self, Error> {
        let Source::Local(programs) = primary.source() else { panic!("{primary:?} is no private cluster") };
        let mut url = Url::parse(primary.url()).expect("the URL of a server");
        let port = url.port().expect("a private cluster has a port").to_string();
        let ports = local::free_ports().map_err(Error::Keeper)?;
        let arguments =
            [programs.into(), port.into()].into_iter().chain(ports.iter().map(|port| port.to_string().into()));
        let user = local::unprivileged_user().map_err(Error::Keeper)?;
        let (mut keeper, mut said) =
            Keeper::start(include_str!("keep-standby.sh"), arguments, &[], user).map_err(Error::Keeper)?;
        let mut line = String::new();
        let password = url.password().unwrap_or_default().to_owned();
        keeper.tell(&password).and_then(|()| said.read_line(&mut line)).map_err(Error::Keeper)?;
        let Some(port) = line.trim_end().strip_prefix("ready ").and_then(|port| port.parse().ok()) else {
            let mut log = String::new();
            said.read_to_string(&mut log).map_err(Error::Keeper)?;
            keeper.stop();
            return Err(Error::Cluster { programs: programs.clone(), log });
        };
        url.set_port(Some(port)).expect("it had one");
        Ok(Self { url: url.into(), keeper })
    }

    /// The URL of the database `postgres`, as the superuser.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops and removes it. Blocks.
    pub fn stop(self) {
        self.keeper.stop();
    }
}
