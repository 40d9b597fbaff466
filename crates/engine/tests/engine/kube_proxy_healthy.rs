//! Is kube-proxy running? Each fault, and beside it its lookalikes, of which nothing may be False.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{Answer, ConditionType as C, DialPath, GapKind, PortState, Reason as R};
use svcdiag_engine::Facts;

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
