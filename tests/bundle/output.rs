//! What `svcdiag diagnose` prints of a bundle, in the formats for people.

use std::process::Command;

/// What the program prints of a case, which has only one Service.
fn printed(case: &str, output: &str) -> String {
    let bundle = format!("{}/tests/cases/{case}/bundle", env!("CARGO_MANIFEST_DIR"));
    let program = env!("CARGO_BIN_EXE_svcdiag");
    let output = Command::new(program)
        .args(["diagnose", &bundle, "-o", output])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_answer_ends_with_the_path_of_a_packet() {
    let text = printed("live-frozen-pod", "table");
    let path = "Path: Pod shop/box -> DNS -> ~ 10.96.143.20:80 -> rules (iptables, 2/2 checked nodes) -> x 10.244.2.7:8080 (some)\n";
    assert!(text.ends_with(&format!("\n\n{path}")), "{text}");
}

#[test]
fn the_page_is_one_document_about_the_service() {
    let page = printed("live-frozen-pod", "html");
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{page}");
    assert!(
        page.contains("<title>Service shop/web: does not work - svcdiag</title>"),
        "{page}"
    );
    assert!(page.contains("\u{2717} 10.244.2.7:8080 (some)</code>"), "{page}");
    assert!(page.ends_with("</html>\n"), "{page}");
}
