//! The registers of nf_tables, of which some bytes are known.

use std::cmp::Ordering;

/// Registers by their bytes; the sixteen of 4 bytes overlay the four of 16 bytes.
pub(super) struct Registers {
    bytes: [Option<u8>; 64],
    /// Where a state of connection tracking is, and which bits of it.
    states: Option<(usize, u32)>,
}

fn offset(register: u32) -> Option<usize> {
    let word = match register {
        1..=4 => (register - 1) * 4,
        8..=23 => register - 8,
        _ => return None,
    };
    usize::try_from(word * 4).ok()
}

impl Default for Registers {
    fn default() -> Self {
        Self {
            bytes: [None; 64],
            states: None,
        }
    }
}

impl Registers {
    /// Loads a value of which these bytes are known; without any nothing is.
    pub(super) fn load(&mut self, register: Option<u32>, value: impl IntoIterator<Item = Option<u8>>) {
        let Some(from) = register.and_then(offset) else {
            return;
        };
        let value: Vec<Option<u8>> = value.into_iter().collect();
        // Of what is not known the length is not either.
        let length = match value.len() {
            0 => self.bytes.len(),
            length => length.next_multiple_of(4),
        };
        let to = from.saturating_add(length).min(self.bytes.len());
        if self.states.is_some_and(|(at, _)| (from..to).contains(&at)) {
            self.states = None;
        }
        // The kernel fills words up with zeros.
        let filling = if value.is_empty() { None } else { Some(0) };
        let target = self.bytes.get_mut(from..to).unwrap_or_default();
        target.fill(filling);
        for (byte, value) in target.iter_mut().zip(value) {
            *byte = value;
        }
    }

    /// Loads the state of connection tracking, of which some bits count.
    pub(super) fn load_states(&mut self, register: Option<u32>, mask: u32) {
        self.load(register, [None; 4]);
        self.states = register.and_then(offset).map(|at| (at, mask));
    }

    /// Forgets all: an expression that is not known may have loaded something anywhere.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// So many bytes of a register.
    pub(super) fn get(&self, register: u32, length: usize) -> Option<&[Option<u8>]> {
        let from = offset(register)?;
        self.bytes.get(from..from.checked_add(length)?)
    }

    /// Which bits of the state of connection tracking a register holds, if it holds some.
    pub(super) fn states_at(&self, register: u32) -> Option<u32> {
        self.states
            .filter(|(at, _)| offset(register) == Some(*at))
            .map(|(_, mask)| mask)
    }
}

/// Four bytes in the order of the machine.
pub(super) fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// What an operator of `cmp` says, if that is known.
pub(super) fn compare(loaded: &[Option<u8>], operator: u32, constant: &[u8]) -> Option<bool> {
    let pairs = || loaded.iter().zip(constant);
    let differ = pairs().any(|(byte, of)| byte.is_some_and(|byte| byte != *of));
    let all: Option<Vec<u8>> = loaded.iter().copied().collect();
    // Of a value with an unknown byte it may be known that it is another one.
    let order = match (&all, differ) {
        (Some(all), _) => all.as_slice().cmp(constant),
        (None, true) if operator <= 1 => Ordering::Less,
        (None, _) => return None,
    };
    Some(match operator {
        0 => order.is_eq(),
        1 => order.is_ne(),
        2 => order.is_lt(),
        3 => order.is_le(),
        4 => order.is_gt(),
        5 => order.is_ge(),
        _ => return None,
    })
}
