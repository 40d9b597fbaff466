//! Events and Nodes, as tables and descriptions show them.

use super::*;

const WAITING: &str = "\
$ kubectl get pods -n shop --show-labels -o wide
NAME     READY   STATUS    RESTARTS   AGE   IP         NODE   NOMINATED NODE   READINESS GATES   LABELS
web-1    0/1     Running   0          9m    10.1.2.3   n1     <none>           <none>            app=web
other    0/1     Running   0          9m    10.1.2.4   n1     <none>           <none>            app=other
";

const EVENTS: &str = "\
$ kubectl get events -n shop
LAST SEEN   TYPE      REASON      OBJECT        MESSAGE
8m          Normal    Scheduled   pod/web-1     Successfully assigned shop/web-1 to n1
65s         Warning   Unhealthy   pod/web-1     Readiness probe failed: dial tcp 10.1.2.3:8081: connect: connection refused
30s         Warning   Unhealthy   pod/other     Readiness probe failed: nothing of ours
40s         Warning   FailedToUpdateEndpointSlices   service/web   Error updating Endpoint Slices for Service shop/web: conflict
";

fn pods_healthy(text: &str) -> (S, Reason, String) {
    answers(text).remove(&C::PodsHealthy).unwrap()
}

#[test]
fn an_event_is_quoted_with_its_age_and_proves_nothing() {
    let text = format!("{SERVICE}{WAITING}{EVENTS}");
    assert_unblamed(&text);
    let (status, _, message) = pods_healthy(&text);
    assert_eq!(status, S::Unknown);
    assert!(
        message.contains(
            "Warning about Pod web-1: Unhealthy: Readiness probe failed: dial tcp 10.1.2.3:8081: connect: connection refused (last seen 1m 5s before this was saved)."
        ),
        "{message}"
    );
    assert!(
        message.contains("does not say whether that is still so"),
        "{message}"
    );
    assert!(!message.contains("nothing of ours"), "{message}");
    let (_, _, endpoints) = &answers(&text)[&C::EndpointsPopulated];
    assert!(endpoints.contains("FailedToUpdateEndpointSlices"), "{endpoints}");
    assert!(
        parts(EVENTS)[0].ends_with("a table of Events (4 rows, 3 Warnings)"),
        "{:?}",
        parts(EVENTS)
    );
}

/// Nothing is logged when a probe passes again.
#[test]
fn of_a_pod_that_is_ready_no_event_is_quoted() {
    let ready = WAITING.replace(
        "0/1     Running   0          9m    10.1.2.3",
        "1/1     Running   0          9m    10.1.2.3",
    );
    let slices = ENDPOINTS;
    let text = format!("{SERVICE}{ready}{slices}{EVENTS}");
    assert_unblamed(&text);
    for (stage, (status, _, message)) in answers(&text) {
        assert!(!message.contains("Warning about"), "{stage:?}: {message}");
        if matches!(stage, C::PodsHealthy | C::EndpointsPopulated) {
            assert_eq!(status, S::True, "{stage:?}: {message}");
        }
    }
}

#[test]
fn events_without_pods_may_be_of_others() {
    let text = format!("{SERVICE}{EVENTS}");
    assert_unblamed(&text);
    let (_, _, message) = pods_healthy(&text);
    assert!(
        message.contains("nor whether the Service selects these Pods"),
        "{message}"
    );
}

#[test]
fn events_are_read_without_a_header_and_below_descriptions() {
    for (text, part) in [
        (
            "$ kubectl -n shop get events | grep web-1\n65s   Warning   Unhealthy   pod/web-1   Readiness probe failed: EOF\n",
            "a table of Events (1 row, 1 Warning)",
        ),
        (
            "$ kubectl -n shop events\nLAST SEEN          TYPE      REASON      OBJECT      MESSAGE\n65s (x3 over 2m)   Warning   Unhealthy   Pod/web-1   Readiness probe failed: EOF\n",
            "a table of Events (1 row, 1 Warning)",
        ),
        (
            "$ kubectl get events -A\nNAMESPACE   LAST SEEN   TYPE      REASON      OBJECT      MESSAGE\nshop        65s         Warning   Unhealthy   pod/web-1   Readiness probe failed: EOF\nfar         65s         Warning   Unhealthy   pod/web-1   Readiness probe failed: far away\n",
            "a table of Events (2 rows, 2 Warnings)",
        ),
        (
            "Name:             web-1\nNamespace:        shop\nLabels:           app=web\nStatus:           Running\nContainers:\n  c:\nConditions:\n  Type   Status\n  Ready  False\nEvents:\n  Type     Reason     Age                From     Message\n  ----     ------     ----               ----     -------\n  Warning  Unhealthy  65s (x3 over 2m)   kubelet  Readiness probe failed: EOF\n",
            "the description of Pod web-1 and its Events (1 Warning)",
        ),
    ] {
        assert!(parts(text)[0].ends_with(part), "{:?}", parts(text));
        let (_, _, message) = pods_healthy(&format!("{SERVICE}{WAITING}\n{text}"));
        assert!(
            message
                .contains("Warning about Pod web-1: Unhealthy: Readiness probe failed: EOF (last seen 1m 5s"),
            "{text}{message}"
        );
        assert!(!message.contains("far away"), "{message}");
    }
}

