//! Can a Pod reach itself through the Service? Each fault, and beside it its lookalikes, of which nothing may be False.

use svcdiag_api::{Answer, ConditionType as C, Reason as R};
use svcdiag_engine::{Facts, Unreadable};

use crate::{agents::*, report::*, walkthrough::*};

#[track_caller]
fn hairpin(id: &str, reason: R, mode: Option<bool>, masqueraded: Option<bool>, answer: Answer) {
    fault(id, C::HairpinOK, reason, |f| {
        on(f, "n2", |n| {
            n.hairpins[0].answer = Some(answer);
            n.hairpins[0].hairpin_mode = mode;
            n.hairpins[0].masqueraded = masqueraded;
        });
    });
}

#[test]
fn n30_n31_n32_n47_a_pod_does_not_reach_itself() {
    hairpin(
        "N30",
        R::HairpinModeDisabled,
        Some(false),
        Some(true),
        Answer::TimedOut,
    );
    hairpin(
        "N31",
        R::MasqueradeMissing,
        Some(true),
        Some(false),
        Answer::TimedOut,
    );
    hairpin(
        "N47-drop",
        R::HairpinTimedOut,
        Some(true),
        Some(true),
        Answer::TimedOut,
    );
    hairpin(
        "N47-reject",
        R::HairpinRefused,
        Some(true),
        Some(true),
        Answer::Rejected,
    );
}

#[test]
fn n30_the_dial_decides_about_hairpin() {
    works(|f| on(f, "n1", |n| n.hairpins[0].hairpin_mode = Some(false)));
    works(|f| {
        on(f, "n1", |n| {
            n.hairpins[0].hairpin_mode = None;
            n.hairpins[0].bridge_port = None;
        });
    });
    let d = works(|f| everywhere(f, |n| n.hairpins.iter_mut().for_each(|h| h.answer = None)));
    assert_eq!(stage(&d, C::HairpinOK).reason, R::HairpinConfigured);
}

#[test]
fn n32_policies_that_could_not_be_read_may_keep_a_pod_from_itself() {
    let timed_out = |f: &mut Facts| {
        on(f, "n2", |n| {
            n.hairpins[0].answer = Some(Answer::TimedOut);
            n.hairpins[0].masqueraded = Some(true);
            n.hairpins[0].hairpin_mode = Some(true);
        });
    };
    let d = lookalike(|f| {
        timed_out(f);
        f.unreadable.push(Unreadable {
            resource: "networkpolicies".into(),
            why: "the bundle has no list of them".into(),
        });
    });
    assert_eq!(stage(&d, C::HairpinOK).reason, R::ProbeFailed);
}

#[test]
fn hostnetwork_pods_meet_themselves_without_a_way_back() {
    let d = works(|f| {
        each_pod(f, |p| p.spec.host_network = Some(true));
        look(f);
        everywhere(f, |n| n.hairpins.clear());
    });
    assert_eq!(stage(&d, C::HairpinOK).reason, R::NotApplicable);
}
