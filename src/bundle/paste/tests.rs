mod events;
mod logs;
mod one_offs;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    api::{ConditionStatus as S, ConditionType as C, Reason},
    bundle::facts,
    engine::{Diagnosis, diagnose},
};

const NOW: &str = "2026-05-01T12:00:00Z";

fn parts(text: &str) -> Vec<String> {
    let (_, parts) = read(text, None, None);
    parts.iter().map(Part::describe).collect()
}

fn judge(text: &str) -> Diagnosis {
    let (bundle, _) = read(text, None, Some("shop"));
    let diagnosis = bundle.diagnosis("shop", "web");
    diagnose(&facts(&bundle, &diagnosis, NOW.parse().unwrap()).0)
}

fn answers(text: &str) -> BTreeMap<C, (S, Reason, String)> {
    let stages = judge(text).stages.into_iter();
    stages
        .map(|(c, f)| (c, (f.status(), f.reason, f.message)))
        .collect()
}

/// Whatever a paste leaves open, it blames nobody.
#[track_caller]
fn assert_unblamed(text: &str) {
    let found = judge(text);
    assert_eq!(found.root_cause, None, "{text}\n{:#?}", found.stages);
    assert_ne!(found.ready.status, S::True, "{text}\n{:#?}", found.stages);
}

const SERVICE: &str = "\
$ kubectl get svc web -n shop -o yaml
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  uid: web
  creationTimestamp: \"2026-05-01T08:00:00Z\"
spec:
  clusterIP: 10.96.0.7
  selector:
    app: web
  ports:
  - port: 80
    targetPort: 8080
";

const PODS: &str = "\
$ kubectl get pods -n shop --show-labels
NAME     READY   STATUS    RESTARTS   AGE   LABELS
web-1    1/1     Running   0          3m    app=web,tier=front
client   1/1     Running   0          3m    app=client
";

const ENDPOINTS: &str = "\
$ kubectl get endpoints -n shop
NAME   ENDPOINTS         AGE
web    10.1.2.3:8080     3d
";

/// The pods of a list with their status, as an API server has it.
fn pod_list(items: &str) -> String {
    format!(
        "$ kubectl get pods -n shop -o json\n{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{items}]}}\n"
    )
}

fn pod(name: &str, app: &str) -> String {
    format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{{\"name\":\"{name}\",\"namespace\":\"shop\",\"uid\":\"{name}\",\
         \"creationTimestamp\":\"2026-05-01T08:00:00Z\",\"labels\":{{\"app\":\"{app}\"}}}},\
         \"spec\":{{\"nodeName\":\"n1\",\"containers\":[{{\"name\":\"c\"}}]}},\
         \"status\":{{\"phase\":\"Running\",\"podIP\":\"10.1.2.3\",\"conditions\":[{{\"type\":\"Ready\",\"status\":\"True\"}}]}}}}"
    )
}

#[test]
fn every_part_is_said_with_its_lines() {
    let text = format!(
        "Hi, my Service\ndoes not work\n\n{SERVICE}```\n$ iptables-save\n*nat\n$ kubectl get deploy\nNAME  READY  UP-TO-DATE\nweb   1/1    1\n"
    );
    assert_eq!(
        parts(&text),
        [
            "lines 1-2: not recognized, not used: Hi, my Service",
            "lines 5-18: Service web",
            "line 21: output of \"iptables-save\"; not used: it is not known on which node or in which Pod it was typed; paste it behind its `kubectl exec` or a prompt that names the node, or save it in a bundle, in nodes/NODE/ or pods/NAMESPACE/POD/",
            "lines 23-24: a table; not used: only tables of Pods, Services, Endpoints, EndpointSlices, Nodes and Events are read",
        ]
    );
}

#[test]
fn what_is_broken_is_named_with_its_line() {
    let (bundle, parts) = read("text\n\napiVersion: v1\nkind: Service\nmetadata: [\n", None, None);
    let problem = bundle.problems[0].to_string();
    assert!(
        problem.contains("lines-3-5.yaml") && problem.contains("line 5") || problem.contains("line 6"),
        "{problem}"
    );
    assert!(parts[1].describe().contains("could not be parsed"), "{parts:?}");
}

#[test]
fn tables_show_what_they_show_in_any_order() {
    let all = [SERVICE, PODS, ENDPOINTS];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let text: String = order.iter().map(|i| all[*i]).collect();
        assert_unblamed(&text);
        let answers = answers(&text);
        assert_eq!(answers[&C::PodsHealthy].0, S::True);
        assert_eq!(answers[&C::EndpointsPopulated].0, S::True);
        assert_eq!(answers[&C::EndpointsReachable].0, S::Unknown);
    }
}

