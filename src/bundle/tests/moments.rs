//! Lists of different moments: what changed in between is no fault of the controller.

use super::*;

/// A Pod that the slices do not have: when it became ready, and the version that it has since then.
fn late(at: &str, version: &str) -> Value {
    let mut pod = pod("web-2", json!({ "app": "web" }));
    pod["metadata"]["resourceVersion"] = version.into();
    pod["status"]["podIP"] = "10.244.0.6".into();
    pod["status"]["podIPs"] = json!([{ "ip": "10.244.0.6" }]);
    pod["status"]["conditions"][0]["lastTransitionTime"] = at.into();
    pod
}

fn versioned(kind: &str, version: &str, items: &[Value]) -> Value {
    json!({ "apiVersion": if kind == "PodList" { "v1" } else { "discovery.k8s.io/v1" }, "kind": kind,
        "metadata": { "resourceVersion": version }, "items": items })
}

/// A slice without endpoints, of a version.
fn empty_slice(version: &str) -> Value {
    let mut slice = slice("web", json!([]));
    slice["metadata"]["resourceVersion"] = version.into();
    slice
}

/// The files of a healthy bundle but for these two, with the times at which those were written.
fn with(pods: (Value, Option<&str>), slices: (Value, Option<&str>)) -> Bundle {
    let mut files = without("objects/pods.yaml");
    files.retain(|(path, _)| *path != "objects/endpointslices.yaml");
    let mut bundle = files
        .iter()
        .map(|(path, content)| (*path, content.clone(), None))
        .collect::<Vec<_>>();
    bundle.push(("objects/pods.json", pods.0, pods.1));
    bundle.push(("objects/endpointslices.json", slices.0, slices.1));
    let file = |(path, content, written): &(&str, Value, Option<&str>)| File {
        path: (*path).to_owned(),
        text: content
            .as_str()
            .map_or_else(|| content.to_string(), str::to_owned),
        modified: written.map(|at| at.parse().unwrap()),
    };
    Bundle::of(Files {
        files: bundle.iter().map(file).collect(),
        problems: Vec::new(),
    })
}

/// With the versions of the list of Pods, the late Pod, the list of slices and the slice.
fn by_version(pods: &str, pod: &str, slices: &str, slice: &str) -> Bundle {
    with(
        (versioned("PodList", pods, &[late(LONG_AGO, pod)]), None),
        (
            versioned("EndpointSliceList", slices, &[empty_slice(slice)]),
            None,
        ),
    )
}

#[track_caller]
fn assert_apart(bundle: &Bundle) {
    assert_nobody_is_blamed(bundle);
    let (status, _, message) = answers(bundle).remove(&C::EndpointsPopulated).unwrap();
    assert_eq!(status, ConditionStatus::Unknown);
    assert!(
        message.contains("web-2 is ready") && message.contains("Save both again"),
        "{message}"
    );
}

#[test]
fn a_controller_that_lags_is_found_where_the_versions_show_one_moment() {
    // Both lists are newer than what they hold, and the Pod changed last.
    assert_cause(&by_version("205", "150", "200", "90"), "EndpointSlicesStale");
    assert_cause(&by_version("200", "150", "205", "90"), "EndpointSlicesStale");
}

#[test]
fn what_changed_after_the_first_list_is_no_lag() {
    // The slices were listed, then the Pod became ready.
    assert_apart(&by_version("205", "150", "140", "90"));
    // The Pods were listed, then this one was deleted.
    assert_apart(&by_version("200", "150", "260", "230"));
}

/// As kubectl writes it, without the version of the list.
fn by_time(ready: &str, pods: Option<&str>, slices: Option<&str>) -> Bundle {
    let mut pod = late(ready, "");
    pod["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let other = slice("db", json!([]));
    with(
        (list(&[pod]), pods),
        (list(&[slice("web", json!([])), other]), slices),
    )
}

#[test]
fn without_versions_the_times_of_the_files_tell() {
    let at = |minute: u32| format!("2026-05-01T11:{minute:02}:00Z");
    let (ready, before, after) = (at(30), at(20), at(40));
    assert_apart(&by_time(&ready, Some(&after), Some(&before)));
    assert_cause(
        &by_time(&ready, Some(&at(50)), Some(&after)),
        "EndpointSlicesStale",
    );
    // Pods first, and slices much later.
    assert_apart(&by_time(&ready, Some(&after), Some(&at(50))));
}

#[test]
fn where_nothing_tells_the_lists_are_of_one_sitting() {
    for written in [None, Some("2026-05-01T11:59:00Z"), Some("2026-06-01T00:00:00Z")] {
        assert_apart(&by_time("2026-05-01T11:55:00Z", written, written));
        assert_cause(&by_time(LONG_AGO, written, written), "EndpointSlicesStale");
    }
}

#[test]
fn one_answer_is_of_one_moment() {
    let mut files = without("objects/pods.yaml");
    files.retain(|(path, _)| *path != "objects/endpointslices.yaml");
    let items = [
        late("2026-05-01T11:55:00Z", "150"),
        slice("web", json!([])),
        slice("db", json!([])),
    ];
    files.push(("objects/all.json", list(&items)));
    assert_cause(&bundle(&files), "EndpointSlicesStale");
}

#[test]
fn what_was_collected_is_judged_as_live() {
    let lists = || by_version("205", "150", "140", "90");
    let mut collected = lists();
    collected.manifest.version = Some("0.1.0".to_owned());
    assert_cause(&collected, "EndpointSlicesStale");
    assert_apart(&lists());
}

#[test]
fn beside_endpoints_that_are_ready_it_is_only_said() {
    let pods = versioned("PodList", "205", &[web_pod(), late(LONG_AGO, "150")]);
    let slices = versioned("EndpointSliceList", "140", &[full_slice()]);
    let found = answers(&with((pods, None), (slices, None)));
    let (status, _, message) = &found[&C::EndpointsPopulated];
    assert_eq!(*status, ConditionStatus::True);
    assert!(
        message.starts_with("1 of 1 endpoint is ready. web-2 is ready but not among"),
        "{message}"
    );
}
