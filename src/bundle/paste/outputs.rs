//! Outputs of commands: put where the evidence of the node or of the Pod is on which they were typed.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use jiff::Timestamp;

use super::{
    Fate,
    session::{Place, file_name, starts_shell},
    shortened,
};
use crate::{
    bundle::{Bundle, evidence::is_read, files::File, objects::identity::is_subdomain},
    formats::text::{kubectl::Kubectl, paste::Section},
};

/// Why a command that opens a shell is not used itself.
const STARTS_SHELL: &str = "it starts a shell; what is typed into that is read by itself";

/// Takes the output of a command in; says what it is and what became of it.
pub(super) fn take(
    bundle: &mut Bundle,
    section: &Section<'_>,
    place: Option<Place<'_>>,
    modified: Option<Timestamp>,
) -> (String, Fate) {
    let command = section.command.unwrap_or_default();
    let unused = |what: String, why: &str| (what, Fate::NotUsed(why.to_owned()));
    let kubectl = Kubectl::parse(command);
    let of_shell = match &kubectl {
        _ if command == "exit" => Some("it ends a shell"),
        Some(kubectl) if starts_shell(kubectl) => Some(STARTS_SHELL),
        _ => None,
    };
    if section.text.trim().is_empty() {
        let why = of_shell.unwrap_or("the command printed nothing, or its output is missing");
        return unused(format!("\"{}\"", shortened(command)), why);
    }
    let what = format!("output of \"{}\"", shortened(command));
    if command == "exit" {
        return unused(what, "it ends a shell");
    }
    if let Some(kubectl) = kubectl.as_ref().filter(|k| k.verb == "logs") {
        return logs(bundle, section, kubectl, modified);
    }
    let Some(place) = place else {
        return match kubectl {
            Some(kubectl) if starts_shell(&kubectl) => unused(what, STARTS_SHELL),
            Some(kubectl) if kubectl.value(&["--overrides"]).is_some() => unused(
                what,
                "its --overrides may put the Pod on the network of a node or give it other labels",
            ),
            Some(_) => unused(
                what,
                "of kubectl, only objects, tables, descriptions, logs and the output of exec, run and debug are read",
            ),
            None => unused(
                what,
                "it is not known on which node or in which Pod it was typed; paste it behind its `kubectl exec` or a prompt that names the node, or save it in a bundle, in nodes/NODE/ or pods/NAMESPACE/POD/",
            ),
        };
    };
    let Some(directory) = place.directory(bundle) else {
        return unused(what, &place.why_nowhere());
    };
    let typed = place.command.unwrap_or(command);
    let name = file_name(typed);
    if place.has_programs_of_an_image()
        && ["iptables", "ip6tables"]
            .iter()
            .any(|of| name.stem.starts_with(of))
    {
        return unused(
            what,
            "the iptables of an image may use another backend than that of the node; run it behind `chroot /host`",
        );
    }
    // Of some only the answer is read, of all others the command matters, too.
    let text = match name.is_answer {
        true => section.text.to_owned(),
        false => format!("$ {typed}\n{}", section.text),
    };
    let file = format!("{}-line-{}.{}", name.stem, section.first, name.ending);
    if !is_read(&file, &text) {
        return unused(what, "nothing is read of the output of this command");
    }
    if !place.note(bundle) {
        return unused(what, "another Pod of this name had other labels");
    }
    bundle.files.files.push(File {
        path: format!("{directory}/{file}"),
        text,
        modified,
    });
    (format!("{what} ({directory})"), Fate::Used)
}

/// Whose logs are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    KubeProxy,
    CoreDns,
}

impl Program {
    fn of_pod(pod: &str) -> Option<Self> {
        match pod {
            pod if pod.contains("coredns") => Some(Self::CoreDns),
            pod if pod.starts_with("kube-proxy") => Some(Self::KubeProxy),
            _ => None,
        }
    }

