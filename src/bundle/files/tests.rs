use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use tar::{Builder, EntryType, Header};

use super::*;

/// A member of an archive; the name is written as it is.
fn header(name: &[u8], kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(1_777_636_800);
    header.set_cksum();
    header
}

fn archive(members: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, content) in members {
        let header = header(name.as_bytes(), *kind, content.len() as u64);
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Files, FilesError> {
    let mut file = tempfile::Builder::new().suffix(".tar").tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Files::read(file.path())
}

fn paths(files: &Files) -> Vec<&str> {
    files.files.iter().map(|f| f.path.as_str()).collect()
}

fn told(files: &Files) -> String {
    files.problems.iter().map(|p| format!("{p}\n")).collect()
}

const PLAIN: EntryType = EntryType::Regular;

#[test]
fn archives_are_read_compressed_or_not() {
    let tar = archive(&[
        ("./objects/pods.yaml", PLAIN, b"a: 1"),
        ("manifest.yaml", PLAIN, b"b: 2"),
    ]);
    for bytes in [tar.clone(), gzip(&tar)] {
        let files = read(&bytes).unwrap();
        assert_eq!(paths(&files), ["manifest.yaml", "objects/pods.yaml"]);
        assert_eq!(files.get("objects/pods.yaml").unwrap().text, "a: 1");
        assert_eq!(files.newest().unwrap().to_string(), "2026-05-01T12:00:00Z");
        assert_eq!(files.problems, []);
    }
}

#[test]
fn the_directory_around_a_bundle_is_taken_off() {
    let tar = archive(&[
        ("web/objects/pods.yaml", PLAIN, b"a: 1"),
        ("web/manifest.yaml", PLAIN, b"b: 2"),
    ]);
    assert_eq!(
        paths(&read(&tar).unwrap()),
        ["manifest.yaml", "objects/pods.yaml"]
    );
    // A namespace is none.
    let tar = archive(&[("shop/pods.json", PLAIN, b"{}")]);
    assert_eq!(paths(&read(&tar).unwrap()), ["shop/pods.json"]);
}

#[test]
fn nothing_leads_out_of_an_archive() {
    let tar = archive(&[
        ("/etc/passwd", PLAIN, b"x"),
        ("a/../../b", PLAIN, b"x"),
        ("link", EntryType::Symlink, b""),
        ("hard", EntryType::Link, b""),
        ("fifo", EntryType::Fifo, b""),
        ("null", EntryType::Char, b""),
        ("sda", EntryType::Block, b""),
        ("good", PLAIN, b"x"),
    ]);
    let files = read(&tar).unwrap();
    assert_eq!(paths(&files), ["good"]);
    let told = told(&files);
    for part in [
        "/etc/passwd: left out: its name leads out",
        "a/../../b: left out: its name leads out",
        "link: left out: a symbolic link",
        "hard: left out: a hard link",
        "fifo: left out: a FIFO",
        "null: left out: a device",
        "sda: left out: a device",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
}

#[test]
fn an_archive_that_is_cut_short_counts_as_far_as_it_goes() {
    // Hard to compress, so that half of the bytes are half of the text.
    let numbers = (0..5000_u32).map(|n| format!("{}\n", n.wrapping_mul(2_654_435_761)));
    let long: String = numbers.collect();
    let tar = archive(&[("a", PLAIN, b"whole"), ("b", PLAIN, long.as_bytes())]);
    let zipped = gzip(&tar);
    for bytes in [&tar[..4096], &zipped[..zipped.len() / 2]] {
        let files = read(bytes).unwrap();
        assert_eq!(paths(&files), ["a"], "{}", told(&files));
        assert!(told(&files).contains("cut short"), "{}", told(&files));
    }
}

#[test]
fn what_is_no_text_is_named() {
    let tar = archive(&[
        ("a", PLAIN, b"\xff\xfe"),
        ("b", PLAIN, b"x\0y"),
        ("c", PLAIN, b"text"),
    ]);
    let files = read(&tar).unwrap();
    assert_eq!(paths(&files), ["c"]);
    assert_eq!(files.problems.len(), 2);
    assert!(told(&files).contains("a: left out: not a text file"));
}

#[test]
fn large_files_and_bombs_are_left_out() {
    let large = vec![b' '; usize::try_from(MAX_FILE).unwrap() + 1];
    let tar = gzip(&archive(&[
        ("large", PLAIN, &large),
        ("nodes/n1/nft.json", PLAIN, &large),
        ("objects/pods.json", PLAIN, &large),
        ("small", PLAIN, b"x"),
    ]));
    let files = read(&tar).unwrap();
    assert_eq!(paths(&files), ["objects/pods.json", "small"]);
    assert!(told(&files).contains("nodes/n1/nft.json: left out: larger than 32 MiB"));
    assert!(told(&files).contains("large: left out: larger than 32 MiB"));

    // A member that claims to have more than there may be, and one whose name is endless.
    for (kind, why) in [
        (
            PLAIN,
            "larger than 240 MiB when it is unpacked, so the rest is left out; keep only what docs/bundle.md lists",
        ),
        (
            EntryType::GNULongName,
            "damaged or cut short, so the rest is missing: a header is too large",
        ),
    ] {
        let mut bomb = header(b"bomb", kind, 1 << 40).as_bytes().to_vec();
        bomb.resize(4 << 20, b'x');
        let files = read(&gzip(&bomb)).unwrap();
        assert_eq!(files.files, []);
        assert_eq!(told(&files), format!("(the archive): {why}\n"));
    }
}

#[test]
fn only_what_is_in_the_directory_of_a_node_or_a_pod_is_its_text() {
    for (path, is_text) in [
        ("nodes/n1/nft.json", true),
        ("web/nodes/n1/nft.json", true),
        ("pods/shop/web-1/x.yaml", true),
        ("objects/notes.txt", true),
        // Directories of namespaces that are called so, and of kinds.
        ("pods/pods.json", false),
        ("nodes/services.json", false),
        ("objects/nodes/n1/node.json", false),
        ("objects/pods/shop/web-1/pod.yaml", false),
        ("objects/nodes.json", false),
    ] {
        let found = matches!(FileKind::of(path), FileKind::Text);
        assert_eq!(found, is_text, "{path}");
    }
}

#[test]
fn too_many_and_too_deep_files_are_left_out() {
    let names: Vec<String> = (0..MAX_FILES + 3).map(|n| format!("f{n}")).collect();
    let members: Vec<_> = names
        .iter()
        .map(|n| (n.as_str(), PLAIN, b"x".as_slice()))
        .collect();
    let files = read(&archive(&members)).unwrap();
    assert_eq!((files.files.len(), files.problems.len()), (MAX_FILES, 3));

    let deep = "d/".repeat(MAX_DEPTH) + "f";
    let just = "d/".repeat(MAX_DEPTH - 1) + "f";
    let files = read(&archive(&[(&deep, PLAIN, b"x"), (&just, PLAIN, b"x")])).unwrap();
    assert_eq!(paths(&files), [just.as_str()]);
    assert_eq!(files.problems.len(), 1);
}

#[test]
fn a_directory_is_read_without_following_or_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir_all(at("objects")).unwrap();
    std::fs::write(at("objects/pods.yaml"), "a: 1").unwrap();
    std::fs::write(at("binary"), b"\xff").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("link")).unwrap();
    std::os::unix::fs::symlink("/etc", at("etc")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let large = Handle::create(at("large")).unwrap();
    large.set_len(MAX_FILE + 1).unwrap();
    std::fs::create_dir_all(at(&"d/".repeat(MAX_DEPTH))).unwrap();
    let files = Files::read(directory.path()).unwrap();
    assert_eq!(paths(&files), ["objects/pods.yaml"]);
    assert!(files.newest().is_some());
    let told = told(&files);
    for part in [
        "binary: left out: not a text file",
        "etc: left out: a symbolic link",
        "fifo: left out: a FIFO",
        "large: left out: larger",
        "link: left out: a symbolic link",
        "socket: left out: a socket",
        "directories deep",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    // Nor is the bundle itself one that makes wait.
    assert!(matches!(Files::read(&at("fifo")), Err(FilesError::NotABundle(_))));
}

#[test]
fn errors_say_what_where_and_what_to_do() {
    let error = Files::read(Path::new("/nowhere/bundle")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/bundle") && error.contains("name a directory or an archive"));
    for bytes in [b"no archive".as_slice(), &[]] {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error, FilesError::NotABundle(_)) && error.to_string().contains("unpack it"));
    }
}

#[test]
fn names_do_not_steer_a_terminal() {
    let files = read(&archive(&[("a\u{1b}[2J", EntryType::Fifo, b"")])).unwrap();
    assert!(!told(&files).contains('\u{1b}'));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_an_archive_or_none(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..3000)) {
        let _ = read(&bytes);
        let _ = read(&gzip(&bytes));
    }

    #[test]
    fn any_bytes_changed_in_an_archive_lead_nowhere(changes in proptest::collection::vec((0..4096_usize, proptest::num::u8::ANY), 1..20)) {
        let mut tar = archive(&[("objects/a.yaml", PLAIN, b"a: 1"), ("objects/b.yaml", PLAIN, b"b: 1")]);
        for (at, byte) in changes {
            if let Some(changed) = tar.get_mut(at) {
                *changed = byte;
            }
        }
        if let Ok(files) = read(&tar) {
            for file in files.files {
                proptest::prop_assert!(!file.path.starts_with('/') && !file.path.split('/').any(|p| p == ".."));
            }
        }
    }
}
