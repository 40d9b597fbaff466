//! Dials between two namespaces: each way to fail has its own answer.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use svcdiag::netns::{
    Netns,
    links::addresses,
    netfilter::conntrack::Conntrack,
    sockets::{Listener, listeners},
};
use svcdiag::{
    agent::{
        dial::{Dial, Dialled, Offender},
        http::{Got, get},
    },
    api::Answer,
    kube_proxy::Protocol,
};

use super::namespace::{Cable, inside, listen, listen_udp, must, new_namespace, nft, run};

const PATIENCE: Duration = Duration::from_secs(4);

async fn dial(from: &Netns, protocol: Protocol, target: &str) -> Dialled {
    dial_for(from, protocol, target, PATIENCE).await
}

async fn dial_for(from: &Netns, protocol: Protocol, target: &str, patience: Duration) -> Dialled {
    let target: SocketAddr = target.parse().unwrap();
    must(
        must(Dial::start(from, protocol, target).await)
            .finish(patience)
            .await,
    )
}

#[tokio::test]
async fn somebody_answers_over_both_families() {
    let cable = Cable::new();
    let _v4 = listen(&cable.server, "10.1.0.2:9376");
    let _v6 = listen(&cable.server, "[fd01::2]:9376");
    let v4 = dial(&cable.client, Protocol::Tcp, "10.1.0.2:9376").await;
    assert_eq!(v4.answer, Answer::Accepted);
    assert_eq!(v4.source.unwrap().ip().to_string(), "10.1.0.1");
    let v6 = dial(&cable.client, Protocol::Tcp, "[fd01::2]:9376").await;
    assert_eq!(v6.answer, Answer::Accepted);
}

#[tokio::test]
async fn a_closed_port_and_a_rule_that_rejects_are_told_apart() {
    let cable = Cable::new();
    let _listener = listen(&cable.server, "10.1.0.2:80");
    let closed = dial(&cable.client, Protocol::Tcp, "10.1.0.2:9376").await;
    assert_eq!((closed.answer, closed.offender), (Answer::Refused, None));
    nft(
        &cable.server,
        "add table ip t
         add chain ip t in { type filter hook input priority 0; }
         add rule ip t in tcp dport 80 reject with icmp type port-unreachable",
    );
    let rejected = dial(&cable.client, Protocol::Tcp, "10.1.0.2:80").await;
    assert_eq!(rejected.answer, Answer::Rejected);
    let by = rejected.offender.unwrap();
    assert_eq!((by.ip.to_string().as_str(), by.prohibits), ("10.1.0.2", false));
    let v6 = dial(&cable.client, Protocol::Tcp, "[fd01::2]:9376").await;
    assert_eq!((v6.answer, v6.offender), (Answer::Refused, None));
}

#[tokio::test]
async fn a_rule_that_prohibits_is_told_from_a_missing_route() {
    let cable = Cable::new();
    nft(
        &cable.server,
        "add table inet t
         add chain inet t in { type filter hook input priority 0; }
         add rule inet t in tcp dport 80 reject with icmpx admin-prohibited
         add rule inet t in udp dport 80 reject with icmpx admin-prohibited
         add rule inet t in tcp dport 81 reject with icmpx host-unreachable
         add rule inet t in tcp dport 82 reject with icmp net-prohibited
         add rule inet t in tcp dport 83 reject with icmp host-prohibited
         add rule inet t in tcp dport 84 reject with icmpv6 policy-fail
         add rule inet t in tcp dport 85 reject with icmpv6 reject-route
         add rule inet t in tcp dport 86 reject with tcp reset",
    );
    let offender = |ip: &str, prohibits| {
        let ip = ip.parse().unwrap();
        Some(Offender { ip, prohibits })
    };
    for (protocol, target, expected) in [
        (Protocol::Tcp, "10.1.0.2:80", offender("10.1.0.2", true)),
        (Protocol::Udp, "10.1.0.2:80", offender("10.1.0.2", true)),
        (Protocol::Tcp, "10.1.0.2:81", offender("10.1.0.2", false)),
        (Protocol::Tcp, "10.1.0.2:82", offender("10.1.0.2", true)),
        (Protocol::Tcp, "10.1.0.2:83", offender("10.1.0.2", true)),
        (Protocol::Tcp, "[fd01::2]:80", offender("fd01::2", true)),
        (Protocol::Udp, "[fd01::2]:80", offender("fd01::2", true)),
        (Protocol::Tcp, "[fd01::2]:84", offender("fd01::2", true)),
        (Protocol::Tcp, "[fd01::2]:85", offender("fd01::2", true)),
        // A reset does not say who sent it.
        (Protocol::Tcp, "10.1.0.2:86", None),
    ] {
        let dialled = dial(&cable.client, protocol, target).await;
        assert_eq!(dialled.offender, expected, "{protocol:?} {target}");
    }
}

