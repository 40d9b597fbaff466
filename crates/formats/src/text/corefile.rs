//! A Corefile: the domain that cluster DNS has the cluster's names in.
//!
//! Source: CoreDNS' plugin/kubernetes, and its Caddyfile: blocks of servers, in which each line begins with a plugin.

/// The domain of the cluster's names: the first zone of the plugin kubernetes that is no zone of addresses.
#[must_use]
pub fn domain(corefile: &str) -> Option<&str> {
    let plugin = |line| str::strip_prefix(str::trim_start(line), "kubernetes ");
    let mut zones = corefile
        .lines()
        .filter_map(plugin)
        .flat_map(str::split_whitespace);
    let is_domain = |zone: &&str| zone.contains('.') && !zone.ends_with(".arpa") && !zone.contains('/');
    zones.find(is_domain).map(|zone| zone.trim_end_matches('.'))
}

/// Whether a text that somebody copied has a Corefile in it: a server on a port of DNS, and in it a plugin that every
/// cluster has.
#[must_use]
pub fn is_one(text: &str) -> bool {
    let is_server = |line: &str| line.trim_end().ends_with(":53 {") && !line.starts_with(' ');
    let is_plugin = |line: &str| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("kubernetes" | "forward" | "errors"))
    };
    let mut lines = text.lines().skip_while(|line| !is_server(line));
    lines.any(is_plugin)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_corefile_is_known_and_its_domain_is_that_of_the_cluster() {
        let text = ".:53 {\n    errors\n    kubernetes in-addr.arpa corp.example. ip6.arpa {\n    }\n}\n";
        assert!(is_one(text));
        assert_eq!(domain(text), Some("corp.example"));
        for text in [
            "",
            "kubernetes cluster.local\n",
            ".:53\nCoreDNS-1.11\n",
            "x:53 {\n  y\n}\n",
        ] {
            assert!(!is_one(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(\\.:53 \\{|kubernetes|errors|a\\.b| |\n|\\PC){0,20}") {
            let _ = (is_one(&text), domain(&text));
        }
    }
}
