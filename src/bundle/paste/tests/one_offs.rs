//! Pods that are made for one command, and containers that are put into Pods and on nodes for it.

use std::sync::Arc;

use super::{logs::placed, *};
use crate::objects::NetworkPolicy;

/// One answer of kubectl has no command; as a paste it is none, so that its lists prove nothing.
fn objects() -> String {
    let slice = "{\"apiVersion\":\"discovery.k8s.io/v1\",\"kind\":\"EndpointSlice\",\"metadata\":{\"name\":\"web-1\",\"namespace\":\"shop\",\
         \"labels\":{\"kubernetes.io/service-name\":\"web\"}},\"addressType\":\"IPv4\",\"ports\":[{\"name\":\"\",\"port\":8080,\"protocol\":\"TCP\"}],\
         \"endpoints\":[{\"addresses\":[\"10.1.2.3\"],\"conditions\":{\"ready\":true},\"nodeName\":\"n1\",\"targetRef\":{\"kind\":\"Pod\",\"namespace\":\"shop\",\"name\":\"web-1\",\"uid\":\"web-1\"}}]}";
    format!(
        "{SERVICE}$ kubectl get pods,endpointslices -n shop -o json\n{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{},{slice}]}}\n",
        pod("web-1", "web")
    )
}

fn run(rest: &str) -> String {
    format!(
        "{}$ kubectl run tmp -n shop --rm -it --restart=Never --image=busybox {rest}\npod \"tmp\" deleted\n",
        objects()
    )
}

/// As if the text were known to show everything, which no paste is.
fn judge_with_policies(text: &str, policies: &[NetworkPolicy]) -> Diagnosis {
    let (bundle, _) = read(text, None, Some("shop"));
    let (mut facts, _) = facts(&bundle, &bundle.diagnosis("shop", "web"), NOW.parse().unwrap());
    facts.unreadable.clear();
    facts.policies.extend(policies.iter().cloned().map(Arc::new));
    diagnose(&facts)
}

fn verdict(found: &Diagnosis, condition: C) -> (S, &str) {
    let mut stages = found.stages.iter();
    let (_, finding) = stages.find(|(c, _)| *c == condition).unwrap();
    (finding.status(), &finding.message)
}

#[test]
fn what_a_pod_of_one_command_gets_of_the_service_counts() {
    let answers = answers(&run("-- wget -qO- -T 3 10.96.0.7\nhello"));
    let (status, reason, message) = &answers[&C::ServiceReachable];
    assert_eq!((*status, *reason), (S::True, Reason::Reachable), "{message}");
    let refused =
        "-- wget -qO- -T 3 10.96.0.7\nwget: can't connect to remote host (10.96.0.7): Connection refused";
    assert_unblamed(&run(refused));
    let found = judge_with_policies(&run(refused), &[]);
    let cause = found
        .root_cause
        .as_ref()
        .unwrap_or_else(|| panic!("{:#?}", found.stages));
    assert_eq!(
        (cause.condition.as_str(), cause.reason.as_str()),
        ("ServiceReachable", "ConnectionRefused")
    );
    assert!(
        cause.message.contains("dialled from Pod shop/tmp."),
        "{}",
        cause.message
    );
    let told = format!("{found:#?}");
    assert!(!told.contains("(unknown)"), "{told}");
}

/// What was pasted is not asked for.
#[test]
fn nobody_is_asked_for_a_request_that_is_there() {
    let message = |rest: &str| answers(&run(rest)).remove(&C::ServiceReachable).unwrap().2;
    let lost = message("-- wget -qO- -T 3 10.96.0.7\nwget: download timed out");
    assert!(
        lost.contains("Dials failed") && !lost.contains("To find out"),
        "{lost}"
    );
    let silent = message("-- curl -s 10.96.0.7");
    assert!(silent.contains("`curl -v CLUSTER-IP:PORT`"), "{silent}");
    let none = message("-- nslookup web\nServer: 10.96.0.10\n");
    assert!(
        none.contains("save the output of `curl CLUSTER-IP:PORT`"),
        "{none}"
    );
}

#[test]
fn names_that_a_pod_of_one_command_finds_are_found() {
    let found = "-- nslookup web\nServer:\t\t10.96.0.10\nAddress:\t10.96.0.10#53\n\nName:\tweb.shop.svc.cluster.local\nAddress: 10.96.0.7\n";
    let (status, _, message) = answers(&run(found)).remove(&C::DNSResolves).unwrap();
    assert_eq!(status, S::True, "{message}");
    let lost = "-- nslookup web.shop.svc.cluster.local\nServer:\t\t10.96.0.10\nAddress:\t10.96.0.10:53\n\n** server can't find web.shop.svc.cluster.local: NXDOMAIN\n";
    let (status, _, message) = answers(&run(lost)).remove(&C::DNSResolves).unwrap();
    assert_ne!(status, S::True, "{message}");
}

