use proptest::prelude::*;

use super::*;

const PAGE: &str = "\
u@pod$ nslookup hostnames
Address 1: 10.0.0.10 kube-dns.kube-system.svc.cluster.local

Name:      hostnames
Address 1: 10.0.1.175 hostnames.default.svc.cluster.local

u@node$ nslookup hostnames.default.svc.cluster.local 10.0.0.10
Server:         10.0.0.10
Address:        10.0.0.10#53

Name:   hostnames.default.svc.cluster.local
Address: 10.0.1.175

u@pod$ nslookup kubernetes.default
Server:    10.0.0.10
Address 1: 10.0.0.10 kube-dns.kube-system.svc.cluster.local

Name:      kubernetes.default
Address 1: 10.0.0.1 kubernetes.default.svc.cluster.local
";

const DIG: &str = "\
; <<>> DiG 9.18.49 <<>> hostnames.default.svc.cluster.local @10.0.0.10
;; global options: +cmd
;; Got answer:
;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 33163
;; flags: qr aa rd; QUERY: 1, ANSWER: 1, AUTHORITY: 0, ADDITIONAL: 1

;; OPT PSEUDOSECTION:
; EDNS: version: 0, flags:; udp: 1232
;; QUESTION SECTION:
;hostnames.default.svc.cluster.local. IN A

;; ANSWER SECTION:
hostnames.default.svc.cluster.local. 5 IN A 10.0.1.175

;; Query time: 0 msec
;; SERVER: 10.0.0.10#53(10.0.0.10) (UDP)
";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn one(text: &str) -> NameLookup {
    let lookups = parse(text).unwrap();
    assert_eq!(lookups.len(), 1, "{text}: {lookups:?}");
    lookups.into_iter().next().unwrap()
}

#[test]
fn the_page_is_read() {
    let lookups = parse(PAGE).unwrap();
    let told: Vec<_> = lookups
        .iter()
        .map(|l| {
            (
                l.line,
                l.name.as_deref().unwrap(),
                l.result,
                l.addresses.as_slice(),
            )
        })
        .collect();
    let expected = [
        (1, "hostnames", LookupResult::Found, &[ip("10.0.1.175")][..]),
        (
            7,
            "hostnames.default.svc.cluster.local",
            LookupResult::Found,
            &[ip("10.0.1.175")],
        ),
        (14, "kubernetes.default", LookupResult::Found, &[ip("10.0.0.1")]),
    ];
    assert_eq!(told, expected);
    assert!(
        lookups
            .iter()
            .all(|l| l.server == Some(ip("10.0.0.10")) && l.tool == Tool::Nslookup)
    );
}

#[test]
fn without_prompts_outputs_are_told_apart() {
    let text = "Server:\t10.0.0.10\nAddress:\t10.0.0.10:53\n\nName:\ta.b\nAddress: 10.0.0.1\nAddress: fd00::1\n\n\
                Server:\t10.0.0.10\nAddress:\t10.0.0.10#53\n\n** server can't find c.d: NXDOMAIN\n";
    let lookups = parse(text).unwrap();
    let told: Vec<_> = lookups
        .iter()
        .map(|l| (l.line, l.name.as_deref(), l.result, l.addresses.len()))
        .collect();
    assert_eq!(
        told,
        [
            (1, Some("a.b"), LookupResult::Found, 2),
            (8, Some("c.d"), LookupResult::NotFound, 0)
        ]
    );
    assert_eq!(parse(&format!("{DIG}\n{DIG}")).unwrap().len(), 2);
}

