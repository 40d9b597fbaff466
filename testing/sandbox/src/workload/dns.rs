//! Cluster DNS: answers from a zone file that the cluster writes anew whenever something changes.
//!
//! ```text
//! run -> UDP and TCP port 53 -> reply(question, zone) -> Answer -> message
//!     -> zone.json, read again when it is another file than before
//! ```
//!
//! What it answers is what CoreDNS' plugin `kubernetes` answers: names of Services for 5 seconds, NXDOMAIN
//! with the zone's SOA for the rest of the cluster's domain, and the names of addresses (PTR). It has no
//! resolvers to ask about other domains.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, PTR, SOA},
    },
};
use nix::ifaddrs::getifaddrs;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::{sleep, timeout},
};

/// What CoreDNS says by default, of names that exist and of those that do not.
const TTL: u32 = 5;
/// Longest answer over UDP to who does not say that he takes more (RFC 1035).
const UDP_SIZE: u16 = 512;
const PORT: u16 = 53;
/// Where CoreDNS serves its metrics, a port of the Service kube-dns.
const METRICS_PORT: u16 = 9153;
/// Who connects and says nothing is hung up on.
const PATIENCE: Duration = Duration::from_secs(2);
/// Domains that the resolvers of the world beyond know to be empty (RFC 2606, RFC 6762): one to be searched
/// in, and where the cluster's names would be if they are not here.
const EMPTY_DOMAINS: [&str; 2] = ["example.com", "local"];

/// What a server of cluster DNS knows, and how it behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Zone {
    /// The domain that it has all names of, without dots at its ends: the cluster's, or the root.
    pub domain: String,
    /// Full names in lower case, without a dot at the end.
    pub names: BTreeMap<String, Entry>,
    /// Other domains that have every name, all with one address.
    #[serde(default)]
    pub wildcards: BTreeMap<String, IpAddr>,
    /// Whether it has no names to give (SERVFAIL), as before it has heard from the API server.
    #[serde(default)]
    pub failing: bool,
    /// Whether it answers nothing at all.
    pub silent: bool,
    /// How long it waits before it answers, in milliseconds.
    pub delay_milliseconds: u64,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Entry {
    /// Addresses of either family.
    Addresses(Vec<IpAddr>),
    /// Another name.
    Alias(String),
}

/// Serves until dropped.
///
/// # Errors
/// When the port cannot be had.
pub async fn run(zone: PathBuf) -> io::Result<()> {
    let zone = Arc::new(ZoneFile::new(zone));
    let mut tasks = JoinSet::new();
    // One socket for each address: an answer over UDP has to come from the address that was asked.
    for address in own_addresses()? {
        let socket = Arc::new(UdpSocket::bind((address, PORT)).await?);
        let zone = zone.clone();
        tasks.spawn(async move { over_udp(&socket, &zone).await });
    }
    let connections = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).await?;
    tasks.spawn(async move { over_tcp(&connections, &zone).await });
    let metrics = TcpListener::bind((Ipv6Addr::UNSPECIFIED, METRICS_PORT)).await?;
    tasks.spawn(async move { no_metrics(&metrics).await });
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(())
}

/// Addresses of the network namespace, without those that hold for one link only.
fn own_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let addresses = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        v4.or(v6)
    });
    let of_one_link = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    Ok(addresses.filter(|address| !of_one_link(address)).collect())
}

async fn over_udp(socket: &Arc<UdpSocket>, zone: &Arc<ZoneFile>) -> io::Result<()> {
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        while answers.try_join_next().is_some() {}
        // An error here is told of an earlier answer that nobody wanted any more.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let question = buffer.get(..length).unwrap_or_default().to_vec();
        let (socket, zone) = (socket.clone(), zone.clone());
        answers.spawn(async move {
            let answer = zone.answer(&question, true).await;
            if let Some(answer) = answer {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

async fn over_tcp(listener: &TcpListener, zone: &Arc<ZoneFile>) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if let Ok((stream, _)) = listener.accept().await {
            let zone = zone.clone();
            connections.spawn(async move { converse(stream, &zone).await });
        }
    }
}

/// Answers the questions of one connection, each after its length.
async fn converse(mut stream: TcpStream, zone: &ZoneFile) -> io::Result<()> {
    loop {
        let length = timeout(PATIENCE, stream.read_u16()).await??;
        let mut question = vec![0; usize::from(length)];
        timeout(PATIENCE, stream.read_exact(&mut question)).await??;
        if let Some(answer) = zone.answer(&question, false).await {
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            stream
                .write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())
                .await?;
        }
    }
}

/// Somebody listens for who wants to read metrics; there are none.
async fn no_metrics(listener: &TcpListener) -> io::Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    loop {
        if let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                if timeout(PATIENCE, stream.read(&mut request)).await?? > 0 {
                    stream.write_all(ANSWER).await?;
                }
                io::Result::Ok(())
            });
        }
    }
}