#[test]
fn a_table_of_pods_that_are_not_ready_proves_nothing_and_is_said() {
    let broken = PODS.replace("1/1     Running   0", "0/1     Error     3");
    let none = ENDPOINTS.replace("10.1.2.3:8080", "<none>       ");
    let text = format!("{SERVICE}{broken}{none}");
    assert_unblamed(&text);
    let answers = answers(&text);
    assert!(
        answers[&C::PodsHealthy].2.contains("web-1 (0/1 Error)"),
        "{answers:?}"
    );
    assert!(
        answers[&C::EndpointsPopulated]
            .2
            .contains("shows no ready endpoint"),
        "{answers:?}"
    );
}

#[test]
fn a_table_without_the_pods_or_without_labels_blames_nobody() {
    let other = PODS.replace("app=web", "app=db");
    assert_unblamed(&format!("{SERVICE}{other}"));
    let (_, _, message) = &answers(&format!("{SERVICE}{other}"))[&C::PodsHealthy];
    assert!(message.contains("neither of the 2 Pods"), "{message}");
    let plain = "$ kubectl get pods -n shop\nNAME    READY   STATUS    RESTARTS   AGE\nweb-1   1/1     Running   0          3m\n";
    assert_unblamed(&format!("{SERVICE}{plain}"));
    assert!(
        answers(&format!("{SERVICE}{plain}"))[&C::PodsHealthy]
            .2
            .contains("no labels")
    );
    assert!(parts(plain)[0].contains("add --show-labels"));
}

#[test]
fn two_tables_of_one_object_that_differ_say_nothing() {
    let later = PODS.replace("1/1     Running", "0/1     Running");
    let none = ENDPOINTS.replace("10.1.2.3:8080", "<none>       ");
    let text = format!("{SERVICE}{PODS}{later}{ENDPOINTS}{none}");
    assert_unblamed(&text);
    let answers = answers(&text);
    assert_eq!(answers[&C::PodsHealthy].0, S::Unknown);
    assert_eq!(answers[&C::EndpointsPopulated].0, S::Unknown);
}

#[test]
fn objects_count_for_more_than_tables() {
    // The table is of another moment, and lacks nothing that a list of all Pods has.
    let broken = PODS.replace("1/1     Running   0", "0/1     Error     3");
    let text = format!(
        "{broken}{SERVICE}{}",
        pod_list(&[pod("web-1", "web"), pod("db-1", "db")].join(","))
    );
    assert_unblamed(&text);
    assert_eq!(answers(&text)[&C::PodsHealthy].0, S::True);
}

/// It may have been cut, filtered, or asked of another cluster, namespace or moment than the rest.
#[test]
fn what_is_not_in_a_pasted_list_may_be_there() {
    // Two Pods without a common label, and none is selected.
    let pods = pod_list(&[pod("a-1", "a"), pod("b-1", "b")].join(","));
    let slices = "$ kubectl get endpointslices -n shop -o json\n{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[]}\n";
    for filter in [
        "",
        " -l app=x",
        " | head -40",
        " -A",
        " --context other",
        " && kubectl get netpol -o json",
    ] {
        let pods = pods.replacen(" -o json", &format!(" -o json{filter}"), 1);
        assert_unblamed(&format!("{SERVICE}{pods}{slices}"));
    }
    // As the API itself answers.
    let typed =
        |text: &str, kind: &str| text.replacen("\"kind\":\"List\"", &format!("\"kind\":\"{kind}\""), 1);
    let (pods, slices) = (typed(&pods, "PodList"), typed(slices, "EndpointSliceList"));
    assert_unblamed(&format!("{SERVICE}{pods}{slices}"));
}