/// The kernel translates the sender of an ICMP message about a translated connection, whoever sent it.
#[tokio::test]
async fn whoever_rejects_what_is_sent_to_a_service_seems_to_be_the_service() {
    let cable = Cable::new();
    inside(&cable.client, || run("ip route add 10.96.0.0/12 dev eth0"));
    nft(
        &cable.client,
        "add table ip t
         add chain ip t out { type nat hook output priority -100; }
         add rule ip t out ip daddr 10.96.0.9 tcp dport 80 dnat to 10.1.0.2:9376",
    );
    nft(
        &cable.server,
        "add table ip t
         add chain ip t in { type filter hook input priority 0; }
         add rule ip t in tcp dport 9376 reject with icmp admin-prohibited",
    );
    let dialled = dial(&cable.client, Protocol::Tcp, "10.96.0.9:80").await;
    let by = dialled.offender.unwrap();
    assert_eq!((by.ip.to_string().as_str(), by.prohibits), ("10.96.0.9", true));
}

/// What a server does with the connection that it takes.
fn serve(cable: &Cable, address: &str, answer: impl FnOnce(TcpStream) + Send + 'static) {
    let listener = listen(&cable.server, address);
    std::thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            answer(stream);
        }
    });
}

async fn request(cable: &Cable, target: &str, patience: Duration) -> Got {
    must(get(&cable.client, target.parse().unwrap(), "/", patience, 0).await)
}

/// Reads the request, so that closing the connection does not reset it.
fn read(stream: &mut TcpStream) {
    let _ = stream.read(&mut [0; 1024]);
}

