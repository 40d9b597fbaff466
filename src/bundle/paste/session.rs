//! Where a command of a paste was typed: on which node, or in which Pod.

use super::super::{Bundle, objects::identity::is_subdomain, one_offs};
use crate::formats::text::{
    kubectl::{Kubectl, Target},
    paste::Section,
};

/// What makes the root directory of a node that of a program, in a Pod of `kubectl debug node/NAME`.
const CHROOT: &str = "chroot /host";

/// Shells in which more commands follow.
const SHELLS: [&str; 5] = ["sh", "bash", "ash", "zsh", "dash"];

/// Where a command was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    host: Host<'a>,
    /// The command that ran there, where it is not the one behind the prompt.
    pub command: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host<'a> {
    /// A Pod; without a namespace, in that of the paste.
    Pod {
        namespace: Option<&'a str>,
        name: &'a str,
    },
    /// A Pod that was made for the command, of which no list need tell.
    OneOff {
        namespace: Option<&'a str>,
        name: &'a str,
        labels: Option<&'a str>,
    },
    Node {
        name: &'a str,
        /// Whether programs are those of the node, and not of an image.
        is_chrooted: bool,
    },
    /// Whatever a prompt names: a node, a Pod, or somebody's own machine.
    Named(&'a str),
}

impl<'a> Host<'a> {
    /// Where kubectl runs a program. Of a Pod that it makes, `unnamed` is the namespace where the command names none.
    fn of(kubectl: &Kubectl<'a>, unnamed: Option<&'a str>) -> Option<Self> {
        let namespace = kubectl.namespace;
        Some(match kubectl.target()? {
            Target::Pod(name) => Self::Pod { namespace, name },
            Target::OneOff { name, labels } => Self::OneOff {
                namespace: namespace.or(unnamed),
                name,
                labels,
            },
            Target::Node(name) => Self::Node {
                name,
                is_chrooted: kubectl.runs.is_some_and(|runs| runs.starts_with(CHROOT)),
            },
        })
    }
}

impl Place<'_> {
    /// Whose directory of a bundle it is; None where nothing shows that there is such a Node or Pod. Nobody is blamed for
    /// what somebody's own machine cannot reach.
    pub(super) fn directory(&self, bundle: &Bundle) -> Option<String> {
        let is_node = |name: &str| bundle.inventory.has_node(name) || bundle.tables.nodes.contains_key(name);
        let pod = |namespace: &str, name: &str| {
            let is_there = bundle.inventory.has_pod(namespace, name);
            is_there.then(|| format!("pods/{namespace}/{name}"))
        };
        match self.host {
            Host::Pod { namespace, name } => pod(namespace.unwrap_or_else(|| bundle.home()), name),
            // That it was there is shown by what it printed.
            Host::OneOff { namespace, name, .. } => {
                let namespace = namespace.filter(|namespace| is_subdomain(namespace))?;
                is_subdomain(name).then(|| format!("pods/{namespace}/{name}"))
            }
            Host::Node { name, .. } => is_node(name).then(|| format!("nodes/{name}")),
            Host::Named(name) if is_node(name) => Some(format!("nodes/{name}")),
            Host::Named(name) => pod(bundle.home(), name),
        }
    }

    /// Whether its programs come from an image, although it is a node.
    pub(super) fn has_programs_of_an_image(&self) -> bool {
        matches!(
            self.host,
            Host::Node {
                is_chrooted: false,
                ..
            }
        )
    }

    /// Adds the Pod to what is known, if it was made for the command. Returns false where it cannot be told from another one.
    pub(super) fn note(&self, bundle: &mut Bundle) -> bool {
        match self.host {
            Host::OneOff {
                namespace: Some(namespace),
                name,
                labels,
            } => one_offs::note(bundle, namespace, name, labels),
            _ => true,
        }
    }

    /// Why nothing of it is used, where it has no directory.
    pub(super) fn why_nowhere(&self) -> String {
        match self.host {
            Host::OneOff { namespace: None, .. } => {
                "it does not say in which namespace it ran, and other commands do; repeat it with -n"
                    .to_owned()
            }
            _ => format!("the paste does not show that there is {}", self.describe()),
        }
    }

    fn describe(&self) -> String {
        match self.host {
            Host::Pod { namespace, name } | Host::OneOff { namespace, name, .. } => match namespace {
                Some(namespace) => format!("Pod {namespace}/{name}"),
                None => format!("Pod {name}"),
            },
            Host::Node { name, .. } => format!("a Node {name}"),
            Host::Named(name) => format!("a Node or Pod {name}"),
        }
    }
}

