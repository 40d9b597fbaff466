//! The records for a query, from a zone.

use std::net::IpAddr;

use hickory_proto::{
    op::{Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, PTR, SOA},
    },
};

use super::{Entry, Zone};

/// What CoreDNS says by default, of names that exist and of those that do not.
const TTL: u32 = 5;
/// Domains that the resolvers of the world beyond know to be empty (RFC 2606, RFC 6762): one to be searched
/// in, and where the cluster's names would be if they are not here.
const EMPTY_DOMAINS: [&str; 2] = ["example.com", "local"];

/// What a query is answered with.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) authoritative: bool,
    pub(super) records: Vec<Record>,
    pub(super) authorities: Vec<Record>,
}

impl Answer {
    /// An answer without records.
    pub(super) fn of_code(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            records: Vec::new(),
            authorities: Vec::new(),
        }
    }

    /// The answer to a query. A server without a zone has only just started.
    pub(super) fn to(query: &Query, zone: Option<&Zone>) -> Self {
        let mut answer = Self::of_code(ResponseCode::NoError);
        match zone {
            Some(zone) => fill(&mut answer, query, zone),
            None => answer.code = ResponseCode::ServFail,
        }
        answer
    }
}

fn fill(answer: &mut Answer, query: &Query, zone: &Zone) {
    let asked = query.name().to_ascii().to_ascii_lowercase();
    let name = asked.trim_end_matches('.');
    if zone.failing {
        answer.code = ResponseCode::ServFail;
        return;
    }
    let others = wildcard(zone, name).filter(|_| !lies_in(name, &zone.domain));
    let reverse = || query.name().parse_arpa_name().ok().map(|net| net.addr());
    if let Some(records) = match query.query_type() {
        RecordType::PTR => reverse().map(|address| names_of(zone, address)),
        kind => others.map(|address| record_of(address, kind).into_iter().collect()),
    } {
        if records.is_empty() && query.query_type() == RecordType::PTR {
            answer.code = ResponseCode::NXDomain;
        }
        for data in records {
            answer
                .records
                .push(Record::from_rdata(query.name().clone(), TTL, data));
        }
        return;
    }
    if !lies_in(name, &zone.domain) {
        answer.code = if EMPTY_DOMAINS.iter().any(|empty| lies_in(name, empty)) {
            ResponseCode::NXDomain
        } else {
            ResponseCode::ServFail
        };
        return;
    }
    answer.authoritative = true;
    let records = match zone.names.get(name) {
        Some(Entry::Addresses(addresses)) => addresses
            .iter()
            .filter_map(|address| record_of(*address, query.query_type()))
            .collect(),
        Some(Entry::Alias(other)) => {
            let addresses = addresses_of(zone, other);
            let target = Name::from_ascii(format!("{}.", other.trim_end_matches('.')));
            for data in addresses.iter().filter_map(|a| record_of(*a, query.query_type())) {
                if let Ok(target) = &target {
                    answer.records.push(Record::from_rdata(target.clone(), TTL, data));
                }
            }
            alias(other).into_iter().collect()
        }
        None => {
            // A name below which there are others exists, though nothing is known of it (RFC 8020).
            let below = zone.names.keys().any(|other| lies_in(other, name));
            if !below {
                answer.code = ResponseCode::NXDomain;
            }
            Vec::new()
        }
    };
    for data in records {
        answer
            .records
            .push(Record::from_rdata(query.name().clone(), TTL, data));
    }
    if answer.records.is_empty()
        && let Some(soa) = soa(&zone.domain)
    {
        answer.authorities.push(soa);
    }
}

/// Whether a name is the domain or in it.
fn lies_in(name: &str, domain: &str) -> bool {
    let rest = name.strip_suffix(domain);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.') || domain.is_empty())
}

/// The address that all names of another domain have.
fn wildcard(zone: &Zone, name: &str) -> Option<IpAddr> {
    let mut domains = zone.wildcards.iter();
    domains
        .find(|(domain, _)| lies_in(name, domain))
        .map(|(_, address)| *address)
}

/// What an alias leads to.
fn addresses_of(zone: &Zone, name: &str) -> Vec<IpAddr> {
    match zone.names.get(name.trim_end_matches('.')) {
        Some(Entry::Addresses(addresses)) => addresses.clone(),
        _ => wildcard(zone, name).into_iter().collect(),
    }
}

/// The names that have an address.
fn names_of(zone: &Zone, address: IpAddr) -> Vec<RData> {
    let has = |entry: &Entry| matches!(entry, Entry::Addresses(all) if all.contains(&address));
    let names = zone.names.iter().filter(|(_, entry)| has(entry));
    names
        .filter_map(|(name, _)| Some(RData::PTR(PTR(Name::from_ascii(format!("{name}.")).ok()?))))
        .collect()
}

fn record_of(address: IpAddr, kind: RecordType) -> Option<RData> {
    match (address, kind) {
        (IpAddr::V4(address), RecordType::A) => Some(RData::A(address.into())),
        (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA(address.into())),
        _ => None,
    }
}

fn alias(other: &str) -> Option<RData> {
    let mut name = Name::from_ascii(other).ok()?;
    name.set_fqdn(true);
    Some(RData::CNAME(CNAME(name)))
}

