//! Certificates of a private authority, made by the program `openssl`.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// A private certificate authority.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    /// Creates an authority.
    ///
    /// # Panics
    ///
    /// If `openssl` is missing or fails.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder can be changed");
        openssl(
            folder.path(),
            &[
                "req",
                "-x509",
                "-nodes",
                "-subj",
                &format!("/CN=Private authority {}", crate::random_hex(4)),
                "-days",
                "2",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-keyout",
                "ca.key",
                "-out",
                "ca.pem",
            ],
        );
        Self { folder }
    }

    /// Its own certificate, for clients that trust it.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Creates a certificate for this host. Returns its file and that of its key.
    ///
    /// # Panics
    ///
    /// If `openssl` is missing or fails.
    #[must_use]
    pub fn certificate_for(&self, host: &str) -> (PathBuf, PathBuf) {
        let folder = self.folder.path();
        openssl(
            folder,
            &[
                "req",
                "-nodes",
                "-subj",
                &format!("/CN={host}"),
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-keyout",
                "server.key",
                "-out",
                "server.csr",
            ],
        );
        fs::write(folder.join("names"), format!("subjectAltName=DNS:{host}\n")).expect("the folder is writable");
        openssl(
            folder,
            &[
                "x509",
                "-req",
                "-in",
                "server.csr",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                "names",
                "-out",
                "server.pem",
            ],
        );
        (folder.join("server.pem"), folder.join("server.key"))
    }

    /// Lines for the `postgresql.conf` of a server with a certificate for this host.
    ///
    /// # Panics
    ///
    /// If `openssl` is missing or fails.
    #[must_use]
    pub fn settings_for(&self, host: &str) -> String {
        let (certificate, key) = self.certificate_for(host);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("the folder can be changed");
        // The server does not run as root, and must own its key.
        if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            let number = |what| {
                let output = Command::new("id").args([what, "postgres"]).output().expect("`id` can be run");
                String::from_utf8_lossy(&output.stdout).trim().parse().ok()
            };
            chown(&key, number("-u"), number("-g")).expect("root may change the owner of files");
        }
        format!("ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n", certificate.display(), key.display())
    }

    /// Starts an HTTPS server for this host on a free port, which responds to each GET of `path` with this document. All
    /// other paths have no response.
    ///
    /// # Panics
    ///
    /// If `openssl` is missing or fails.
    #[must_use]
    pub fn serve(&self, host: &str, path: &str, document: &str) -> HttpsServer {
        let (certificate, key) = self.certificate_for(host);
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().expect("a path below the folder")).expect("the folder is writable");
        let head = "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
        fs::write(&file, format!("{head}content-length: {}\r\n\r\n{document}", document.len())).expect("a file");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let child = Command::new("openssl")
            // A file is sent as it is, with the head that it contains.
            .args(["s_server", "-quiet", "-HTTP", "-accept", &address.to_string()])
            .arg("-cert")
            .arg(certificate)
            .arg("-key")
            .arg(key)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program openssl is missing; run scripts/setup, which installs it");
        let server = HttpsServer { address, child, _folder: folder };
        for _ in 0..1000 {
            if TcpStream::connect(address).is_ok() {
                return server;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("openssl s_server does not listen");
    }
}

/// An HTTPS server, which stops when this is dropped.
#[derive(Debug)]
pub struct HttpsServer {
    address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl HttpsServer {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output();
    let output = output.expect("the program openssl is missing; run scripts/setup, which installs it");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
