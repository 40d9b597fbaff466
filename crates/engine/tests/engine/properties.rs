//! What holds for all Facts, however odd.

use std::sync::Arc;

use jiff::SignedDuration;
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};
use svcdiag_api::{
    Answer, Arrivals, Arrived, CLibrary, Carrier, ConditionType, Departure, DialCount, DialFailure, DialPath,
    DirectDial, DnsServer, DropCause, DropPlace, Dropper, DropperEvidence, FilterFamily, FilterHook,
    FilterTool, GapKind, Hairpin, KubeProxy, Left, LinkMtu, LinkRole, ListeningSocket, Lookup, LookupResult,
    LossCounter, LossCounterName, LossyPath, NodeFacts, NodeSettings, OtherNodePort, PacketDrop, PacketSize,
    PathLoss, PodListeners, PortProtocol, PortState, Protocol, Resolver, RuleGap, Rules, RunsAs,
    StaleConnection, Tunnel, TunnelKind, WatchState, WrongNeighbour,
};
use svcdiag_engine::{Facts, NodeReport, OtherService, ProbeReport, Verdict, diagnose};
use svcdiag_objects::{EndpointSlice, IpFamily, NetworkPolicy, Pod, Service};

use crate::{
    agents::{CLIENT, agent},
    fixtures::E2,
    walkthrough::*,
};

/// Strings that mean something somewhere, and some that mean nothing.
fn word() -> impl Strategy<Value = String> {
    select(vec![
        "",
        "app",
        "hostnames",
        "web",
        "client",
        "9376",
        "default",
        "shop",
        "kube-system",
        "n1",
        "é\u{301}",
        "'`$(x)",
    ])
    .prop_map(str::to_owned)
}

fn address() -> impl Strategy<Value = String> {
    select(vec![
        "",
        "10.244.1.5",
        "fd00::1",
        "None",
        "999.1.1.1",
        "10.0.0.0/8",
        "::/0",
        "10.0.0.0/99",
        "/",
    ])
    .prop_map(str::to_owned)
}

fn number() -> impl Strategy<Value = i32> {
    select(vec![0, 1, 53, 80, 9376, 65535, -1, i32::MAX, i32::MIN])
}

fn time() -> impl Strategy<Value = String> {
    prop_oneof![9 => (-4000_i64..100).prop_map(|s| ago(-s)), 1 => Just("9999-12-01T00:00:00Z".to_owned())]
}

fn labels() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map(word(), word(), 0..3).prop_map(|m| json!(m))
}

fn selector() -> impl Strategy<Value = Value> {
    (
        labels(),
        vec(
            (
                word(),
                select(vec!["In", "NotIn", "Exists", "DoesNotExist"]),
                vec(word(), 0..2),
            ),
            0..2,
        ),
    )
        .prop_map(|(labels, expressions)| {
            let expressions: Vec<Value> = expressions
                .into_iter()
                .map(|(key, operator, values)| json!({ "key": key, "operator": operator, "values": values }))
                .collect();
            json!({ "matchLabels": labels, "matchExpressions": expressions })
        })
}

fn port_ref() -> impl Strategy<Value = Value> {
    prop_oneof![number().prop_map(|n| json!(n)), word().prop_map(|w| json!(w))]
}

fn protocol() -> impl Strategy<Value = Value> {
    select(vec![
        json!(null),
        json!("TCP"),
        json!("UDP"),
        json!("SCTP"),
        json!("?"),
    ])
}

fn meta(namespace: &'static str) -> impl Strategy<Value = Value> {
    (word(), labels(), option::of(time()), option::of(time()), word()).prop_map(
        move |(name, labels, created, deleted, uid)| {
            json!({ "name": name, "namespace": namespace, "uid": uid, "labels": labels,
            "creationTimestamp": created, "deletionTimestamp": deleted })
        },
    )
}