/// What kubectl says of the Pod is no answer of the Service.
#[test]
fn words_of_kubectl_are_no_answer() {
    for words in [
        "-- curl -s -o /dev/null 10.96.0.7\npod shop/tmp terminated (Error)",
        "-- curl -s 10.96.0.7\nIf you don't see a command prompt, try pressing enter.\nwarning: couldn't attach to pod/tmp, falling back to streaming logs: Internal error",
        "-- curl -s 10.96.0.7\nError from server (AlreadyExists): pods \"tmp\" already exists",
        "-- curl -s 10.96.0.7\nerror: timed out waiting for the condition",
        "-- curl -s 10.96.0.7\nAll commands and output from this session will be recorded in container logs, including credentials and sensitive information passed through the command prompt.",
        "-- curl -s 10.96.0.7\npod/tmp created",
        "-- curl -s 10.96.0.7\npod \"tmp\" deleted from shop namespace",
    ] {
        let text = run(words);
        assert_unblamed(&text);
        assert_eq!(answers(&text)[&C::ServiceReachable].0, S::Unknown, "{words}");
    }
    let code = "-- curl -s -o /dev/null -w '%{http_code}' 10.96.0.7\n";
    for (words, status) in [
        ("000pod \"tmp\" deleted", S::False),
        ("200pod \"tmp\" deleted from shop namespace", S::True),
    ] {
        let found = judge_with_policies(&run(&format!("{code}{words}")), &[]);
        let (answer, message) = verdict(&found, C::ServiceReachable);
        assert_eq!(answer, status, "{words}: {message}");
    }
}

/// Whoever tries a Service from any Pod may be kept away where its clients are not.
#[test]
fn a_pod_of_one_command_that_a_policy_keeps_away_blames_nobody() {
    let front_only = serde_json::from_value(serde_json::json!({
        "metadata": { "name": "front-only", "namespace": "shop", "uid": "front-only" },
        "spec": {
            "podSelector": { "matchLabels": { "app": "web" } },
            "policyTypes": ["Ingress"],
            "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "front" } } }] }],
        },
    }));
    let policies = [front_only.unwrap()];
    let text = run("-- wget -qO- -T 3 10.96.0.7\nwget: download timed out");
    let found = judge_with_policies(&text, &policies);
    assert_eq!(found.root_cause, None, "{:#?}", found.stages);
    // With the labels that it admits the Pod is one that has to get through.
    let admitted = text.replace("--restart=Never", "--restart=Never --labels=app=front");
    let found = judge_with_policies(&admitted, &policies);
    assert_eq!(
        verdict(&found, C::ServiceReachable).0,
        S::False,
        "{:#?}",
        found.stages
    );
    // Somebody's Pod that is not one of the moment is a client.
    let exec = text.replace(
        "run tmp -n shop --rm -it --restart=Never --image=busybox",
        "exec -n shop client",
    );
    let exec = format!(
        "{}\n{exec}",
        pod("client", "client").replace("10.1.2.3", "10.1.2.9")
    );
    let found = judge_with_policies(&exec, &policies);
    assert_eq!(
        verdict(&found, C::NetworkPolicyAllows).0,
        S::False,
        "{:#?}",
        found.stages
    );
}

#[test]
fn between_which_nodes_a_dial_of_an_unknown_one_went_is_not_said() {
    let text = run("-- wget -qO- -T 3 10.1.2.3:8080\nwget: download timed out");
    let told = format!("{:#?}", judge_with_policies(&text, &[]));
    for words in [
        "CrossNodeUnreachable",
        "LostBetweenNodes",
        "node (unknown)",
        "'(unknown)'",
    ] {
        assert!(!told.contains(words), "{words}: {told}");
    }
    // It is one of the Service's own: it may have met itself.
    let own = text.replace("--restart=Never", "--restart=Never -l app=web");
    assert_unblamed(&own);
}

