//! The counters of kube-proxy that say whether it keeps up, from the Prometheus text format.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Counters of kube-proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// The writing of rules, by the label of the IP family, which came with Kubernetes 1.33: each family has a proxy
    /// of its own, and what is asked of one of them the other never does.
    pub writing: BTreeMap<String, Writing>,
    /// Requests to the API server that got no answer or were turned away (401).
    pub requests_failed: f64,
    /// Requests that the API server did not allow (403).
    pub requests_denied: f64,
    /// Requests to the API server that did what they were to do.
    pub requests_answered: f64,
}

/// When rules were asked for and written, in seconds since 1970, and how often that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Writing {
    /// When rules were last written.
    pub applied: Option<f64>,
    /// When writing was last asked for.
    pub queued: Option<f64>,
    /// How often iptables-restore has failed.
    pub restore_failures: f64,
    /// How often a transaction of nftables has failed.
    pub nftables_failures: f64,
}

impl Writing {
    /// Whether a change waits to be written. For a moment one always does.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!((self.queued, self.applied), (Some(queued), Some(applied)) if queued > applied)
    }
}

impl Metrics {
    /// Whether writing was asked for at a time or later, which kube-proxy does as soon as its watch reports a change;
    /// None if it does not say when.
    #[must_use]
    pub fn has_heard_since(&self, at: Timestamp) -> Option<bool> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "seconds since 1970 are exact in an f64"
        )]
        let at = at.as_second() as f64;
        let last = self.writing.values().filter_map(|w| w.queued).reduce(f64::max)?;
        Some(last >= at)
    }

    /// Reads what is needed.
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
            if name == "rest_client_requests_total" {
                metrics.add_requests(labels, value);
                continue;
            }
            let Some(name) = name.strip_prefix("kubeproxy_sync_proxy_rules_") else {
                continue;
            };
            let set: fn(&mut Writing, f64) = match name {
                "last_timestamp_seconds" => |w, value| w.applied = Some(value),
                "last_queued_timestamp_seconds" => |w, value| w.queued = Some(value),
                "iptables_restore_failures_total" => |w, value| w.restore_failures = value,
                "nftables_sync_failures_total" => |w, value| w.nftables_failures = value,
                _ => continue,
            };
            set(metrics.writing.entry(labels.to_owned()).or_default(), value);
        }
        metrics
    }

    fn add_requests(&mut self, labels: &str, value: f64) {
        let code = labels
            .split_once("code=\"")
            .and_then(|(_, rest)| rest.split('"').next());
        match code {
            Some("<error>" | "401") => self.requests_failed += value,
            Some("403") => self.requests_denied += value,
            Some(code) if code.starts_with('2') => self.requests_answered += value,
            _ => {}
        }
    }
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
        kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family=\"IPv4\"} 4\n\
        kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv6\"} 5\n\
        rest_client_requests_total{code=\"200\",host=\"a\",method=\"GET\"} 7\n\
        rest_client_requests_total{code=\"201\",host=\"a\",method=\"POST\"} 1\n\
        rest_client_requests_total{code=\"503\",host=\"a\",method=\"GET\"} 9\n\
        rest_client_requests_total{code=\"403\",host=\"a\",method=\"GET\"} 6\n\
        rest_client_requests_total{code=\"<error>\",host=\"a\",method=\"GET\"} 2\n\
        rest_client_requests_total{code=\"401\",host=\"a\",method=\"GET\"} 1\n";

    #[test]
    fn metrics_are_read_with_and_without_the_family() {
        let metrics = Metrics::parse(TEXT);
        let families: Vec<Writing> = metrics.writing.values().copied().collect();
        let v4 = Writing {
            applied: Some(1_764_000_000.0),
            queued: Some(1_764_000_005.0),
            restore_failures: 4.0,
            nftables_failures: 0.0,
        };
        let v6 = Writing {
            applied: Some(1_763_999_999.0),
            queued: Some(1_763_999_998.0),
            restore_failures: 0.0,
            nftables_failures: 5.0,
        };
        assert_eq!(families, [v4, v6]);
        assert_eq!(families.map_waits(), [true, false]);
        let old = TEXT
            .replace("{ip_family=\"IPv4\"}", "")
            .replace("{ip_family=\"IPv6\"}", "");
        let families = Metrics::parse(&old).writing;
        assert_eq!(families.get("").and_then(|w| w.applied), v6.applied);
        let requests = [
            metrics.requests_failed,
            metrics.requests_denied,
            metrics.requests_answered,
        ];
        assert_eq!(requests, [3.0, 6.0, 8.0]);
    }

    #[test]
    fn what_was_heard_of_shows_in_when_writing_was_asked_for() {
        let metrics = Metrics::parse(TEXT);
        let at = |second| Timestamp::from_second(second).unwrap();
        // One of the families is enough: the other has nothing to write.
        assert_eq!(metrics.has_heard_since(at(1_764_000_005)), Some(true));
        assert_eq!(metrics.has_heard_since(at(1_764_000_006)), Some(false));
        assert_eq!(Metrics::default().has_heard_since(at(0)), None);
    }

    trait Waits {
        fn map_waits(&self) -> Vec<bool>;
    }

    impl Waits for Vec<Writing> {
        fn map_waits(&self) -> Vec<bool> {
            self.iter().map(Writing::waits).collect()
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,500}") {
            let _ = Metrics::parse(&text);
        }
    }
}