fn service() -> impl Strategy<Value = Service> {
    let port = (word(), protocol(), number(), option::of(port_ref()))
        .prop_map(|(name, protocol, port, target)| json!({ "name": name, "protocol": protocol, "port": port, "targetPort": target }));
    let type_ = select(vec![
        json!(null),
        json!("ClusterIP"),
        json!("ExternalName"),
        json!("LoadBalancer"),
    ]);
    (meta(NS), labels(), vec(port, 0..3), type_, address(), any::<bool>(), option::of(address()), vec(select(vec!["IPv4", "IPv6"]), 0..2))
        .prop_map(|(meta, selector, ports, type_, ip, local, external, families)| {
            object(json!({ "metadata": meta, "spec": {
                "selector": selector, "ports": ports, "type": type_, "clusterIP": ip, "clusterIPs": [ip], "externalName": external,
                "ipFamilies": families, "internalTrafficPolicy": if local { "Local" } else { "Cluster" },
            } }))
        })
}

fn container_status() -> impl Strategy<Value = Value> {
    let state = prop_oneof![
        select(vec![
            "CrashLoopBackOff",
            "ErrImagePull",
            "ContainerCreating",
            "CreateContainerConfigError",
            ""
        ])
        .prop_map(|r| json!({ "waiting": { "reason": r } })),
        time().prop_map(|t| json!({ "running": { "startedAt": t } })),
        (number(), option::of(time()))
            .prop_map(|(code, t)| json!({ "terminated": { "exitCode": code, "finishedAt": t } })),
        Just(json!({})),
    ];
    (state.clone(), state, any::<bool>(), option::of(any::<bool>()), number()).prop_map(|(state, last, ready, started, restarts)| {
        json!({ "name": "app", "state": state, "lastState": last, "ready": ready, "started": started, "restartCount": restarts })
    })
}

fn pod_of(namespace: &'static str) -> impl Strategy<Value = Pod> {
    let condition = (
        select(vec!["Ready", "ContainersReady", "PodScheduled"]),
        select(vec!["True", "False", "Unknown"]),
        option::of(time()),
    )
        .prop_map(|(type_, status, at)| json!({ "type": type_, "status": status, "lastTransitionTime": at }));
    let port = (word(), number(), protocol())
        .prop_map(|(name, n, p)| json!({ "name": name, "containerPort": n, "protocol": p }));
    let probe = || {
        option::of((number(), number(), number())).prop_map(|p| {
            p.map(|(delay, period, failures)| json!({ "initialDelaySeconds": delay, "periodSeconds": period, "failureThreshold": failures }))
        })
    };
    (
        (meta(namespace), select(vec!["Running", "Pending", "Failed", ""]), address(), vec(condition, 0..4)),
        (vec(container_status(), 0..2), vec(container_status(), 0..2), vec(port, 0..2), probe(), probe(), option::of(word()), any::<bool>()),
    )
        .prop_map(|((meta, phase, ip, conditions), (statuses, init, ports, startup, readiness, node, host))| {
            object(json!({
                "metadata": meta,
                "spec": { "nodeName": node, "hostNetwork": host, "initContainers": [{ "name": "app" }],
                    "containers": [{ "name": "app", "ports": ports, "startupProbe": startup, "readinessProbe": readiness }] },
                "status": { "phase": phase, "podIP": ip, "conditions": conditions, "containerStatuses": statuses, "initContainerStatuses": init },
            }))
        })
}

fn slice_() -> impl Strategy<Value = EndpointSlice> {
    let endpoint = (vec(address(), 0..2), option::of(any::<bool>()), option::of(any::<bool>()), option::of(any::<bool>()), option::of(word()))
        .prop_map(|(addresses, ready, serving, terminating, uid)| {
            json!({ "addresses": addresses, "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
                "targetRef": uid.map(|uid| json!({ "kind": "Pod", "uid": uid })) })
        });
    let port = (word(), option::of(number()), protocol())
        .prop_map(|(name, n, p)| json!({ "name": name, "port": n, "protocol": p }));
    (
        meta(NS),
        vec(endpoint, 0..3),
        vec(port, 0..2),
        select(vec!["IPv4", "IPv6", "FQDN", ""]),
    )
        .prop_map(|(meta, endpoints, ports, family)| {
            object(json!({ "metadata": meta, "endpoints": endpoints, "ports": ports, "addressType": family }))
        })
}

