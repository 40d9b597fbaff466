//! The workflow that publishes a release, and the page that says how to verify it.

use std::fs;

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
