//! kube-proxy and its replacements on a node, by their processes.
//!
//! A product that can replace kube-proxy does so only if it is configured to: its flags, its configuration or its
//! links in the node's network show that. If none of these can be read, it may replace kube-proxy.

use std::{fs, io, path::Path};

use super::super::pods;
use svcdiag_api::RunsAs;
use svcdiag_formats::programs::{Role, is_cilium_told, replaces, role};
use svcdiag_netns::{Netns, procfs, rootfs};

/// Processes of the node that serve Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// kube-proxy itself, or the program that embeds it.
    pub kube_proxy: Option<String>,
    /// What replaces it.
    pub replacement: Option<String>,
    /// How kube-proxy is run.
    pub runs_as: Option<RunsAs>,
    /// Its systemd unit, if it does not run in a Pod.
    pub unit: Option<String>,
    /// The name under which it looks for its Node, if that is known.
    pub node_name: Option<String>,
    /// PID of kube-proxy.
    pub(super) pid: Option<i32>,
}

impl Processes {
    /// Whether the process is still kube-proxy and in the node's network namespace.
    pub(super) fn still_run(&self, node: &Netns) -> bool {
        self.pid.is_some_and(|pid| {
            let program = Arguments::of(pid).and_then(|a| a.program().map(str::to_owned));
            program == self.kube_proxy && node.has_process(pid)
        })
    }
}

/// Finds processes in the node's network namespace: one in another namespace serves another node.
///
/// # Errors
/// When /proc cannot be read.
pub fn processes(node: &Netns) -> io::Result<Processes> {
    let mut found = Processes::default();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Arguments are in the memory of the process: they are not read from Pods with their own network.
        if !node.has_process(pid) {
            continue;
        }
        let Some(arguments) = Arguments::of(pid) else {
            continue;
        };
        let Some((program, role)) = arguments.program().and_then(|p| Some((p, role(p)?))) else {
            continue;
        };
        match role {
            Role::Replacement(name) => {
                if does_replace(name, pid, &arguments) {
                    found.replacement = Some(name.to_owned());
                }
            }
            Role::KubeProxy | Role::Carrier => {
                (found.runs_as, found.unit) = how_it_is_run(pid);
                found.node_name = node_name(pid, &arguments, role);
                found.kube_proxy = Some(program.to_owned());
                found.pid = Some(pid);
            }
        }
    }
    Ok(found)
}

/// The arguments of a process.
struct Arguments(Vec<String>);

impl Arguments {
    fn of(pid: i32) -> Option<Self> {
        procfs::arguments(pid).ok().map(|text| Self::parse(&text))
    }

    /// From the text of /proc/PID/cmdline.
    fn parse(text: &[u8]) -> Self {
        let words = text.split(|byte| *byte == 0);
        Self(
            words
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
        )
    }

    /// Name of the program without directories.
    fn program(&self) -> Option<&str> {
        let name = self.0.first()?.rsplit('/').next()?;
        (!name.is_empty()).then_some(name)
    }

    /// The value of a flag: `--name=value` or `--name value`, with one dash or two; the last one counts.
    fn flag(&self, name: &str) -> Option<&str> {
        let words = self.0.iter().enumerate().skip(1).rev();
        words
            .filter_map(|(at, word)| {
                let flag = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
                match flag.split_once('=') {
                    Some((flag, value)) => (flag == name).then_some(value),
                    None if flag == name => {
                        let next = self.0.get(at + 1).map(String::as_str);
                        Some(next.filter(|word| !word.starts_with('-')).unwrap_or_default())
                    }
                    None => None,
                }
            })
            .next()
    }

    fn has(&self, word: &str) -> bool {
        self.0.iter().any(|known| known == word)
    }
}