#[test]
fn what_says_nothing_is_said_to_be_of_no_use() {
    for (text, why) in [
        (
            "$ kubectl get events\nLAST SEEN   TYPE     REASON      OBJECT      MESSAGE\n65s         Normal   Scheduled   pod/web-1   Assigned\n",
            "not used: none of them is a Warning",
        ),
        (
            "$ kubectl get events -A | tail -1\n65s         Warning   Unhealthy   pod/web-1   Readiness probe failed: EOF\n",
            "has no column NAMESPACE",
        ),
        (
            "$ kubectl get events\nLAST SEEN   TYPE     REASON      OBJECT      MESSAGE\n65s         Warning   Unhealthy   pod/web-1   x\nand some more\n",
            "of which some were not understood (line 4)",
        ),
    ] {
        assert!(parts(text)[0].contains(why), "{:?}", parts(text));
    }
}

/// A Pod as its API server has it, which has not been ready since it was made.
fn unready() -> String {
    pod("web-1", "web").replace("\"status\":\"True\"", "\"status\":\"False\"").replace(
        "[{\"name\":\"c\"}]",
        "[{\"name\":\"c\",\"readinessProbe\":{\"tcpSocket\":{\"port\":8081}}}]",
    ).replace(
        "\"podIP\"",
        "\"startTime\":\"2026-05-01T08:00:00Z\",\"containerStatuses\":[{\"name\":\"c\",\"ready\":false,\"started\":true,\"state\":{\"running\":{\"startedAt\":\"2026-05-01T08:00:00Z\"}}}],\"podIP\"",
    )
}

/// The files of a bundle, with all Pods and the EndpointSlices of the Service.
fn bundled(pods: &[String], text: &str) -> Diagnosis {
    let file = |path: &str, text: String| File {
        path: path.to_owned(),
        text,
        modified: None,
    };
    let service = SERVICE.split_once('\n').unwrap().1.to_owned();
    let pods = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"PodList\",\"items\":[{}]}}",
        pods.join(",")
    );
    let slices = "{\"apiVersion\":\"discovery.k8s.io/v1\",\"kind\":\"EndpointSliceList\",\"items\":[]}";
    let bundle = Bundle::within(
        Files {
            files: vec![
                file("objects/service.yaml", service),
                file("objects/pods.json", pods),
                file("objects/endpointslices.json", slices.to_owned()),
                file("notes.txt", text.to_owned()),
            ],
            problems: Vec::new(),
        },
        Some("shop"),
    );
    let diagnosis = bundle.diagnosis("shop", "web");
    diagnose(&facts(&bundle, &diagnosis, NOW.parse().unwrap()).0)
}

#[test]
fn the_event_of_a_known_pod_says_why_it_is_not_ready() {
    let found = bundled(&[unready()], EVENTS).root_cause.unwrap();
    assert_eq!(found.reason, "ReadinessProbeFailing");
    assert!(
        found
            .message
            .contains("connection refused (last seen 1m 5s before this was saved)"),
        "{}",
        found.message
    );
}

#[test]
fn an_event_of_an_earlier_pod_of_the_name_is_not_quoted() {
    let old = EVENTS.replace("65s         Warning", "5h          Warning");
    let found = bundled(&[unready()], &old).root_cause.unwrap();
    assert_eq!(found.reason, "ReadinessProbeFailing");
    assert!(!found.message.contains("connection refused"), "{}", found.message);
}

