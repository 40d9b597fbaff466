//! Is kube-proxy running? Each fault, and beside it its lookalikes, of which nothing may be False.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{Answer, ConditionType as C, DialPath, GapKind, PortState, Reason as R, RunsAs};
use svcdiag_engine::{Facts, Saved, diagnose};

use crate::{agents::*, fixtures::*, report::*, walkthrough::*};

#[test]
fn n06_no_kube_proxy_on_a_node() {
    let d = fault("N06", C::KubeProxyHealthy, R::NotRunning, |f| on(f, "n2", gone));
    assert_eq!(impact(&d), "Some");
}

#[test]
fn n06_no_kube_proxy_where_something_else_does_its_work() {
    let without = |f: &mut Facts, replacement: Option<&str>| {
        everywhere(f, |n| {
            let proxy = n.kube_proxy.as_mut().unwrap();
            proxy.process = None;
            proxy.livez = PortState::Closed;
            proxy.metrics = PortState::Closed;
            proxy.mode = None;
            proxy.replacement = replacement.map(str::to_owned);
            n.rules = None;
        });
    };
    let d = works(|f| without(f, Some("cilium")));
    assert_eq!(stage(&d, C::KubeProxyHealthy).reason, R::ProxyReplaced);
    assert_eq!(stage(&d, C::ProxyRulesPresent).reason, R::ProxyReplaced);
    assert_eq!(
        (d.proxy_mode.as_deref(), d.summary.proxy.as_str()),
        (Some("cilium"), "cilium")
    );
    // One whose program is not known: the Service answers though there are no rules.
    let d = works(|f| without(f, None));
    assert_eq!(stage(&d, C::KubeProxyHealthy).reason, R::ProxyReplaced);
    // Where the processes could not be listed, an absent one proves nothing.
    lookalike(|f| {
        on(f, "n1", |n| {
            let proxy = n.kube_proxy.as_mut().unwrap();
            proxy.process = None;
            proxy.livez = PortState::Closed;
            proxy.metrics = PortState::Closed;
            proxy.processes_unread = true;
        });
    });
    works(|f| everywhere(f, |n| n.kube_proxy.as_mut().unwrap().process = Some("k3s".into())));
    // k3s that was told to leave kube-proxy out.
    for replacement in [Some("cilium"), None] {
        let d = works(|f| {
            without(f, replacement);
            everywhere(f, |n| n.kube_proxy.as_mut().unwrap().process = Some("k3s".into()));
        });
        assert_eq!(stage(&d, C::KubeProxyHealthy).reason, R::ProxyReplaced);
        assert_eq!(stage(&d, C::ProxyRulesPresent).reason, R::ProxyReplaced);
    }
    // Rules of the time before are left.
    let d = works(|f| {
        add_gap(f, GapKind::Missing, None);
        everywhere(f, |n| {
            let proxy = n.kube_proxy.as_mut().unwrap();
            proxy.process = Some("k3s".into());
            proxy.replacement = Some("cilium".into());
            proxy.livez = PortState::Closed;
            proxy.metrics = PortState::Closed;
        });
    });
    assert_eq!(stage(&d, C::ProxyRulesPresent).reason, R::ProxyReplaced);
}

#[test]
fn n06_nothing_tells_what_does_kube_proxys_work() {
    // Over UDP silence is no answer.
    let d = lookalike(|f| {
        udp(f);
        look(f);
        nothing_of_kube_proxy(f);
    });
    assert_eq!(stage(&d, C::KubeProxyHealthy).reason, R::ProbeFailed);
    // From nodes such a Service is not dialled.
    let d = lookalike(|f| {
        service(f, json!({ "spec": { "selector": null } }));
        for endpoint in &mut Arc::make_mut(&mut f.slices[0]).endpoints {
            endpoint.target_ref = None;
        }
        look(f);
        nothing_of_kube_proxy(f);
    });
    assert_eq!(stage(&d, C::KubeProxyHealthy).reason, R::ProbeFailed);
    // A Local policy leaves a node without an endpoint.
    lookalike(|f| {
        service(f, json!({ "spec": { "internalTrafficPolicy": "Local" } }));
        look(f);
        nothing_of_kube_proxy(f);
        on(f, "n3", |n| n.dials.retain(|d| d.path != DialPath::Service));
    });
}

#[test]
fn n07_kube_proxy_hangs() {
    fault("N07", C::KubeProxyHealthy, R::NotLive, |f| {
        on(f, "n1", |n| {
            n.kube_proxy.as_mut().unwrap().livez = PortState::Silent
        });
    });
}

#[test]
fn n07_n08_closed_ports_prove_nothing() {
    works(|f| {
        everywhere(f, |n| {
            let proxy = n.kube_proxy.as_mut().unwrap();
            proxy.livez = PortState::Closed;
            proxy.metrics = PortState::Closed;
            proxy.mode = None;
        });
    });
}

#[test]
fn n07_n14_leftovers_of_another_mode_beside_a_kube_proxy_that_does_not_tell_its_own() {
    // Two layouts have traces, so that the agents compare neither.
    for livez in [PortState::Ok, PortState::Closed] {
        let d = lookalike(|f| {
            everywhere(f, |n| {
                let proxy = n.kube_proxy.as_mut().unwrap();
                proxy.metrics = PortState::Closed;
                proxy.livez = livez;
                proxy.mode = None;
                n.rules = None;
            });
        });
        assert_eq!(stage(&d, C::KubeProxyHealthy).reason, R::Running);
        assert_eq!(stage(&d, C::ProxyRulesPresent).reason, R::ProbeFailed);
        assert_eq!(stage(&d, C::ProxyForwards).reason, R::Forwards);
    }
}