/// Whether a product that can replace kube-proxy does so on this node.
fn does_replace(name: &str, pid: i32, arguments: &Arguments) -> bool {
    match name {
        "calico" => arguments.has("-felix") && has_link(pid, "bpfin.cali"),
        "antrea" => {
            let path = arguments
                .flag("config")
                .filter(|path| !path.is_empty())
                .unwrap_or("/etc/antrea/antrea-agent.conf");
            rootfs::read(pid, path).map_or(true, |text| proxies_all(&text))
        }
        "cilium" if arguments.flag("kube-proxy-replacement").is_none() => {
            // One file per option; without the file, the option is off.
            arguments.flag("config-dir").is_none_or(|directory| {
                let option = Path::new(directory).join("kube-proxy-replacement");
                match rootfs::read(pid, &option.to_string_lossy()) {
                    Ok(value) => is_cilium_told(&value).unwrap_or(true),
                    // We may be unable to see the directory itself.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        let another = Path::new(directory).join("cluster-name");
                        rootfs::read(pid, &another.to_string_lossy()).is_err()
                    }
                    Err(_) => true,
                }
            })
        }
        _ => replaces(name, |flag| arguments.flag(flag)).unwrap_or(true),
    }
}

/// Whether the network namespace of a process has a link of this name. Felix creates a link pair for its BPF
/// programs, and removes it when they are off.
fn has_link(pid: i32, name: &str) -> bool {
    let mut has = false;
    let read = procfs::lines(pid, "net/dev", |line| {
        has |= line.split_once(':').is_some_and(|(link, _)| link.trim() == name);
    });
    read.is_ok() && has
}

/// Whether the configuration of antrea-agent has `proxyAll: true`.
fn proxies_all(configuration: &str) -> bool {
    value_of(configuration, "proxyAll").is_some_and(|value| value == "true")
}

/// The value of a key anywhere in a YAML configuration, unless it is in a comment.
fn value_of<'a>(configuration: &'a str, key: &str) -> Option<&'a str> {
    configuration.lines().find_map(|line| {
        let value = line.trim().strip_prefix(key)?.strip_prefix(':')?;
        let value = value.split(" #").next()?.trim();
        Some(value.trim_matches(['"', '\'']))
    })
}

/// The name under which kube-proxy looks for its Node: the one that it was told, else the host name. Programs that carry
/// kube-proxy tell it.
fn node_name(pid: i32, arguments: &Arguments, role: Role) -> Option<String> {
    let told = told_name(arguments, |path| rootfs::read(pid, path).ok())?;
    let name = match told.is_empty() {
        false => told,
        true if role == Role::KubeProxy => procfs::shared_host_name(pid).ok()??,
        true => return None,
    };
    // kube-proxy normalises the name in the same way.
    Some(name.trim().to_lowercase()).filter(|name| !name.is_empty())
}

/// The name that kube-proxy was told, empty if it was told none; None if its configuration cannot be read.
fn told_name(arguments: &Arguments, read: impl FnOnce(&str) -> Option<String>) -> Option<String> {
    if let Some(flag) = arguments
        .flag("hostname-override")
        .filter(|name| !name.is_empty())
    {
        return Some(flag.to_owned());
    }
    let Some(path) = arguments.flag("config") else {
        return Some(String::new());
    };
    let configuration = read(path)?;
    match value_of(&configuration, "hostnameOverride") {
        Some("null" | "~") => Some(String::new()),
        Some(name) => Some(name.to_owned()),
        // In a form that is not read here, as JSON.
        None if configuration.contains("hostnameOverride") => None,
        None => Some(String::new()),
    }
}

/// How a process is run, by its cgroup, and its systemd unit.
fn how_it_is_run(pid: i32) -> (Option<RunsAs>, Option<String>) {
    match procfs::cgroups(pid) {
        Ok(text) => of_cgroup(&text),
        Err(_) => (None, None),
    }
}

