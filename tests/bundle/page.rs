//! The "Debug Services" page as a bundle: the outputs are those of the page, or what the page says they may
//! be. `branches` covers every "if this fails"; `misleading` what looks like one and is none.

use serde_json::{Value, json};
use svcdiag::{
    api::{ConditionType as C, Reason as R},
    bundle::{Bundle, Files, Problem, facts, files::File},
    engine::{Diagnosis, diagnose},
};

pub(crate) const NOW: &str = "2026-01-01T00:00:00Z";

/// The mode of kube-proxy, which decides what its rules look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Userspace,
    Iptables,
    Ipvs,
}

/// Pods and their addresses: the page shows others with iptables rules than elsewhere.
pub(crate) fn pods(mode: Mode) -> [(&'static str, &'static str); 3] {
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
pub(crate) struct Page {
    pub objects: Vec<Value>,
    pub files: Vec<(String, String)>,
}

pub(crate) fn pod(namespace: &str, name: &str, ip: &str, app: &str) -> Value {
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

pub(crate) fn service() -> Value {
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

pub(crate) fn dns_service() -> Value {
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": { "name": "kube-dns", "namespace": "kube-system", "creationTimestamp": "2015-07-07T15:24:29Z" },
        "spec": { "ports": [{ "name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53 }],
            "selector": { "app": "kube-dns" }, "clusterIP": "10.0.0.10", "type": "ClusterIP" },
    })
}

pub(crate) fn endpoints(mode: Mode) -> Value {
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

pub(crate) fn list(kind: &str, items: &[Value]) -> Value {
    let version = match kind {
        "NetworkPolicyList" => "networking.k8s.io/v1",
        "DeploymentList" | "ReplicaSetList" | "StatefulSetList" => "apps/v1",
        _ => "v1",
    };
    json!({ "kind": kind, "apiVersion": version, "metadata": {}, "items": items })
}

pub(crate) const NSLOOKUP: &str = "u@pod$ nslookup hostnames
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

pub(crate) const RESOLV_CONF: &str = "u@pod$ cat /etc/resolv.conf
nameserver 10.0.0.10
search default.svc.cluster.local svc.cluster.local cluster.local example.com
options ndots:5
";

pub(crate) const NODE_NSLOOKUP: &str = "u@node$ nslookup hostnames.default.svc.cluster.local 10.0.0.10
Server:         10.0.0.10
Address:        10.0.0.10#53

Name:   hostnames.default.svc.cluster.local
Address: 10.0.1.175
";

pub(crate) const NODE_CURL: &str = "u@node$ curl 10.0.1.175:80
hostnames-0uton

u@node$ curl 10.0.1.175:80
hostnames-yp2kp

u@node$ curl 10.0.1.175:80
hostnames-bvc05
";

pub(crate) const REFUSED_CURL: &str = "u@node$ curl 10.0.1.175:80
curl: (7) Failed to connect to 10.0.1.175 port 80: Connection refused
";

pub(crate) const PS_PROXY: &str = "u@node$ ps auxw | grep kube-proxy
root  4194  0.4  0.1 101864 17696 ?    Sl Jul04  25:43 /usr/local/bin/kube-proxy --master=https://kubernetes-master --kubeconfig=/var/lib/kube-proxy/kubeconfig --v=2
";

pub(crate) const PS_KUBELET: &str = "u@node$ ps auxw|grep kubelet
root      3392  1.1  0.8 186804 65208 ?        Sl   00:51  11:11 /usr/local/bin/kubelet --enable-debugging-handlers=true --config=/etc/kubernetes/manifests --allow-privileged=True --v=4 --cluster-dns=10.0.0.10 --cluster-domain=cluster.local --configure-cbr0=true --cgroup-root=/ --system-cgroups=/system --hairpin-mode=promiscuous-bridge --runtime-cgroups=/docker-daemon --kubelet-cgroups=/kubelet --babysit-daemons=true --max-pods=110 --serialize-image-pulls=false --outofdisk-transition-frequency=0
";

pub(crate) const KUBELET_LOG: &str =
    "I0629 00:51:43.648698    3252 kubelet.go:380] Hairpin mode set to \"promiscuous-bridge\"\n";

pub(crate) const IFCONFIG: &str = "u@node$ ifconfig cbr0 |grep PROMISC
UP BROADCAST RUNNING PROMISC MULTICAST  MTU:1460  Metric:1
";

pub(crate) const PROXY_LOG: &str = r#"I1027 22:14:53.995134    5063 server.go:200] Running in resource-only container "/kube-proxy"
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

pub(crate) const PORTALS: &str = r#"u@node$ iptables-save | grep hostnames
-A KUBE-PORTALS-CONTAINER -d 10.0.1.175/32 -p tcp -m comment --comment "default/hostnames:default" -m tcp --dport 80 -j REDIRECT --to-ports 48577
-A KUBE-PORTALS-HOST -d 10.0.1.175/32 -p tcp -m comment --comment "default/hostnames:default" -m tcp --dport 80 -j DNAT --to-destination 10.240.115.247:48577
"#;

pub(crate) const RULES: &str = r#"u@node$ iptables-save | grep hostnames
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

pub(crate) const VIRTUAL_SERVERS: &str = "u@node$ ipvsadm -ln
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
    pub(crate) fn new(mode: Mode) -> Self {
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
    pub(crate) fn set(&mut self, path: &str, text: &str) {
        self.files.retain(|(known, _)| known != path);
        self.files.push((path.to_owned(), text.to_owned()));
    }

    /// Changes a text of a file, which has to be there.
    pub(crate) fn edit(&mut self, path: &str, from: &str, to: &str) {
        let file = self.files.iter_mut().find(|(known, _)| known == path).unwrap();
        assert!(file.1.contains(from), "{path} has no {from:?}");
        file.1 = file.1.replace(from, to);
    }

    pub(crate) fn judge(&self) -> Diagnosis {
        self.judge_and_tell().0
    }

    /// Its files.
    pub(crate) fn files(&self) -> Vec<File> {
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
        files
    }

    /// The verdict, and what of the bundle was not used.
    pub(crate) fn judge_and_tell(&self) -> (Diagnosis, Vec<Problem>) {
        judge_files(Files {
            files: self.files(),
            problems: Vec::new(),
        })
    }
}

/// The verdict on a bundle, and what of it was not used.
pub(crate) fn judge_files(files: Files) -> (Diagnosis, Vec<Problem>) {
    let bundle = Bundle::of(files);
    let diagnosis = bundle.diagnosis("default", "hostnames");
    let (facts, problems) = facts(&bundle, &diagnosis, NOW.parse().unwrap());
    let problems = [bundle.problems, problems].concat();
    (diagnose(&facts), problems)
}

pub(crate) fn report(d: &Diagnosis) -> String {
    let stages = d.stages.iter();
    let lines = stages.map(|(c, f)| format!("{c:?} {:?} {:?}: {}", f.status(), f.reason, f.message));
    lines.collect::<Vec<_>>().join("\n")
}

/// The walk-through with something changed, and what it must come to.
#[track_caller]
pub(crate) fn fails(mode: Mode, condition: C, reason: R, change: impl FnOnce(&mut Page)) -> Diagnosis {
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

/// The walk-through with something changed, of which nobody may be blamed; what was told of it.
#[track_caller]
pub(crate) fn unblamed(mode: Mode, change: impl FnOnce(&mut Page)) -> (Diagnosis, String) {
    let mut page = Page::new(mode);
    change(&mut page);
    let (d, problems) = page.judge_and_tell();
    let root = d
        .root_cause
        .as_ref()
        .map(|r| format!("{}/{}", r.condition, r.reason));
    assert_eq!(root, None, "{}", report(&d));
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    (d, told.join("\n"))
}
