//! `svcdiag collect` and `diagnose`: the answer of a bundle is that of `check` on the cluster.

use std::{fs, path::Path, time::Instant};

use serde_json::Value;
use svcdiag_sandbox::faults::{Fixture, catalogue};

use crate::harness::{Harness, SOON, svcdiag};

const NAMESPACE: &str = "bundle";

/// Type, status, reason and message of each condition, and the exit code.
type Answer = (Vec<[String; 4]>, Option<i32>);

#[track_caller]
fn answer(output: &std::process::Output) -> Answer {
    let told = String::from_utf8_lossy(&output.stderr);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {told}"));
    let conditions = object["status"]["conditions"].as_array().unwrap().iter();
    let fields =
        |c: &Value| ["type", "status", "reason", "message"].map(|f| c[f].as_str().unwrap().to_owned());
    (conditions.map(fields).collect(), output.status.code())
}

/// Without any cluster.
async fn diagnose(bundle: &Path, further: &[&str]) -> std::process::Output {
    let arguments = [&["diagnose", bundle.to_str().unwrap(), "-o", "json"], further].concat();
    svcdiag(&arguments, Path::new("/nowhere")).await
}

/// The requests that docs/bundle.md has people make with kubectl.
async fn by_hand(harness: &Harness, at: &Path) {
    let document = include_str!("../../docs/bundle.md");
    let requests = document.lines().filter_map(|l| l.strip_prefix("get "));
    let mut made = 0;
    for request in requests {
        let (path, file) = request.split_once(' ').unwrap();
        let path = path.replace("$NS", NAMESPACE);
        let file = at.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        // What is not served leaves an empty file, as in the shell.
        let text = harness
            .kubectl
            .run(&["get", "--raw", &path])
            .await
            .unwrap_or_default();
        fs::write(&file, text).unwrap();
        made += 1;
    }
    assert!(made > 8, "docs/bundle.md has {made} requests");
    let time = jiff::Timestamp::now();
    let manifest = format!(
        "time: {time}\nnamespace: {NAMESPACE}\nservice: {}\n",
        Fixture::NAME
    );
    fs::write(at.join("manifest.yaml"), manifest).unwrap();
}

/// What the cluster answers now.
async fn live(harness: &Harness) -> Answer {
    let output = harness.svcdiag(&["check", Fixture::NAME, "-n", NAMESPACE, "-o", "json"]);
    answer(&output.await)
}

/// Collects as a directory and as an archive and by hand, and compares the answers with the cluster's. They
/// are of one moment if the cluster answers the same before and afterwards; else all is done once more.
async fn same_answers(harness: &Harness, directory: &Path, id: &str) {
    let start = Instant::now();
    for attempt in 0.. {
        assert!(
            start.elapsed() < SOON,
            "{id}: the cluster's answer changes all the time"
        );
        let before = live(harness).await;
        let mut answers = Vec::new();
        for name in [format!("{id}-{attempt}"), format!("{id}-{attempt}.tar.gz")] {
            let path = directory.join(name);
            let to = path.to_str().unwrap();
            let output = harness
                .svcdiag(&["collect", Fixture::NAME, "-n", NAMESPACE, "-o", to])
                .await;
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            assert!(told.contains("Next: svcdiag diagnose "), "{told}");
            let output = diagnose(&path, &[]).await;
            assert!(
                output.stderr.is_empty(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            answers.push((to.to_owned(), answer(&output)));
        }
        let hand_made = directory.join(format!("{id}-{attempt}-by-hand"));
        by_hand(harness, &hand_made).await;
        let by_hand = answer(&diagnose(&hand_made, &[]).await);
        answers.push((format!("{id} by hand"), by_hand));
        if live(harness).await == before {
            for (how, answer) in answers {
                assert_eq!(answer, before, "{how}");
            }
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_gives_the_answer_of_the_cluster() {
    let harness = Harness::start().await;
    let fixture = harness.fixture(NAMESPACE).await;
    let directory = tempfile::tempdir().unwrap();
    let faults = catalogue().unwrap();
    for id in ["healthy", "A01", "A04", "A08", "A10", "A19"] {
        let fault = faults.iter().find(|f| f.id == id);
        if let Some(fault) = fault {
            fault.inject(&fixture).await.unwrap();
            harness
                .wait(&fixture, &fault.title, |v| fault.expected.is_met_by(v))
                .await;
        }
        same_answers(&harness, directory.path(), id).await;
        if let Some(fault) = fault {
            fault.undo(&fixture).await.unwrap();
            fixture.wait_until_settled().await.unwrap();
        }
    }
    // Nothing is overwritten, and another Service than the one collected for is told by its gaps.
    let path = directory.path().join("healthy-0");
    let arguments = [
        "collect",
        Fixture::NAME,
        "-n",
        NAMESPACE,
        "-o",
        path.to_str().unwrap(),
    ];
    let output = harness.svcdiag(&arguments).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("not overwritten"),
        "{output:?}"
    );
    let (_, code) = answer(&diagnose(&path, &["elsewhere", "-n", "other"]).await);
    assert_eq!(code, Some(2));
    // What could not be read is told twice: to who collects, and to who judges.
    if let Some(server) = harness.cluster.embedded() {
        server.store().deny(&["networkpolicies", "nodes", "configmaps"]);
        let live = live(&harness).await;
        let path = directory.path().join("denied.tgz");
        let arguments = [
            "collect",
            Fixture::NAME,
            "-n",
            NAMESPACE,
            "-o",
            path.to_str().unwrap(),
        ];
        let output = harness.svcdiag(&arguments).await;
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            told.contains("Not read: not allowed to list networkpolicies"),
            "{told}"
        );
        assert_eq!(answer(&diagnose(&path, &[]).await), live);
    }
    harness.stop().await;
}
