//! A key server that can be killed and started again.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};
use testkit::tokens::{SigningKey, claims};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// Issuer and audience of the tokens.
pub(crate) const ISSUER: &str = "https://app.example.com";

/// A token of this user, signed with this key.
pub(crate) fn token(key: &SigningKey, kid: &str, user: &str) -> String {
    let mut claims = claims(user);
    claims["iss"] = ISSUER.into();
    claims["aud"] = ISSUER.into();
    key.token(kid, &claims)
}

/// Serves a key set on its port until it is dropped.
pub(crate) struct KeyServer {
    fetches: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl KeyServer {
    pub(crate) async fn start(port: u16, keys: &[Value]) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let body = json!({ "keys": keys }).to_string();
        let response = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let fetches = Arc::new(AtomicU64::new(0));
        let counted = fetches.clone();
        let task = tokio::spawn(async move {
            // Dropping it with this task closes the connections.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, response.clone(), counted.clone()));
            }
        });
        Ok(Self { fetches, task })
    }

    /// The number of requests so far.
    pub(crate) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }

    /// Closes its port and all connections.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn serve(mut stream: TcpStream, response: String, fetches: Arc<AtomicU64>) {
    let mut received = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut received).await {
        if received.ends_with(b"\r\n\r\n") {
            fetches.fetch_add(1, Ordering::Relaxed);
            received.clear();
            if stream.write_all(response.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