#[test]
fn programs_of_run_and_debug_are_put_where_they_ran() {
    let on = |rest: &str| format!("{}{rest}", objects());
    for (text, expected) in [
        (
            "$ kubectl run tmp -n shop --rm -it --image=busybox -- wget -qO- web\nok\n",
            "pods/shop/tmp/wget-line-19.txt",
        ),
        (
            "$ kubectl run curl -n shop --rm -it --image=curlimages/curl --restart=Never -- -m 5 http://web\nok\n",
            "pods/shop/curl/command-line-19.txt",
        ),
        (
            "$ kubectl run tmp -n shop -it --rm --image=busybox -- sh\nIf you don't see a command prompt, try pressing enter.\n/ # nslookup web\nServer: x\n",
            "pods/shop/tmp/nslookup-line-21.txt",
        ),
        (
            "$ kubectl run -n shop -it --rm --image=nicolaka/netshoot tmp\nbash-5.1# curl web\nok\n",
            "pods/shop/tmp/curl-line-20.txt",
        ),
        (
            "$ kubectl debug -it web-1 -n shop --image=busybox --target=c -- nslookup web\nServer: x\n",
            "pods/shop/web-1/nslookup-line-19.txt",
        ),
        (
            "$ kubectl debug node/n1 -it --image=busybox -- chroot /host iptables-save\n*nat\nCOMMIT\n",
            "nodes/n1/iptables-save-line-19.txt",
        ),
        (
            "$ kubectl debug node/n1 -it --image=busybox -- ip route\ndefault via 192.0.2.1 dev eth0\n",
            "nodes/n1/ip-route-line-19.txt",
        ),
        (
            "$ kubectl debug node/n1 -it --image=ubuntu\nroot@n1:/# chroot /host\n# iptables-save\n*nat\nCOMMIT\n",
            "nodes/n1/iptables-save-line-21.txt",
        ),
        // The first line of the next command ends the shell.
        (
            "$ kubectl debug node/n1 -it --image=ubuntu\nroot@n1:/# exit\n$ curl web\nok\n",
            "",
        ),
        (
            "$ kubectl debug node/n1 -it --image=ubuntu -- iptables-save\n*nat\nCOMMIT\n",
            "",
        ),
        (
            "$ kubectl debug node/n1 -it --profile=restricted --image=busybox -- wget -qO- 10.96.0.7\nok\n",
            "",
        ),
        (
            "$ kubectl debug node/n9 -it --image=busybox -- wget -qO- 10.96.0.7\nok\n",
            "",
        ),
        (
            "$ kubectl run tmp -n shop --rm -it --image=busybox --overrides='{\"spec\":{\"hostNetwork\":true}}' -- wget -qO- web\nok\n",
            "",
        ),
        (
            "$ kubectl run ../x -n shop --rm -it --image=busybox -- wget -qO- web\nok\n",
            "",
        ),
    ] {
        let expected: Vec<&str> = Some(expected).filter(|e| !e.is_empty()).into_iter().collect();
        assert_eq!(placed(&on(text)), expected, "{text}\n{:?}", parts(&on(text)));
    }
}

#[test]
fn two_pods_of_one_name_that_policies_tell_apart_are_not_taken_for_one() {
    let run = |flags: &str, answer: &str| {
        format!(
            "$ kubectl run tmp -n shop {flags} --rm -it --image=busybox -- wget -qO- 10.96.0.7\n{answer}\n"
        )
    };
    let admitted = run("--labels=app=front", "ok");
    let lost = run("", "wget: download timed out");
    let text = format!("{}{admitted}{lost}{lost}", objects());
    assert_eq!(placed(&text).len(), 1, "{:?}", parts(&text));
    assert!(parts(&text).pop().unwrap().contains("had other labels"));
}

/// A short name is looked up in the namespace of the Pod: what is not found in another one is not missing.
#[test]
fn in_which_namespace_a_pod_ran_is_known_or_nothing_of_it_is_used() {
    let lookup = "$ kubectl run tmp --rm -it --image=busybox -- nslookup web\nServer:\t\t10.96.0.10\nAddress:\t10.96.0.10#53\n\n** server can't find web: NXDOMAIN\n";
    let text = format!("{}{lookup}", objects());
    assert_eq!(placed(&text), [""; 0]);
    assert_unblamed(&text);
    let last = parts(&text).pop().unwrap();
    assert!(last.contains("repeat it with -n"), "{last}");
    // Where no command names it, all of them ran in that of the context, which the Service is in.
    let of_context = format!("{}{lookup}", objects().replace(" -n shop", ""));
    assert_eq!(placed(&of_context), ["pods/shop/tmp/nslookup-line-19.txt"]);
    let named = text.replace("run tmp", "run tmp -n web");
    assert_eq!(placed(&named), ["pods/web/tmp/nslookup-line-19.txt"]);
    assert_unblamed(&named);
}
