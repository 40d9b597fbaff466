//! Values of arguments that nobody knows beforehand: names in the kubeconfig and in the cluster, and reasons.
//!
//! Whoever presses Tab does not want to wait or to read errors: what cannot be had soon has no candidates.

use std::{ffi::OsStr, fmt::Debug, time::Duration};

use clap::{Args, Command, FromArgMatches};
use clap_complete::engine::CompletionCandidate;
use kube::{Api, Client, Resource, ResourceExt, api::ListParams, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

use crate::{
    api::{Reason, ServiceDiagnosis},
    cluster::{ClusterOptions, Connection, Names},
    explain,
    objects::{Namespace, Service},
};

/// How long a user waits for a Tab without wondering.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most names that are fetched: nobody reads more.
const MOST: u32 = 500;

/// Services of the namespace that is typed.
pub(crate) fn services(typed: &OsStr) -> Vec<CompletionCandidate> {
    after_kind(typed, of_namespace::<Service>)
}

/// ServiceDiagnoses of the namespace that is typed.
pub(crate) fn diagnoses(typed: &OsStr) -> Vec<CompletionCandidate> {
    after_kind(typed, of_namespace::<ServiceDiagnosis>)
}

/// Namespaces of the cluster.
pub(crate) fn namespaces(typed: &OsStr) -> Vec<CompletionCandidate> {
    let found = in_cluster(async |client, _| names_of(&Api::<Namespace>::all(client)).await);
    candidates(typed, found)
}

/// Contexts of the kubeconfig.
pub(crate) fn contexts(typed: &OsStr) -> Vec<CompletionCandidate> {
    in_kubeconfig(typed, |names| names.contexts)
}

/// Clusters of the kubeconfig.
pub(crate) fn clusters(typed: &OsStr) -> Vec<CompletionCandidate> {
    in_kubeconfig(typed, |names| names.clusters)
}

/// Users of the kubeconfig.
pub(crate) fn users(typed: &OsStr) -> Vec<CompletionCandidate> {
    in_kubeconfig(typed, |names| names.users)
}

fn in_kubeconfig(typed: &OsStr, which: impl FnOnce(Names) -> Vec<String>) -> Vec<CompletionCandidate> {
    let names = given().and_then(|given| given.names());
    candidates(typed, names.map(which))
}

/// Reasons, in upper or lower case, with what they mean.
pub(crate) fn reasons(typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy().to_lowercase();
    let reasons = explain::reasons().filter(|reason| reason.to_lowercase().starts_with(&typed));
    let with_meaning = |reason: &str| {
        let meaning = reason.parse::<Reason>().ok().map(|r| r.meaning().into());
        CompletionCandidate::new(reason).help(meaning)
    };
    reasons.map(with_meaning).collect()
}

/// Candidates that begin with what is typed. A shell inserts them as they are: a name with anything in it that a shell or a
/// terminal takes for more than text is left out.
fn candidates(typed: &OsStr, names: Option<Vec<String>>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let names = names.into_iter().flatten();
    // The names of EKS and GKE are among these: arn:aws:eks:..., user@cluster.
    let is_plain = |c: char| c.is_alphanumeric() || "-._:/@+".contains(c);
    let fitting = names.filter(|name| name.starts_with(typed.as_ref()) && name.chars().all(is_plain));
    fitting.map(CompletionCandidate::new).collect()
}

/// Candidates for a name that may have its kind before it: svc/NAME.
fn after_kind(
    typed: &OsStr,
    complete: impl Fn(&OsStr) -> Vec<CompletionCandidate>,
) -> Vec<CompletionCandidate> {
    match typed.to_string_lossy().rsplit_once('/') {
        Some((kind, name)) => {
            let found = complete(OsStr::new(name)).into_iter();
            found.map(|c| c.add_prefix(format!("{kind}/"))).collect()
        }
        None => complete(typed),
    }
}

/// Names of a kind in the namespace that is typed.
fn of_namespace<K>(typed: &OsStr) -> Vec<CompletionCandidate>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let found = in_cluster(async |client, namespace: String| {
        names_of(&Api::<K>::namespaced(client, &namespace)).await
    });
    candidates(typed, found)
}

