//! The "Debug Services" page as a bundle: its walk-through works in all three modes of kube-proxy, and every
//! "if this fails" has its verdict. The outputs are those of the page, or what the page says they may be.

use serde_json::{Value, json};
use svcdiag::{
    api::{ConditionStatus, ConditionType as C, Reason as R},
    bundle::{Bundle, Files, facts, files::File},
    diagnosis::{Diagnosis, diagnose},
};

const NOW: &str = "2026-01-01T00:00:00Z";

/// The mode of kube-proxy, which decides what its rules look like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Userspace,
    Iptables,
    Ipvs,
}

/// Pods and their addresses: the page shows others with iptables rules than elsewhere.
fn pods(mode: Mode) -> [(&'static str, &'static str); 3] {
    match mode {
        Mode::Iptables => [
            ("hostnames-0uton", "10.244.3.6"),
            ("hostnames-bvc05", "10.244.1.7"),
            ("hostnames-yp2kp", "10.244.2.3"),
        ],
        _ => [
            ("hostnames-0uton", "10.244.0.5"),
            ("hostnames-bvc05", "10.244.0.6"),
            ("hostnames-yp2kp", "10.244.0.7"),
        ],
    }
}

/// A bundle in the making.
struct Page {
    objects: Vec<Value>,
    files: Vec<(String, String)>,
}

fn pod(namespace: &str, name: &str, ip: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": namespace, "name": name, "uid": format!("uid-{name}"), "labels": { "app": app },
            "creationTimestamp": "2025-12-31T00:00:00Z" },
        "spec": { "nodeName": "node-1", "containers": [{ "name": app, "ports": [{ "containerPort": 9376, "protocol": "TCP" }] }] },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2025-12-31T00:00:00Z" }],
            "containerStatuses": [{ "name": app, "ready": true, "restartCount": 0,
                "state": { "running": { "startedAt": "2025-12-31T00:00:00Z" } } }],
        },
    })
}

fn service() -> Value {
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": { "name": "hostnames", "namespace": "default", "uid": "428c8b6c-24bc-11e5-936d-42010af0a9bc",
            "resourceVersion": "347189", "creationTimestamp": "2015-07-07T15:24:29Z", "labels": { "app": "hostnames" } },
        "spec": {
            "ports": [{ "name": "default", "protocol": "TCP", "port": 80, "targetPort": 9376, "nodePort": 0 }],
            "selector": { "app": "hostnames" }, "clusterIP": "10.0.1.175", "type": "ClusterIP", "sessionAffinity": "None",
        },
        "status": { "loadBalancer": {} },
    })
}

fn dns_service() -> Value {
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": { "name": "kube-dns", "namespace": "kube-system", "creationTimestamp": "2015-07-07T15:24:29Z" },
        "spec": { "ports": [{ "name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53 }],
            "selector": { "app": "kube-dns" }, "clusterIP": "10.0.0.10", "type": "ClusterIP" },
    })
}

fn endpoints(mode: Mode) -> Value {
    let addresses: Vec<Value> = pods(mode)
        .iter()
        .map(|(name, ip)| {
            json!({ "ip": ip, "nodeName": "node-1",
                "targetRef": { "kind": "Pod", "namespace": "default", "name": name, "uid": format!("uid-{name}") } })
        })
        .collect();
    json!({
        "kind": "Endpoints", "apiVersion": "v1",
        "metadata": { "name": "hostnames", "namespace": "default" },
        "subsets": [{ "addresses": addresses, "ports": [{ "name": "default", "port": 9376, "protocol": "TCP" }] }],
    })
}

fn list(kind: &str, items: &[Value]) -> Value {
    let version = match kind {
        "NetworkPolicyList" => "networking.k8s.io/v1",
        "DeploymentList" | "ReplicaSetList" | "StatefulSetList" => "apps/v1",
        _ => "v1",
    };
    json!({ "kind": kind, "apiVersion": version, "metadata": {}, "items": items })
}

const NSLOOKUP: &str = "u@pod$ nslookup hostnames
Address 1: 10.0.0.10 kube-dns.kube-system.svc.cluster.local

Name:      hostnames
Address 1: 10.0.1.175 hostnames.default.svc.cluster.local
u@pod$ nslookup hostnames.default
Address 1: 10.0.0.10 kube-dns.kube-system.svc.cluster.local

Name:      hostnames.default
Address 1: 10.0.1.175 hostnames.default.svc.cluster.local
u@pod$ nslookup hostnames.default.svc.cluster.local
Address 1: 10.0.0.10 kube-dns.kube-system.svc.cluster.local

Name:      hostnames.default.svc.cluster.local
Address 1: 10.0.1.175 hostnames.default.svc.cluster.local
u@pod$ nslookup kubernetes.default
Server:    10.0.0.10
Address 1: 10.0.0.10 kube-dns.kube-system.svc.cluster.local