/// The zone file, and what was read from it.
struct ZoneFile {
    path: PathBuf,
    last: Mutex<Option<(Version, Arc<Zone>)>>,
}

/// A file that was put in the place of another has another inode or a later time.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl ZoneFile {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            last: Mutex::default(),
        }
    }

    /// What the file says now. One that is not there yet, or is no zone, leaves things as they were.
    fn read(&self) -> Option<Arc<Zone>> {
        let mut last = self.last.lock();
        let known = || last.as_ref().map(|(_, zone)| zone.clone());
        let Ok(metadata) = std::fs::metadata(&self.path) else {
            return known();
        };
        let version = Version {
            inode: metadata.ino(),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
        };
        if last.as_ref().is_some_and(|(read, _)| *read == version) {
            return known();
        }
        let text = std::fs::read_to_string(&self.path).ok();
        let Some(zone) = text.and_then(|text| serde_json::from_str::<Zone>(&text).ok()) else {
            return known();
        };
        let zone = Arc::new(zone);
        *last = Some((version, zone.clone()));
        Some(zone)
    }

    /// The answer to a message as it came, or none.
    async fn answer(&self, question: &[u8], over_udp: bool) -> Option<Vec<u8>> {
        let zone = self.read();
        if zone.as_ref().is_some_and(|zone| zone.silent) {
            return None;
        }
        if let Some(zone) = &zone {
            sleep(Duration::from_millis(zone.delay_milliseconds)).await;
        }
        let question = Message::from_vec(question).ok()?;
        let answer = reply(&question, zone.as_deref())?;
        let bytes = answer.to_vec().ok()?;
        let limit = usize::from(question.max_payload().max(UDP_SIZE));
        if over_udp && bytes.len() > limit {
            // The rest is to be asked for over TCP.
            return answer.truncate().to_vec().ok();
        }
        Some(bytes)
    }
}

/// The answer to a message. A server without a zone has only just started.
fn reply(question: &Message, zone: Option<&Zone>) -> Option<Message> {
    if question.metadata.message_type != MessageType::Query {
        return None;
    }
    let id = question.metadata.id;
    if question.metadata.op_code != OpCode::Query {
        return Some(Message::error_msg(
            id,
            question.metadata.op_code,
            ResponseCode::NotImp,
        ));
    }
    let [query] = question.queries.as_slice() else {
        return Some(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr));
    };
    let mut message = Message::response(id, OpCode::Query);
    message.metadata = Metadata::response_from_request(&question.metadata);
    message.add_query(query.clone());
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_SIZE.max(question.max_payload()));
        message.set_edns(edns);
    }
    match zone {
        Some(zone) => fill(&mut message, query, zone),
        None => message.metadata.response_code = ResponseCode::ServFail,
    }
    Some(message)
}

