//! From which clients to diagnose a Service, and how to reach its cluster: options that `check` and `collect` share.

use clap::Args;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::{
    Error,
    connection::{Server, explained},
};
use crate::api::{PortRef, ServiceDiagnosisSpec};

/// From which clients, in which cluster.
#[derive(Args, Clone, Debug)]
pub struct Query {
    /// Namespace of the Service [default: the namespace of the kubeconfig's context]
    #[arg(short, long)]
    namespace: Option<String>,

    /// Service ports that clients use, by number or name [default: all]
    #[arg(long, value_delimiter = ',', value_name = "PORT", requires = "service")]
    ports: Vec<String>,

    /// Labels of the Pods that are clients of the Service, for example app=web
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label, requires = "service")]
    client_selector: Vec<(String, String)>,

    /// Namespace of the client Pods [default: the namespace of the Service]
    #[arg(long, value_name = "NAMESPACE", requires = "service")]
    client_namespace: Option<String>,

    /// Namespace of the node agents, whose reports are used if the Service has a ServiceDiagnosis
    #[arg(long, value_name = "NAMESPACE", default_value = "svcdiag-system")]
    pub agent_namespace: String,

    /// Path to the kubeconfig [default: $KUBECONFIG, then ~/.kube/config, then the Pod's service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,

    /// Context in the kubeconfig [default: its current context]
    #[arg(long)]
    context: Option<String>,
}

/// The way to a cluster.
pub struct Connection {
    /// Client of its API server.
    pub client: Client,
    /// The Service's namespace.
    pub namespace: String,
    /// Where the API server is.
    pub server: Server,
}

impl Query {
    /// A client of the cluster, and the namespace of the Service.
    ///
    /// # Errors
    /// When there is no usable kubeconfig.
    pub async fn connect(&self) -> Result<Connection, Error> {
        let config = self.config().await?;
        let server = Server {
            url: config.cluster_url.to_string(),
            context: self.context_name(),
        };
        let namespace = self.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| match explained(&error, &server) {
            Some(what) => Error::Connection(what),
            None => Error::Client(Box::new(error)),
        })?;
        Ok(Connection {
            client,
            namespace,
            server,
        })
    }

    /// The context that is used, if a kubeconfig says so.
    fn context_name(&self) -> Option<String> {
        if self.context.is_some() {
            return self.context.clone();
        }
        let read = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        read.ok()?.current_context
    }

    async fn config(&self) -> Result<Config, Error> {
        let kubeconfig = |e| Error::Kubeconfig(Box::new(e));
        let chosen = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        if let Some(path) = &self.kubeconfig {
            let file = Kubeconfig::read_from(path).map_err(kubeconfig)?;
            return Config::from_custom_kubeconfig(file, &chosen)
                .await
                .map_err(kubeconfig);
        }
        if self.context.is_some() {
            return Config::from_kubeconfig(&chosen).await.map_err(kubeconfig);
        }
        Config::infer().await.map_err(|e| Error::Infer(Box::new(e)))
    }

    /// Whether nothing but a Service is named.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.ports.is_empty() && self.client_namespace.is_none() && self.client_selector.is_empty()
    }

    /// The options as the spec of a ServiceDiagnosis for a Service.
    #[must_use]
    pub fn spec(&self, service: &str) -> ServiceDiagnosisSpec {
        let mut spec = ServiceDiagnosisSpec::for_service(service);
        let port = |p: &String| {
            p.parse()
                .map_or_else(|_| PortRef::String(p.clone()), PortRef::Int)
        };
        spec.ports = self.ports.iter().map(port).collect();
        spec.clients.namespace.clone_from(&self.client_namespace);
        if !self.client_selector.is_empty() {
            spec.clients.pod_selector = Some(LabelSelector {
                match_labels: Some(self.client_selector.iter().cloned().collect()),
                match_expressions: None,
            });
        }
        spec
    }
}

fn label(argument: &str) -> Result<(String, String), String> {
    let (key, value) = argument
        .split_once('=')
        .ok_or_else(|| format!("{argument:?} is not of the form KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}