/// A shell in a Pod, into which somebody types.
#[derive(Clone, Copy, Debug)]
struct Shell<'a> {
    host: Host<'a>,
    /// The prompt behind which it was started: when it is back, the shell has ended.
    outside: &'a str,
}

/// Follows the shells that are started and left.
#[derive(Debug, Default)]
pub(super) struct Sessions<'a> {
    shell: Option<Shell<'a>>,
    /// The namespace of a Pod that kubectl made without being told one, if that can be known.
    unnamed: Option<&'a str>,
}

impl<'a> Sessions<'a> {
    pub(super) fn new(unnamed: Option<&'a str>) -> Self {
        Self { shell: None, unnamed }
    }

    /// Where the command of a section was typed, if that can be known.
    pub(super) fn place(&mut self, section: &Section<'a>) -> Option<Place<'a>> {
        let (command, prompt) = (section.command?, section.prompt.unwrap_or_default());
        if let Some(kubectl) = Kubectl::parse(command) {
            self.shell = None;
            let host = Host::of(&kubectl, self.unnamed)?;
            let is_shell = starts_shell(&kubectl);
            self.shell = is_shell.then_some(Shell {
                host,
                outside: prompt,
            });
            let runs = kubectl.runs.filter(|_| !is_shell)?;
            return Some(Place {
                host,
                // The image knows its program: `kubectl run curl --image=curlimages/curl -- -m 5 URL`.
                command: Some(match runs.starts_with('-') || is_url(runs) {
                    true => command,
                    false => without_chroot(runs),
                }),
            });
        }
        if command == "exit" || self.shell.is_some_and(|shell| shell.outside == prompt) {
            self.shell = None;
        }
        if let Some(Host::Node { is_chrooted, .. }) = self.shell.as_mut().map(|shell| &mut shell.host) {
            *is_chrooted |= command.starts_with(CHROOT);
        }
        let host = match self.shell {
            Some(shell) => shell.host,
            None => Host::Named(host_of(prompt)?),
        };
        Some(Place { host, command: None })
    }
}

/// Whether kubectl starts a shell, into which commands are typed.
pub(super) fn starts_shell(kubectl: &Kubectl<'_>) -> bool {
    let is_alone = || matches!(kubectl.verb, "run" | "debug") && kubectl.is_interactive();
    match kubectl.runs.map(without_chroot) {
        None => is_alone(),
        Some(runs) => runs.is_empty() || SHELLS.contains(&base(runs)),
    }
}

/// What runs in the root directory of a node, as `kubectl debug node/NAME` has it.
fn without_chroot(command: &str) -> &str {
    command.strip_prefix(CHROOT).map_or(command, str::trim_start)
}

fn is_url(command: &str) -> bool {
    let first = command.split_whitespace().next();
    first.is_some_and(|word| word.contains("://"))
}

/// The host in a prompt: `root@n1:~#`, `[root@n1 ~]#`, `me@n1 ~ %`.
fn host_of(prompt: &str) -> Option<&str> {
    let (_, behind) = prompt.split_once('@')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let end = behind.find(|c| !is_name(c)).unwrap_or(behind.len());
    behind.get(..end).filter(|host| !host.is_empty())
}

/// The whole command as one word, with no more than flags for a shell behind it.
fn base(command: &str) -> &str {
    let mut words = command.split_whitespace();
    let first = words.next().unwrap_or_default();
    match words.all(|word| matches!(word, "-i" | "-l" | "-il" | "-li" | "--login")) {
        true => first.rsplit('/').next().unwrap_or(first),
        false => "",
    }
}

/// How the output of a command is named as a file of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name<'a> {
    /// The beginning of the name, which says what it is.
    pub stem: &'a str,
    /// Its ending.
    pub ending: &'static str,
    /// Whether it holds the answer alone, without the command.
    pub is_answer: bool,
}

