//! The workflow that publishes a release, and the page that says how to verify it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::{Value, json};

use super::root;

const WORKFLOW: &str = ".github/workflows/release.yml";

fn workflow() -> Value {
    serde_saphyr::from_str(&fs::read_to_string(root(WORKFLOW)).unwrap()).unwrap()
}

/// A tag of an action can be moved to other code; a commit cannot.
#[test]
fn actions_are_pinned_to_commits() {
    let directory = fs::read_dir(root(".github/workflows")).unwrap();
    let mut pinned = 0;
    for file in directory.flatten() {
        let text = fs::read_to_string(file.path()).unwrap();
        let uses = text.lines().filter_map(|line| line.trim().split_once("uses: "));
        for (_, action) in uses.filter(|(_, action)| !action.starts_with("./")) {
            let (commit, version) = action
                .split_once('@')
                .and_then(|(_, it)| it.split_once(" # v"))
                .unwrap();
            let is_commit = commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit());
            assert!(
                is_commit && !version.is_empty(),
                "{}: {action}",
                file.path().display()
            );
            pinned += 1;
        }
    }
    assert!(pinned > 5);
}

/// What runs code of dependencies cannot write; what can, runs nothing that was built.
#[test]
fn only_the_job_that_publishes_may_write() {
    let workflow = workflow();
    assert_eq!(workflow["permissions"], json!({}));
    for (name, job) in workflow["jobs"].as_object().unwrap() {
        let permissions = job["permissions"].as_object().unwrap();
        let writes = permissions.values().any(|it| it == "write");
        assert_eq!(writes, name == "publish", "{name}");
        let text = job.to_string();
        assert!(name != "publish" || !text.contains("hack/") && !text.contains("actions/checkout"));
    }
}

/// The targets that hack/dist knows, with what their archives are called.
fn platforms() -> BTreeMap<String, String> {
    let script = fs::read_to_string(root("hack/dist")).unwrap();
    let lines = script.lines().filter_map(|line| {
        let (target, name) = line.trim().strip_suffix(" ;;")?.split_once(") echo ")?;
        (target.matches('-').count() > 1).then(|| (target.to_owned(), name.to_owned()))
    });
    lines.filter(|(_, name)| !name.contains('$')).collect()
}

fn words(of: &Value) -> Vec<String> {
    let text = of.as_str().unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn every_platform_is_built_packed_and_tried_once() {
    let platforms = platforms();
    assert_eq!(platforms.len(), 5);
    let jobs = &workflow()["jobs"];
    let matrix = |job: &str| {
        jobs[job]["strategy"]["matrix"]["include"]
            .as_array()
            .unwrap()
            .clone()
    };

    let steps = jobs["build"]["steps"].as_array().unwrap();
    let dist = steps.iter().find(|step| step["run"] == "hack/dist").unwrap();
    let mut packed = words(&dist["env"]["TARGETS"]);
    packed.sort();
    assert_eq!(packed, platforms.keys().cloned().collect::<Vec<_>>());

    // On their own systems, and none of them twice.
    let mut elsewhere = Vec::new();
    for row in matrix("native") {
        for target in words(&row["targets"]) {
            let system = match &target {
                it if it.ends_with("-apple-darwin") => "macos-",
                _ => "windows-",
            };
            assert!(row["runner"].as_str().unwrap().starts_with(system), "{target}");
            elsewhere.push(target);
        }
    }
    elsewhere.sort();
    let others: Vec<_> = packed.iter().filter(|it| !it.contains("-linux-")).collect();
    assert_eq!(elsewhere.iter().collect::<Vec<_>>(), others);

    let tried: BTreeSet<_> = matrix("try")
        .iter()
        .map(|row| {
            format!(
                "{}_{}",
                row["os"].as_str().unwrap(),
                row["arch"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(tried, platforms.values().cloned().collect());
}

/// The pages that are built into the program would have other ends of lines, and the sources would not be those of the tag.
#[test]
fn a_checkout_on_windows_changes_no_file() {
    let attributes = fs::read_to_string(root(".gitattributes")).unwrap();
    assert!(attributes.lines().any(|line| line == "* -text"));
}

#[test]
fn the_page_about_verifying_names_this_workflow_and_these_files() {
    let page = fs::read_to_string(root("docs/verify.md")).unwrap();
    let publish = workflow()["jobs"]["publish"].to_string();
    let identity = format!("{}/{WORKFLOW}@refs/tags/", env!("CARGO_PKG_REPOSITORY"));
    assert!(page.contains(&identity), "{identity}");
    for name in [
        "SHA256SUMS.sigstore.json",
        "ghcr.io/svcdiag/svcdiag",
        "ghcr.io/svcdiag/charts",
    ] {
        assert!(page.contains(name) && publish.contains(name), "{name}");
    }
}
