//! What kube-proxy's log and its rules tell of kube-proxy itself, each beside the same text where it does no harm.

use svcdiag::api::{ConditionType as C, Reason as R};

use super::{contradictory::LOG, page::*};

const CURL: &str = "nodes/node-1/curl.txt";
const SERVERS: &str = "nodes/node-1/ipvsadm.txt";

/// The log, and behind it a line of kube-proxy.
fn logs(page: &mut Page, mode: &str, line: &str) {
    page.set(
        LOG,
        &format!(
            "{}E1027 22:15:10.000000    5063 {line}\n",
            PROXY_LOG.replace("MODE", mode)
        ),
    );
}

fn remedy(d: &svcdiag::engine::Diagnosis) -> &str {
    &d.root_cause.as_ref().unwrap().remediation
}

#[test]
fn rules_that_cannot_be_written() {
    let line = r#"proxier.go:1484] "Failed to execute iptables-restore" err="exit status 2 (Bad argument)""#;
    let d = fails(Mode::Iptables, C::KubeProxyHealthy, R::NotSyncing, |page| {
        logs(page, "iptables", line);
        page.set(
            "nodes/node-1/iptables-save.txt",
            "u@node$ iptables-save | grep hostnames\n",
        );
        page.set(CURL, REFUSED_CURL);
    });
    let cause = d.root_cause.as_ref().unwrap();
    assert!(
        cause
            .message
            .contains("iptables-restore: exit status 2 (Bad argument)"),
        "{}",
        cause.message
    );
    assert!(!cause.remediation.contains("delete pod"), "{}", cause.remediation);
    // It failed once, and the rules are there.
    unblamed(Mode::Iptables, |page| logs(page, "iptables", line));
}

#[test]
fn a_right_that_is_denied() {
    let denied = |what: &str| {
        format!(
            "reflector.go:127] Failed to watch *v1.EndpointSlice: failed to list: {what} is forbidden: User \"system:kube-proxy\" cannot list resource \"{}\" in API group \"{}\" at the cluster scope",
            what.split('.').next().unwrap(),
            what.split_once('.').map_or("", |(_, group)| group),
        )
    };
    let d = fails(Mode::Iptables, C::KubeProxyHealthy, R::APIAccessDenied, |page| {
        logs(page, "iptables", &denied("endpointslices.discovery.k8s.io"));
        page.set(CURL, REFUSED_CURL);
    });
    let message = &d.root_cause.as_ref().unwrap().message;
    assert!(
        message.contains("to list endpointslices.discovery.k8s.io (403 Forbidden)"),
        "{message}"
    );
    unblamed(Mode::Iptables, |page| {
        logs(page, "iptables", &denied("endpointslices.discovery.k8s.io"));
    });
    // What it works without is not why the Service fails.
    let d = fails(Mode::Iptables, C::ProxyForwards, R::ConnectionRefused, |page| {
        logs(page, "iptables", &denied("servicecidrs.networking.k8s.io"));
        page.set(CURL, REFUSED_CURL);
    });
    assert!(!report(&d).contains("servicecidrs"));
}

#[test]
fn virtual_servers_of_weight_zero() {
    let d = fails(Mode::Ipvs, C::ProxyRulesPresent, R::EndpointsDrained, |page| {
        for last in [5, 6, 7] {
            let server = format!("10.244.0.{last}:9376               Masq    1");
            page.edit(SERVERS, &server, &server.replace("Masq    1", "Masq    0"));
        }
        page.set(CURL, REFUSED_CURL);
    });
    assert!(
        remedy(&d).contains("`ipvsadm -e -t 10.0.1.175:80 -r 10.244.0.5:9376 -m -w 1`"),
        "{}",
        remedy(&d)
    );
    // One that is being drained beside those that take connections.
    let gone = "  -> 10.244.0.9:9376               Masq    0      1          0\n";
    let drained = VIRTUAL_SERVERS.to_owned() + gone;
    unblamed(Mode::Ipvs, |page| page.set(SERVERS, &drained));
    // Clients come back to it.
    let persistent = drained.replace("10.0.1.175:80 rr", "10.0.1.175:80 rr persistent 10800");
    let d = fails(
        Mode::Ipvs,
        C::ProxyRulesPresent,
        R::StaleEndpointInRules,
        |page| {
            page.set(SERVERS, &persistent);
            page.set(
                CURL,
                &REFUSED_CURL.replace(
                    "(7) Failed to connect to 10.0.1.175 port 80: Connection refused",
                    "(28) Connection timed out after 5001 milliseconds",
                ),
            );
        },
    );
    assert!(report(&d).contains("10.244.0.9:9376"), "{}", report(&d));
    unblamed(Mode::Ipvs, |page| page.set(SERVERS, &persistent));
}

#[test]
fn leftovers_of_iptables_beside_virtual_servers() {
    let refuses = |address: &str| {
        format!(
            "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\nCOMMIT\n\
             *filter\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A FORWARD -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n\
             -A KUBE-SERVICES -d {address}/32 -p tcp -m comment --comment \"default/hostnames: has no endpoints\" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n"
        )
    };
    let save = "nodes/node-1/iptables-save.txt";
    let d = fails(Mode::Ipvs, C::ProxyRulesPresent, R::ConflictingModes, |page| {
        page.set(save, &refuses("10.0.1.175"));
        page.set(CURL, REFUSED_CURL);
    });
    assert!(
        remedy(&d).contains("`iptables-nft -w -t filter -F KUBE-SERVICES`"),
        "{}",
        remedy(&d)
    );
    unblamed(Mode::Ipvs, |page| page.set(save, &refuses("10.0.1.99")));
}

#[test]
fn a_listing_without_the_table_of_nftables_mode() {
    let listing = "# nft list ruleset\ntable ip mangle {\n\tchain KUBE-IPTABLES-HINT {\n\t}\n}\n";
    let nftables = |page: &mut Page| {
        page.files
            .retain(|(path, _)| !path.ends_with("iptables-save.txt") && path != LOG);
        page.set("nodes/node-1/nft.txt", listing);
        page.set("nodes/node-1/proxymode.txt", "nftables");
    };
    fails(Mode::Iptables, C::ProxyRulesPresent, R::RulesMissing, |page| {
        nftables(page);
        page.set(CURL, REFUSED_CURL);
    });
    // In another mode it says nothing.
    unblamed(Mode::Iptables, |page| {
        nftables(page);
        page.set("nodes/node-1/proxymode.txt", "iptables");
    });
}
