//! What is no drop of the dial.

use std::{
    fs,
    io::Write,
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use svcdiag_drops::Watch;

use crate::network::{CLIENT, ENDPOINT, Network, dial, filters, kernel, watched};

const DROP_OTHERS: &str = "table inet filter { chain drops { type filter hook forward priority 0; udp dport 9 drop; tcp dport 8081 drop; }; }";

#[test]
fn a_healthy_dial_beside_ten_thousand_unrelated_drops_a_second() {
    const RATE: u64 = 10_000;
    let Some(kernel) = kernel() else { return };
    let network = Network::routed();
    let _listener = network.endpoint.listen(ENDPOINT);
    network.node.nft(DROP_OTHERS);
    let stop = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let figures = std::thread::scope(|scope| {
        let (network, stop, sent) = (&network, &stop, &sent);
        scope.spawn(move || {
            network.client.inside(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                let start = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let due = start.elapsed().as_millis() as u64 * RATE / 1000;
                    while sent.load(Ordering::Relaxed) < due {
                        socket.send_to(b"noise", "10.2.0.2:9").unwrap();
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        });
        let begin = Instant::now();
        let watch = Watch::start(&kernel, &filters(CLIENT, None, ENDPOINT)).unwrap();
        let started = begin.elapsed();
        let before = sent.load(Ordering::Relaxed);
        while begin.elapsed() < Duration::from_secs(2) {
            assert!(dial(&network.client, ENDPOINT));
            std::thread::sleep(Duration::from_millis(50));
        }
        let rate = (sent.load(Ordering::Relaxed) - before) / 2;
        let begin = Instant::now();
        let drops = watch.stop().unwrap();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(drops, []);
        assert!(rate > RATE / 2, "the noise was but {rate} a second");
        (started, begin.elapsed(), rate)
    });
    let (start, finish, rate) = figures;
    let _ = writeln!(
        std::io::stderr(),
        "watch beside {rate} drops a second: start {start:?}, finish {finish:?}"
    );
}

/// 2 % of a core at ten thousand drops a second are two microseconds for each, which a busy machine stretches: the figures
/// are printed, and the ratio is what cannot be by chance.
#[test]
fn an_unrelated_drop_costs_no_more_than_twice_itself() {
    const PACKETS: u32 = 2_000;
    let Some(kernel) = kernel() else { return };
    let network = Network::routed();
    network.node.nft(DROP_OTHERS);
    let burst = || {
        network.client.inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let begin = Instant::now();
            for _ in 0..PACKETS {
                socket.send_to(b"noise", "10.2.0.2:9").unwrap();
            }
            begin.elapsed() / PACKETS
        })
    };
    // Whatever else runs on the machine lengthens some bursts: the shortest of each kind are compared.
    let (mut alone, mut watched) = (Duration::MAX, Duration::MAX);
    for _ in 0..20 {
        alone = alone.min(burst());
        let watch = Watch::start(&kernel, &filters(CLIENT, None, ENDPOINT)).unwrap();
        watched = watched.min(burst());
        assert_eq!(watch.stop().unwrap(), []);
    }
    let _ = writeln!(
        std::io::stderr(),
        "a drop takes {alone:?}, and {watched:?} beside a watch"
    );
    assert!(watched < 3 * alone);
}

#[test]
fn a_dial_of_another_port_that_is_dropped() {
    let Some(kernel) = kernel() else { return };
    let network = Network::routed();
    let _listener = network.endpoint.listen(ENDPOINT);
    network.node.nft(DROP_OTHERS);
    let drops = watched(&kernel, &filters(CLIENT, None, ENDPOINT), || {
        assert!(!dial(&network.client, "10.2.0.2:8081"));
    });
    assert_eq!(drops, []);
}

#[test]
fn a_watch_that_is_dropped_is_detached() {
    let Some(kernel) = kernel() else { return };
    const WATCHES: usize = 100;
    let links = || {
        let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
        targets
            .filter(|target| target.to_string_lossy().contains("bpf"))
            .count()
    };
    for _ in 0..WATCHES {
        drop(Watch::start(&kernel, &filters(CLIENT, None, ENDPOINT)).unwrap());
    }
    // Other tests watch meanwhile.
    assert!(links() < WATCHES / 2);
}
