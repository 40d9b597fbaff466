//! kube-proxy on the node: whether its process is there, whether it lives, whether it keeps up.
//!
//! All NodeProbes of the node share one [`Watch`], so that kube-proxy is asked a few times a minute,
//! however many they are.
//!
//! Source: kube-proxy's pkg/proxy/healthcheck and pkg/proxy/metrics.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    http::{Got, get},
    netns::Netns,
};
use crate::api::PortState;

/// Port of livez and healthz.
const HEALTH_PORT: u16 = 10256;
/// Port of proxyMode and metrics.
const METRICS_PORT: u16 = 10249;

/// kube-proxy that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(3);

/// A difference between two looks means something only after this time.
pub const BETWEEN_LOOKS: Duration = Duration::from_secs(10);

/// So long a look is good for all NodeProbes.
pub const LOOK_LASTS: Duration = Duration::from_secs(5);

/// What was seen of kube-proxy in the last seconds.
#[derive(Debug, Default)]
pub struct Watch(tokio::sync::Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The last look, when it began, and what came of it.
    last: Option<(Instant, State)>,
    /// Looks to compare with: the last one that is long enough ago, and those since.
    looks: VecDeque<Look>,
    /// Since when it has not been well, in every look.
    ill_since: Option<Instant>,
}

/// kube-proxy at a moment.
#[derive(Clone, Debug)]
pub struct State {
    /// What it answered.
    pub look: Look,
    /// What has happened since a look some time before; nothing where there is none to compare with.
    pub lag: Lag,
    /// Its processes; the error in words where they could not be listed.
    pub processes: Result<Processes, String>,
    /// Since when it has not been well, in every look. It may only be starting anew, or late once.
    pub ill_since: Option<Instant>,
}

impl Watch {
    /// kube-proxy as it was at a moment, or later.
    pub async fn state(&self, node: &Netns, not_before: Instant) -> State {
        // Whoever comes while somebody looks takes what that one sees, if it is new enough.
        let mut seen = self.0.lock().await;
        if let Some((_, state)) = seen.last.as_ref().filter(|(begun, _)| *begun >= not_before) {
            return state.clone();
        }
        let begun = Instant::now();
        let look = look(node).await;
        let processes = seen.processes(node).map_err(|error| error.to_string());
        let is_ill = look.is_ill(processes.as_ref().ok());
        seen.ill_since = is_ill.then(|| seen.ill_since.unwrap_or(begun));
        let state = State {
            lag: seen.compare(&look),
            look,
            processes,
            ill_since: seen.ill_since,
        };
        seen.last = Some((begun, state.clone()));
        state
    }
}

impl Seen {
    /// All processes are gone through only where kube-proxy is not where it was.
    fn processes(&self, node: &Netns) -> io::Result<Processes> {
        let known = self
            .last
            .as_ref()
            .and_then(|(_, last)| last.processes.as_ref().ok());
        match known.filter(|known| known.still_run(node)) {
            Some(known) => Ok(known.clone()),
            None => processes(node),
        }
    }

    /// Compares a look with the last one that is long enough ago, and keeps it for later ones.
    fn compare(&mut self, look: &Look) -> Lag {
        let is_old = |earlier: &Look| look.at.duration_since(earlier.at) >= BETWEEN_LOOKS;
        while self.looks.get(1).is_some_and(is_old) {
            self.looks.pop_front();
        }
        let lag = self.looks.front().and_then(|earlier| look.since(earlier));
        // However fast looks follow one another, those to compare with stay few.
        let is_apart = |last: &Look| look.at.duration_since(last.at) >= LOOK_LASTS;
        if self.looks.back().is_none_or(is_apart) {
            self.looks.push_back(look.clone());
        }
        lag.unwrap_or_default()
    }
}

/// A look at kube-proxy.
#[derive(Clone, Debug)]
pub struct Look {
    /// When.
    pub at: Instant,
    /// What livez said.
    pub livez: PortState,
    /// Whether anybody listens on the port of the metrics.
    pub metrics_port: PortState,
    /// The mode it says it is in.
    pub mode: Option<String>,
    /// Its counters; none where the metrics could not be had.
    pub metrics: Option<Metrics>,
}

/// Counters of kube-proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// The writing of rules, by the label of the IP family: each has a proxy of its own, and what is asked of
    /// one of them the other never does.
    pub writing: BTreeMap<String, Writing>,
    /// Requests to the API server that failed: no answer, 401 or 403.
    pub requests_failed: f64,
    /// Requests to the API server that were answered.
    pub requests_answered: f64,
}

