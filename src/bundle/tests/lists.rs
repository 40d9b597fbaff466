//! Which lists tell that what is not in them does not exist.

use super::*;

#[test]
fn slices_of_other_services_tell_nothing_of_this_one() {
    let mut files = without("objects/endpointslices.yaml");
    files.push(("objects/endpointslices.yaml", list(&[slice("db", json!([]))])));
    assert_nobody_is_blamed(&bundle(&files));
    files.pop();
    // With those of several, nobody asked for one alone.
    let slices = list(&[slice("db", json!([])), slice("cache", json!([]))]);
    files.push(("objects/endpointslices.yaml", slices));
    assert_cause(&bundle(&files), "EndpointSlicesStale");
    files.pop();
    files.push(("objects/endpointslices.yaml", list(&[slice("web", Value::Null)])));
    assert_cause(&bundle(&files), "EndpointSlicesStale");
}

#[test]
fn single_pods_are_not_all_pods() {
    let mut files = without("objects/pods.yaml");
    files.push(("objects/client.yaml", pod("client", json!({ "app": "client" }))));
    assert_nobody_is_blamed(&bundle(&files));
    files.push((
        "objects/pods.json",
        api_list(&[pod("client", json!({ "app": "client" }))]),
    ));
    assert_cause(&bundle(&files), "SelectorMatchesNoPods");
}

#[test]
fn a_list_of_kubectl_that_may_have_been_filtered_is_not_whole() {
    let with = |path: &'static str, list: Value| {
        let mut files = without("objects/pods.yaml");
        files.push((path, list));
        bundle(&files)
    };
    let client = |name: &str| pod(name, json!({ "app": "client" }));
    let other = pod("other", json!({ "app": "other" }));
    // `kubectl get pods -l app=client -o yaml`, of one Pod or of several.
    for items in [vec![client("a")], vec![client("a"), client("b")]] {
        let bundle = with("objects/pods.yaml", list(&items));
        assert_nobody_is_blamed(&bundle);
        let (_, _, message) = &answers(&bundle)[&C::EndpointsPopulated];
        assert!(
            message.contains("the label app=client") && message.contains("--raw"),
            "{message}"
        );
        // What the API wrote was not filtered.
        let mut files = without("objects/pods.yaml");
        files.push(("objects/pods.json", api_list(&items)));
        assert_cause(&super::bundle(&files), "SelectorMatchesNoPods");
    }
    // `kubectl get pod a other -o yaml` says nothing of others, unless the file is named after the kind.
    let two = [client("a"), other.clone()];
    assert_nobody_is_blamed(&with("objects/clients.yaml", list(&two)));
    let mut files = without("objects/pods.yaml");
    files.retain(|(path, _)| *path != "objects/endpointslices.yaml");
    files.push(("objects/endpointslices.yaml", list(&[slice("web", json!([]))])));
    files.push(("objects/pods.yaml", list(&two)));
    assert_cause(&super::bundle(&files), "SelectorMatchesNoPods");
    // An empty list may be one of any label.
    assert_nobody_is_blamed(&with("objects/pods.yaml", list(&[])));
    // Filtered by the selector of the Service, all of its Pods are there.
    let bundle = with("objects/pods.yaml", list(&[web_pod()]));
    assert!(judge(&bundle).api_is_faultless(), "{:#?}", answers(&bundle));
    let mut down = web_pod();
    down["status"]["conditions"][0]["status"] = "False".into();
    let mut files = without("objects/pods.yaml");
    files.retain(|(path, _)| *path != "objects/endpointslices.yaml");
    files.push(("objects/pods.yaml", list(std::slice::from_ref(&down))));
    files.push(("objects/endpointslices.yaml", list(&[slice("web", json!([]))])));
    assert!(judge(&super::bundle(&files)).root_cause.is_some());
    // `--field-selector status.phase!=Running`: an endpoint's Pod is not in it.
    down["metadata"]["name"] = "web-2".into();
    down["metadata"]["uid"] = "web-2".into();
    let bundle = with("objects/pods.yaml", list(&[down, other]));
    assert_nobody_is_blamed(&bundle);
}

#[test]
fn services_of_kubectl_that_may_have_been_filtered_are_not_all() {
    let other = |name: &str, labels: Value| {
        let mut other = service();
        other["metadata"]["name"] = name.into();
        other["metadata"]["labels"] = labels;
        other
    };
    let with = |path: &'static str, items: &[Value]| {
        let mut files = without("objects/services.yaml");
        files.push((path, list(items)));
        bundle(&files)
    };
    let labelled = [
        other("a", json!({ "team": "x" })),
        other("b", json!({ "team": "x", "y": "z" })),
    ];
    assert_nobody_is_blamed(&with("objects/services.yaml", &labelled));
    let unlike = [other("a", json!({ "team": "x" })), other("b", json!({}))];
    assert_cause(&with("objects/services.yaml", &unlike), "ServiceNotFound");
    assert_nobody_is_blamed(&with("objects/some.yaml", &unlike));
}

#[test]
fn an_empty_list_is_of_the_namespace_of_the_manifest() {
    let empty = json!({ "apiVersion": "v1", "kind": "ServiceList", "items": [] });
    let mut files = without("objects/services.yaml");
    files.push(("objects/services.json", empty));
    files.push((MANIFEST, json!({ "namespace": "elsewhere" })));
    assert_nobody_is_blamed(&bundle(&files));
    files.pop();
    files.push((MANIFEST, json!({ "namespace": "shop" })));
    assert_cause(&bundle(&files), "ServiceNotFound");
}

