//! Attributes of a message: each a length, a type and a value, filled up to four bytes.

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NLA_HEADER_SIZE, NlasIterator};

/// Attributes to put into another one.
#[must_use]
pub fn attributes_of(list: &[(u16, &[u8])]) -> Vec<u8> {
    let list: Vec<DefaultNla> = list
        .iter()
        .map(|(kind, value)| DefaultNla::new(*kind, value.to_vec()))
        .collect();
    let mut bytes = vec![0; list.as_slice().buffer_len()];
    list.as_slice().emit(&mut bytes);
    bytes
}

/// The type of an attribute that holds attributes.
#[must_use]
pub fn nested(kind: u16) -> u16 {
    kind | NLA_F_NESTED
}

/// Attributes as they stand in a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The attributes behind a fixed header.
    #[must_use]
    pub fn behind(body: &'a [u8], header: usize) -> Self {
        Self(body.get(header..).unwrap_or_default())
    }

    /// Type and value of each. What is cut off at the end is left out.
    pub fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        NlasIterator::new(self.0).map_while(|attribute| {
            let attribute = attribute.ok()?;
            let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
            Some((kind, attribute.into_inner().get(NLA_HEADER_SIZE..length)?))
        })
    }

    /// The value of the first attribute of a type.
    #[must_use]
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// The attributes in an attribute.
    #[must_use]
    pub fn nested(self, kind: u16) -> Option<Self> {
        self.get(kind).map(Self)
    }

    /// A C string.
    #[must_use]
    pub fn text(self, kind: u16) -> Option<&'a str> {
        std::str::from_utf8(self.name(kind)?).ok()
    }

    /// The bytes of a C string.
    #[must_use]
    pub fn name(self, kind: u16) -> Option<&'a [u8]> {
        let bytes = self.get(kind)?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        bytes.get(..end)
    }

    /// A number in network byte order.
    #[must_use]
    pub fn be_u64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A number in network byte order, as netfilter writes them.
    #[must_use]
    pub fn be_u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A number in network byte order.
    #[must_use]
    pub fn be_u16(self, kind: u16) -> Option<u16> {
        Some(u16::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A byte.
    #[must_use]
    pub fn byte(self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NLA_TYPE_MASK;
    use proptest::prelude::*;

    use super::*;

    /// Calls every reader on attributes, and on those in them.
    fn read_all(attributes: Attributes<'_>, depth: usize) {
        for kind in 0..8 {
            let _ = (attributes.get(kind), attributes.text(kind), attributes.byte(kind));
            let _ = (
                attributes.be_u16(kind),
                attributes.be_u32(kind),
                attributes.be_u64(kind),
            );
            if let Some(inner) = attributes.nested(kind).filter(|_| depth > 0) {
                read_all(inner, depth - 1);
            }
        }
    }

    proptest! {
        #[test]
        fn every_attribute_is_read(
            list in prop::collection::vec((0..=NLA_TYPE_MASK, prop::collection::vec(any::<u8>(), 0..64)), 0..16),
        ) {
            let written: Vec<(u16, &[u8])> = list.iter().map(|(k, v)| (*k, v.as_slice())).collect();
            let bytes = attributes_of(&written);
            prop_assert_eq!(Attributes(&bytes).iter().collect::<Vec<_>>(), written);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            read_all(Attributes(&bytes), 3);
        }
    }
}