const NODE: &str = "\
$ kubectl describe node n1
Name:               n1
Roles:              <none>
Labels:             topology.kubernetes.io/zone=a
Taints:             <none>
Unschedulable:      false
Conditions:
  Type             Status    LastHeartbeatTime                 LastTransitionTime                Reason              Message
  ----             ------    -----------------                 ------------------                ------              -------
  MemoryPressure   Unknown   Fri, 01 May 2026 10:00:10 +0000   Fri, 01 May 2026 10:01:02 +0000   NodeStatusUnknown   Kubelet stopped posting node status.
  Ready            Unknown   Fri, 01 May 2026 10:00:10 +0000   Fri, 01 May 2026 10:01:02 +0000   NodeStatusUnknown   Kubelet stopped posting node status.
Addresses:
  InternalIP:  192.168.0.2
  Hostname:    n1
System Info:
  Machine ID:                 3a
  Kubelet Version:            v1.34.1
PodCIDR:                      10.1.2.0/24
PodCIDRs:                     10.1.2.0/24
Non-terminated Pods:          (1 in total)
  Namespace                   Name     CPU Requests  CPU Limits  Memory Requests  Memory Limits  Age
  ---------                   ----     ------------  ----------  ---------------  -------------  ---
  shop                        web-1    0 (0%)        0 (0%)      0 (0%)           0 (0%)         9m
Events:                       <none>
";

#[test]
fn the_description_of_a_node_is_that_node() {
    let (bundle, parts) = read(NODE, None, None);
    assert_eq!(parts.len(), 1, "{parts:?}");
    assert_eq!(parts[0].describe(), "lines 2-24: the description of Node n1");
    let text = format!("{SERVICE}{}{NODE}", pod_list(&unready()));
    let (of_both, _) = read(&text, None, Some("shop"));
    let facts = facts(&of_both, &of_both.diagnosis("shop", "web"), NOW.parse().unwrap()).0;
    let node = &facts.cluster_nodes[0];
    assert_eq!(node.zone(), Some("a"));
    assert_eq!(node.pod_ranges().len(), 1);
    assert_eq!(node.kubernetes_version(), Some("v1.34.1"));
    let ready = node.ready().unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_deref()),
        ("Unknown", Some("NodeStatusUnknown"))
    );
    assert!(bundle.inventory.has_node("n1"));
}

#[test]
fn a_node_that_is_lost_is_said_with_its_pods_and_one_that_is_ready_is_not() {
    let said = |text: &str| pods_healthy(&format!("{SERVICE}{WAITING}{text}")).2;
    let lost = "web-1 (0/1 Running on node n1, which is not ready)";
    assert!(said(NODE).contains(lost), "{}", said(NODE));
    let table = "$ kubectl get nodes\nNAME   STATUS     ROLES    AGE   VERSION\nn1     NotReady   <none>   9d    v1.34.1\n";
    assert!(said(table).contains(lost), "{}", said(table));
    let ready = table.replace("NotReady", "Ready,SchedulingDisabled");
    for text in [
        NODE.replace("Ready            Unknown", "Ready            True   "),
        ready.clone(),
        // One of two moments: nobody knows which.
        format!("{ready}{table}"),
    ] {
        assert!(said(&text).contains("web-1 (0/1 Running)"), "{}", said(&text));
    }
}

/// A Node that nobody asked about is not gone.
#[test]
fn the_nodes_that_are_not_described_may_be_there() {
    let elsewhere = unready().replace("\"nodeName\":\"n1\"", "\"nodeName\":\"n2\"");
    let ready = NODE.replace("Ready            Unknown", "Ready            True   ");
    let found = bundled(&[elsewhere], &ready).root_cause.unwrap();
    assert_eq!(found.reason, "ReadinessProbeFailing", "{}", found.message);
    // That of the Pod is the cause, if it is lost.
    let found = bundled(&[unready()], NODE).root_cause.unwrap();
    assert_eq!(found.reason, "NodeNotReady", "{}", found.message);
}

const SLICE: &str = "\
$ kubectl -n shop describe endpointslice web-abcde
Name:         web-abcde
Namespace:    shop
Labels:       endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io
              kubernetes.io/service-name=web
Annotations:  <none>
AddressType:  IPv4
Ports:
  Name     Port  Protocol
  ----     ----  --------
  <unset>  8080  TCP
Endpoints:
  - Addresses:  10.1.2.3
    Conditions:
      Ready:    true
    Hostname:   <unset>
    TargetRef:  Pod/web-1
  - Addresses:  10.1.2.9
    Conditions:
      Ready:    false
    TargetRef:  Pod/web-2
