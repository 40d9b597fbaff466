//! Healthy nodes that look like broken ones: rules that are left over, programs that are left out, harmless
//! lines of logs, refusals of policies.

use serde_json::{Value, json};
use svcdiag::api::{ConditionStatus, ConditionType as C, Reason as R};

use super::{
    contradictory::{LOG, SAVE, all_rules, earlier_rules},
    page::*,
};

/// Healthy nodes that look like broken ones.
#[test]
fn healthy_nodes_are_not_blamed_for_what_was_not_saved() {
    let without = |page: &mut Page, names: &[&str]| {
        page.files
            .retain(|(path, _)| !names.iter().any(|name| path.ends_with(name)));
    };
    // Cilium does the work: there is no kube-proxy to find, nor a rule of it.
    unblamed(Mode::Iptables, |page| {
        without(page, &["kube-proxy.log", "nodes/node-1/curl.txt"]);
        page.set("nodes/node-1/ps-kube-proxy.txt", "u@node$ ps auxw | grep kube-proxy\nroot  9999  0.0  0.0   5132   712 pts/0    S+   22:20   0:00 grep kube-proxy\n");
        page.set(
            "nodes/node-1/iptables-save.txt",
            "u@node$ iptables-save | grep hostnames\n",
        );
    });
    // kube-proxy is in iptables mode, and a table of nftables mode was left behind.
    unblamed(Mode::Iptables, |page| {
        without(page, &["kube-proxy.log", "iptables-save.txt"]);
        page.set("nodes/node-1/nft.txt", "table ip kube-proxy {\n\tmap service-ips {\n\t\ttype ipv4_addr . inet_proto . inet_service : verdict\n\t}\n}\n");
    });
    // The end of a log, with an error of last month.
    unblamed(Mode::Iptables, |page| {
        page.set("nodes/node-1/kube-proxy.log", "E1027 22:15:00.000000    5063 reflector.go:205] Failed to list *v1.Service: Get https://kubernetes-master/api/v1/services: dial tcp 10.240.0.2:443: connect: connection refused\n");
    });
    // CNI made the bridge, and the kubelet has nothing to do with it.
    unblamed(Mode::Iptables, |page| {
        page.set("nodes/node-1/kubelet.log", "I0629 00:51:43.648698    3252 docker_service.go:258] Docker cri networking managed by cni\nI0629 00:51:43.648698    3252 kubelet.go:380] Hairpin mode set to \"hairpin-veth\"\n");
        page.set("nodes/node-1/hairpin_mode.txt", "0\n0\n");
    });
}

const PS: &str = "nodes/node-1/ps-kube-proxy.txt";

fn config_map(mode: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "kube-proxy", "namespace": "kube-system" },
        "data": { "config.conf": format!("kind: KubeProxyConfiguration\nmode: \"{mode}\"\n") } })
}

#[test]
fn the_config_map_tells_the_mode_where_nothing_better_does() {
    let told = |mode: &'static str, rules: String| {
        move |page: &mut Page| {
            page.files.retain(|(path, _)| path != LOG);
            page.objects.push(config_map(mode));
            page.set(SAVE, &rules);
        }
    };
    let rules = RULES.split_once('\n').unwrap().1;
    let (d, _) = unblamed(Mode::Iptables, told("iptables", all_rules(rules)));
    assert_eq!(d.ready.reason, R::ServiceWorks, "{}", report(&d));
    fails(
        Mode::Iptables,
        C::ProxyRulesPresent,
        R::RulesMissing,
        told("iptables", all_rules("")),
    );
    // It leaves the mode to kube-proxy; without any ConfigMap nothing is known either.
    unblamed(Mode::Iptables, told("", all_rules("")));
    // Nothing shows that kube-proxy ever was in that mode.
    unblamed(
        Mode::Iptables,
        told("iptables", "*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n".to_owned()),
    );
    unblamed(Mode::Iptables, told("nftables", all_rules("")));
}

