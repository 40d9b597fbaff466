//! An eBPF program at tc, as those of Cilium.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use crate::network::Namespace;

/// An eBPF program at tc that drops everything, until this is dropped.
pub(crate) struct Classifier(Child);

impl Classifier {
    /// BPF_TCX_INGRESS and BPF_TCX_EGRESS.
    pub(crate) const INGRESS: u32 = 46;
    pub(crate) const EGRESS: u32 = 47;

    /// BPF_PROG_LOAD of `return TC_ACT_SHOT`, and BPF_LINK_CREATE. No tool that does so is everywhere.
    const LOADER: &str = r#"
import ctypes, os, platform, socket, struct, sys
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attributes):
    result = libc.syscall(number, command, attributes, len(attributes))
    if result < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    return result
code = ctypes.create_string_buffer(struct.pack("<QQ", 0x2_0000_00b7, 0x95))
licence = ctypes.create_string_buffer(b"MIT")
program = bpf(5, struct.pack("=IIQQ", 3, 2, ctypes.addressof(code), ctypes.addressof(licence)))
bpf(28, struct.pack("=IIIIQQ", program, socket.if_nametoindex(sys.argv[1]), int(sys.argv[2]), 0, 0, 0))
print(flush=True)
sys.stdin.read()
"#;

    pub(crate) fn attach(namespace: &Namespace, interface: &str, hook: u32) -> Self {
        let child = namespace.inside(|| {
            Command::new("python3")
                .args(["-c", Self::LOADER, interface, &hook.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        });
        let mut attached = Self(child);
        let mut ready = String::new();
        let output = attached.0.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut ready).unwrap();
        assert_eq!(ready, "\n", "the classifier was not attached");
        attached
    }
}

impl Drop for Classifier {
    fn drop(&mut self) {
        // It ends when there is nothing more to read.
        self.0.stdin = None;
        let _ = self.0.wait();
    }
}
