//! Commands of kubectl: what they ask for, and in which namespace.

/// A command of kubectl, as far as it says what its output is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubectl<'a> {
    /// `get`, `describe`, `exec`, ...
    pub verb: &'a str,
    /// The namespace that it names.
    pub namespace: Option<&'a str>,
    /// Whether it asks for all namespaces.
    pub all_namespaces: bool,
    /// What stands behind the verb, without flags: the resource and names, or the Pod.
    pub operands: Vec<&'a str>,
    /// What `exec`, `run` or `debug` runs.
    pub runs: Option<&'a str>,
    /// The other flags, with their values.
    flags: Vec<(&'a str, Option<&'a str>)>,
}

/// Where kubectl runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// In a Pod that is there: `exec`, or `debug` with one more container in it.
    Pod(&'a str),
    /// In a Pod that is made for it: `run`, or `debug --copy-to`.
    OneOff {
        /// Its name.
        name: &'a str,
        /// Its labels as the flag has them; without it `run` has a label of its own.
        labels: Option<&'a str>,
    },
    /// On a node: `debug node/NAME`.
    Node(&'a str),
}

/// Flags with a value, which is no operand.
const VALUES: [&str; 34] = [
    "-n",
    "--namespace",
    "-o",
    "--output",
    "-l",
    "--labels",
    "--selector",
    "--field-selector",
    "--context",
    "--kubeconfig",
    "--cluster",
    "--user",
    "-s",
    "--server",
    "--token",
    "--as",
    "-c",
    "--container",
    "--sort-by",
    "-L",
    "--request-timeout",
    "--tail",
    "--since",
    "--since-time",
    "--limit-bytes",
    "--image",
    "--image-pull-policy",
    "--restart",
    "--env",
    "--port",
    "--overrides",
    "--profile",
    "--copy-to",
    "--target",
];

impl<'a> Kubectl<'a> {
    /// None for another program.
    #[must_use]
    pub fn parse(command: &'a str) -> Option<Self> {
        let (own, runs) = match command.split_once(" -- ") {
            Some((own, runs)) => (own, Some(runs.trim())),
            None => (command, None),
        };
        let mut words = own.split_whitespace().filter(|w| *w != "sudo").peekable();
        let program = super::prompt::basename(words.next()?);
        match program {
            "kubectl" | "oc" | "k" => {}
            "microk8s" | "k3s" | "minikube" if words.peek() == Some(&"kubectl") => {
                words.next();
            }
            "microk8s.kubectl" => {}
            _ => return None,
        }
        let mut parsed = Self {
            runs,
            ..Self::default()
        };
        while let Some(word) = words.next() {
            if word.starts_with(['|', ';', '&', '>', '<']) {
                break;
            }
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) if flag.starts_with('-') => (flag, Some(value)),
                _ if VALUES.contains(&word) => (word, words.next()),
                _ => (word, None),
            };
            match flag {
                "-n" | "--namespace" => parsed.namespace = value,
                "-A" | "--all-namespaces" => parsed.all_namespaces = true,
                // Without a space: -nshop.
                _ if flag.starts_with("-n") => parsed.namespace = flag.strip_prefix("-n"),
                _ if flag.starts_with('-') => {
                    let value = value.map(|value| value.trim_matches(['"', '\'']));
                    parsed.flags.push((flag, value));
                }
                _ if parsed.verb.is_empty() => parsed.verb = word,
                _ => parsed.operands.push(word),
            }
        }
        Some(parsed)
    }

    /// Whether it has a flag, and does not set it to false.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        let mut all = self.flags.iter();
        all.any(|(name, value)| *name == flag && *value != Some("false"))
    }

    /// The value of a flag that may have several names.
    #[must_use]
    pub fn value(&self, names: &[&str]) -> Option<&'a str> {
        let of = |(name, value): &(&str, Option<&'a str>)| value.filter(|_| names.contains(name));
        self.flags.iter().find_map(of)
    }

    /// The labels by which `logs` or `get` chooses.
    #[must_use]
    pub fn selector(&self) -> Option<&'a str> {
        self.value(&["-l", "--selector"])
    }

    /// The Pod that `exec` or `debug` runs a program in, or of which `logs` shows the log.
    #[must_use]
    pub fn pod(&self) -> Option<&'a str> {
        let target = self
            .operands
            .first()
            .filter(|_| matches!(self.verb, "exec" | "logs" | "debug"))?;
        match target.split_once('/') {
            Some(("pod" | "pods" | "po", name)) => Some(name),
            Some(_) => None,
            None => Some(target),
        }
    }

    /// Where it runs a program, if that can be known.
    #[must_use]
    pub fn target(&self) -> Option<Target<'a>> {
        // They may put the Pod on the network of its node, or give it other labels.
        if self.value(&["--overrides"]).is_some() || self.has("--custom") {
            return None;
        }
        let first = self.operands.first().copied();
        let node = || {
            let name = first?.strip_prefix("node/").or(first?.strip_prefix("nodes/"))?;
            // These do not share the namespaces of the node.
            let profile = self.value(&["--profile"]);
            (!matches!(profile, Some("baseline" | "restricted"))).then_some(Target::Node(name))
        };
        let one_off = |name| Target::OneOff {
            name,
            labels: self.value(&["-l", "--labels"]),
        };
        match self.verb {
            "exec" => self.pod().map(Target::Pod),
            "run" => first.map(one_off),
            "debug" => match self.value(&["--copy-to"]) {
                // The copy has no labels, unless it keeps those of a Pod that may not be known.
                Some(copy) => (!self.has("--keep-labels")).then_some(Target::OneOff {
                    name: copy,
                    labels: Some(""),
                }),
                None => self.pod().map(Target::Pod).or_else(node),
            },
            _ => None,
        }
    }

    /// Whether what it runs is connected to the terminal.
    #[must_use]
    pub fn is_interactive(&self) -> bool {
        const LONG: [&str; 3] = ["--stdin", "--tty", "--attach"];
        let is_short = |flag: &str| {
            let letters = flag.strip_prefix('-');
            letters.is_some_and(|l| !l.is_empty() && l.bytes().all(|b| matches!(b, b'i' | b't' | b'q')))
        };
        self.flags.iter().any(|(flag, _)| is_short(flag)) || LONG.iter().any(|flag| self.has(flag))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_command_says_where_it_looks() {
        let namespace = |command| Kubectl::parse(command).and_then(|k| k.namespace);
        for command in [
            "k get po -n shop",
            "kubectl -nshop get po",
            "kubectl get po --namespace=shop",
        ] {
            assert_eq!(namespace(command), Some("shop"), "{command}");
        }
        assert!(Kubectl::parse("kubectl get po -A").unwrap().all_namespaces);
    }

    #[test]
    fn exec_names_a_pod_and_what_it_runs() {
        let parsed = Kubectl::parse("kubectl exec -it -n shop client -c app -- curl -sS web").unwrap();
        assert_eq!((parsed.pod(), parsed.namespace), (Some("client"), Some("shop")));
        assert_eq!(parsed.runs, Some("curl -sS web"));
        assert_eq!(
            Kubectl::parse("kubectl exec deploy/web -- ls").unwrap().pod(),
            None
        );
    }

    #[test]
    fn logs_names_a_pod() {
        let pod = |command| Kubectl::parse(command).and_then(|k| k.pod());
        for command in [
            "kubectl logs --tail 50 kube-proxy-x7k2p -n kube-system",
            "kubectl -n kube-system logs pod/kube-proxy-x7k2p -f",
        ] {
            assert_eq!(pod(command), Some("kube-proxy-x7k2p"), "{command}");
        }
        let by_label = Kubectl::parse("kubectl logs --prefix -l 'k8s-app=kube-proxy'").unwrap();
        assert_eq!((by_label.pod(), by_label.has("--prefix")), (None, true));
        assert_eq!(by_label.selector(), Some("k8s-app=kube-proxy"));
        assert_eq!(pod("kubectl logs ds/kube-proxy"), None);
    }

    #[test]
    fn programs_run_in_pods_that_are_there_or_made_for_it_or_on_nodes() {
        let target = |command| Kubectl::parse(command).and_then(|k| k.target());
        let one_off = |name, labels| Some(Target::OneOff { name, labels });
        for (command, expected) in [
            ("kubectl exec client -- curl web", Some(Target::Pod("client"))),
            (
                "kubectl run tmp --rm -it --image=busybox -- wget web",
                one_off("tmp", None),
            ),
            (
                "kubectl run --image busybox --restart Never --labels=\"app=front\" tmp -- wget web",
                one_off("tmp", Some("app=front")),
            ),
            (
                "kubectl run tmp -l app=front --image=busybox -- sh",
                one_off("tmp", Some("app=front")),
            ),
            (
                "kubectl debug -it web-1 --image=busybox --target=app -- sh",
                Some(Target::Pod("web-1")),
            ),
            (
                "kubectl debug node/n1 -it --image=busybox",
                Some(Target::Node("n1")),
            ),
            (
                "kubectl debug web-1 --copy-to=web-2 -it --image=busybox",
                one_off("web-2", Some("")),
            ),
            (
                "kubectl debug web-1 --copy-to=web-2 --keep-labels -it --image=busybox",
                None,
            ),
            (
                "kubectl debug node/n1 --profile=restricted -it --image=busybox",
                None,
            ),
            (
                "kubectl run tmp --overrides='{\"spec\":{\"hostNetwork\":true}}' --image=busybox -- sh",
                None,
            ),
            ("kubectl run --rm -it --image=busybox -- sh", None),
            ("kubectl get pods", None),
        ] {
            assert_eq!(target(command), expected, "{command}");
        }
        let is_interactive = |command| Kubectl::parse(command).is_some_and(|k| k.is_interactive());
        assert!(is_interactive("kubectl run tmp -ti --image=busybox"));
        assert!(is_interactive("kubectl run tmp --stdin --tty --image=busybox"));
        assert!(!is_interactive("kubectl run tmp --image=busybox --stdin=false"));
    }

    proptest! {
        #[test]
        fn any_command_is_survived(command in "(kubectl |k |sudo |run |debug |node/|-n |-- |=|\\PC){0,20}") {
            let parsed = Kubectl::parse(&command);
            let _ = parsed.map(|k| (k.target().is_some(), k.pod().map(str::len), k.is_interactive()));
        }
    }
}