#[test]
fn of_rules_of_another_mode_than_the_config_maps_nobody_knows_whether_they_are_left_over() {
    for rules in [RULES.to_owned(), earlier_rules()] {
        let (_, told) = unblamed(Mode::Iptables, |page| {
            page.files.retain(|(path, _)| path != LOG);
            page.objects.push(config_map("nftables"));
            page.set(SAVE, &rules);
        });
        assert!(
            told.contains("ConfigMap says mode nftables") && told.contains("proxymode.txt"),
            "{told}"
        );
    }
    // What kube-proxy itself says counts for more.
    fails(
        Mode::Iptables,
        C::ProxyRulesPresent,
        R::EndpointMissingFromRules,
        |page| {
            page.objects.push(config_map("nftables"));
            page.set(SAVE, &earlier_rules());
        },
    );
    // Two versions of it contradict each other.
    unblamed(Mode::Iptables, |page| {
        page.files.retain(|(path, _)| path != LOG);
        page.objects
            .extend([config_map("nftables"), config_map("iptables")]);
        page.set(SAVE, &all_rules(""));
    });
}

#[test]
fn virtual_servers_of_somebody_else_are_not_kube_proxys() {
    let keepalived = VIRTUAL_SERVERS.replace("10.0.1.175:80", "192.0.2.1:80");
    unblamed(Mode::Iptables, |page| {
        page.files.retain(|(path, _)| path != LOG);
        page.set("nodes/node-1/ipvsadm.txt", &keepalived);
    });
    fails(Mode::Ipvs, C::ProxyRulesPresent, R::RulesMissing, |page| {
        page.set("nodes/node-1/ipvsadm.txt", &keepalived);
    });
}

#[test]
fn k3s_without_kube_proxy_does_not_carry_it() {
    const K3S: &str = "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND\nroot 1 0.0 0.0 1 1 ? Ss 10:00 0:01 /sbin/init\nroot 700 4.0 2.0 1 1 ? Ssl 10:00 9:01 /usr/local/bin/k3s server\n";
    const CILIUM: &str = "root 900 1.0 2.0 1 1 ? Ssl 10:00 9:01 cilium-agent --config-dir=/tmp\n";
    const CONFIG: &str = "nodes/node-1/k3s-config.yaml";
    let off = "disable-kube-proxy: true\n";
    let k3s = |page: &mut Page, ps: &str| {
        let kept = [
            LOG,
            SAVE,
            "nodes/node-1/ps-kubelet.txt",
            "nodes/node-1/kubelet.log",
        ];
        page.files.retain(|(path, _)| !kept.contains(&path.as_str()));
        page.set(PS, ps);
    };
    let kube_proxy = |d: &svcdiag::engine::Diagnosis| {
        let (_, finding) = d.stages.iter().find(|(c, _)| *c == C::KubeProxyHealthy).unwrap();
        (finding.status(), finding.reason)
    };
    let (d, _) = unblamed(Mode::Iptables, |page| k3s(page, K3S));
    assert_eq!(kube_proxy(&d), (ConditionStatus::True, R::Running));
    // By its file or by its flag, here or on a server; what does the work instead is not known.
    let told: [&dyn Fn(&mut Page); 3] = [
        &|page| page.set(CONFIG, off),
        &|page| page.edit(PS, "k3s server", "k3s server --disable-kube-proxy"),
        &|page| page.set("nodes/node-2/k3s-config.yaml", off),
    ];
    for tell in told {
        let (d, _) = unblamed(Mode::Iptables, |page| {
            k3s(page, K3S);
            page.files.retain(|(path, _)| path != "nodes/node-1/curl.txt");
            tell(page);
        });
        assert_eq!(kube_proxy(&d).0, ConditionStatus::Unknown, "{}", report(&d));
        let (d, _) = unblamed(Mode::Iptables, |page| {
            k3s(page, &format!("{K3S}{CILIUM}"));
            tell(page);
        });
        assert_eq!(
            kube_proxy(&d),
            (ConditionStatus::Unknown, R::ProxyReplaced),
            "{}",
            report(&d)
        );
        fails(Mode::Iptables, C::KubeProxyHealthy, R::NotRunning, |page| {
            k3s(page, K3S);
            page.set("nodes/node-1/curl.txt", REFUSED_CURL);
            tell(page);
        });
    }
    let (d, _) = unblamed(Mode::Iptables, |page| {
        k3s(page, K3S);
        page.set(CONFIG, "disable-kube-proxy: false\n");
    });
    assert_eq!(kube_proxy(&d), (ConditionStatus::True, R::Running));
}