#[test]
fn one_answer_of_kubectl_is_a_file_of_a_bundle() {
    let service = "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"web\",\"namespace\":\"shop\",\"uid\":\"s\"},\
         \"spec\":{\"selector\":{\"app\":\"web\"},\"ports\":[{\"port\":80}]}}";
    let slice = "{\"apiVersion\":\"discovery.k8s.io/v1\",\"kind\":\"EndpointSlice\",\"addressType\":\"IPv4\",\"endpoints\":[],\"ports\":[],\
         \"metadata\":{\"name\":\"web-1\",\"namespace\":\"shop\",\"uid\":\"e\",\"labels\":{\"kubernetes.io/service-name\":\"web\"}}}";
    let items = [service, slice, &pod("a-1", "a"), &pod("b-1", "b")].join(",");
    let text = format!(
        "{{\"apiVersion\":\"v1\",\"items\":[{items}],\"kind\":\"List\",\"metadata\":{{\"resourceVersion\":\"\"}}}}\n"
    );
    assert_eq!(judge(&text).root_cause.unwrap().reason, "SelectorMatchesNoPods");
    assert_unblamed(&format!("Look:\n\n{text}"));
}

#[test]
fn a_name_that_would_be_an_option_is_none() {
    for name in ["--server=https://evil.example", "-A", "web/../..", "WEB"] {
        let text = format!(
            "$ kubectl get pods --show-labels -n shop\nNAME   READY   STATUS    RESTARTS   AGE   LABELS\n{name}   1/1     Running   0          3d    app=web\n"
        );
        let told = format!("{:?}", answers(&format!("{SERVICE}{text}")));
        assert!(!told.contains(name), "{told}");
    }
}

#[test]
fn a_service_of_a_table_has_no_target_ports() {
    let text = format!(
        "$ kubectl get svc -o wide -n shop\nNAME   TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)              AGE   SELECTOR\n\
         web    NodePort    10.96.0.7    <none>        80:30080/TCP,53/UDP   3d    app=web\n{PODS}{ENDPOINTS}"
    );
    assert_unblamed(&text);
    let (status, _, message) = &answers(&text)[&C::DefinitionValid];
    assert_eq!(*status, S::Unknown);
    assert!(message.contains("target ports"), "{message}");
}

#[test]
fn outputs_are_put_where_they_were_typed() {
    let placed = |text: &str| -> Vec<String> {
        let (bundle, _) = read(text, None, Some("shop"));
        let files = bundle.files.files.iter().map(|f| f.path.clone());
        files.filter(|p| !p.starts_with("objects/")).collect()
    };
    let objects = pod("client", "client");
    let exec = format!("{objects}\n$ kubectl exec -n shop client -- curl -sS web\nok\n");
    assert_eq!(placed(&exec), ["pods/shop/client/curl-line-3.txt"]);
    let shell = format!(
        "{objects}\n$ kubectl exec -it client -- sh\n/ # nslookup web\nServer: x\n/ # exit\n$ curl web\nok\n"
    );
    assert_eq!(placed(&shell), ["pods/shop/client/nslookup-line-4.txt"]);
    let node = format!("{objects}\n[root@n1 ~]# iptables-save\n*nat\n[me@laptop ~]# curl web\nno\n");
    assert_eq!(placed(&node), ["nodes/n1/iptables-save-line-3.txt"]);
    // Nothing shows that there is such a Pod, or that it is a Pod at all.
    assert_eq!(placed("$ kubectl exec gone -- curl web\nok\n"), [""; 0]);
    assert_eq!(placed("me@laptop:~$ curl web\nno\n"), [""; 0]);
}

#[test]
fn a_command_over_several_lines_is_one() {
    let objects = pod("client", "client");
    for (command, line) in [
        ("$ kubectl exec -n shop client \\\n  -- curl -sS web", 4),
        ("$ kubectl exec -n shop client \\\n> -- curl \\\n>   -sS web", 5),
    ] {
        let (bundle, parts) = read(&format!("{objects}\n{command}\nok\n$ x\ny\n"), None, Some("shop"));
        let file = bundle
            .files
            .get(&format!("pods/shop/client/curl-line-{line}.txt"))
            .unwrap();
        assert_eq!(file.text, "$ curl -sS web\nok\n");
        let told: Vec<String> = parts.iter().map(Part::describe).collect();
        assert!(
            told[1].starts_with(&format!(
                "line {line}: output of \"kubectl exec -n shop client -- curl"
            )),
            "{told:?}"
        );
        // What follows keeps its line.
        assert!(
            told[2].starts_with(&format!("line {}: output of \"x\"", line + 2)),
            "{told:?}"
        );
    }
    let table = "$ kubectl get pods \\\n> --namespace shop \\\n> --show-labels\nNAME    READY   STATUS    RESTARTS   AGE   LABELS\nweb-1   1/1     Running   0          3m    app=web\n";
    let told = parts(table);
    assert_eq!(told, ["lines 4-5: a table of Pods (1 row)"]);
}

