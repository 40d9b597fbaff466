//! A rule at which every packet ends is blamed, unless others got past it.

use super::*;

fn end(hook: &str, chain: &str, rejects: bool) -> DeadEndRule {
    DeadEndRule {
        hook: hook.into(),
        chain: chain.into(),
        rejects,
    }
}

#[test]
fn a_rule_at_which_every_packet_ends_is_named() {
    let d = fault(C::EndpointsReachable, R::NoRouteToHost, |f| {
        on(f, "n1", |n| {
            n.settings.dead_ends = vec![end("FORWARD", "FORWARD", true)]
        });
        fail_from_clients(f, &[1, 2], Answer::Unreachable);
        fail_service(f, "n1", Some(CLIENT), Answer::Unreachable);
    });
    assert!(
        says(&d, "A rule in chain FORWARD on node n1 rejects all it gets"),
        "{}",
        report(&d)
    );
    let d = fault(C::ProxyForwards, R::TimedOut, |f| {
        on(f, "n1", |n| {
            n.settings.dead_ends = vec![end("OUTPUT", "KUBE-FIREWALL", false)]
        });
        fail_service(f, "n1", None, Answer::TimedOut);
        on(f, "n1", |n| {
            n.dials
                .retain(|d| d.from.is_some() || d.path != DialPath::Endpoint)
        });
    });
    assert!(
        says(&d, "chain KUBE-FIREWALL (reached from OUTPUT) on node n1 drops"),
        "{}",
        report(&d)
    );
    let remediation = d.root_cause.unwrap().remediation;
    assert!(
        remediation.contains("two iptables versions") && !remediation.contains("accept"),
        "{remediation}"
    );
}

#[test]
fn a_rule_that_others_got_past_is_not_to_blame() {
    let d = fault(C::EndpointsReachable, R::CrossNodeUnreachable, |f| {
        on(f, "n1", |n| {
            n.settings.dead_ends = vec![end("FORWARD", "FORWARD", false)]
        });
        lost(f, &[1, 2]);
    });
    assert!(!says(&d, "all it gets"), "{}", report(&d));
}
