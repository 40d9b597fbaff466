//! Whether the clients get to a port of the Service, by what the policies say.

use std::collections::BTreeSet;

use crate::{
    clients::Role,
    policies::{
        mismatch::nearest,
        rules::{self, Direction},
        view::{Client, Closed, PolicyView, Routes, front_port, names},
    },
};
use svcdiag_api::Reason;
use svcdiag_objects::{Object, ServicePort};

/// Whether the clients get to a port.
pub(crate) enum PortVerdict {
    Passes,
    Undecided,
    /// The policies admit others than the Pods at hand, and keep these away as the denial says.
    ForOthers(Option<Denial>),
    /// A rule may admit what is denied, though most network plugins say it does not.
    Doubtful(Denial),
    Denied(Denial),
}

/// What is denied, by whom, and to whom.
pub(crate) struct Denial {
    pub reason: Reason,
    pub closed: Closed,
    /// Whether some of the clients or endpoints are not concerned.
    pub partly: bool,
    /// Clients that are shut out, by name; empty when it is everybody.
    pub clients: Vec<String>,
}

type Row<'a, 'b> = (&'b Client<'a>, Routes);

impl<'a> PolicyView<'a> {
    /// Whether the clients get to a port of the Service.
    pub(crate) fn judge_port(&self, port: &ServicePort) -> PortVerdict {
        if let Some(denial) = self.admits_nobody(port) {
            return PortVerdict::Denied(denial);
        }
        let rows = self.clients.iter().map(|c| (c, self.routes(c, port)));
        let rows: Vec<Row> = rows.filter(|(_, w)| w.total > 0).collect();
        match self.role {
            Role::Named => judge_named(&rows),
            Role::Candidate | Role::Endpoint => self.judge_candidates(&rows, port),
        }
    }

    /// Targets with policies none of whose rules lists the port: that holds for whoever the clients are.
    fn admits_nobody(&self, port: &ServicePort) -> Option<Denial> {
        let targets = self.targets_of(port);
        let shut: Vec<_> = targets
            .iter()
            .filter(|(t, p)| !rules::admits_anybody(&t.isolating, Direction::Ingress, *p, t.pod))
            .collect();
        let (first, number) = shut.first()?;
        let mismatch = nearest(
            &first.isolating,
            Direction::Ingress,
            None,
            *number,
            Some(front_port(port)),
            first.pod,
        );
        Some(Denial {
            reason: Reason::IngressDenied,
            closed: Closed {
                policies: shut.iter().flat_map(|(t, _)| names(&t.isolating)).collect(),
                mismatch,
            },
            partly: shut.len() < targets.len(),
            clients: Vec::new(),
        })
    }

    /// Candidates are witnesses: that one of them gets through shows that it can be done; that they do not
    /// shows nothing, since the policies may be meant to keep just these away.
    fn judge_candidates(&self, rows: &[Row<'a, '_>], port: &ServicePort) -> PortVerdict {
        if rows.is_empty() {
            let targets = self.targets_of(port);
            let isolated = targets.iter().any(|(t, _)| !t.isolating.is_empty());
            return if isolated {
                PortVerdict::ForOthers(None)
            } else {
                PortVerdict::Passes
            };
        }
        if rows.iter().any(|(_, w)| w.pass()) {
            return PortVerdict::Passes;
        }
        if rows.iter().any(|(_, w)| !w.are_closed()) {
            return PortVerdict::Undecided;
        }
        // What keeps the Service's own Pods from each other says nothing of its clients.
        PortVerdict::ForOthers((self.role == Role::Candidate).then(|| denial(rows, are_partly_open(rows))))
    }
}

/// It is known who the clients are: each of them has to get through.
fn judge_named(rows: &[Row<'_, '_>]) -> PortVerdict {
    let is_denied = |w: &Routes| w.denied > 0;
    let of = |closed: fn(&Routes) -> bool| -> Option<Denial> {
        let shut: Vec<&Row> = rows.iter().filter(|(_, w)| closed(w)).collect();
        let partly = shut.len() < rows.len() || are_partly_open(shut.iter().copied());
        (!shut.is_empty()).then(|| denial(shut, partly))
    };
    if let Some(denial) = of(is_denied) {
        PortVerdict::Denied(denial)
    } else if let Some(denial) = of(Routes::are_closed) {
        PortVerdict::Doubtful(denial)
    } else if rows.iter().any(|(_, w)| w.undecided > 0) {
        PortVerdict::Undecided
    } else {
        PortVerdict::Passes
    }
}

/// Whether any of some clients gets to any target.
fn are_partly_open<'a, 'b: 'c, 'c: 'a>(rows: impl IntoIterator<Item = &'a Row<'b, 'c>>) -> bool {
    let mut rows = rows.into_iter();
    rows.any(|(_, w)| w.denied + w.doubtful < w.total)
}

/// The denial that some routes make together: the way in comes before the way out.
fn denial<'a, 'b: 'c, 'c: 'a>(rows: impl IntoIterator<Item = &'a Row<'b, 'c>>, partly: bool) -> Denial {
    let rows: Vec<&Row> = rows.into_iter().collect();
    let is_in = rows.iter().any(|(_, w)| !w.into.policies.is_empty());
    let reason = if is_in {
        Reason::IngressDenied
    } else {
        Reason::EgressDenied
    };
    let closed = rows.iter().map(|(_, w)| if is_in { &w.into } else { &w.out });
    let closed: Vec<&Closed> = closed.filter(|c| !c.policies.is_empty()).collect();
    let policies: BTreeSet<String> = closed.iter().flat_map(|c| c.policies.iter().cloned()).collect();
    Denial {
        reason,
        closed: Closed {
            policies,
            mismatch: closed.iter().find_map(|c| c.mismatch.clone()),
        },
        partly,
        clients: rows.iter().map(|(c, _)| c.pod.name().to_owned()).collect(),
    }
}
