//! Bundles with files that are huge, binary, cut, hostile or contradict each other: whatever they are, they
//! are named, and nobody is blamed for them.

use std::{fs, io::Write, path::Path};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use svcdiag::{
    api::{ConditionStatus, ConditionType as C, Reason as R},
    bundle::{Files, Problem},
    engine::Diagnosis,
};
use tar::{Builder, EntryType, Header};

use super::page::*;

const MIB: usize = 1 << 20;

/// Writes the walk-through into a directory.
fn written() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in Page::new(Mode::Iptables).files() {
        let path = root.path().join(&file.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file.text).unwrap();
    }
    root
}

fn judged(path: &Path) -> (Diagnosis, String) {
    let (d, problems) = judge_files(Files::read(path).unwrap());
    let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
    (d, told.join("\n"))
}

#[track_caller]
fn assert_unblamed(d: &Diagnosis, what: &str) {
    let root = d.root_cause.as_ref().map(|r| &r.reason);
    assert_eq!(root, None, "{what}\n{}", report(d));
}

#[test]
fn a_bundle_in_a_directory_is_judged_as_it_is() {
    let root = written();
    let (d, told) = judged(root.path());
    assert_eq!(d.ready.reason, R::ServiceWorks, "{told}\n{}", report(&d));
}

#[test]
fn huge_binary_and_cut_files_are_named_and_blame_nobody() {
    let all = Page::new(Mode::Iptables).files();
    for file in &all {
        let root = written();
        let path = root.path().join(&file.path);
        let too_large = match file.path.starts_with("objects/") {
            true => "larger than 128 MiB; keep only the objects",
            false => "larger than 32 MiB; keep only the lines",
        };
        let damages: [(&str, &dyn Fn()); 5] = [
            (too_large, &|| {
                // Sparse: it takes no room.
                let huge = fs::File::create(&path).unwrap();
                huge.set_len(400 * MIB as u64).unwrap();
            }),
            ("not a text file", &|| {
                let binary: Vec<u8> = (0..4096_u32)
                    .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
                    .collect();
                fs::write(&path, binary).unwrap();
            }),
            ("not a text file", &|| {
                let text = file.text.replacen(' ', "\u{a0}", 1);
                let within = text.find('\u{a0}').map_or(0, |at| at + 1);
                fs::write(&path, &text.as_bytes()[..within]).unwrap();
            }),
            ("not a text file", &|| {
                fs::write(&path, file.text.replacen(['\n', ','], "\0", 1)).unwrap()
            }),
            ("", &|| fs::write(&path, "").unwrap()),
        ];
        for (why, damage) in damages {
            // What has no space is not cut within one.
            if !file.text.contains(' ') && why == "not a text file" {
                continue;
            }
            damage();
            let (d, told) = judged(root.path());
            assert_unblamed(&d, &format!("{}: {why}", file.path));
            let is_told = told.contains(&format!("{}: left out: {why}", file.path));
            assert!(why.is_empty() || is_told, "{}: {told}", file.path);
        }
    }
}

#[test]
fn of_two_versions_of_an_object_the_newer_one_counts() {
    let at = |version: Option<&str>, selector: &str| {
        let mut service = service();
        service["metadata"]["resourceVersion"] = json!(version);
        service["spec"]["selector"] = json!({ "app": selector });
        service
    };
    let with = |versions: [Value; 2]| {
        move |page: &mut Page| {
            let [first, second] = versions;
            page.objects[0] = list("ServiceList", &[first]);
            page.objects.push(second);
        }
    };
    // Each first, then last.
    for (old, new) in [(true, false), (false, true)] {
        let mut versions = [at(Some("9"), "hostnames"), at(Some("10"), "hostname")];
        if old {
            versions.reverse();
        }
        fails(
            Mode::Iptables,
            C::EndpointsPopulated,
            R::SelectorMatchesNoPods,
            |page| {
                with(versions)(page);
                page.objects[1]["items"][0]["subsets"] = json!([]);
            },
        );
        let mut versions = [at(Some("10"), "hostnames"), at(Some("9"), "hostname")];
        if new {
            versions.reverse();
        }
        let (d, told) = unblamed(Mode::Iptables, with(versions));
        assert_eq!(d.ready.reason, R::ServiceWorks, "{told}\n{}", report(&d));
        assert!(
            told.contains("Service default/hostnames is also in the bundle in a"),
            "{told}"
        );
    }
    // Nobody can tell which one is newer.
    let (d, told) = unblamed(
        Mode::Iptables,
        with([at(None, "hostnames"), at(None, "hostname")]),
    );
    assert_eq!(d.ready.status, ConditionStatus::Unknown, "{}", report(&d));
    assert!(told.contains("neither is used"), "{told}");
    // The same once more says nothing new.
    let (_, told) = unblamed(
        Mode::Iptables,
        with([at(None, "hostnames"), at(None, "hostnames")]),
    );
    assert!(!told.contains("version"), "{told}");
}