/// When rules were asked for and written, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Writing {
    /// When rules were last written.
    pub applied: Option<f64>,
    /// When writing was last asked for.
    pub queued: Option<f64>,
}

impl Writing {
    fn waits(&self) -> bool {
        matches!((self.queued, self.applied), (Some(queued), Some(applied)) if queued > applied)
    }
}

/// What two looks say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Changes wait, and nothing was written in between.
    pub not_syncing: bool,
    /// Requests to the API server failed in between, and none was answered.
    pub api_unreachable: bool,
}

/// Looks at kube-proxy from the node's network namespace.
pub async fn look(node: &Netns) -> Look {
    let livez = ask(node, HEALTH_PORT, "/livez").await;
    let mode = ask(node, METRICS_PORT, "/proxyMode").await;
    let metrics = match &mode {
        Got::Answer(200, _) => ask(node, METRICS_PORT, "/metrics").await,
        _ => Got::Silent,
    };
    Look {
        at: Instant::now(),
        livez: state(&livez),
        metrics_port: state(&mode),
        mode: match mode {
            Got::Answer(200, body) => Some(body.trim().to_owned()).filter(|m| is_mode(m)),
            _ => None,
        },
        metrics: match metrics {
            Got::Answer(200, body) => Some(Metrics::parse(&body)),
            _ => None,
        },
    }
}

fn is_mode(text: &str) -> bool {
    ["iptables", "nftables", "ipvs", "userspace", "kernelspace"].contains(&text)
}

impl Look {
    /// Whether kube-proxy says that it is not well, says nothing, or is not there; one look proves nothing.
    fn is_ill(&self, processes: Option<&Processes>) -> bool {
        let is_away = processes.is_some_and(|p| p.kube_proxy.is_none() && p.replacement.is_none());
        match self.livez {
            PortState::Silent | PortState::Failing => true,
            PortState::Closed => is_away && self.metrics_port == PortState::Closed,
            PortState::Ok => false,
        }
    }

    /// What has happened since an earlier look; nothing is said before enough time has passed.
    #[must_use]
    pub fn since(&self, earlier: &Look) -> Option<Lag> {
        (self.at.duration_since(earlier.at) >= BETWEEN_LOOKS).then_some(())?;
        let (new, old) = (self.metrics.as_ref()?, earlier.metrics.as_ref()?);
        let hangs = |(family, new): (&String, &Writing)| {
            let old = old.writing.get(family);
            old.is_some_and(|old| new.waits() && old.waits() && new.applied == old.applied)
        };
        Some(Lag {
            not_syncing: new.writing.iter().any(hangs),
            api_unreachable: new.requests_failed > old.requests_failed
                && new.requests_answered <= old.requests_answered,
        })
    }
}

/// What an answer says of the port. A server that does not know the path (kube-proxy before 1.28 has no livez)
/// does not say that anything is wrong.
fn state(got: &Got) -> PortState {
    match got {
        Got::Answer(500..=599, _) => PortState::Failing,
        Got::Answer(..) => PortState::Ok,
        Got::Silent | Got::Reset | Got::Garbled => PortState::Silent,
        Got::NotConnected(_) => PortState::Closed,
    }
}

async fn ask(node: &Netns, port: u16, path: &str) -> Got {
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    get(node, target, path, PATIENCE).await
}

impl Metrics {
    /// Reads what is needed of the Prometheus text format. The label ip_family came with Kubernetes 1.33.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse::<f64>() else {
                continue;
            };
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            match name {
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds" => {
                    metrics.writing.entry(labels.to_owned()).or_default().applied = Some(value);
                }
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds" => {
                    metrics.writing.entry(labels.to_owned()).or_default().queued = Some(value);
                }
                "rest_client_requests_total" => {
                    let failed = ["code=\"<error>\"", "code=\"401\"", "code=\"403\""];
                    if failed.iter().any(|code| labels.contains(code)) {
                        metrics.requests_failed += value;
                    } else {
                        metrics.requests_answered += value;
                    }
                }
                _ => {}
            }
        }
        metrics
    }
}

/// Programs that run kube-proxy inside their own process.
const CARRIERS: [&str; 4] = ["k3s", "rke2", "kubelite", "k0s"];

