//! Rules that the sandbox writes, loaded into the kernel: no Service lacks anything, and they are those that
//! kube-proxy wrote for the same Services.

use std::{
    collections::BTreeMap,
    io,
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::{Value, json};
use svcdiag_sandbox::proxy::{Cluster, NodeView, ProxyMode, Script, cleanup, rules};

use super::{
    captures::{Backend, Capture, gaps},
    namespace::{feed, in_new_namespace, run},
};

/// What the API held when the rules were captured.
fn cluster(capture: &str) -> Cluster {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let text = std::fs::read_to_string(path.join(capture).join("api.json")).unwrap();
    let api: Value = serde_json::from_str(&text).unwrap();
    Cluster {
        services: of_kind(&api, "Service"),
        slices: of_kind(&api, "EndpointSlice"),
        service_cidrs: ["10.96.0.0/16", "fd00:10:96::/112"]
            .map(|cidr| cidr.parse().unwrap())
            .into(),
    }
}

fn of_kind<T: DeserializeOwned>(api: &Value, kind: &str) -> Vec<T> {
    let items = api["items"].as_array().unwrap().iter();
    let items = items.filter(|item| item["kind"] == kind).cloned();
    items.map(|item| serde_json::from_value(item).unwrap()).collect()
}

fn node(name: &str) -> NodeView {
    let number = name.strip_prefix("lab-").unwrap();
    NodeView {
        name: name.to_owned(),
        zone: None,
        ips: [format!("10.89.0.1{number}"), format!("fd00:89::1{number}")]
            .map(|ip| ip.parse().unwrap())
            .into(),
        cluster_cidrs: ["10.244.0.0/16", "fd00:10:244::/56"]
            .map(|cidr| cidr.parse().unwrap())
            .into(),
    }
}

fn run_all(scripts: &[Script]) {
    for script in scripts {
        let mut command = vec![script.program];
        command.extend(&script.args);
        feed(&command, &script.stdin);
    }
}

fn output(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// kube-proxy's tables in the namespace of the calling thread: what stands in each set, map and chain.
fn nftables() -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for family in ["ip", "ip6"] {
        let text = output(&["nft", "--json", "list", "table", family, "kube-proxy"]);
        let mut listing: Value = serde_json::from_str(&text).unwrap();
        for entry in listing["nftables"].as_array_mut().unwrap() {
            let (kind, object) = entry.as_object_mut().unwrap().iter_mut().next().unwrap();
            let kind = kind.clone();
            if kind == "metainfo" {
                continue;
            }
            object.as_object_mut().unwrap().remove("handle");
            if let Some(elements) = object["elem"].as_array_mut() {
                elements.sort_by_key(ToString::to_string);
            }
            if kind == "rule" {
                let chain = format!("{family} rules of {}", object["chain"].as_str().unwrap());
                let rules = all.entry(chain).or_insert_with(|| json!([]));
                rules.as_array_mut().unwrap().push(object.take());
            } else {
                all.insert(format!("{family} {kind} {}", object["name"]), object.take());
            }
        }
    }
    all
}

/// The two are the same; says where they are not.
fn assert_same(rendered: &BTreeMap<String, Value>, captured: &BTreeMap<String, Value>) {
    assert!(captured.len() > 15, "what kube-proxy wrote");
    let names = rendered.keys().chain(captured.keys());
    let differences: BTreeMap<&String, _> = names
        .map(|name| (name, (rendered.get(name), captured.get(name))))
        .filter(|(_, (rendered, captured))| rendered != captured)
        .collect();
    let text: Vec<String> = differences
        .iter()
        .map(|(name, (rendered, captured))| {
            let say = |v: &Option<&Value>| v.map_or("nothing".into(), ToString::to_string);
            format!(
                "{name}\n  rendered {}\n  captured {}",
                say(rendered),
                say(captured)
            )
        })
        .collect();
    assert!(text.is_empty(), "{}", text.join("\n"));
}

/// Renders the rules of a capture, loads them and audits them.
fn assert_complete(capture: &Capture, mode: ProxyMode, cluster: &Cluster, node: &NodeView) {
    run_all(&rules(mode, cluster, node));
    let expected = capture.expected();
    assert!(expected.len() > 30, "ports of Services that were audited");
    let found = gaps(capture.open().as_ref(), &expected);
    assert!(found.is_empty(), "{mode}: {found:#?}");
}

#[test]
fn the_rules_of_nftables_mode_are_those_of_kube_proxy() {
    for (name, node_name) in [("nftables", "lab-1"), ("lab-2-nftables", "lab-2")] {
        let capture = Capture::load(name, node_name, Backend::Nftables);
        let (cluster, node) = (cluster(name), node(node_name));
        let rendered = in_new_namespace(|| {
            assert_complete(&capture, ProxyMode::Nftables, &cluster, &node);
            nftables()
        });
        let captured = in_new_namespace(|| {
            capture.apply_all();
            nftables()
        });
        assert_same(&rendered, &captured);
    }
}

#[test]
fn the_rules_of_early_nftables_mode_are_complete() {
    for (name, node_name) in [("nftables", "lab-1"), ("lab-2-nftables", "lab-2")] {
        let capture = Capture::load(name, node_name, Backend::Nftables);
        let (cluster, node) = (cluster(name), node(node_name));
        in_new_namespace(|| assert_complete(&capture, ProxyMode::NftablesOld, &cluster, &node));
    }
}

/// The rules in the namespace of the calling thread, by table and chain, without those of kubelet.
fn iptables(save: &str) -> BTreeMap<String, Value> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in output(&[save]).lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some(chain) = words[0].strip_prefix(':') {
            all.entry(format!("{table} {chain}")).or_default();
        } else if words[0] == "-A" && !line.ends_with("-j KUBE-FIREWALL") {
            let rules = all.entry(format!("{table} {}", words[1])).or_default();
            rules.push(line.to_owned());
        }
    }
    let kubelet = ["KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT"];
    all.retain(|chain, rules| {
        let is_kubelet = kubelet.iter().any(|theirs| chain.ends_with(theirs));
        !is_kubelet && (chain.contains(" KUBE-") || !rules.is_empty())
    });
    for (chain, rules) in &mut all {
        // kube-proxy goes through the Services in no order.
        if ["-SERVICES", "-NODEPORTS"].iter().any(|hub| chain.ends_with(hub)) {
            rules.sort();
        }
        if chain.ends_with("KUBE-NODEPORTS") {
            // Where it can count them, kube-proxy has the packets to loopback a rule of their own.
            rules.retain(|rule| !rule.contains("-d 127.0.0.0/8"));
        }
    }
    all.into_iter()
        .map(|(chain, rules)| (chain, json!(rules)))
        .collect()
}

