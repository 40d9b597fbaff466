use proptest::prelude::*;

use super::*;

const PAGE: &str = "\
u@node$ curl 10.0.1.175:80
hostnames-0uton

u@node$ curl 10.0.1.175:80
hostnames-yp2kp

pod $ wget -qO- 10.244.0.6:9376
hostnames-bvc05

u@pod$ wget -O- hostnames
Resolving hostnames (hostnames)... failed: Name or service not known.
wget: unable to resolve host address 'hostnames'
";

const REFUSED: &str = "\
  % Total    % Received % Xferd  Average Speed   Time    Time     Time  Current
                                 Dload  Upload   Total   Spent    Left  Speed
  0     0    0     0    0     0      0      0 --:--:-- --:--:-- --:--:--     0*   Trying 127.0.0.1:1...
* connect to 127.0.0.1 port 1 failed: Connection refused
* Failed to connect to 127.0.0.1 port 1 after 0 ms: Couldn't connect to server
  0     0    0     0    0     0      0      0 --:--:-- --:--:-- --:--:--     0
* Closing connection 0
curl: (7) Failed to connect to 127.0.0.1 port 1 after 0 ms: Couldn't connect to server
";

const VERBOSE: &str = "\
*   Trying 10.0.1.175:80...
* Connected to 10.0.1.175 (10.0.1.175) port 80 (#0)
> GET / HTTP/1.1
> Host: 10.0.1.175
>
< HTTP/1.1 200 OK
< Content-Length: 15
<
{ [15 bytes data]
hostnames-0uton
* Connection #0 to host 10.0.1.175 left intact
";

fn one(text: &str) -> Request {
    let requests = parse(text).unwrap();
    assert_eq!(requests.len(), 1, "{text}: {requests:?}");
    requests.into_iter().next().unwrap()
}

#[test]
fn the_page_is_read() {
    let requests = parse(PAGE).unwrap();
    let told: Vec<_> = requests
        .iter()
        .map(|r| (r.line, r.target.as_deref().unwrap(), r.outcome, r.body.as_deref()))
        .collect();
    let accepted = Outcome::Answer(Answer::Accepted);
    let expected = [
        (1, "10.0.1.175:80", accepted, Some("hostnames-0uton")),
        (4, "10.0.1.175:80", accepted, Some("hostnames-yp2kp")),
        (7, "10.244.0.6:9376", accepted, Some("hostnames-bvc05")),
        (10, "hostnames", Outcome::NotResolved, None),
    ];
    assert_eq!(told, expected);
}

#[test]
fn verbose_curl_is_read() {
    let request = one(VERBOSE);
    assert_eq!(
        (request.outcome, request.status),
        (Outcome::Answer(Answer::Accepted), Some(200))
    );
    assert_eq!(request.body.as_deref(), Some("hostnames-0uton"));
    assert_eq!(request.target, None, "no command shows it");
    let request = one(&VERBOSE.replace("200 OK", "503 Service Unavailable"));
    assert_eq!(
        (request.outcome, request.status),
        (Outcome::Answer(Answer::Unexpected), Some(503))
    );
    let request = one(REFUSED);
    assert_eq!(request.outcome, Outcome::Answer(Answer::Refused));
    assert_eq!(
        (request.target.as_deref(), request.body),
        (Some("127.0.0.1 port 1"), None)
    );
}

#[test]
fn failures_are_told_apart() {
    use Answer::{NoAnswer, Refused, Rejected, Reset, TimedOut, Unexpected, Unreachable};
    for (output, outcome) in [
        (
            "curl: (7) Failed to connect to 10.0.1.175 port 80: Connection refused",
            Outcome::Answer(Refused),
        ),
        (
            "curl: (7) Failed to connect to 10.96.86.156 port 80 after 0 ms: Couldn't connect to server",
            Outcome::NotConnected,
        ),
        (
            "curl: (7) Failed to connect to 10.0.1.175 port 80: No route to host",
            Outcome::Answer(Unreachable),
        ),
        (
            "curl: (7) Failed to connect to 10.0.1.175 port 80 after 3068 ms: Couldn't connect to server",
            Outcome::Answer(Unreachable),
        ),
        (
            "curl: (7) Couldn't connect: Network is unreachable",
            Outcome::Answer(Unreachable),
        ),
        (
            "curl: (7) Failed connect to 10.0.1.175:80; Permission denied",
            Outcome::Answer(Rejected),
        ),
        (
            "curl: (28) Connection timed out after 5001 milliseconds",
            Outcome::Answer(TimedOut),
        ),
        (
            "curl: (28) Failed to connect to 10.0.1.175 port 80 after 3002 ms: Timeout was reached",
            Outcome::Answer(TimedOut),
        ),
        (
            "curl: (28) Operation timed out after 10001 milliseconds with 0 bytes received",
            Outcome::Answer(NoAnswer),
        ),
        (
            "curl: (28) Resolving timed out after 5000 milliseconds",
            Outcome::NotResolved,
        ),
        (
            "  0     0    0     0    0     0      0      0 --:--:-- --:--:-- --:--:--     0curl: (6) Could not resolve host: a",
            Outcome::NotResolved,
        ),
        (
            "* connect to 10.0.1.175 port 80 from 10.0.0.2 port 5 failed: No route to host\ncurl: (7) Failed to connect to 10.0.1.175 port 80 after 3 ms: Could not connect to server",
            Outcome::Answer(Unreachable),
        ),
        ("curl: (52) Empty reply from server", Outcome::Closed),
        ("wget: error getting response", Outcome::Closed),
        (
            "curl: (35) OpenSSL SSL_connect: SSL_ERROR_SYSCALL in connection to x:443",
            Outcome::Closed,
        ),
        (
            "curl: (35) error:0A00010B:SSL routines::wrong version number",
            Outcome::Answer(Unexpected),
        ),
        ("curl: (28) SSL connection timeout", Outcome::Answer(NoAnswer)),
        (
            "--2026-11-24 19:55:42--  http://10.0.1.175/\nConnecting to 10.0.1.175:80... connected.\nHTTP request sent, awaiting response... Read error (Connection timed out) in headers.",
            Outcome::Answer(NoAnswer),
        ),
        (
            "--2026-11-24 19:55:42--  http://10.0.1.175/\nConnecting to 10.0.1.175:80... connected.\nHTTP request sent, awaiting response... No data received.",
            Outcome::Closed,
        ),
        (
            "curl: (56) Recv failure: Connection reset by peer",
            Outcome::Answer(Reset),
        ),
        (
            "curl: (22) The requested URL returned error: 404",
            Outcome::Answer(Unexpected),
        ),
        (
            "wget: can't connect to remote host (10.0.1.175): Connection refused",
            Outcome::Answer(Refused),
        ),
        (
            "Connecting to hostnames (10.0.1.175:80)\nwget: download timed out",
            Outcome::Answer(TimedOut),
        ),
        ("wget: bad address 'hostnames'", Outcome::NotResolved),
        (
            "Connecting to a (10.0.0.1:80)\nwget: server returned error: HTTP/1.1 403 Forbidden",
            Outcome::Answer(Unexpected),
        ),
        (
            "--2026-11-24 19:55:42--  http://10.0.1.175/\nConnecting to 10.0.1.175:80... failed: Connection refused.",
            Outcome::Answer(Refused),
        ),
        (
            "--2026-11-24 19:55:42--  http://10.0.1.175/\nConnecting to 10.0.1.175:80... failed: Connection timed out.\nRetrying.\n",
            Outcome::Answer(TimedOut),
        ),
    ] {
        let request = one(&format!(
            "/ # curl -m 5 http://x/\n{output}\ncommand terminated with exit code 7\n"
        ));
        assert_eq!(request.outcome, outcome, "{output}");
        assert_eq!(request.target.as_deref(), Some("http://x/"));
        assert_eq!(request.body, None, "{output}");
        assert_eq!(
            one(output).outcome,
            outcome,
            "messages tell without a prompt: {output}"
        );
    }
}

#[test]
fn gnu_wget_is_read() {
    let text = "--2026-11-24 19:55:42--  http://hostnames/\nResolving hostnames (hostnames)... 10.0.0.9, 10.0.1.175\n\
                Connecting to hostnames (hostnames)|10.0.0.9|:80... failed: Connection refused.\n\
                Connecting to hostnames (hostnames)|10.0.1.175|:80... connected.\n\
                HTTP request sent, awaiting response... 200 OK\nLength: 15 [text/plain]\nSaving to: 'STDOUT'\n\nhostnames-0uton\n\
                -                   100%[===================>]      15  --.-KB/s    in 0s\n\n\
                2026-11-24 19:55:42 (1.4 MB/s) - written to stdout [15/15]\n";
    let request = one(text);
    assert_eq!(
        (request.outcome, request.status),
        (Outcome::Answer(Answer::Accepted), Some(200))
    );
    assert_eq!(request.target.as_deref(), Some("http://hostnames/"));
    assert_eq!(request.body.as_deref(), Some("hostnames-0uton"));
}

#[test]
fn codes_and_silence_are_understood() {
    let request = one("$ curl -s -o /dev/null -w '%{http_code}\\n' http://a:80/\n200\n");
    assert_eq!(
        (request.status, request.outcome),
        (Some(200), Outcome::Answer(Answer::Accepted))
    );
    assert_eq!(
        (request.target.as_deref(), request.body),
        (Some("http://a:80/"), None)
    );
    let request = one("$ curl -s -o /dev/null -w '%{http_code}\\n' http://a:80/\n000\n");
    assert_eq!((request.status, request.outcome), (None, Outcome::Unsaid));
    assert_eq!(one("$ curl -s a\n$ \n").outcome, Outcome::Silent);
}

#[test]
fn exit_codes_tell_what_quiet_programs_do_not() {
    let outcome = |text: &str| one(text).outcome;
    assert_eq!(
        outcome("# curl -s -m 5 a; echo $?\n28\n"),
        Outcome::Answer(Answer::TimedOut)
    );
    assert_eq!(
        outcome("# curl -s -m 5 a; echo \"exit $?\"\nexit 7\n"),
        Outcome::NotConnected
    );
    assert_eq!(
        outcome("# curl -s a; echo $?\nhello0\n"),
        Outcome::Answer(Answer::Accepted)
    );
    assert_eq!(
        one("# curl -s a; echo $?\nhello0\n").body.as_deref(),
        Some("hello")
    );
    let by_kubectl = "$ kubectl exec c -- curl -s -m 5 a\ncommand terminated with exit code 28\n";
    assert_eq!(outcome(by_kubectl), Outcome::Answer(Answer::TimedOut));
    // That is the code of another program, or a body.
    assert_eq!(
        outcome("# curl -s a | head; echo $?\n28\n"),
        Outcome::Answer(Answer::Accepted)
    );
    assert_eq!(outcome("# curl -s a\n28\n"), Outcome::Answer(Answer::Accepted));
}

#[test]
fn clocks_are_read() {
    let took = |text: &str| one(text).took;
    assert_eq!(
        took("# time curl -s a\nhello\n\nreal\t1m3.271s\nuser\t0m0.004s\nsys\t0m0.006s\n"),
        Some(63_271)
    );
    assert_eq!(
        took("/ # time wget -qO- a\nhello\nreal\t0m 5.00s\nuser\t0m 0.00s\nsys\t0m 0.00s\n"),
        Some(5000)
    );
    assert_eq!(
        took("% time curl -s a\nhello\ncurl -s a  0.01s user 0.00s system 0% cpu 1:03.27 total\n"),
        Some(63_270)
    );
    assert_eq!(took("# curl -s a\nreal life\n"), None);
    assert_eq!(
        one("# time curl -s a\nhello\n\nreal\t0m0.1s\n").body.as_deref(),
        Some("hello")
    );
}

#[test]
fn of_a_loop_each_request_counts() {
    let text = "# for i in 1 2 3; do curl -sS -m 2 a; done\nhello\ncurl: (28) Connection timed out\nhello\n";
    let outcomes: Vec<Outcome> = parse(text).unwrap().iter().map(|r| r.outcome).collect();
    let (accepted, lost) = (
        Outcome::Answer(Answer::Accepted),
        Outcome::Answer(Answer::TimedOut),
    );
    assert_eq!(outcomes, [accepted, lost, accepted]);
    let text = "# for i in 1 2; do curl -s a; done\none\ntwo\n";
    assert_eq!(parse(text).unwrap().len(), 1, "what went well needs no counting");
}

#[test]
fn what_a_forward_proxy_says_is_no_answer() {
    for output in [
        "curl: (56) Received HTTP code 403 from proxy after CONNECT",
        "curl: (56) CONNECT tunnel failed, response 403\n* Uses proxy env variable https_proxy == 'http://p:3128'",
        "* Uses proxy env variable http_proxy == 'http://p:3128'\n* Connected to p (10.0.0.1) port 3128\n< HTTP/1.1 200 OK\n",
        "curl: (5) Could not resolve proxy: p",
    ] {
        assert_eq!(
            one(&format!("# curl -v a\n{output}\n")).outcome,
            Outcome::ViaProxy,
            "{output}"
        );
    }
    let text = "# curl -v a\n* Uses proxy env variable no_proxy == '10.0.0.0/8'\n* Connected to a (10.0.0.1) port 80\n< HTTP/1.1 200 OK\n";
    assert_eq!(one(text).outcome, Outcome::Answer(Answer::Accepted));
}

#[test]
fn connections_by_hand_are_read() {
    let accepted = Outcome::Answer(Answer::Accepted);
    for (text, outcome) in [
        (
            "# nc -vz 10.0.0.1 80\nnc: connect to 10.0.0.1 port 80 (tcp) failed: Connection timed out\n",
            Outcome::Answer(Answer::TimedOut),
        ),
        (
            "# nc -zvw3 10.0.0.1 80\nnc: connect to 10.0.0.1 port 80 (tcp) failed: Operation now in progress\n",
            Outcome::Answer(Answer::TimedOut),
        ),
        (
            "/ # nc -zv -w 3 10.0.0.1 80\nnc: 10.0.0.1 (10.0.0.1:80): Connection refused\n",
            Outcome::Answer(Answer::Refused),
        ),
        ("/ # nc -zv 10.0.0.1 80\n10.0.0.1 (10.0.0.1:80) open\n", accepted),
        (
            "# nc -zv 10.0.0.1 80\nConnection to 10.0.0.1 80 port [tcp/http] succeeded!\n",
            accepted,
        ),
        (
            "# ncat -v 10.0.0.1 80\nNcat: Connected to 10.0.0.1:80.\n",
            accepted,
        ),
        (
            "# telnet 10.0.0.1 80\nTrying 10.0.0.1...\ntelnet: Unable to connect to remote host: No route to host\n",
            Outcome::Answer(Answer::Unreachable),
        ),
        (
            "# telnet 10.0.0.1 80\nTrying 10.0.0.1...\nConnected to 10.0.0.1.\nConnection closed by foreign host.\n",
            accepted,
        ),
        ("# nc -z 10.0.0.1 80\n# \n", Outcome::Silent),
    ] {
        let request = one(text);
        assert_eq!(request.target.as_deref(), Some("10.0.0.1:80"), "{text}");
        assert_eq!(request.outcome, outcome, "{text}");
    }
    assert!(
        parse("# nc -zvu 10.0.0.1 53\nConnection to 10.0.0.1 53 port [udp/domain] succeeded!\n").is_err()
    );
    assert!(parse("# nc -l 80\n").is_err());
}

#[test]
fn a_body_that_quotes_curl_is_a_body() {
    let request = one("# curl a\n{\"error\":\"curl: (7) Failed to connect to backend\"}\n");
    assert_eq!(request.outcome, Outcome::Answer(Answer::Accepted));
}

#[test]
fn what_is_no_request_is_an_error() {
    for text in [
        "",
        "hostnames-0uton\n",
        "* a list\n* of things\n",
        "u@pod$ nslookup a\nServer: 10.0.0.10\n",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "(?s).{0,300}") {
        let _ = parse(&text);
        let _ = parse(&format!("$ curl {text}"));
    }

    #[test]
    fn damaged_output_is_survived(which in 0_usize..3, cut in 0_usize..900, at in 0_usize..900, c: char) {
        let text = [PAGE, REFUSED, VERBOSE].get(which).copied().unwrap_or_default();
        let mut chars: Vec<char> = text.chars().take(cut).collect();
        if let Some(place) = chars.get_mut(at) {
            *place = c;
        }
        let _ = parse(&chars.into_iter().collect::<String>());
    }
}

#[test]
fn the_address_that_a_name_stood_for_is_kept() {
    for text in [
        "$ curl -v http://orders/\n* Host orders:80 was resolved.\n*   Trying 10.96.60.1:80...\n* connect to 10.96.60.1 port 80 failed: Connection refused\ncurl: (7) Failed to connect to orders port 80 after 1 ms: Could not connect to server",
        "$ wget -qO- http://orders\nwget: can't connect to remote host (10.96.60.1): Connection refused",
        "$ wget http://orders\nConnecting to orders (10.96.60.1:80)\nwget: can't connect to remote host: Connection refused",
        "$ wget http://orders\nConnecting to orders (orders)|10.96.60.1|:80... failed: Connection refused.",
    ] {
        let request = one(text);
        assert_eq!(request.tried, Some("10.96.60.1".parse().unwrap()), "{text}");
        assert_eq!(request.outcome, Outcome::Answer(Answer::Refused), "{text}");
    }
    assert_eq!(
        one("$ curl orders\ncurl: (7) Failed to connect to orders port 80: Connection refused").tried,
        None
    );
}