fn of_cgroup(text: &str) -> (Option<RunsAs>, Option<String>) {
    if let Some(uid) = text.lines().find_map(pods::pod_uid) {
        // The hash of a manifest has no dashes.
        let runs_as = if uid.contains('-') {
            RunsAs::Pod
        } else {
            RunsAs::StaticPod
        };
        return (Some(runs_as), None);
    }
    let plain = |name: &str| {
        name.chars()
            .all(|c| c.is_ascii_alphanumeric() || "@._-".contains(c))
    };
    let unit = text
        .lines()
        .flat_map(|line| line.split('/'))
        .find(|part| part.ends_with(".service") && part.len() <= 128 && plain(part));
    (unit.map(|_| RunsAs::Unit), unit.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Arguments {
        Arguments::parse(line.replace(' ', "\0").as_bytes())
    }

    #[test]
    fn flags_are_read_in_all_their_forms() {
        let of = arguments("/usr/bin/kube-proxy --v=2 --hostname-override worker-1 -config=/a --cleanup");
        assert_eq!(of.program(), Some("kube-proxy"));
        assert_eq!(of.flag("hostname-override"), Some("worker-1"));
        assert_eq!(of.flag("config"), Some("/a"));
        assert_eq!(of.flag("cleanup"), Some(""));
        assert_eq!(of.flag("mode"), None);
        assert_eq!(arguments("").program(), None);
    }

    #[test]
    fn a_product_replaces_kube_proxy_where_it_was_told_to() {
        let told = |line: &str| {
            let of = arguments(line);
            let Some(Role::Replacement(name)) = of.program().and_then(role) else {
                return None;
            };
            Some(does_replace(name, 0, &of))
        };
        assert_eq!(told("cilium-agent --kube-proxy-replacement=true"), Some(true));
        assert_eq!(told("cilium-agent --kube-proxy-replacement=strict"), Some(true));
        assert_eq!(told("cilium-agent --kube-proxy-replacement=false"), Some(false));
        assert_eq!(
            told("cilium-agent --kube-proxy-replacement=disabled"),
            Some(false)
        );
        assert_eq!(
            told("cilium-agent --kube-proxy-replacement=partial"),
            Some(true),
            "not known"
        );
        assert_eq!(told("cilium-agent"), Some(true), "not known");
        assert_eq!(told("kube-router --run-router=true"), Some(true));
        assert_eq!(told("kube-router --run-service-proxy=false"), Some(false));
        assert_eq!(told("calico-node -felix"), Some(false), "no link of its own");
        assert_eq!(told("/usr/bin/ovnkube --init-node n1"), Some(true));
        assert_eq!(told("kube-proxy"), None);
    }

    #[test]
    fn configurations_are_read_without_their_comments() {
        assert!(proxies_all("antreaProxy:\n  enable: true\n  proxyAll: true\n"));
        assert!(!proxies_all(
            "antreaProxy:\n#  proxyAll: true\n  proxyAll: false # default\n"
        ));
        assert!(!proxies_all(""));
        assert_eq!(
            value_of("hostnameOverride: \"n1\"\n", "hostnameOverride"),
            Some("n1")
        );
    }

    #[test]
    fn the_name_of_the_node_is_the_one_that_kube_proxy_was_told() {
        let told = |line: &str, file: Option<&str>| told_name(&arguments(line), |_| file.map(str::to_owned));
        assert_eq!(
            told("kube-proxy --hostname-override=n1", None).as_deref(),
            Some("n1")
        );
        let of_file = |text: &str| told("kube-proxy --config=/a", Some(text));
        assert_eq!(of_file("hostnameOverride: n2\n").as_deref(), Some("n2"));
        assert_eq!(of_file("hostnameOverride: \"\"\n").as_deref(), Some(""));
        assert_eq!(of_file("hostnameOverride: null\n").as_deref(), Some(""));
        assert_eq!(of_file("{\"hostnameOverride\": \"n2\"}\n"), None);
        assert_eq!(of_file("mode: nftables\n").as_deref(), Some(""));
        assert_eq!(told("kube-proxy --v=2", None).as_deref(), Some(""));
        // What it was told is in a file that cannot be read.
        assert_eq!(told("kube-proxy --config=/a", None), None);
    }

    #[test]
    fn a_cgroup_tells_how_a_process_is_run() {
        let pod = "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b9c6c0a_32f1_4f6e_9a0f_1d2c3b4a5968.slice/cri-containerd-1.scope";
        assert_eq!(of_cgroup(pod), (Some(RunsAs::Pod), None));
        let hash = "0::/kubepods/besteffort/pod0123456789abcdef0123456789abcdef/1";
        assert_eq!(of_cgroup(hash), (Some(RunsAs::StaticPod), None));
        let unit = "12:cpu:/system.slice/k3s-agent.service\n0::/system.slice/k3s-agent.service\n";
        assert_eq!(
            of_cgroup(unit),
            (Some(RunsAs::Unit), Some("k3s-agent.service".to_owned()))
        );
        assert_eq!(of_cgroup("0::/system.slice/a;b.service"), (None, None));
        assert_eq!(of_cgroup("0::/user.slice/session-1.scope"), (None, None));
    }
}
