//! A private server in a container.

use std::{
    env,
    io::{self, BufRead as _},
    mem::ManuallyDrop,
    path::Path,
    time::{Duration, Instant},
};

use sqlx::Connection as _;
use testcontainers::{
    GenericImage, ImageExt as _, TestcontainersError,
    core::{IntoContainerPort as _, client::docker_client_instance},
    runners::AsyncRunner as _,
};

use super::{Error, keeper::Keeper};

const NAME: &str = "postgres";
const TAG: &str = "17";
pub(super) const IMAGE: &str = "postgres:17";

/// A container. It is removed at the end of its keeper.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) keeper: Keeper,
    pub(super) url: String,
}

/// The address of the container engine, if it responds.
pub(super) async fn engine() -> Option<String> {
    let address = engine_address()?;
    docker_client_instance().await.ok()?.ping().await.ok()?;
    Some(address)
}

/// The address that testcontainers will use, and does not tell. The keeper needs it, too.
fn engine_address() -> Option<String> {
    let given = env::var("DOCKER_HOST").ok();
    let folders = [("XDG_RUNTIME_DIR", "/.docker/run"), ("HOME", "/.docker/run"), ("HOME", "/.docker/desktop")];
    let sockets = folders.iter().filter_map(|(variable, folder)| Some(env::var(variable).ok()? + folder));
    given.or_else(|| {
        std::iter::once("/var/run".to_owned())
            .chain(sockets)
            .map(|folder| folder + "/docker.sock")
            .find(|socket| Path::new(socket).exists())
            .map(|socket| format!("unix://{socket}"))
    })
}

/// Starts a container, and waits until the server in it responds.
///
/// Only the keeper removes the container: testcontainers relies on destructors, which do not run for a static, and in
/// Rust it has no helper container that cleans up.
pub(super) async fn start(engine: &str, password: &str) -> Result<Container, Error> {
    let name = format!("testkit-postgres-{}", crate::random_hex(8));
    let script = include_str!("keep-container.sh");
    let (mut keeper, mut said) =
        Keeper::start(script, [name.clone().into()], &[("DOCKER_HOST", engine)], None).map_err(Error::Keeper)?;
    if said.read_line(&mut String::new()).map_err(Error::Keeper)? == 0 {
        return Err(Error::Keeper(io::Error::other("docker or curl is needed to remove the container")));
    }
    let container = GenericImage::new(NAME, TAG)
        .with_exposed_port(5432.tcp())
        .with_container_name(&name)
        .with_env_var("POSTGRES_PASSWORD", password)
        .with_cmd(["postgres", "-c", "max_connections=300"])
        // As in private clusters. It also sets the encoding.
        .with_env_var("LANG", "C.UTF-8")
        .with_shm_size(256 << 20)
        .start()
        .await
        .map_err(Error::engine)?;
    keeper.tell("started").map_err(Error::Keeper)?;
    // Its destructor would remove the container, which the keeper does.
    let container = ManuallyDrop::new(container);

    let host = container.get_host().await.map_err(Error::engine)?;
    let port = published_port(container.id()).await.map_err(Error::engine)?;
    let url = format!("postgres://postgres:{password}@{host}:{port}/postgres");
    if let Err(source) = wait_for_server(&url).await {
        // The server writes its log to standard error, and the start script to both.
        let mut log = container.stdout_to_vec().await.unwrap_or_default();
        log.extend(container.stderr_to_vec().await.unwrap_or_default());
        return Err(Error::Container { source, log: String::from_utf8_lossy(&log).into_owned() });
    }
    Ok(Container { keeper, url })
}

/// The port of the engine's host that is forwarded to the server.
///
/// `get_host_port_ipv4` ignores a port that is published without an address, as Podman does it. Publishing it on
/// `0.0.0.0` would make Podman 4 forward only connections to this very address.
async fn published_port(id: &str) -> Result<u16, TestcontainersError> {
    let engine = docker_client_instance().await?;
    let container = engine.inspect_container(id, None).await.map_err(TestcontainersError::other)?;
    let ports = container.network_settings.and_then(|network| network.ports).unwrap_or_default();
    let bindings = ports.get("5432/tcp").into_iter().flatten().flatten();
    bindings
        .filter(|binding| !binding.host_ip.as_ref().is_some_and(|address| address.contains(':')))
        .find_map(|binding| binding.host_port.as_ref()?.parse().ok())
        .ok_or_else(|| TestcontainersError::other("the port of the container is not published"))
}

/// Waits until the server responds. The engine accepts connections long before the server does.
async fn wait_for_server(url: &str) -> Result<(), sqlx::Error> {
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        match super::connect(url).await {
            Ok(connection) => return connection.close().await,
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
