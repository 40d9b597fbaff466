//! A dial with its attempts, and the tally of many.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    budget::Permit,
    dial::{Dial, Offender},
    http::{Got, get},
};
use svcdiag_api::{Answer, DialCount, DialFailure, DialPath, HttpProbe, PortProtocol, Rejection};
use svcdiag_kube_proxy::{IpFamily, Protocol};
use svcdiag_netns::{Netns, links};

use super::{LocalPod, Round};

/// Time between the starts of two attempts of one dial.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

/// How long a first probe waits for a connection. What is silent for so long is probed again, with all the patience there
/// is: TCP has sent its first packet twice by then.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);

/// Which of the two probes that a failure takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Finds what is worth another look.
    First,
    Second,
}

/// How a dial ended, with details.
pub(super) type Outcome = (Answer, Option<String>);

/// How many dials were made and failed, and the failures.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub counts: Vec<DialCount>,
    pub failures: Vec<DialFailure>,
}

impl Tally {
    /// Counts a dial.
    pub(super) fn count(
        &mut self,
        from: Option<&str>,
        path: DialPath,
        port: PortProtocol,
        family: IpFamily,
        same_node: Option<bool>,
        failure: Option<DialFailure>,
    ) {
        let known = self.counts.iter_mut().find(|c| {
            c.from.as_deref() == from
                && c.path == path
                && c.port == port
                && c.family == family
                && c.same_node == same_node
        });
        let failed = u32::from(failure.is_some());
        match known {
            Some(count) => {
                count.made += 1;
                count.failed += failed;
            }
            None => self.counts.push(DialCount {
                from: from.map(str::to_owned),
                path,
                port,
                family,
                same_node,
                made: 1,
                failed,
            }),
        }
        self.failures.extend(failure);
    }
}

/// Counts in order of importance, because a report has a size limit and is cut at its end. Failures come first, so that
/// only successes are cut, and then each path in turn.
pub(super) fn by_worth(counts: Vec<DialCount>) -> Vec<DialCount> {
    let mut seen = [0_usize; 2];
    let mut ranked: Vec<_> = counts
        .into_iter()
        .map(|count| {
            let of_its_way = &mut seen[usize::from(count.path == DialPath::Endpoint)];
            *of_its_way += 1;
            ((count.failed == 0, *of_its_way), count)
        })
        .collect();
    ranked.sort_by_key(|(worth, _)| *worth);
    ranked.into_iter().map(|(_, count)| count).collect()
}