#[test]
fn a_list_of_all_namespaces_is_one_of_each() {
    let policy = |namespace: &str| {
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": "p", "namespace": namespace }, "spec": { "podSelector": {} } })
    };
    let mut files = without("objects/networkpolicies.yaml");
    files.push(("policies.yaml", list(&[policy("a")])));
    assert_eq!(
        answers(&bundle(&files))[&C::NetworkPolicyAllows].1,
        Reason::ProbeFailed
    );
    files.pop();
    files.push(("policies.yaml", list(&[policy("a"), policy("b")])));
    assert_eq!(
        answers(&bundle(&files))[&C::NetworkPolicyAllows].0,
        ConditionStatus::True
    );
}

#[test]
fn a_list_by_hand_is_of_what_somebody_wrote() {
    let written = |list: Value| {
        let mut files = without("objects/pods.yaml");
        files.push(("objects/pods.yaml", list));
        bundle(&files)
    };
    let mut by_hand = list(&[pod("a", json!({ "app": "a" })), pod("b", json!({ "app": "b" }))]);
    assert!(written(by_hand.clone()).listed.has("pods", "shop"));
    by_hand.as_object_mut().unwrap().remove("metadata");
    for item in by_hand["items"].as_array_mut().unwrap() {
        item.as_object_mut().unwrap().remove("status");
        let metadata = item["metadata"].as_object_mut().unwrap();
        metadata.retain(|field, _| !matches!(field.as_str(), "uid" | "creationTimestamp"));
    }
    assert!(!written(by_hand).listed.has("pods", "shop"));
}

#[test]
fn a_page_of_a_list_is_no_list() {
    let mut page = list(&[pod("client", json!({}))]);
    page["metadata"]["continue"] = "more".into();
    let mut files = without("objects/pods.yaml");
    files.push(("objects/pods.yaml", page));
    assert_nobody_is_blamed(&bundle(&files));
}

#[test]
fn a_list_that_there_is_no_memory_for_is_no_list() {
    let others: Vec<Value> = (0..100)
        .map(|n| pod(&format!("a-{n}"), json!({ "app": "a" })))
        .collect();
    let within = |most: usize| {
        let file = |(path, content): (&str, Value)| File {
            path: path.to_owned(),
            text: content.to_string(),
            modified: None,
        };
        let mut files = without("objects/pods.yaml");
        files.push((
            "objects/all/pods.json",
            api_list(&[&others[..], &[web_pod()]].concat()),
        ));
        let mut bundle = Bundle {
            files: Files {
                files: files.into_iter().map(file).collect(),
                problems: Vec::new(),
            },
            ..Bundle::default()
        };
        objects::take_within(&mut bundle, objects::memory::Memory::of(most));
        bundle
    };
    assert!(judge(&within(4 << 20)).api_is_faultless());
    let bundle = within(200 << 10);
    assert_nobody_is_blamed(&bundle);
    let problem = bundle.problems[0].to_string();
    assert!(
        problem.starts_with("objects/all/pods.json: item ")
            && problem.contains("need more than 0 MiB of memory; keep only those of"),
        "{problem}"
    );
}

#[test]
fn an_item_that_cannot_be_read_leaves_a_gap() {
    let text = |pods: &[&str]| format!("apiVersion: v1\nitems:\n{}kind: PodList\n", pods.concat());
    let with = |pods: &[&str]| {
        let mut files = without("objects/pods.yaml");
        files.push(("objects/pods.yaml", text(pods).into()));
        bundle(&files)
    };
    let other = "- metadata: {name: a, namespace: shop}\n";
    assert_cause(&with(&[other]), "SelectorMatchesNoPods");
    let bundle = with(&[other, "- metadata: {name: [}\n"]);
    assert_nobody_is_blamed(&bundle);
    let problem = bundle.problems[0].to_string();
    assert!(
        problem.starts_with("objects/pods.yaml: item 2: not understood: line 4"),
        "{problem}"
    );
}

#[test]
fn a_service_is_missing_only_where_services_were_listed() {
    let mut files = without("objects/services.yaml");
    assert_nobody_is_blamed(&bundle(&files));
    // kubectl's empty list may have been one of a name or of labels.
    files.push(("objects/services.yaml", list(&[])));
    assert_nobody_is_blamed(&bundle(&files));
    files.pop();
    let mut other = service();
    other["metadata"]["name"] = "webs".into();
    files.push(("objects/services.yaml", list(std::slice::from_ref(&other))));
    let message = assert_cause(&bundle(&files), "ServiceNotFound");
    assert!(message.contains("similar names there: webs"), "{message}");
    // A single object is no list; one of another namespace is none of this one.
    files.pop();
    files.push(("objects/service.yaml", other.clone()));
    assert_nobody_is_blamed(&bundle(&files));
    other["metadata"]["namespace"] = "elsewhere".into();
    files.push(("objects/services.yaml", list(&[other])));
    assert_nobody_is_blamed(&bundle(&files));
    // A list of the API says of what it is.
    let of_api = json!({ "apiVersion": "v1", "kind": "ServiceList", "items": [] });
    let mut files = without("objects/services.yaml");
    files.push(("shop/services.json", of_api.clone()));
    assert_cause(&bundle(&files), "ServiceNotFound");
    files.pop();
    files.push(("elsewhere/services.json", of_api));
    assert_nobody_is_blamed(&bundle(&files));
}

#[test]
fn a_service_that_kubectl_did_not_find_is_missing() {
    let mut bundle = bundle(&without("objects/services.yaml"));
    bundle.listed.note_service_looked_for("shop", "web");
    assert_cause(&bundle, "ServiceNotFound");
}