fn network_policy() -> impl Strategy<Value = NetworkPolicy> {
    let peer = (
        option::of(selector()),
        option::of(selector()),
        option::of((address(), vec(address(), 0..2))),
    )
        .prop_map(|(pods, namespaces, block)| {
            json!({ "podSelector": pods, "namespaceSelector": namespaces,
                "ipBlock": block.map(|(cidr, except)| json!({ "cidr": cidr, "except": except })) })
        });
    let port = (option::of(port_ref()), option::of(number()), protocol())
        .prop_map(|(port, end, protocol)| json!({ "port": port, "endPort": end, "protocol": protocol }));
    let rules = vec((vec(peer, 0..2), vec(port, 0..2)), 0..2);
    (meta(NS), selector(), rules, vec(select(vec!["Ingress", "Egress"]), 0..2)).prop_map(|(meta, selector, rules, types)| {
        let ingress: Vec<Value> = rules.iter().map(|(peers, ports)| json!({ "from": peers, "ports": ports })).collect();
        let egress: Vec<Value> = rules.iter().map(|(peers, ports)| json!({ "to": peers, "ports": ports })).collect();
        object(json!({ "metadata": meta, "spec": { "podSelector": selector, "ingress": ingress, "egress": egress, "policyTypes": types } }))
    })
}

/// A value of one of our enums.
fn one_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    select(all)
}

fn key() -> impl Strategy<Value = String> {
    select(vec![
        "shop/client",
        "shop/hostnames-632524106-bbpiw",
        "shop/",
        "nonsense",
    ])
    .prop_map(str::to_owned)
}

fn socket() -> impl Strategy<Value = String> {
    select(vec![
        "10.244.1.5:9376",
        "10.244.2.6:9376",
        "10.244.9.9:1",
        "10.96.1.175:80",
        "10.96.1.175:80/TCP",
        "node port 80/TCP",
        "[fd00::1]:80",
        "",
        "x:y",
    ])
    .prop_map(str::to_owned)
}

fn service_port() -> impl Strategy<Value = PortProtocol> {
    select(vec!["80/TCP", "80/UDP", "53/UDP", "0/SCTP"]).prop_map(|port| port.parse().unwrap())
}

fn dial_count() -> impl Strategy<Value = DialCount> {
    (
        option::of(key()),
        one_of(DialPath::ALL),
        service_port(),
        option::of(any::<bool>()),
        0_u32..4,
        select(vec![0, 1, 3, u32::MAX]),
    )
        .prop_map(|(from, path, port, same_node, made, failed)| DialCount {
            from,
            path,
            port,
            family: IpFamily::V4,
            same_node,
            made,
            failed,
        })
}

fn dial_failure() -> impl Strategy<Value = DialFailure> {
    let more = (
        option::of(socket()),
        option::of(any::<bool>()),
        any::<bool>(),
        option::of(word()),
    );
    (
        option::of(key()),
        one_of(DialPath::ALL),
        service_port(),
        socket(),
        one_of(Answer::ALL),
        more,
    )
        .prop_map(
            |(from, path, port, target, answer, (endpoint, same_node, same_bridge, detail))| DialFailure {
                from,
                path,
                port,
                target,
                endpoint,
                same_node,
                same_bridge,
                answer,
                detail,
            },
        )
}

