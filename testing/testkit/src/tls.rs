//! Certificates of a private authority, made by the program `openssl`.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
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

    /// Its own certificate, for `sslrootcert`.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Lines for the `postgresql.conf` of a server with a certificate for this host.
    ///
    /// # Panics
    ///
    /// If `openssl` is missing or fails.
    #[must_use]
    pub fn settings_for(&self, host: &str) -> String {
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
        let key = folder.join("server.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("the folder can be changed");
        // The server does not run as root, and must own its key.
        if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            let number = |what| {
                let output = Command::new("id").args([what, "postgres"]).output().expect("`id` can be run");
                String::from_utf8_lossy(&output.stdout).trim().parse().ok()
            };
            chown(&key, number("-u"), number("-g")).expect("root may change the owner of files");
        }
        format!(
            "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n",
            folder.join("server.pem").display(),
            key.display()
        )
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
