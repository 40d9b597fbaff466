//! What the packets of a node cost while some are watched, and what the watch of a failed dial costs: `make bench`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

use std::{
    net::UdpSocket,
    process::Command,
    time::{Duration, Instant},
};

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use nix::sched::{CloneFlags, unshare};
use svcdiag::kube_proxy::Protocol;
use svcdiag_drops::{Filter, Kernel, Leg, Paths, Sightings, Tuple, Watch};

/// Packets of a measurement, and how often each is made; the fastest counts.
const PACKETS: u32 = 100_000;
const TIMES: usize = 9;

/// What a busy node drops in a second.
const DROPS: f64 = 10_000.0;

/// Dials that one watch is for at most.
const DIALS: u8 = 64;

fn main() {
    // `cargo test --benches` builds it only.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("root, or hack/as-root");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.unwrap().success());
    let begun = Instant::now();
    let kernel = Kernel::read(Paths::default()).unwrap();
    let read = begun.elapsed();
    let filters: Vec<Filter> = (1..=DIALS).map(filter).collect();

    let mut taken = [Duration::MAX; 3];
    for _ in 0..TIMES {
        // One after the other, so that whatever else the machine does comes upon all.
        taken[0] = taken[0].min(packets());
        let watch = Watch::start(&kernel, &filters).unwrap();
        taken[1] = taken[1].min(packets());
        watch.stop().unwrap();
        let sightings = Sightings::start(&kernel, &filters).unwrap();
        taken[2] = taken[2].min(packets());
        sightings.stop().unwrap();
    }
    let (mut started, mut stopped) = (Duration::MAX, Duration::MAX);
    for _ in 0..TIMES {
        let begun = Instant::now();
        let watch = Watch::start(&kernel, &filters).unwrap();
        started = started.min(begun.elapsed());
        let begun = Instant::now();
        watch.stop().unwrap();
        stopped = stopped.min(begun.elapsed());
    }

    let nanoseconds = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(PACKETS);
    let [alone, watched, seen] = taken.map(nanoseconds);
    let ratio = |with: f64| format!("{with:.0} ns ({:.2} times)", with / alone);
    let share = (watched - alone).max(0.0) * DROPS / 1e9 * 100.0;
    let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let mut table = Table::new();
    table
        .load_style(ASCII_MARKDOWN)
        .set_header(["figure", "measured", "goal"])
        .add_row([
            "a packet that is sent, received and dropped",
            &format!("{alone:.0} ns"),
            "",
        ])
        .add_row([
            "the same while drops are watched for 64 dials",
            &ratio(watched),
            "",
        ])
        .add_row([
            "of a core, beside 10,000 drops a second",
            &format!("{share:.2} %"),
            "under 2 %",
        ])
        .add_row([
            "the same while all packets are watched, in and out",
            &ratio(seen),
            "",
        ])
        .add_row(["read what the kernel is like, once", &milliseconds(read), ""])
        .add_row(["start a watch", &milliseconds(started), ""])
        .add_row(["end it", &milliseconds(stopped), ""]);
    println!("watching packets; at rest no program is loaded:\n{table}");
}

/// Packets of another Pod than those that are sent.
fn filter(last: u8) -> Filter {
    Filter {
        leg: Leg::ToEndpoint,
        tuple: Tuple {
            protocol: Protocol::Udp,
            source: ([10, 1, 0, last], 0).into(),
            destination: ([10, 2, 0, last], 8080).into(),
        },
    }
}

/// Sends packets to a socket that nobody reads: once its buffer is full each of them is dropped.
fn packets() -> Duration {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    for _ in 0..10_000 {
        sender.send(b"full").unwrap();
    }
    let begun = Instant::now();
    for _ in 0..PACKETS {
        sender.send(b"full").unwrap();
    }
    begun.elapsed()
}
