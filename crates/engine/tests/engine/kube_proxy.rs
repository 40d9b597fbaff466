//! kube-proxy's own troubles, each beside the nearest cluster in which the same sight is no fault.

use serde_json::json;
use svcdiag_api::{
    Answer, ConditionType as C, DialPath, GapKind, NodeFacts, PortState, Reason as R, RuleGap, RunsAs,
};
use svcdiag_engine::{Facts, diagnose};
use svcdiag_objects::Node;

use crate::{agents::*, fixtures::node_port, report::*, walkthrough::*};

const E1: &str = "10.244.1.5:9376";

fn gap(facts: &mut Facts, kind: GapKind, destination: &str, endpoint: Option<&str>) {
    on(facts, "n1", |n| {
        n.rules.as_mut().unwrap().gaps.push(RuleGap {
            kind,
            destination: destination.into(),
            endpoint: endpoint.map(str::to_owned),
            detail: "line 3 of its log: address already in use".into(),
        });
    });
}

fn proxy(facts: &mut Facts, node: &str, change: impl Fn(&mut svcdiag_api::KubeProxy)) {
    on(facts, node, |n| change(n.kube_proxy.as_mut().unwrap()));
}

fn ipvs(facts: &mut Facts) {
    everywhere(facts, |n| {
        n.kube_proxy.as_mut().unwrap().mode = Some("ipvs".into());
        n.rules.as_mut().unwrap().layout = "ipvs".into();
    });
}

#[test]
fn a_right_that_is_missing_is_named_where_the_service_suffers() {
    let denied = |f: &mut Facts| {
        proxy(f, "n1", |p| {
            p.denied = Some("list endpointslices.discovery.k8s.io".into())
        });
    };
    let d = fault("denied", C::KubeProxyHealthy, R::APIAccessDenied, |f| {
        denied(f);
        fail_service(f, "n1", None, Answer::TimedOut);
    });
    let cause = d.root_cause.unwrap();
    assert!(
        cause.message.contains("list endpointslices.discovery.k8s.io"),
        "{}",
        cause.message
    );
    // A kube-proxy that is newer than its ClusterRole is denied what it works without.
    let d = lookalike(denied);
    let healthy = stage(&d, C::KubeProxyHealthy);
    assert_eq!(healthy.reason, R::Running);
    assert!(healthy.message.contains("does not allow"), "{}", healthy.message);
}

#[test]
fn what_keeps_rules_from_being_written_is_told_and_no_restart_advised() {
    let d = fault("not-written", C::KubeProxyHealthy, R::NotSyncing, |f| {
        proxy(f, "n1", |p| {
            p.livez = PortState::Failing;
            p.sync_error = Some("iptables-restore has failed 3 times".into());
        });
    });
    let cause = d.root_cause.unwrap();
    assert!(cause.message.contains("iptables-restore"), "{}", cause.message);
    assert!(!cause.remediation.contains("delete pod"), "{}", cause.remediation);
    // It failed once, and works.
    lookalike(|f| {
        proxy(f, "n1", |p| {
            p.sync_error = Some("iptables-restore has failed 1 times".into())
        })
    });
}

#[test]
fn endpoints_of_weight_zero_get_nothing() {
    let d = fault("drained", C::ProxyRulesPresent, R::EndpointsDrained, |f| {
        ipvs(f);
        gap(f, GapKind::EndpointDrained, "10.96.1.175:80/TCP", Some(E1));
    });
    let remedy = d.root_cause.unwrap().remediation;
    assert!(
        remedy.contains("`ipvsadm -e -t 10.96.1.175:80 -r 10.244.1.5:9376 -m -w 1`")
            && !remedy.contains("delete"),
        "{remedy}"
    );
}

#[test]
fn clients_that_affinity_keeps_at_an_endpoint_that_is_gone() {
    let stuck = |f: &mut Facts| {
        ipvs(f);
        gap(
            f,
            GapKind::EndpointStuck,
            "10.96.1.175:80/TCP",
            Some("10.244.1.88:9376"),
        );
    };
    fault("stuck", C::ProxyRulesPresent, R::StaleEndpointInRules, |f| {
        stuck(f);
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    });
    // After each rollout, until the last connections have ended.
    let d = lookalike(stuck);
    assert_eq!(stage(&d, C::ProxyRulesPresent).reason, R::RulesMatchEndpoints);
}

fn local(facts: &mut Facts) {
    node_port(facts);
    service(facts, json!({ "spec": { "externalTrafficPolicy": "Local" } }));
    look(facts);
}

