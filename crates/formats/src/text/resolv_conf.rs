//! resolv.conf as it was pasted. Resolvers pass over lines that they do not know, prompts among them.

use super::ParseError;
use crate::resolv::ResolvConf;

/// Reads resolv.conf.
///
/// # Errors
/// When no line is one that resolvers know: an empty resolv.conf and something else in its place look alike.
pub fn parse(text: &str) -> Result<ResolvConf, ParseError> {
    let is_known = |line: &str| {
        let first = line.split_whitespace().next();
        matches!(first, Some("nameserver" | "search" | "domain" | "options"))
    };
    if text.lines().any(is_known) {
        Ok(ResolvConf::parse(text))
    } else {
        Err(ParseError::nothing(
            text,
            "resolv.conf, with a line `nameserver ADDRESS`",
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_page_is_read() {
        let text = "u@pod$ cat /etc/resolv.conf\nnameserver 10.0.0.10\n\
                    search default.svc.cluster.local svc.cluster.local cluster.local example.com\noptions ndots:5\n";
        let read = parse(text).unwrap();
        assert_eq!(read.servers.len(), 1);
        assert_eq!(read.search.len(), 4);
        assert_eq!(read.ndots, 5);
        assert!(parse("cat: can't open '/etc/resolv.conf'\n").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(?s).{0,300}") {
            let _ = parse(&text);
        }
    }
}
