//! What kube-proxy logs of its own trouble: rules that it cannot write, rights that it lacks, a Node that is not
//! there by the name it runs under, node ports that somebody else has.
//!
//! Sources: Kubernetes' pkg/proxy/iptables/proxier.go and nftables/proxier.go (failures of a sync), client-go's
//! tools/cache/reflector.go and the API server's message for 403, pkg/util/node (the Node's name),
//! pkg/proxy/util/port (node ports, which kube-proxy before 1.24 or so opens itself).

use std::collections::BTreeMap;

use super::klog::Entry;
use svcdiag_kube_proxy::Protocol;

/// Longest text of an error that is kept.
const MAX_TEXT: usize = 300;

/// What the lines since the last start say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The last failure to write rules, in kube-proxy's words.
    pub sync: Option<String>,
    /// What the API server last denied: `list endpointslices.discovery.k8s.io`.
    pub denied: Option<String>,
    /// The name under which it runs or looked for its Node.
    pub node_name: Option<String>,
    /// Ports of the node that others have, with the line that says so.
    pub ports_in_use: BTreeMap<(Protocol, u16), usize>,
    /// Why it ended, where nothing was logged after that.
    pub exit: Option<String>,
    /// Which failure the next lines are the text of.
    open: Option<Open>,
}

/// A failure whose text goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Sync,
    Exit,
}

impl Faults {
    /// Takes in a line; false where it says nothing of trouble.
    pub(super) fn read(&mut self, line: usize, entry: &Entry<'_>) -> bool {
        let message = entry.message.as_ref();
        if let (Some(open), None) = (self.open, entry.at) {
            return self.go_on(open, message);
        }
        self.open = None;
        // Who logs anything more has not ended.
        if entry.at.is_some() {
            self.exit = None;
        }
        let goes_on = message.ends_with("err=<");
        if let Some(exit) = exit(entry) {
            self.open = goes_on.then_some(Open::Exit);
            self.exit = Some(cut(&exit));
            // The name of its Node is often what it fails for.
            if let Some(name) = node_name(message) {
                self.node_name = Some(name.to_owned());
            }
        } else if let Some(failure) = failure(message) {
            self.open = goes_on.then_some(Open::Sync);
            self.sync = Some(cut(&failure));
        } else if let Some(right) = denied(message) {
            self.denied = Some(right);
        } else if let Some(name) = node_name(message) {
            self.node_name = Some(name.to_owned());
        } else if let Some(port) = port_in_use(message) {
            self.ports_in_use.entry(port).or_insert(line);
        } else {
            return false;
        }
        true
    }

    /// Takes in a line of an error of several lines: the first says what is wrong.
    fn go_on(&mut self, open: Open, line: &str) -> bool {
        if line.starts_with('>') {
            self.open = None;
            return false;
        }
        let text = match open {
            Open::Sync => &mut self.sync,
            Open::Exit => &mut self.exit,
        };
        let known = text.as_deref().unwrap_or_default();
        if !known.contains(": ") {
            let what = line.find("Error: ").and_then(|at| line.get(at..)).unwrap_or(line);
            *text = Some(cut(&format!("{known}: {}", what.trim())));
        }
        true
    }
}

/// A text that fits into a message; backquotes are for commands there.
fn cut(text: &str) -> String {
    let plain = text.replace('`', "'").replace("\\n", " ");
    let plain: String = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    plain.chars().take(MAX_TEXT).collect()
}

/// The failure to write rules that a message tells of.
fn failure(message: &str) -> Option<String> {
    const KNOWN: [&str; 3] = [
        "Failed to execute iptables-restore",
        "Failed to execute partial iptables-restore",
        "nftables sync failed",
    ];
    let what = KNOWN.iter().find(|known| message.contains(**known))?;
    let (_, rest) = message.split_once(what)?;
    // What is only tried again, as a whole, is no failure yet.
    if *what == "Failed to execute partial iptables-restore" {
        return None;
    }
    let rest = rest.trim_start_matches(['"', ':', ' ']);
    let why = why(rest);
    let why = why.trim_end_matches(")").trim_end_matches("\\n").trim();
    let closed = if why.contains('(') && !why.contains(')') {
        format!("{why})")
    } else {
        why.to_owned()
    };
    Some(if closed.is_empty() {
        (*what).to_owned()
    } else {
        format!("{what}: {closed}")
    })
}

