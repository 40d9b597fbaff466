use proptest::prelude::*;

use super::*;

const PAGE: &str = "\
I1027 22:14:53.995134    5063 server.go:200] Running in resource-only container \"/kube-proxy\"
I1027 22:14:53.998163    5063 server.go:247] Using iptables Proxier.
I1027 22:14:53.999055    5063 server.go:255] Tearing down userspace rules. Errors here are acceptable.
I1027 22:14:54.038140    5063 proxier.go:352] Setting endpoints for \"kube-system/kube-dns:dns-tcp\" to [10.244.1.3:53]
I1027 22:14:54.038164    5063 proxier.go:352] Setting endpoints for \"kube-system/kube-dns:dns\" to [10.244.1.3:53]
I1027 22:14:54.040048    5063 proxier.go:294] Adding new service \"default/kubernetes:https\" at 10.0.0.1:443/TCP
";

const BARE: &str = "Setting endpoints for default/hostnames:default to \
    [10.244.0.5:9376 10.244.0.6:9376 10.244.0.7:9376]";

const REFUSED: &str = r#"E0805 15:22:40.729023       1 reflector.go:138] k8s.io/client-go/informers/factory.go:134: Failed to watch *v1.Service: failed to list *v1.Service: Get "https://192.168.122.95:6443/api/v1/services?limit=500&resourceVersion=0": dial tcp 192.168.122.95:6443: connect: connection refused"#;

fn shown(log: &KubeProxyLog, namespace: &str, name: &str, port: &str) -> Vec<String> {
    let endpoints = log.endpoints_of(namespace, name, port).unwrap();
    endpoints.iter().map(ToString::to_string).collect()
}

#[test]
fn the_page_is_read() {
    let log = KubeProxyLog::parse(PAGE).unwrap();
    assert_eq!(log.mode, Some(ProxyMode::Iptables));
    assert_eq!(log.endpoints.len(), 2);
    assert_eq!(shown(&log, "kube-system", "kube-dns", "dns"), ["10.244.1.3:53"]);
    assert_eq!((log.api, log.conntrack_missing), (None, None));
    let log = KubeProxyLog::parse(BARE).unwrap();
    assert_eq!(shown(&log, "default", "hostnames", "default").len(), 3);
    assert_eq!(log.endpoints_of("default", "other", ""), None);
}

#[test]
fn the_last_endpoints_count_by_family() {
    let text = r#"
I0913 18:17:34.400497       1 endpointslicecache.go:348] "Setting endpoints for service port name" portName="default/nginx" endpoints=["10.244.0.13:80","10.244.0.15:80"]
I0913 18:17:34.400498       1 endpointslicecache.go:348] "Setting endpoints for service port name" portName="default/nginx" endpoints=["[fd00::5]:80"]
I0913 18:17:35.400497       1 endpointslicecache.go:348] "Setting endpoints for service port name" portName="default/nginx" endpoints=["10.244.0.14:80"]
{"ts":1580306777045.7,"msg":"Setting endpoints for service port name","v":3,"portName":"a/b:c","endpoints":["10.0.0.1:1"]}
I0913 18:17:35.400497       1 proxier.go:352] Setting endpoints for "x/y:" to [{10.0.0.2:53 false} [fd00::2]:53]
"#;
    let log = KubeProxyLog::parse(text).unwrap();
    assert_eq!(
        shown(&log, "default", "nginx", ""),
        ["[fd00::5]:80", "10.244.0.14:80"]
    );
    assert_eq!(shown(&log, "a", "b", "c"), ["10.0.0.1:1"]);
    assert_eq!(shown(&log, "x", "y", ""), ["10.0.0.2:53", "[fd00::2]:53"]);
    let removed = format!("{text}I0913 18:17:36.4 1 x.go:1] Removing endpoints for \"x/y:\"\n");
    assert!(shown(&KubeProxyLog::parse(&removed).unwrap(), "x", "y", "").is_empty());
}

