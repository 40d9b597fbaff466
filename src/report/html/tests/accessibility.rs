//! What a browser makes of the page for a screen reader, and whether a narrow page has to be scrolled sideways.
//!
//! Chromium says so over its DevTools protocol, where it is installed.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// Names of the program: of Debian and others, and of Google.
const PROGRAMS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// How long the whole test may take: what is wrong with a browser shows by its saying nothing.
const PATIENCE: &str = "120";

/// A browser without a window. Its messages go through a pipe, each with a zero byte at its end: nothing listens, and no
/// other program can reach it.
struct Browser {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    messages: u32,
    session: Option<String>,
    directory: TempDir,
}

impl Browser {
    /// None where none is installed.
    #[expect(
        clippy::disallowed_methods,
        reason = "no verdict and no probe: a test runs a browser"
    )]
    fn start() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let programs = std::env::split_paths(&path).flat_map(|at| PROGRAMS.map(|name| at.join(name)));
        let program = programs.into_iter().find(|file| file.is_file())?;
        let directory = tempfile::tempdir().unwrap();
        // The browser reads file descriptor 3 and writes 4.
        let mut process = Command::new("sh")
            .args([
                "-c",
                "exec timeout \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1",
                PATIENCE,
            ])
            .arg(program)
            .args([
                "--headless",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
            ])
            .args([
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
            ])
            .args([
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
            ])
            .arg(format!(
                "--user-data-dir={}",
                directory.path().join("profile").display()
            ))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = process.stdin.take().unwrap();
        let from = BufReader::new(process.stdout.take().unwrap());
        let mut browser = Self {
            process,
            to,
            from,
            messages: 0,
            session: None,
            directory,
        };
        let target = browser.ask("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", &attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        browser.ask("Page.enable", &json!({}));
        Some(browser)
    }

    /// Sends a command, and waits for its result.
    fn ask(&mut self, method: &str, parameters: &Value) -> Value {
        self.messages += 1;
        let mut message = json!({ "id": self.messages, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        let id = json!(self.messages);
        let answer = self.wait_for(|message| message["id"] == id);
        assert_eq!(answer["error"], Value::Null, "{method}");
        answer["result"].clone()
    }

    fn wait_for(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut message = Vec::new();
            self.from.read_until(0, &mut message).unwrap();
            assert_eq!(message.pop(), Some(0), "the browser ended, or took {PATIENCE} s");
            let message: Value = serde_json::from_slice(&message).unwrap();
            if is_it(&message) {
                return message;
            }
        }
    }

    /// Opens a page in a window of some width.
    fn open(&mut self, page: &str, width: u32) {
        let file = self.directory.path().join("page.html");
        fs::write(&file, page).unwrap();
        let size = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", &size);
        self.ask(
            "Page.navigate",
            &json!({ "url": format!("file://{}", file.display()) }),
        );
        self.wait_for(|message| message["method"] == "Page.loadEventFired");
    }

    /// What there is for a screen reader, in its order.
    fn tree(&mut self) -> Vec<Node> {
        let tree = self.ask("Accessibility.getFullAXTree", &json!({}));
        let nodes = tree["nodes"].as_array().unwrap();
        nodes
            .iter()
            .filter(|node| node["ignored"] == json!(false))
            .map(Node::of)
            .collect()
    }

    /// How wide the page is, in pixels.
    fn width(&mut self) -> u64 {
        let expression = json!({ "expression": "document.documentElement.scrollWidth" });
        self.ask("Runtime.evaluate", &expression)["result"]["value"]
            .as_u64()
            .unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // `timeout` passes its own end on.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A thing on the page.
#[derive(Debug)]
struct Node {
    role: String,
    name: String,
    description: String,
    level: Option<u64>,
}

impl Node {
    fn of(node: &Value) -> Self {
        let text = |field: &str| node[field]["value"].as_str().unwrap_or_default().to_owned();
        let mut properties = node["properties"].as_array().into_iter().flatten();
        let level = properties.find(|property| property["name"] == "level");
        Self {
            role: text("role"),
            name: text("name"),
            description: text("description"),
            level: level.and_then(|level| level["value"]["value"].as_u64()),
        }
    }
}

#[track_caller]
fn assert_accessible(nodes: &[Node], title: &str, verdicts: &[&str]) {
    let of = |roles: &'static [&str]| {
        let nodes = nodes.iter().filter(|node| roles.contains(&node.role.as_str()));
        nodes.collect::<Vec<_>>()
    };
    let page = of(&["RootWebArea"]);
    assert!(page.iter().any(|node| node.name == title), "{page:?}");
    let headings = of(&["heading"]);
    let levels: Vec<u64> = headings.iter().map(|heading| heading.level.unwrap()).collect();
    assert_eq!(levels[0], 1, "{headings:?}");
    assert!(
        levels.windows(2).all(|w| w[1] <= w[0] + 1 && w[1] > 1),
        "{headings:?}"
    );
    let texts: Vec<&str> = of(&["StaticText"]).iter().map(|node| node.name.trim()).collect();
    for verdict in verdicts {
        assert!(texts.contains(verdict), "{verdict}: {texts:?}");
    }
    // Of both drawings the style hides one.
    let drawings = of(&["image", "img"]);
    assert_eq!(drawings.len(), verdicts.len(), "{drawings:?}");
    for drawing in &drawings {
        assert_eq!(drawing.name, "From client to endpoint");
        assert!(drawing.description.contains("Endpoint, "), "{drawing:?}");
    }
    let tables = of(&["table"]);
    assert!(tables.iter().any(|table| table.name == "Stages"), "{tables:?}");
    let headers = of(&["columnheader"]);
    assert!(headers.len() >= 4 * verdicts.len(), "{headers:?}");
    for named in [
        tables,
        headers,
        headings,
        of(&["link", "rowheader", "button", "navigation"]),
    ] {
        assert!(named.iter().all(|node| !node.name.trim().is_empty()), "{named:?}");
    }
}

#[test]
fn a_browser_tells_a_screen_reader_what_is_on_the_page() {
    let Some(mut browser) = Browser::start() else {
        // Past the capture of the tests' output: whoever runs them sees it.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: a_browser_tells_a_screen_reader_what_is_on_the_page: no Chromium is on the PATH (Debian: chromium)"
        );
        return;
    };
    let objects = ["dropped", "healthy", "no-agents"].map(|name| Fixture::named(name).object());
    let verdicts = ["does not work", "works", "unknown"];
    for width in [400, 1200] {
        for (object, verdict) in objects.iter().zip(verdicts) {
            browser.open(&page(object), width);
            let name = format!(
                "{}/{}",
                object.metadata.namespace.as_deref().unwrap(),
                object.spec.service_name
            );
            let title = format!("Service {name}: {verdict} - svcdiag");
            assert_accessible(&browser.tree(), &title, &[verdict]);
            let wide = browser.width();
            assert!(
                wide <= u64::from(width),
                "{name} is {wide} pixels wide, not {width}"
            );
        }
        let several: Vec<&ServiceDiagnosis> = objects.iter().collect();
        browser.open(&html(&several), width);
        assert_accessible(&browser.tree(), "Services - svcdiag", &verdicts);
        let wide = browser.width();
        assert!(
            wide <= u64::from(width),
            "the list is {wide} pixels wide, not {width}"
        );
    }
    // Words without a blank are the widest.
    browser.open(&page(&foreign(&"x".repeat(300))), 400);
    assert!(browser.width() <= 400, "{}", browser.width());
}
