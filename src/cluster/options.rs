//! The options of every command that talks to a cluster, named as kubectl names them.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueHint};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use super::{
    Error,
    connection::{Server, explained},
    duration::duration,
    overrides::Overrides,
    request,
};

/// Where the help lists the options that are the same for every command.
pub(super) const HEADING: &str = "Cluster options";

/// Which kubeconfig, and which context of it.
#[derive(Args, Clone, Debug, Default)]
pub struct KubeconfigFile {
    /// Path to the kubeconfig [default: $KUBECONFIG, then ~/.kube/config, then the Pod's service account]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = HEADING)]
    kubeconfig: Option<PathBuf>,

    /// Context in the kubeconfig [default: its current context]
    #[arg(long, help_heading = HEADING)]
    context: Option<String>,
}

/// Which cluster, and which namespace of it.
#[derive(Args, Clone, Debug)]
pub struct ClusterOptions {
    /// Namespace [default: the namespace of the kubeconfig's context]
    #[arg(short, long)]
    namespace: Option<String>,

    #[command(flatten)]
    file: KubeconfigFile,

    /// Cluster in the kubeconfig [default: that of the context]
    #[arg(long, help_heading = HEADING)]
    cluster: Option<String>,

    /// User in the kubeconfig [default: that of the context]
    #[arg(long, help_heading = HEADING)]
    user: Option<String>,

    #[command(flatten)]
    overrides: Overrides,

    /// User to impersonate, for example system:serviceaccount:shop:default
    #[arg(long = "as", value_name = "USER", help_heading = HEADING)]
    as_user: Option<String>,

    /// Group to impersonate, with --as; may be repeated
    #[arg(long = "as-group", value_name = "GROUP", requires = "as_user", help_heading = HEADING)]
    as_groups: Vec<String>,

    /// How long to wait for the answer to a single request, for example 10s; 0 waits for ever
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s", help_heading = HEADING)]
    request_timeout: Duration,
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
        let mut config = self.config().await?;
        self.impersonate(&mut config);
        let server = Server {
            url: config.cluster_url.to_string(),
            context: self.context_name().filter(|_| !self.overrides.name_the_server()),
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

    /// Runs a command whose requests have the timeout of the options.
    pub(crate) async fn limiting<T>(&self, command: impl Future<Output = T>) -> T {
        request::with_timeout(self.request_timeout, command).await
    }

    /// The context that is used, if a kubeconfig says so.
    fn context_name(&self) -> Option<String> {
        if self.file.context.is_some() {
            return self.file.context.clone();
        }
        self.file.read().ok()?.current_context
    }

    async fn config(&self) -> Result<Config, Error> {
        self.file
            .config(self.cluster.as_ref(), self.user.as_ref(), &self.overrides)
            .await
    }

    /// The names in the kubeconfig, if it can be read.
    pub(crate) fn names(&self) -> Option<Names> {
        self.file.read().ok().as_ref().map(Names::of)
    }

    /// Asks the API server to take the user for another one, as far as it lets this one.
    fn impersonate(&self, config: &mut Config) {
        if let Some(user) = &self.as_user {
            config.auth_info.impersonate = Some(user.clone());
        }
        if !self.as_groups.is_empty() {
            config.auth_info.impersonate_groups = Some(self.as_groups.clone());
        }
    }
}

impl KubeconfigFile {
    /// How to reach the cluster of the context.
    ///
    /// # Errors
    /// When there is no usable kubeconfig.
    pub async fn connect(&self) -> Result<Config, Error> {
        self.config(None, None, &Overrides::default()).await
    }

    fn read(&self) -> Result<Kubeconfig, KubeconfigError> {
        match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        }
    }

    async fn config(
        &self,
        cluster: Option<&String>,
        user: Option<&String>,
        overrides: &Overrides,
    ) -> Result<Config, Error> {
        let chosen = KubeConfigOptions {
            context: self.context.clone(),
            cluster: cluster.cloned(),
            user: user.cloned(),
        };
        let names = [&chosen.context, &chosen.cluster, &chosen.user];
        let is_chosen = self.kubeconfig.is_some() || names.iter().any(|name| name.is_some());
        if !is_chosen && !overrides.are_given() {
            return Config::infer().await.map_err(|e| Error::Infer(Box::new(e)));
        }
        let kubeconfig = |e| Error::Kubeconfig(Box::new(e));
        let file = match &self.kubeconfig {
            Some(_) => self.read(),
            None => overrides.over(self.read()),
        };
        let file = file.map_err(kubeconfig)?;
        expect_in(&file, &chosen)?;
        let read = match overrides.are_given() {
            true => {
                let file = overrides.apply(&file, &chosen);
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await
            }
            false => Config::from_custom_kubeconfig(file, &chosen).await,
        };
        read.map_err(kubeconfig)
    }
}

/// Fails where the kubeconfig does not have what is named: a user that it does not have would be one without credentials.
fn expect_in(file: &Kubeconfig, chosen: &KubeConfigOptions) -> Result<(), Error> {
    let Names {
        contexts,
        clusters,
        users,
    } = Names::of(file);
    expect("context", chosen.context.as_ref(), contexts)?;
    expect("cluster", chosen.cluster.as_ref(), clusters)?;
    expect("user", chosen.user.as_ref(), users)
}

/// Names in a kubeconfig.
pub(crate) struct Names {
    pub contexts: Vec<String>,
    pub clusters: Vec<String>,
    pub users: Vec<String>,
}

impl Names {
    fn of(file: &Kubeconfig) -> Self {
        Self {
            contexts: file.contexts.iter().map(|c| c.name.clone()).collect(),
            clusters: file.clusters.iter().map(|c| c.name.clone()).collect(),
            users: file.auth_infos.iter().map(|u| u.name.clone()).collect(),
        }
    }
}

fn expect(what: &'static str, name: Option<&String>, known: Vec<String>) -> Result<(), Error> {
    match name {
        Some(name) if !known.contains(name) => Err(Error::NotInKubeconfig {
            what,
            name: name.clone(),
            known,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
