"""Which network addresses a connector may open a connection to.

Python's `ipaddress.is_global` is no guard: it calls ::127.0.0.1, 64:ff9b::/96, 2002:7f00:1::, multicast and others
global. So this is a list of what is refused for IPv4, and of the one block that is allowed for IPv6 with the holes in
it. Everything else follows from the tables below. A network that reaches IPv4 through NAT64 (64:ff9b::/96) is refused
as well: such an address can stand for any IPv4 address, private ones included.
"""

from __future__ import annotations

import ipaddress

V4_REFUSED = tuple(
    ipaddress.IPv4Network(net)
    for net in (
        "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; `is_private` says False
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, cloud metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, retired
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
V6_ALLOWED = ipaddress.IPv6Network("2000::/3")
V6_REFUSED = tuple(
    ipaddress.IPv6Network(net)
    for net in (
        "2001::/23",  # Teredo, ORCHID, benchmarks: protocol assignments
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: carries any IPv4 address
        "3fff::/20",  # documentation
    )
)
PRIVATE = tuple(
    ipaddress.ip_network(net)
    for net in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)
"""What `allow_private` adds: loopback and networks of one's own. Never link-local, where clouds keep credentials."""


def allowed(address: str, *, private: bool = False) -> bool:
    """Whether a connection to this numeric address may be opened.

    `private` also admits loopback and private networks. Text that is not a plain numeric address, or that carries an
    IPv6 zone (``fe80::1%eth0``), is refused.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if private and any(ip.version == net.version and ip in net for net in PRIVATE):
        return True
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in net for net in V4_REFUSED)
    if ip.scope_id is not None:
        return False
    return ip in V6_ALLOWED and not any(ip in net for net in V6_REFUSED)