Name:      kubernetes.default
Address 1: 10.0.0.1 kubernetes.default.svc.cluster.local
";

const RESOLV_CONF: &str = "u@pod$ cat /etc/resolv.conf
nameserver 10.0.0.10
search default.svc.cluster.local svc.cluster.local cluster.local example.com
options ndots:5
";

const NODE_NSLOOKUP: &str = "u@node$ nslookup hostnames.default.svc.cluster.local 10.0.0.10
Server:         10.0.0.10
Address:        10.0.0.10#53

Name:   hostnames.default.svc.cluster.local
Address: 10.0.1.175
";

const NODE_CURL: &str = "u@node$ curl 10.0.1.175:80
hostnames-0uton

u@node$ curl 10.0.1.175:80
hostnames-yp2kp

u@node$ curl 10.0.1.175:80
hostnames-bvc05
";

const REFUSED_CURL: &str = "u@node$ curl 10.0.1.175:80
curl: (7) Failed to connect to 10.0.1.175 port 80: Connection refused
";

const PS_PROXY: &str = "u@node$ ps auxw | grep kube-proxy
root  4194  0.4  0.1 101864 17696 ?    Sl Jul04  25:43 /usr/local/bin/kube-proxy --master=https://kubernetes-master --kubeconfig=/var/lib/kube-proxy/kubeconfig --v=2
";

const PS_KUBELET: &str = "u@node$ ps auxw|grep kubelet
root      3392  1.1  0.8 186804 65208 ?        Sl   00:51  11:11 /usr/local/bin/kubelet --enable-debugging-handlers=true --config=/etc/kubernetes/manifests --allow-privileged=True --v=4 --cluster-dns=10.0.0.10 --cluster-domain=cluster.local --configure-cbr0=true --cgroup-root=/ --system-cgroups=/system --hairpin-mode=promiscuous-bridge --runtime-cgroups=/docker-daemon --kubelet-cgroups=/kubelet --babysit-daemons=true --max-pods=110 --serialize-image-pulls=false --outofdisk-transition-frequency=0
";

const KUBELET_LOG: &str =
    "I0629 00:51:43.648698    3252 kubelet.go:380] Hairpin mode set to \"promiscuous-bridge\"\n";

const IFCONFIG: &str = "u@node$ ifconfig cbr0 |grep PROMISC
UP BROADCAST RUNNING PROMISC MULTICAST  MTU:1460  Metric:1
";

const PROXY_LOG: &str = r#"I1027 22:14:53.995134    5063 server.go:200] Running in resource-only container "/kube-proxy"
I1027 22:14:53.998163    5063 server.go:247] Using MODE Proxier.
I1027 22:14:53.999055    5063 server.go:255] Tearing down userspace rules. Errors here are acceptable.
I1027 22:14:54.038140    5063 proxier.go:352] Setting endpoints for "kube-system/kube-dns:dns-tcp" to [10.244.1.3:53]
I1027 22:14:54.038164    5063 proxier.go:352] Setting endpoints for "kube-system/kube-dns:dns" to [10.244.1.3:53]
I1027 22:14:54.038209    5063 proxier.go:352] Setting endpoints for "default/kubernetes:https" to [10.240.0.2:443]
I1027 22:14:54.038238    5063 proxier.go:429] Not syncing iptables until Services and Endpoints have been received from master
I1027 22:14:54.040048    5063 proxier.go:294] Adding new service "default/kubernetes:https" at 10.0.0.1:443/TCP
I1027 22:14:54.040154    5063 proxier.go:294] Adding new service "kube-system/kube-dns:dns" at 10.0.0.10:53/UDP
I1027 22:14:54.040223    5063 proxier.go:294] Adding new service "kube-system/kube-dns:dns-tcp" at 10.0.0.10:53/TCP
"#;

const PORTALS: &str = r#"u@node$ iptables-save | grep hostnames
-A KUBE-PORTALS-CONTAINER -d 10.0.1.175/32 -p tcp -m comment --comment "default/hostnames:default" -m tcp --dport 80 -j REDIRECT --to-ports 48577
-A KUBE-PORTALS-HOST -d 10.0.1.175/32 -p tcp -m comment --comment "default/hostnames:default" -m tcp --dport 80 -j DNAT --to-destination 10.240.115.247:48577
"#;

