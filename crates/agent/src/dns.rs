//! DNS queries from a network namespace: over UDP, and over TCP if the answer does not fit.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use nix::sys::socket::SockType;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UdpSocket},
    time::timeout,
};

use svcdiag_netns::Netns;

/// Longest accepted message over UDP (without EDNS, servers send 512 bytes).
const UDP_SIZE: usize = 4096;

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The addresses of the name, and their TTL in seconds.
    Addresses(Vec<IpAddr>, u32),
    /// There is no such name, or it has no such addresses; with the TTL in seconds.
    NotFound(u32),
    /// The server could not or would not answer: its code, for example SERVFAIL.
    Failed(String),
    /// No answer in time.
    TimedOut,
    /// The packet was refused: nothing serves DNS there.
    Refused,
}

/// Queries a server for the addresses of a name, which ends with a dot.
///
/// # Errors
/// When no query could be sent: then nothing is known.
pub async fn ask(
    netns: &Netns,
    server: SocketAddr,
    name: &str,
    ipv6: bool,
    patience: Duration,
) -> io::Result<Reply> {
    let kind = if ipv6 { RecordType::AAAA } else { RecordType::A };
    Ok(match exchange(netns, server, name, kind, patience).await? {
        Ok(answer) => read(&answer, kind),
        Err(reply) => reply,
    })
}

/// Whether a name fits into a query.
#[must_use]
pub fn is_name(name: &str) -> bool {
    Name::from_ascii(name).is_ok()
}

/// The names that a server has for an address; None if it does not answer.
///
/// # Errors
/// When no query could be sent.
pub async fn names_of(
    netns: &Netns,
    server: SocketAddr,
    address: IpAddr,
    patience: Duration,
) -> io::Result<Option<Vec<String>>> {
    let name = format!("{}.", Name::from(address).to_ascii().trim_end_matches('.'));
    let Ok(answer) = exchange(netns, server, &name, RecordType::PTR, patience).await? else {
        return Ok(None);
    };
    let names = answer.answers.iter().filter_map(|record| match &record.data {
        RData::PTR(name) => Some(name.0.to_ascii().trim_end_matches('.').to_owned()),
        _ => None,
    });
    Ok(Some(names.collect()))
}

/// Queries a server and returns its answer, or why there is none.
async fn exchange(
    netns: &Netns,
    server: SocketAddr,
    name: &str,
    kind: RecordType,
    patience: Duration,
) -> io::Result<Result<Message, Reply>> {
    let name =
        Name::from_ascii(name).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?;
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, kind));
    let bytes = question
        .to_vec()
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?;
    let answer = match timeout(patience, over_udp(netns, server, &bytes, &question)).await {
        Err(_) => return Ok(Err(Reply::TimedOut)),
        Ok(Err(error)) => return refused(error).map(Err),
        Ok(Ok(answer)) if answer.metadata.truncation => {
            match timeout(patience, over_tcp(netns, server, &bytes, &question)).await {
                Err(_) => return Ok(Err(Reply::TimedOut)),
                Ok(Err(error)) => return refused(error).map(Err),
                Ok(Ok(answer)) => answer,
            }
        }
        Ok(Ok(answer)) => answer,
    };
    Ok(Ok(answer))
}

fn refused(error: io::Error) -> io::Result<Reply> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Ok(Reply::Refused),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Ok(Reply::TimedOut),
        _ => Err(error),
    }
}

/// Whether a message answers a query: it has the same ID and the same name and type. A server that does not
/// understand a query does not repeat it.
fn answers(message: &Message, question: &Message) -> bool {
    let is_error = !matches!(
        message.metadata.response_code,
        ResponseCode::NoError | ResponseCode::NXDomain
    );
    message.metadata.id == question.metadata.id
        && message.metadata.message_type == MessageType::Response
        && (message.queries == question.queries || is_error && message.queries.is_empty())
}

async fn over_udp(
    netns: &Netns,
    server: SocketAddr,
    bytes: &[u8],
    question: &Message,
) -> io::Result<Message> {
    let socket = std::net::UdpSocket::from(netns.socket(server, SockType::Datagram).await?);
    // Connected, so that a refusal is reported and datagrams of other servers are ignored.
    socket.connect(server)?;
    let socket = UdpSocket::from_std(socket)?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; UDP_SIZE];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Other messages are ignored, as resolvers do.
        if let Some(Ok(answer)) = buffer.get(..length).map(Message::from_vec)
            && answers(&answer, question)
        {
            return Ok(answer);
        }
    }
}

async fn over_tcp(
    netns: &Netns,
    server: SocketAddr,
    bytes: &[u8],
    question: &Message,
) -> io::Result<Message> {
    let mut stream = stream(netns, server).await?;
    let length = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let answer = Message::from_vec(&answer).map_err(|e| invalid(e.to_string()))?;
    match answers(&answer, question) {
        true => Ok(answer),
        false => Err(invalid("the answer does not match the question".to_owned())),
    }
}

/// A connection from a network namespace.
///
/// # Errors
/// When it cannot be made.
pub async fn stream(netns: &Netns, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = std::net::TcpStream::from(netns.socket(target, SockType::Stream).await?);
    let socket = TcpSocket::from_std_stream(socket);
    socket.connect(target).await
}

