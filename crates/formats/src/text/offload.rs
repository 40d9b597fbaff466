//! `ethtool -k`: which links have the network card compute the checksums of packets.
//!
//! Source: ethtool's ethtool.c (`dump_features`).

use super::{
    ParseError,
    prompt::{invocation, pieces},
};

/// The feature that decides for packets of a tunnel.
const FEATURE: &str = "tx-checksum-ip-generic:";

/// Most links that are kept.
const MAX_LINKS: usize = 100;

/// Links, and whether they leave checksums to the card.
///
/// # Errors
/// When no line tells of that.
pub fn parse(text: &str) -> Result<Vec<(String, bool)>, ParseError> {
    let mut found = Vec::new();
    for piece in pieces(text) {
        // A grep leaves only the command to tell which link it is.
        let mut link = piece.command.and_then(asked);
        for (_, line) in piece.output {
            if let Some(name) = line.strip_prefix("Features for ") {
                link = Some(name.trim().trim_end_matches(':'));
            } else if let (Some(link), Some(state)) = (link, line.trim().strip_prefix(FEATURE)) {
                // `off [fixed]`, where it cannot be changed.
                let state = state.split_whitespace().next();
                if found.len() < MAX_LINKS && is_link(link) {
                    found.push((link.to_owned(), state == Some("on")));
                }
            }
        }
    }
    match found.is_empty() {
        true => Err(ParseError::nothing(
            text,
            "the output of `ethtool -k` with tx-checksum-ip-generic",
        )),
        false => Ok(found),
    }
}

/// The link of `ethtool -k LINK`.
fn asked(command: &str) -> Option<&str> {
    let (_, arguments) = invocation(command, &["ethtool"])?;
    arguments.into_iter().find(|word| !word.starts_with('-'))
}

/// The kernel takes any name; what stands in our messages is a plain one.
fn is_link(name: &str) -> bool {
    let is_fit = |b: u8| b.is_ascii_alphanumeric() || b"._-@".contains(&b);
    !name.is_empty() && name.len() <= 32 && name.bytes().all(is_fit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_link_is_read() {
        let text = "\
root@w3:~# ethtool -k flannel.1
Features for flannel.1:
rx-checksumming: on
tx-checksumming: on
\ttx-checksum-ipv4: off [fixed]
\ttx-checksum-ip-generic: on
root@w3:~# ethtool -k eth0
Features for eth0:
\ttx-checksum-ip-generic: off [fixed]
";
        assert_eq!(
            parse(text).unwrap(),
            [("flannel.1".to_owned(), true), ("eth0".to_owned(), false)]
        );
        assert_eq!(
            parse("# ethtool -k cali0 | grep sum\n\ttx-checksum-ip-generic: on\n").unwrap(),
            [("cali0".to_owned(), true)]
        );
        assert!(parse("Features for eth0:\nrx-checksumming: on\n").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(Features for |eth0|:|tx-checksum-ip-generic:| on|\n|é|\\PC){0,20}") {
            let _ = parse(&text);
        }
    }
}