/// Why kube-proxy ended, where the line says that it does: `"command failed" err="..."` since 1.22, `"Error running
/// ProxyServer" err="..."`, and lines of severity F.
fn exit(entry: &Entry<'_>) -> Option<String> {
    const KNOWN: [&str; 2] = ["\"command failed\"", "\"Error running ProxyServer\""];
    let message = entry.message.as_ref();
    let rest = match KNOWN.iter().find_map(|known| message.strip_prefix(*known)) {
        Some(rest) => rest.trim_start(),
        // In JSON the message stands without quotes.
        None => match message.strip_prefix("command failed ") {
            Some(rest) => rest,
            None => return entry.is_fatal.then(|| message.to_owned()),
        },
    };
    let text = why(rest).replace("\\\"", "\"");
    Some(if text.is_empty() {
        "command failed".to_owned()
    } else {
        text
    })
}

/// The error of a structured message, else all of it. Of one of several lines nothing stands on the first.
fn why(rest: &str) -> &str {
    match rest.split_once("err=\"") {
        Some((_, quoted)) => quoted.rsplit_once('"').map_or(quoted, |(text, _)| text),
        None if rest.starts_with("err=<") => "",
        None => rest,
    }
}

/// `User "x" cannot list resource "r" in API group "g"`; before 1.14 `cannot list r at the cluster scope`.
fn denied(message: &str) -> Option<String> {
    let message = message.replace("\\\"", "\"");
    let (_, rest) = message.split_once(" is forbidden: ")?;
    let (_, rest) = rest.split_once(" cannot ")?;
    let (verb, rest) = rest.split_once(' ')?;
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "./-".contains(c))
    };
    let (resource, group) = match rest.strip_prefix("resource \"").and_then(|r| r.split_once('"')) {
        Some((resource, rest)) => {
            let group = rest
                .split_once("API group \"")
                .and_then(|(_, g)| g.split_once('"'));
            (resource, group.map_or("", |(group, _)| group))
        }
        None => (rest.split_whitespace().next()?, ""),
    };
    let named = match group {
        "" => resource.to_owned(),
        group => format!("{resource}.{group}"),
    };
    (is_word(verb) && is_word(&named) && named.len() < 100).then(|| format!("{verb} {named}"))
}

/// `nodes "x" not found`, of newer versions `node "x" not found`, and `FLAG: --hostname-override="x"`.
fn node_name(message: &str) -> Option<&str> {
    let behind = |start: &str| message.split_once(start).map(|(_, rest)| rest);
    let name = match behind("FLAG: --hostname-override=\"") {
        Some(rest) => rest.split('"').next()?,
        None => {
            let starts = ["nodes \\\"", "nodes \"", "node \\\"", "node \""];
            let rest = starts.iter().find_map(|start| behind(start))?;
            let (name, rest) = rest.split_once('"')?;
            rest.trim_start().starts_with("not found").then_some(name)?
        }
    };
    let name = name.trim_end_matches('\\');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    (!name.is_empty() && name.len() <= 253 && name.chars().all(is_plain)).then_some(name)
}

