//! The walk-through works in all three modes of kube-proxy, and every "if this fails" has its verdict.

use serde_json::{Value, json};
use svcdiag::api::{ConditionStatus, ConditionType as C, Reason as R};

use super::page::*;

const ALPINE: &str = "pods/default/alpine/nslookup.txt";

fn not_found(page: &mut Page, names: &[&str]) {
    let mut kept = String::new();
    for piece in NSLOOKUP.split_inclusive("u@pod$ ").skip(1) {
        let piece = piece.trim_end_matches("u@pod$ ");
        let name = piece.lines().next().unwrap().trim_start_matches("nslookup ");
        if names.contains(&name) {
            kept.push_str(&format!(
                "u@pod$ nslookup {name}\nServer:    10.0.0.10\nAddress:   10.0.0.10#53\n\n** server can't find {name}: NXDOMAIN\n\n"
            ));
        } else {
            kept.push_str(&format!("u@pod$ {piece}"));
        }
    }
    page.set(ALPINE, &kept);
}

const NAMES: [&str; 3] = [
    "hostnames",
    "hostnames.default",
    "hostnames.default.svc.cluster.local",
];

#[test]
fn the_walk_through_works_in_every_mode() {
    for mode in [Mode::Userspace, Mode::Iptables, Mode::Ipvs] {
        let d = Page::new(mode).judge();
        assert_eq!(
            (d.ready.status, d.ready.reason),
            (ConditionStatus::True, R::ServiceWorks),
            "{mode:?}\n{}",
            report(&d)
        );
    }
}

#[test]
fn there_is_no_service() {
    fails(Mode::Iptables, C::ServiceExists, R::ServiceNotFound, |page| {
        page.objects[0] = list("ServiceList", &[]);
        page.objects[1] = list("EndpointsList", &[]);
    });
}

#[test]
fn names_do_not_resolve() {
    let node = "nodes/node-1/nslookup.txt";
    fails(Mode::Iptables, C::DNSResolves, R::NameNotFound, |page| {
        not_found(page, &NAMES);
        page.set(
            node,
            "u@node$ nslookup hostnames.default.svc.cluster.local 10.0.0.10\nServer:         10.0.0.10\nAddress:        10.0.0.10#53\n\n** server can't find hostnames.default.svc.cluster.local: NXDOMAIN\n",
        );
    });
    fails(Mode::Iptables, C::DNSResolves, R::SearchPathMissing, |page| {
        not_found(page, &NAMES[..2]);
        page.edit(
            "pods/default/alpine/resolv.conf",
            "default.svc.cluster.local svc.cluster.local cluster.local ",
            "",
        );
    });
    fails(Mode::Iptables, C::DNSResolves, R::NdotsTooLow, |page| {
        not_found(page, &NAMES[..2]);
        page.edit("pods/default/alpine/resolv.conf", "ndots:5", "ndots:0");
    });
    fails(
        Mode::Iptables,
        C::DNSResolves,
        R::OnlyFullyQualifiedNameResolves,
        |page| {
            not_found(page, &NAMES[..2]);
            page.files.retain(|(path, _)| !path.ends_with("resolv.conf"));
        },
    );
    fails(
        Mode::Iptables,
        C::DNSResolves,
        R::NameserverNotClusterDNS,
        |page| {
            not_found(page, &[NAMES[0], NAMES[1], NAMES[2], "kubernetes.default"]);
            page.edit(ALPINE, "10.0.0.10", "8.8.8.8");
            page.edit("pods/default/alpine/resolv.conf", "10.0.0.10", "8.8.8.8");
        },
    );
}

