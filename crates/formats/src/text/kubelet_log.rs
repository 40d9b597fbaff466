//! The kubelet's log, as far as it tells of hairpin traffic.
//!
//! Sources: Kubernetes' pkg/kubelet/kubelet.go and kubelet_network.go (to 1.9), pkg/kubelet/dockershim
//! (to 1.23), cri-dockerd; pkg/kubelet/network/hairpin and kubenet. Kubelets that talk to other runtimes
//! leave hairpin mode to the network plugin and log nothing of it.

use super::{
    ParseError,
    klog::{self, Entry},
};

/// How hairpin traffic is made possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HairpinMode {
    /// The bridge takes every packet.
    PromiscuousBridge,
    /// Ports of the bridge send packets back.
    HairpinVeth,
    /// It is not.
    None,
    /// One that is not known.
    Other(String),
}

impl HairpinMode {
    /// A mode by its name.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        match name
            .trim_matches(['"', '\\'])
            .to_ascii_lowercase()
            .replace('-', "")
            .as_str()
        {
            "promiscuousbridge" => Self::PromiscuousBridge,
            "hairpinveth" => Self::HairpinVeth,
            "none" => Self::None,
            _ => Self::Other(name.to_owned()),
        }
    }
}

/// What a log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeletLog {
    /// --hairpin-mode as the kubelet lists its flags; that it was given says nothing of what is done.
    pub flag: Option<HairpinMode>,
    /// The mode that is in effect.
    pub effective: Option<HairpinMode>,
    /// The mode that was asked for, where the kubelet says that it takes another.
    pub fell_back_from: Option<HairpinMode>,
    /// Where the kubelet could not change the network's settings.
    pub not_allowed: Vec<NotAllowed>,
}

/// Something that the kubelet could not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAllowed {
    /// Its line, from 1.
    pub line: usize,
    /// The file, where the line says it.
    pub path: Option<String>,
    /// Why.
    pub why: Denial,
}

/// Why something could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// /sys is mounted read-only.
    ReadOnly,
    /// The kubelet lacks the permission.
    NotPermitted,
}

impl KubeletLog {
    /// Reads a log.
    ///
    /// # Errors
    /// When no line looks like one of the kubelet.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut log = Self::default();
        klog::read_all(text, "a log of the kubelet", |line, entry| log.read(line, entry))?;
        Ok(log)
    }

    /// Takes in a line; false where it says nothing of hairpin traffic.
    fn read(&mut self, line: usize, entry: &Entry<'_>) -> bool {
        let message = entry.message.as_ref();
        if let Some((_, value)) = message.split_once("FLAG: --hairpin-mode=") {
            self.flag = Some(HairpinMode::parse(value));
        } else if let Some(why) = denial(message) {
            let path = message
                .split_once("open ")
                .map(|(_, rest)| rest.split(':').next().unwrap_or(rest));
            self.not_allowed.push(NotAllowed {
                line,
                path: path.filter(|p| p.starts_with('/')).map(str::to_owned),
                why,
            });
        } else if let Some(named) = named_mode(entry) {
            self.take(message, HairpinMode::parse(named));
        } else {
            return false;
        }
        true
    }

    fn take(&mut self, message: &str, named: HairpinMode) {
        let word = |text: &str| text.split([' ', ',']).next().unwrap_or_default().to_owned();
        self.effective = if let Some((_, instead)) = message.split_once("falling back to ") {
            self.fell_back_from = Some(named);
            Some(HairpinMode::parse(&word(instead)))
        } else if message.contains("ignoring") {
            self.fell_back_from = Some(named);
            Some(HairpinMode::None)
        } else {
            Some(named)
        };
    }
}

/// The mode that a line names: `Hairpin mode set to "x"`, `Hairpin mode is set to x`,
/// `"Hairpin mode is set" hairpinMode="x"`.
fn named_mode<'a>(entry: &'a Entry<'_>) -> Option<&'a str> {
    let (_, rest) = entry.message.split_once("airpin mode ")?;
    if let Some(value) = entry.value("hairpinMode") {
        return Some(value);
    }
    let rest = rest.strip_prefix("is ").unwrap_or(rest).strip_prefix("set to ")?;
    let end = |c: char| c.is_whitespace() || c == ',';
    Some(rest.split(end).next()?.trim_matches(['"', '\\'])).filter(|mode| !mode.is_empty())
}

