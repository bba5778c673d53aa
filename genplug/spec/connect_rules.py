"""Which addresses probes may connect to. A name counts as the addresses that it resolves to.

An entry of a policy is ``HOST`` or ``HOST:PORT``. The host is an address, a network (``10.0.0.0/8``) or a name, in
which ``*`` matches any text. An IPv6 address or network with a port is in brackets.
"""

import fnmatch
import ipaddress
import re
from typing import TypeAlias

from msgspec import Struct

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

CLUSTER_PORTS = frozenset(
    {
        # Kubernetes documentation, "Ports and Protocols", and the defaults of the components: API server, etcd,
        # kubelet, scheduler, controller managers, kube-proxy.
        *(443, 6443, 8443, 2379, 2380, 2381, 4194),
        *range(10248, 10261),
        # Distributions: k3s, RKE2, MicroK8s.
        *(6444, 9345, 16443, 25000),
        # Konnectivity, and the APIs of container engines.
        *(8132, 8133, 8134, 2375, 2376, 2377),
    }
)
"""Ports of the components of a node: only an entry with the port allows them."""

_METADATA_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        # Link-local addresses include the metadata services of most clouds; AWS (IPv6), Alibaba Cloud, Azure.
        ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"),
    )
)
"""Addresses of metadata services: only an entry for an address or a network within them allows them."""
_ENTRY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:/\d+)?)]|(?P<host>[^\[\]:]+))(?::(?P<port>\d{1,5}))?\Z")
_NUMBER = re.compile(r"(?:0[xX][0-9A-Fa-f]{1,8}|0[0-7]{0,11}|[1-9]\d{0,9})\Z", re.ASCII)
_OCTETS = 4
_MAX_OCTET = 255
_MAX_PORT = 65535
_NAME = re.compile(r"[A-Za-z0-9*](?:[-A-Za-z0-9_.*]*[A-Za-z0-9*])?\Z")


class ConnectEntry(Struct, frozen=True):
    """An entry: a network or a glob over names, and a port; None is any port but those of the cluster."""

    text: str
    network: Network | None
    name: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> "ConnectEntry":
        """Parse an entry.

        Raises:
            ValueError: it is not valid; the text is the reason.
        """
        bare = _parse_network(text)
        if bare is not None:
            return cls(text, bare, "", None)
        match = _ENTRY.match(text)
        if match is None:
            raise ValueError("expected HOST or HOST:PORT, with an IPv6 address in brackets")
        port = int(match["port"]) if match["port"] else None
        if port is not None and not 1 <= port <= _MAX_PORT:
            raise ValueError(f"expected a port from 1 to {_MAX_PORT}")
        host = match["v6"] or match["host"]
        network = _parse_network(host)
        if network is None and (match["v6"] or not _NAME.match(host)):
            raise ValueError("expected an address, a network or a name")
        return cls(text, network, host.lower() if network is None else "", port)

    def allows(self, host: str, address: Address, port: int) -> bool:
        """Return whether the entry allows a connection to an address to which a host resolves."""
        if self.port != port and (self.port is not None or port in CLUSTER_PORTS):
            return False
        metadata = next((network for network in _METADATA_NETWORKS if _contains(network, address)), None)
        if self.network is None:
            return metadata is None and fnmatch.fnmatchcase(host.lower().rstrip("."), self.name)
        if not _contains(self.network, address):
            return False
        return metadata is None or self.network.prefixlen >= metadata.prefixlen


class ConnectRules(Struct, frozen=True):
    """The entries of a policy."""

    entries: tuple[ConnectEntry, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The entries as written."""
        return tuple(entry.text for entry in self.entries)

    def allows(self, host: str, address: Address, port: int) -> bool:
        """Return whether a connection to an address to which a host resolves is allowed."""
        return any(entry.allows(host, normalize_address(address), port) for entry in self.entries)

    def may_allow_name(self, host: str, port: int) -> bool:
        """Return whether a connection to a name may be allowed; the addresses of the name are not known.

        A name is only resolved if this is so, because a DNS query sends the name to the network: entries for loopback
        addresses allow the name ``localhost`` only (RFC 6761, section 6.3).
        """
        name = host.lower().rstrip(".")
        # Not names below it: many resolvers send them to the network.
        is_local = name == "localhost"
        return any(
            entry.port == port or (entry.port is None and port not in CLUSTER_PORTS)
            for entry in self.entries
            if (
                is_local or not entry.network.is_loopback
                if entry.network is not None
                else fnmatch.fnmatchcase(name, entry.name)
            )
        )


def parse_connect_rules(texts: tuple[str, ...]) -> ConnectRules:
    """Return the rules of entries.

    Raises:
        ValueError: an entry is not valid.
    """
    return ConnectRules(tuple(map(ConnectEntry.parse, texts)))


def parse_address(host: str) -> Address | None:
    """Return the address that a host is, None for a name; does not resolve names.

    ``127.1``, ``0x7f.1`` and ``2130706433`` are addresses, too (inet_aton(3)).
    """
    try:
        return normalize_address(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return _parse_numbers(host)


def _parse_numbers(host: str) -> Address | None:
    """Return the address that one to four numbers are, as inet_aton(3) reads them; the last fills the rest."""
    parts = host.split(".")
    if len(parts) > _OCTETS or not all(map(_NUMBER.match, parts)):
        return None
    *first, last = (int(part, 16 if part[:2].lower() == "0x" else 8 if part[0] == "0" else 10) for part in parts)
    free = _OCTETS - len(first)
    if any(number > _MAX_OCTET for number in first) or last >= 1 << (8 * free):
        return None
    return ipaddress.IPv4Address(bytes(first) + last.to_bytes(free))


def normalize_address(address: Address) -> Address:
    """Return an address without the ways to write an IPv4 address as an IPv6 address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        packed = address.packed
        # NAT64 (RFC 6052) and IPv4-compatible addresses (RFC 4291), except the unspecified address and ::1.
        if packed[:12] == bytes.fromhex("0064ff9b0000000000000000") or (packed[:12] == bytes(12) and int(address) > 1):
            return ipaddress.IPv4Address(packed[12:])
    return address


def _parse_network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _contains(network: Network, address: Address) -> bool:
    return network.version == address.version and address in network
