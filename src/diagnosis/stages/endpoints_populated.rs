//! Does the Service have any endpoints?

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::super::{
    Facts, Finding,
    clients::{Clients, Role},
    near_miss,
    pod_state::{self, Trouble, later},
    words,
};
use crate::{
    api::Reason,
    objects::{Endpoint, Object, Pod, Service, WorkloadSpec, matches_labels},
};

/// How long the EndpointSlices may lag behind the Pods. The endpoints controller needs well under
/// a second; its retries under load stay below this.
const SLICE_GRACE: SignedDuration = SignedDuration::from_secs(30);

pub(super) fn judge(facts: &Facts) -> Finding {
    let Some(service) = facts.service.as_deref() else {
        return Finding::not_applicable("There is no Service.");
    };
    if service.is_external_name() {
        return Finding::not_applicable("An ExternalName Service has no endpoints.");
    }
    let endpoints: Vec<&Endpoint> = facts.slices.iter().flat_map(|s| &s.endpoints).collect();
    if !service.has_selector() {
        if endpoints.is_empty() {
            return no_selector_and_no_endpoints(facts, service);
        }
        return judge_endpoints(facts, service, &endpoints);
    }
    let selected = facts.selected_pods();
    if selected.is_empty() {
        return no_pods(facts, service);
    }
    match staleness(facts, service, &selected) {
        Some(Lag::Over(pods)) => stale(facts, service, &pods, &endpoints),
        Some(Lag::Until(time)) if !endpoints.iter().any(|e| e.is_ready()) => Finding::unknown(
            Reason::Pending,
            "Pods are ready; the EndpointSlices do not hold them yet.",
        )
        .recheck_at(Some(time)),
        Some(Lag::Until(time)) => judge_endpoints(facts, service, &endpoints).recheck_at(Some(time)),
        None => judge_endpoints(facts, service, &endpoints),
    }
}

fn judge_endpoints(facts: &Facts, service: &Service, endpoints: &[&Endpoint]) -> Finding {
    let ready = distinct(endpoints.iter().filter(|e| e.is_ready()));
    let all = distinct(endpoints.iter());
    if ready > 0 {
        if let Some(finding) = no_local_endpoints(facts, service, endpoints) {
            return finding;
        }
        return Finding::yes(
            Reason::EndpointsReady,
            format!("{ready} of {} are ready.", words::count(all, "endpoint")),
        );
    }
    let serving = distinct(endpoints.iter().filter(|e| e.is_serving() && e.is_terminating()));
    if serving > 0 {
        return Finding::yes(
            Reason::OnlyTerminatingEndpoints,
            format!(
                "No endpoint is ready, but {} still serve while terminating.",
                words::count(serving, "endpoint")
            ),
        );
    }
    let selected = facts.selected_pods();
    let starting = selected
        .iter()
        .filter(|p| !p.is_terminating() && !p.is_ready())
        .filter_map(|p| match pod_state::trouble(facts, p) {
            Trouble::Starting(until) => Some(until),
            _ => None,
        });
    if let Some(until) = starting.min() {
        return Finding::unknown(Reason::Pending, "No endpoint is ready yet; Pods are starting.")
            .recheck_at(Some(until));
    }
    let whose = if service.has_selector() {
        "the Pods"
    } else {
        "the hand-made EndpointSlices"
    };
    Finding::nothing_works(
        Reason::NoReadyEndpoints,
        format!(
            "The Service has {}, and none is ready.",
            words::count(all, "endpoint")
        ),
        format!(
            "Make {whose} ready; see the endpoints' conditions: `kubectl -n {} get endpointslices -l kubernetes.io/service-name={} -o yaml`.",
            facts.namespace,
            service.name()
        ),
    )
}

/// Endpoints, counted once though they stand in a slice for each IP family or set of ports.
fn distinct<'a, 'b: 'a>(endpoints: impl Iterator<Item = &'a &'b Endpoint>) -> usize {
    let keys = endpoints.filter_map(|e| e.pod_uid().or(e.addresses.first().map(String::as_str)));
    keys.collect::<BTreeSet<_>>().len()
}

fn no_selector_and_no_endpoints(facts: &Facts, service: &Service) -> Finding {
    Finding::nothing_works(
        Reason::NoSelectorAndNoEndpoints,
        "The Service has no selector and no EndpointSlice names an endpoint for it.",
        format!(
            "Give the Service a selector: `kubectl -n {} set selector service {} KEY=VALUE`; or create an EndpointSlice with the label kubernetes.io/service-name={}.",
            facts.namespace,
            service.name(),
            service.name()
        ),
    )
}

