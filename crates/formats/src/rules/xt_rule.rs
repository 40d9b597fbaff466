//! One rule as `iptables-save` writes it.
//!
//! What comes out is what `svcdiag_netns::netfilter::xt` makes of the same rule in the kernel. Source: the manual
//! pages iptables(8) and iptables-extensions(8).

use std::net::SocketAddr;

use super::{
    Wrong,
    chain_names::is_cut,
    words::Words,
    xt_values::{first_destination, network, ports, protocol},
};
use svcdiag_kube_proxy::{IpFamily, Match, Rule, Target};

/// Targets that are extensions; every other name is that of a chain.
const EXTENSIONS: [&str; 40] = [
    "AUDIT",
    "BALANCE",
    "CHECKSUM",
    "CLASSIFY",
    "CLUSTERIP",
    "CONNMARK",
    "CONNSECMARK",
    "CT",
    "DNPT",
    "DSCP",
    "ECN",
    "HL",
    "HMARK",
    "IDLETIMER",
    "LED",
    "LOG",
    "MARK",
    "MIRROR",
    "NETMAP",
    "NFLOG",
    "NFQUEUE",
    "NOTRACK",
    "QUEUE",
    "RATEEST",
    "REDIRECT",
    "SAME",
    "SECMARK",
    "SET",
    "SNAT",
    "SNPT",
    "SYNPROXY",
    "TCPMSS",
    "TCPOPTSTRIP",
    "TEE",
    "TOS",
    "TPROXY",
    "TRACE",
    "TTL",
    "ULOG",
    "DNETMAP",
];

/// Reads what stands behind `-A CHAIN`.
pub(super) fn read(chain: &str, text: &str, family: IpFamily) -> Result<Rule, Wrong> {
    let mut reader = Reader {
        family,
        words: Words::of(text),
        matches: Vec::new(),
        open: None,
    };
    let mut target = None;
    let mut not = false;
    while let Some(word) = reader.words.next()? {
        match word.as_ref() {
            "!" => {
                not = true;
                continue;
            }
            "-j" | "--jump" | "-g" | "--goto" => {
                reader.close();
                target = Some(reader.target()?);
                // What follows belongs to the target, which has read what it needs.
                break;
            }
            option => reader.option(option, not)?,
        }
        not = false;
    }
    reader.close();
    let matches = reader.matches;
    // kube-proxy writes one rule without a target, a remark.
    let is_remark = !matches.is_empty() && matches.iter().all(|m| *m == Match::Neutral);
    match target {
        None if chain.starts_with("KUBE-") && !is_remark => {
            Err(Wrong::new("the end of the rule", "a target, -j CHAIN"))
        }
        target => Ok(Rule {
            matches,
            target: target.unwrap_or_default(),
        }),
    }
}

struct Reader<'a> {
    family: IpFamily,
    words: Words<'a>,
    matches: Vec<Match>,
    /// The match whose options are being read.
    open: Option<Match>,
}