fn resolver() -> impl Strategy<Value = Resolver> {
    let name = select(vec![
        "hostnames",
        "hostnames.shop",
        "hostnames.shop.svc.cluster.local",
        "kubernetes.default",
        "",
    ]);
    let lookup = (
        name,
        one_of(LookupResult::ALL),
        vec(address(), 0..3),
        select(vec![0, 30, u32::MAX]),
        option::of(select(vec![
            "hostnames.shop.shop.svc.cluster.local",
            "hostnames.",
            "",
        ])),
    )
        .prop_map(|(name, result, addresses, ttl_seconds, found_as)| Lookup {
            name: name.into(),
            result,
            code: (result == LookupResult::Failed && ttl_seconds == 0).then(|| "SERVFAIL".to_owned()),
            found_as: found_as.map(str::to_owned),
            addresses,
            ttl_seconds,
        });
    let search = vec(
        select(vec!["shop.svc.cluster.local", "svc.cluster.local", "."]).prop_map(str::to_owned),
        0..3,
    );
    (
        key(),
        vec(address(), 0..2),
        search,
        0_u8..8,
        one_of(CLibrary::ALL),
        any::<bool>(),
        vec(lookup, 0..5),
    )
        .prop_map(
            |(pod, servers, search, ndots, c_library, uses_short_name, lookups)| Resolver {
                pod,
                servers,
                search,
                ndots,
                rotate: ndots == 7,
                c_library,
                uses_short_name,
                lookups,
            },
        )
}

fn dns_server() -> impl Strategy<Value = DnsServer> {
    (
        option::of(key()),
        address(),
        any::<bool>(),
        one_of(LookupResult::ALL),
        one_of(LookupResult::ALL),
    )
        .prop_map(|(from, server, endpoint, control, result)| DnsServer {
            from,
            server,
            endpoint,
            control,
            result,
            code: (result == LookupResult::Failed).then(|| "REFUSED".to_owned()),
            domain: (control == LookupResult::NotFound).then(|| "corp.local".to_owned()),
        })
}

fn kube_proxy() -> impl Strategy<Value = KubeProxy> {
    let words = (
        option::of(select(vec!["iptables", "ipvs", ""])),
        option::of(Just("kube-proxy")),
        option::of(Just("cilium")),
    );
    (
        words,
        one_of(PortState::ALL),
        one_of(PortState::ALL),
        any::<(bool, bool, bool)>(),
        (
            option::of(one_of(RunsAs::ALL)),
            option::of(word()),
            option::of(word()),
            option::of(word()),
        ),
    )
        .prop_map(
            |(
                (mode, process, replacement),
                livez,
                metrics,
                (processes_unread, not_syncing, api_unreachable),
                (runs_as, node_name, sync_error, denied),
            )| KubeProxy {
                mode: mode.map(Into::into),
                process: process.map(Into::into),
                replacement: replacement.map(Into::into),
                processes_unread,
                livez,
                metrics,
                runs_as,
                unit: runs_as.map(|_| "kube-proxy.service".to_owned()),
                node_name,
                not_syncing,
                sync_error,
                api_unreachable,
                denied,
            },
        )
}

fn rules() -> impl Strategy<Value = Rules> {
    let gap = (one_of(GapKind::ALL), socket(), option::of(socket()), word()).prop_map(
        |(kind, destination, endpoint, detail)| RuleGap {
            kind,
            destination,
            endpoint,
            detail,
        },
    );
    (
        select(vec!["nftables", "iptables", "iptables-legacy"]),
        0_u32..3,
        vec(gap, 0..3),
        option::of(select(vec!["iptables-legacy", "nftables"])),
    )
        .prop_map(|(layout, compared, gaps, conflict)| Rules {
            layout: layout.into(),
            compared,
            gaps,
            conflict: conflict.map(Into::into),
        })
}

