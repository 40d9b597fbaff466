//! What ports and addresses are of: a protocol and an IP family. One type each for all crates; on the wire they are
//! the strings of Kubernetes.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::macros::string_enum;

string_enum! {
    /// A protocol that the ports of Services have.
    Protocol {
        /// TCP, also where an object names none.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
        /// SCTP.
        Sctp = "SCTP",
    }
}

impl Protocol {
    /// Its number in IP headers (IANA protocol numbers).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The one with a name in lower case.
    #[must_use]
    pub fn from_lower_case(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.lower_case() == name)
    }

    /// Its name in lower case, as the kernel and its tools write it.
    #[must_use]
    pub const fn lower_case(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

string_enum! {
    /// The version of IP.
    IpFamily {
        /// IPv4.
        V4 = "IPv4",
        /// IPv6.
        V6 = "IPv6",
    }
}

impl IpFamily {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

/// A port of a Service, as `80/TCP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortProtocol {
    /// Its number.
    pub number: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl PortProtocol {
    /// Whether datagrams are sent to it, of which nobody says that they came.
    #[must_use]
    pub fn is_udp(self) -> bool {
        self.protocol == Protocol::Udp
    }
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// A text that is no port of a Service.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no port and protocol such as 80/TCP")]
pub struct NotAPort(String);

impl FromStr for PortProtocol {
    type Err = NotAPort;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (number, protocol) = text.split_once('/')?;
            Some(Self {
                number: number.parse().ok()?,
                protocol: protocol.parse().ok()?,
            })
        };
        parse().ok_or_else(|| NotAPort(text.to_owned()))
    }
}

impl Serialize for PortProtocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortProtocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A field whose value is one that this version knows, or another text.
///
/// Kubernetes may get values that are not known here, and a saved file can hold anything. Such a value does not fail
/// the parse of its object, and it never passes for a known one: it equals its own text only, it is displayed and
/// written as it was read, and what asks for the [`known`](Self::known) value leaves it out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Open<T> {
    /// A known value.
    Known(T),
    /// Another text.
    Other(String),
}

impl<T: Copy> Open<T> {
    /// The value, if it is known.
    #[must_use]
    pub fn known(&self) -> Option<T> {
        match self {
            Self::Known(value) => Some(*value),
            Self::Other(_) => None,
        }
    }
}

impl Default for Open<Protocol> {
    /// TCP, as in the API of Kubernetes.
    fn default() -> Self {
        Self::Known(Protocol::Tcp)
    }
}

impl Default for Open<IpFamily> {
    /// No family: the empty text.
    fn default() -> Self {
        Self::Other(String::new())
    }
}

impl<T: FromStr> From<&str> for Open<T> {
    fn from(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Other(text.to_owned()), Self::Known)
    }
}

impl From<Protocol> for Open<Protocol> {
    fn from(protocol: Protocol) -> Self {
        Self::Known(protocol)
    }
}

impl From<IpFamily> for Open<IpFamily> {
    fn from(family: IpFamily) -> Self {
        Self::Known(family)
    }
}

impl<T: PartialEq> PartialEq<T> for Open<T> {
    fn eq(&self, value: &T) -> bool {
        matches!(self, Self::Known(known) if known == value)
    }
}

impl<T: fmt::Display> fmt::Display for Open<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => value.fmt(f),
            Self::Other(text) => text.fmt(f),
        }
    }
}

impl<T: fmt::Display> Serialize for Open<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Open<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(String::deserialize(deserializer)?.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_known_value_is_written_as_kubernetes_spells_it() {
        for (protocol, text) in [
            (Protocol::Tcp, "TCP"),
            (Protocol::Udp, "UDP"),
            (Protocol::Sctp, "SCTP"),
        ] {
            assert_eq!(Open::<Protocol>::from(text), Open::Known(protocol));
            assert_eq!(protocol.to_string(), text);
            assert_eq!(serde_json::to_value(protocol).unwrap(), text);
        }
        for (family, text) in [(IpFamily::V4, "IPv4"), (IpFamily::V6, "IPv6")] {
            assert_eq!(Open::<IpFamily>::from(text), Open::Known(family));
            assert_eq!(serde_json::to_value(family).unwrap(), text);
            assert_ne!(family.other(), family);
        }
    }

    #[test]
    fn a_port_is_written_with_its_protocol() {
        let port: PortProtocol = "53/UDP".parse().unwrap();
        assert!(port.number == 53 && port.is_udp());
        assert_eq!(serde_json::to_value(port).unwrap(), "53/UDP");
        for text in [
            "",
            "80",
            "80/",
            "/TCP",
            "80/tcp",
            "80/TCP/",
            "65536/TCP",
            "-1/TCP",
            "80/TCP;id",
        ] {
            let error = text.parse::<PortProtocol>().unwrap_err();
            assert!(error.to_string().contains("such as 80/TCP"), "{error}");
            assert!(serde_json::from_value::<PortProtocol>(text.into()).is_err());
        }
    }

    #[test]
    fn an_unknown_value_stays_as_it_was_read_and_passes_for_no_other() {
        for text in ["QUIC", "tcp", ""] {
            let protocol: Open<Protocol> = serde_json::from_value(text.into()).unwrap();
            assert_eq!(protocol, Open::Other(text.to_owned()));
            assert_eq!(protocol.known(), None);
            assert_eq!(protocol.to_string(), text);
            assert_eq!(serde_json::to_value(&protocol).unwrap(), text);
            assert!(Protocol::ALL.iter().all(|known| protocol != *known));
        }
    }
}