#[test]
fn the_beginning_and_the_end_of_a_shell_are_not_missed_outputs() {
    let told = parts("$ kubectl exec -it client -- sh\n/ # exit\n$ kubectl get pods\n");
    assert!(
        told[0].ends_with("not used: it starts a shell; what is typed into that is read by itself"),
        "{told:?}"
    );
    assert!(told[1].ends_with("not used: it ends a shell"), "{told:?}");
    assert!(told[2].ends_with("its output is missing"), "{told:?}");
}

#[test]
fn an_output_line_that_ends_in_a_backslash_is_no_command() {
    let told = parts("$ cat notes\ncurl -v \\\n  http://web\n");
    assert!(told.len() == 1 && told[0].starts_with("lines 2-3: "), "{told:?}");
}

#[test]
fn hostile_texts_are_survived() {
    let long = "x".repeat(1 << 20);
    let deep = format!("apiVersion: v1\nkind: Pod\nspec: {}\n", "[".repeat(10_000));
    let many = "$ x\ny\n".repeat(5_000);
    let keys = format!(
        "kind: Pod\napiVersion: v1\nmetadata:\n  name: {}\n",
        "a: ".repeat(10_000)
    );
    let controls = "\u{7}\u{8}\u{202e}NAME  \u{1b}[2J\n\u{0}\n";
    for text in [
        &*long,
        &deep,
        &many,
        &keys,
        controls,
        &"{\"a\":".repeat(50_000),
        &"NAME A\n".repeat(20_000),
        &"$ curl \\\n".repeat(20_000),
        &format!("$ curl \\\n{}", "x \\\n".repeat(20_000)),
    ] {
        for part in parts(text) {
            assert!(part.len() < 400, "{part}");
            assert!(
                !part.chars().any(|c| c.is_control() || c == '\u{202e}'),
                "{part:?}"
            );
        }
        assert!(parts(text).len() <= MAX_PARTS + 1);
    }
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(SERVICE.to_owned()),
        Just(PODS.to_owned()),
        Just(ENDPOINTS.to_owned()),
        Just(DESCRIBED.to_owned()),
        Just(DESCRIBED_POD.to_owned()),
        Just("$ kubectl exec client -- curl web\n".to_owned()),
        Just("$ kubectl run tmp --rm -it --image=busybox -- wget -qO- 10.96.0.7\n".to_owned()),
        Just("$ kubectl exec client -- \\\n> curl \\\n".to_owned()),
        Just("$ kubectl debug node/n1 -it --image=busybox\n".to_owned()),
        Just("$ kubectl logs -l k8s-app=kube-proxy --prefix\n[pod/web-1/c] x\n".to_owned()),
        Just("pod \"tmp\" deleted\n".to_owned()),
        Just("$ kubectl get events\n5m Warning Unhealthy pod/web-1 x\n".to_owned()),
        Just("$ kubectl logs -n kube-system kube-proxy-a\nE0501 11:00:00.0 1 a.go:1] x\n".to_owned()),
        Just("$ kubectl logs coredns-a\n[INFO] plugin/ready: Still waiting on: \"kubernetes\"\n".to_owned()),
        Just("[root@n1 ~]# ip route\ndefault via 10.0.0.1 dev eth0\n[root@n1 ~]# iptables -nvL\nChain FORWARD (policy DROP)\n".to_owned()),
        "(Name|Roles|Taints|AddressType|Conditions|Addresses|Events|- Addresses|Ready|Warning|Unhealthy|5m|: |  |\n|kubelet|\\PC){0,16}",
        Just(pod("web-1", "web")),
        Just("\n".to_owned()),
        "(NAME|NAMESPACE|READY|STATUS|RESTARTS|ENDPOINTS|LABELS|PORT\\(S\\)|   |\n|1/1|app=web|web|\\PC){0,12}",
        "(Name|Selector|Type|Session Affinity|Subsets|Port|TargetPort|Endpoints|Addresses|: |  |\n|80/TCP|web|,|\\PC){0,16}",
        "(?s).{0,40}",
    ]
}

