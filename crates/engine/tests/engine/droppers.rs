//! Rules and policies that dropped packets: named where an agent is certain, and listed as possible where it is not.

use svcdiag_api::{
    ConditionType as C, DropCause, DropPlace, Dropper, DropperEvidence, FilterFamily, FilterHook, FilterTool,
    PacketDrop, Reason as R,
};
use svcdiag_engine::{Diagnosis, diagnose};

use crate::{agents::*, dropped::lost, report::*};

/// A rule of firewalld without a counter, that nothing else can be mistaken for.
pub(crate) fn of_firewalld() -> Dropper {
    Dropper {
        evidence: DropperEvidence::Only,
        tool: FilterTool::Nftables,
        family: FilterFamily::Inet,
        table: "firewalld".to_owned(),
        chain: "filter_FORWARD".to_owned(),
        base_chain: "filter_FORWARD".to_owned(),
        hook: FilterHook::Forward,
        priority: 10,
        is_policy: false,
        rule: Some(42),
        text: Some("ip daddr 10.244.0.0/16 drop".to_owned()),
        rose: None,
    }
}

/// The policy that Docker sets, which counts.
fn of_docker() -> Dropper {
    Dropper {
        evidence: DropperEvidence::Counted,
        tool: FilterTool::IptablesNft,
        family: FilterFamily::Ip,
        table: "filter".to_owned(),
        chain: "FORWARD".to_owned(),
        base_chain: "FORWARD".to_owned(),
        hook: FilterHook::Forward,
        priority: 0,
        is_policy: true,
        rule: None,
        text: None,
        rose: Some(9),
    }
}

/// A rule of iptables-legacy, known by its number.
fn of_legacy() -> Dropper {
    Dropper {
        tool: FilterTool::IptablesLegacy,
        chain: "DOCKER-USER".to_owned(),
        is_policy: false,
        rule: Some(3),
        ..of_docker()
    }
}

/// One of each kind that has a sentence of its own.
pub(crate) fn of_all_kinds() -> Vec<Dropper> {
    let candidate = |dropper: Dropper| Dropper {
        evidence: DropperEvidence::Candidate,
        ..dropper
    };
    let v6 = Dropper {
        family: FilterFamily::Ip6,
        ..of_legacy()
    };
    let of_kubelet = Dropper {
        chain: "KUBE-FIREWALL".to_owned(),
        ..of_legacy()
    };
    vec![
        of_firewalld(),
        of_docker(),
        of_legacy(),
        v6,
        of_kubelet,
        candidate(of_docker()),
    ]
}

/// What is said where these are reported of every drop.
fn faulty(id: &str, droppers: &[Dropper]) -> Diagnosis {
    fault(id, C::EndpointsReachable, R::FirewallDrops, |f| {
        lost(f, DropCause::Firewall, |drop| drop.droppers = droppers.to_vec());
    })
}

