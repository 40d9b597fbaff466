//! What is said of clients that do not find the Service.

use std::collections::BTreeSet;

use crate::{
    Facts,
    evidence::Evidence,
    policies::dns,
    stages::dns_resolves::{
        hints::names_with,
        lookups::{CONTROL, external_name, full, lookup, missing_suffix},
        names::{self, Client},
        servers,
        silence::{Silent, diagnose},
    },
    text::{self, quoted},
};
use svcdiag_api::{CLibrary, LookupResult, Reason, Resolver};
use svcdiag_objects::{Object, Pod};

/// Clients with one fault.
struct Report<'a> {
    facts: &'a Facts,
    first: &'a Client<'a>,
    resolver: &'a Resolver,
    /// The Pods.
    who: String,
    servers: String,
    /// The first one's namespace and name.
    namespace: &'a str,
    pod: &'a str,
    settings: String,
}

/// The message and what to do.
pub(super) fn fault(evidence: &Evidence<'_>, reason: Reason, clients: &[&Client<'_>]) -> (String, String) {
    let facts = evidence.facts;
    let Some(&first) = clients.first() else {
        return (String::new(), String::new());
    };
    let resolver = first.resolver;
    let who: Vec<String> = clients
        .iter()
        .map(|c| format!("Pod {} on node {}", c.resolver.pod, c.report.node))
        .collect();
    let (namespace, pod) = resolver.pod.split_once('/').unwrap_or(("", &resolver.pod));
    let report = Report {
        facts,
        first,
        resolver,
        who: text::list(&who),
        servers: text::list(&resolver.servers),
        namespace,
        pod,
        settings: format!(
            "`kubectl -n {} get pod {} -o jsonpath='{{.spec.dnsPolicy}} {{.spec.dnsConfig}}'`",
            quoted(namespace),
            quoted(pod)
        ),
    };
    match reason {
        Reason::ClusterDNSUnreachable => report.unreachable(),
        Reason::ClusterDNSFailing => report.failing(),
        Reason::ClusterDomainMismatch => report.other_domain(evidence),
        Reason::NameserverNotClusterDNS => report.other_server(evidence),
        Reason::ExternalNameNotFound => report.no_external_name(),
        Reason::NameNotFound if first.is_partly => report.hidden(),
        Reason::NameNotFound => report.no_name(),
        Reason::SearchPathMissing => report.no_suffix(),
        Reason::NdotsTooLow => report.few_dots(),
        Reason::OnlyQualifiedNameResolves => report.short_name(),
        Reason::OnlyFullyQualifiedNameResolves => report.full_name_only(),
        _ => report.wrong_address(),
    }
}

