//! A PostgreSQL server with TLS and the certificate of a private authority.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{error::Error, time::Duration};

use testkit::{postgres::Server, tls::Authority};
use todo_core::store::{PostgresOptions, PostgresStore, StoreError, TlsPolicy};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// An error with its sources.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn check(url: &str, tls: TlsPolicy) -> Result<(), String> {
    let options = PostgresOptions::default().tls(tls);
    match PostgresStore::connect_lazy(url, &options).unwrap().check().await {
        Ok(_) => Ok(()),
        // Waiting would not help.
        Err(error @ StoreError::Setup(_)) => Err(chain(&error)),
        Err(other) => panic!("{other:?}: {:?}", other.source()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_checked_unless_the_policy_is_as_written() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    // It lives as long as the process.
    let settings: &'static str = authority.settings_for("localhost").leak();
    let server = Server::start_local(settings).await.unwrap().expect("PostgreSQL (install it with scripts/setup)");
    let password = server.url().split([':', '@']).nth(2).unwrap().to_owned();
    let by_name = server.url().replace("127.0.0.1", "localhost");
    let url = |base: &str, mode: &str, authority: Option<&Authority>| {
        let root = authority.map(|authority| format!("&sslrootcert={}", authority.certificate().display()));
        format!("{base}?sslmode={mode}{}", root.unwrap_or_default())
    };
    let (verify, as_written) = (TlsPolicy::Verify, TlsPolicy::AsWritten);

    for mode in ["verify-full", "verify-ca", "require"] {
        check(&url(&by_name, mode, Some(&authority)), verify).await.unwrap();
    }
    let mut refused = Vec::new();
    for mode in ["verify-full", "require"] {
        for known in [None, Some(&stranger)] {
            refused.push((check(&url(&by_name, mode, known), verify).await.unwrap_err(), "UnknownIssuer"));
        }
        let by_number = url(server.url(), mode, Some(&authority));
        refused.push((check(&by_number, verify).await.unwrap_err(), "not valid for name"));
    }
    for (text, why) in refused {
        assert!(text.contains(why) && text.contains("sslrootcert"), "{text}");
        assert!(!text.contains(&password), "{text}");
    }
    check(&url(&by_name, "require", None), as_written).await.unwrap();
    check(&url(server.url(), "verify-ca", Some(&authority)), as_written).await.unwrap();
    tokio::task::spawn_blocking(|| server.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_rejected_at_once() {
    let database = testkit::stores::todo_database().await;
    let text = check(&format!("{}?sslmode=require", database.url()), TlsPolicy::AsWritten).await.unwrap_err();
    assert!(text.contains("does not support TLS"), "{text}");
}

/// Providers with many databases at one address tell them apart by this name.
#[tokio::test]
async fn the_name_of_the_host_is_sent_to_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = async {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut request = [0; 8];
        client.read_exact(&mut request).await.unwrap();
        // SSLRequest: its length and 80877103.
        assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
        client.write_all(b"S").await.unwrap();
        let mut hello = vec![0; 4096];
        let count = client.read(&mut hello).await.unwrap();
        hello.truncate(count);
        hello
    };
    let store = PostgresStore::connect_lazy(
        &format!("postgres://ann:secret@localhost:{port}/todo?sslmode=verify-full"),
        &PostgresOptions::default(),
    );
    let store = store.unwrap();
    let both = async { tokio::join!(server, store.check()) };
    let (hello, checked) = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    assert!(checked.is_err());
    // A handshake record. The extension server_name has the type 0 and contains the name with its length.
    assert_eq!(hello[0], 22);
    let name = [&[0, 0, 0, 14, 0, 12, 0, 0, 9][..], b"localhost"].concat();
    assert!(hello.windows(name.len()).any(|bytes| bytes == name), "{hello:?}");
}
