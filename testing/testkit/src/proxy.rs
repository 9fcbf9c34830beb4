//! A TCP proxy that can delay, cut, drop and redirect connections, as networks do.
//!
//! ```
//! # async fn example() {
//! use testkit::proxy::{Proxy, Traffic};
//!
//! let database = testkit::stores::todo_database().await;
//! let proxy = Proxy::before(database.url()).await;
//! // connect to proxy.url(); then cut all that is open:
//! proxy.cut();
//! // drop all data from now on, without closing connections:
//! proxy.set(Traffic::Silent);
//! # }
//! ```

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, lookup_host},
    sync::watch,
    task::JoinSet,
    time::sleep,
};
use url::Url;

/// A proxy before a server. All of its connections are cut when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    url: Url,
    port: u16,
    controls: watch::Sender<Controls>,
    accepted: Arc<AtomicUsize>,
    accepting: tokio::task::JoinHandle<()>,
}

/// What happens to data and to new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Data is forwarded in both directions.
    Flows,
    /// Data is held until it [flows](Self::Flows) again. Connections are accepted.
    Held,
    /// Data is dropped, and for ever on connections that are open now, as if a router had forgotten them. Connections
    /// are accepted.
    Silent,
    /// New connections are cut at once. Open ones continue.
    Refused,
}

#[derive(Clone, Debug)]
struct Controls {
    target: SocketAddr,
    traffic: Traffic,
    /// How often all connections were cut, and how often the open ones were silenced.
    cuts: u64,
    silences: u64,
    /// How often all connections were closed and then cut.
    hang_ups: u64,
}

impl Proxy {
    /// A proxy before the server in this URL.
    ///
    /// # Panics
    ///
    /// If the URL names no server.
    pub async fn before(url: &str) -> Self {
        let target = address(url).await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (controls, _) =
            watch::channel(Controls { target, traffic: Traffic::Flows, cuts: 0, silences: 0, hang_ups: 0 });
        let accepted = Arc::new(AtomicUsize::new(0));
        let accepting = tokio::spawn(accept(listener, controls.clone(), accepted.clone()));
        Self { url: Url::parse(url).expect("a URL"), port, controls, accepted, accepting }
    }

    /// The URL of the server, with the address of the proxy.
    ///
    /// # Panics
    ///
    /// Never: the URL was checked when the proxy was made.
    #[must_use]
    pub fn url(&self) -> String {
        let mut url = self.url.clone();
        url.set_host(Some("127.0.0.1")).expect("the URL has a host");
        url.set_port(Some(self.port)).expect("the URL has a port");
        url.into()
    }

    /// Sets what happens to data and new connections from now on.
    pub fn set(&self, traffic: Traffic) {
        self.controls.send_modify(|controls| {
            controls.traffic = traffic;
            controls.silences += u64::from(traffic == Traffic::Silent);
        });
    }

    /// Cuts all open connections with a reset.
    pub fn cut(&self) {
        self.controls.send_modify(|controls| controls.cuts += 1);
    }

    /// Closes all open connections, and resets them a moment later, as a server that ends does. The next write of the
    /// client fails at once.
    pub fn hang_up(&self) {
        self.controls.send_modify(|controls| controls.hang_ups += 1);
    }

    /// Forwards new connections to the server in this URL. Open ones stay where they are.
    ///
    /// # Panics
    ///
    /// If the URL names no server.
    pub async fn switch(&self, url: &str) {
        let target = address(url).await;
        self.controls.send_modify(|controls| controls.target = target);
    }

    /// The number of connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn address(url: &str) -> SocketAddr {
    let url = Url::parse(url).expect("a URL");
    let host = url.host_str().expect("the URL has a host").to_owned();
    let mut found = lookup_host((host, url.port().unwrap_or(5432))).await.expect("the host of the URL can be resolved");
    found.next().expect("the host of the URL has an address")
}

async fn accept(listener: TcpListener, controls: watch::Sender<Controls>, accepted: Arc<AtomicUsize>) {
    // Dropping it with this task closes all connections.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::Relaxed);
        connections.spawn(serve(client, controls.subscribe()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut client: TcpStream, mut controls: watch::Receiver<Controls>) {
    // So that dropping it sends a reset.
    let _ = client.set_zero_linger();
    let Controls { cuts, silences, hang_ups, .. } = *controls.borrow();
    let unless_cut = |now: &Controls| now.cuts != cuts || now.traffic != Traffic::Held;
    let Ok(now) = controls.wait_for(unless_cut).await.map(|now| now.clone()) else { return };
    if now.cuts != cuts || now.traffic == Traffic::Refused {
        return;
    }
    if now.traffic == Traffic::Silent {
        return swallow(&mut client, &mut controls, cuts).await;
    }
    let Ok(mut server) = TcpStream::connect(now.target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true), server.set_zero_linger());
    let mut hangs_up = false;
    let is_over = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let (there, back) = (controls.clone(), controls.clone());
        tokio::select! {
            biased;
            now = controls.wait_for(|now| now.cuts != cuts || now.silences != silences || now.hang_ups != hang_ups) => {
                hangs_up = now.as_ref().is_ok_and(|now| now.hang_ups != hang_ups);
                now.map_or(true, |now| now.cuts != cuts || now.hang_ups != hang_ups)
            }
            () = copy(&mut from_client, &mut to_server, there) => true,
            () = copy(&mut from_server, &mut to_client, back) => true,
        }
    };
    if hangs_up {
        let _ = client.shutdown().await;
        sleep(Duration::from_millis(20)).await;
    }
    if !is_over {
        // The connection to the server stays open, too: after a reset, the server would stop what it is doing.
        swallow(&mut client, &mut controls, cuts).await;
    }
}

/// Copies data until one of the ends closes, and waits while traffic is held.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut controls: watch::Receiver<Controls>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        let flows = controls.wait_for(|now| now.traffic != Traffic::Held).await.is_ok();
        if count == 0 || !flows || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Reads and drops data until all connections are cut, or the client closes.
async fn swallow(client: &mut TcpStream, controls: &mut watch::Receiver<Controls>, cuts: u64) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            read = client.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            changed = controls.changed() => if changed.is_err() || controls.borrow().cuts != cuts {
                return;
            },
        }
    }
}