#[track_caller]
fn says(diagnosis: &Diagnosis, words: &[&str]) {
    let cause = diagnosis.root_cause.as_ref().unwrap();
    let text = format!("{} {}", cause.message, cause.remediation);
    for words in words {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_rule_that_alone_can_have_dropped_is_named_with_its_table_and_owner() {
    let d = faulty("droppers-only", &[of_firewalld()]);
    says(
        &d,
        &[
            "nftables, table inet firewalld, chain filter_FORWARD (firewalld's; hook forward, priority 10), rule \"ip daddr 10.244.0.0/16 drop\"",
            "Nothing else there can drop these packets without an answer",
            "`nft -a list chain inet firewalld filter_FORWARD`",
            "firewalld writes it",
        ],
    );
    let detail = d.observations[0].detail.as_deref().unwrap();
    assert!(
        detail.starts_with("3 packets dropped by nftables, table inet firewalld"),
        "{detail}"
    );
}

#[test]
fn a_policy_whose_counter_rose_is_named_with_that() {
    let d = faulty("droppers-counted", &[of_docker()]);
    says(
        &d,
        &[
            "iptables-nft, table filter, chain FORWARD (hook forward, priority 0), policy drop. Its counter rose",
            "`nft -a list chain ip filter FORWARD`",
        ],
    );
    let detail = d.observations[0].detail.as_deref().unwrap();
    assert!(
        detail.contains("policy drop, whose counter rose by 9"),
        "{detail}"
    );
}

#[test]
fn a_rule_of_iptables_legacy_is_named_by_its_number_and_shown_by_its_own_program() {
    let mut f = with_agents();
    lost(&mut f, DropCause::Firewall, |drop| {
        drop.function = Some("nf_hook_slow".to_owned());
        drop.droppers = vec![of_legacy()];
    });
    says(
        &diagnose(&f),
        &[
            "iptables-legacy, table filter, chain DOCKER-USER (Docker's; reached from FORWARD, hook forward, priority 0), rule 3",
            "`iptables-legacy -t filter -S DOCKER-USER`",
            "Docker writes it",
        ],
    );
}

#[test]
fn of_several_that_may_have_dropped_none_is_said_to_have() {
    let candidates = [of_docker(), of_firewalld()].map(|dropper| Dropper {
        evidence: DropperEvidence::Candidate,
        ..dropper
    });
    let d = faulty("droppers-candidates", &candidates);
    says(
        &d,
        &[
            "It may be iptables-nft, table filter, chain FORWARD",
            "policy drop, whose counter rose meanwhile; or nftables, table inet firewalld",
            "`nft -a list chain ip filter FORWARD`, `nft -a list chain inet firewalld filter_FORWARD`",
        ],
    );
    let text = report(&d);
    for never in ["Its counter rose", "Nothing else there", "dropped by nftables"] {
        assert!(!text.contains(never), "{never}: {text}");
    }
}

/// Whoever has taken over a node may claim anything; two that are certain are none.
#[test]
fn two_rules_that_are_both_certain_are_but_possible() {
    let d = faulty("droppers-contradict", &[of_firewalld(), of_docker()]);
    says(&d, &["It may be "]);
    let text = report(&d);
    assert!(!text.contains("Nothing else there"), "{text}");
}

#[test]
fn a_rule_in_a_pods_own_network_is_named_there() {
    let mut f = with_agents();
    lost(&mut f, DropCause::Firewall, |drop| {
        drop.place = DropPlace::Endpoint;
        drop.droppers = vec![Dropper {
            table: "own".to_owned(),
            chain: "in".to_owned(),
            base_chain: "in".to_owned(),
            hook: FilterHook::Input,
            ..of_firewalld()
        }];
    });
    let d = diagnose(&f);
    says(
        &d,
        &[
            "in the network namespace of Pods shop/hostnames-",
            "table inet own, chain in (",
        ],
    );
    let cause = d.root_cause.unwrap();
    assert!(!cause.remediation.contains("nft "), "{}", cause.remediation);
}

/// nft takes its arguments for one text, whatever the shell has quoted.
#[test]
fn a_name_that_nft_could_take_for_something_else_is_in_no_command() {
    for name in ["x?flush", "a:b", "-a", "1st"] {
        let mut f = with_agents();
        lost(&mut f, DropCause::Firewall, |drop| {
            drop.droppers = vec![Dropper {
                table: name.to_owned(),
                ..of_firewalld()
            }];
        });
        let cause = diagnose(&f).root_cause.unwrap();
        assert!(
            cause.remediation.contains("`nft list ruleset`") && !cause.remediation.contains("list chain"),
            "{}",
            cause.remediation
        );
    }
}

#[test]
fn rules_beside_dials_that_work_are_no_fault() {
    works(|f| {
        let drop = PacketDrop {
            droppers: of_all_kinds(),
            ..crate::dropped::dropped(f, 1, DropCause::Firewall)
        };
        on(f, "n1", |n| n.drops = vec![drop]);
    });
}

#[test]
fn a_hairpin_that_a_rule_drops_has_its_rule_named() {
    let d = fault("droppers-hairpin", C::HairpinOK, R::HairpinTimedOut, |f| {
        let mut drop = crate::dropped::dropped(f, 1, DropCause::Firewall);
        on(f, "n2", |n| {
            let hairpin = &mut n.hairpins[0];
            hairpin.answer = Some(svcdiag_api::Answer::TimedOut);
            hairpin.hairpin_mode = None;
            hairpin.masqueraded = None;
            drop.from = Some(hairpin.pod.clone());
            drop.target = hairpin.target.clone();
            drop.droppers = vec![of_firewalld()];
            n.drops.push(drop);
        });
    });
    says(
        &d,
        &[
            "dropped by nftables, table inet firewalld, chain filter_FORWARD",
            "`nft -a list chain inet firewalld filter_FORWARD`",
        ],
    );
}

/// Agents of before do not know the field.
#[test]
fn a_drop_without_rules_is_what_it_was() {
    let f = with_agents();
    let drop = crate::dropped::dropped(&f, 1, DropCause::Firewall);
    let text = serde_json::to_value(&drop).unwrap();
    assert!(text.get("droppers").is_none());
    assert_eq!(serde_json::from_value::<PacketDrop>(text).unwrap(), drop);
}
