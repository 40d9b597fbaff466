//! Faults as people report them, in the wordings of many versions, each beside what looks like it and is right.

use serde_json::json;
use svcdiag::api::{ConditionStatus, ConditionType as C, Reason as R};

use super::{contradictory::LOG, page::*};

const CURL: &str = "nodes/node-1/curl.txt";
const SAVE: &str = "nodes/node-1/iptables-save.txt";
const PS: &str = "nodes/node-1/ps-kube-proxy.txt";
const LOOKUPS: &str = "pods/default/alpine/nslookup.txt";
const REQUESTS: &str = "pods/default/alpine/wget.txt";

fn message(d: &svcdiag::engine::Diagnosis, condition: C) -> String {
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
        // Its Pod has started again, and the Service suffers for another reason.
        let mut page = Page::new(Mode::Iptables);
        let mut proxy = pod("kube-system", "kube-proxy-x7l", "10.240.0.7", "x");
        proxy["metadata"]["labels"] = json!({ "k8s-app": "kube-proxy" });
        page.objects.push(list("PodList", &[proxy]));
        page.files.retain(|(path, _)| path != PS);
        page.set(LOG, &log);
        page.set(SAVE, "u@node$ iptables-save | grep hostnames\n");
        page.set(CURL, REFUSED_CURL);
        let d = page.judge();
        let cause = d.root_cause.as_ref().unwrap();
        assert_ne!(cause.reason, R::NotRunning.as_str(), "{}", report(&d));
        // The log is of an earlier run: the Service works, or kube-proxy is there.
        let (_, told) = unblamed(Mode::Iptables, |page| {
            page.files.retain(|(path, _)| path != PS);
            page.set(LOG, &log);
        });
        assert!(told.contains("it may have been started again"), "{told}");
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
        said.contains("is an alias for db.gone.example: look that up"),
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

/// What the client got, before it looked names up as it should.
fn requests(page: &mut Page, text: &str) {
    page.set("pods/default/alpine/curl.txt", text);
}

const LATE: &str = "u@pod$ curl -m 5 10.0.1.175\ncurl: (28) Connection timed out after 5001 milliseconds\n";
const GOOD: &str = "u@pod$ curl -m 5 10.0.1.175\nhostnames-0uton\n";

#[test]
fn some_requests_through_the_service_are_lost() {
    let d = fails(
        Mode::Iptables,
        C::ServiceReachable,
        R::PartiallyReachable,
        |page| {
            requests(page, &[LATE, GOOD, LATE, GOOD].concat());
        },
    );
    let cause = d.root_cause.as_ref().unwrap();
    assert!(
        cause.message.contains("2 of 4 requests") && cause.message.contains("3 endpoints"),
        "{}",
        cause.message
    );
    // What failed first was fixed before it was asked again.
    unblamed(Mode::Iptables, |page| {
        requests(page, &[LATE, LATE, GOOD, GOOD].concat())
    });
    // One is late among many.
    let many = [LATE, &GOOD.repeat(9)].concat();
    unblamed(Mode::Iptables, |page| requests(page, &many));
    // The client is an endpoint, and may have met itself.
    let (d, _) = unblamed(Mode::Iptables, |page| {
        page.set(
            "pods/default/hostnames-0uton/curl.txt",
            &[LATE, GOOD, LATE, GOOD].concat(),
        );
        page.files
            .retain(|(path, _)| !path.ends_with("ifconfig.txt") && !path.ends_with("kubelet.log"));
    });
    let said = message(&d, C::HairpinOK);
    assert!(
        said.contains("2 of 4 requests of Pod default/hostnames-0uton"),
        "{said}"
    );
}

#[test]
fn large_answers_that_do_not_come() {
    const SMALL: &str = "u@pod$ curl -s http://10.244.1.7:9376/health\nok\n";
    const LARGE: &str = "u@pod$ curl -s -o /dev/null -m 10 http://10.244.1.7:9376/big\ncurl: (28) Operation timed out after 10000 milliseconds with CAME bytes received\n";
    let twice = |first: &str, second: &str| {
        [
            LARGE.replace("CAME", first),
            SMALL.to_owned(),
            LARGE.replace("CAME", second),
        ]
        .concat()
    };
    let d = fails(Mode::Iptables, C::EndpointsReachable, R::TimedOut, |page| {
        requests(page, &twice("0", "1388 out of 20480"));
    });
    let cause = d.root_cause.as_ref().unwrap();
    assert!(
        cause.message.contains("MTU") && cause.message.contains("1388 of 20480 bytes"),
        "{}",
        cause.message
    );
    // A large answer is slow and comes, or would have come.
    let came =
        format!("{SMALL}u@pod$ curl -s -o /dev/null -w '%{{http_code}}' http://10.244.1.7:9376/big\n200\n");
    for text in [
        came,
        twice("52428800 out of 1073741824", "73400320 out of 1073741824"),
    ] {
        unblamed(Mode::Iptables, |page| requests(page, &text));
    }
}

#[test]
fn a_download_that_takes_longer_than_there_is_time_for_was_answered() {
    let slow = |target: &str| {
        format!(
            "u@pod$ curl -m 5 -i -o big http://{target}/big.iso\nHTTP/1.1 200 OK\n\ncurl: (28) Operation timed out after 5001 milliseconds with 734003200 out of 4700000000 bytes received\n"
        )
    };
    for target in ["10.0.1.175", "10.244.1.7:9376"] {
        unblamed(Mode::Iptables, |page| requests(page, &slow(target)));
    }
}

#[test]
fn nobody_answers_where_a_proxy_does_or_the_connection_is_closed() {
    let envoy = "u@pod$ curl http://10.0.1.175\nupstream connect error or disconnect/reset before headers. reset reason: connection failure, transport failure reason: delayed connect error: 111\n";
    let d = fails(
        Mode::Iptables,
        C::ServiceReachable,
        R::UnexpectedResponse,
        |page| {
            let status = "u@pod$ curl -s -o /dev/null -w '%{http_code}' http://10.0.1.175\n503\n";
            requests(page, &[envoy, status].concat());
        },
    );
    let cause = d.root_cause.as_ref().unwrap();
    assert!(
        cause.message.contains("a proxy (Envoy) says:") && cause.remediation.contains("proxy"),
        "{} {}",
        cause.message,
        cause.remediation
    );
    // An application says 503 of itself.
    unblamed(Mode::Iptables, |page| {
        requests(
            page,
            "u@pod$ curl -i http://10.0.1.175\nHTTP/1.1 503 Service Unavailable\n\nin maintenance\n",
        );
    });
    let closed = "u@pod$ curl http://10.0.1.175\ncurl: (52) Empty reply from server\n";
    let named = |page: &mut Page, name: &str| {
        page.objects[0]["items"][0]["spec"]["ports"][0]["name"] = json!(name);
        page.objects[1]["items"][0]["subsets"][0]["ports"][0]["name"] = json!(name);
        page.files.retain(|(path, _)| path != SAVE && path != CURL);
        requests(page, closed);
    };
    fails(
        Mode::Iptables,
        C::ServiceReachable,
        R::UnexpectedResponse,
        |page| named(page, "http"),
    );
    // What speaks no HTTP closes as well.
    let (d, told) = unblamed(Mode::Iptables, |page| named(page, "mysql"));
    assert!(told.contains("closes it without a response"), "{told}");
    let (_, finding) = d.stages.iter().find(|(c, _)| *c == C::ServiceReachable).unwrap();
    assert_eq!(finding.status(), ConditionStatus::Unknown, "{}", report(&d));
}

#[test]
fn a_port_that_the_service_does_not_list() {
    let wrong =
        "u@pod$ curl -m 5 http://10.0.1.175:8080\ncurl: (28) Connection timed out after 5001 milliseconds\n";
    let d = fails(Mode::Iptables, C::DefinitionValid, R::PortNotListed, |page| {
        page.files.retain(|(path, _)| path != CURL);
        requests(page, wrong);
    });
    let cause = d.root_cause.as_ref().unwrap();
    assert!(cause.message.contains("10.0.1.175:8080"), "{}", cause.message);
    // Somebody mistyped, and then did not.
    unblamed(Mode::Iptables, |page| requests(page, &[wrong, GOOD].concat()));
}

#[test]
fn time_that_runs_out_behind_the_connection_is_no_firewalls_doing() {
    let tls = "u@pod$ curl -vk --max-time 10 http://10.0.1.175/\n*   Trying 10.0.1.175:80...\n* Connected to 10.0.1.175 (10.0.1.175) port 80\n* TLSv1.3 (OUT), TLS handshake, Client hello (1):\n* SSL connection timeout\n* Closing connection\ncurl: (28) SSL connection timeout\n";
    let d = fails(Mode::Iptables, C::ServiceReachable, R::TimedOut, |page| {
        requests(page, tls)
    });
    let cause = d.root_cause.as_ref().unwrap();
    assert!(
        cause.message.contains("Connects but times out") && !cause.remediation.contains("firewall"),
        "{} {}",
        cause.message,
        cause.remediation
    );
}
