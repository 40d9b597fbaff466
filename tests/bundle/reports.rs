//! Faults as people report them, in the wordings of many versions, each beside what looks like it and is right.

use serde_json::json;
use svcdiag::api::{ConditionStatus, ConditionType as C, Reason as R};

use super::{contradictory::LOG, page::*};

const CURL: &str = "nodes/node-1/curl.txt";
const SAVE: &str = "nodes/node-1/iptables-save.txt";
const PS: &str = "nodes/node-1/ps-kube-proxy.txt";
const LOOKUPS: &str = "pods/default/alpine/nslookup.txt";
const REQUESTS: &str = "pods/default/alpine/wget.txt";

fn message(d: &svcdiag::diagnosis::Diagnosis, condition: C) -> String {
    let (_, finding) = d.stages.iter().find(|(c, _)| *c == condition).unwrap();
    finding.message.clone()
}

#[test]
fn a_kube_proxy_that_ended() {
    for (line, why) in [
        (
            r#"E1120 08:12:03.520331       1 run.go:72] "command failed" err="kube-proxy in nftables mode requires kernel 5.13 or later""#,
            "requires kernel 5.13",
        ),
        (
            r#"E1120 08:12:03.520331       1 server.go:494] "Error running ProxyServer" err="open /proc/sys/net/netfilter/nf_conntrack_max: permission denied""#,
            "permission denied",
        ),
        (
            "F1120 08:12:03.520331       1 server.go:490] unable to create proxier: can't set sysctl net/ipv4/conf/all/route_localnet",
            "route_localnet",
        ),
    ] {
        let log = format!("{}{line}\n", PROXY_LOG.replace("MODE", "iptables"));
        let d = fails(Mode::Iptables, C::KubeProxyHealthy, R::NotRunning, |page| {
            page.files.retain(|(path, _)| path != PS);
            page.set(LOG, &log);
            page.set(SAVE, "u@node$ iptables-save | grep hostnames\n");
            page.set(CURL, REFUSED_CURL);
        });
        let cause = d.root_cause.as_ref().unwrap();
        assert!(cause.message.contains(why), "{}", cause.message);
        // The log is of an earlier run: the Service works, or kube-proxy is there.
        let (_, told) = unblamed(Mode::Iptables, |page| {
            page.files.retain(|(path, _)| path != PS);
            page.set(LOG, &log);
        });
        assert!(told.contains("whether that was its last run"), "{told}");
        unblamed(Mode::Iptables, |page| page.set(LOG, &log));
        // It has started again since.
        let again = format!("{log}{}", PROXY_LOG.replace("MODE", "iptables"));
        let (_, told) = unblamed(Mode::Iptables, |page| {
            page.files.retain(|(path, _)| path != PS);
            page.set(LOG, &again);
        });
        assert!(!told.contains("last run"), "{told}");
    }
}

/// The Service as an alias.
fn alias(page: &mut Page) {
    let mut service = service();
    service["spec"] = json!({ "type": "ExternalName", "externalName": "db.gone.example." });
    page.objects[0] = list("ServiceList", &[service]);
    page.files
        .retain(|(path, _)| [LOOKUPS, "pods/default/alpine/resolv.conf"].contains(&path.as_str()));
}

const CONTROL: &str = "
u@pod$ nslookup kubernetes.default
Server:         10.0.0.10
Address:        10.0.0.10#53

Name:   kubernetes.default.svc.cluster.local
Address: 10.0.0.1
";