fn hairpin() -> impl Strategy<Value = Hairpin> {
    let answer = option::of(one_of(Answer::ALL));
    (
        key(),
        socket(),
        answer,
        option::of(any::<bool>()),
        option::of(any::<bool>()),
    )
        .prop_map(|(pod, target, answer, hairpin_mode, masqueraded)| Hairpin {
            pod,
            target,
            answer,
            bridge_port: None,
            hairpin_mode,
            masqueraded,
        })
}

fn dropper() -> impl Strategy<Value = Dropper> {
    let kinds = (
        one_of(DropperEvidence::ALL),
        one_of(FilterTool::ALL),
        one_of(FilterFamily::ALL),
        one_of(FilterHook::ALL),
    );
    let names = (word(), word(), word(), option::of(word()));
    let numbers = (
        number(),
        any::<bool>(),
        option::of(0_u32..4),
        option::of(0_u32..4),
    );
    (kinds, names, numbers).prop_map(
        |(
            (evidence, tool, family, hook),
            (table, chain, base_chain, text),
            (priority, is_policy, rule, rose),
        )| {
            Dropper {
                evidence,
                tool,
                family,
                table,
                chain,
                base_chain,
                hook,
                priority,
                is_policy,
                rule,
                text,
                rose,
            }
        },
    )
}

fn packet_drop() -> impl Strategy<Value = PacketDrop> {
    let places = (one_of(DropCause::ALL), one_of(DropPlace::ALL), any::<bool>());
    let ends = (
        option::of(key()),
        one_of(Protocol::ALL),
        socket(),
        option::of(socket()),
    );
    let kernel = (
        option::of(word()),
        word(),
        option::of(word()),
        option::of((word(), word(), any::<u16>())),
        0_u32..4,
        vec(dropper(), 0..3),
    );
    (ends, places, kernel).prop_map(
        |(
            (from, protocol, target, endpoint),
            (cause, place, answers),
            (interface, reason, function, carrier, packets, droppers),
        )| {
            PacketDrop {
                from,
                protocol,
                target,
                endpoint,
                answers,
                cause,
                place,
                interface,
                reason,
                function,
                carrier: carrier.map(|(from, to, port)| Carrier { from, to, port }),
                packets,
                droppers,
            }
        },
    )
}

fn packet_size() -> impl Strategy<Value = PacketSize> {
    let link = (
        one_of(LinkRole::ALL),
        word(),
        any::<u32>(),
        option::of(one_of(TunnelKind::ALL)),
    )
        .prop_map(|(role, name, mtu, tunnel)| LinkMtu {
            role,
            name,
            mtu,
            tunnel,
        });
    let to = select(vec!["10.244.2.6", "10.244.3.7", "10.244.1.5", "x"]).prop_map(str::to_owned);
    ((key(), to), 0_u16..2000, 0_u16..2000, vec(link, 0..4)).prop_map(|((from, to), passes, fails, links)| {
        PacketSize {
            from,
            to,
            passes,
            fails,
            links,
        }
    })
}

fn settings() -> impl Strategy<Value = NodeSettings> {
    vec(option::of(any::<bool>()), 6).prop_map(|s| NodeSettings {
        ipv4_forwarding: s[0],
        ipv6_forwarding: s[1],
        bridge_netfilter: s[2],
        forward_drops: s[3],
        conntrack_full: s[4],
        reverse_path_drops: s[5],
        dead_ends: Vec::new(),
    })
}

prop_compose! {
    fn path_loss()(
        from in option::of(key()),
        path in one_of(LossyPath::ALL),
        tries in 0_u32..100,
        lost in 0_u32..100,
        counters in vec((option::of(key()), one_of(LossCounterName::ALL), any::<u32>(), any::<u32>()), 0..4),
    ) -> PathLoss {
        let counters = counters.into_iter().map(|(pod, counter, rose, rounds)| LossCounter { pod, counter, rose, rounds });
        PathLoss { from, path, tries, lost, counters: counters.collect() }
    }
}