const RULES: &str = r#"u@node$ iptables-save | grep hostnames
-A KUBE-SEP-57KPRZ3JQVENLNBR -s 10.244.3.6/32 -m comment --comment "default/hostnames:" -j MARK --set-xmark 0x00004000/0x00004000
-A KUBE-SEP-57KPRZ3JQVENLNBR -p tcp -m comment --comment "default/hostnames:" -m tcp -j DNAT --to-destination 10.244.3.6:9376
-A KUBE-SEP-WNBA2IHDGP2BOBGZ -s 10.244.1.7/32 -m comment --comment "default/hostnames:" -j MARK --set-xmark 0x00004000/0x00004000
-A KUBE-SEP-WNBA2IHDGP2BOBGZ -p tcp -m comment --comment "default/hostnames:" -m tcp -j DNAT --to-destination 10.244.1.7:9376
-A KUBE-SEP-X3P2623AGDH6CDF3 -s 10.244.2.3/32 -m comment --comment "default/hostnames:" -j MARK --set-xmark 0x00004000/0x00004000
-A KUBE-SEP-X3P2623AGDH6CDF3 -p tcp -m comment --comment "default/hostnames:" -m tcp -j DNAT --to-destination 10.244.2.3:9376
-A KUBE-SERVICES -d 10.0.1.175/32 -p tcp -m comment --comment "default/hostnames: cluster IP" -m tcp --dport 80 -j KUBE-SVC-NWV5X2332I4OT4T3
-A KUBE-SVC-NWV5X2332I4OT4T3 -m comment --comment "default/hostnames:" -m statistic --mode random --probability 0.33332999982 -j KUBE-SEP-WNBA2IHDGP2BOBGZ
-A KUBE-SVC-NWV5X2332I4OT4T3 -m comment --comment "default/hostnames:" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-X3P2623AGDH6CDF3
-A KUBE-SVC-NWV5X2332I4OT4T3 -m comment --comment "default/hostnames:" -j KUBE-SEP-57KPRZ3JQVENLNBR
"#;

const VIRTUAL_SERVERS: &str = "u@node$ ipvsadm -ln
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.0.0.1:443 rr
  -> 10.240.0.2:443               Masq    1      0          0
TCP  10.0.1.175:80 rr
  -> 10.244.0.5:9376               Masq    1      0          0
  -> 10.244.0.6:9376               Masq    1      0          0
  -> 10.244.0.7:9376               Masq    1      0          0
";

impl Page {
    /// The walk-through as it should be.
    fn new(mode: Mode) -> Self {
        let wget: String = pods(mode)
            .iter()
            .map(|(name, ip)| format!("u@pod$ wget -qO- {ip}:9376\n{name}\n\n"))
            .collect();
        let name = match mode {
            Mode::Userspace => "userspace",
            Mode::Iptables => "iptables",
            Mode::Ipvs => "ipvs",
        };
        let mut own: Vec<Value> = pods(mode)
            .iter()
            .map(|(name, ip)| pod("default", name, ip, "hostnames"))
            .collect();
        own.push(pod("default", "alpine", "10.244.0.99", "alpine"));
        let namespace =
            |name: &str| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        let mut page = Self {
            objects: vec![
                list("ServiceList", &[service()]),
                list("EndpointsList", &[endpoints(mode)]),
                list("PodList", &own),
                list("ServiceList", &[dns_service()]),
                list(
                    "PodList",
                    &[pod("kube-system", "kube-dns-1", "10.244.1.3", "kube-dns")],
                ),
                list("NamespaceList", &[namespace("default"), namespace("kube-system")]),
            ],
            files: Vec::new(),
        };
        page.set("nodes/node-1/ps-kube-proxy.txt", PS_PROXY);
        page.set("nodes/node-1/ps-kubelet.txt", PS_KUBELET);
        page.set("nodes/node-1/kube-proxy.log", &PROXY_LOG.replace("MODE", name));
        page.set("nodes/node-1/kubelet.log", KUBELET_LOG);
        page.set("nodes/node-1/ifconfig.txt", IFCONFIG);
        page.set("nodes/node-1/curl.txt", NODE_CURL);
        page.set("nodes/node-1/nslookup.txt", NODE_NSLOOKUP);
        match mode {
            Mode::Userspace => page.set("nodes/node-1/iptables-save.txt", PORTALS),
            Mode::Iptables => page.set("nodes/node-1/iptables-save.txt", RULES),
            Mode::Ipvs => page.set("nodes/node-1/ipvsadm.txt", VIRTUAL_SERVERS),
        }
        page.set("pods/default/alpine/nslookup.txt", NSLOOKUP);
        page.set("pods/default/alpine/resolv.conf", RESOLV_CONF);
        page.set("pods/default/alpine/wget.txt", &wget);
        page
    }

    /// Puts a file in the place of another of the same name.
    fn set(&mut self, path: &str, text: &str) {
        self.files.retain(|(known, _)| known != path);
        self.files.push((path.to_owned(), text.to_owned()));
    }

