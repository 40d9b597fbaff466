//! What the agents saw, one line for each thing, failures first.

use crate::{
    UNKNOWN_NODE,
    dialling::describe,
    evidence::{Evidence, arrivals, dials::Dials, dropped, packet_sizes::narrow_paths, reports::Report},
    text,
};
use svcdiag_api::{Answer, ConditionType, LookupResult, Observation};

/// Longest detail that the API takes from us.
const DETAIL_MAX: usize = 1024;

/// All observations of the reports that count.
pub(crate) fn of(evidence: &Evidence<'_>) -> Vec<Observation> {
    let reports = &evidence.reports;
    if evidence.facts.spec.suspend || reports.current.is_empty() {
        return Vec::new();
    }
    let (mut failures, mut successes) = (Vec::new(), Vec::new());
    for (dials, condition) in [
        (&evidence.direct, ConditionType::EndpointsReachable),
        (&evidence.from_nodes, ConditionType::ProxyForwards),
        (&evidence.from_clients, ConditionType::ServiceReachable),
    ] {
        failures.extend(failed(evidence, dials, condition));
        successes.extend(answered(dials, condition));
    }
    failures.extend(large_packets(evidence));
    for report in &reports.current {
        failures.extend(gaps(report));
        for (is_failure, observation) in lookups(report).into_iter().chain(hairpins(evidence, report)) {
            if is_failure {
                failures.push(observation);
            } else {
                successes.push(observation);
            }
        }
    }
    // The order of the tree, then what is nearest to the reader: the node and the Pod.
    for list in [&mut failures, &mut successes] {
        list.sort_by_cached_key(|o: &Observation| {
            let stage = ConditionType::stages()
                .iter()
                .position(|c| c.as_str() == o.condition);
            (stage, o.clone())
        });
        list.dedup();
    }
    failures.extend(successes);
    failures
}

fn observation(
    condition: ConditionType,
    node: &str,
    pod: Option<&str>,
    target: &str,
    result: &str,
) -> Observation {
    Observation {
        condition: condition.as_str().to_owned(),
        node: Some(node).filter(|node| *node != UNKNOWN_NODE).map(str::to_owned),
        pod: pod.map(str::to_owned),
        target: Some(target.to_owned()),
        result: result.to_owned(),
        detail: None,
        latency_milliseconds: None,
    }
}

fn failed(evidence: &Evidence<'_>, dials: &Dials<'_>, condition: ConditionType) -> Vec<Observation> {
    let each = dials.failures.iter().map(|f| {
        let from = f.dial.from.as_deref();
        let through = f.dial.endpoint.as_deref().filter(|e| *e != f.dial.target);
        let details = [f.dial.detail.clone(), through.map(|e| format!("endpoint {e}"))];
        let drops = dropped::of(evidence, f);
        let pod = f.target.and_then(|target| target.pod);
        let dropped = drops.into_iter().map(|drop| dropped::observed(drop, f.node, pod));
        let arrival = arrivals::of(evidence, f);
        let there = arrival.iter().flat_map(|a| {
            let drops = a.drops.iter().map(|drop| dropped::observed(drop, a.node, pod));
            std::iter::once(arrivals::observed(a)).chain(drops)
        });
        let details = details.into_iter().flatten();
        let details: Vec<String> = details.chain(dropped).chain(there).collect();
        Observation {
            detail: (!details.is_empty()).then(|| cut(&details.join("; "))),
            ..observation(
                condition,
                f.node,
                from,
                &f.dial.target,
                describe::result(f.answer),
            )
        }
    });
    each.collect()
}

fn cut(text: &str) -> String {
    text.chars().take(DETAIL_MAX).collect()
}

fn answered(dials: &Dials<'_>, condition: ConditionType) -> Vec<Observation> {
    let each = dials.counts.iter().filter(|c| c.succeeded > 0).map(|c| {
        let whom = match (condition, c.same_node) {
            (ConditionType::EndpointsReachable, Some(true)) => "endpoints on the node",
            (ConditionType::EndpointsReachable, Some(false)) => "endpoints on other nodes",
            (ConditionType::EndpointsReachable, None) => "endpoints",
            _ => "the Service",
        };
        let target = format!("{whom}, port {} over {}", c.port, c.family);
        let heard = if c.port.is_udp() {
            "not refused"
        } else {
            "answered"
        };
        let result = format!("{} of {} dials {heard}", c.succeeded, c.made);
        observation(condition, c.node, c.from, &target, &result)
    });
    each.collect()
}

fn large_packets(evidence: &Evidence<'_>) -> Vec<Observation> {
    let each = narrow_paths(evidence).into_iter().map(|path| {
        let size = path.size;
        Observation {
            detail: Some(format!("packets of up to {} bytes arrive", size.passes)),
            ..observation(
                ConditionType::EndpointsReachable,
                path.node,
                Some(&size.from),
                &size.to,
                &format!("packets of {} bytes are lost", size.fails),
            )
        }
    });
    each.collect()
}

fn gaps(report: &Report<'_>) -> Vec<Observation> {
    let rules = report.facts.rules.iter();
    let each = rules.flat_map(|r| &r.gaps).map(|gap| Observation {
        detail: Some(cut(&gap.detail)),
        ..observation(
            ConditionType::ProxyRulesPresent,
            report.node,
            None,
            &gap.destination,
            match &gap.endpoint {
                Some(_) => "the rules differ in an endpoint",
                None => "the rules differ",
            },
        )
    });
    each.collect()
}

fn lookups(report: &Report<'_>) -> Vec<(bool, Observation)> {
    let mut all = Vec::new();
    for resolver in &report.facts.resolvers {
        for lookup in &resolver.lookups {
            let result = match lookup.result {
                LookupResult::Found => format!("found {}", text::list(&lookup.addresses)),
                LookupResult::NotFound => "no such name".to_owned(),
                LookupResult::Failed => match &lookup.code {
                    Some(code) => format!("the server answered {code}"),
                    None => "the server could not answer".to_owned(),
                },
                LookupResult::TimedOut => "no answer in time".to_owned(),
                LookupResult::Unclear => continue,
            };
            let name = observation(
                ConditionType::DNSResolves,
                report.node,
                Some(&resolver.pod),
                &lookup.name,
                &result,
            );
            all.push((lookup.result != LookupResult::Found, name));
        }
    }
    all
}

fn hairpins(evidence: &Evidence<'_>, report: &Report<'_>) -> Vec<(bool, Observation)> {
    let each = report.facts.hairpins.iter().filter_map(|hairpin| {
        let answer = hairpin.answer?;
        let pod = evidence.ends.pod(&hairpin.pod);
        let drops = dropped::of_hairpin(report, hairpin, pod);
        let dropped: Vec<String> = drops
            .map(|drop| dropped::observed(drop, report.node, pod))
            .collect();
        let seen = Observation {
            detail: (!dropped.is_empty()).then(|| cut(&dropped.join("; "))),
            ..observation(
                ConditionType::HairpinOK,
                report.node,
                Some(&hairpin.pod),
                &hairpin.target,
                describe::result(answer),
            )
        };
        Some((answer != Answer::Accepted, seen))
    });
    each.collect()
}
