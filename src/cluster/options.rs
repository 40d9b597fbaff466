//! The options of every command that talks to a cluster, named as kubectl names them.

use clap::Args;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::{
    Error,
    connection::{Server, explained},
};

/// Which cluster, and which namespace of it.
#[derive(Args, Clone, Debug)]
pub struct ClusterOptions {
    /// Namespace [default: the namespace of the kubeconfig's context]
    #[arg(short, long)]
    namespace: Option<String>,

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
    /// The namespace to work in.
    pub namespace: String,
    /// Where the API server is.
    pub server: Server,
}

impl ClusterOptions {
    /// A client of the cluster, and the namespace to work in.
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
}