#[test]
fn failures_of_nslookup_are_told_apart() {
    use LookupResult::{Failed, NotFound, TimedOut};
    for (output, result, explained) in [
        (
            "Server:\t10.0.0.10\nAddress:\t10.0.0.10#53\n\n** server can't find x: NXDOMAIN\n\n*** Can't find x: No answer\n",
            NotFound,
            true,
        ),
        (
            "Server:\t10.0.0.10\n\n** server can't find x: SERVFAIL\n",
            Failed,
            true,
        ),
        (
            "** server can't find x.a: NXDOMAIN\n** server can't find x.b: SERVFAIL\n",
            Failed,
            true,
        ),
        (
            ";; connection timed out; no servers could be reached\n",
            TimedOut,
            true,
        ),
        (
            ";; communications error to 10.0.0.10#53: timed out\n;; no servers could be reached\n",
            TimedOut,
            true,
        ),
        (
            ";; communications error to 10.0.0.10#53: connection refused\n;; no servers could be reached\n",
            Failed,
            true,
        ),
        (
            ";; communications error to 10.0.0.9#53: timed out\nServer: 10.0.0.10\n\n** server can't find x: NXDOMAIN\n",
            NotFound,
            true,
        ),
        (
            "nslookup: can't resolve '(null)': Name does not resolve\n\nnslookup: can't resolve 'x': Name does not resolve\n",
            NotFound,
            true,
        ),
        ("nslookup: can't resolve 'x': Try again\n", Failed, true),
        (
            "Server:    10.0.0.10\nAddress 1: 10.0.0.10\n\nnslookup: can't resolve 'x'\n",
            NotFound,
            false,
        ),
    ] {
        let lookup = one(&format!("/ # nslookup x\n{output}"));
        assert_eq!((lookup.result, lookup.explained), (result, explained), "{output}");
        assert_eq!(lookup.name.as_deref(), Some("x"));
        assert!(lookup.addresses.is_empty());
    }
}

#[test]
fn what_was_found_outweighs_other_suffixes() {
    let text = "/ # nslookup es\nServer:         169.254.25.10\nAddress:        169.254.25.10:53\n\n** server can't find es.cluster.local: NXDOMAIN\n\n\
                Name:   es.default.svc.cluster.local\nAddress: 10.233.36.216\n\n*** Can't find es.svc.cluster.local: No answer\n";
    let lookup = one(text);
    assert_eq!(
        (lookup.name.as_deref(), lookup.result),
        (Some("es"), LookupResult::Found)
    );
    assert_eq!(lookup.addresses, [ip("10.233.36.216")]);
    assert_eq!(lookup.server, Some(ip("169.254.25.10")));
}

#[test]
fn dig_is_read() {
    let lookup = one(DIG);
    assert_eq!(
        lookup.name.as_deref(),
        Some("hostnames.default.svc.cluster.local")
    );
    assert_eq!(
        (lookup.tool, lookup.result, lookup.server),
        (Tool::Dig, LookupResult::Found, Some(ip("10.0.0.10")))
    );
    assert_eq!(lookup.addresses, [ip("10.0.1.175")]);

    let none = DIG.replace("hostnames.default.svc.cluster.local. 5 IN A 10.0.1.175\n", "");
    assert_eq!(one(&none).result, LookupResult::NotFound);
    for (status, result) in [
        ("NXDOMAIN", LookupResult::NotFound),
        ("SERVFAIL", LookupResult::Failed),
        ("REFUSED", LookupResult::Failed),
    ] {
        assert_eq!(one(&none.replace("NOERROR", status)).result, result);
    }
    let lookup = one(
        "$ dig @10.0.0.10 -p 53 a.b A\n;; communications error to 10.0.0.10#53: timed out\n;; no servers could be reached\n",
    );
    assert_eq!(
        (lookup.name.as_deref(), lookup.server, lookup.result),
        (Some("a.b"), Some(ip("10.0.0.10")), LookupResult::TimedOut)
    );
}

#[test]
fn short_outputs_need_their_command() {
    let lookup = one("$ dig +short a.b\n10.0.0.1\n10.0.0.2\n");
    assert_eq!((lookup.addresses.len(), lookup.explained), (2, true));
    let lookup = one("$ dig +short a.b\n$ whoami\nroot\n");
    assert_eq!((lookup.result, lookup.explained), (LookupResult::NotFound, false));
    let lookup = one("u@pod$ getent hosts hostnames\n10.0.1.175      hostnames.default.svc.cluster.local\n");
    assert_eq!(
        (lookup.name.as_deref(), lookup.tool),
        (Some("hostnames"), Tool::Getent)
    );
    assert_eq!(lookup.addresses, [ip("10.0.1.175")]);
    let lookup = one("u@pod$ getent hosts hostnames\nu@pod$\n");
    assert_eq!((lookup.result, lookup.explained), (LookupResult::NotFound, false));
}

