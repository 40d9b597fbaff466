//! What a comparison asks of packets: the loaded value, held against a constant.

use ipnet::IpNet;

use super::{DATA_VALUE, NETWORK_HEADER, RTN_LOCAL, Reader, TRANSPORT_HEADER, Value, address, word};
use crate::netlink::Attributes;
use svcdiag_kube_proxy::{IpFamily, Match};

impl Reader {
    pub(super) fn compare(&mut self, data: Attributes<'_>) {
        const EQUAL: u32 = 0;
        const NOT_EQUAL: u32 = 1;
        let condition = (|| {
            let loaded = self.registers.get(&word(data.be_u32(1)?))?;
            let constant = data.nested(3)?.get(DATA_VALUE)?;
            let not = match data.be_u32(2)? {
                EQUAL => false,
                NOT_EQUAL => true,
                _ => return None,
            };
            self.condition(loaded, constant, not)
        })();
        self.rule
            .matches
            .push(condition.unwrap_or_else(|| Match::Other("cmp".to_owned())));
    }

    fn condition(&self, loaded: &Value, constant: &[u8], not: bool) -> Option<Match> {
        match loaded {
            Value::Protocol if !not => Some(Match::Protocol(*constant.first()?)),
            Value::AddressType(of) if !not => (constant == RTN_LOCAL.to_ne_bytes()).then(|| of.clone()),
            Value::Payload {
                base: TRANSPORT_HEADER,
                offset: 2,
                length: 2,
            } if !not => {
                let port = u16::from_be_bytes(*constant.first_chunk::<2>()?);
                Some(Match::DestinationPort(port..=port))
            }
            Value::Payload {
                base: NETWORK_HEADER,
                offset,
                ..
            } => {
                let protocol_at = match self.family {
                    IpFamily::V4 => 9,
                    IpFamily::V6 => 6,
                };
                if *offset == protocol_at && !not {
                    return Some(Match::Protocol(*constant.first()?));
                }
                // A prefix of whole bytes is compared without a mask: fewer bytes are loaded.
                self.network(*offset, constant, constant.len() * 8, not)
            }
            Value::Masked { offset, mask } => {
                let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
                let leading = mask.iter().take_while(|byte| **byte == 0xff).count();
                let is_prefix = mask
                    .get(leading)
                    .is_none_or(|b| b.leading_ones() == b.count_ones())
                    && mask.iter().skip(leading + 1).all(|byte| *byte == 0);
                let length = usize::try_from(ones).ok().filter(|_| is_prefix)?;
                self.network(*offset, constant, length, not)
            }
            _ => None,
        }
    }

    /// A condition on the source or destination address.
    fn network(&self, offset: u32, prefix: &[u8], length: usize, not: bool) -> Option<Match> {
        let (source_at, destination_at, size) = match self.family {
            IpFamily::V4 => (12, 16, 4),
            IpFamily::V6 => (8, 24, 16),
        };
        let mut bytes = prefix.to_vec();
        (bytes.len() <= size).then_some(())?;
        bytes.resize(size, 0);
        let net = IpNet::new(address(self.family, &bytes)?, u8::try_from(length).ok()?).ok()?;
        match offset {
            o if o == source_at => Some(Match::Source { net, not }),
            o if o == destination_at => Some(Match::Destination { net, not }),
            _ => None,
        }
    }
}