impl Report<'_> {
    fn unreachable(&self) -> (String, String) {
        let silent = Silent::of(self.facts, self.first);
        let message = format!(
            "{} does not answer {}: neither {} nor {CONTROL} could be resolved.{}",
            silent.who, self.who, self.first.name, silent.although
        );
        let client = client_pod(self.facts, &self.resolver.pod);
        match client.and_then(|client| dns::closed_to(self.facts, client)) {
            Some(policies) => (
                format!(
                    "{message} Its Pods are isolated by {} {}, and no rule there admits that client on the DNS port.",
                    if policies.len() == 1 {
                        "NetworkPolicy"
                    } else {
                        "NetworkPolicies"
                    },
                    text::list(&policies)
                ),
                format!(
                    "Allow the clients' namespaces on port 53 (UDP and TCP) in a NetworkPolicy for the Pods of cluster DNS. {}",
                    silent.remediation
                ),
            ),
            None => (message, silent.remediation),
        }
    }

    fn failing(&self) -> (String, String) {
        let of_servers = servers::own(&self.first.report, &self.resolver.pod);
        let of_servers = of_servers.iter().filter_map(|s| s.code.as_deref());
        let of_names = self.resolver.lookups.iter().filter_map(|l| l.code.as_deref());
        let codes: BTreeSet<&str> = of_servers.chain(of_names).collect();
        let codes: Vec<&str> = codes.into_iter().collect();
        // Who asks a cache hears from the cache.
        let answering = Silent::of(self.facts, self.first);
        let message = format!(
            "{} answers {} to {}: neither {} nor {CONTROL} could be resolved.{}",
            answering.who,
            text::list(&codes),
            self.who,
            self.first.name,
            answering.although
        );
        (message, answering.remediation)
    }

    fn other_domain(&self, evidence: &Evidence<'_>) -> (String, String) {
        let reports = &evidence.reports;
        let wanted = servers::searched_domain(self.facts, self.resolver).unwrap_or_default();
        let dns = self.facts.cluster_dns.as_ref();
        let asked = reports.current.iter().flat_map(|r| &r.facts.dns_servers);
        let seen = asked.filter_map(|s| s.domain.as_deref()).min();
        let configured = dns.and_then(|dns| dns.domain.as_deref());
        let serves = match (seen, configured) {
            (Some(domain), _) if domain != wanted => format!(" It serves them in {domain}."),
            (_, Some(domain)) if domain != wanted => format!(" Its Corefile has them in {domain}."),
            _ => String::new(),
        };
        let namespace = quoted(dns.map_or("kube-system", |dns| dns.service.namespace()));
        let corefile = match dns.and_then(|dns| dns.config_map.as_deref()) {
            Some(name) => format!(
                ": `kubectl -n {namespace} get configmap {} -o yaml`",
                quoted(name)
            ),
            None => format!(
                ", which is in a ConfigMap that the Pods of cluster DNS mount (`kubectl -n {namespace} get configmaps` lists the ConfigMaps)"
            ),
        };
        (
            format!(
                "Clients search for Service names in {wanted}, but cluster DNS ({}) does not serve them there: it told {} that {CONTROL}.svc.{wanted} does not exist.{serves}",
                self.servers, self.who
            ),
            format!(
                "Make the two domains the same by changing one of them: clusterDomain in the kubelets' configuration, or the zone of the kubernetes plugin in the Corefile{corefile}."
            ),
        )
    }

    fn other_server(&self, evidence: &Evidence<'_>) -> (String, String) {
        let dns = self.facts.cluster_dns.as_ref();
        let own = dns.map(|d| text::list(&d.service.cluster_ips()));
        let own = own.filter(|ips| !ips.is_empty());
        let seen = if servers::cluster_dns_answers(evidence) {
            ", although cluster DNS answers other clients"
        } else {
            ""
        };
        let unknown =
            match full(self.facts, self.resolver).filter(|_| lookup(self.resolver, CONTROL).is_none()) {
                Some(full) => &full.name,
                None => CONTROL,
            };
        let pod = client_pod(self.facts, &self.resolver.pod);
        let host = pod.filter(|pod| pod.is_host_network());
        let is_default = |pod: &Pod| pod.spec.dns_policy.as_deref().is_none_or(|p| p == "ClusterFirst");
        let why = match host.filter(|pod| is_default(pod)) {
            Some(_) => {
                " The Pod uses the host network, where dnsPolicy ClusterFirst means the name servers of the node."
            }
            None => "",
        };
        let fix = match host {
            Some(pod) if is_default(pod) => "Set dnsPolicy: ClusterFirstWithHostNet in its template",
            Some(_) => {
                "If they name other servers, or dnsPolicy is Default, remove dnsConfig.nameservers from its template and set dnsPolicy: ClusterFirstWithHostNet; otherwise correct the kubelet's clusterDNS"
            }
            None => {
                "If they name other servers, or dnsPolicy is Default, remove dnsConfig.nameservers and dnsPolicy from its template; otherwise correct the kubelet's clusterDNS"
            }
        };
        let is = own.map_or_else(String::new, |ips| format!(" (cluster DNS is {ips})"));
        (
            format!(
                "The name servers of {} ({}) are not cluster DNS and cannot resolve {unknown}{seen}.{why}",
                self.who, self.servers
            ),
            format!("Check the Pod's settings: {}. {fix}{is}.", self.settings),
        )
    }

    fn no_external_name(&self) -> (String, String) {
        let target = external_name(self.facts).unwrap_or_default();
        let (service, namespace) = (
            quoted(&self.facts.spec.service_name),
            quoted(&self.facts.namespace),
        );
        (
            format!(
                "The Service is an alias for {target}, which does not resolve: {} (name servers {}) found neither {} nor {target}.",
                self.who, self.servers, self.first.name
            ),
            format!(
                "Correct spec.externalName: `kubectl -n {namespace} edit service {service}`. Or create the name in its own DNS zone."
            ),
        )
    }

    fn no_name(&self) -> (String, String) {
        let full = full(self.facts, self.resolver).map_or(self.first.name.as_str(), |l| &l.name);
        let message = format!(
            "Cluster DNS ({}) knows {CONTROL} but not {full}, queried by {}.",
            self.servers, self.who
        );
        (message, diagnose(self.facts))
    }

    /// Other names of the Service are found, and the search list has the suffix for this one.
    fn hidden(&self) -> (String, String) {
        let name = &self.first.name;
        let first = self
            .resolver
            .search
            .first()
            .map(|suffix| format!("{name}.{}", suffix.trim_matches('.')));
        let tried = first.as_ref().map_or_else(String::new, |first| {
            format!(
                " For {name}, resolvers first try {first}, and some stop there if that name exists but has no addresses."
            )
        });
        let shadow = first.as_deref().and_then(|first| service_of(name, first));
        let see = match shadow {
            Some((service, namespace)) => format!(
                " Such a name can come from a Service with the same name as the namespace: `kubectl -n {namespace} get service {service}`. If there is one, another way is to give that Service another name."
            ),
            None => String::new(),
        };
        let full = full(self.facts, self.resolver).map_or(name.as_str(), |l| &l.name);
        (
            format!(
                "{} does not resolve {name}, although {}.{tried}",
                self.who,
                working_names(self.resolver, self.facts)
            ),
            format!("Have the clients use \"{full}.\" (with the trailing dot).{see}"),
        )
    }

    fn no_suffix(&self) -> (String, String) {
        let name = &self.first.name;
        let suffix = missing_suffix(self.facts, self.resolver, name).unwrap_or_default();
        (
            format!(
                "The search list of {} lacks {suffix}, so {name} does not resolve, although {}.",
                self.who,
                working_names(self.resolver, self.facts)
            ),
            format!(
                "Check the Pod's settings: {}. Then set dnsPolicy to ClusterFirst, which supplies the list, or add {suffix} to dnsConfig.searches, or have the client use a name that works.",
                self.settings
            ),
        )
    }

    fn few_dots(&self) -> (String, String) {
        let image = match self.resolver.c_library {
            CLibrary::Musl => " and an image with musl, which therefore does not",
            _ => ", with which some resolvers (for example musl's) do not",
        };
        (
            format!(
                "{} has ndots:{}{image} try the search list for {}. From there, {}.",
                self.who,
                self.resolver.ndots,
                self.first.name,
                working_names(self.resolver, self.facts)
            ),
            format!(
                "Raise ndots in the Pod's template (dnsConfig.options; the default in Kubernetes is 5), or have the client use a name that works. Its current settings: {}.",
                self.settings
            ),
        )
    }

    fn short_name(&self) -> (String, String) {
        let (name, namespace, pod) = (&self.first.name, quoted(self.namespace), quoted(self.pod));
        (
            format!(
                "{} uses the name {name}, which refers to its own namespace {namespace}. From there, {}.",
                self.who,
                working_names(self.resolver, self.facts)
            ),
            format!(
                "Have the client use {name}.{}. To see where it gets the name from: `kubectl -n {namespace} get pod {pod} -o yaml`.",
                self.facts.namespace
            ),
        )
    }

    fn full_name_only(&self) -> (String, String) {
        (
            format!(
                "{} does not resolve {} although its search list has the suffix. From there, {}.",
                self.who,
                self.first.name,
                working_names(self.resolver, self.facts)
            ),
            format!(
                "Have the client use a name that works. Its resolver settings: {}.",
                self.settings
            ),
        )
    }

    fn wrong_address(&self) -> (String, String) {
        let name = &self.first.name;
        let asked = lookup(self.resolver, name);
        let found = asked.map(|l| text::list(&l.addresses)).unwrap_or_default();
        let right = names::right_addresses(self.facts);
        let right: Vec<String> = right.iter().map(ToString::to_string).collect();
        let message = format!(
            "{} gets {found} for {name}, but the Service has {}",
            self.who,
            text::list(&right)
        );
        let own = full(self.facts, self.resolver).map_or(name.as_str(), |l| &l.name);
        // The full name itself need not have been looked up.
        let domain = servers::searched_domain(self.facts, self.resolver).unwrap_or("cluster.local");
        let of_service = format!(
            "{}.{}.svc.{domain}",
            self.facts.spec.service_name, self.facts.namespace
        );
        let elsewhere = asked
            .and_then(|l| l.found_as.as_deref())
            .filter(|found| *found != own && *found != of_service);
        let Some(led) = elsewhere else {
            return (
                format!("{message}."),
                format!(
                    "{} Find out where the answer comes from: spec.hostAliases, a cache, or DNS Pods that no longer get updates from the API server.",
                    diagnose(self.facts)
                ),
            );
        };
        let suffix = led.strip_prefix(name.as_str()).unwrap_or(led).trim_matches('.');
        let cause = match service_of(name, led) {
            Some((service, namespace)) => format!(
                "Check the Service of that name: `kubectl -n {namespace} get service {service}`. Rename it, or have"
            ),
            None => format!(
                "Remove {suffix} from the Pod's search list, remove the wildcard record from {suffix}, or have"
            ),
        };
        (
            format!(
                "{message}. Through the Pod's search list, the name becomes {led}, which has that address."
            ),
            format!(
                "{cause} the clients use \"{own}.\" (with the trailing dot). The Pod's current settings: {}.",
                self.settings
            ),
        )
    }
}

