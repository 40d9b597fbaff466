# One socket sends to two addresses of one server at the same moment: the first packet is held, after its address was
# translated, until the second has its entry in conntrack. Both want the same answers, so the first is dropped.
#
# Arguments: how often, and the seconds between.
import socket
import struct
import sys
import time

QUEUE = 7


def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def send(kind, attributes):
    body = struct.pack("!BBH", 0, 0, QUEUE) + attributes
    netlink.send(struct.pack("=IHHII", 16 + len(body), 3 << 8 | kind, 1, 0, 0) + body)


def held():
    while True:
        data = netlink.recv(65536)
        if data[4:6] == struct.pack("=H", 3 << 8):
            return data[24:28]


def accept(packet):
    send(1, attribute(2, struct.pack("!I", 1) + packet))


netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
netlink.bind((0, 0))
netlink.settimeout(5)
send(2, attribute(1, struct.pack("!BBH", 1, 0, socket.AF_INET)))
send(2, attribute(2, struct.pack("!IB", 0, 1)))
for _ in range(int(sys.argv[1])):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.sendto(b"x", ("10.200.9.1", 9))
    first = held()
    udp.sendto(b"x", ("10.200.9.2", 9))
    second = held()
    accept(second)
    accept(first)
    time.sleep(float(sys.argv[2]))