impl Round<'_> {
    /// Permission to dial. None when the agent is stopping.
    pub(super) async fn permit(&self) -> Option<Permit> {
        self.node.dials.take(self.namespace).await
    }

    /// The endpoint that the rules sent a dial to, if any.
    pub(super) fn sent_to(
        &self,
        protocol: Protocol,
        source: SocketAddr,
        target: SocketAddr,
    ) -> Option<SocketAddr> {
        let connection = self.conntrack.as_ref()?.find(protocol, source, target).ok()??;
        (connection.answers != target).then_some(connection.answers)
    }

    /// Timeout of one attempt.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(u64::from(self.spec.probe.timeout_seconds))
    }

    /// How long an attempt waits for a connection.
    pub(super) fn patience_of(&self, look: Look) -> Duration {
        match look {
            Look::First => self.patience().min(FIRST_PATIENCE),
            Look::Second => self.patience(),
        }
    }

    /// Dials until there is an answer, at most as often as the probe allows. Returns details as well, and when the first
    /// attempt began: one that waits for its turn has not begun.
    ///
    /// An attempt that is silent does not keep the next one waiting, and when it has waited for as long as it may, those
    /// after it wait no longer.
    pub(super) async fn dial(
        &self,
        netns: &Netns,
        protocol: Protocol,
        target: SocketAddr,
        http: Option<&HttpProbe>,
        look: Look,
    ) -> io::Result<(Outcome, Instant)> {
        let has_begun = Notify::new();
        let attempt = || self.attempt(netns, protocol, target, http, look, &has_begun);
        // Over UDP a refusal is conclusive, and the kernel limits how often it sends one.
        let mut left = match protocol {
            Protocol::Udp => 0,
            _ => self.spec.probe.attempts.saturating_sub(1),
        };
        let mut attempts: FuturesUnordered<_> = [attempt()].into_iter().collect();
        let mut begun = None;
        // When the next one is due; not while the last one waits for its turn.
        let mut next: Option<Instant> = None;
        loop {
            let due = next.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = has_begun.notified() => {
                    let now = Instant::now();
                    begun = begun.or(Some(now));
                    next = Some(now + BETWEEN_ATTEMPTS);
                }
                Some(outcome) = attempts.next() => {
                    let outcome = outcome?;
                    let is_silent = matches!(outcome.0, Answer::TimedOut | Answer::NoAnswer);
                    if outcome.0 == Answer::Accepted || left == 0 && (is_silent || attempts.is_empty()) {
                        return Ok((outcome, begun.unwrap_or_else(Instant::now)));
                    }
                }
                () = sleep_until(due), if next.is_some() && left > 0 => {
                    attempts.push(attempt());
                    left -= 1;
                    next = None;
                }
            }
        }
    }

    async fn attempt(
        &self,
        netns: &Netns,
        protocol: Protocol,
        target: SocketAddr,
        http: Option<&HttpProbe>,
        look: Look,
        has_begun: &Notify,
    ) -> io::Result<Outcome> {
        let _permit = self.permit().await.ok_or(io::ErrorKind::Interrupted)?;
        has_begun.notify_one();
        let started = Dial::start(netns, protocol, target).await?;
        self.seen.note_source(started.source());
        let dialled = started.finish(self.patience_of(look)).await?;
        if protocol == Protocol::Tcp && dialled.answer == Answer::Accepted {
            self.tries.connected(netns, target, dialled.needed_another_packet);
        }
        let by = self.rejected_by(dialled.offender, target).await;
        // When the Service is bypassed nothing is translated: a refusal that does not come from the endpoint comes from a rule.
        let is_rule = protocol == Protocol::Udp && dialled.offender.is_some_and(|o| o.ip != target.ip());
        match (http, dialled.answer) {
            // The permit is held until the dial is over.
            (Some(http), Answer::Accepted) => self.speak(netns, target, http).await,
            (_, Answer::Refused) if is_rule => Ok((Answer::Rejected, by)),
            (_, answer) => Ok((answer, by)),
        }
    }

    /// Who rejected a dial, as its detail says it.
    pub(super) async fn rejected_by(&self, offender: Option<Offender>, target: SocketAddr) -> Option<String> {
        let Offender { ip, prohibits } = offender?;
        // Whoever rejects what was sent to the Service seems to be the Service: the node translates the address of the
        // message as well.
        let is_known = ip != target.ip();
        let rejection = Rejection {
            by: ip,
            is_by_node: is_known && self.own_addresses().await.contains(&ip),
            is_prohibited: prohibits,
        };
        Some(rejection.to_string())
    }

    /// The addresses of the node, listed once in a round and only if somebody rejects a dial or a firewall drops one.
    pub(super) async fn own_addresses(&self) -> &[IpAddr] {
        let list = async || {
            let listed = self.node.netns.visit(links::addresses).await;
            let problem = |error: &io::Error| {
                self.problem(format!("The node's addresses could not be listed: {error}."));
            };
            listed.inspect_err(problem).unwrap_or_default()
        };
        self.addresses.get_or_init(list).await
    }

    /// Sends an HTTP request after connecting. Bodies are not read.
    pub(super) async fn speak(
        &self,
        netns: &Netns,
        target: SocketAddr,
        http: &HttpProbe,
    ) -> io::Result<Outcome> {
        Ok(match get(netns, target, &http.path, self.patience(), 0).await? {
            Got::Answer(status, _) if is_expected(http, status) => (Answer::Accepted, None),
            Got::Answer(status, _) => (Answer::Unexpected, Some(format!("HTTP status {status}"))),
            Got::Garbled => (Answer::Unexpected, Some("the response is not HTTP".to_owned())),
            Got::TooManyHeaders => {
                let why = "the response headers exceed 32 KiB";
                (Answer::Unexpected, Some(why.to_owned()))
            }
            Got::Silent => (Answer::NoAnswer, None),
            Got::Reset => (Answer::Reset, None),
            Got::NotConnected(error) => (Answer::TimedOut, Some(error.to_string())),
        })
    }

    /// Whether an origin has an address of the same family as a target, which a dial needs; true if its addresses are
    /// unknown. None means the node.
    pub(super) fn has_family(&self, from: Option<&LocalPod<'_>>, of: IpAddr) -> bool {
        let ips: Vec<IpAddr> = match from {
            Some(pod) => pod.pod.ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
            None => self.subject.node_ips.clone(),
        };
        ips.is_empty() || ips.iter().any(|ip| ip.is_ipv4() == of.is_ipv4())
    }

    /// The HTTP request of a client for a Service port, if one is configured. None is sent from the node's own network,
    /// which may reach more than the author of the diagnosis may.
    pub(super) fn http_for(&self, client: Option<&LocalPod<'_>>, port: PortProtocol) -> Option<&HttpProbe> {
        let http = self.spec.probe.http.as_ref()?;
        client.filter(|client| !client.pod.host_network)?;
        let service = &self.subject.service;
        let named = service
            .spec
            .ports
            .iter()
            .find(|p| p.port_protocol() == Some(port))?;
        let is_meant = http.port.as_ref().is_none_or(|wanted| named.is_named_by(wanted));
        // The agent does not speak TLS, so it can only test whether such a port accepts connections.
        let is_plain = http.scheme == svcdiag_api::HttpScheme::HTTP;
        (is_meant && is_plain && named.protocol == Protocol::Tcp).then_some(http)
    }
}

fn is_expected(http: &HttpProbe, status: u16) -> bool {
    if http.expected_statuses.is_empty() {
        (200..400).contains(&status)
    } else {
        http.expected_statuses.contains(&status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_of_a_report_has_worked_and_is_of_each_way() {
        let mut tally = Tally::default();
        let mut count = |path, number: u16, failed: u32| {
            tally.counts.push(DialCount {
                from: None,
                path,
                port: PortProtocol {
                    number,
                    protocol: Protocol::Tcp,
                },
                family: IpFamily::V4,
                same_node: None,
                made: 1,
                failed,
            });
        };
        for port in 0..200 {
            count(DialPath::Endpoint, port, u32::from(port == 199));
        }
        for port in 0..200 {
            count(DialPath::Service, port, u32::from(port == 150));
        }
        let facts = svcdiag_api::NodeFacts {
            dials: by_worth(tally.counts),
            ..Default::default()
        };
        let kept = svcdiag_api::bounded(&facts);
        let of = |path| kept.dials.iter().filter(|d| d.path == path).count();
        assert_eq!(of(DialPath::Endpoint) + of(DialPath::Service), 128);
        assert_eq!(of(DialPath::Endpoint), of(DialPath::Service));
        assert_eq!(kept.dials.iter().filter(|d| d.failed > 0).count(), 2);
        assert_eq!(
            kept.problems,
            ["Omitted to keep the report within its size limit: 272 of dials."]
        );
    }
}
