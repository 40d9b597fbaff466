//! The real control plane: `etcd` and `kube-apiserver`, as envtest starts them.
//!
//! Data flow: free ports and fresh certificates -> two child processes on loopback, with their
//! data and logs in a directory of their own -> an administrator's client certificate. There is
//! no kube-controller-manager, scheduler or kubelet: the stand-in controllers do their work.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::kubeconfig::{Access, Credentials};
use super::process::Process;
use super::{Error, bootstrap};

/// A cold start with RBAC's bootstrap takes 5 s on an idle machine; tests share theirs.
const READY_WITHIN: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A port found free may be taken before the server listens on it: try again with others.
const ATTEMPTS: usize = 3;

/// A running `etcd` and `kube-apiserver`.
pub struct ControlPlane {
    apiserver: Process,
    etcd: Process,
    assets: PathBuf,
    access: Access,
}

impl ControlPlane {
    /// Starts both binaries of `assets` with their files in `directory`, and returns once the API answers.
    pub async fn start(assets: &Path, directory: &Path) -> Result<Self, Error> {
        let binaries = Binaries::find(assets)?;
        std::fs::create_dir_all(directory).map_err(|source| Error::File {
            operation: "create",
            path: directory.to_owned(),
            source,
        })?;
        let keys = Keys::generate(directory)?;
        let mut attempt = 1;
        loop {
            match Self::try_start(&binaries, &keys, directory).await {
                Ok((etcd, apiserver, url)) => {
                    let access = Access {
                        url,
                        credentials: Some(keys.admin),
                    };
                    return Ok(Self {
                        apiserver,
                        etcd,
                        assets: assets.to_owned(),
                        access,
                    });
                }
                Err((error, true)) if attempt < ATTEMPTS => {
                    tracing::info!(%error, "a port was taken meanwhile; trying others");
                    attempt += 1;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// The error comes with whether other ports may help.
    async fn try_start(
        binaries: &Binaries,
        keys: &Keys,
        directory: &Path,
    ) -> Result<(Process, Process, String), (Error, bool)> {
        let fatal = |error| (error, false);
        let ports = free_ports::<3>().map_err(|source| fatal(Error::Port(source)))?;
        let [etcd_port, peer_port, secure_port] = ports;
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let data = directory.join(format!("etcd-{etcd_port}"));
        let arguments = etcd_arguments(&data, &etcd_url, &format!("http://127.0.0.1:{peer_port}"));
        let mut etcd = Process::start(&binaries.etcd, &arguments, directory).map_err(fatal)?;
        wait_for_port(&mut etcd, etcd_port)
            .await
            .map_err(|error| (error, port_taken(&etcd)))?;

        let arguments = apiserver_arguments(directory, keys, &etcd_url, secure_port);
        let mut apiserver = Process::start(&binaries.apiserver, &arguments, directory).map_err(fatal)?;
        match wait_for_port(&mut apiserver, secure_port).await {
            Ok(()) => Ok((etcd, apiserver, format!("https://127.0.0.1:{secure_port}"))),
            Err(error) => Err((error, port_taken(&apiserver))),
        }
    }

    /// How to reach the server as an administrator.
    pub(super) fn access(&self) -> Access {
        self.access.clone()
    }

    /// Where the binaries come from.
    pub fn assets(&self) -> &Path {
        &self.assets
    }

    /// The numbers of both processes, API server first, for measurements.
    pub fn pids(&self) -> [Option<u32>; 2] {
        [self.apiserver.pid(), self.etcd.pid()]
    }

    /// Waits for `/readyz` and for the namespaces the server makes itself.
    pub(super) async fn wait_until_ready(&self, client: &Client) -> Result<(), Error> {
        let ready = async {
            while !bootstrap::is_ready(client).await {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        tokio::time::timeout(READY_WITHIN, ready).await.map_err(|_| {
            self.apiserver
                .failure(&format!("was not ready within {} s", READY_WITHIN.as_secs()))
        })
    }

    /// Stops the API server and starts it again on the same database and port.
    pub(super) async fn restart_apiserver(&mut self, client: &Client) -> Result<(), Error> {
        self.apiserver.restart().await?;
        self.wait_until_ready(client).await
    }

    /// Stops the API server, then its database.
    pub async fn stop(self) {
        self.apiserver.stop().await;
        self.etcd.stop().await;
    }
}

struct Binaries {
    etcd: PathBuf,
    apiserver: PathBuf,
}

impl Binaries {
    fn find(assets: &Path) -> Result<Self, Error> {
        let find = |name: &'static str| {
            let path = assets.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(Error::Assets {
                    directory: assets.to_owned(),
                    missing: name,
                })
            }
        };
        Ok(Self {
            etcd: find("etcd")?,
            apiserver: find("kube-apiserver")?,
        })
    }
}

fn etcd_arguments(data: &Path, client_url: &str, peer_url: &str) -> Vec<String> {
    vec![
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client_url}"),
        format!("--advertise-client-urls={client_url}"),
        format!("--listen-peer-urls={peer_url}"),
        format!("--initial-advertise-peer-urls={peer_url}"),
        format!("--initial-cluster=default={peer_url}"),
        "--log-level=warn".to_owned(),
        // The data lives as long as the process: waiting for the disk would only make tests slow.
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn apiserver_arguments(directory: &Path, keys: &Keys, etcd_url: &str, port: u16) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    vec![
        format!("--etcd-servers={etcd_url}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--advertise-address={}", bootstrap::ADVERTISED_ADDRESS),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", directory.display()),
        format!("--tls-cert-file={}", file(keys.server_certificate)),
        format!("--tls-private-key-file={}", file(keys.server_key)),
        format!("--client-ca-file={}", file(keys.authority)),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", file(keys.account_public)),
        format!("--service-account-signing-key-file={}", file(keys.account_key)),
        format!("--service-cluster-ip-range={}", bootstrap::SERVICE_RANGES),
        "--authorization-mode=RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        // Nobody makes the service accounts that this plugin would insist on.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ]
}

/// Ports that nobody listens on right now.
fn free_ports<const N: usize>() -> Result<[u16; N], std::io::Error> {
    let mut ports = [0; N];
    // All are held until all are known, so that they differ.
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

async fn wait_for_port(process: &mut Process, port: u16) -> Result<(), Error> {
    let wait = async {
        loop {
            process.check()?;
            if tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    match tokio::time::timeout(READY_WITHIN, wait).await {
        Ok(result) => result,
        Err(_) => Err(process.failure(&format!("did not listen within {} s", READY_WITHIN.as_secs()))),
    }
}

fn port_taken(process: &Process) -> bool {
    process.log_mentions("address already in use")
}

/// The keys and certificates of one control plane, written to its directory.
struct Keys {
    authority: &'static str,
    server_certificate: &'static str,
    server_key: &'static str,
    account_public: &'static str,
    account_key: &'static str,
    admin: Credentials,
}

impl Keys {
    fn generate(directory: &Path) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params
            .distinguished_name
            .push(DnType::CommonName, "svcdiag sandbox");
        let key = KeyPair::generate().map_err(certificate("the authority's key"))?;
        let authority = params
            .self_signed(&key)
            .map_err(certificate("the authority's certificate"))?
            .pem();
        let issuer = Issuer::new(params, key);

        let (server_certificate, server_key) = leaf(
            &issuer,
            &[
                "127.0.0.1",
                "localhost",
                bootstrap::ADVERTISED_ADDRESS,
                "10.96.0.1",
                "kubernetes.default.svc",
            ],
            &[(DnType::CommonName, "kube-apiserver")],
            ExtendedKeyUsagePurpose::ServerAuth,
        )?;
        let (admin_certificate, admin_key) = leaf(
            &issuer,
            &[],
            &[
                (DnType::CommonName, "svcdiag-sandbox"),
                (DnType::OrganizationName, "system:masters"),
            ],
            ExtendedKeyUsagePurpose::ClientAuth,
        )?;
        let account = KeyPair::generate().map_err(certificate("the service accounts' key"))?;

        let keys = Self {
            authority: "ca.crt",
            server_certificate: "server.crt",
            server_key: "server.key",
            account_public: "sa.pub",
            account_key: "sa.key",
            admin: Credentials {
                authority: authority.clone(),
                certificate: admin_certificate,
                key: admin_key,
            },
        };
        for (name, text) in [
            (keys.authority, authority),
            (keys.server_certificate, server_certificate),
            (keys.server_key, server_key),
            (keys.account_public, account.public_key_pem()),
            (keys.account_key, account.serialize_pem()),
        ] {
            let path = directory.join(name);
            std::fs::write(&path, text).map_err(|source| Error::File {
                operation: "write",
                path,
                source,
            })?;
        }
        Ok(keys)
    }
}

/// A certificate signed by the authority, and its key.
fn leaf(
    issuer: &Issuer<'static, KeyPair>,
    names: &[&str],
    subject: &[(DnType, &str)],
    usage: ExtendedKeyUsagePurpose,
) -> Result<(String, String), Error> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).map_err(certificate("a certificate's names"))?;
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(certificate("a key"))?;
    let signed = params
        .signed_by(&key, issuer)
        .map_err(certificate("a certificate"))?;
    Ok((signed.pem(), key.serialize_pem()))
}

fn certificate(what: &'static str) -> impl Fn(rcgen::Error) -> Error {
    move |source| Error::Certificate { what, source }
}