/// The name that a file with the output of a command has in a bundle. What is not known gets a name that says nothing, so that
/// its beginning is not taken for another program's: `ssh` is no `ss`.
pub(super) fn file_name(command: &str) -> Name<'_> {
    let words: Vec<&str> = command.split_whitespace().filter(|w| *w != "sudo").collect();
    let program = words.first().map_or("", |w| w.rsplit('/').next().unwrap_or(w));
    let rest = words.get(1..).unwrap_or_default();
    let has = |part: &str| rest.iter().any(|word| word.contains(part));
    let flag = |letter: char| {
        let mut flags = rest
            .iter()
            .filter(|word| word.starts_with('-') && !word.starts_with("--"));
        flags.any(|word| word.contains(letter))
    };
    let named = |stem| Name {
        stem,
        ending: "txt",
        is_answer: false,
    };
    let answer = |stem| Name {
        is_answer: true,
        ..named(stem)
    };
    match program {
        "curl" | "wget" if has("/proxyMode") => answer("proxymode"),
        "curl" | "wget" if has(":10256/") => answer("livez"),
        "cat" if has("/kubelet/config") => answer("kubelet-config"),
        "cat" => named(
            rest.first()
                .map_or("cat", |path| plain(path.rsplit('/').next().unwrap_or(path))),
        ),
        "bridge" => named("bridge-link"),
        "ip" if is_routes(rest) => named("ip-route"),
        "route" if is_all_routes(rest) => named("route"),
        "netstat" if flag('r') || has("--route") => match is_all_routes(rest) {
            true => named("netstat-r"),
            false => named("command"),
        },
        "ip" if matches!(rest, [.., "link"] | ["-d", "link", ..]) => named("ip-d-link"),
        "ip" if is_addresses(rest) => named("ip-link"),
        // A rule of one chain says nothing of the others, nor does one table of the others.
        "iptables" | "iptables-nft" | "iptables-legacy"
            if rest == ["-t", "nat", "-S"] || rest == ["-S", "-t", "nat"] =>
        {
            named("iptables-save")
        }
        "iptables" | "iptables-nft" | "iptables-legacy" if flag('L') || has("--list") => named("iptables-L"),
        "journalctl" if has("kube-proxy") => answer("kube-proxy.log"),
        "journalctl" if has("kubelet") => answer("kubelet.log"),
        "journalctl" if flag('k') || has("--dmesg") => named("journalctl-k"),
        "docker" | "crictl" | "nerdctl" if rest.first() == Some(&"logs") && has("kube-proxy") => {
            answer("kube-proxy.log")
        }
        "nft" if flag('j') || has("--json") => Name {
            ending: "json",
            ..answer("nft")
        },
        "ps"
        | "sysctl"
        | "conntrack"
        | "nslookup"
        | "dig"
        | "curl"
        | "wget"
        | "nc"
        | "ncat"
        | "telnet"
        | "ss"
        | "netstat"
        | "dmesg"
        | "ifconfig"
        | "nft"
        | "ipvsadm"
        | "ipset"
        | "ethtool"
        | "iptables-save"
        | "ip6tables-save"
        | "iptables-nft-save"
        | "iptables-legacy-save" => named(program),
        _ => named("command"),
    }
}

/// `ip route`, `ip -4 r show`: the main table, and no single route.
fn is_routes(words: &[&str]) -> bool {
    let words: Vec<&str> = without_flags(words);
    matches!(
        words.as_slice(),
        ["r" | "ro" | "route"] | ["r" | "ro" | "route", "show" | "list" | "ls" | "s"]
    )
}

/// `ip addr`, `ip -4 a show`: of it the links are read.
fn is_addresses(words: &[&str]) -> bool {
    let words: Vec<&str> = without_flags(words);
    matches!(
        words.as_slice(),
        ["a" | "ad" | "addr" | "address"] | ["a" | "ad" | "addr" | "address", "show" | "list" | "ls" | "s"]
    )
}

fn without_flags<'a>(words: &[&'a str]) -> Vec<&'a str> {
    words
        .iter()
        .filter(|word| !word.starts_with('-'))
        .copied()
        .collect()
}

/// `route -n`, `netstat -rn`: a table, and no part of it.
fn is_all_routes(flags: &[&str]) -> bool {
    const LONG: [&str; 3] = ["--numeric", "--route", "--inet"];
    let is_short = |word: &str| {
        let letters = word.strip_prefix('-');
        letters.is_some_and(|l| l.bytes().all(|b| b"rnevN46".contains(&b)))
    };
    flags.iter().all(|word| is_short(word) || LONG.contains(word))
}

/// A file's name, if it is a plain one.
fn plain(name: &str) -> &str {
    let is_fit = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    match !name.is_empty() && name.len() <= 40 && name.bytes().all(is_fit) {
        true => name,
        false => "cat",
    }
}
