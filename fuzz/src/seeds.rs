//! What the targets begin with: the texts in tests/captures and tests/cases, archives made of them, and what the
//! kernel says when it has been given their rules.

mod kernel;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use hickory_proto::{
    op::{Message, MessageType, Query},
    rr::{Name, RData, Record, RecordType, rdata::A},
};

use crate::{FILE, NODE_TEXTS, TARGETS};

/// Longer texts would only make every execution slow; hack/fuzz holds inputs to this, too.
const MAX: usize = 64 * 1024;

/// Writes the seeds of every target into a directory of its name. What the kernel says is asked in the network
/// namespace of the calling thread, which has to be one of its own: its rules are replaced.
///
/// # Errors
/// When a file cannot be read or written, or the kernel does not take the rules.
pub fn write(directory: &Path) -> io::Result<()> {
    for (target, _) in TARGETS {
        fs::create_dir_all(directory.join(target))?;
    }
    let save = |(target, seed): (String, Vec<u8>)| {
        let into = directory.join(target);
        let number = fs::read_dir(&into)?.count();
        fs::write(into.join(format!("seed-{number}")), seed)
    };
    of_files()?.into_iter().try_for_each(save)?;
    kernel::seeds(&tests().join("captures"))?
        .into_iter()
        .try_for_each(save)
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests")
}

/// The seeds that are made of files alone, with the names of their targets.
///
/// # Errors
/// When a file cannot be read.
pub fn of_files() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut seeds = vec![("dns".to_owned(), answer()?)];
    for entry in fs::read_dir(tests().join("captures"))? {
        let capture = entry?.path();
        if capture.is_dir() {
            let files = files_below(&capture)?;
            seeds.extend(files.iter().filter_map(|(path, text)| of_text(path, text)));
        }
    }
    let mut cases: Vec<_> = fs::read_dir(tests().join("cases"))?.collect::<io::Result<_>>()?;
    cases.sort_by_key(fs::DirEntry::path);
    for (number, case) in cases.iter().enumerate() {
        if let Ok(paste) = fs::read(case.path().join("paste.txt")) {
            seeds.push(("paste".to_owned(), paste));
        }
        let bundle = case.path().join("bundle");
        if !bundle.is_dir() {
            continue;
        }
        let files = files_below(&bundle)?;
        seeds.extend(files.iter().filter_map(|(path, text)| of_text(path, text)));
        let all: String = files
            .iter()
            .map(|(path, text)| format!("{FILE}{path}\n{text}"))
            .collect();
        seeds.push(("bundle".to_owned(), all.into_bytes()));
        // What a person would copy of it.
        if case.file_name().to_string_lossy().starts_with("form-") {
            let texts: Vec<&str> = files.iter().map(|(_, text)| text.as_str()).collect();
            seeds.push(("paste".to_owned(), texts.join("\n").into_bytes()));
        }
        // Archives are fuzzed for what holds the files together, not for the files.
        if number % 20 == 0 {
            let tar = tar(&files)?;
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(&tar)?;
            seeds.push(("archive".to_owned(), gz.finish()?));
            seeds.push(("archive".to_owned(), tar));
        }
    }
    seeds.retain(|(_, seed)| seed.len() <= MAX);
    Ok(seeds)
}

/// The target that a file in a capture or a bundle is for, by its name.
fn of_text(path: &str, text: &str) -> Option<(String, Vec<u8>)> {
    let name = path.rsplit('/').next()?;
    let is = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let plain = |target: &str| Some((target.to_owned(), text.as_bytes().to_vec()));
    if name == "resolv.conf" {
        return plain("resolv_conf");
    }
    if is(&["nslookup", "dig"]) {
        return plain("lookups");
    }
    if is(&["curl", "wget"]) {
        return plain("requests");
    }
    if is(&["tables"]) && is(&["save"]) {
        return plain("iptables_save");
    }
    if is(&["nft"]) {
        return plain("nft");
    }
    let (reader, _) = (b'a'..)
        .zip(NODE_TEXTS)
        .find(|(_, (of, _))| name.starts_with(of))?;
    Some(("node_texts".to_owned(), [&[reader], text.as_bytes()].concat()))
}

/// Path below the directory, and content, of every file in it that is text.
fn files_below(directory: &Path) -> io::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(at)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else if let (Ok(text), Ok(name)) = (fs::read_to_string(&path), path.strip_prefix(directory)) {
                files.push((name.to_string_lossy().into_owned(), text));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn tar(files: &[(String, String)]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, text.as_bytes())?;
    }
    archive.into_inner()
}

/// What cluster DNS answers about a Service.
fn answer() -> io::Result<Vec<u8>> {
    let name = Name::from_ascii("web.shop.svc.cluster.local.").map_err(io::Error::other)?;
    let mut message = Message::query();
    message.metadata.message_type = MessageType::Response;
    message.add_query(Query::query(name.clone(), RecordType::A));
    let address = RData::A(A::new(10, 96, 0, 10));
    message.answers.push(Record::from_rdata(name, 30, address));
    message.to_vec().map_err(io::Error::other)
}
