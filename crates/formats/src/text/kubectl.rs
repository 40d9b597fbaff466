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
    /// Whether a selector or another program leaves out a part of what there is.
    pub is_filtered: bool,
    /// What `exec` runs.
    pub runs: Option<&'a str>,
}

/// Flags with a value, which is no operand.
const VALUES: [&str; 14] = [
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
                parsed.is_filtered |= word.starts_with('|');
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
                "-l" | "--selector" | "--field-selector" => parsed.is_filtered = true,
                _ if flag.starts_with("-l") || flag.starts_with("-n") && !flag.starts_with("--") => {
                    // Without a space: -lapp=web, -nshop.
                    match flag.strip_prefix("-n") {
                        Some(namespace) => parsed.namespace = Some(namespace),
                        None => parsed.is_filtered = true,
                    }
                }
                _ if flag.starts_with('-') => {}
                _ if parsed.verb.is_empty() => parsed.verb = word,
                _ => parsed.operands.push(word),
            }
        }
        Some(parsed)
    }

    /// The Pod that `exec` runs a program in.
    #[must_use]
    pub fn pod(&self) -> Option<&'a str> {
        let target = self.operands.first().filter(|_| self.verb == "exec")?;
        match target.split_once('/') {
            Some(("pod" | "pods" | "po", name)) => Some(name),
            Some(_) => None,
            None => Some(target),
        }
    }

    /// The one kind whose objects it lists, all of them of a namespace or of the cluster.
    #[must_use]
    pub fn lists(&self) -> Option<&'a str> {
        match self.operands.as_slice() {
            [resource] if self.verb == "get" && !self.is_filtered && !resource.contains(['/', ',']) => {
                Some(resource)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_command_says_what_it_lists_and_where() {
        let lists = |command| Kubectl::parse(command).and_then(|k| k.lists());
        assert_eq!(lists("kubectl get pods -n shop -o yaml"), Some("pods"));
        assert_eq!(lists("kubectl -n shop get --context c svc"), Some("svc"));
        for partial in [
            "kubectl get pods -l app=web",
            "kubectl get pods -lapp=web",
            "kubectl get pods --selector=app=web",
            "kubectl get pods | grep web",
            "kubectl get pod web-1",
            "kubectl get pod/web-1",
            "kubectl get pods,svc",
            "kubectl describe pods",
            "curl get pods",
        ] {
            assert_eq!(lists(partial), None, "{partial}");
        }
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

    proptest! {
        #[test]
        fn any_command_is_survived(command in "(kubectl |k |sudo |-n |-- |=|\\PC){0,20}") {
            let parsed = Kubectl::parse(&command);
            let _ = parsed.map(|k| (k.pod(), k.lists()));
        }
    }
}
