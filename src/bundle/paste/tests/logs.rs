//! Outputs of commands: logs behind `kubectl logs`, and what is typed on nodes.

use super::*;

/// What was placed, but objects.
pub(super) fn placed(text: &str) -> Vec<String> {
    let (bundle, _) = read(text, None, Some("shop"));
    let files = bundle.files.files.iter().map(|f| f.path.clone());
    files.filter(|p| !p.starts_with("objects/")).collect()
}

fn fate(text: &str) -> String {
    parts(text).pop().unwrap_or_default()
}

const PROXIES: &str = "\
$ kubectl -n kube-system get pods -o wide
NAME               READY   STATUS    RESTARTS   AGE   IP            NODE   NOMINATED NODE   READINESS GATES
kube-proxy-x7k2p   1/1     Running   0          10d   192.168.0.2   n1     <none>           <none>
";

#[test]
fn the_log_of_a_kube_proxy_is_that_of_its_node() {
    let log = "$ kubectl logs -n kube-system kube-proxy-x7k2p --tail 20\nI0501 11:00:00.000001       1 server_linux.go:53] \"Using iptables proxy\"\n";
    assert_eq!(
        placed(&format!("{PROXIES}{log}")),
        ["nodes/n1/kube-proxy.log-line-5.txt"]
    );
    let object = pod("kube-proxy-x7k2p", "proxy").replace("shop", "kube-system");
    assert_eq!(
        placed(&format!("{object}\n{log}")),
        ["nodes/n1/kube-proxy.log-line-3.txt"]
    );
    // Without a table or an object nobody knows whose it is.
    assert_eq!(placed(log), [""; 0]);
    assert!(
        fate(log).contains("not known on which node Pod kube-proxy-x7k2p runs"),
        "{}",
        fate(log)
    );
    // Two tables that disagree are as good as none.
    let moved = PROXIES.replace(" n1 ", " n2 ");
    assert_eq!(placed(&format!("{PROXIES}{moved}{log}")), [""; 0]);
}

#[test]
fn logs_that_are_not_read_are_named_with_the_reason() {
    for (command, why) in [
        (
            "kubectl logs -n kube-system kube-proxy-x7k2p --previous",
            "earlier run",
        ),
        (
            "kubectl logs -n kube-system -l k8s-app=kube-proxy",
            "does not say on which node it was written; repeat it with --prefix",
        ),
        (
            "kubectl logs -n kube-system ds/kube-proxy",
            "does not say on which node it was written",
        ),
        ("kubectl logs -n shop -l app=web", "does not name one Pod"),
        ("kubectl logs -n shop deploy/web", "does not name one Pod"),
        (
            "kubectl logs -n shop web-1",
            "only logs of kube-proxy and CoreDNS are read",
        ),
        (
            "kubectl logs -n kube-system \"kube-proxy-$(id)\"",
            "does not name one Pod",
        ),
    ] {
        let text = format!("{PROXIES}$ {command}\nI0501 11:00:00.000001       1 a.go:1] x\n");
        assert!(fate(&text).contains(why), "{}", fate(&text));
        assert_eq!(placed(&text), [""; 0], "{command}");
    }
}