#[tokio::test]
async fn only_an_answer_is_an_answer() {
    let cable = Cable::new();
    serve(&cable, "10.1.0.2:80", |mut stream| {
        read(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
    });
    let got = request(&cable, "10.1.0.2:80", PATIENCE).await;
    assert!(matches!(got, Got::Answer(204, _)), "{got:?}");
    // Closed with the request unread: the kernel sends a reset.
    serve(&cable, "10.1.0.2:81", |stream| {
        let _ = stream.peek(&mut [0; 1]);
    });
    let got = request(&cable, "10.1.0.2:81", PATIENCE).await;
    assert!(matches!(got, Got::Reset), "{got:?}");
    serve(&cable, "10.1.0.2:82", |mut stream| read(&mut stream));
    let got = request(&cable, "10.1.0.2:82", PATIENCE).await;
    assert!(matches!(got, Got::Reset), "{got:?}");
    serve(&cable, "10.1.0.2:83", |mut stream| {
        read(&mut stream);
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
    });
    let got = request(&cable, "10.1.0.2:83", PATIENCE).await;
    assert!(matches!(got, Got::Garbled), "{got:?}");
    // The kernel takes the connection for a program that never does.
    let _frozen = listen(&cable.server, "10.1.0.2:84");
    let got = request(&cable, "10.1.0.2:84", Duration::from_secs(1)).await;
    assert!(matches!(got, Got::Silent), "{got:?}");
    let got = request(&cable, "10.1.0.2:85", PATIENCE).await;
    assert!(matches!(got, Got::NotConnected(_)), "{got:?}");
}

#[tokio::test]
async fn silence_and_a_missing_neighbour_are_told_apart() {
    let cable = Cable::new();
    nft(
        &cable.server,
        "add table ip t
         add chain ip t in { type filter hook input priority 0; }
         add rule ip t in tcp dport 80 drop",
    );
    let silent = dial_for(
        &cable.client,
        Protocol::Tcp,
        "10.1.0.2:80",
        Duration::from_secs(1),
    )
    .await;
    assert_eq!(silent.answer, Answer::TimedOut);
    let gone = dial(&cable.client, Protocol::Tcp, "10.1.0.77:80").await;
    assert_eq!(gone.answer, Answer::Unreachable);
    let nowhere = dial(&cable.client, Protocol::Tcp, "10.2.0.1:80").await;
    assert_eq!(nowhere.answer, Answer::Unreachable);
}

#[tokio::test]
async fn over_udp_only_a_refusal_is_a_failure() {
    let cable = Cable::new();
    let _silent = listen_udp(&cable.server, "10.1.0.2:9376");
    let silent = dial(&cable.client, Protocol::Udp, "10.1.0.2:9376").await;
    assert_eq!(silent.answer, Answer::Accepted);
    let closed = dial(&cable.client, Protocol::Udp, "10.1.0.2:9377").await;
    assert_eq!(closed.answer, Answer::Refused);
}

/// The kernel answers six datagrams to closed ports at once, and then one a second.
#[tokio::test]
async fn a_refusal_that_the_kernel_rations_is_waited_for() {
    let cable = Cable::new();
    for _ in 0..20 {
        let patience = Duration::from_millis(50);
        dial_for(&cable.client, Protocol::Udp, "10.1.0.2:9377", patience).await;
    }
    let patience = Duration::from_millis(100);
    let impatient = dial_for(&cable.client, Protocol::Udp, "10.1.0.2:9377", patience).await;
    assert_eq!(
        impatient.answer,
        Answer::Accepted,
        "the kernel rations refusals no more"
    );
    let patient = dial(&cable.client, Protocol::Udp, "10.1.0.2:9377").await;
    assert_eq!(patient.answer, Answer::Refused);
}

#[tokio::test]
async fn conntrack_tells_who_answers_for_a_service() {
    let cable = Cable::new();
    let _listener = listen(&cable.server, "10.1.0.2:9376");
    nft(
        &cable.client,
        "add table ip t
         add chain ip t out { type nat hook output priority -100; }
         add rule ip t out ip daddr 10.96.0.1 meta l4proto { tcp, udp } th dport 80 dnat to 10.1.0.2:9376",
    );
    inside(&cable.client, || run("ip route add default via 10.1.0.2"));
    let service: SocketAddr = "10.96.0.1:80".parse().unwrap();
    let dial = must(Dial::start(&cable.client, Protocol::Tcp, service).await);
    let source = dial.source().unwrap();
    let conntrack = must(cable.client.run(Conntrack::open));
    let connection = must(conntrack.find(Protocol::Tcp, source, service)).unwrap();
    assert_eq!(connection.answers, "10.1.0.2:9376".parse().unwrap());
    assert_eq!(must(dial.finish(PATIENCE).await).answer, Answer::Accepted);

    assert_eq!(must(conntrack.towards(Protocol::Udp, service)), []);
    let _udp = listen_udp(&cable.server, "10.1.0.2:9376");
    dial_for(&cable.client, Protocol::Udp, "10.96.0.1:80", PATIENCE).await;
    let flows = must(conntrack.towards(Protocol::Udp, service));
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].answers, "10.1.0.2:9376".parse().unwrap());
    assert!(flows[0].seconds_left > 0);
}

#[test]
fn listeners_and_addresses_of_a_namespace_are_listed() {
    let netns = new_namespace();
    let _tcp = listen(&netns, "127.0.0.1:9376");
    let _udp = listen_udp(&netns, "[::]:53");
    // A process that lives in the namespace, as a container's would.
    let mut process = inside(&netns, || {
        std::process::Command::new("sleep").arg("60").spawn().unwrap()
    });
    let found = listeners(i32::try_from(process.id()).unwrap()).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(
        found,
        [
            Listener {
                protocol: Protocol::Tcp,
                address: "127.0.0.1:9376".parse().unwrap()
            },
            Listener {
                protocol: Protocol::Udp,
                address: "[::]:53".parse().unwrap()
            },
        ]
    );
    let mut ips = must(netns.run(addresses));
    ips.sort();
    assert_eq!(
        ips,
        ["127.0.0.1", "::1"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap())
    );
}