    /// Whose Pods a command chooses by a label (`-l k8s-app=kube-dns`) or by their workload (`ds/kube-proxy`).
    fn of_choice(kubectl: &Kubectl<'_>) -> Option<Self> {
        let by_label = kubectl
            .selector()
            .into_iter()
            .flat_map(|labels| labels.split(','));
        let by_label = by_label.filter_map(|label| Some(label.split_once('=')?.1.trim_start_matches('=')));
        let workload = kubectl.operands.first().and_then(|target| target.split_once('/'));
        let mut names = by_label.chain(workload.map(|(_, name)| name));
        names.find_map(|name| match name {
            "kube-dns" => Some(Self::CoreDns),
            name => Self::of_pod(name),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::KubeProxy => "kube-proxy",
            Self::CoreDns => "CoreDNS",
        }
    }
}

/// Most Pods whose logs are read of one output. kubectl follows five, unless it is told another number.
const MAX_LOGS: usize = 100;

const OTHER_LOG: &str = "only logs of kube-proxy and CoreDNS are read";

/// Takes logs in, if their Pods are of kube-proxy or of CoreDNS.
fn logs(
    bundle: &mut Bundle,
    section: &Section<'_>,
    kubectl: &Kubectl<'_>,
    modified: Option<Timestamp>,
) -> (String, Fate) {
    let what = format!("output of \"{}\"", shortened(section.command.unwrap_or_default()));
    let mut taken: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
    let mut not_taken: Vec<String> = Vec::new();
    for (pod, text) in by_pod(kubectl, section.text) {
        match place_of_log(bundle, kubectl, pod) {
            Ok((program, directory)) => {
                let name = match program {
                    Program::KubeProxy => "kube-proxy.log",
                    Program::CoreDns => "coredns.log",
                };
                // Two Pods of one node, of which one is gone, have two logs.
                let path = format!("{directory}/{name}-line-{}.txt", section.first);
                if taken.entry(program.name()).or_default().insert(directory) {
                    bundle.files.files.push(File {
                        path,
                        text: text.into_owned(),
                        modified,
                    });
                }
            }
            Err(why) => not_taken.push(why),
        }
    }
    let Some((program, directories)) = taken.pop_first() else {
        let why = not_taken
            .into_iter()
            .next()
            .unwrap_or_else(|| OTHER_LOG.to_owned());
        return (what, Fate::NotUsed(why));
    };
    let plural = if directories.len() == 1 { "log" } else { "logs" };
    let mut what = format!("the {plural} of {program} ({})", some(&directories));
    for (program, directories) in taken {
        what.push_str(&format!(" and of {program} ({})", some(&directories)));
    }
    if let Some(why) = not_taken.first() {
        what.push_str(&format!(", but not all: {why}"));
    }
    (what, Fate::Used)
}

/// Some of many, as they are named in a line.
fn some(names: &BTreeSet<String>) -> String {
    let named: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
    match names.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// The logs in an output by their Pods; None where it does not say whose it is. With --prefix each line does; of a workload
/// kubectl says which Pod it chose.
fn by_pod<'a>(kubectl: &Kubectl<'a>, text: &'a str) -> Vec<(Option<&'a str>, Cow<'a, str>)> {
    if let Some(pod) = kubectl.pod() {
        return vec![(Some(pod), Cow::Borrowed(text))];
    }
    if let Some((pod, log)) = chosen(text) {
        return vec![(Some(pod), Cow::Borrowed(log))];
    }
    let mut logs: Vec<(&str, String)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (pod, line) in text.split_inclusive('\n').filter_map(prefixed) {
        let is_full = logs.len() >= MAX_LOGS;
        let place = match places.get(pod) {
            Some(place) => *place,
            None if is_full => continue,
            None => {
                logs.push((pod, String::new()));
                places.insert(pod, logs.len() - 1);
                logs.len() - 1
            }
        };
        if let Some((_, log)) = logs.get_mut(place) {
            log.push_str(line);
        }
    }
    match logs.is_empty() {
        true => vec![(None, Cow::Borrowed(text))],
        false => logs
            .into_iter()
            .map(|(pod, log)| (Some(pod), Cow::Owned(log)))
            .collect(),
    }
}

/// The Pod and the line of `[pod/kube-proxy-x7k2p/kube-proxy] LINE`.
fn prefixed(line: &str) -> Option<(&str, &str)> {
    let (prefix, line) = line.strip_prefix("[pod/")?.split_once("] ")?;
    let (pod, container) = prefix.split_once('/')?;
    (is_subdomain(pod) && is_subdomain(container)).then_some((pod, line))
}

/// The Pod of `Found 3 pods, using pod/kube-proxy-x7k2p`, and its log.
fn chosen(text: &str) -> Option<(&str, &str)> {
    let (first, log) = text.split_once('\n')?;
    let (_, pod) = first.strip_prefix("Found ")?.split_once(" pods, using pod/")?;
    Some((pod.trim(), log))
}

/// Whose log it is, and the directory of a bundle that it belongs to.
///
/// # Errors
/// Why it is not read.
fn place_of_log(
    bundle: &Bundle,
    kubectl: &Kubectl<'_>,
    pod: Option<&str>,
) -> Result<(Program, String), String> {
    let namespace = kubectl.namespace.unwrap_or_else(|| bundle.home());
    if kubectl.has("-p") || kubectl.has("--previous") {
        return Err(
            "it is of an earlier run of the container, which says nothing of the present one".to_owned(),
        );
    }
    let Some(pod) = pod.filter(|name| is_subdomain(name)) else {
        let is_choice = kubectl.pod().is_none() && is_subdomain(namespace);
        return match Program::of_choice(kubectl).filter(|_| is_choice) {
            // Whichever Pod of it says so, it is cluster DNS.
            Some(Program::CoreDns) => Ok((Program::CoreDns, format!("pods/{namespace}"))),
            Some(Program::KubeProxy) => Err(format!(
                "it does not say on which node it was written; repeat it with --prefix, and add `kubectl -n {namespace} get pods -o wide`"
            )),
            None => Err("it does not name one Pod, so it is not known whose log it is".to_owned()),
        };
    };
    match Program::of_pod(pod) {
        Some(Program::CoreDns) => Ok((Program::CoreDns, format!("pods/{namespace}/{pod}"))),
        Some(Program::KubeProxy) => {
            let of_object = bundle.inventory.node_of_pod(namespace, pod);
            let node = of_object.or_else(|| bundle.tables.node_of_pod(namespace, pod));
            match node.filter(|node| is_subdomain(node)) {
                Some(node) => Ok((Program::KubeProxy, format!("nodes/{node}"))),
                None => Err(format!(
                    "it is not known on which node Pod {pod} runs; add `kubectl -n {namespace} get pod {pod} -o wide`"
                )),
            }
        }
        None => Err(OTHER_LOG.to_owned()),
    }
}
