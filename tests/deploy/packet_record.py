"""Writes down whom the processes of its network namespace call; started alone, by `namespaces.py`.

`python packet_record.py FILE` prints `ready`, then adds one JSON line to FILE for each kind of packet
when it is first seen, and at SIGTERM one with the number of packets it missed. Its own namespace lives
as long as it does. Loopback is left out: nothing on it leaves the namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import json
import signal
import socket
import struct
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0003, 0x0800, 0x0806, 0x86DD
PACKET_OUTGOING = 4
SOL_PACKET, PACKET_STATISTICS, SO_RCVBUFFORCE = 263, 6, 33
TCP, UDP, ICMPV6 = 6, 17, 58
NEIGHBOURS = {133, 134, 135, 136, 137, 143}
"""ICMPv6 by which the kernel itself finds its neighbours (RFC 4861, RFC 3810)."""
DNS = 53
SEEN_BYTES = 512
BUFFER_BYTES = 64 << 20


def describe(kind: int, packet: bytes) -> dict[str, str | int | bool] | None:
    """Protocol, target and, of what opens a conversation, the port; None for the kernel's own chores."""
    if kind == ETH_P_ARP:
        return {"protocol": "arp", "target": str(ipaddress.ip_address(packet[24:28]))}
    if kind == ETH_P_IP:
        number, target = packet[9], ipaddress.ip_address(packet[16:20])
        rest = packet[4 * (packet[0] & 15) :]
    elif kind == ETH_P_IPV6:
        number, target, rest = packet[6], ipaddress.ip_address(packet[24:40]), packet[40:]
        if number == 0:  # hop-by-hop options, as multicast reports carry them
            number, rest = rest[0], rest[8 * (rest[1] + 1) :]
        if number == ICMPV6 and rest[0] in NEIGHBOURS:
            return None
    else:
        return {"protocol": f"ethernet {kind:#06x}", "target": "?"}
    found: dict[str, str | int | bool] = {"protocol": str(number), "target": str(target)}
    if number == TCP:
        flags = rest[13]
        found |= {"protocol": "tcp", "opens": bool(flags & 0x02 and not flags & 0x10)}
        if found["opens"]:
            found["port"] = struct.unpack(">H", rest[2:4])[0]
    elif number == UDP:
        found |= {"protocol": "udp", "port": struct.unpack(">H", rest[2:4])[0]}
        if found["port"] == DNS:
            found["asks"] = name_asked(rest[8:])
    return found


def name_asked(query: bytes) -> str:
    """The name of a DNS query (RFC 1035, section 4.1.2)."""
    labels, at = [], 12
    while at < len(query) and (length := query[at]):
        labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(labels)


def record(file: Path) -> None:
    """Until SIGTERM."""
    seen = set()
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as wire,
        file.open("w") as lines,
    ):
        with contextlib.suppress(PermissionError):  # else the usual size: what it misses is counted
            wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        wire.settimeout(0.2)
        print("ready", flush=True)
        while True:
            try:
                packet, (interface, kind, way, *_) = wire.recvfrom(SEEN_BYTES)
            except TimeoutError:
                if ended:  # and all that was waiting has been read
                    break
                continue
            if interface == "lo" or (what := describe(kind, packet)) is None:
                continue
            line = json.dumps({"leaves": way == PACKET_OUTGOING, **what})
            if line not in seen:
                seen.add(line)
                lines.write(line + "\n")
                lines.flush()
        _, missed = struct.unpack("II", wire.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        lines.write(json.dumps({"missed": missed}) + "\n")


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    record(Path(sys.argv[1]))
