//! Cluster DNS: answers from a zone file that the cluster writes again whenever something changes.
//!
//! ```text
//! hickory-server (UDP and TCP, port 53) -> Handler -> zone_file: zone.json, read again when it is another file
//!                                                  -> answer: the records for a query, pure
//! ```
//!
//! What it answers is what CoreDNS' plugin `kubernetes` answers: names of Services for 5 seconds, NXDOMAIN
//! with the zone's SOA for the rest of the cluster's domain, and the names of addresses (PTR). It has no
//! resolvers to ask about other domains.

mod answer;
mod zone_file;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use hickory_proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_server::{
    Server,
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use nix::ifaddrs::getifaddrs;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    time::{sleep, timeout},
};

use self::{answer::Answer, zone_file::ZoneFile};

/// Longest answer over UDP to a client that does not say that it accepts more (RFC 1035).
const UDP_SIZE: u16 = 512;
const PORT: u16 = 53;
/// Where CoreDNS serves its metrics, a port of the Service kube-dns.
const METRICS_PORT: u16 = 9153;
/// A connection on which nothing comes for so long is closed.
const PATIENCE: Duration = Duration::from_secs(2);
/// Answers that wait for a slow client, for each connection.
const WAITING: usize = 16;

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
/// When a port is in use.
pub async fn run(zone: PathBuf) -> io::Result<()> {
    let mut server = Server::new(Handler(ZoneFile::new(zone)));
    // One socket for each address: an answer over UDP has to come from the address that was asked.
    for address in own_addresses()? {
        server.register_socket(UdpSocket::bind((address, PORT)).await?);
    }
    let connections = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).await?;
    server.register_listener(connections, PATIENCE, WAITING);
    let metrics = TcpListener::bind((Ipv6Addr::UNSPECIFIED, METRICS_PORT)).await?;
    tokio::select! {
        ended = server.block_until_done() => ended.map_err(io::Error::other),
        ended = no_metrics(&metrics) => ended,
    }
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

/// Answers from the zone file.
struct Handler(ZoneFile);

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut to: R,
    ) -> ResponseInfo {
        let zone = self.0.read();
        if let Some(zone) = &zone {
            if zone.silent {
                return unanswered(request);
            }
            sleep(Duration::from_millis(zone.delay_milliseconds)).await;
        }
        let answer = match (request.metadata.op_code, request.queries.queries()) {
            (OpCode::Query, [query]) => Answer::to(query.original(), zone.as_deref()),
            (OpCode::Query, _) => Answer::of_code(ResponseCode::FormErr),
            _ => Answer::of_code(ResponseCode::NotImp),
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = answer.code;
        metadata.authoritative = answer.authoritative;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_SIZE.max(asked.max_payload()));
            edns
        });
        let response = MessageResponseBuilder::new(&request.queries, edns.as_ref()).build(
            metadata,
            &answer.records,
            &answer.authorities,
            &[],
            &[],
        );
        let sent = to.send_response(response).await;
        // A client that has gone gets none.
        sent.unwrap_or_else(|_| unanswered(request))
    }
}

fn unanswered(request: &Request) -> ResponseInfo {
    ResponseInfo::from(Header {
        metadata: Metadata::response_from_request(&request.metadata),
        counts: HeaderCounts::default(),
    })
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, Query},
        rr::{Name, RecordType},
    };
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_cut_and_marked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("zone.json");
        let name = "many.shop.svc.cluster.test";
        let many = (1..=100).map(|last| IpAddr::from([10, 244, 1, last])).collect();
        let zone = Zone {
            domain: "cluster.test".to_owned(),
            names: [(name.to_owned(), Entry::Addresses(many))].into(),
            ..Zone::default()
        };
        std::fs::write(&path, serde_json::to_string(&zone).unwrap()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (udp, tcp) = (socket.local_addr().unwrap(), listener.local_addr().unwrap());
        let mut server = Server::new(Handler(ZoneFile::new(path)));
        server.register_socket(socket);
        server.register_listener(listener, PATIENCE, WAITING);

        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        let question = question.to_vec().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(&question, udp).await.unwrap();
        let mut answer = vec![0; 65_536];
        let length = client.recv(&mut answer).await.unwrap();
        assert!(length <= usize::from(UDP_SIZE));
        assert!(Message::from_vec(&answer[..length]).unwrap().metadata.truncation);

        let mut client = TcpStream::connect(tcp).await.unwrap();
        client
            .write_u16(question.len().try_into().unwrap())
            .await
            .unwrap();
        client.write_all(&question).await.unwrap();
        let mut answer = vec![0; client.read_u16().await.unwrap().into()];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 100);
    }
}
