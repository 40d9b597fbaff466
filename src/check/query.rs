//! From which clients to diagnose a Service: options that `check` and `collect` share.

use clap::Args;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::{
    api::{PortRef, ServiceDiagnosisSpec},
    cluster::ClusterOptions,
};

/// From which clients, in which cluster.
#[derive(Args, Clone, Debug)]
pub struct Query {
    /// Service ports that clients use, by number or name [default: all]
    #[arg(
        long,
        visible_alias = "port",
        value_delimiter = ',',
        value_name = "PORT",
        requires = "service"
    )]
    ports: Vec<String>,

    /// A Pod that is a client of the Service; so are those with the same labels
    #[arg(long, value_name = "POD", value_parser = pod_name, requires = "service", conflicts_with = "client_selector")]
    pub(super) from: Option<String>,

    /// Labels of the Pods that are clients of the Service, for example app=web
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label, requires = "service")]
    client_selector: Vec<(String, String)>,

    /// Namespace of the client Pods [default: the namespace of the Service]
    #[arg(long, value_name = "NAMESPACE", requires = "service")]
    client_namespace: Option<String>,

    /// Namespace of the node agents, whose reports are used if the Service has a ServiceDiagnosis
    #[arg(long, value_name = "NAMESPACE", default_value = "svcdiag-system")]
    pub agent_namespace: String,

    #[command(flatten)]
    pub(crate) cluster: ClusterOptions,
}

impl Query {
    /// Whether nothing but a Service is named.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        let is_of_any_client =
            self.from.is_none() && self.client_namespace.is_none() && self.client_selector.is_empty();
        self.ports.is_empty() && is_of_any_client
    }

    /// The namespace of the client Pods of a Service in a namespace.
    pub(super) fn client_namespace<'a>(&'a self, of_service: &'a str) -> &'a str {
        self.client_namespace.as_deref().unwrap_or(of_service)
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

/// A Pod's name, which kubectl also takes as pod/NAME.
fn pod_name(argument: &str) -> Result<String, String> {
    let name = argument.strip_prefix("pod/").unwrap_or(argument);
    match name.contains('/') || name.is_empty() {
        true => Err("it is not the name of a Pod; its namespace is --client-namespace".to_owned()),
        false => Ok(name.to_owned()),
    }
}

fn label(argument: &str) -> Result<(String, String), String> {
    let (key, value) = argument
        .split_once('=')
        .ok_or_else(|| format!("{argument:?} is not of the form KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}
