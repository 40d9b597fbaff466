use proptest::prelude::*;

use super::*;

type Told<'a> = (Option<&'a str>, Option<&'a str>, Option<bool>, Option<bool>);

fn told(link: &Link) -> Told<'_> {
    (
        link.name.as_deref(),
        link.bridge.as_deref(),
        link.hairpin,
        link.promiscuous,
    )
}

#[test]
fn the_page_is_read() {
    let text =
        "for intf in /sys/devices/virtual/net/cbr0/brif/*; do cat $intf/hairpin_mode; done\n1\n1\n0\n1\n";
    let modes: Vec<_> = parse(text).unwrap().iter().map(|l| (l.line, l.hairpin)).collect();
    assert_eq!(
        modes,
        [
            (2, Some(true)),
            (3, Some(true)),
            (4, Some(false)),
            (5, Some(true))
        ]
    );
    let text =
        "u@node$ ifconfig cbr0 |grep PROMISC\nUP BROADCAST RUNNING PROMISC MULTICAST  MTU:1460  Metric:1\n";
    let links = parse(text).unwrap();
    assert_eq!(
        links.iter().map(told).collect::<Vec<_>>(),
        [(Some("cbr0"), None, None, Some(true))]
    );
}

#[test]
fn listings_with_paths_are_read() {
    let text = "/sys/class/net/veth31e32a15/brport/hairpin_mode: 1\n/sys/class/net/veth2/brport/hairpin_mode:0\n\
                /sys/devices/virtual/net/cni0/brif/veth3/hairpin_mode = 0\n";
    let links = parse(text).unwrap();
    let expected = [
        (Some("veth31e32a15"), None, Some(true), None),
        (Some("veth2"), None, Some(false), None),
        (Some("veth3"), Some("cni0"), Some(false), None),
    ];
    assert_eq!(links.iter().map(told).collect::<Vec<_>>(), expected);
}

#[test]
fn iproute2_is_read() {
    let text = "\
3: cni0: <BROADCAST,MULTICAST,PROMISC,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP mode DEFAULT
link/ether 0a:0b:8a:20:b4:1a brd ff:ff:ff:ff:ff:ff promiscuity 1  allmulti 0 minmtu 68 maxmtu 65535
4: veth99be7943@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue master cni0 state UP mode DEFAULT
link/ether d6:21:fa:83:32:93 brd ff:ff:ff:ff:ff:ff link-netns cni-8b44cf7f promiscuity 1  allmulti 1
bridge_slave state forwarding priority 32 cost 2 hairpin on guard off root_block off
5: vethb0@eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 master cni0 state forwarding priority 32 cost 2
hairpin off guard off root_block off fastleave off
6: eth0@if8: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP
link/ether 86:ec:aa:fa:79:29 brd ff:ff:ff:ff:ff:ff link-netnsid 0 promiscuity 0  allmulti 0
";
    let links = parse(text).unwrap();
    let expected = [
        (Some("cni0"), None, None, Some(true)),
        (Some("veth99be7943"), Some("cni0"), Some(true), Some(true)),
        (Some("vethb0"), Some("cni0"), Some(false), Some(false)),
        (Some("eth0"), None, None, Some(false)),
    ];
    assert_eq!(links.iter().map(told).collect::<Vec<_>>(), expected);
}

#[test]
fn ifconfig_of_both_ages_is_read() {
    let old = "cbr0      Link encap:Ethernet  HWaddr 0a:58:0a:f4:00:01\n          inet addr:10.244.0.1  Mask:255.255.255.0\n          \
               UP BROADCAST RUNNING MULTICAST  MTU:1460  Metric:1\n          RX packets:1\n";
    assert_eq!(
        parse(old).unwrap().iter().map(told).collect::<Vec<_>>(),
        [(Some("cbr0"), None, None, Some(false))]
    );
    let new = "cbr0: flags=4419<UP,BROADCAST,RUNNING,PROMISC,MULTICAST>  mtu 1460\n        inet 10.244.0.1\n";
    assert_eq!(
        parse(new).unwrap().iter().map(told).collect::<Vec<_>>(),
        [(Some("cbr0"), None, None, Some(true))]
    );
    let nothing = "u@node$ ifconfig cbr0 |grep PROMISC\n\nu@node$\n";
    assert_eq!(
        parse(nothing).unwrap().iter().map(told).collect::<Vec<_>>(),
        [(Some("cbr0"), None, None, Some(false))]
    );
}

#[test]
fn what_tells_of_no_link_is_an_error() {
    for text in [
        "",
        "hello\n",
        "[\n1\n]\n",
        "cat: /sys/class/net/x/brport/hairpin_mode: No such file or directory\n",
        "u@node$ ifconfig cbr0 | grep PROMISC\ncbr0: error fetching interface information: Device not found\n",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "(?s).{0,300}") {
        let _ = parse(&text);
    }

    #[test]
    fn damaged_lines_are_survived(parts in prop::collection::vec("(4: |x@|<|>|: |flags=|/hairpin_mode|/brif/| Link encap:|MTU:|hairpin |master |promiscuity |é|1|\n){1}", 0..16)) {
        let _ = parse(&parts.concat());
    }
}