Events:         <none>
";

#[test]
fn the_description_of_a_slice_shows_which_endpoints_are_ready() {
    let endpoints = |text: &str| {
        let text = format!("{SERVICE}{text}");
        assert_unblamed(&text);
        answers(&text).remove(&C::EndpointsPopulated).unwrap()
    };
    let (status, _, message) = endpoints(SLICE);
    assert_eq!(status, S::True, "{message}");
    assert!(
        message.contains("1 endpoint is ready") && message.contains("10.1.2.3"),
        "{message}"
    );
    let none = SLICE.replace("true", "false");
    assert_eq!(endpoints(&none).0, S::Unknown);
    // Cut before its endpoints it says nothing of them.
    let cut = SLICE.split("Endpoints:").next().unwrap();
    assert!(parts(cut)[0].contains("could not be parsed"), "{:?}", parts(cut));
    // Of two slices each holds a part, and the Endpoints all of it.
    let other = SLICE
        .replace("web-abcde", "web-fghij")
        .replace("10.1.2.3", "10.1.2.4");
    assert!(
        endpoints(&format!("{SLICE}\n{other}"))
            .2
            .contains("2 endpoints are ready")
    );
    let table = ENDPOINTS.replace("10.1.2.3:8080     3d", "10.1.2.3:8080,10.1.2.4:8080   3d");
    assert!(
        endpoints(&format!("{SLICE}{table}"))
            .2
            .contains("2 endpoints are ready")
    );
    let table = ENDPOINTS.replace("10.1.2.3", "10.1.2.7");
    assert_eq!(
        endpoints(&format!("{SLICE}{table}")).0,
        S::Unknown,
        "they disagree"
    );
}

#[test]
fn the_description_of_a_pod_says_why_its_container_waits() {
    let waiting = DESCRIBED_POD
        .replace("Ready             True", "Ready             False")
        .replace(
            "    Ready:          True",
            "    State:          Waiting\n      Reason:       CrashLoopBackOff\n    Last State:     Terminated\n      Reason:       Error",
        );
    let said = |text: &str| pods_healthy(&format!("{SERVICE}\n{text}")).2;
    assert!(
        said(&waiting).contains("web-1 (Running, CrashLoopBackOff)"),
        "{}",
        said(&waiting)
    );
    let ended = waiting.replace("Waiting", "Running");
    assert!(
        said(&ended).contains("web-1 (Running, not ready)"),
        "{}",
        said(&ended)
    );
}

#[test]
fn hostile_tables_of_events_and_descriptions_are_survived() {
    let row = "1s   Warning   Unhealthy   pod/web-1   x\n";
    let many: String = (0..30_000)
        .map(|n| format!("1s   Warning   R{n}   pod/web-{n}   x\n"))
        .collect();
    let header = "LAST SEEN   TYPE      REASON      OBJECT        MESSAGE\n";
    for text in [
        format!("{header}{many}"),
        format!(
            "{header}1s   Warning   Unhealthy   pod/web-1   {}\n",
            "x".repeat(1 << 20)
        ),
        format!("{header}1s   Warning   Unhealthy   pod/--server=evil   `rm` \u{1b}[2J\u{202e}\n"),
        format!("{header}{}", row.replace("web-1", &"a/".repeat(10_000))),
        format!("{NODE}{}", "  Ready   True\n".repeat(10_000)),
        EVENTS.replace('\n', "\r\n"),
        EVENTS.get(..EVENTS.len() / 2).unwrap().to_owned(),
        NODE.get(..NODE.len() / 3).unwrap().to_owned(),
        "LAST SEEN   TYPE      REASON\u{0}      OBJECT\u{7}        MESSAGE\n\u{0}\u{1}\u{2}\n".to_owned(),
    ] {
        let text = format!("{SERVICE}{WAITING}{text}");
        assert_unblamed(&text);
        for (_, (_, _, message)) in answers(&text) {
            assert!(message.len() < 4_000, "{}", message.len());
            assert!(
                !message.contains("evil") && !message.contains('\u{202e}'),
                "{message}"
            );
        }
        assert!(parts(&text).iter().all(|part| part.len() < 400));
    }
    let windows = format!("{SERVICE}{WAITING}{}", EVENTS.replace('\n', "\r\n"));
    assert!(
        pods_healthy(&windows)
            .2
            .contains("connection refused (last seen 1m 5s")
    );
}