fn assert_as_kube_proxy(name: &str, node_name: &'static str, mode: ProxyMode) {
    let (backend, saves) = match mode {
        ProxyMode::IptablesLegacy => (
            Backend::IptablesLegacy,
            ["iptables-legacy-save", "ip6tables-legacy-save"],
        ),
        _ => (Backend::IptablesNft, ["iptables-nft-save", "ip6tables-nft-save"]),
    };
    let capture = Capture::load(name, node_name, backend);
    let (cluster, node) = (cluster(name), node(node_name));
    let rendered = in_new_namespace(|| {
        assert_complete(&capture, mode, &cluster, &node);
        saves.map(iptables)
    });
    let captured = in_new_namespace(|| {
        capture.apply_all();
        saves.map(iptables)
    });
    assert_same(&rendered[0], &captured[0]);
    if capture.rules_v6.is_some() {
        assert_same(&rendered[1], &captured[1]);
    }
}

#[test]
fn the_rules_of_iptables_mode_are_those_of_kube_proxy() {
    assert_as_kube_proxy("iptables", "lab-1", ProxyMode::Iptables);
    assert_as_kube_proxy("lab-2-iptables", "lab-2", ProxyMode::Iptables);
    assert_as_kube_proxy("iptables-legacy", "lab-2", ProxyMode::IptablesLegacy);
}

#[test]
fn the_rules_of_iptables_mode_with_many_endpoints_are_those_of_kube_proxy() {
    assert_as_kube_proxy("iptables-large", "lab-2", ProxyMode::Iptables);
}

/// What others than kube-proxy have in a namespace.
const FOREIGN_IPTABLES: &str = "\
*nat
:KUBE-KUBELET-CANARY - [0:0]
:OTHERS - [0:0]
-A POSTROUTING -s 10.244.0.0/16 -j OTHERS
-A OTHERS -j RETURN
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m comment --comment \"of kubelet\" -j DROP
COMMIT
";

/// A few Services of a cluster, and no others.
fn only(cluster: &Cluster, services: &[&str]) -> Cluster {
    let mut fewer = cluster.clone();
    fewer
        .services
        .retain(|s| services.contains(&s.metadata.name.as_deref().unwrap()));
    fewer
}