/// The addresses in an answer.
pub(super) fn read(answer: &Message, kind: RecordType) -> Reply {
    match answer.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Reply::NotFound(negative_ttl(answer)),
        code => return Reply::Failed(mnemonic(code)),
    }
    let mut ttl = u32::MAX;
    let mut addresses = Vec::new();
    for record in &answer.answers {
        let address = match &record.data {
            RData::A(a) if kind == RecordType::A => IpAddr::V4(a.0),
            RData::AAAA(a) if kind == RecordType::AAAA => IpAddr::V6(a.0),
            _ => continue,
        };
        ttl = ttl.min(record.ttl);
        addresses.push(address);
    }
    if addresses.is_empty() {
        return Reply::NotFound(negative_ttl(answer));
    }
    addresses.sort_unstable();
    Reply::Addresses(addresses, ttl)
}

/// A response code as `dig` prints it.
fn mnemonic(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::NotAuth => "NOTAUTH".to_owned(),
        other => format!("RCODE{}", u16::from(other)),
    }
}

/// How long resolvers cache that a name does not exist: the smaller of the SOA's own TTL and its minimum
/// (RFC 2308), at most a minute here.
fn negative_ttl(answer: &Message) -> u32 {
    const MAX: u32 = 60;
    let soa = answer.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    });
    soa.unwrap_or(MAX).min(MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use hickory_proto::rr::{
        Record,
        rdata::{A, CNAME},
    };
    use proptest::prelude::*;

    use std::net::Ipv4Addr;

    use super::*;

    const NAME: &str = "hostnames.default.svc.cluster.local.";

    fn answer(addresses: &[(Ipv4Addr, u32)]) -> Message {
        let name = Name::from_ascii(NAME).unwrap();
        let mut message = Message::query();
        message.metadata.message_type = MessageType::Response;
        message.add_query(Query::query(name.clone(), RecordType::A));
        let alias = Name::from_ascii("other.example.").unwrap();
        message
            .answers
            .push(Record::from_rdata(name.clone(), 1, RData::CNAME(CNAME(alias))));
        for (address, ttl) in addresses {
            message
                .answers
                .push(Record::from_rdata(name.clone(), *ttl, RData::A(A(*address))));
        }
        message
    }

    #[test]
    fn an_answer_is_known_by_its_question() {
        let question = |name: &str, kind| {
            let mut message = Message::query();
            message.metadata.id = 7;
            message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
            message
        };
        let asked = question(NAME, RecordType::A);
        let reply = |name: &str, kind, change: &dyn Fn(&mut Message)| {
            let mut message = question(name, kind);
            message.metadata.message_type = MessageType::Response;
            change(&mut message);
            answers(&message, &asked)
        };
        let nothing = |_: &mut Message| {};
        assert!(reply(NAME, RecordType::A, &nothing));
        assert!(reply(&NAME.to_uppercase(), RecordType::A, &nothing));
        assert!(reply(NAME, RecordType::A, &|m| m.metadata.response_code =
            ResponseCode::ServFail));
        assert!(!reply("other.example.", RecordType::A, &nothing));
        assert!(!reply(NAME, RecordType::AAAA, &nothing));
        assert!(!reply(NAME, RecordType::A, &|m| m.metadata.id = 8));
        assert!(!reply(NAME, RecordType::A, &|m| m.metadata.message_type =
            MessageType::Query));
        assert!(!reply(NAME, RecordType::A, &|m| m.queries.clear()));
        assert!(reply(NAME, RecordType::A, &|m| {
            m.queries.clear();
            m.metadata.response_code = ResponseCode::FormErr;
        }));
    }

    proptest! {
        #[test]
        fn every_address_is_read(
            addresses in prop::collection::btree_map(any::<Ipv4Addr>(), 0_u32..86_400, 1..20),
        ) {
            let list: Vec<(Ipv4Addr, u32)> = addresses.iter().map(|(a, ttl)| (*a, *ttl)).collect();
            let message = Message::from_vec(&answer(&list).to_vec().unwrap()).unwrap();
            let expected = addresses.keys().map(|a| IpAddr::V4(*a)).collect();
            let ttl = addresses.values().copied().min().unwrap();
            prop_assert_eq!(read(&message, RecordType::A), Reply::Addresses(expected, ttl));
            prop_assert_eq!(read(&message, RecordType::AAAA), Reply::NotFound(60));
        }

        #[test]
        fn damaged_answers_are_survived(
            damage in prop::collection::vec((0_usize..200, any::<u8>()), 0..8),
            length in 0_usize..220,
        ) {
            let mut bytes = answer(&[(Ipv4Addr::LOCALHOST, 30), (Ipv4Addr::UNSPECIFIED, 5)]).to_vec().unwrap();
            for (at, value) in damage {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(length);
            if let Ok(message) = Message::from_vec(&bytes) {
                let _ = read(&message, RecordType::A);
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(message) = Message::from_vec(&bytes) {
                let _ = read(&message, RecordType::AAAA);
            }
        }
    }
}