#[test]
fn an_alias_of_a_name_that_is_gone() {
    const SERVER: &str = "Server:\t\t10.0.0.10\nAddress:\t10.0.0.10#53\n\n";
    let by_bind = format!(
        "u@pod$ nslookup hostnames\n{SERVER}hostnames.default.svc.cluster.local\tcanonical name = db.gone.example.\n** server can't find db.gone.example: NXDOMAIN\n"
    );
    let by_chain = by_bind.replace(
        "** server can't find db.gone.example",
        "db.gone.example\tcanonical name = db.old.example.\n** server can't find db.old.example",
    );
    let by_busybox = "u@pod$ nslookup hostnames.default.svc.cluster.local\nServer:\t\t10.0.0.10\nAddress:\t10.0.0.10:53\n\n** server can't find hostnames.default.svc.cluster.local: NXDOMAIN\n\nu@pod$ nslookup db.gone.example\nServer:\t\t10.0.0.10\nAddress:\t10.0.0.10:53\n\n** server can't find db.gone.example: NXDOMAIN\n".to_owned();
    let by_host = "u@pod$ host hostnames\nhostnames.default.svc.cluster.local is an alias for db.gone.example.\nHost db.gone.example not found: 3(NXDOMAIN)\n".to_owned();
    for text in [&by_bind, &by_chain, &by_busybox, &by_host] {
        let d = fails(Mode::Iptables, C::DNSResolves, R::ExternalNameNotFound, |page| {
            alias(page);
            page.set(LOOKUPS, &format!("{text}{CONTROL}"));
        });
        let cause = d.root_cause.as_ref().unwrap();
        assert!(cause.message.contains("db.gone.example"), "{}", cause.message);
    }
    // It is there, or has no address of the kind that was asked for.
    let found = by_bind.replace(
        "** server can't find db.gone.example: NXDOMAIN",
        "Name:\tdb.gone.example\nAddress: 192.0.2.7",
    );
    let other_kind = by_bind.replace(
        "** server can't find db.gone.example: NXDOMAIN",
        "*** Can't find db.gone.example.elsewhere: No answer",
    );
    for text in [found, other_kind] {
        unblamed(Mode::Iptables, |page| {
            alias(page);
            page.set(LOOKUPS, &format!("{text}{CONTROL}"));
        });
    }
    // busybox shows the name that was asked for: what it stands for has to be looked up, too.
    let (d, _) = unblamed(Mode::Iptables, |page| {
        alias(page);
        let first = by_busybox.split("\n\nu@pod$").next().unwrap();
        page.set(LOOKUPS, &format!("{first}\n{CONTROL}"));
    });
    let said = message(&d, C::DNSResolves);
    assert!(
        said.contains("stands for db.gone.example: look that up"),
        "{said}"
    );
}

#[test]
fn a_pod_that_asks_its_node_says_so() {
    let of_node = "u@pod$ nslookup hostnames\nServer:\t\t192.168.50.1\nAddress:\t192.168.50.1#53\n\n** server can't find hostnames: NXDOMAIN\n";
    let (d, _) = unblamed(Mode::Iptables, |page| {
        page.set(LOOKUPS, of_node);
        for object in &mut page.objects {
            for pod in object["items"].as_array_mut().into_iter().flatten() {
                if pod["metadata"]["name"] == "alpine" {
                    pod["spec"]["dnsPolicy"] = json!("Default");
                }
            }
        }
    });
    let (_, finding) = d.stages.iter().find(|(c, _)| *c == C::DNSResolves).unwrap();
    assert_eq!(finding.status(), ConditionStatus::Unknown);
    assert!(
        finding.message.contains("dnsPolicy is Default")
            && !finding.message.contains("No name was looked up"),
        "{}",
        finding.message
    );
}

#[test]
fn the_config_map_of_cluster_dns_is_called_what_it_is_called() {
    let none = |name: &str| {
        format!(
            "u@pod$ nslookup {name}\nServer:\t\t10.0.0.10\nAddress:\t10.0.0.10#53\n\n** server can't find {name}: NXDOMAIN\n\n"
        )
    };
    let remedy = |config_map: Option<&str>| {
        let d = fails(Mode::Iptables, C::DNSResolves, R::ClusterDomainMismatch, |page| {
            page.files.retain(|(path, _)| path != "nodes/node-1/nslookup.txt");
            page.set(
                LOOKUPS,
                &[
                    "hostnames",
                    "hostnames.default.svc.cluster.local",
                    "kubernetes.default",
                ]
                .map(none)
                .concat(),
            );
            page.objects.extend(config_map.map(|name| {
                json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": name, "namespace": "kube-system" },
                    "data": { "Corefile": ".:53 {\n  kubernetes k8s.corp in-addr.arpa ip6.arpa {\n  }\n}\n" } })
            }));
        });
        d.root_cause.unwrap().remediation
    };
    let named = remedy(Some("rke2-coredns-rke2-coredns"));
    assert!(
        named.contains("get configmap rke2-coredns-rke2-coredns -o yaml"),
        "{named}"
    );
    let unnamed = remedy(None);
    assert!(!unnamed.contains("coredns"), "{unnamed}");
}

#[test]
fn what_is_wrong_with_a_file_is_told_where_it_matters() {
    let (d, told) = unblamed(Mode::Iptables, |page| {
        page.files.retain(|(path, _)| path == REQUESTS);
        page.set(REQUESTS, "It does not work.\n");
    });
    assert!(told.contains("wget.txt"), "{told}");
    let naming: Vec<C> = d
        .stages
        .iter()
        .filter(|(_, finding)| finding.message.contains("wget.txt: line 1"))
        .map(|(condition, _)| *condition)
        .collect();
    assert_eq!(naming, [C::EndpointsReachable], "{}", report(&d));
}