#[test]
fn a_sync_replaces_what_an_earlier_one_wrote_and_a_cleanup_removes_it_all() {
    let cluster = cluster("iptables");
    let node = node("lab-1");
    for (mode, restore, saves) in [
        (
            ProxyMode::Iptables,
            "iptables-nft-restore",
            ["iptables-nft-save", "ip6tables-nft-save"],
        ),
        (
            ProxyMode::IptablesLegacy,
            "iptables-legacy-restore",
            ["iptables-legacy-save", "ip6tables-legacy-save"],
        ),
    ] {
        let state = || saves.map(|save| without_comments(&output(&[save])));
        let after = |syncs: &[&Cluster]| {
            in_new_namespace(|| {
                feed(&[restore], FOREIGN_IPTABLES);
                let before = state();
                for cluster in syncs {
                    run_all(&rules(mode, cluster, &node));
                }
                let synced = state();
                run_all(&cleanup(mode));
                let after = state();
                assert_eq!(without_empty(&after[0]), without_empty(&before[0]), "{mode}");
                assert_eq!(without_empty(&after[1]), "", "{mode}");
                synced
            })
        };
        let few = only(&cluster, &["plain", "lb-ranges"]);
        let once = after(&[&few]);
        // Without a Service that has an IPv6 address no table of IPv6 comes into being.
        assert_eq!(once[1], "", "{mode}");
        let again = after(&[&few, &cluster, &few, &few]);
        assert_eq!(again[0], once[0], "{mode}");
        assert_eq!(without_empty(&again[1]), "", "{mode}");
    }
}

#[test]
fn a_sync_of_nftables_mode_replaces_what_was_there_and_leaves_the_rest() {
    let cluster = cluster("nftables");
    let node = node("lab-1");
    let few = only(&cluster, &["plain", "sticky"]);
    let foreign = "table ip others {\n\tchain c {\n\t\tcounter packets 0 bytes 0 drop\n\t}\n}\n";
    let after = |syncs: &[(ProxyMode, &Cluster)]| {
        in_new_namespace(|| {
            feed(&["nft", "-f", "-"], foreign);
            for (mode, cluster) in syncs {
                run_all(&rules(*mode, cluster, &node));
            }
            let synced = output(&["nft", "list", "ruleset"]);
            run_all(&cleanup(ProxyMode::Nftables));
            assert_eq!(output(&["nft", "list", "ruleset"]), foreign);
            synced
        })
    };
    let once = after(&[(ProxyMode::Nftables, &few)]);
    assert!(once.contains("table ip kube-proxy"));
    assert!(!once.contains("table ip6 kube-proxy"));
    let all = [
        (ProxyMode::Nftables, &cluster),
        (ProxyMode::NftablesOld, &cluster),
        (ProxyMode::Nftables, &few),
    ];
    assert_eq!(after(&all), once);
}

/// A saved ruleset without what differs from one time to the next.
fn without_comments(saved: &str) -> String {
    let lines = saved.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| format!("{line}\n")).collect()
}

/// A saved ruleset without base chains that hold nothing and tables that hold nothing else.
fn without_empty(saved: &str) -> String {
    let is_frame = |line: &&str| {
        line.starts_with('*') || *line == "COMMIT" || (line.starts_with(':') && !line.contains(" - "))
    };
    let lines = saved.lines().filter(|line| !is_frame(line));
    lines.map(|line| format!("{line}\n")).collect()
}

/// What becomes of a connection within half a second.
fn dial(address: &str) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_millis(500))
}

#[test]
fn connections_go_where_the_rules_send_them() {
    let capture = "lab-2-nftables";
    let (cluster, node) = (cluster(capture), node("lab-2"));
    for mode in ProxyMode::ALL {
        in_new_namespace(|| {
            // A Pod of the other node is here; the rules do not know.
            run("ip link set lo up
                 ip link add eth0 type veth peer name uplink
                 ip link set uplink up
                 ip link set eth0 up
                 ip addr add 10.89.0.12/24 dev eth0
                 ip addr add 10.244.0.10/32 dev lo
                 ip route add default via 10.89.0.1");
            let pod = TcpListener::bind("10.244.0.10:9376").unwrap();
            run_all(&rules(mode, &cluster, &node));
            // Services solo, np-local at its NodePort, and lb-local at its load balancer's address: the node
            // itself is let past their Local policies.
            for address in ["10.96.153.223:80", "10.89.0.12:30086", "198.51.100.52:80"] {
                dial(address).unwrap_or_else(|e| panic!("{mode}: {address}: {e}"));
                pod.accept().unwrap();
            }
            // no-endpoints at its address, no-endpoints-nodeport at its NodePort.
            for address in ["10.96.16.223:80", "10.89.0.12:30085"] {
                let error = dial(address).unwrap_err();
                assert_eq!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused,
                    "{mode}: {address}"
                );
            }
            // itp-local, which has no endpoint on this node.
            let error = dial("10.96.45.225:80").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{mode}");
            run_all(&cleanup(mode));
            assert!(dial("10.96.153.223:80").is_err(), "{mode}");
        });
    }
}
