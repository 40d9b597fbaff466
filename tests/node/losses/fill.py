# Fills the conntrack table of the network namespace with connections that are not removed to make room, and then
# sends five packets more.
import socket
import struct


def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def ends(kind, source, destination):
    port = struct.pack("!H", 9)
    ip = attribute(0x8001, attribute(1, source) + attribute(2, destination))
    protocol = attribute(0x8002, attribute(1, b"\x11") + attribute(2, port) + attribute(3, port))
    return attribute(0x8000 | kind, ip + protocol)


with open("/proc/sys/net/netfilter/nf_conntrack_max") as file:
    room = int(file.read())
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
netlink.bind((0, 0))
own = socket.inet_aton("10.1.0.1")
# Seen in both directions, assured, confirmed; for two minutes.
rest = attribute(3, struct.pack("!I", 0xE)) + attribute(7, struct.pack("!I", 120))
batch = []
for number in range(room + 100):
    other = struct.pack("!I", 0x0AC80000 + number)
    body = bytes([socket.AF_INET, 0, 0, 0]) + ends(1, own, other) + ends(2, other, own) + rest
    batch.append(struct.pack("=IHHII", 16 + len(body), 1 << 8, 0x401, 1, 0) + body)
    if len(batch) == 300:
        netlink.send(b"".join(batch))
        batch.clear()
netlink.send(b"".join(batch))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
refused = 0
for port in range(1000, 1005):
    try:
        udp.sendto(b"", ("10.1.0.2", port))
    except PermissionError:
        refused += 1
print(refused)