#[test]
fn host_is_read() {
    let lookups =
        parse("a.b has address 10.0.0.1\na.b has IPv6 address fd00::1\nc.d has address 10.0.0.2\n").unwrap();
    let told: Vec<_> = lookups
        .iter()
        .map(|l| (l.name.as_deref(), l.addresses.len()))
        .collect();
    assert_eq!(told, [(Some("a.b"), 2), (Some("c.d"), 1)]);
    assert_eq!(
        one("Host x not found: 3(NXDOMAIN)\n").result,
        LookupResult::NotFound
    );
    assert_eq!(
        one("$ host x\nHost x not found: 2(SERVFAIL)\n").result,
        LookupResult::Failed
    );
}

#[test]
fn what_is_no_look_up_is_an_error() {
    for text in [
        "",
        "hostnames-0uton\n",
        "u@pod$ curl a\n10.0.0.1\n",
        "Server: 10.0.0.10\nAddress: 10.0.0.10:53\n",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
    let error = parse("\nfoo\n").unwrap_err().to_string();
    assert!(
        error.starts_with("line 2: expected output of nslookup, dig"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "(?s).{0,300}") {
        let _ = parse(&text);
    }

    #[test]
    fn damaged_output_is_survived(dig: bool, cut in 0_usize..900, at in 0_usize..900, c: char) {
        let mut chars: Vec<char> = if dig { DIG } else { PAGE }.chars().take(cut).collect();
        if let Some(place) = chars.get_mut(at) {
            *place = c;
        }
        let _ = parse(&chars.into_iter().collect::<String>());
    }
}

#[test]
fn what_no_client_would_ask_like_this_says_nothing() {
    // busybox searches for no name with a dot, and an older one for none; the kind that was asked for has no
    // addresses.
    for name in ["kubernetes.default", "hostnames"] {
        let text = format!(
            "u@pod$ nslookup {name}\nServer:\t10.0.0.10\nAddress:\t10.0.0.10:53\n\n\
             ** server can't find {name}: NXDOMAIN\n\
             u@pod$ nslookup -type=AAAA hostnames\nServer:\t10.0.0.10\nAddress:\t10.0.0.10#53\n\n\
             *** Can't find hostnames: No answer\n"
        );
        assert_eq!(one(&text).result, LookupResult::Unclear, "{name}");
    }
}

#[test]
fn names_that_were_tried_with_suffixes_are_told() {
    let text = "/ # nslookup web\nServer:\t10.0.0.10\nAddress:\t10.0.0.10:53\n\n\
                ** server can't find web.shop.svc.cluster.local: NXDOMAIN\n\n\
                ** server can't find web.svc.cluster.local: NXDOMAIN\n";
    let lookup = one(text);
    assert_eq!(lookup.result, LookupResult::NotFound);
    assert_eq!(
        lookup.denied,
        ["web.shop.svc.cluster.local", "web.svc.cluster.local"]
    );
    let found = one(
        "$ nslookup web\nServer:\t10.0.0.10\nAddress:\t10.0.0.10#53\n\nName:\tweb.shop.wild.example\nAddress: 10.0.0.1\n",
    );
    assert_eq!(found.found_as.as_deref(), Some("web.shop.wild.example"));
}

#[test]
fn codes_of_servers_are_told() {
    for (text, code) in [
        (
            "$ nslookup x\n;; Got SERVFAIL reply from 10.0.0.10, trying next server\nServer:\t10.0.0.10\nAddress:\t10.0.0.10#53\n\n** server can't find x: SERVFAIL\n",
            Some("SERVFAIL"),
        ),
        ("$ host x\nHost x not found: 5(REFUSED)\n", Some("REFUSED")),
        (
            "$ dig x.y\n;; ->>HEADER<<- opcode: QUERY, status: SERVFAIL, id: 1\n",
            Some("SERVFAIL"),
        ),
        (
            ";; communications error to 10.0.0.10#53: connection refused\n;; no servers could be reached\n",
            None,
        ),
        ("$ nslookup x\nnslookup: can't resolve 'x': Try again\n", None),
    ] {
        let lookup = one(text);
        assert_eq!(
            (lookup.result, lookup.code.as_deref()),
            (LookupResult::Failed, code),
            "{text}"
        );
    }
}