/// Programs that do kube-proxy's work in its stead.
const REPLACEMENTS: [(&str, &str); 3] = [
    ("cilium-agent", "cilium"),
    ("ovnkube", "ovn-kubernetes"),
    ("kube-router", "kube-router"),
];

/// What a program is to the node's Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// kube-proxy.
    KubeProxy,
    /// It runs kube-proxy inside its own process.
    Carrier,
    /// It does kube-proxy's work in its stead, under this name.
    Replacement(&'static str),
}

/// The role of a program, by its name without folders.
#[must_use]
pub fn role(program: &str) -> Option<Role> {
    if program == "kube-proxy" {
        return Some(Role::KubeProxy);
    }
    if CARRIERS.contains(&program) {
        return Some(Role::Carrier);
    }
    let (_, name) = REPLACEMENTS.iter().find(|(known, _)| *known == program)?;
    Some(Role::Replacement(name))
}

/// Processes of the node that bear on Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// kube-proxy itself, or the program that carries it.
    pub kube_proxy: Option<String>,
    /// What does its work in its stead.
    pub replacement: Option<String>,
    /// The number of kube-proxy's process.
    pid: Option<i32>,
}

impl Processes {
    /// Whether kube-proxy's process is still the same program in the node's network namespace.
    fn still_run(&self, node: &Netns) -> bool {
        self.pid.is_some_and(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            program(&arguments) == self.kube_proxy && Netns::of_process(pid).is_ok_and(|netns| netns == *node)
        })
    }
}

/// Looks for processes in the node's network namespace: one in another namespace serves another node.
///
/// # Errors
/// When /proc cannot be read.
pub fn processes(node: &Netns) -> io::Result<Processes> {
    let mut found = Processes::default();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(arguments) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let Some(program) = program(&arguments) else {
            continue;
        };
        let Some(role) = role(&program) else {
            continue;
        };
        if Netns::of_process(pid).is_ok_and(|netns| netns == *node) {
            match role {
                Role::Replacement(name) => found.replacement = Some(name.to_owned()),
                Role::KubeProxy | Role::Carrier => {
                    found.kube_proxy = Some(program);
                    found.pid = Some(pid);
                }
            }
        }
    }
    Ok(found)
}