async fn names_of<K>(api: &Api<K>) -> Option<Vec<String>>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let listed = api.list_metadata(&ListParams::default().limit(MOST)).await.ok()?;
    Some(listed.iter().map(ResourceExt::name_any).collect())
}

/// Asks the cluster that is typed.
fn in_cluster(ask: impl AsyncFnOnce(Client, String) -> Option<Vec<String>>) -> Option<Vec<String>> {
    let given = given()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let asked = async {
        let Connection {
            client, namespace, ..
        } = given.connect().await.ok()?;
        ask(client, namespace).await
    };
    // A timer needs a runtime to be created.
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await.ok().flatten() });
    // A credential plugin that hangs is not waited for.
    runtime.shutdown_background();
    answer
}

/// The cluster options among the words of the command line that is completed.
fn given() -> Option<ClusterOptions> {
    let words = std::env::args_os().skip(1);
    among(words.map(|word| word.to_string_lossy().into_owned()))
}

/// The cluster options among words; the line is not finished, so that the rest may not parse yet.
fn among(words: impl IntoIterator<Item = String>) -> Option<ClusterOptions> {
    let command = ClusterOptions::augment_args(Command::new("svcdiag"));
    let mut words = words.into_iter();
    let mut known = vec!["svcdiag".to_owned()];
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let is_named = |argument: &clap::Arg| {
            let long = argument.get_long().map(|long| format!("--{long}"));
            let short = argument.get_short().map(|short| format!("-{short}"));
            [long, short].iter().flatten().any(|option| option == name)
        };
        if !command.get_arguments().any(is_named) {
            continue;
        }
        // Bash takes the equals sign for a word of its own.
        let value = value.or_else(|| words.next().filter(|w| w != "=").or_else(|| words.next()));
        if let Some(value) = value {
            known.push(format!("{name}={value}"));
        }
    }
    let matches = command.try_get_matches_from(known).ok()?;
    ClusterOptions::from_arg_matches(&matches).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(found: &[CompletionCandidate]) -> Vec<&str> {
        found.iter().filter_map(|c| c.get_value().to_str()).collect()
    }

    #[test]
    fn the_cluster_is_the_one_that_is_typed_in_any_form() {
        for line in [
            "-- svcdiag check we -n shop --context live",
            "wait --all --for=condition=Ready -n=shop --context=live",
            "check --namespace = shop --context = live we",
            "check -n shop --context live --ports",
        ] {
            let found = format!("{:?}", among(line.split(' ').map(str::to_owned)).unwrap());
            let parts = ["namespace: Some(\"shop\")", "context: Some(\"live\")"];
            assert!(parts.iter().all(|part| found.contains(part)), "{line}: {found}");
        }
        assert!(among(["check".to_owned(), "-n".to_owned()]).is_some());
    }

    #[test]
    fn names_keep_the_kind_that_is_typed_before_them() {
        let names = || Some(vec!["web".to_owned(), "cart".to_owned()]);
        let complete = |typed: &OsStr| candidates(typed, names());
        assert_eq!(values(&after_kind(OsStr::new("svc/w"), complete)), ["svc/web"]);
        assert_eq!(values(&after_kind(OsStr::new(""), complete)), ["web", "cart"]);
        assert!(candidates(OsStr::new("w"), None).is_empty());
    }

    #[test]
    fn a_name_that_would_do_something_in_a_shell_is_no_candidate() {
        let plain = ["arn:aws:eks:eu-west-1:1234:cluster/live", "admin@kind"];
        let others = ["$(reboot)", "a;b", "a b", "a\nb", "a\u{1b}[2J", "`id`"];
        let names = plain
            .iter()
            .chain(&others)
            .map(|name| (*name).to_owned())
            .collect();
        assert_eq!(values(&candidates(OsStr::new(""), Some(names))), plain);
    }

    #[test]
    fn reasons_are_completed_in_any_case() {
        assert_eq!(values(&reasons(OsStr::new("noreadye"))), ["NoReadyEndpoints"]);
        assert!(reasons(OsStr::new("NoReadyE"))[0].get_help().is_some());
        assert!(reasons(OsStr::new("")).len() > 90);
    }
}