/// The selector matches no Pod: because a workload has none, or because the labels differ.
fn no_pods(facts: &Facts, service: &Service) -> Finding {
    let ns = &facts.namespace;
    let selector = near_miss::selector(&service.spec.selector);
    let have_ended = facts
        .pods
        .iter()
        .any(|p| p.has_ended() && matches_labels(&service.spec.selector, p.labels()));
    if have_ended && !is_scaled_to_zero(facts, service) {
        return Finding::nothing_works(
            Reason::NoReadyEndpoints,
            format!("All Pods that the selector {selector} matches have ended for good."),
            format!("Find out why they ended: `kubectl -n {ns} get pods -l {selector}`."),
        );
    }
    let workloads = matching_workloads(facts, service);
    if let Some((workload, spec, changed_at)) = workloads.iter().find(|(_, spec, _)| spec.replicas != Some(0))
    {
        let wanted = words::count(usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0), "Pod");
        let until = changed_at
            .map(|at| later(at, SLICE_GRACE))
            .filter(|until| *until > facts.now);
        if until.is_some() {
            return Finding::unknown(
                Reason::Pending,
                format!("{workload} is to have {wanted}; none exists yet."),
            )
            .recheck_at(until);
        }
        return Finding::nothing_works(
            Reason::SelectorMatchesNoPods,
            format!(
                "The selector {selector} matches no Pod, though {workload} is to have {wanted} that it would match."
            ),
            format!(
                "See why the Pods are not created (quota, admission): `kubectl -n {ns} describe {workload}`."
            ),
        );
    }
    if let Some((workload, ..)) = workloads.first() {
        let names: Vec<&str> = workloads.iter().map(|(w, ..)| w.as_str()).collect();
        let (be, it) = if names.len() == 1 {
            ("is", "it has")
        } else {
            ("are", "they have")
        };
        return Finding::nothing_works(
            Reason::ScaledToZero,
            format!(
                "The selector {selector} matches the Pods of {}, which {be} scaled to 0, so that {it} none.",
                words::list(&names)
            ),
            format!("Scale up: `kubectl -n {ns} scale {workload} --replicas=1`."),
        );
    }
    if let Some(why) = unseen_workloads(facts) {
        // Nobody is told to change a selector that may be the right one for a workload without Pods.
        return Finding::nothing_works(
            Reason::SelectorMatchesNoPods,
            format!(
                "The selector {selector} matches none of the {} of namespace {ns}; whether it would match those of a workload that has none now is not known: {why}.",
                words::count(facts.pods.len(), "Pod")
            ),
            format!(
                "See whether a workload is scaled to 0, and compare the selector with the labels of the Pods: `kubectl -n {ns} get deployments,statefulsets,replicasets,pods --show-labels`."
            ),
        );
    }
    let Some(near) = near_miss::find(facts, &service.spec.selector) else {
        return Finding::nothing_works(
            Reason::SelectorMatchesNoPods,
            format!(
                "The selector {selector} matches none of the {} of namespace {ns}.",
                words::count(facts.pods.len(), "Pod")
            ),
            format!(
                "Compare the selector with the labels of the Pods: `kubectl -n {ns} get pods --show-labels`."
            ),
        );
    };
    Finding::nothing_works(
        Reason::SelectorMatchesNoPods,
        format!("The selector {selector} matches no Pod; {}.", near.told),
        format!(
            "Correct the selector: `kubectl -n {ns} patch service {} --type=merge -p {}`.",
            service.name(),
            words::quoted(&near.patch)
        ),
    )
}

/// Why not all workloads could be read, if so.
fn unseen_workloads(facts: &Facts) -> Option<&str> {
    let mut kinds = ["deployments", "statefulsets", "replicasets"].into_iter();
    kinds.find_map(|resource| facts.why_unreadable(resource))
}

/// Whether workloads would have the Service's Pods and all of them are scaled to 0. Pods that were evicted stay
/// behind then.
pub(super) fn is_scaled_to_zero(facts: &Facts, service: &Service) -> bool {
    let workloads = matching_workloads(facts, service);
    !workloads.is_empty() && workloads.iter().all(|(_, spec, _)| spec.replicas == Some(0))
}

type WorkloadRow<'a> = (String, &'a WorkloadSpec, Option<Timestamp>);

/// Workloads whose Pods the Service would select, as `kubectl` names them.
fn matching_workloads<'a>(facts: &'a Facts, service: &Service) -> Vec<WorkloadRow<'a>> {
    let deployments = facts
        .deployments
        .iter()
        .map(|d| (format!("deployment/{}", d.name()), &d.spec, d.changed_at()));
    let stateful = facts
        .stateful_sets
        .iter()
        .map(|s| (format!("statefulset/{}", s.name()), &s.spec, s.changed_at()));
    // A ReplicaSet with an owner is a revision of a Deployment: old ones are always scaled to 0.
    let bare = facts
        .replica_sets
        .iter()
        .filter(|r| r.metadata.owner_references.as_ref().is_none_or(Vec::is_empty));
    let bare = bare.map(|r| (format!("replicaset/{}", r.name()), &r.spec, r.changed_at()));
    let mut rows: Vec<WorkloadRow> = deployments
        .chain(stateful)
        .chain(bare)
        .filter(|(_, spec, _)| matches_labels(&service.spec.selector, &spec.template.metadata.labels))
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

enum Lag<'a> {
    /// The slices should hold these Pods by now.
    Over(Vec<&'a Pod>),
    /// They may still lag, until this time.
    Until(Timestamp),
}