/// Name of the program in the text of /proc/PID/cmdline.
fn program(arguments: &[u8]) -> Option<String> {
    let first = arguments.split(|byte| *byte == 0).next()?;
    let name = first.rsplit(|byte| *byte == b'/').next()?;
    String::from_utf8(name.to_vec())
        .ok()
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge\n\
        kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} 1.764000000e+09\n\
        kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv6\"} 1.763999999e+09\n\
        kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv4\"} 1.764000005e+09\n\
        kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv6\"} 1.763999998e+09\n\
        rest_client_requests_total{code=\"200\",host=\"a\",method=\"GET\"} 7\n\
        rest_client_requests_total{code=\"<error>\",host=\"a\",method=\"GET\"} 2\n\
        rest_client_requests_total{code=\"401\",host=\"a\",method=\"GET\"} 1\n";

    fn look(metrics: Metrics, at: Instant) -> Look {
        Look {
            at,
            livez: PortState::Ok,
            metrics_port: PortState::Ok,
            mode: None,
            metrics: Some(metrics),
        }
    }

    fn writing(applied: f64, queued: f64) -> Writing {
        Writing {
            applied: Some(applied),
            queued: Some(queued),
        }
    }

    /// Metrics in which each family has written rules once, and was last asked for them at a time.
    fn asked(v4: (f64, f64), v6: (f64, f64)) -> Metrics {
        let of = |family: &str, (applied, queued)| (family.to_owned(), writing(applied, queued));
        Metrics {
            writing: [of("IPv4", v4), of("IPv6", v6)].into(),
            ..Metrics::default()
        }
    }

    #[test]
    fn metrics_are_read_with_and_without_the_family() {
        let metrics = Metrics::parse(TEXT);
        let families: Vec<Writing> = metrics.writing.values().copied().collect();
        assert_eq!(
            families,
            [
                writing(1_764_000_000.0, 1_764_000_005.0),
                writing(1_763_999_999.0, 1_763_999_998.0)
            ]
        );
        let old = TEXT
            .replace("{ip_family=\"IPv4\"}", "")
            .replace("{ip_family=\"IPv6\"}", "");
        let families = Metrics::parse(&old).writing;
        assert_eq!(families.get(""), Some(&writing(1_763_999_999.0, 1_763_999_998.0)));
        assert!((metrics.requests_failed - 3.0).abs() < f64::EPSILON);
        assert!((metrics.requests_answered - 7.0).abs() < f64::EPSILON);
    }

    #[test]
    fn lag_takes_two_looks_without_a_write_in_between() {
        let start = Instant::now();
        let behind = Metrics::parse(TEXT);
        let later = start + BETWEEN_LOOKS;
        let lag = |new: Metrics, at| look(new, at).since(&look(behind.clone(), start));
        assert_eq!(lag(behind.clone(), start + BETWEEN_LOOKS / 2), None);
        assert_eq!(lag(behind.clone(), later).map(|l| l.not_syncing), Some(true));
        let mut wrote = behind.clone();
        wrote
            .writing
            .values_mut()
            .for_each(|w| w.applied = Some(1_764_000_004.0));
        assert_eq!(lag(wrote, later).map(|l| l.not_syncing), Some(false));
        let mut failing = behind.clone();
        failing.requests_failed += 4.0;
        assert_eq!(lag(failing.clone(), later).map(|l| l.api_unreachable), Some(true));
        failing.requests_answered += 1.0;
        assert_eq!(lag(failing, later).map(|l| l.api_unreachable), Some(false));
    }

    #[test]
    fn a_family_that_has_nothing_to_write_is_not_late() {
        let start = Instant::now();
        let is_late = |old: Metrics, new: Metrics| {
            let lag = look(new, start + BETWEEN_LOOKS).since(&look(old, start));
            lag.unwrap().not_syncing
        };
        // An endpoint of IPv4 has come; nothing was asked of IPv6 since its last rules.
        let well = asked((100.2, 100.0), (50.1, 50.0));
        assert!(!is_late(well.clone(), well));
        let hangs = asked((100.2, 100.0), (50.1, 60.0));
        assert!(is_late(hangs.clone(), hangs));
    }

    #[test]
    fn nobody_is_ill_whose_ports_are_closed_by_configuration() {
        let at = |livez, metrics_port| Look {
            livez,
            metrics_port,
            ..look(Metrics::default(), Instant::now())
        };
        let runs = Processes {
            kube_proxy: Some("kube-proxy".to_owned()),
            ..Processes::default()
        };
        let replaced = Processes {
            replacement: Some("cilium".to_owned()),
            ..Processes::default()
        };
        let (away, closed) = (Processes::default(), PortState::Closed);
        assert!(!at(closed, closed).is_ill(Some(&runs)));
        assert!(!at(closed, closed).is_ill(Some(&replaced)));
        assert!(!at(closed, closed).is_ill(None));
        assert!(!at(closed, PortState::Ok).is_ill(Some(&away)));
        assert!(at(closed, closed).is_ill(Some(&away)));
        assert!(at(PortState::Silent, closed).is_ill(Some(&runs)));
        assert!(at(PortState::Failing, closed).is_ill(Some(&runs)));
    }

    #[test]
    fn only_an_error_of_the_server_is_a_no() {
        let answer = |status| state(&Got::Answer(status, String::new()));
        assert_eq!(
            [200, 404, 503].map(answer),
            [PortState::Ok, PortState::Ok, PortState::Failing]
        );
    }

    #[test]
    fn a_look_is_compared_with_the_last_one_that_is_long_enough_ago() {
        let (start, behind) = (Instant::now(), Metrics::parse(TEXT));
        let at = |seconds| start + Duration::from_secs(seconds);
        let wrote = |applied| {
            let mut metrics = behind.clone();
            metrics
                .writing
                .values_mut()
                .for_each(|w| w.applied = Some(applied));
            metrics
        };
        let mut seen = Seen::default();
        let mut lags = |metrics: &Metrics, seconds: &[u64]| -> Vec<bool> {
            let lag = |second: &u64| seen.compare(&look(metrics.clone(), at(*second))).not_syncing;
            seconds.iter().map(lag).collect()
        };
        assert_eq!(
            lags(&behind, &[0, 1, 6, 9]),
            [false; 4],
            "nothing to compare with"
        );
        assert_eq!(lags(&behind, &[10, 11, 17]), [true; 3]);
        assert_eq!(lags(&wrote(1.0), &[18, 23, 28]), [false; 3], "written in between");
        assert_eq!(lags(&wrote(1.0), &[33, 40]), [true; 2]);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,500}") {
            let _ = Metrics::parse(&text);
        }
    }
}
