//! kube-proxy on the node: whether it is running, live and keeping up.
//!
//! All NodeProbes of the node share one [`Watch`], so kube-proxy gets a few requests a minute, however many NodeProbes
//! there are. [`programs`] finds its process, or what replaces it; `formats` parses its counters, and [`samples`]
//! draws conclusions from several samples of them.
//!
//! Source: kube-proxy's pkg/proxy/healthcheck and pkg/proxy/metrics.

pub mod programs;
pub mod samples;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use self::{
    programs::{Processes, processes},
    samples::{Lag, Samples},
};
use super::{
    blocking::{Pool, blocking},
    http::{Got, get},
};
use svcdiag_api::PortState;
use svcdiag_formats::kube_proxy_metrics::Metrics;
use svcdiag_kube_proxy::ProxyMode;
use svcdiag_netns::Netns;

/// Port of livez and healthz.
const HEALTH_PORT: u16 = 10256;
/// Port of proxyMode and metrics.
const METRICS_PORT: u16 = 10249;

/// The metrics of a large node have some hundred KiB. One response is read at a time.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// A kube-proxy that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(3);

/// An unhealthy kube-proxy must be so in two samples this far apart: it may only be restarting.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);

/// How long a sample is shared by all NodeProbes.
pub const SAMPLE_LASTS: Duration = Duration::from_secs(5);

/// The last sample of kube-proxy.
#[derive(Debug, Default)]
pub struct Watch {
    seen: tokio::sync::Mutex<Seen>,
    reached: Reached,
}

/// Since when all of the agent's own requests to the API server have been answered.
#[derive(Debug, Default)]
pub struct Reached(Mutex<Option<Instant>>);

impl Reached {
    /// Records the result of a request.
    pub fn note(&self, is_answered: bool) {
        let mut since = self.0.lock();
        *since = is_answered.then(|| since.unwrap_or_else(Instant::now));
    }

    fn since(&self) -> Option<Instant> {
        *self.0.lock()
    }
}

#[derive(Debug, Default)]
struct Seen {
    /// The last sample, when it began, and its result.
    last: Option<(Instant, State)>,
    /// Conclusions from all samples so far.
    samples: Samples,
    /// Since when every sample has been unhealthy.
    ill_since: Option<Instant>,
}

/// kube-proxy at one moment.
#[derive(Clone, Debug)]
pub struct State {
    /// Its answers.
    pub sample: Sample,
    /// Conclusions from its counters over time.
    pub lag: Lag,
    /// Its processes, or why they could not be listed.
    pub processes: Result<Processes, String>,
    /// Since when every sample has been unhealthy. It may only be restarting, or late once.
    pub ill_since: Option<Instant>,
}

impl Watch {
    /// Whether the agent itself can reach the API server.
    #[must_use]
    pub fn reached(&self) -> &Reached {
        &self.reached
    }

    /// kube-proxy at a moment or later.
    pub async fn state(&self, node: &Netns, not_before: Instant) -> State {
        // Concurrent callers share a sample if it is recent enough.
        let mut seen = self.seen.lock().await;
        if let Some((_, state)) = seen.last.as_ref().filter(|(begun, _)| *begun >= not_before) {
            return state.clone();
        }
        let begun = Instant::now();
        let sample = probe(node).await;
        let processes = seen.processes(node).await.map_err(|error| error.to_string());
        let is_ill = sample.is_ill(processes.as_ref().ok());
        seen.ill_since = is_ill.then(|| seen.ill_since.unwrap_or(begun));
        let lag = match &sample.metrics {
            Some(metrics) => seen.samples.add(metrics, sample.at, self.reached.since()),
            None => Lag::default(),
        };
        let state = State {
            lag,
            sample,
            processes,
            ill_since: seen.ill_since,
        };
        seen.last = Some((begun, state.clone()));
        state
    }
}

impl Seen {
    /// All processes are scanned only if kube-proxy's last known process is gone.
    async fn processes(&self, node: &Netns) -> io::Result<Processes> {
        let last = self.last.as_ref();
        let known = last.and_then(|(_, last)| last.processes.clone().ok());
        let node = node.clone();
        let find = move || match known.filter(|known| known.still_run(&node)) {
            Some(known) => Ok(known),
            None => processes(&node),
        };
        blocking(Pool::Node, find).await?
    }
}

/// A sample of kube-proxy.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// State of livez.
    pub livez: PortState,
    /// State of the metrics port.
    pub metrics_port: PortState,
    /// The mode that it reports.
    pub mode: Option<ProxyMode>,
    /// Its counters, unless the metrics could not be read.
    pub metrics: Option<Metrics>,
}

/// Samples kube-proxy from the node's network namespace.
pub async fn probe(node: &Netns) -> Sample {
    let livez = ask(node, HEALTH_PORT, "/livez").await;
    let mode = ask(node, METRICS_PORT, "/proxyMode").await;
    let metrics = match &mode {
        Got::Answer(200, _) => ask(node, METRICS_PORT, "/metrics").await,
        _ => Got::Silent,
    };
    Sample {
        at: Instant::now(),
        livez: state(&livez),
        metrics_port: state(&mode),
        mode: match mode {
            Got::Answer(200, body) => ProxyMode::parse(body.trim()).filter(ProxyMode::is_known),
            _ => None,
        },
        metrics: match metrics {
            Got::Answer(200, body) => Some(Metrics::parse(&body)),
            _ => None,
        },
    }
}

impl Sample {
    /// Whether kube-proxy reports unhealthy, does not answer, or is not there; one sample proves nothing.
    fn is_ill(&self, processes: Option<&Processes>) -> bool {
        let is_away = processes.is_some_and(|p| p.kube_proxy.is_none() && p.replacement.is_none());
        match self.livez {
            PortState::Silent | PortState::Failing => true,
            PortState::Closed => is_away && self.metrics_port == PortState::Closed,
            PortState::Ok => false,
        }
    }
}

/// State of the port according to a response. A server that does not know the path (kube-proxy before 1.28 has no
/// livez) does not report a fault.
fn state(got: &Got) -> PortState {
    match got {
        Got::Answer(500..=599, _) => PortState::Failing,
        Got::Answer(..) => PortState::Ok,
        Got::Silent | Got::Reset | Got::Garbled | Got::TooManyHeaders => PortState::Silent,
        Got::NotConnected(_) => PortState::Closed,
    }
}

async fn ask(node: &Netns, port: u16, path: &str) -> Got {
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let got = get(node, target, path, PATIENCE, MAX_BODY).await;
    got.unwrap_or_else(Got::NotConnected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_ill_whose_ports_are_closed_by_configuration() {
        let at = |livez, metrics_port| Sample {
            at: Instant::now(),
            livez,
            metrics_port,
            mode: None,
            metrics: None,
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
    fn one_request_without_an_answer_ends_the_time_of_those_that_were_answered() {
        let reached = Reached::default();
        assert_eq!(reached.since(), None);
        reached.note(true);
        let since = reached.since();
        reached.note(true);
        assert!(since.is_some() && reached.since() == since);
        reached.note(false);
        assert_eq!(reached.since(), None);
    }
}