#[test]
fn kube_proxy_under_another_name_takes_local_endpoints_for_remote_ones() {
    let d = fault("node-name", C::ProxyRulesPresent, R::NodeNameMismatch, |f| {
        local(f);
        proxy(f, "n1", |p| p.node_name = Some("n1.example".into()));
        gap(f, GapKind::NodePortMissing, "node port 30080/TCP", None);
    });
    let cause = d.root_cause.unwrap();
    assert!(cause.message.contains("n1.example") && cause.remediation.contains("--hostname-override=n1"));
    let d = fault("node-names", C::ProxyRulesPresent, R::NodeNameMismatch, |f| {
        local(f);
        for node in ["n1", "n2"] {
            proxy(f, node, |p| p.node_name = Some(format!("{node}.example")));
            on(f, node, |n| {
                n.rules.as_mut().unwrap().gaps.push(RuleGap {
                    kind: GapKind::NodePortMissing,
                    destination: "node port 30080/TCP".into(),
                    endpoint: None,
                    detail: "nothing".into(),
                });
            });
        }
    });
    let cause = d.root_cause.unwrap();
    assert!(
        cause
            .message
            .contains("(n1.example instead of n1 and n2.example instead of n2)"),
        "{}",
        cause.message
    );
    assert!(
        cause
            .remediation
            .contains("--hostname-override=n1 on node n1 and --hostname-override=n2 on node n2"),
        "{}",
        cause.remediation
    );
    // That a process listens there changes nothing: with rules nobody would get to it.
    let mut facts = with_agents();
    local(&mut facts);
    proxy(&mut facts, "n1", |p| p.node_name = Some("n1.example".into()));
    gap(&mut facts, GapKind::NodePortInUse, "node port 30080/TCP", None);
    assert_root_cause(&diagnose(&facts), C::ProxyRulesPresent, R::NodeNameMismatch);
    // Nobody asks which endpoints are local.
    lookalike(|f| proxy(f, "n1", |p| p.node_name = Some("n1.example".into())));
    // The name is right, and the rules are missing for another reason.
    let mut facts = with_agents();
    local(&mut facts);
    gap(&mut facts, GapKind::NodePortMissing, "node port 30080/TCP", None);
    assert_root_cause(&diagnose(&facts), C::ProxyRulesPresent, R::NodePortRulesMissing);
}

#[test]
fn another_process_has_the_node_port() {
    let d = fault("node-port-in-use", C::ProxyRulesPresent, R::NodePortInUse, |f| {
        node_port(f);
        gap(f, GapKind::NodePortInUse, "node port 30080/TCP", None);
        on(f, "n1", |n| {
            n.rules.as_mut().unwrap().gaps[0].detail = "process nginx, PID 4711".into();
        });
    });
    let cause = d.root_cause.unwrap();
    assert!(
        cause.message.contains("(process nginx, PID 4711)") && !cause.message.contains("does not serve"),
        "{}",
        cause.message
    );
    // kube-proxy of today writes the rules of a node port whoever listens there.
    let remedy = cause.remediation;
    assert!(
        remedy.starts_with("On node n1, move nginx (PID 4711) to another port, or give")
            && remedy.contains("delete pod"),
        "{remedy}"
    );
    // Its name is not known.
    let mut facts = with_agents();
    node_port(&mut facts);
    gap(&mut facts, GapKind::NodePortInUse, "node port 30080/TCP", None);
    let remedy = diagnose(&facts).root_cause.unwrap().remediation;
    assert!(remedy.contains("`ss -ltnp 'sport = :30080'`"), "{remedy}");
    // An older gap: the Service has no node port any more.
    let d = lookalike(|f| gap(f, GapKind::NodePortInUse, "node port 30080/TCP", None));
    assert_eq!(stage(&d, C::ProxyRulesPresent).reason, R::Pending);
}

#[test]
fn rules_that_cannot_be_written_are_missing_for_that() {
    let failing = |f: &mut Facts| {
        proxy(f, "n1", |p| {
            p.sync_error = Some("2 of its nftables transactions have failed".into())
        });
    };
    let d = fault("rules-not-written", C::ProxyRulesPresent, R::RulesMissing, |f| {
        failing(f);
        gap(f, GapKind::Missing, "10.96.1.175:80/TCP", None);
    });
    let cause = d.root_cause.unwrap();
    assert!(
        cause.message.contains(
            "kube-proxy on node n1 fails to write rules: 2 of its nftables transactions have failed"
        ),
        "{}",
        cause.message
    );
    assert!(!cause.remediation.contains("delete pod"), "{}", cause.remediation);
    // It fails on another node than that without rules.
    let d = fault("rules-elsewhere", C::ProxyRulesPresent, R::RulesMissing, |f| {
        failing(f);
        on(f, "n2", |n| {
            let gap = crate::fixtures::gap(GapKind::Missing, "10.96.1.175:80/TCP", None);
            n.rules.as_mut().unwrap().gaps.push(gap);
        });
    });
    assert!(!d.root_cause.unwrap().message.contains("fails to write"));
    // Its rules are there.
    lookalike(failing);
}

#[test]
fn a_right_that_only_counters_tell_of_is_looked_for_among_those_it_needs() {
    let denied = |f: &mut Facts| proxy(f, "n1", |p| p.denied = Some("?".into()));
    let d = fault("denied-something", C::KubeProxyHealthy, R::APIAccessDenied, |f| {
        denied(f);
        fail_service(f, "n1", None, Answer::TimedOut);
    });
    let remedy = d.root_cause.unwrap().remediation;
    assert!(
        remedy.contains("list and watch services, nodes and endpointslices"),
        "{remedy}"
    );
    lookalike(denied);
}