/// What negative answers carry: they stay true for as long as its last number says.
fn soa(domain: &str) -> Option<Record> {
    let name = |text: String| Name::from_ascii(text).ok();
    let data = SOA::new(
        name(format!("ns.dns.{domain}."))?,
        name(format!("hostmaster.{domain}."))?,
        1,
        7200,
        1800,
        86_400,
        TTL,
    );
    Some(Record::from_rdata(
        name(format!("{domain}."))?,
        TTL,
        RData::SOA(data),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let addresses = |texts: &[&str]| {
            let parsed = texts.iter().map(|text| text.parse().unwrap());
            Entry::Addresses(parsed.collect())
        };
        let names = [
            (
                "web.shop.svc.cluster.test",
                addresses(&["10.96.3.4", "fd00:10:96::34"]),
            ),
            ("old.shop.svc.cluster.test", addresses(&["10.96.3.5"])),
            (
                "db.shop.svc.cluster.test",
                Entry::Alias("db.example.org".to_owned()),
            ),
        ];
        Zone {
            domain: "cluster.test".to_owned(),
            names: names.map(|(name, entry)| (name.to_owned(), entry)).into(),
            ..Zone::default()
        }
    }

    fn query(name: &str, kind: RecordType) -> Query {
        Query::query(Name::from_ascii(name).unwrap(), kind)
    }

    fn ask(name: &str, kind: RecordType) -> Answer {
        Answer::to(&query(name, kind), Some(&zone()))
    }

    fn addresses(answer: &Answer) -> Vec<String> {
        answer
            .records
            .iter()
            .map(|record| record.data.to_string())
            .collect()
    }

    #[test]
    fn a_name_has_addresses_of_the_family_asked_for() {
        let answer = ask("Web.shop.svc.cluster.test.", RecordType::AAAA);
        assert_eq!(addresses(&answer), ["fd00:10:96::34"]);
        assert_eq!(answer.records[0].ttl, 5);
    }

    #[test]
    fn a_name_without_addresses_of_the_family_exists_all_the_same() {
        let answer = ask("old.shop.svc.cluster.test.", RecordType::AAAA);
        assert_eq!(answer.code, ResponseCode::NoError);
        assert!(answer.records.is_empty());
        assert_eq!(answer.authorities.len(), 1);
    }

    #[test]
    fn an_unknown_name_of_the_cluster_does_not_exist_for_five_seconds() {
        let answer = ask("nobody.shop.svc.cluster.test.", RecordType::A);
        assert_eq!(answer.code, ResponseCode::NXDomain);
        let [
            Record {
                data: RData::SOA(soa),
                ..
            },
        ] = answer.authorities.as_slice()
        else {
            panic!("no SOA in {answer:?}");
        };
        assert_eq!(soa.minimum, 5);
    }

    #[test]
    fn a_name_between_others_exists() {
        let answer = ask("svc.cluster.test.", RecordType::A);
        assert_eq!(answer.code, ResponseCode::NoError);
    }

    #[test]
    fn an_external_name_is_an_alias() {
        let answer = ask("db.shop.svc.cluster.test.", RecordType::A);
        assert_eq!(addresses(&answer), ["db.example.org."]);
    }

    #[test]
    fn an_alias_is_followed_where_its_end_is_known() {
        let mut zone = zone();
        let target = Entry::Alias("web.shop.svc.cluster.test".to_owned());
        zone.names
            .insert("alias.shop.svc.cluster.test".to_owned(), target);
        let question = query("alias.shop.svc.cluster.test.", RecordType::A);
        let answer = Answer::to(&question, Some(&zone));
        let mut found = addresses(&answer);
        found.sort();
        assert_eq!(found, ["10.96.3.4", "web.shop.svc.cluster.test."]);
    }

    #[test]
    fn an_address_has_its_names() {
        let answer = ask("4.3.96.10.in-addr.arpa.", RecordType::PTR);
        assert_eq!(addresses(&answer), ["web.shop.svc.cluster.test."]);
        let answer = ask("9.9.9.10.in-addr.arpa.", RecordType::PTR);
        assert_eq!(answer.code, ResponseCode::NXDomain);
    }

    #[test]
    fn a_domain_may_have_every_name_and_a_server_none() {
        let question = query("web.shop.svc.cluster.test.wild.test.", RecordType::A);
        let wild = Zone {
            wildcards: [("wild.test".to_owned(), IpAddr::from([203, 0, 113, 9]))].into(),
            ..zone()
        };
        assert_eq!(addresses(&Answer::to(&question, Some(&wild))), ["203.0.113.9"]);
        let failing = Zone {
            failing: true,
            ..wild
        };
        let answer = Answer::to(&question, Some(&failing));
        assert_eq!(answer.code, ResponseCode::ServFail);
    }

    #[test]
    fn other_domains_are_not_known() {
        let answer = ask("www.kubernetes.io.", RecordType::A);
        assert_eq!(answer.code, ResponseCode::ServFail);
        let answer = ask("web.shop.svc.cluster.test.example.com.", RecordType::A);
        assert_eq!(answer.code, ResponseCode::NXDomain);
    }
}
