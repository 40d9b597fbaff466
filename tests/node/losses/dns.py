# A DNS server on 10.244.1.1:54 that answers every question with 10.96.0.7, and every one of so many with a wrong
# checksum.
import socket
import struct
import sys

one_of = int(sys.argv[1])
answered = 0
ADDRESS = ("10.244.1.1", 54)
RECORD = bytes([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 96, 0, 7])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(ADDRESS)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
raw.bind((ADDRESS[0], 0))
print(flush=True)
while True:
    question, client = server.recvfrom(512)
    answer = question[:2] + b"\x84\x00" + question[4:6] + b"\x00\x01" + question[8:] + RECORD
    answered += 1
    if answered % one_of == 0:
        raw.sendto(struct.pack("!HHHH", ADDRESS[1], client[1], 8 + len(answer), 0x1234) + answer, client)
    else:
        server.sendto(answer, client)