#[test]
fn a_missing_conntrack_that_does_no_harm_is_only_told() {
    const MISSING: &str = "E1027 22:14:55.000000    5063 proxier.go:603] conntrack return with error: Error looking for path of conntrack: exec: \"conntrack\": executable file not found in $PATH\n";
    let udp = |page: &mut Page| {
        page.objects[0]["items"][0]["spec"]["ports"][0]["protocol"] = json!("UDP");
        page.objects[1]["items"][0]["subsets"][0]["ports"][0]["protocol"] = json!("UDP");
        page.edit(SAVE, "-p tcp", "-p udp");
        page.edit(SAVE, "-m tcp", "-m udp");
        page.files
            .retain(|(path, _)| !path.ends_with("curl.txt") && !path.ends_with("wget.txt"));
    };
    let log = PROXY_LOG.replace("MODE", "iptables");
    let (_, told) = unblamed(Mode::Iptables, |page| {
        udp(page);
        page.set(LOG, &format!("{log}{MISSING}"));
    });
    assert!(
        told.contains("kube-proxy.log: line 11: kube-proxy does not find the conntrack binary"),
        "{told}"
    );
    // It was installed, and kube-proxy started anew.
    let (_, told) = unblamed(Mode::Iptables, |page| {
        udp(page);
        page.set(LOG, &format!("{MISSING}{log}"));
    });
    assert!(!told.contains("conntrack"), "{told}");
    // Packets go on to a Pod that is gone.
    let entry = |seconds: u32| {
        format!(
            "udp 17 {seconds} src=10.244.1.9 dst=10.0.1.175 sport=40000 dport=80 src=10.244.9.9 dst=10.244.1.9 sport=9376 dport=40000 [ASSURED] mark=0 use=1\n"
        )
    };
    fails(Mode::Iptables, C::KubeProxyHealthy, R::ConntrackMissing, |page| {
        udp(page);
        page.set(LOG, &format!("{log}{MISSING}"));
        page.set("nodes/node-1/conntrack-1.txt", &entry(100));
        page.set("nodes/node-1/conntrack-2.txt", &entry(118));
    });
}

#[test]
fn what_a_policy_may_refuse_is_not_blamed_on_others() {
    let policy = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "guard", "namespace": "default" },
        "spec": { "podSelector": { "matchLabels": { "app": "hostnames" } }, "policyTypes": ["Ingress"],
            "ingress": [{ "from": [{ "ipBlock": { "cidr": "192.0.2.0/24" } }] }] } });
    let curl = |says: &str| {
        let all = pods(Mode::Iptables);
        let of = |ip: &str, port: u16| {
            format!(
                "u@node$ curl {ip}:{port}\ncurl: (7) {}\n",
                says.replace("IP", ip).replace("PORT", &port.to_string())
            )
        };
        let direct: String = all.iter().map(|(_, ip)| of(ip, 9376)).collect();
        direct + &of("10.0.1.175", 80)
    };
    for says in [
        "couldn't connect to host",
        "Failed to connect to IP port PORT after 1 ms: Couldn't connect to server",
        "Failed to connect to IP port PORT: Could not connect to server",
    ] {
        unblamed(Mode::Iptables, |page| {
            page.objects
                .push(list("NetworkPolicyList", std::slice::from_ref(&policy)));
            page.set("nodes/node-1/curl.txt", &curl(says));
            page.files.retain(|(path, _)| !path.ends_with("wget.txt"));
        });
        // Without a policy it is the Pods that refuse.
        let mut page = Page::new(Mode::Iptables);
        page.set("nodes/node-1/curl.txt", &curl(says));
        page.files.retain(|(path, _)| !path.ends_with("wget.txt"));
        let d = page.judge();
        let root = d.root_cause.as_ref().unwrap();
        assert_eq!(
            root.reason,
            R::ConnectionRefused.to_string(),
            "{says}\n{}",
            report(&d)
        );
        assert!(!root.message.contains("by a rule"), "{}", root.message);
    }
}