prop_compose! {
    fn node_facts()(
        dials in vec(dial_count(), 0..6),
        failures in vec(dial_failure(), 0..6),
        listeners in vec((key(), address(), vec((select(vec!["TCP", "UDP", "?"]), address(), select(vec![0, 80, 9376])), 0..3)), 0..3),
        resolvers in vec(resolver(), 0..3),
        dns_servers in vec(dns_server(), 0..4),
        kube_proxy in option::of(kube_proxy().boxed()),
        rules in option::of(rules().boxed()),
        hairpins in vec(hairpin(), 0..3),
        intercepted in vec(key(), 0..2),
        stale in vec((socket(), socket(), socket()), 0..2),
        settings in settings(),
        drops in vec(packet_drop().boxed(), 0..4),
        losses in vec(path_loss().boxed(), 0..3),
        node_ports in vec((word(), socket(), one_of(Answer::ALL)), 0..3),
        tunnels in option::of(vec((word(), one_of(TunnelKind::ALL), option::of(any::<u16>())), 0..3)),
        packet_sizes in vec(packet_size().boxed(), 0..3),
        arrivals in option::of((one_of(WatchState::ALL), 0_u32..3, 0_u32..3, 0_u32..3, option::of(word()))).boxed(),
        arrival_drops in vec(packet_drop().boxed(), 0..2),
        left in vec((0_u32..3, 0_u32..3, option::of(word())), 0..2),
        departures in vec((any::<bool>(), address(), address(), option::of((one_of(Answer::ALL), address()))), 0..2),
        neighbours in vec((any::<bool>(), address(), word(), word()), 0..2),
        problems in vec(word(), 0..2),
    ) -> NodeFacts {
        NodeFacts {
            probes_made: 1,
            probes_failed: 0,
            slices: Vec::new(),
            arrivals: arrivals.map(|(state, arrived, answered, returned, interface)| Arrivals {
                token: "t".to_owned(),
                id: "w".to_owned(),
                state,
                dials: vec![Arrived {
                    from: CLIENT.to_owned(),
                    protocol: Protocol::Tcp,
                    endpoint: E2.to_owned(),
                    arrived,
                    interface: interface.clone(),
                    direct: false,
                    carrier: None,
                    carried: 0,
                    answered,
                    returned,
                    return_interface: interface,
                }],
            }),
            arrival_drops: arrival_drops.into_iter().map(|drop| PacketDrop {
                from: Some(CLIENT.to_owned()),
                protocol: Protocol::Tcp,
                target: E2.to_owned(),
                endpoint: Some(E2.to_owned()),
                ..drop
            }).collect(),
            repeated: "w".to_owned(),
            left: left.into_iter().map(|(sent, answers, interface)| Left {
                from: CLIENT.to_owned(),
                protocol: Protocol::Tcp,
                endpoint: E2.to_owned(),
                sent,
                interface: interface.clone(),
                answers,
                answer_interface: interface,
            }).collect(),
            departures: departures.into_iter().map(|(from, source, left_as, direct)| Departure {
                from: from.then(|| CLIENT.to_owned()),
                target: crate::agents::VIP.to_owned(),
                endpoint: E2.to_owned(),
                source,
                left_as,
                direct: direct.map(|(answer, source)| DirectDial { answer, source }),
            }).collect(),
            wrong_neighbours: neighbours.into_iter().map(|(from, ip, sent_to, own)| WrongNeighbour {
                from: from.then(|| CLIENT.to_owned()),
                pod: "shop/hostnames-632524106-ly40y".to_owned(),
                ip,
                sent_to,
                own,
            }).collect(),
            dials, failures, drops, losses, packet_sizes, resolvers, dns_servers, kube_proxy, rules, hairpins, intercepted, settings, problems,
            listeners: listeners.into_iter().map(|(pod, ip, sockets)| PodListeners {
                pod,
                ips: vec![ip],
                sockets: sockets.into_iter().map(|(protocol, address, port)| ListeningSocket { protocol: protocol.into(), address, port }).collect(),
            }).collect(),
            tunnels: tunnels.map(|all| all.into_iter().map(|(name, kind, port)| Tunnel { name, kind, port }).collect()),
            other_node_ports: node_ports.into_iter().map(|(node, target, answer)| OtherNodePort { node, port: "80/TCP".parse().unwrap(), target, answer }).collect(),
            stale_connections: stale.into_iter().map(|(destination, endpoint, source)| StaleConnection { destination, endpoint, source }).collect(),
        }
    }
}