fn fill(message: &mut Message, query: &Query, zone: &Zone) {
    let asked = query.name().to_ascii().to_ascii_lowercase();
    let name = asked.trim_end_matches('.');
    if zone.failing {
        message.metadata.response_code = ResponseCode::ServFail;
        return;
    }
    let others = wildcard(zone, name).filter(|_| !lies_in(name, &zone.domain));
    let reverse = || query.name().parse_arpa_name().ok().map(|net| net.addr());
    if let Some(records) = match query.query_type() {
        RecordType::PTR => reverse().map(|address| names_of(zone, address)),
        kind => others.map(|address| record_of(address, kind).into_iter().collect()),
    } {
        if records.is_empty() && query.query_type() == RecordType::PTR {
            message.metadata.response_code = ResponseCode::NXDomain;
        }
        for data in records {
            message.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
        }
        return;
    }
    if !lies_in(name, &zone.domain) {
        message.metadata.response_code = if EMPTY_DOMAINS.iter().any(|empty| lies_in(name, empty)) {
            ResponseCode::NXDomain
        } else {
            ResponseCode::ServFail
        };
        return;
    }
    message.metadata.authoritative = true;
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
                    message.add_answer(Record::from_rdata(target.clone(), TTL, data));
                }
            }
            alias(other).into_iter().collect()
        }
        None => {
            // A name below which there are others exists, though nothing is known of it (RFC 8020).
            let below = zone.names.keys().any(|other| lies_in(other, name));
            if !below {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
            Vec::new()
        }
    };
    for data in records {
        message.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
    }
    if message.answers.is_empty()
        && let Some(soa) = soa(&zone.domain)
    {
        message.add_authority(soa);
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

    fn ask(name: &str, kind: RecordType) -> Message {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        reply(&question, Some(&zone())).unwrap()
    }

    fn addresses(message: &Message) -> Vec<String> {
        message
            .answers
            .iter()
            .map(|record| record.data.to_string())
            .collect()
    }

    #[test]
    fn a_name_has_addresses_of_the_family_asked_for() {
        let answer = ask("Web.shop.svc.cluster.test.", RecordType::AAAA);
        assert_eq!(addresses(&answer), ["fd00:10:96::34"]);
        assert_eq!(answer.answers[0].ttl, 5);
    }

    #[test]
    fn a_name_without_addresses_of_the_family_exists_all_the_same() {
        let answer = ask("old.shop.svc.cluster.test.", RecordType::AAAA);
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty());
        assert_eq!(answer.authorities.len(), 1);
    }

    #[test]
    fn an_unknown_name_of_the_cluster_does_not_exist_for_five_seconds() {
        let answer = ask("nobody.shop.svc.cluster.test.", RecordType::A);
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
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
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
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
        let mut question = Message::query();
        let name = Name::from_ascii("alias.shop.svc.cluster.test.").unwrap();
        question.add_query(Query::query(name, RecordType::A));
        let answer = reply(&question, Some(&zone)).unwrap();
        let mut found = addresses(&answer);
        found.sort();
        assert_eq!(found, ["10.96.3.4", "web.shop.svc.cluster.test."]);
    }

    #[test]
    fn an_address_has_its_names() {
        let answer = ask("4.3.96.10.in-addr.arpa.", RecordType::PTR);
        assert_eq!(addresses(&answer), ["web.shop.svc.cluster.test."]);
        let answer = ask("9.9.9.10.in-addr.arpa.", RecordType::PTR);
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn a_domain_may_have_every_name_and_a_server_none() {
        let mut question = Message::query();
        let name = Name::from_ascii("web.shop.svc.cluster.test.wild.test.").unwrap();
        question.add_query(Query::query(name, RecordType::A));
        let wild = Zone {
            wildcards: [("wild.test".to_owned(), IpAddr::from([203, 0, 113, 9]))].into(),
            ..zone()
        };
        assert_eq!(
            addresses(&reply(&question, Some(&wild)).unwrap()),
            ["203.0.113.9"]
        );
        let failing = Zone {
            failing: true,
            ..wild
        };
        let answer = reply(&question, Some(&failing)).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }

    #[test]
    fn other_domains_are_not_known() {
        let answer = ask("www.kubernetes.io.", RecordType::A);
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        let answer = ask("web.shop.svc.cluster.test.example.com.", RecordType::A);
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    }

    #[tokio::test]
    async fn what_the_file_says_is_answered_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("zone.json");
        let file = ZoneFile::new(path.clone());
        assert!(file.read().is_none());
        let put = |zone: &Zone| {
            let fresh = directory.path().join("fresh");
            std::fs::write(&fresh, serde_json::to_string(zone).unwrap()).unwrap();
            std::fs::rename(&fresh, &path).unwrap();
        };
        put(&zone());
        assert_eq!(*file.read().unwrap(), zone());
        let silent = Zone {
            silent: true,
            ..zone()
        };
        put(&silent);
        assert_eq!(*file.read().unwrap(), silent);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(*file.read().unwrap(), silent);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_cut_and_marked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("zone.json");
        let many = (1..=100).map(|last| IpAddr::from([10, 244, 1, last])).collect();
        let mut zone = zone();
        let name = "many.shop.svc.cluster.test";
        zone.names.insert(name.to_owned(), Entry::Addresses(many));
        std::fs::write(&path, serde_json::to_string(&zone).unwrap()).unwrap();
        let file = ZoneFile::new(path);
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        let bytes = question.to_vec().unwrap();
        let over_udp = Message::from_vec(&file.answer(&bytes, true).await.unwrap()).unwrap();
        assert!(over_udp.metadata.truncation);
        let over_tcp = Message::from_vec(&file.answer(&bytes, false).await.unwrap()).unwrap();
        assert_eq!(over_tcp.answers.len(), 100);
    }
}
