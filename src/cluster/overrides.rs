//! What a command line says in the place of the kubeconfig, with the rules of kubectl (client-go's
//! tools/clientcmd/client_config.go).

use std::{fmt, path::PathBuf};

use clap::{Args, ValueHint};
use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedAuthInfo, NamedCluster,
    NamedContext,
};

use super::options::HEADING;

/// Where the API server is, and what it is shown.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Overrides {
    /// Address and port of the API server, for example https://192.0.2.10:6443 [default: that of the cluster]
    #[arg(short, long, value_name = "URL", value_hint = ValueHint::Url, help_heading = HEADING)]
    server: Option<String>,

    /// Name to expect in the certificate of the API server [default: the host of its address]
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    tls_server_name: Option<String>,

    /// File with the certificate authority of the API server
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = HEADING)]
    certificate_authority: Option<PathBuf>,

    /// Accept any certificate of the API server: somebody on the way could read and change everything
    #[arg(long, conflicts_with = "certificate_authority", help_heading = HEADING)]
    insecure_skip_tls_verify: bool,

    /// Bearer token for the API server; other users of this machine may see it in the list of processes
    #[arg(long, help_heading = HEADING)]
    token: Option<Token>,

    /// File with the client certificate for the API server
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "client_key", help_heading = HEADING)]
    client_certificate: Option<PathBuf>,

    /// File with the key of the client certificate
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "client_certificate", help_heading = HEADING)]
    client_key: Option<PathBuf>,
}

/// A secret, which is in no message.
#[derive(Clone)]
struct Token(String);

impl From<String> for Token {
    fn from(token: String) -> Self {
        Self(token)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

impl Overrides {
    /// Whether there is anything.
    pub(super) fn are_given(&self) -> bool {
        let Self {
            server,
            tls_server_name,
            certificate_authority,
            insecure_skip_tls_verify,
            token,
            client_certificate,
            client_key: _,
        } = self;
        let names = [server, tls_server_name].iter().any(|name| name.is_some());
        let files = [certificate_authority, client_certificate]
            .iter()
            .any(|file| file.is_some());
        names || files || *insecure_skip_tls_verify || token.is_some()
    }

    /// Whether requests go to where the kubeconfig does not say.
    pub(super) fn name_the_server(&self) -> bool {
        self.server.is_some()
    }

    /// The kubeconfig; where the command line names the server there need be none.
    pub(super) fn over(
        &self,
        read: Result<Kubeconfig, KubeconfigError>,
    ) -> Result<Kubeconfig, KubeconfigError> {
        match read {
            Err(error) if self.name_the_server() && is_missing(&error) => Ok(Kubeconfig::default()),
            other => other,
        }
    }

    /// A kubeconfig with nothing in it but what is chosen, as it is overridden.
    pub(super) fn apply(&self, file: &Kubeconfig, chosen: &KubeConfigOptions) -> Kubeconfig {
        let name = chosen.context.as_ref().or(file.current_context.as_ref());
        let mut contexts = file.contexts.iter();
        let context = contexts.find(|of| Some(&of.name) == name);
        let context = context.and_then(|of| of.context.clone()).unwrap_or_default();
        let cluster = chosen.cluster.as_ref().unwrap_or(&context.cluster);
        let user = chosen.user.as_ref().or(context.user.as_ref());
        let found = file.clusters.iter().find(|of| of.name == *cluster);
        let mut cluster = found.and_then(|of| of.cluster.clone()).unwrap_or_default();
        let found = file.auth_infos.iter().find(|of| Some(&of.name) == user);
        let mut auth = found.and_then(|of| of.auth_info.clone()).unwrap_or_default();
        self.change_cluster(&mut cluster);
        self.change_user(&mut auth);
        let name = "command line".to_owned();
        Kubeconfig {
            clusters: vec![NamedCluster {
                name: name.clone(),
                cluster: Some(cluster),
                ..NamedCluster::default()
            }],
            auth_infos: vec![NamedAuthInfo {
                name: name.clone(),
                auth_info: Some(auth),
                ..NamedAuthInfo::default()
            }],
            contexts: vec![NamedContext {
                name: name.clone(),
                context: Some(Context {
                    cluster: name.clone(),
                    user: Some(name.clone()),
                    namespace: context.namespace,
                    ..Context::default()
                }),
                ..NamedContext::default()
            }],
            current_context: Some(name),
            ..Kubeconfig::default()
        }
    }

    fn change_cluster(&self, cluster: &mut Cluster) {
        if let Some(server) = &self.server {
            // Without a scheme nothing is sent in the clear.
            let has_scheme = server.contains("://");
            cluster.server = Some(match has_scheme {
                true => server.clone(),
                false => format!("https://{server}"),
            });
        }
        if self.insecure_skip_tls_verify || self.certificate_authority.is_some() {
            cluster.insecure_skip_tls_verify = Some(self.insecure_skip_tls_verify);
            cluster.certificate_authority = path(self.certificate_authority.as_ref());
            cluster.certificate_authority_data = None;
        }
        // The name of another server says nothing of this one.
        if self.tls_server_name.is_some() || self.server.is_some() {
            cluster.tls_server_name = self.tls_server_name.clone();
        }
    }

    fn change_user(&self, user: &mut AuthInfo) {
        if let Some(Token(token)) = &self.token {
            *user = AuthInfo {
                token: Some(token.clone().into()),
                client_certificate: user.client_certificate.take(),
                client_certificate_data: user.client_certificate_data.take(),
                client_key: user.client_key.take(),
                client_key_data: user.client_key_data.take(),
                impersonate: user.impersonate.take(),
                impersonate_uid: user.impersonate_uid.take(),
                impersonate_groups: user.impersonate_groups.take(),
                impersonate_user_extra: user.impersonate_user_extra.take(),
                ..AuthInfo::default()
            };
        }
        if self.client_certificate.is_some() {
            user.client_certificate = path(self.client_certificate.as_ref());
            user.client_certificate_data = None;
            user.client_key = path(self.client_key.as_ref());
            user.client_key_data = None;
        }
    }
}

fn path(path: Option<&PathBuf>) -> Option<String> {
    path.map(|path| path.to_string_lossy().into_owned())
}

/// Whether there is no kubeconfig, as opposed to one that is wrong.
fn is_missing(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}