#[test]
fn modes_and_fall_backs_are_read() {
    for (line, mode, asked) in [
        (
            r#"I1123 19:19:30.215300     149 server_linux.go:137] "Using iptables Proxier""#,
            Some(ProxyMode::Iptables),
            None,
        ),
        (
            r#"I1123 19:19:30.215300     149 server_linux.go:137] "Using nftables Proxier""#,
            Some(ProxyMode::Nftables),
            None,
        ),
        (
            "I0723 17:14:34.940248 1 server_others.go:183] Using ipvs Proxier.",
            Some(ProxyMode::Ipvs),
            None,
        ),
        ("Using userspace Proxier.", Some(ProxyMode::Userspace), None),
        (
            "Using frob Proxier.",
            Some(ProxyMode::Other("frob".to_owned())),
            None,
        ),
        (
            r#"W0106 20:34:57.1 1 s.go:287] Flag proxy-mode="" unknown, assuming iptables proxy"#,
            None,
            None,
        ),
        (
            r#"W0330 09:28:56.5 1 s.go:565] Unknown proxy mode "ipsv", assuming iptables proxy"#,
            None,
            Some(ProxyMode::Other("ipsv".to_owned())),
        ),
        (
            r#"I0424 05:20:06.0 1 s.go:561] "Unknown proxy mode, assuming iptables proxy" proxyMode="ipsv""#,
            None,
            Some(ProxyMode::Other("ipsv".to_owned())),
        ),
        (
            "W0723 17:14:34.9 1 s.go:1] Can't use ipvs proxier, trying iptables proxier",
            None,
            Some(ProxyMode::Ipvs),
        ),
        (
            "Can't use iptables proxier, using userspace proxier",
            None,
            Some(ProxyMode::Iptables),
        ),
    ] {
        let log = KubeProxyLog::parse(line).unwrap();
        assert_eq!((log.mode, log.fell_back_from), (mode, asked), "{line}");
    }
}

#[test]
fn api_errors_are_read_with_what_came_after() {
    let log = KubeProxyLog::parse(REFUSED).unwrap();
    let error = log.api.unwrap();
    assert_eq!((error.kind, error.line), (ApiErrorKind::Refused, 1));
    assert_eq!(error.at.unwrap().to_string(), "08-05 15:22:40");
    assert_eq!(error.recovered, None);

    let later =
        r#"I0805 15:23:00.429555       1 reflector.go:507] "Caches populated" type="*v1.EndpointSlice""#;
    let syncing = r#"I0805 15:24:00.429555       1 proxier.go:668] "Syncing iptables rules""#;
    let log = KubeProxyLog::parse(&format!("{REFUSED}\n{later}\n{syncing}")).unwrap();
    let (line, at) = log.api.unwrap().recovered.unwrap();
    assert_eq!((line, at.unwrap().to_string().as_str()), (2, "08-05 15:23:00"));
    let log = KubeProxyLog::parse(&format!("{later}\n{REFUSED}")).unwrap();
    assert_eq!(
        log.api.unwrap().recovered,
        None,
        "what came before is no recovery"
    );

    for (words, kind) in [
        ("dial tcp 10.0.0.1:443: i/o timeout", ApiErrorKind::TimedOut),
        ("Unauthorized", ApiErrorKind::Unauthorized),
        (
            "services is forbidden: User \\\"system:kube-proxy\\\" cannot list",
            ApiErrorKind::Forbidden,
        ),
        ("dial tcp: lookup master: no such host", ApiErrorKind::NotResolved),
        (
            "x509: certificate signed by unknown authority",
            ApiErrorKind::Certificate,
        ),
        ("connect: no route to host", ApiErrorKind::Unreachable),
    ] {
        let line = format!(
            "E0805 15:22:40.7 1 reflector.go:200] \"Failed to watch\" err=\"failed to list *v1.Service: {words}\""
        );
        assert_eq!(
            KubeProxyLog::parse(&line).unwrap().api.unwrap().kind,
            kind,
            "{words}"
        );
    }
    let proxied =
        "E0606 16:55:13.105645   39123 proxier.go:146] I/O error: read tcp 10.2.1.4:9200: connection refused";
    assert_eq!(KubeProxyLog::parse(proxied).unwrap().api, None);
}

#[test]
fn a_missing_conntrack_is_read() {
    for line in [
        r#"E0610 15:55:24.811934       1 proxier.go:603] conntrack return with error: Error looking for path of conntrack: exec: "conntrack": executable file not found in $PATH"#,
        r#"Jun 30 23:19:06 u k8e[1529]: E0630 23:19:06.066979    1529 proxier.go:1564] "Failed to delete stale service connections" err="error deleting connection tracking state for UDP service IP: 10.43.0.10, error: error looking for path of conntrack: exec: \"conntrack\": executable file not found in $PATH" ip="10.43.0.10""#,
    ] {
        assert_eq!(
            KubeProxyLog::parse(line).unwrap().conntrack_missing,
            Some(1),
            "{line}"
        );
    }
}