#[test]
fn cluster_dns_cannot_answer() {
    fails(Mode::Iptables, C::DNSResolves, R::ClusterDomainMismatch, |page| {
        not_found(page, &[NAMES[0], NAMES[1], NAMES[2], "kubernetes.default"]);
        page.files.retain(|(path, _)| path != "nodes/node-1/nslookup.txt");
        // Nothing is said of cluster DNS without its Pods.
        let pod = json!({ "metadata": { "name": "kube-dns-x", "namespace": "kube-system", "labels": { "app": "kube-dns" } },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
        page.set(
            "objects/kube-system/pods.json",
            &list("PodList", &[pod]).to_string(),
        );
    });
    fails(Mode::Iptables, C::DNSResolves, R::ClusterDNSFailing, |page| {
        not_found(page, &[NAMES[0], NAMES[1], NAMES[2], "kubernetes.default"]);
        page.edit(ALPINE, "NXDOMAIN", "SERVFAIL");
    });
}

/// The look-up of one of the Service's names ends otherwise than those of the others.
#[test]
fn one_of_the_names_fails() {
    fails(Mode::Iptables, C::DNSResolves, R::NameNotFound, |page| {
        not_found(page, &NAMES[1..2]);
    });
    fails(Mode::Iptables, C::DNSResolves, R::WrongAddress, |page| {
        not_found(page, &NAMES[2..]);
        page.edit(
            ALPINE,
            "** server can't find hostnames.default.svc.cluster.local: NXDOMAIN\n",
            "Name:    hostnames.default.svc.cluster.local.wild.example\nAddress: 203.0.113.9\n",
        );
    });
}

#[test]
fn an_nslookup_that_does_not_search_blames_nobody() {
    let mut page = Page::new(Mode::Iptables);
    not_found(&mut page, &NAMES[..2]);
    page.edit(ALPINE, "Address:   10.0.0.10#53", "Address:   10.0.0.10:53");
    let d = page.judge();
    let dns = d
        .stages
        .iter()
        .find(|(c, _)| *c == C::DNSResolves)
        .map(|(_, f)| f);
    assert_eq!(dns.map(|f| f.reason), Some(R::ProbeFailed), "{}", report(&d));
    assert!(
        dns.is_some_and(|f| f.message.contains("getent hosts hostnames")),
        "{}",
        report(&d)
    );
}

#[test]
fn the_service_is_defined_wrongly() {
    let service = |change: fn(&mut Value)| {
        move |page: &mut Page| {
            change(&mut page.objects[0]["items"][0]);
            page.objects[1]["items"][0]["subsets"] = json!([]);
        }
    };
    fails(
        Mode::Iptables,
        C::EndpointsPopulated,
        R::SelectorMatchesNoPods,
        service(|s| {
            s["spec"]["selector"] = json!({ "run": "hostnames" });
        }),
    );
    fails(
        Mode::Iptables,
        C::DefinitionValid,
        R::NamedPortNotFound,
        service(|s| {
            s["spec"]["ports"][0]["targetPort"] = json!("http");
        }),
    );
    fails(
        Mode::Iptables,
        C::DefinitionValid,
        R::NumericTargetPortName,
        service(|s| {
            s["spec"]["ports"][0]["targetPort"] = json!("9376");
        }),
    );
    let udp = |page: &mut Page| {
        page.objects[0]["items"][0]["spec"]["ports"][0]["protocol"] = json!("UDP");
        page.objects[1]["items"][0]["subsets"][0]["ports"][0]["protocol"] = json!("UDP");
        page.edit("nodes/node-1/iptables-save.txt", "-p tcp", "-p udp");
        page.edit("nodes/node-1/iptables-save.txt", "-m tcp", "-m udp");
    };
    fails(Mode::Iptables, C::DefinitionValid, R::ProtocolMismatch, |page| {
        udp(page);
        page.set("nodes/node-1/curl.txt", REFUSED_CURL);
    });
    // Where nobody wants TCP of it, that the Pods declare TCP is a hint and no more.
    let mut page = Page::new(Mode::Iptables);
    udp(&mut page);
    page.files.retain(|(path, _)| !path.ends_with("curl.txt"));
    let d = page.judge();
    assert_eq!(d.root_cause, None, "{}", report(&d));
}

#[test]
fn pods_do_not_work() {
    fails(Mode::Iptables, C::PodsHealthy, R::CrashLooping, |page| {
        for pod in page.objects[2]["items"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .take(3)
        {
            pod["status"]["containerStatuses"][0]["restartCount"] = json!(25);
            pod["status"]["containerStatuses"][0]["ready"] = json!(false);
            pod["status"]["conditions"][0]["status"] = json!("False");
            pod["status"]["containerStatuses"][0]["state"] =
                json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        }
        page.objects[1]["items"][0]["subsets"] = json!([]);
    });
    fails(
        Mode::Iptables,
        C::EndpointsReachable,
        R::ConnectionRefused,
        |page| {
            let all = pods(Mode::Iptables);
            let refused = |(_, ip): &(&str, &str)| {
                format!(
                    "u@pod$ wget -O- {ip}:9376\nConnecting to {ip}:9376 ({ip}:9376)\nwget: can't connect to remote host ({ip}): Connection refused\n"
                )
            };
            let wget: String = all.iter().map(refused).collect();
            page.set("pods/default/alpine/wget.txt", &wget);
            page.set("nodes/node-1/curl.txt", REFUSED_CURL);
        },
    );
}

#[test]
fn kube_proxy_does_not_work() {
    let log = "nodes/node-1/kube-proxy.log";
    fails(Mode::Iptables, C::KubeProxyHealthy, R::NotRunning, |page| {
        page.set("nodes/node-1/ps-kube-proxy.txt", "u@node$ ps auxw | grep kube-proxy\nroot  9999  0.0  0.0   5132   712 pts/0    S+   22:20   0:00 grep kube-proxy\n");
        page.set("nodes/node-1/curl.txt", REFUSED_CURL);
    });
    fails(
        Mode::Iptables,
        C::KubeProxyHealthy,
        R::APIServerUnreachable,
        |page| {
            let error = "E1027 22:15:00.000000    5063 reflector.go:205] Failed to list *api.Service: Get https://kubernetes-master/api/v1/services?resourceVersion=0: dial tcp 10.240.0.2:443: getsockopt: connection refused\n";
            let first: String = PROXY_LOG.lines().take(3).map(|l| format!("{l}\n")).collect();
            page.set(log, &format!("{}{error}", first.replace("MODE", "iptables")));
        },
    );
    fails(Mode::Iptables, C::KubeProxyHealthy, R::ConntrackMissing, |page| {
        page.edit(log, "Tearing down userspace rules. Errors here are acceptable.", "conntrack returned error: error looking for path of conntrack: exec: \"conntrack\": executable file not found in $PATH");
        page.set("nodes/node-1/curl.txt", REFUSED_CURL);
    });
    fails(Mode::Userspace, C::KubeProxyHealthy, R::NotSyncing, |page| {
        page.set("nodes/node-1/curl.txt", &format!("{REFUSED_CURL}u@node$ curl localhost:48577\ncurl: (7) Failed to connect to localhost port 48577: Connection refused\n"));
    });
}

#[test]
fn rules_are_missing() {
    let save = "nodes/node-1/iptables-save.txt";
    let only_prompt = "u@node$ iptables-save | grep hostnames\n";
    fails(Mode::Userspace, C::ProxyRulesPresent, R::RulesMissing, |page| {
        page.set(save, only_prompt)
    });
    fails(Mode::Iptables, C::ProxyRulesPresent, R::RulesMissing, |page| {
        page.set(save, only_prompt)
    });
    fails(
        Mode::Iptables,
        C::ProxyRulesPresent,
        R::EndpointMissingFromRules,
        |page| {
            page.edit(save, "-A KUBE-SVC-NWV5X2332I4OT4T3 -m comment --comment \"default/hostnames:\" -m statistic --mode random --probability 0.33332999982 -j KUBE-SEP-WNBA2IHDGP2BOBGZ\n", "");
        },
    );
    let servers = "nodes/node-1/ipvsadm.txt";
    fails(Mode::Ipvs, C::ProxyRulesPresent, R::RulesMissing, |page| {
        let kept: String = VIRTUAL_SERVERS
            .lines()
            .take(5)
            .map(|l| format!("{l}\n"))
            .collect();
        page.set(servers, &kept);
    });
    fails(
        Mode::Ipvs,
        C::ProxyRulesPresent,
        R::EndpointMissingFromRules,
        |page| {
            page.edit(
                servers,
                "  -> 10.244.0.6:9376               Masq    1      0          0\n",
                "",
            );
        },
    );
    fails(
        Mode::Ipvs,
        C::ProxyRulesPresent,
        R::StaleEndpointInRules,
        |page| {
            page.edit(servers, "10.244.0.7:9376               Masq    1      0          0\n", "10.244.0.7:9376               Masq    1      0          0\n  -> 10.244.9.9:9376               Masq    1      0          0\n");
        },
    );
    // A real server that is being drained is as it should be.
    let mut page = Page::new(Mode::Ipvs);
    page.edit(servers, "10.244.0.7:9376               Masq    1      0          0\n", "10.244.0.7:9376               Masq    1      0          0\n  -> 10.244.9.9:9376               Masq    0      0          0\n");
    let d = page.judge();
    assert_eq!(d.ready.reason, R::ServiceWorks, "{}", report(&d));
}

#[test]
fn the_userspace_proxy_does_not_answer_on_its_port() {
    fails(Mode::Userspace, C::ProxyForwards, R::ConnectionRefused, |page| {
        page.set("nodes/node-1/curl.txt", &format!("{REFUSED_CURL}u@node$ curl localhost:48577\ncurl: (7) Failed to connect to localhost port 48577: Connection refused\n"));
        let all: Vec<String> = pods(Mode::Userspace)
            .iter()
            .map(|(_, ip)| format!("{ip}:9376"))
            .collect();
        let line = format!(
            "Setting endpoints for default/hostnames:default to [{}]\n",
            all.join(" ")
        );
        let known = PROXY_LOG.replace("MODE", "userspace");
        page.set("nodes/node-1/kube-proxy.log", &format!("{known}{line}"));
    });
}

#[test]
fn pods_do_not_reach_themselves() {
    let log = "nodes/node-1/kubelet.log";
    fails(Mode::Iptables, C::HairpinOK, R::HairpinModeDisabled, |page| {
        page.edit(log, "promiscuous-bridge", "none");
    });
    fails(Mode::Iptables, C::HairpinOK, R::HairpinModeDisabled, |page| {
        page.files.retain(|(path, _)| path != log);
        page.edit(
            "nodes/node-1/ps-kubelet.txt",
            "--hairpin-mode=promiscuous-bridge",
            "--hairpin-mode=none",
        );
    });
    let veth = |page: &mut Page, listing: &str| {
        page.edit(log, "promiscuous-bridge", "hairpin-veth");
        page.files.retain(|(path, _)| path != "nodes/node-1/ifconfig.txt");
        page.set(
            "nodes/node-1/hairpin_mode.txt",
            &format!(
                "for intf in /sys/devices/virtual/net/cbr0/brif/*; do cat $intf/hairpin_mode; done\n{listing}"
            ),
        );
    };
    fails(Mode::Iptables, C::HairpinOK, R::HairpinModeDisabled, |page| {
        veth(page, "1\n0\n1\n1\n")
    });
    fails(Mode::Iptables, C::HairpinOK, R::HairpinModeDisabled, |page| {
        veth(page, "1\n1\n");
        page.files.retain(|(path, _)| !path.ends_with("hairpin_mode.txt"));
        page.files.iter_mut().find(|(path, _)| path == log).unwrap().1.push_str("E0629 00:52:00.000000    3252 kubelet.go:500] Failed to setup hairpin mode: open /sys/devices/virtual/net/cbr0/brif/veth12/hairpin_mode: read-only file system\n");
    });
    let mut page = Page::new(Mode::Iptables);
    veth(&mut page, "1\n1\n1\n1\n");
    let d = page.judge();
    assert_eq!(d.ready.reason, R::ServiceWorks, "{}", report(&d));
    fails(Mode::Iptables, C::HairpinOK, R::BridgeNotPromiscuous, |page| {
        page.set("nodes/node-1/ifconfig.txt", "u@node$ ifconfig cbr0\ncbr0      Link encap:Ethernet  HWaddr 0a:58:0a:f4:00:01\n          inet addr:10.244.0.1  Bcast:0.0.0.0  Mask:255.255.255.0\n          UP BROADCAST RUNNING MULTICAST  MTU:1460  Metric:1\n");
    });
}

/// What a node keeps of endpoints that reach themselves in ipvs mode.
const IP_SETS: &str = "u@node$ ipset list KUBE-LOOP-BACK
Name: KUBE-LOOP-BACK
Type: hash:ip,port,ip
Revision: 5
Header: family inet hashsize 1024 maxelem 65536
Size in memory: 384
References: 1
Number of entries: 3
Members:
10.244.0.5,tcp:9376,10.244.0.5
10.244.0.6,tcp:9376,10.244.0.6
10.244.0.7,tcp:9376,10.244.0.7
";

#[test]
fn in_ipvs_mode_a_set_says_who_may_reach_itself() {
    let path = "nodes/node-1/ipset.txt";
    let mut page = Page::new(Mode::Ipvs);
    page.set(path, IP_SETS);
    let d = page.judge();
    assert_eq!(d.ready.reason, R::ServiceWorks, "{}", report(&d));
    fails(Mode::Ipvs, C::HairpinOK, R::MasqueradeMissing, |page| {
        let kept = IP_SETS
            .replace("10.244.0.6,tcp:9376,10.244.0.6\n", "")
            .replace("entries: 3", "entries: 2");
        page.set(path, &kept);
    });
}

/// Files that are missing, or were cut in the middle of a line, leave questions open and blame nobody.
#[test]
fn what_is_cut_or_missing_is_not_blamed() {
    for mode in [Mode::Userspace, Mode::Iptables, Mode::Ipvs] {
        let whole = Page::new(mode);
        for (path, text) in &whole.files {
            let unblamed = |page: &Page, how: &str| {
                let d = page.judge();
                let root = d
                    .root_cause
                    .as_ref()
                    .map(|r| format!("{}/{}", r.condition, r.reason));
                assert_eq!(root, None, "{mode:?}, {path} {how}\n{}", report(&d));
            };
            let mut page = Page::new(mode);
            page.files.retain(|(known, _)| known != path);
            unblamed(&page, "is missing");
            for cut in (1..text.len()).step_by(7) {
                let kept = &text[..cut];
                if !kept.ends_with('\n') {
                    let mut page = Page::new(mode);
                    page.set(path, kept);
                    unblamed(&page, &format!("is cut at {cut}: {kept}"));
                }
            }
        }
    }
}
