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
    /// What `exec` runs.
    pub runs: Option<&'a str>,
}

/// Flags with a value, which is no operand.
const VALUES: [&str; 18] = [
    "-n",
    "--namespace",
    "-o",
    "--output",
    "-l",
    "--selector",
    "--field-selector",
    "--context",
    "--kubeconfig",
    "-c",
    "--container",
    "--sort-by",
    "-L",
    "--request-timeout",
    "--tail",
    "--since",
    "--since-time",
    "--limit-bytes",
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
                _ if flag.starts_with('-') => {}
                _ if parsed.verb.is_empty() => parsed.verb = word,
                _ => parsed.operands.push(word),
            }
        }
        Some(parsed)
    }

    /// The Pod that `exec` runs a program in, or of which `logs` shows the log.
    #[must_use]
    pub fn pod(&self) -> Option<&'a str> {
        let target = self
            .operands
            .first()
            .filter(|_| matches!(self.verb, "exec" | "logs"))?;
        match target.split_once('/') {
            Some(("pod" | "pods" | "po", name)) => Some(name),
            Some(_) => None,
            None => Some(target),
        }
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
        assert_eq!(pod("kubectl logs -l k8s-app=kube-proxy"), None);
        assert_eq!(pod("kubectl logs ds/kube-proxy"), None);
    }

    proptest! {
        #[test]
        fn any_command_is_survived(command in "(kubectl |k |sudo |-n |-- |=|\\PC){0,20}") {
            let parsed = Kubectl::parse(&command);
            let _ = parsed.map(|k| k.pod().map(str::len));
        }
    }
}
