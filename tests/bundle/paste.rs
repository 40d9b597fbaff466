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
