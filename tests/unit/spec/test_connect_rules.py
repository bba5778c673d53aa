"""Which addresses probes may connect to."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.spec.connect_rules import CLUSTER_PORTS, ConnectEntry, parse_address, parse_connect_rules

METADATA = "169.254.169.254"


@pytest.mark.parametrize(
    ("entry", "host", "address", "port", "is_allowed"),
    [
        ("127.0.0.0/8", "x", "127.0.0.1", 80, True),
        ("127.0.0.0/8", "x", "127.0.0.1", 10250, False),
        ("127.0.0.1:10250", "x", "127.0.0.1", 10250, True),
        ("127.0.0.1:10250", "x", "127.0.0.1", 80, False),
        ("::1", "x", "::1", 8080, True),
        ("[::1]:8080", "x", "::1", 8080, True),
        ("[::1]:8080", "x", "::1", 8081, False),
        ("0.0.0.0/0", "x", "8.8.8.8", 80, True),
        ("0.0.0.0/0", "x", METADATA, 80, False),
        ("169.254.0.0/16", "x", METADATA, 80, True),
        (METADATA, "x", METADATA, 80, True),
        ("::/0", "x", "fd00:ec2::254", 80, False),
        ("*.example.com", "a.example.com", "10.0.0.1", 9400, True),
        ("*.example.com", "a.example.org", "10.0.0.1", 9400, False),
        ("*.example.com:9400", "A.Example.com.", "10.0.0.1", 9400, True),
        ("*.example.com", "a.example.com", METADATA, 80, False),
        ("*", "a", "10.0.0.1", 6443, False),
        ("10.0.0.0/8", "x", "::ffff:10.0.0.1", 80, True),
        ("10.0.0.0/8", "x", "::1", 80, False),
    ],
)
def test_entry_allows_address_and_port(entry: str, host: str, address: str, port: int, *, is_allowed: bool) -> None:
    assert parse_connect_rules((entry,)).allows(host, ipaddress.ip_address(address), port) is is_allowed


@pytest.mark.parametrize(
    "text", ["", "a:b", "a:0", "a:65536", "[a]:1", "http://a", "a/b", "::1:80x", "[::1", "a b", "a@b"]
)
def test_invalid_entry_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        ConnectEntry.parse(text)


@given(st.integers(0, 2**32 - 1))
def test_every_spelling_of_an_address_is_the_address(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    octets = address.packed
    spellings = [
        str(address),
        str(number),
        hex(number),
        ".".join(map(hex, octets)),
        ".".join(f"0{octet:o}" for octet in octets),
        f"{octets[0]}.{number & 0xFFFFFF}",
        f"::ffff:{address}",
        str(ipaddress.IPv6Address(f"64:ff9b::{address}")),
    ]
    assert {parse_address(spelling) for spelling in spellings} == {address}


@given(st.ip_addresses(), st.sampled_from(sorted(CLUSTER_PORTS)))
def test_port_of_the_cluster_needs_an_entry_with_the_port(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    assert not parse_connect_rules(("0.0.0.0/0", "::/0", "*")).allows("a", address, port)


@pytest.mark.parametrize("name", ["localhost", "a.example.com", "", "127.0.0.1 x", "1.2.3.4.5"])
def test_name_is_not_an_address(name: str) -> None:
    assert parse_address(name) is None