#[test]
fn logs_by_label_are_those_of_the_pods_that_their_lines_name() {
    let log = |pod: &str| {
        format!(
            "[pod/{pod}/kube-proxy] I0501 11:00:00.000001       1 server_linux.go:53] \"Using iptables proxy\"\n"
        )
    };
    let (ours, other) = (log("kube-proxy-x7k2p"), log("kube-proxy-b4444"));
    let command = "$ kubectl logs -n kube-system -l k8s-app=kube-proxy --prefix --tail=50\n";
    let text = format!("{PROXIES}{command}{ours}{other}{ours}");
    assert_eq!(placed(&text), ["nodes/n1/kube-proxy.log-line-5.txt"]);
    let (bundle, _) = read(&text, None, Some("shop"));
    let file = bundle
        .files
        .files
        .iter()
        .find(|f| f.path.starts_with("nodes/"))
        .unwrap();
    assert_eq!(file.text.lines().count(), 2, "{}", file.text);
    assert!(file.text.starts_with("I0501"), "{}", file.text);
    assert!(
        fate(&text).contains("the log of kube-proxy (nodes/n1), but not all: it is not known on which node Pod kube-proxy-b4444 runs"),
        "{}",
        fate(&text)
    );
    // kubectl says which Pod of a workload it chose.
    let chosen = "$ kubectl logs -n kube-system ds/kube-proxy\nFound 3 pods, using pod/kube-proxy-x7k2p\nI0501 11:00:00.000001       1 a.go:1] x\n";
    assert_eq!(
        placed(&format!("{PROXIES}{chosen}")),
        ["nodes/n1/kube-proxy.log-line-5.txt"]
    );
    // Whichever Pod of cluster DNS it is.
    for (label, directory) in [
        ("-l k8s-app=kube-dns", "pods/kube-system"),
        ("--selector=app.kubernetes.io/name=coredns", "pods/kube-system"),
        ("deploy/coredns", "pods/kube-system"),
    ] {
        let text = format!(
            "$ kubectl logs {label} -n kube-system\n[INFO] plugin/ready: Still waiting on: \"kubernetes\"\n"
        );
        assert_eq!(
            placed(&text),
            [format!("{directory}/coredns.log-line-2.txt")],
            "{label}"
        );
    }
}

/// A client that got an answer of cluster DNS.
fn asked(answer: &str) -> String {
    format!(
        "{}\n$ kubectl -n shop exec client -- nslookup web\nServer:\t\t10.96.0.10\nAddress:\t10.96.0.10#53\n\n{answer}\n",
        pod("client", "client")
    )
}

const DNS_LOG: &str = "\
$ kubectl logs -n kube-system coredns-5d78c9869d-2jq4m
.:53
CoreDNS-1.11.1
[INFO] plugin/kubernetes: failed to list *v1.EndpointSlice: endpointslices.discovery.k8s.io is forbidden: User \"system:serviceaccount:kube-system:coredns\" cannot list resource \"endpointslices\"
";

#[test]
fn the_log_of_cluster_dns_is_quoted_where_names_are_not_found() {
    let of = |text: &str| answers(text).remove(&C::DNSResolves).unwrap();
    let failed = asked("** server can't find web.shop.svc.cluster.local: SERVFAIL");
    let (status, _, without) = of(&format!("{SERVICE}{failed}"));
    assert_ne!(status, S::True);
    let (same, _, message) = of(&format!("{SERVICE}{failed}{DNS_LOG}"));
    assert_eq!(same, status, "a log changes no verdict");
    assert!(!without.contains("The log of"), "{without}");
    assert!(
        message.contains("The log of Pod kube-system/coredns-5d78c9869d-2jq4m says, in line 3 of 3,")
            && message.contains("did not allow CoreDNS"),
        "{message}"
    );
    // A name that is found is found, whatever the log says.
    let found = asked("Name:\tweb.shop.svc.cluster.local\nAddress: 10.96.0.7");
    let (status, _, message) = of(&format!("{SERVICE}{found}{DNS_LOG}"));
    assert!(
        status != S::False && (status != S::True || !message.contains("The log of")),
        "{message}"
    );
    // And a log without trouble is not quoted.
    // Nor does it matter which Pod of it logged that.
    let by_label = DNS_LOG.replace("coredns-5d78c9869d-2jq4m", "-l k8s-app=kube-dns");
    let (same, _, message) = of(&format!("{SERVICE}{failed}{by_label}"));
    assert_eq!(same, status);
    assert!(
        message.contains("The log of CoreDNS says, in line 3 of 3,"),
        "{message}"
    );
    let healthy = DNS_LOG.lines().take(3).collect::<Vec<_>>().join("\n");
    let (_, _, message) = of(&format!("{SERVICE}{failed}{healthy}\n"));
    assert_eq!(message, without);
}

