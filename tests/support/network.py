"""The addresses of the machine that runs the tests."""

import socket

_DOCUMENTATION = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses for documentation (RFC 5737 and RFC 3849)."""


def has_ipv6() -> bool:
    """Return whether a socket can listen on the IPv6 loopback address and on all addresses of both versions."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return socket.has_dualstack_ipv6()
    except OSError:
        return False


def outside_addresses() -> list[str]:
    """Return the addresses of this machine from which it reaches other machines, IPv6 addresses in brackets."""
    found = []
    for family, target in _DOCUMENTATION.items():
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                # This selects a route and an address; it sends nothing.
                probe.connect((target, 9))
            except OSError:
                continue
            address = probe.getsockname()[0]
        found.append(f"[{address}]" if ":" in address else address)
    return found


def free_port() -> int:
    """Return a TCP port of the loopback address that no socket uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