proptest! {
    #[test]
    fn any_paste_is_read_and_judged(pieces in prop::collection::vec(piece(), 0..8)) {
        let text = pieces.concat();
        let _ = judge(&text);
        let _ = parts(&text);
    }

    #[test]
    fn part_of_a_healthy_paste_blames_nobody(keep in prop::collection::vec(any::<bool>(), 60)) {
        // Whatever lines of the tables somebody leaves out.
        let kept = |text: &str| -> String {
            text.lines().zip(&keep).filter(|(_, keep)| **keep).map(|(line, _)| format!("{line}\n")).collect()
        };
        assert_unblamed(&format!("{SERVICE}{}", kept(&[PODS, ENDPOINTS, DESCRIBED, "\n\n", DESCRIBED_POD].concat())));
    }
}

const DESCRIBED: &str = "\
$ kubectl describe svc web -n shop
Name:                     web
Namespace:                shop
Labels:                   <none>
Annotations:              <none>
Selector:                 app=web
Type:                     ClusterIP
IP Family Policy:         SingleStack
IP Families:              IPv4
IP:                       10.96.0.7
IPs:                      10.96.0.7
Port:                     http  80/TCP
TargetPort:               8080/TCP
Endpoints:                10.1.2.3:8080
Port:                     <unset>  81/TCP
TargetPort:               metrics/TCP
Endpoints:                10.1.2.3:9090
Session Affinity:         None
Events:                   <none>
";

const DESCRIBED_POD: &str = "\
Name:             web-1
Namespace:        shop
Node:             n1/192.168.0.2
Labels:           app=web
                  tier=front
Status:           Running
IP:               10.1.2.3
Containers:
  app:
    Port:           8080/TCP
    Ready:          True
Conditions:
  Type              Status
  Ready             True
  ContainersReady   True
Events:             <none>
";

#[test]
fn descriptions_are_evidence_like_tables() {
    let text = format!("{DESCRIBED}\n\n{DESCRIBED_POD}");
    assert_unblamed(&text);
    let found = answers(&text);
    assert_eq!(found[&C::PodsHealthy].0, S::True, "{found:?}");
    assert_eq!(found[&C::EndpointsPopulated].0, S::True, "{found:?}");
    assert_eq!(
        parts(&text),
        [
            "lines 2-19: the description of Service web",
            "lines 22-37: the description of Pod web-1"
        ]
    );
    let (bundle, _) = read(DESCRIBED, None, None);
    let service = bundle.inventory.services_of("shop").next().unwrap();
    let targets: Vec<String> = service
        .spec
        .ports
        .iter()
        .map(|p| p.target_port().to_string())
        .collect();
    assert_eq!(targets, ["8080", "metrics"]);
}

#[test]
fn descriptions_of_what_fails_blame_nobody() {
    let none = DESCRIBED
        .replace("10.1.2.3:8080", "<none>")
        .replace("10.1.2.3:9090", "<none>");
    let waiting = DESCRIBED_POD.replace("Ready             True", "Ready             False");
    let text = format!("{none}\n\n{waiting}");
    assert_unblamed(&text);
    let found = answers(&text);
    assert!(
        found[&C::PodsHealthy].2.contains("web-1 (Running, not ready)"),
        "{found:?}"
    );
    assert!(
        found[&C::EndpointsPopulated]
            .2
            .contains("shows no ready endpoint"),
        "{found:?}"
    );
}

#[test]
fn a_description_and_a_table_say_the_same_or_nothing() {
    let found = answers(&[DESCRIBED, PODS, ENDPOINTS, "\n\n", DESCRIBED_POD].concat());
    assert_eq!(
        (found[&C::PodsHealthy].0, found[&C::EndpointsPopulated].0),
        (S::True, S::True)
    );
    let other = ENDPOINTS.replace("10.1.2.3", "10.1.2.4");
    let found = answers(&[DESCRIBED, &other].concat());
    assert_eq!(found[&C::EndpointsPopulated].0, S::Unknown);
}

#[test]
fn a_cell_with_a_command_is_no_name_or_state() {
    for (from, to) in [
        ("Running", "`reboot`"),
        ("app=web", "app=`reboot`"),
        ("web-1 ", "`r`   "),
    ] {
        let text = format!("{SERVICE}{}", PODS.replacen(from, to, 1));
        assert_unblamed(&text);
        assert!(!format!("{:?}", answers(&text)).contains("reboot"), "{text}");
        assert!(
            parts(&text)[1].contains("some were not understood (line 18)"),
            "{:?}",
            parts(&text)
        );
    }
}
