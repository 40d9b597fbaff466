//! What sets and maps hold, asked of the kernel by key: their elements may be very many.

use std::{cell::RefCell, collections::HashMap, io};

use super::tables::{Name, Table, number};
use crate::{
    netfilter::{
        expressions::{DATA_VALUE, LIST_ELEMENT},
        nf_tables::{GET_SET, GET_SET_ELEMENTS, HEADER, SUBSYSTEM},
    },
    netlink::{Attributes, Netlink, Request, attributes_of, nested},
};

/// What is known of a key in a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Member {
    Unknown,
    Absent,
    /// By the element with this key: of an interval where it begins.
    Present(Vec<u8>),
}

/// What can be asked of the sets and maps of a table.
pub(super) trait Sets {
    /// All states in an anonymous set of such.
    fn states(&self, set: &[u8]) -> Option<u32>;

    /// Looks a key up; `key` gives the bytes that are loaded, of a length, if they are known.
    fn find(&self, set: &[u8], key: &dyn Fn(usize) -> Option<Vec<u8>>) -> Member;
}

/// Questions about one table, each asked once.
pub(super) struct OfTable<'t> {
    table: &'t Table,
    netlink: Option<&'t Netlink>,
    lengths: RefCell<HashMap<Name, Option<usize>>>,
    members: RefCell<HashMap<(Name, Vec<u8>), Member>>,
}

impl<'t> OfTable<'t> {
    /// Without a kernel to ask nothing is known.
    pub(super) fn new(table: &'t Table, netlink: Option<&'t Netlink>) -> Self {
        Self {
            table,
            netlink,
            lengths: RefCell::default(),
            members: RefCell::default(),
        }
    }

    fn request(&self, message: u8, set: &[u8]) -> Request {
        Request::netfilter(SUBSYSTEM, message, number(self.table.family))
            .name(1, &self.table.name)
            .name(2, set)
    }

    /// How long the keys of a set are.
    fn length(&self, set: &[u8]) -> Option<usize> {
        if let Some(known) = self.lengths.borrow().get(set) {
            return *known;
        }
        let answer = self.netlink?.get(&self.request(GET_SET, set)).ok();
        let length = answer.and_then(|messages| {
            let (_, body) = messages.first()?;
            usize::try_from(Attributes::behind(body, HEADER).be_u32(5)?).ok()
        });
        self.lengths.borrow_mut().insert(set.to_vec(), length);
        length
    }

    fn ask(&self, set: &[u8], key: &[u8]) -> Option<Member> {
        let value = attributes_of(&[(DATA_VALUE, key)]);
        let element = attributes_of(&[(nested(1), &value)]);
        let list = attributes_of(&[(nested(LIST_ELEMENT), &element)]);
        let request = self.request(GET_SET_ELEMENTS, set).nested(3, &list);
        match self.netlink?.get(&request) {
            Ok(messages) => {
                let (_, body) = messages.first()?;
                let list = Attributes::behind(body, HEADER).nested(3)?;
                let key = list.nested(LIST_ELEMENT)?.nested(1)?.get(DATA_VALUE)?;
                Some(Member::Present(key.to_vec()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Member::Absent),
            Err(_) => None,
        }
    }
}

impl Sets for OfTable<'_> {
    fn states(&self, set: &[u8]) -> Option<u32> {
        self.table.states(set)
    }

    fn find(&self, set: &[u8], key: &dyn Fn(usize) -> Option<Vec<u8>>) -> Member {
        let Some(key) = self.length(set).and_then(key) else {
            return Member::Unknown;
        };
        let known = (set.to_vec(), key);
        if let Some(member) = self.members.borrow().get(&known) {
            return member.clone();
        }
        let member = self.ask(set, &known.1).unwrap_or(Member::Unknown);
        self.members.borrow_mut().insert(known, member.clone());
        member
    }
}