/// A node with an agent in any state: dead or alive, asked or not, with an answer or not.
fn node_report(name: &'static str) -> impl Strategy<Value = NodeReport> {
    let seen = option::of((any::<bool>(), option::of(0_i64..100), option::of(node_facts())));
    (option::of(-50_i64..500), seen).prop_map(move |(alive, seen)| NodeReport {
        alive_until: alive.map(|s| now() + SignedDuration::from_secs(s)),
        probe: seen.map(|(is_current, owed, facts)| Box::new(ProbeReport {
            asked: object(json!({ "nodeName": name, "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "hostnames",
                "intervalSeconds": 60, "fromNode": true,
                "arrivals": { "token": "t", "ended": "w", "dials": [{ "from": CLIENT, "node": "n1", "ip": "10.244.1.9",
                    "protocol": "TCP", "endpoint": E2 }] } })),
            is_current,
            question: String::new(),
            owed_since: owed.map(|s| now() - SignedDuration::from_secs(s)),
            facts: facts.map(Arc::new),
        })),
        ..agent(name)
    })
}

prop_compose! {
    /// Agents of up to three nodes.
    fn agents()(n1 in option::of(node_report("n1")), n2 in option::of(node_report("n2")), n3 in option::of(node_report("n3"))) -> Vec<NodeReport> {
        [n1, n2, n3].into_iter().flatten().collect()
    }
}

prop_compose! {
    /// Facts of all sorts, near enough to the walk-through that the stages have something to judge.
    fn facts()(
        service in option::of(service()),
        walkthrough in any::<bool>(),
        pods in vec(pod_of(NS), 0..5),
        slices in vec(slice_(), 0..3),
        policies in vec(network_policy(), 0..4),
        dns in vec(pod_of("kube-system"), 0..2),
        ports in vec(port_ref(), 0..2),
        clients in option::of(selector()),
        names in vec(word(), 0..3),
        not_ready in option::of(time()),
        nodes in agents(),
    ) -> Facts {
        let mut facts = healthy();
        facts.nodes = nodes;
        facts.pods.extend(pods.into_iter().map(Arc::new));
        facts.slices.extend(slices.into_iter().map(Arc::new));
        facts.policies = policies.into_iter().map(Arc::new).collect();
        facts.cluster_dns.as_mut().unwrap().pods.extend(dns.into_iter().map(Arc::new));
        facts.other_services = names
            .iter()
            .map(|name| OtherService { name: name.clone(), selector: Default::default() })
            .collect();
        facts.selected_elsewhere = names.clone();
        facts.namesakes = names;
        facts.not_ready_since = not_ready.and_then(|t| t.parse().ok());
        patch(&mut facts.spec, json!({ "ports": ports, "clients": { "podSelector": clients } }));
        if !walkthrough {
            facts.service = service.map(Arc::new);
        }
        facts
    }
}

