//! `svcdiag diagnose -`: what somebody pastes, from standard input and from a file.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

const PASTE: &str = "\
My Service does not work!

```
$ cat app.yaml
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector:
    app: web
  ports:
  - port: 80
    targetPort: web
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
      - name: app
        ports:
        - name: http
          containerPort: 3000
$ curl -sS web
curl: (6) Could not resolve host: web
```
";

fn diagnose(arguments: &[&str], input: &[u8]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_svcdiag"))
        .arg("diagnose")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it has read everything.
    let _ = program.stdin.take().unwrap().write_all(input);
    program.wait_with_output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_paste_is_judged_and_every_part_of_it_is_said() {
    let output = diagnose(&["-"], PASTE.as_bytes());
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{stdout}{stderr}");
    assert!(stdout.contains("declares a TCP port of that name"), "{stdout}");
    let listed = "\nThe text was read as:\n\
        \x20 line 1: not recognized, not used: My Service does not work!\n\
        \x20 lines 5-30: Service web, Deployment web\n\
        \x20 line 32: output of \"curl -sS web\"; not used: ";
    assert!(stdout.contains(listed), "{stdout}");
    assert!(
        stderr.contains("2 objects have no namespace, so default is assumed"),
        "{stderr}"
    );
}

#[test]
fn for_programs_the_parts_are_on_standard_error() {
    let output = diagnose(&["-", "-n", "shop", "-o", "json"], PASTE.as_bytes());
    let (stdout, stderr) = texts(&output);
    let object: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(object["metadata"]["namespace"], "shop");
    assert!(stderr.contains("line 1: not recognized"), "{stderr}");
}

#[test]
fn a_file_is_read_like_standard_input() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("paste.txt");
    std::fs::write(&path, PASTE).unwrap();
    let of_file = diagnose(&[path.to_str().unwrap()], b"");
    let of_input = diagnose(&["-"], PASTE.as_bytes());
    assert_eq!(texts(&of_file).0, texts(&of_input).0);
    // A file of objects alone is a bundle of one file.
    let objects: Vec<&str> = PASTE.lines().skip(4).take(26).collect();
    let path = directory.path().join("app.yaml");
    std::fs::write(&path, objects.join("\n")).unwrap();
    let output = diagnose(&[path.to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(!texts(&output).0.contains("was read as"));
}

#[test]
fn what_cannot_be_read_is_an_error_that_says_so() {
    for (input, expected) in [
        (vec![b'a'; (16 << 20) + 1], "standard input is larger than 16 MiB"),
        (b"\0\x01".to_vec(), "nor a text (UTF-8)"),
        (Vec::new(), "name the Service"),
        (
            b"nothing of use".to_vec(),
            "line 1: not recognized, not used: nothing of use",
        ),
    ] {
        let output = diagnose(&["-"], &input);
        let (stdout, stderr) = texts(&output);
        assert_eq!((output.status.code(), stdout.as_str()), (Some(3), ""), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

/// What people paste beside the objects: tables, descriptions, Events, logs, and what they typed on a node.
const EVERYTHING: &str = "\
$ kubectl -n shop describe svc orders
Name:              orders
Namespace:         shop
Selector:          app=orders
Type:              ClusterIP
IP:                10.96.77.12
Port:              http  80/TCP
TargetPort:        8080/TCP
Endpoints:         <none>
Session Affinity:  None
Events:            <none>
$ kubectl -n shop get pods -o wide --show-labels
NAME       READY   STATUS    RESTARTS   AGE   IP            NODE   NOMINATED NODE   READINESS GATES   LABELS
orders-0   0/1     Running   0          26m   10.244.3.18   w3     <none>           <none>            app=orders
$ kubectl -n shop get events
LAST SEEN   TYPE      REASON      OBJECT         MESSAGE
90s         Warning   Unhealthy   pod/orders-0   Readiness probe failed: HTTP probe failed with statuscode: 503
$ kubectl get nodes
NAME   STATUS     ROLES    AGE   VERSION
w3     NotReady   <none>   28d   v1.34.1
$ kubectl -n kube-system get pods -o wide
NAME               READY   STATUS    RESTARTS   AGE   IP           NODE   NOMINATED NODE   READINESS GATES
kube-proxy-x7k2p   1/1     Running   0          28d   192.0.2.13   w3     <none>           <none>
$ kubectl -n kube-system logs kube-proxy-x7k2p
I1130 17:00:00.000001       1 server_linux.go:53] \"Using iptables proxy\"
$ kubectl -n kube-system logs coredns-5d78c9869d-2jq4m
[INFO] plugin/ready: Still waiting on: \"kubernetes\"
root@w3:~# ip route
default via 192.0.2.1 dev eth0
root@w3:~# iptables -L FORWARD -n -v
Chain FORWARD (policy ACCEPT 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination
root@w3:~# ethtool -k flannel.1
Features for flannel.1:
\ttx-checksum-ip-generic: on
root@w3:~# uptime
 12:00:00 up 4 days
";

const READ_AS: &str = "\nThe text was read as:
  lines 2-11: the description of Service orders
  lines 13-14: a table of Pods (1 row)
  lines 16-17: a table of Events (1 row, 1 Warning)
  lines 19-20: a table of Nodes (1 row)
  lines 22-23: a table of Pods (1 row); not used: it does not say which Pods the Service selects; add --show-labels
  line 25: the log of kube-proxy (nodes/w3)
  line 27: the log of CoreDNS (pods/kube-system/coredns-5d78c9869d-2jq4m)
  line 29: output of \"ip route\" (nodes/w3)
  lines 31-32: output of \"iptables -L FORWARD -n -v\" (nodes/w3)
  lines 34-35: output of \"ethtool -k flannel.1\" (nodes/w3)
  line 37: output of \"uptime\"; not used: nothing is read of the output of this command
";

#[test]
fn every_form_is_recognized_and_nothing_is_blamed_on_it() {
    let plain = diagnose(&["-"], EVERYTHING.as_bytes());
    let windows = diagnose(&["-"], EVERYTHING.replace('\n', "\r\n").as_bytes());
    let coloured = EVERYTHING.replace("root@w3", "\u{1b}[01;32mroot@w3\u{1b}[00m");
    let coloured = diagnose(&["-"], coloured.as_bytes());
    for output in [plain, windows, coloured] {
        let (stdout, stderr) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{stdout}{stderr}");
        assert!(stdout.contains(READ_AS), "{stdout}{stderr}");
        for said in [
            "orders-0 (0/1 Running on node w3, which is not ready)",
            "statuscode: 503 (last seen 1m 30s before this was saved). An Event does not say whether that is still so.",
        ] {
            assert!(stdout.contains(said), "{stdout}");
        }
        assert!(!stderr.contains("not used"), "{stderr}");
    }
}

#[test]
fn a_paste_that_ends_anywhere_is_read_up_to_there() {
    for end in (0..EVERYTHING.len()).step_by(97) {
        let output = diagnose(&["-", "orders", "-n", "shop"], &EVERYTHING.as_bytes()[..end]);
        let (stdout, stderr) = texts(&output);
        assert!(
            matches!(output.status.code(), Some(2 | 3)),
            "{end}: {stdout}{stderr}"
        );
    }
}
