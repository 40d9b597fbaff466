//! Outputs of commands: put where the evidence of the node or of the Pod is on which they were typed.

use jiff::Timestamp;

use super::{
    Fate,
    session::{Place, file_name},
    shortened,
};
use crate::{
    bundle::{Bundle, evidence::is_read, files::File, objects::identity::is_subdomain},
    formats::text::{kubectl::Kubectl, paste::Section},
};

/// Takes the output of a command in; says what it is and what became of it.
pub(super) fn take(
    bundle: &mut Bundle,
    section: &Section<'_>,
    place: Option<Place<'_>>,
    modified: Option<Timestamp>,
) -> (String, Fate) {
    let command = section.command.unwrap_or_default();
    let unused = |what: String, why: &str| (what, Fate::NotUsed(why.to_owned()));
    if section.text.trim().is_empty() {
        let why = "the command printed nothing, or its output is missing";
        return unused(format!("\"{}\"", shortened(command)), why);
    }
    let what = format!("output of \"{}\"", shortened(command));
    let kubectl = Kubectl::parse(command);
    if let Some(kubectl) = kubectl.as_ref().filter(|k| k.verb == "logs") {
        return logs(bundle, section, kubectl, modified);
    }
    let Some(place) = place else {
        return match kubectl {
            Some(_) => unused(
                what,
                "of kubectl, only objects, tables, descriptions, logs and the output of exec are read",
            ),
            None => unused(
                what,
                "it is not known on which node or in which Pod it was typed; save it in a bundle, in nodes/NODE/ or pods/NAMESPACE/POD/",
            ),
        };
    };
    let Some(directory) = place.directory(bundle) else {
        let why = format!("the paste does not show that there is {}", place.describe());
        return unused(what, &why);
    };
    let typed = place.command.unwrap_or(command);
    let name = file_name(typed);
    // Of some only the answer is read, of all others the command matters, too.
    let text = match name.is_answer {
        true => section.text.to_owned(),
        false => format!("$ {typed}\n{}", section.text),
    };
    let file = format!("{}-line-{}.{}", name.stem, section.first, name.ending);
    if !is_read(&file, &text) {
        return unused(what, "nothing is read of the output of this command");
    }
    bundle.files.files.push(File {
        path: format!("{directory}/{file}"),
        text,
        modified,
    });
    (format!("{what} ({directory})"), Fate::Used)
}

/// Takes a log in, if its Pod is one of kube-proxy or of CoreDNS.
fn logs(
    bundle: &mut Bundle,
    section: &Section<'_>,
    kubectl: &Kubectl<'_>,
    modified: Option<Timestamp>,
) -> (String, Fate) {
    let what = format!("output of \"{}\"", shortened(section.command.unwrap_or_default()));
    match place_of_log(bundle, kubectl, section.command.unwrap_or_default()) {
        Ok((whose, directory, name)) => {
            bundle.files.files.push(File {
                path: format!("{directory}/{name}-line-{}.txt", section.first),
                text: section.text.to_owned(),
                modified,
            });
            (format!("the log of {whose} ({directory})"), Fate::Used)
        }
        Err(why) => (what, Fate::NotUsed(why)),
    }
}

/// Whose log it is, the directory of a bundle that it belongs to, and its name there.
///
/// # Errors
/// Why it is not read.
fn place_of_log(
    bundle: &Bundle,
    kubectl: &Kubectl<'_>,
    command: &str,
) -> Result<(&'static str, String, &'static str), String> {
    let is_earlier = command
        .split_whitespace()
        .any(|word| matches!(word, "-p" | "--previous"));
    let Some(pod) = kubectl.pod().filter(|name| is_subdomain(name)) else {
        return Err("it does not name one Pod, so it is not known whose log it is".to_owned());
    };
    let namespace = kubectl.namespace.unwrap_or_else(|| bundle.home());
    if is_earlier {
        return Err(
            "it is of an earlier run of the container, which says nothing of the present one".to_owned(),
        );
    }
    if pod.contains("coredns") {
        let directory = format!("pods/{namespace}/{pod}");
        return Ok(("CoreDNS", directory, "coredns.log"));
    }
    if !pod.starts_with("kube-proxy") {
        return Err("only logs of kube-proxy and CoreDNS are read".to_owned());
    }
    let of_object = bundle.inventory.node_of_pod(namespace, pod);
    let node = of_object.or_else(|| bundle.tables.node_of_pod(namespace, pod));
    let Some(node) = node.filter(|node| is_subdomain(node)) else {
        return Err(format!(
            "it is not known on which node Pod {pod} runs; add `kubectl -n {namespace} get pod {pod} -o wide`"
        ));
    };
    Ok(("kube-proxy", format!("nodes/{node}"), "kube-proxy.log"))
}