    /// Changes a text of a file, which has to be there.
    fn edit(&mut self, path: &str, from: &str, to: &str) {
        let file = self.files.iter_mut().find(|(known, _)| known == path).unwrap();
        assert!(file.1.contains(from), "{path} has no {from:?}");
        file.1 = file.1.replace(from, to);
    }

    fn judge(&self) -> Diagnosis {
        let mut files: Vec<File> = self
            .files
            .iter()
            .map(|(path, text)| File {
                path: path.clone(),
                text: text.clone(),
                modified: None,
            })
            .collect();
        // Services of the namespace alone, as `kubectl get -n default` lists them.
        for (number, object) in self.objects.iter().enumerate() {
            files.push(File {
                path: format!("objects/{number}.json"),
                text: object.to_string(),
                modified: None,
            });
        }
        for (kind, name) in [
            ("NetworkPolicyList", "networkpolicies"),
            ("DeploymentList", "deployments"),
            ("ReplicaSetList", "replicasets"),
            ("StatefulSetList", "statefulsets"),
        ] {
            files.push(File {
                path: format!("objects/{name}.json"),
                text: list(kind, &[]).to_string(),
                modified: None,
            });
        }
        let bundle = Bundle::of(Files {
            files,
            problems: Vec::new(),
        });
        let diagnosis = bundle.diagnosis("default", "hostnames");
        let (facts, problems) = facts(&bundle, &diagnosis, NOW.parse().unwrap());
        let _ = problems;
        diagnose(&facts)
    }
}

fn report(d: &Diagnosis) -> String {
    let stages = d.stages.iter();
    let lines = stages.map(|(c, f)| format!("{c:?} {:?} {:?}: {}", f.status(), f.reason, f.message));
    lines.collect::<Vec<_>>().join("\n")
}

/// The walk-through with something changed, and what it must come to.
#[track_caller]
fn fails(mode: Mode, condition: C, reason: R, change: impl FnOnce(&mut Page)) -> Diagnosis {
    let mut page = Page::new(mode);
    change(&mut page);
    let d = page.judge();
    let root = d
        .root_cause
        .as_ref()
        .map(|r| (r.condition.clone(), r.reason.clone()));
    assert_eq!(
        root,
        Some((condition.to_string(), reason.to_string())),
        "{}",
        report(&d)
    );
    d
}

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

/// Healthy nodes that look like broken ones.
#[test]
fn healthy_nodes_are_not_blamed_for_what_was_not_saved() {
    let unblamed = |change: &dyn Fn(&mut Page)| {
        let mut page = Page::new(Mode::Iptables);
        change(&mut page);
        let d = page.judge();
        let root = d
            .root_cause
            .as_ref()
            .map(|r| format!("{}/{}", r.condition, r.reason));
        assert_eq!(root, None, "{}", report(&d));
    };
    let without = |page: &mut Page, names: &[&str]| {
        page.files
            .retain(|(path, _)| !names.iter().any(|name| path.ends_with(name)));
    };
    // Cilium does the work: there is no kube-proxy to find, nor a rule of it.
    unblamed(&|page| {
        without(page, &["kube-proxy.log", "nodes/node-1/curl.txt"]);
        page.set("nodes/node-1/ps-kube-proxy.txt", "u@node$ ps auxw | grep kube-proxy\nroot  9999  0.0  0.0   5132   712 pts/0    S+   22:20   0:00 grep kube-proxy\n");
        page.set(
            "nodes/node-1/iptables-save.txt",
            "u@node$ iptables-save | grep hostnames\n",
        );
    });
    // kube-proxy is in iptables mode, and a table of nftables mode was left behind.
    unblamed(&|page| {
        without(page, &["kube-proxy.log", "iptables-save.txt"]);
        page.set("nodes/node-1/nft.txt", "table ip kube-proxy {\n\tmap service-ips {\n\t\ttype ipv4_addr . inet_proto . inet_service : verdict\n\t}\n}\n");
    });
    // The end of a log, with an error of last month.
    unblamed(&|page| {
        page.set("nodes/node-1/kube-proxy.log", "E1027 22:15:00.000000    5063 reflector.go:205] Failed to list *v1.Service: Get https://kubernetes-master/api/v1/services: dial tcp 10.240.0.2:443: connect: connection refused\n");
    });
    // CNI made the bridge, and the kubelet has nothing to do with it.
    unblamed(&|page| {
        page.set("nodes/node-1/kubelet.log", "I0629 00:51:43.648698    3252 docker_service.go:258] Docker cri networking managed by cni\nI0629 00:51:43.648698    3252 kubelet.go:380] Hairpin mode set to \"hairpin-veth\"\n");
        page.set("nodes/node-1/hairpin_mode.txt", "0\n0\n");
    });
}