#[test]
fn n08_kube_proxy_applies_nothing_new() {
    fault("N08", C::KubeProxyHealthy, R::NotSyncing, |f| {
        on(f, "n1", |n| n.kube_proxy.as_mut().unwrap().not_syncing = true);
    });
    fault("N08-livez", C::KubeProxyHealthy, R::NotSyncing, |f| {
        everywhere(f, |n| n.kube_proxy.as_mut().unwrap().livez = PortState::Failing);
    });
}

#[test]
fn n34_kube_proxy_is_dead_and_its_rules_are_gone() {
    let d = fault("N34", C::KubeProxyHealthy, R::NotRunning, |f| {
        on(f, "n1", gone);
        on(f, "n1", |n| n.rules = None);
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
        fail_service(f, "n1", None, Answer::TimedOut);
    });
    assert_eq!(impact(&d), "All");
}

#[test]
fn n44_kube_proxy_cannot_reach_the_api_server() {
    fault("N44", C::KubeProxyHealthy, R::APIServerUnreachable, |f| {
        on(f, "n1", |n| n.kube_proxy.as_mut().unwrap().api_unreachable = true);
    });
}

/// The root cause's message and remediation.
fn said(diagnosis: svcdiag_engine::Diagnosis) -> (String, String) {
    let cause = diagnosis.root_cause.unwrap();
    (cause.message, cause.remediation)
}

#[track_caller]
fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn n08_each_node_is_told_its_own_error() {
    let error = |f: &mut Facts, node: &str, error: Option<&str>| {
        on(f, node, |n| {
            let proxy = n.kube_proxy.as_mut().unwrap();
            proxy.not_syncing = true;
            proxy.sync_error = error.map(str::to_owned);
        });
    };
    let (message, remediation) = said(fault("N08-errors", C::KubeProxyHealthy, R::NotSyncing, |f| {
        error(f, "n1", Some("iptables-restore has failed 3 times"));
        error(f, "n2", None);
        error(f, "n3", Some("iptables-restore has failed 3 times"));
    }));
    assert_contains(
        &message,
        &[
            "kube-proxy on nodes n1 and n3 fails to write its rules: iptables-restore",
            "kube-proxy on node n2 is not writing its rules",
        ],
    );
    assert_contains(
        &remediation,
        &["Then restart kube-proxy on node n2", "Do the same on node n3."],
    );
    // The error of a node that writes its rules again is not told.
    let mut facts = with_agents();
    error(&mut facts, "n1", None);
    on(&mut facts, "n2", |n| {
        n.kube_proxy.as_mut().unwrap().sync_error = Some("iptables-restore has failed 1 times".into())
    });
    let (message, _) = said(diagnose(&facts));
    assert!(
        !message.contains("n2") && !message.contains("restore"),
        "{message}"
    );
}

#[test]
fn n06_a_kube_proxy_that_exited_is_told_apart_from_one_that_is_not_there() {
    let (message, remediation) = said(fault("N06-exited", C::KubeProxyHealthy, R::NotRunning, |f| {
        for (node, name) in [("n1", Some("n1.example")), ("n2", None)] {
            let report = f.nodes.iter_mut().find(|n| *n.name == *node).unwrap();
            report.saved = Some(Box::new(Saved {
                proxy_exit: Some("F0101 node not found".into()),
                ..Saved::default()
            }));
            on(f, node, |n| {
                n.kube_proxy.as_mut().unwrap().node_name = name.map(str::to_owned)
            });
        }
        on(f, "n3", gone);
    }));
    assert_contains(
        &message,
        &[
            "kube-proxy on nodes n1 and n2 has exited",
            "kube-proxy is not running on node n3",
        ],
    );
    assert_contains(
        &remediation,
        &[
            "On node n2, fix what the quoted line names",
            "On node n1, kube-proxy looks for a Node named n1.example: run it with --hostname-override=n1,",
            "Find out why the Pod of kube-proxy on node n3 does not run",
        ],
    );
    assert!(!remediation.contains("--hostname-override=n2"), "{remediation}");
}

#[test]
fn n07_each_way_to_run_kube_proxy_has_its_command() {
    let (_, remediation) = said(fault("N07-ways", C::KubeProxyHealthy, R::NotLive, |f| {
        everywhere(f, |n| n.kube_proxy.as_mut().unwrap().livez = PortState::Silent);
        on(f, "n2", |n| {
            let proxy = n.kube_proxy.as_mut().unwrap();
            (proxy.runs_as, proxy.unit) = (Some(RunsAs::Unit), Some("kube-proxy.service".into()));
        });
    }));
    let (in_pods, unit) = remediation.split_once("Do the same on node n3.").unwrap();
    assert!(
        in_pods.contains("delete pod -l k8s-app=kube-proxy"),
        "{remediation}"
    );
    assert!(
        unit.contains("restart kube-proxy on node n2: `systemctl restart kube-proxy.service`"),
        "{remediation}"
    );
}

#[test]
fn n08_each_node_is_told_what_it_may_not_do() {
    let denied = |f: &mut Facts, node: &str, right: &str| {
        on(f, node, |n| {
            n.kube_proxy.as_mut().unwrap().denied = Some(right.into())
        });
    };
    let (message, _) = said(fault(
        "denied-rights",
        C::KubeProxyHealthy,
        R::APIAccessDenied,
        |f| {
            denied(f, "n1", "list endpointslices.discovery.k8s.io");
            denied(f, "n2", "watch services");
            denied(f, "n3", "watch nodes");
            fail_service(f, "n1", None, Answer::TimedOut);
            fail_service(f, "n2", None, Answer::TimedOut);
        },
    ));
    assert_contains(
        &message,
        &[
            "on node n1 to list endpointslices",
            "on node n2 to watch services",
        ],
    );
    // Nothing suffers on the third.
    assert!(!message.contains("n3"), "{message}");
}
