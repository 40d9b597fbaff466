use proptest::prelude::*;

use super::*;

const PAGE: &str = "u@node$ ps auxw | grep kube-proxy\nroot  4194  0.4  0.1 101864 17696 ?    Sl Jul04  25:43 \
    /usr/local/bin/kube-proxy --master=https://kubernetes-master --kubeconfig=/var/lib/kube-proxy/kubeconfig --v=2\n";

const CAPTURE: &str = "\
USER         PID %CPU %MEM    VSZ   RSS TTY      STAT START   TIME COMMAND
root         128  1.7  0.3 1344288 95992 ?       Ssl  19:19   0:06 /usr/local/bin/kubelet --config=/var/lib/kubelet/config.yaml --v=2
root        3599  2.1  0.2 1330352 61048 ?       Ssl  19:25   0:00 /usr/local/bin/kube-proxy --config=/c.conf --v=2
";

#[test]
fn the_page_is_read() {
    let ps = Ps::parse(PAGE).unwrap();
    let proxy = ps.kube_proxy().unwrap();
    assert_eq!((proxy.line, proxy.pid, proxy.program()), (2, 4194, "kube-proxy"));
    assert_eq!(proxy.flag("master"), Some("https://kubernetes-master"));
    assert_eq!(proxy.verbosity(), Some(2));
    assert_eq!(proxy.flag("proxy-mode"), None);
    assert!(ps.would_show("kube-proxy") && !ps.would_show("kubelet"));
}

#[test]
fn flags_of_the_kubelet_are_read() {
    let text = "root      3392  1.1  0.8 186804 65208 ?        Sl   00:51  11:11 /usr/local/bin/kubelet \
        --v=4 --cluster-dns=10.0.0.10,fd00::a --cluster-domain cluster.local --hairpin-mode=none \
        --hairpin-mode=promiscuous-bridge --babysit --max-pods=110";
    let ps = Ps::parse(text).unwrap();
    let kubelet = ps.program("kubelet").unwrap();
    assert_eq!(kubelet.flag("hairpin-mode"), Some("promiscuous-bridge"));
    assert_eq!(kubelet.flag("cluster-domain"), Some("cluster.local"));
    let dns: Vec<_> = kubelet.cluster_dns().iter().map(ToString::to_string).collect();
    assert_eq!(dns, ["10.0.0.10", "fd00::a"]);
    assert!(kubelet.has_flag("babysit") && kubelet.flag("babysit").is_none());
    assert!(!ps.would_show("kube-proxy"), "only the kubelet was searched for");
    let ps = Ps::parse(&format!("u@node$ ps auxw|grep kubelet\n{text}\n")).unwrap();
    assert!(ps.would_show("kubelet") && !ps.would_show("kube-proxy"));
    let alone = Ps::parse("    PID TTY          TIME CMD\n   7704 pts/0    00:00:00 bash\n").unwrap();
    assert!(!alone.would_show("kube-proxy"), "one terminal's processes");
}

#[test]
fn a_whole_listing_shows_what_is_missing() {
    let ps = Ps::parse(CAPTURE).unwrap();
    assert_eq!(ps.processes.len(), 2);
    assert_eq!(ps.kube_proxy().unwrap().pid, 3599);
    let without: String = CAPTURE
        .lines()
        .filter(|l| !l.contains("kube-proxy"))
        .collect::<Vec<_>>()
        .join("\n");
    let ps = Ps::parse(&without).unwrap();
    assert!(ps.kube_proxy().is_none() && ps.would_show("kube-proxy"));
}

#[test]
fn the_grep_is_not_kube_proxy() {
    for text in [
        "root  77  0.0  0.0 101864 17696 pts/0  S+ 10:00  0:00 grep --color=auto kube-proxy\n",
        "u@node$ ps auxw | grep [k]ube-proxy\n",
        "root  77  1  0 10:00 pts/0 00:00:00 grep -E kubelet|kube-proxy\n",
    ] {
        let ps = Ps::parse(text).unwrap();
        assert!(ps.processes.is_empty() && ps.would_show("kube-proxy"), "{text}");
        assert!(ps.kube_proxy().is_none());
    }
}

#[test]
fn other_forms_and_other_programs_are_known() {
    for (text, pid, program) in [
        (
            "root 900 1 3 10:00 ? 00:01:02 /usr/local/bin/k3s server",
            900,
            "k3s",
        ),
        ("  12 root  0:03 kube-proxy --config=/c", 12, "kube-proxy"),
        (
            "root 9 0.4 0.1 1864 176 ? Sl Jul04 5:43 \\_ /hyperkube proxy --v=4",
            9,
            "kube-proxy",
        ),
    ] {
        let ps = Ps::parse(text).unwrap();
        let proxy = ps.kube_proxy().unwrap();
        assert_eq!((proxy.pid, proxy.program()), (pid, program), "{text}");
    }
    let cilium = "root 900 1 3 10:00 ? 00:01:02 cilium-agent --config-dir=/x";
    assert_eq!(Ps::parse(cilium).unwrap().replacement(), Some("cilium"));
    let off = "root 900 1 3 10:00 ? 00:01:02 k3s server --disable-kube-proxy";
    assert!(Ps::parse(off).unwrap().kube_proxy().is_none());
}

#[test]
fn what_is_not_of_ps_is_an_error() {
    for text in ["", "\n\nkube-proxy is fine\n", "hostnames-0uton"] {
        assert!(Ps::parse(text).is_err(), "{text}");
    }
    assert_eq!(Ps::parse("\nnope").unwrap_err().line, 2);
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "(?s).{0,300}") {
        let _ = Ps::parse(&text).map(|ps| (ps.kube_proxy().cloned(), ps.replacement(), ps.would_show("x")));
    }

    #[test]
    fn damaged_output_is_survived(cut in 0_usize..400, at in 0_usize..400, c: char) {
        let mut chars: Vec<char> = CAPTURE.chars().take(cut).collect();
        if let Some(place) = chars.get_mut(at) {
            *place = c;
        }
        let text: String = chars.into_iter().collect();
        let _ = Ps::parse(&text).map(|ps| ps.processes.iter().filter_map(Process::verbosity).count());
    }
}

#[test]
fn a_program_may_be_told_to_leave_kube_proxy_out() {
    let of = |arguments: &str| {
        Ps::parse(&format!(
            "root 1 1.0 0.1 1 1 ? Ssl 10:00 0:01 /usr/local/bin/k3s server{arguments}\n"
        ))
        .unwrap()
    };
    for (arguments, is_out) in [
        ("", false),
        (" --disable-kube-proxy", true),
        (" --disable-kube-proxy=false", false),
    ] {
        let ps = of(arguments);
        assert_eq!(
            (ps.leaves_proxy_out(), ps.kube_proxy().is_none()),
            (is_out, is_out),
            "{arguments}"
        );
    }
}