/// cilium does the work, and old rules of kube-proxy hold the Service's address.
fn replaced_with_leftovers(facts: &mut Facts) {
    everywhere(facts, |n| {
        let proxy = n.kube_proxy.as_mut().unwrap();
        (proxy.process, proxy.mode) = (None, None);
        (proxy.livez, proxy.metrics) = (PortState::Closed, PortState::Closed);
        proxy.replacement = Some("cilium".into());
        n.rules.as_mut().unwrap().layout = "iptables".into();
    });
    let node = json!({ "metadata": { "name": "n1" }, "status": { "nodeInfo": { "kubeletVersion": "v1.34.2+k3s1" } } });
    facts
        .cluster_nodes
        .push(std::sync::Arc::new(object::<Node>(node)));
}

#[test]
fn old_rules_beside_what_replaced_kube_proxy() {
    let stale = |f: &mut Facts| {
        replaced_with_leftovers(f);
        gap(
            f,
            GapKind::EndpointStale,
            "10.96.1.175:80/TCP",
            Some("10.244.9.9:9376"),
        );
    };
    let d = fault("leftovers", C::ProxyRulesPresent, R::ConflictingModes, |f| {
        stale(f);
        fail_service(f, "n1", None, Answer::TimedOut);
    });
    let remedy = d.root_cause.unwrap().remediation;
    assert!(
        remedy.contains("kube-proxy:v1.34.2 -- kube-proxy --cleanup`"),
        "{remedy}"
    );
    // They are there, and do no harm.
    let d = lookalike(stale);
    let rules = stage(&d, C::ProxyRulesPresent);
    assert_eq!(rules.reason, R::ProxyReplaced);
    assert!(rules.message.contains("old rules"), "{}", rules.message);
    // They hold nothing of this Service.
    let d = lookalike(|f| {
        replaced_with_leftovers(f);
        everywhere(f, |n| n.rules = None);
    });
    assert!(!stage(&d, C::ProxyRulesPresent).message.contains("old rules"));
}

/// No kube-proxy, no rule of one, and no program that is known to do its work.
fn nothing(n: &mut NodeFacts) {
    let proxy = n.kube_proxy.as_mut().unwrap();
    (proxy.process, proxy.mode, proxy.runs_as) = (None, None, None);
    (proxy.livez, proxy.metrics) = (PortState::Closed, PortState::Closed);
    n.rules = None;
}

#[test]
fn failing_dials_alone_do_not_prove_that_nothing_replaces_kube_proxy() {
    // Every endpoint refuses: nothing follows about the way to them.
    let mut facts = with_agents();
    fail_direct(&mut facts, &[0, 1, 2], Answer::Refused);
    for node in ["n1", "n2", "n3"] {
        fail_service(&mut facts, node, None, Answer::Refused);
    }
    everywhere(&mut facts, nothing);
    let d = diagnose(&facts);
    assert_eq!(
        stage(&d, C::KubeProxyHealthy).reason,
        R::ProbeFailed,
        "{}",
        report(&d)
    );
    // The endpoints answer the very nodes that do not get to the Service.
    fault("nothing-forwards", C::KubeProxyHealthy, R::NotRunning, |f| {
        for node in ["n1", "n2", "n3"] {
            fail_service(f, node, None, Answer::TimedOut);
        }
        everywhere(f, nothing);
    });
    // It runs on the other nodes, and so has to run here.
    fault("missing-on-one", C::KubeProxyHealthy, R::NotRunning, |f| {
        on(f, "n3", |n| {
            nothing(n);
            n.dials.retain(|d| d.path == DialPath::Endpoint);
        });
    });
}

#[test]
fn remedies_follow_how_kube_proxy_is_run() {
    let remedy = |runs_as, unit: Option<&str>, process: &str| {
        let mut facts = with_agents();
        proxy(&mut facts, "n1", |p| {
            (p.runs_as, p.unit) = (runs_as, unit.map(str::to_owned));
            p.process = Some(process.to_owned());
        });
        gap(&mut facts, GapKind::Missing, "10.96.1.175:80/TCP", None);
        diagnose(&facts).root_cause.unwrap().remediation
    };
    let pod = remedy(Some(RunsAs::Pod), None, "kube-proxy");
    assert!(pod.contains("delete pod -l k8s-app=kube-proxy"), "{pod}");
    let other = [
        remedy(Some(RunsAs::StaticPod), None, "kube-proxy"),
        remedy(Some(RunsAs::Unit), Some("kube-proxy.service"), "kube-proxy"),
        remedy(Some(RunsAs::Unit), Some("k3s-agent.service"), "k3s"),
        remedy(None, None, "kube-proxy"),
    ];
    for text in &other {
        assert!(!text.contains("delete pod"), "{text}");
    }
    let [static_pod, own_unit, carrier, _] = &other;
    assert!(static_pod.contains("crictl stop"), "{static_pod}");
    assert!(
        own_unit.contains("`systemctl restart kube-proxy.service`"),
        "{own_unit}"
    );
    assert!(
        carrier.contains("`journalctl -u k3s-agent.service -n 200`")
            && !carrier.contains("systemctl restart"),
        "{carrier}"
    );
}