/// The Service, with its namespace, that a full name is below of: `web.shop` and the suffix
/// `shop.svc.cluster.local` make a name of a Service called shop. Both as a command takes them.
fn service_of(name: &str, full: &str) -> Option<(String, String)> {
    let suffix = full.strip_prefix(name)?.strip_prefix('.')?;
    let namespace = suffix.split_once(".svc.")?.0;
    let (rest, _) = full.split_once(&format!(".{namespace}.svc."))?;
    let service = rest.rsplit_once('.')?.1;
    (!namespace.contains('.')).then(|| (quoted(service), quoted(namespace)))
}

fn client_pod<'a>(facts: &'a Facts, key: &str) -> Option<&'a Pod> {
    let others = facts.client_namespace.iter().flat_map(|n| &n.pods);
    let pods = facts.pods.iter().chain(others).map(AsRef::as_ref);
    // Files may hold a Pod twice; which comes first means nothing.
    pods.filter(|pod: &&Pod| key == format!("{}/{}", pod.namespace(), pod.name()))
        .min_by_key(|pod| format!("{pod:?}"))
}

/// Which of the names a client can use.
fn working_names(resolver: &Resolver, facts: &Facts) -> String {
    let works = names_with(facts, resolver, |r| r == LookupResult::Found);
    if works.is_empty() {
        "cluster DNS knows the full name when queried directly".to_owned()
    } else {
        let verb = if works.len() == 1 { "works" } else { "work" };
        format!("{} {verb}", text::list(&works))
    }
}