#[test]
fn a_corefile_says_the_domain_in_any_text() {
    let file = ".:53 {\n    errors\n    kubernetes corp.example in-addr.arpa ip6.arpa {\n    }\n    forward . /etc/resolv.conf\n}\n";
    let domain = |text: &str| read(text, None, None).0.dns_config.map(|(_, domain)| domain);
    for text in [
        file.to_owned(),
        format!(
            "$ kubectl -n kube-system describe cm coredns\nName:         coredns\nNamespace:    kube-system\n\nData\n====\nCorefile:\n----\n{file}\n"
        ),
        format!("me@laptop:~$ cat Corefile\n{file}"),
    ] {
        assert_eq!(domain(&text).as_deref(), Some("corp.example"), "{text}");
        assert!(
            fate(&text).contains("a Corefile (cluster domain corp.example)"),
            "{:?}",
            parts(&text)
        );
    }
    assert_eq!(domain("kubernetes corp.example\n"), None);
}

#[test]
fn what_nothing_is_read_of_is_not_said_to_be_used() {
    let on_node = |rest: &str| format!("{}\n[root@n1 ~]# {rest}", pod("web-1", "web"));
    for command in [
        "crictl ps",
        "ssh n2",
        "uptime",
        "iptables -S",
        "route -n | grep 10.1",
        "netstat -rn | head",
        "netstat -i -r x",
    ] {
        let text = on_node(&format!("{command}\nsomething\n"));
        assert_eq!(placed(&text), [""; 0], "{command}");
        assert!(
            fate(&text).contains("nothing is read of the output"),
            "{}",
            fate(&text)
        );
    }
    for (command, file) in [
        ("ip route", "ip-route"),
        ("ip -4 r show", "ip-route"),
        ("route -n", "route"),
        ("netstat -rn", "netstat-r"),
        ("netstat -nr", "netstat-r"),
        ("netstat -tlnp", "netstat"),
        ("ip addr", "ip-link"),
        ("ip -4 a", "ip-link"),
        ("sudo iptables -nvL", "iptables-L"),
        ("iptables -t nat -S", "iptables-save"),
        ("ethtool -k flannel.1", "ethtool"),
        ("curl -s localhost:10249/proxyMode", "proxymode"),
        ("curl -i localhost:10256/livez", "livez"),
        ("journalctl -u kube-proxy", "kube-proxy.log"),
        ("journalctl -k", "journalctl-k"),
        ("cat /var/lib/kubelet/config.yaml", "kubelet-config"),
        ("cat /proc/net/ip_vs", "ip_vs"),
        ("time curl 10.1.2.3:8080", "command"),
    ] {
        let text = on_node(&format!("{command}\nsomething\n"));
        assert_eq!(
            placed(&text),
            [format!("nodes/n1/{file}-line-3.txt")],
            "{command}"
        );
    }
    assert_eq!(
        placed(&on_node("nft -j list ruleset\n{}\n")),
        ["nodes/n1/nft-line-3.json"]
    );
}

#[test]
fn the_log_of_a_kube_proxy_says_what_is_wrong_with_it_and_blames_nobody() {
    let says = |log: &str| {
        let text = format!("{SERVICE}{PROXIES}$ kubectl logs -n kube-system kube-proxy-x7k2p\n{log}");
        assert_unblamed(&text);
        answers(&text).remove(&C::KubeProxyHealthy).unwrap()
    };
    let start = "I0501 11:00:00.000001       1 server_linux.go:53] \"Using iptables proxy\"\n";
    let lost = "E0501 11:01:00.000001       1 reflector.go:205] \"Failed to watch\" err=\"failed to list *v1.EndpointSlice: Get \\\"https://192.168.0.9:6443/apis\\\": dial tcp 192.168.0.9:6443: i/o timeout\"\n";
    let (status, _, message) = says(&format!("{start}{lost}"));
    assert_eq!(status, S::Unknown);
    assert!(
        message.contains("API server") && message.contains("Whether that affects this Service is not known"),
        "{message}"
    );
    let heard = "I0501 11:02:00.000001       1 shared_informer.go:357] \"Caches are synced\" controller=\"endpoint slice config\"\n";
    let (_, _, message) = says(&format!("{start}{lost}{heard}"));
    assert!(!message.contains("Whether that affects"), "{message}");
}