/// `listen tcp4 :31400: bind: address already in use`.
fn port_in_use(message: &str) -> Option<(Protocol, u16)> {
    let (before, _) = message.split_once(": bind: address already in use")?;
    let (_, listen) = before.rsplit_once("listen ")?;
    let (protocol, address) = listen.split_once(' ')?;
    let protocol = Protocol::from_lower_case(protocol.trim_end_matches(['4', '6']))?;
    let (_, port) = address.rsplit_once(':')?;
    Some((protocol, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn faults(lines: &[&str]) -> Faults {
        let mut faults = Faults::default();
        for (index, line) in lines.iter().enumerate() {
            faults.read(index + 1, &Entry::parse(line));
        }
        faults
    }

    #[test]
    fn failures_to_write_rules_are_read_with_their_cause() {
        let sync = |lines: &[&str]| faults(lines).sync;
        assert_eq!(
            sync(&[
                r#"E0907 08:12:03.5 1 proxier.go:1484] "Failed to execute iptables-restore" err="exit status 2 (Bad argument -x\nline 7 failed\n)""#
            ])
            .as_deref(),
            Some("Failed to execute iptables-restore: exit status 2 (Bad argument -x line 7 failed)")
        );
        assert_eq!(
            sync(&[
                "E0907 08:12:03.5 1 proxier.go:1402] Failed to execute iptables-restore: exit status 1 (x)"
            ])
            .as_deref(),
            Some("Failed to execute iptables-restore: exit status 1 (x)")
        );
        let nftables = [
            r#"E0504 10:01:03.9 1 proxier.go:1653] "nftables sync failed" err=<"#,
            "\t/dev/stdin:92:87-100: Error: Could not process rule: Operation not supported",
            "\tadd rule ip kube-proxy x",
            r#" > ipFamily="IPv4""#,
            r#"I0504 10:01:03.9 1 proxier.go:1119] "Sync failed" ipFamily="IPv4" retryingTime="30s""#,
        ];
        assert_eq!(
            sync(&nftables).as_deref(),
            Some("nftables sync failed: Error: Could not process rule: Operation not supported")
        );
        // A part that fails is written again as a whole.
        assert_eq!(
            sync(&[
                r#"E0907 08:12:03.5 1 proxier.go:1] "Failed to execute partial iptables-restore" err="x""#
            ]),
            None
        );
    }

    #[test]
    fn denied_rights_are_named() {
        let right =
            |message: &str| faults(&[&format!("E0804 03:01:11.4 1 reflector.go:127] {message}")]).denied;
        assert_eq!(
            right(r#"Failed to watch *v1.EndpointSlice: endpointslices.discovery.k8s.io is forbidden: User "system:kube-proxy" cannot watch resource "endpointslices" in API group "discovery.k8s.io" at the cluster scope"#)
                .as_deref(),
            Some("watch endpointslices.discovery.k8s.io")
        );
        assert_eq!(
            right(r#""Failed to watch" err="services is forbidden: User \"u\" cannot list resource \"services\" in API group \"\" at the cluster scope""#)
                .as_deref(),
            Some("list services")
        );
        assert_eq!(
            right(r#"endpoints is forbidden: User "u" cannot list endpoints at the cluster scope"#)
                .as_deref(),
            Some("list endpoints")
        );
        assert_eq!(right("cannot list `endpoints`"), None);
    }

    #[test]
    fn the_name_of_the_node_is_read() {
        let name =
            |message: &str| faults(&[&format!("W1215 08:45:43.7 1 server.go:604] {message}")]).node_name;
        assert_eq!(
            name(r#"Failed to retrieve node info: nodes "a-1" not found"#).as_deref(),
            Some("a-1")
        );
        assert_eq!(
            name(r#""Failed to retrieve node info" err="nodes \"a-1\" not found""#).as_deref(),
            Some("a-1")
        );
        assert_eq!(
            name(r#"FLAG: --hostname-override="b.example""#).as_deref(),
            Some("b.example")
        );
        assert_eq!(name(r#"FLAG: --hostname-override="""#), None);
        assert_eq!(name(r#"nodes "a" is forbidden"#), None);
    }

    #[test]
    fn ports_that_others_have_are_read() {
        let ports = faults(&[
            r#"E0918 10:21:56.6 1 proxier.go:1054] can't open "nodePort for a/b:c" (:31400/tcp), skipping this nodePort: listen tcp :31400: bind: address already in use"#,
            r#"E0918 10:21:56.6 1 p.go:1] "can't open port, skipping it" err="listen udp4 :30053: bind: address already in use" port={}"#,
        ])
        .ports_in_use;
        let expected = [((Protocol::Tcp, 31400), 1), ((Protocol::Udp, 30053), 2)];
        assert_eq!(ports, expected.into_iter().collect());
    }
}