#[test]
fn what_is_no_log_is_an_error() {
    for text in ["", "all is well\nreally\n"] {
        assert!(KubeProxyLog::parse(text).is_err());
    }
    assert_eq!(
        KubeProxyLog::parse("I1123 19:19:30.1 149 a.go:1] hello").unwrap(),
        KubeProxyLog::default()
    );
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "(?s).{0,300}") {
        let _ = KubeProxyLog::parse(&text);
    }

    #[test]
    fn damaged_lines_are_survived(which in 0_usize..3, at in 0_usize..300, c: char, cut in 0_usize..300) {
        let line = [PAGE, BARE, REFUSED].get(which).copied().unwrap_or_default();
        let mut chars: Vec<char> = line.chars().take(cut).collect();
        if let Some(place) = chars.get_mut(at) {
            *place = c;
        }
        let _ = KubeProxyLog::parse(&chars.into_iter().collect::<String>());
    }
}

#[test]
fn only_the_last_start_tells_of_a_missing_conntrack() {
    const MISSING: &str = "E0610 15:55:24.811934       1 proxier.go:603] conntrack return with error: Error looking for path of conntrack: exec: \"conntrack\": executable file not found in $PATH\n";
    let missing = |text: &str| KubeProxyLog::parse(text).unwrap().conntrack_missing;
    let modern = "I1123 19:19:29.995619 149 flags.go:64] FLAG: --a=\"b\"\nI1123 19:19:30.1 149 server.go:1] \"Version info\" version=\"v1.30.0\"\nI1123 19:19:30.215300 149 server_linux.go:137] \"Using iptables Proxier\"\n";
    assert_eq!(missing(&format!("{PAGE}{MISSING}")), Some(7));
    assert_eq!(missing(&format!("{PAGE}{MISSING}{PAGE}")), None);
    assert_eq!(missing(&format!("{PAGE}{MISSING}{modern}")), None);
    assert_eq!(missing(&format!("{PAGE}{MISSING}{modern}{MISSING}")), Some(11));
    // It is looked for before the mode is told.
    let (flag, rest) = modern.split_once('\n').unwrap();
    assert_eq!(
        missing(&format!("{PAGE}{MISSING}{flag}\n{MISSING}{rest}")),
        Some(9)
    );
    // Where little is logged, the mode tells of a start.
    let quiet = "I1123 19:19:30.215300 149 server_linux.go:137] \"Using iptables Proxier\"\n";
    assert_eq!(missing(&format!("{quiet}{MISSING}")), Some(2));
    assert_eq!(missing(&format!("{quiet}{MISSING}{quiet}")), None);
}

#[test]
fn what_belongs_to_one_start_is_not_taken_for_an_earlier_ones() {
    // 1.24 and later look for their Node first and name their version last.
    let start = r#"I1120 08:12:03.1 1 server_linux.go:69] "Using iptables proxy"
E1120 08:12:03.2 1 server.go:1039] "Failed to retrieve node info" err="nodes \"node-a\" not found"
I1120 08:12:33.2 1 server_linux.go:150] "Using iptables Proxier"
I1120 08:12:33.3 1 server.go:865] "Version info" version="v1.29.3"
"#;
    let name = |text: &str| KubeProxyLog::parse(text).unwrap().faults.node_name;
    assert_eq!(name(start).as_deref(), Some("node-a"));
    let mut lines: Vec<&str> = start.lines().collect();
    lines.rotate_right(1);
    assert_eq!(
        name(&lines.join("\n")).as_deref(),
        Some("node-a"),
        "the version first"
    );
    let mended: String = start
        .lines()
        .filter(|line| !line.contains("node-a"))
        .collect::<Vec<_>>()
        .join("\n");
    assert_eq!(name(&format!("{start}{mended}")), None, "it was mended");
    // 1.36 waits for its Node and ends.
    let ended = r#"E1120 08:17:03.1 1 run.go:72] "command failed" err="node \"node-a\" not found""#;
    let log = KubeProxyLog::parse(ended).unwrap();
    assert_eq!(log.faults.exit.as_deref(), Some("node \"node-a\" not found"));
    assert_eq!(log.faults.node_name.as_deref(), Some("node-a"));
    let json = r#"{"ts":1580306777045.7,"msg":"command failed","err":"no such file"}"#;
    assert_eq!(
        KubeProxyLog::parse(json).unwrap().faults.exit.as_deref(),
        Some("no such file")
    );
    let several =
        "E1120 08:17:03.1 1 run.go:72] \"command failed\" err=<\n\tthe first line\n\tthe second\n >\n";
    let exit = KubeProxyLog::parse(several).unwrap().faults.exit;
    assert_eq!(exit.as_deref(), Some("command failed: the first line"));
}