#[test]
fn what_answers_runs_whatever_a_list_of_processes_shows() {
    const PS: &str = "nodes/node-1/ps-kube-proxy.txt";
    const NONE: &str = "u@node$ ps auxw | grep kube-proxy\nroot  9999  0.0  0.0   5132   712 pts/0    S+   22:20   0:00 grep kube-proxy\n";
    fails(Mode::Iptables, C::KubeProxyHealthy, R::NotRunning, |page| {
        page.set(PS, NONE);
        page.set("nodes/node-1/curl.txt", REFUSED_CURL);
    });
    for (path, text) in [
        ("nodes/node-1/proxymode.txt", "iptables"),
        ("nodes/node-1/livez.txt", "HTTP/1.1 200 OK\r\n\r\n{}"),
    ] {
        unblamed(Mode::Iptables, |page| {
            page.set(PS, NONE);
            page.set(path, text);
        });
    }
}

#[test]
fn a_node_that_contradicts_another_is_blamed_alone() {
    let d = fails(Mode::Iptables, C::ProxyRulesPresent, R::RulesMissing, |page| {
        page.set(
            "nodes/node-2/iptables-save.txt",
            "u@node$ iptables-save | grep hostnames\n",
        );
        page.set("nodes/node-2/proxymode.txt", "iptables\n");
    });
    let root = d.root_cause.unwrap();
    assert!(
        root.message.contains("node-2") && !root.message.contains("node-1"),
        "{}",
        root.message
    );
    assert_eq!(root.impact, svcdiag::api::Impact::Some, "{}", root.message);
}

/// A member of an archive, whose name is written as it is.
fn member(name: &str, kind: EntryType, link: &str, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_mtime(1);
    header.set_cksum();
    header
}

/// An archive of the walk-through, with more members before it and behind it.
fn archive(more: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let content = b"nameserver 192.0.2.1\n";
    for (name, kind, link) in more {
        let size = if kind.is_file() { content.len() } else { 0 };
        let header = member(name, *kind, link, size);
        builder.append(&header, &content[..size]).unwrap();
    }
    for file in Page::new(Mode::Iptables).files() {
        let header = member(&file.path, EntryType::Regular, "", file.text.len());
        builder.append(&header, file.text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn judged_bytes(bytes: &[u8]) -> (Diagnosis, String) {
    let mut file = tempfile::Builder::new().suffix(".tar.gz").tempfile().unwrap();
    file.write_all(bytes).unwrap();
    judged(file.path())
}

#[test]
fn members_that_lead_out_of_an_archive_are_refused_and_the_rest_counts() {
    let plain = EntryType::Regular;
    for (name, kind, link, why) in [
        ("../pods/default/alpine/resolv.conf", plain, "", "leads out"),
        ("pods/../../../etc/resolv.conf", plain, "", "leads out"),
        ("/etc/resolv.conf", plain, "", "leads out"),
        (
            "pods/default/alpine/dig.txt",
            EntryType::Symlink,
            "/etc/passwd",
            "a symbolic link",
        ),
        ("nodes/node-2", EntryType::Symlink, "/etc", "a symbolic link"),
        (
            "nodes/node-2/curl.txt",
            EntryType::Link,
            "/etc/passwd",
            "a hard link",
        ),
        ("nodes/node-1/sysctl.txt", EntryType::Char, "", "a device"),
        ("nodes/node-1/conntrack.txt", EntryType::Block, "", "a device"),
        ("nodes/node-1/dig.txt", EntryType::Fifo, "", "a FIFO"),
    ] {
        let (d, told) = judged_bytes(&archive(&[(name, kind, link)]));
        assert!(
            told.contains(&format!("{name}: left out: ")) && told.contains(why),
            "{name}: {told}"
        );
        assert_eq!(d.ready.reason, R::ServiceWorks, "{name}: {told}\n{}", report(&d));
    }
}

#[test]
fn an_archive_that_unpacks_without_end_is_left_where_it_becomes_too_large() {
    // A part of a compressed file may be repeated: each of these unpacks to 32 MiB.
    let zeros = {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let header = member("zeros", EntryType::Regular, "", 32 * MIB);
        encoder.write_all(header.as_bytes()).unwrap();
        encoder.write_all(&vec![0; 32 * MIB]).unwrap();
        encoder.finish().unwrap()
    };
    let bomb = zeros.repeat(2_000);
    assert!(bomb.len() < 400 * MIB);
    let (d, told) = judged_bytes(&bomb);
    assert!(
        told.contains("(the archive): larger than 240 MiB when it is unpacked"),
        "{told}"
    );
    assert_unblamed(&d, "a bomb");
}

#[test]
fn objects_of_names_that_no_api_server_takes_are_left_out() {
    let pod = |namespace: &str, name: &str| {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": namespace, "name": name },
                "spec": { "containers": [] }, "status": { "phase": "Running" } })
    };
    for (namespace, name) in [
        ("default", "--all"),
        ("default", "a b"),
        ("default;id", "a"),
        ("default", "$(id)"),
    ] {
        let root = written();
        fs::write(root.path().join("odd.json"), pod(namespace, name).to_string()).unwrap();
        let (d, told) = judged(root.path());
        assert_unblamed(&d, name);
        let line = told
            .lines()
            .find(|l| l.contains("its name is not valid in Kubernetes"));
        assert!(line.is_some_and(|l| l.contains("odd.json")), "{told}");
    }
}
