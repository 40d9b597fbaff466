//! The kubeconfig: one file for kubectl, the svcdiag binary and our own client, so that all
//! of them speak to the server in the same way.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

use super::Error;

/// How to reach the API server.
#[derive(Clone)]
pub(super) struct Access {
    /// Its address.
    pub url: String,
    /// What the real server asks for; the embedded one listens on loopback and asks for nothing.
    pub credentials: Option<Credentials>,
}

/// Certificates as PEM text.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Writes the file with mode 0600 and returns its text. JSON is YAML, and every client reads it.
pub(super) fn write(path: &Path, access: &Access) -> Result<String, Error> {
    let mut cluster = json!({ "server": access.url });
    let mut user = json!({});
    if let Some(credentials) = &access.credentials {
        cluster["certificate-authority-data"] = STANDARD.encode(&credentials.authority).into();
        user["client-certificate-data"] = STANDARD.encode(&credentials.certificate).into();
        user["client-key-data"] = STANDARD.encode(&credentials.key).into();
    }
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "sandbox", "cluster": cluster }],
        "users": [{ "name": "admin", "user": user }],
        "contexts": [{ "name": "sandbox", "context": { "cluster": "sandbox", "user": "admin", "namespace": "default" } }],
        "current-context": "sandbox",
    });
    let text = format!("{config:#}\n");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| Error::File {
            operation: "write",
            path: path.to_owned(),
            source,
        })?;
    Ok(text)
}

/// A client from the text of a kubeconfig.
pub(super) async fn client(text: &str) -> Result<Client, Error> {
    let kubeconfig = Kubeconfig::from_yaml(text).map_err(|error| Error::Kubeconfig(error.to_string()))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| Error::Kubeconfig(error.to_string()))?;
    // The client's own retries wait up to a quarter of an hour; ours are visible and short.
    config.default_retry = false;
    config.proxy_url = None;
    Client::try_from(config).map_err(|error| Error::Kubeconfig(error.to_string()))
}