/// Whether Pods that are ready are missing from the slices, or stand there as not ready.
///
/// The grace begins with the latest change of the Pod or of the Service: a new label or selector
/// has to be noticed, too.
fn staleness<'a>(facts: &Facts, service: &Service, selected: &[&'a Pod]) -> Option<Lag<'a>> {
    let listed: BTreeMap<&str, bool> =
        facts
            .slices
            .iter()
            .flat_map(|s| &s.endpoints)
            .fold(BTreeMap::new(), |mut map, e| {
                if let Some(uid) = e.pod_uid() {
                    *map.entry(uid).or_default() |= e.is_ready();
                }
                map
            });
    let families = &service.spec.ip_families;
    let has_family = |pod: &Pod| {
        let family = |ip: &str| if ip.contains(':') { "IPv6" } else { "IPv4" };
        families.is_empty() && pod.ips().next().is_some()
            || pod.ips().any(|ip| families.iter().any(|f| f == family(ip)))
    };
    let missing = selected
        .iter()
        .copied()
        .filter(|p| p.is_ready() && !p.is_terminating() && has_family(p))
        .filter(|p| {
            let uid = p.metadata.uid.as_deref().unwrap_or_default();
            !listed.get(uid).copied().unwrap_or(false)
        });
    let mut over = Vec::new();
    let mut until: Option<Timestamp> = None;
    for pod in missing {
        let became_ready = pod.condition("Ready").and_then(|c| c.last_transition_time);
        let since = [became_ready, pod.changed_at(), service.changed_at()]
            .into_iter()
            .flatten()
            .max();
        let due = later(since.unwrap_or(facts.now), SLICE_GRACE);
        if due <= facts.now {
            over.push(pod);
        } else {
            until = Some(until.map_or(due, |u| u.min(due)));
        }
    }
    if over.is_empty() {
        until.map(Lag::Until)
    } else {
        Some(Lag::Over(over))
    }
}

fn stale(facts: &Facts, service: &Service, pods: &[&Pod], endpoints: &[&Endpoint]) -> Finding {
    let names: Vec<&str> = pods.iter().map(|p| p.name()).collect();
    let message = format!(
        "{} ready for {} seconds or more but not among the Service's ready endpoints: {}.",
        if pods.len() == 1 {
            "1 Pod has been".to_owned()
        } else {
            format!("{} Pods have been", pods.len())
        },
        SLICE_GRACE.as_secs(),
        words::list(&names)
    );
    let remediation = format!(
        "The endpoints controller is not keeping up; see whether kube-controller-manager runs and what it logs: `kubectl -n kube-system get pods -l component=kube-controller-manager`; compare with `kubectl -n {} get endpointslices -l kubernetes.io/service-name={}`.",
        facts.namespace,
        service.name()
    );
    if endpoints.iter().any(|e| e.is_ready()) {
        Finding::part_fails(Reason::EndpointSlicesStale, message, remediation)
    } else {
        Finding::nothing_works(Reason::EndpointSlicesStale, message, remediation)
    }
}

/// internalTrafficPolicy Local: a client whose node has no endpoint cannot use the Service.
/// externalTrafficPolicy Local shuts nobody inside the cluster out.
fn no_local_endpoints(facts: &Facts, service: &Service, endpoints: &[&Endpoint]) -> Option<Finding> {
    if !service.is_internally_local() || service.is_headless() {
        return None;
    }
    let serving = |e: &&&Endpoint| e.is_ready() || e.is_serving() && e.is_terminating();
    let nodes: BTreeSet<&str> = endpoints
        .iter()
        .filter(serving)
        .filter_map(|e| e.node_name.as_deref())
        .collect();
    let Clients::Pods { pods, role } = Clients::of(facts) else {
        return None;
    };
    let node = |p: &&Pod| p.spec.node_name.clone().unwrap_or_default();
    let (inside, outside): (Vec<&Pod>, Vec<&Pod>) =
        pods.iter().partition(|p| nodes.contains(node(p).as_str()));
    if outside.is_empty() || role != Role::Named && !inside.is_empty() {
        return None;
    }
    let lacking: Vec<String> = outside
        .iter()
        .map(node)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let shut_out: Vec<&str> = outside.iter().map(|p| p.name()).collect();
    let message = format!(
        "internalTrafficPolicy is Local, and {} has no endpoint: {} cannot use the Service from there.",
        if lacking.len() == 1 {
            format!("node {}", lacking[0])
        } else {
            format!("none of the nodes {}", words::list(&lacking))
        },
        words::list(&shut_out)
    );
    let remediation = format!(
        "Run an endpoint on every node with clients (for example as a DaemonSet), or let the traffic leave the node: `kubectl -n {} patch service {} --type=merge -p '{{\"spec\":{{\"internalTrafficPolicy\":\"Cluster\"}}}}'`.",
        facts.namespace,
        service.name()
    );
    Some(if inside.is_empty() {
        Finding::nothing_works(Reason::NoLocalEndpoints, message, remediation)
    } else {
        Finding::part_fails(Reason::NoLocalEndpoints, message, remediation)
    })
}
