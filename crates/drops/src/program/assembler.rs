// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Instructions of eBPF one after another, and jumps to places that are known later.

use super::*;

/// A place to jump to, which may not be known yet.
#[derive(Clone, Copy)]
pub(super) struct Label(usize);

#[derive(Default)]
pub(super) struct Assembler {
    program: Vec<u64>,
    /// Where each label is.
    labels: Vec<usize>,
    /// Jumps, and where they lead.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// It has two instructions' room.
    pub(super) fn map(&mut self, to: u8, what: u8, map: RawFd) {
        self.emit(code::LOAD_MAP, to, what, 0, map);
        self.emit(0, 0, 0, 0, 0);
    }

    /// The address of a place on the stack.
    pub(super) fn stack(&mut self, to: u8, place: i16) {
        self.emit(code::MOVE, to, STACK, 0, 0);
        self.emit(code::ADD_VALUE, to, 0, 0, place.into());
    }

    pub(super) fn argument(&mut self, to: u8, number: u8) {
        self.emit(code::LOAD_U64, to, ARGUMENTS, 8 * i16::from(number), 0);
    }

    /// Reads so many bytes from the kernel to the stack.
    pub(super) fn read(&mut self, to: i16, size: i32, from: u8, offset: u32) {
        self.stack(R1, to);
        self.emit(code::MOVE_VALUE, R2, 0, 0, size);
        self.emit(code::MOVE, R3, from, 0, 0);
        self.emit(code::ADD_VALUE, R3, 0, 0, offset.cast_signed());
        self.emit(code::CALL, 0, 0, 0, PROBE_READ_KERNEL);
    }

    /// Sets the pointer to one in the kernel.
    pub(super) fn follow(&mut self, from: u8, offset: u32) {
        self.read(SCRATCH, 8, from, offset);
        self.emit(code::LOAD_U64, POINTER, STACK, SCRATCH, 0);
    }

    /// Jumps unless the first register has the value.
    pub(super) fn unless_equal(&mut self, value: u32, label: Label) {
        self.jump(code::JUMP_UNLESS_EQUAL_U32, R1, value.cast_signed(), label);
    }

    pub(super) fn jump(&mut self, operation: u8, register: u8, value: i32, label: Label) {
        self.jumps.push((self.program.len(), label));
        self.emit(operation, register, 0, 0, value);
    }

    pub(super) fn emit(&mut self, operation: u8, to: u8, from: u8, offset: i16, value: i32) {
        let [low, high] = offset.to_le_bytes();
        let [a, b, c, d] = value.to_le_bytes();
        self.program.push(u64::from_le_bytes([
            operation,
            from << 4 | to,
            low,
            high,
            a,
            b,
            c,
            d,
        ]));
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(0);
        Label(self.labels.len() - 1)
    }

    pub(super) fn place(&mut self, label: Label) {
        self.labels[label.0] = self.program.len();
    }

    pub(super) fn finish(mut self) -> Vec<u64> {
        for (at, label) in self.jumps {
            let distance = self.labels[label.0] - at - 1;
            // `MAX_FILTERS` keeps programs far shorter.
            let distance = u16::try_from(distance).unwrap_or(u16::MAX);
            self.program[at] |= u64::from(distance) << 16;
        }
        self.program
    }
}

#[cfg(target_endian = "big")]
compile_error!(
    "instructions are laid out for little-endian machines only, which are those that svcdiag is built for"
);