fn denial(message: &str) -> Option<Denial> {
    let lower = message.to_lowercase();
    if !["hairpin_mode", "hairpin", "promiscuous mode"]
        .iter()
        .any(|w| lower.contains(w))
    {
        return None;
    }
    if lower.contains("read-only file system") {
        return Some(Denial::ReadOnly);
    }
    let is_denied = lower.contains("permission denied") || lower.contains("operation not permitted");
    is_denied.then_some(Denial::NotPermitted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn modes_of_all_ages_are_read() {
        use HairpinMode::{HairpinVeth, None as Off, PromiscuousBridge};
        for (line, effective, fell_back_from) in [
            (
                "I0629 00:51:43.648698    3252 kubelet.go:380] Hairpin mode set to \"promiscuous-bridge\"",
                PromiscuousBridge,
                None,
            ),
            (
                "W0322 09:27:09.399179 2 kubelet.go:508] Hairpin mode set to \"promiscuous-bridge\" but configureCBR0 is false, falling back to \"hairpin-veth\"",
                HairpinVeth,
                Some(PromiscuousBridge),
            ),
            (
                "W0322 09:27:09.399179 2 x.go:1] Hairpin mode set to \"hairpin-veth\" but container runtime is \"rkt\", ignoring",
                Off,
                Some(HairpinVeth),
            ),
            (
                "Aug 05 10:31:39 m kubelet[12849]: I0805 10:31:39.876721   12849 docker_service.go:566] \"Hairpin mode is set but kubenet is not enabled, falling back to HairpinVeth\" hairpinMode=promiscuous-bridge",
                HairpinVeth,
                Some(PromiscuousBridge),
            ),
            (
                "I0929 11:39:48.607399 34795 docker_service.go:242] \"Hairpin mode is set\" hairpinMode=hairpin-veth",
                HairpinVeth,
                None,
            ),
            (
                "Dec 06 23:31:18 master cri-dockerd[6861]: time=\"2022-12-06T23:31:18+08:00\" level=info msg=\"Hairpin mode is set to none\"",
                Off,
                None,
            ),
        ] {
            let log = KubeletLog::parse(line).unwrap();
            assert_eq!(
                (log.effective, log.fell_back_from),
                (Some(effective), fell_back_from),
                "{line}"
            );
        }
    }

    #[test]
    fn a_flag_is_not_the_effect() {
        let log = KubeletLog::parse(
            "I1123 19:19:29.776236     128 flags.go:64] FLAG: --hairpin-mode=\"promiscuous-bridge\"",
        )
        .unwrap();
        assert_eq!(
            (log.flag, log.effective),
            (Some(HairpinMode::PromiscuousBridge), None)
        );
    }

    #[test]
    fn denials_are_read() {
        let text = "W0412 22:08:25.269781 1061 manager.go:1896] Hairpin setup failed for pod \"squid_default(e1)\": open /sys/devices/virtual/net/veth5bc2893/brport/hairpin_mode: read-only file system\n\
                    W0412 22:08:26.269781 1061 manager.go:1896] Hairpin setup failed for pod \"a_b(c)\": open /sys/devices/virtual/net/cbr0/brif/veth1/hairpin_mode: permission denied\n";
        let log = KubeletLog::parse(text).unwrap();
        let [first, second] = log.not_allowed.as_slice() else {
            panic!("{log:?}")
        };
        assert_eq!((first.line, first.why), (1, Denial::ReadOnly));
        assert_eq!(
            first.path.as_deref(),
            Some("/sys/devices/virtual/net/veth5bc2893/brport/hairpin_mode")
        );
        assert_eq!((second.line, second.why), (2, Denial::NotPermitted));
        assert_eq!(log.effective, None);
    }

    #[test]
    fn what_is_no_log_is_an_error() {
        assert!(KubeletLog::parse("").is_err());
        assert!(KubeletLog::parse("nothing to see\n").is_err());
        assert_eq!(
            KubeletLog::parse("I1123 19:19:29.7 128 a.go:1] hi").unwrap(),
            KubeletLog::default()
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(?s).{0,300}") {
            let _ = KubeletLog::parse(&text);
        }

        #[test]
        fn any_end_of_a_line_is_survived(rest in ".{0,60}") {
            for start in ["Hairpin mode set to ", "x hairpin_mode: permission denied open ", "Hairpin mode is set falling back to ", "FLAG: --hairpin-mode="] {
                let _ = KubeletLog::parse(&format!("{start}{rest}"));
            }
        }
    }
}