fn shuffled(mut facts: Facts) -> Facts {
    facts.pods.reverse();
    facts.slices.reverse();
    facts.policies.reverse();
    facts.deployments.reverse();
    facts.namespaces.reverse();
    facts.other_services.reverse();
    facts.selected_elsewhere.reverse();
    facts.namesakes.reverse();
    facts.spec.ports.reverse();
    facts.cluster_dns.as_mut().unwrap().pods.reverse();
    facts.nodes.reverse();
    for node in &mut facts.nodes {
        let Some(seen) = node
            .probe
            .as_mut()
            .and_then(|p| p.facts.as_mut())
            .map(Arc::make_mut)
        else {
            continue;
        };
        seen.dials.reverse();
        seen.failures.reverse();
        seen.drops.reverse();
        seen.packet_sizes.reverse();
        seen.listeners.reverse();
        seen.resolvers.reverse();
        seen.dns_servers.reverse();
        seen.hairpins.reverse();
        seen.intercepted.reverse();
        seen.stale_connections.reverse();
        seen.problems.reverse();
        if let Some(rules) = &mut seen.rules {
            rules.gaps.reverse();
        }
    }
    let mid = facts.pods.len() / 2;
    facts.pods.rotate_left(mid);
    facts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn diagnose_is_total_and_consistent(facts in facts()) {
        let diagnosis = diagnose(&facts);
        prop_assert_eq!(diagnosis.stages.len(), ConditionType::stages().len());
        let any_false = diagnosis.stages.iter().any(|(_, f)| matches!(f.verdict, Verdict::False { .. }));
        prop_assert_eq!(any_false, diagnosis.root_cause.is_some());
        prop_assert_eq!(any_false, diagnosis.ready.status.as_str() == "False");
        prop_assert!(diagnosis.reconciling.is_none() || diagnosis.stalled.is_none());
        prop_assert!(diagnosis.observations.len() <= 32);
        prop_assert!(diagnosis.recheck_at.is_none_or(|at| at > facts.now));
        for (_, finding) in &diagnosis.stages {
            prop_assert!(!finding.message.is_empty());
        }
    }

    #[test]
    fn the_order_of_lists_changes_nothing(facts in facts()) {
        prop_assert_eq!(diagnose(&facts), diagnose(&shuffled(facts)));
    }

    #[test]
    fn facts_survive_a_json_round_trip_with_the_same_diagnosis(facts in facts()) {
        let text = serde_json::to_string(&facts).unwrap();
        let read: Facts = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&diagnose(&facts), &diagnose(&read));
        prop_assert_eq!(facts, read);
    }

    #[test]
    fn plans_are_bounded(facts in facts()) {
        let diagnosis = crate::agents::diagnosis_ref();
        let asked = svcdiag_engine::plan(&facts, &diagnosis);
        prop_assert!(asked.len() <= facts.nodes.len());
        prop_assert!(asked.values().map(|s| s.clients.len()).sum::<usize>() <= 10);
        prop_assert!(asked.values().all(|s| s.endpoints.len() <= 50));
    }

    #[test]
    fn the_same_facts_write_the_same_status(facts in facts(), seconds in 0_i64..100_000) {
        let diagnosis = diagnose(&facts);
        let first = diagnosis.status(None, Some(1), facts.now);
        let again = diagnosis.status(Some(&first), Some(1), facts.now + SignedDuration::from_secs(seconds));
        prop_assert!(svcdiag_engine::is_same(&first, &again));
    }

    #[test]
    fn nothing_changes_before_recheck_at(facts in facts(), fraction in 0.0_f64..1.0) {
        let diagnosis = diagnose(&facts);
        let changes = diagnosis.recheck_at.into_iter().chain(diagnosis.silent_at).min();
        let horizon = changes.unwrap_or_else(|| facts.now + SignedDuration::from_secs(600));
        let span = horizon.duration_since(facts.now).min(SignedDuration::from_secs(7200)).as_secs_f64();
        let later = Facts { now: facts.now + SignedDuration::from_secs_f64(span * fraction * 0.999), not_ready_since: facts.not_ready_since.or(Some(facts.now)), ..facts.clone() };
        let reasons = |f: &Facts| diagnose(f).stages.iter().map(|(c, f)| (*c, f.status(), f.reason)).collect::<Vec<_>>();
        prop_assert_eq!(reasons(&facts), reasons(&later));
    }
}