impl Reader<'_> {
    fn close(&mut self) {
        self.matches.extend(self.open.take());
    }

    fn option(&mut self, option: &str, not: bool) -> Result<(), Wrong> {
        match option {
            "-s" | "--source" | "-d" | "--destination" => {
                let net = network(&self.words.value("an address")?, self.family)?;
                let is_source = matches!(option, "-s" | "--source");
                self.matches.extend(match net {
                    // The network of all addresses is no condition for the kernel.
                    Some(net) if net.prefix_len() == 0 && !not => None,
                    Some(net) if is_source => Some(Match::Source { net, not }),
                    Some(net) => Some(Match::Destination { net, not }),
                    None => Some(Match::Other(
                        if is_source { "source" } else { "destination" }.to_owned(),
                    )),
                });
            }
            "-p" | "--protocol" => {
                let name = self.words.value("a protocol")?;
                self.matches.extend(match protocol(&name) {
                    Some(0) => None,
                    Some(number) if !not => Some(Match::Protocol(number)),
                    _ => Some(Match::Other("protocol".to_owned())),
                });
            }
            "-i" | "-o" | "--in-interface" | "--out-interface" => {
                self.words.value("a network interface")?;
                let interface = Match::Other("interface".to_owned());
                if !self.matches.contains(&interface) {
                    self.matches.push(interface);
                }
            }
            "-m" | "--match" => {
                self.close();
                let name = self.words.value("the name of a match")?;
                self.open = Some(match name.as_ref() {
                    "comment" | "nfacct" => Match::Neutral,
                    "statistic" => Match::Random,
                    "tcp" | "udp" | "sctp" => Match::DestinationPort(0..=u16::MAX),
                    other => Match::Other(other.to_owned()),
                });
            }
            "--dport" | "--destination-port" => {
                let ports = ports(&self.words.value("a port")?)?;
                let turned_round = Match::Other("port".to_owned());
                self.open = Some(if not {
                    turned_round
                } else {
                    Match::DestinationPort(ports)
                });
            }
            "--sport" | "--source-port" if not => {
                self.open = Some(Match::Other("port".to_owned()));
            }
            "--src-type" | "--dst-type" => {
                let kind = self.words.value("a type of address")?;
                // Both, or one turned round, is nothing that kube-proxy writes.
                let is_plain = self.open == Some(Match::Other("addrtype".to_owned())) && !not;
                self.open = Some(match (option, kind.as_ref()) {
                    ("--src-type", "LOCAL") if is_plain => Match::SourceIsLocal,
                    ("--dst-type", "LOCAL") if is_plain => Match::DestinationIsLocal,
                    _ => Match::Other("address type".to_owned()),
                });
            }
            "--limit-iface-in" | "--limit-iface-out" => {
                self.open = Some(Match::Other("address type".to_owned()));
            }
            "--comment" => {
                self.words.value("a comment")?;
            }
            "--set" if self.is_recent() => self.open = Some(Match::Neutral),
            "--rcheck" | "--update" if self.is_recent() && !not => {
                self.open = Some(Match::Affinity(String::new()));
            }
            "--name" => {
                let name = self.words.value("a name")?;
                if let Some(Match::Affinity(seen)) = &mut self.open {
                    *seen = name.into_owned();
                }
            }
            // Options that do not change what the match is called here, and their values.
            _ => {}
        }
        Ok(())
    }

    fn is_recent(&self) -> bool {
        self.open == Some(Match::Other("recent".to_owned()))
    }

    fn target(&mut self) -> Result<Target, Wrong> {
        let name = self.words.value("the name of a target")?;
        Ok(match name.as_ref() {
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "RETURN" => Target::Return,
            "REJECT" => Target::Reject,
            "MASQUERADE" => Target::Masquerade,
            "DNAT" => Target::Dnat(vec![self.destination()?]),
            extension if EXTENSIONS.contains(&extension) => Target::Other(extension.to_owned()),
            chain if is_cut(chain) => {
                return Err(Wrong::word(
                    chain,
                    "a chain's whole name, which ends with 16 letters",
                ));
            }
            chain => Target::Chain(chain.to_owned()),
        })
    }

    /// The value of `--to-destination`.
    fn destination(&mut self) -> Result<SocketAddr, Wrong> {
        // What an iptables does not understand of a rule that a newer one wrote it leaves out, or writes as zeros.
        const EXPECTED: &str = "--to-destination ADDRESS:PORT (an iptables that is older than kube-proxy's shows its rules so: use kube-proxy's own)";
        while let Some(option) = self.words.next()? {
            if option == "--to-destination" {
                let value = self.words.value(EXPECTED)?;
                return first_destination(&value).ok_or_else(|| Wrong::word(&value, EXPECTED));
            }
        }
        Err(Wrong::new("the end of the rule", EXPECTED))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn rule(text: &str) -> Result<Rule, Wrong> {
        read("KUBE-SVC-NWV5X2332I4OT4T3", text, IpFamily::V4)
    }

    #[test]
    fn conditions_and_targets_of_kube_proxy_are_read() {
        let read = rule(
            "! -s 10.244.0.0/16 -d 10.0.1.175/32 -p tcp -m comment --comment \"a \\\"b\\\" -j DROP\" \
             -m tcp --dport 80 -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ",
        );
        assert_eq!(
            read.unwrap(),
            Rule {
                matches: vec![
                    Match::Source {
                        net: "10.244.0.0/16".parse().unwrap(),
                        not: true
                    },
                    Match::Destination {
                        net: "10.0.1.175/32".parse().unwrap(),
                        not: false
                    },
                    Match::Protocol(6),
                    Match::Neutral,
                    Match::DestinationPort(80..=80),
                    Match::SourceIsLocal,
                ],
                target: Target::Chain("KUBE-MARK-MASQ".to_owned()),
            }
        );
        let sticky = rule(
            "-m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-A --mask 255.255.255.255 --rsource \
             -j KUBE-SEP-57KPRZ3JQVENLNBR",
        );
        assert_eq!(
            sticky.unwrap().matches,
            [Match::Affinity("KUBE-SEP-A".to_owned())]
        );
        let memory = rule("-m recent --set --name A -p tcp -m tcp -j DNAT --to-destination 10.244.3.6:9376");
        assert_eq!(
            memory.unwrap().target,
            Target::Dnat(vec!["10.244.3.6:9376".parse().unwrap()])
        );
        let mark = rule("-s 10.244.3.6/32 -j MARK --set-xmark 0x00004000/0x00004000");
        assert_eq!(mark.unwrap().target, Target::Other("MARK".to_owned()));
        let v6 = read_v6("-p tcp -m tcp -j DNAT --to-destination [fd00::6]:9376");
        assert_eq!(
            v6.unwrap().target,
            Target::Dnat(vec!["[fd00::6]:9376".parse().unwrap()])
        );
    }

    fn read_v6(text: &str) -> Result<Rule, Wrong> {
        read("KUBE-SEP-57KPRZ3JQVENLNBR", text, IpFamily::V6)
    }

    #[test]
    fn what_was_cut_is_no_rule() {
        for text in [
            "",
            "-m statistic --mode random --probability 0.33",
            "-m comment --comment \"default/host",
            "-j",
            "-j KUBE-SEP-57KPRZ3JQ",
            "-j DNAT --to-destination 10.244",
            "-j DNAT",
            "-s 10.244.0.300/32 -j KUBE-MARK-MASQ",
            "-p tcp -m tcp --dport",
        ] {
            assert!(rule(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_words_are_survived(
            words in prop::collection::vec(prop::sample::select(vec![
                "!", "-s", "-d", "-p", "-m", "-j", "-g", "-i", "tcp", "comment", "--comment", "\"a b\"", "\"",
                "--dport", "80", "1:2", ":", "recent", "--rcheck", "--name", "addrtype", "--src-type", "LOCAL",
                "DNAT", "--to-destination", "[::1]:1", "1.2.3.4:5-6", "10.0.0.0/8", "/", "KUBE-SEP-A", "::/0",
            ]), 0..12),
            noise in "\\PC{0,10}",
        ) {
            let text = format!("{} {noise}", words.join(" "));
            let _ = rule(&text);
            let _ = read_v6(&text);
        }
    }
}
