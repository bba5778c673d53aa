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
        # The bits of an address behind its network do not matter.
        ("10.1.2.3/8:1", "x", "10.9.9.9", 1, True),
        ("10.1.2.3/8:65535", "x", "10.9.9.9", 65535, True),
        ("[2001:db8::1/32]:80", "x", "2001:db8:1::", 80, True),
    ],
)
def test_entry_allows_address_and_port(entry: str, host: str, address: str, port: int, *, is_allowed: bool) -> None:
    assert parse_connect_rules((entry,)).allows(host, ipaddress.ip_address(address), port) is is_allowed


FORM = "expected HOST or HOST:PORT, with an IPv6 address in brackets"
PORT = "expected a port from 1 to 65535"
HOST = "expected an address, a network or a name"
INVALID = {
    **dict.fromkeys(("", "a:b", "http://a", "::1:80x", "[::1"), FORM),
    **dict.fromkeys(("a:0", "a:65536"), PORT),
    **dict.fromkeys(("a/b", "a b", "a@b", "[a]:1", "[1.2.3]:80"), HOST),
}


@pytest.mark.parametrize(("text", "error"), INVALID.items())
def test_invalid_entry_is_rejected_with_the_expected_form(text: str, error: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        ConnectEntry.parse(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("text", "network", "name", "port"),
    [
        ("::1", "::1", "", None),
        ("[::1]:80", "::1", "", 80),
        ("10.0.0.1:80", "10.0.0.1", "", 80),
        ("*.Example.com:443", None, "*.example.com", 443),
        ("localhost", None, "localhost", None),
    ],
)
def test_entry_is_a_network_or_a_name_with_a_port(text: str, network: str | None, name: str, port: int | None) -> None:
    expected = ConnectEntry(text, None if network is None else ipaddress.ip_network(network), name, port)
    assert ConnectEntry.parse(text) == expected
    assert parse_connect_rules((text, "*")).texts == (text, "*")


@pytest.mark.parametrize(
    ("entry", "name", "port", "is_allowed"),
    [
        ("*.example.com", "a.example.com", 80, True),
        ("*.example.com", "A.Example.com.", 80, True),
        ("*.example.com", "a.example.org", 80, False),
        ("*.example.com", "a.example.com", 6443, False),
        ("*.example.com:6443", "a.example.com", 6443, True),
        ("*.example.com:6443", "a.example.com", 80, False),
        ("localhost", ".localhost", 80, False),
        # Only these entries allow a name without a request to the network.
        ("127.0.0.0/8", "localhost", 80, True),
        ("127.0.0.0/8", "LocalHost.", 80, True),
        ("::1", "localhost", 80, True),
        ("127.0.0.0/8", "a.localhost", 80, False),
        ("127.0.0.0/8", "a", 80, False),
        ("127.0.0.0/8", "localhost", 10250, False),
        # The name may have an address of the network.
        ("10.0.0.0/8", "a", 80, True),
        ("10.0.0.0/8", "localhost", 80, True),
        ("10.0.0.0/8:81", "a", 80, False),
    ],
)
def test_name_may_be_resolved_if_an_entry_may_allow_it(entry: str, name: str, port: int, *, is_allowed: bool) -> None:
    assert parse_connect_rules((entry,)).may_allow_name(name, port) is is_allowed
    assert parse_connect_rules(("other.example:1", entry)).may_allow_name(name, port) is is_allowed


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


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("::10.0.0.1", "10.0.0.1"),
        ("::2", "0.0.0.2"),
        ("2002:a00:1::", "10.0.0.1"),
        ("::", "::"),
        ("::1", "::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("255.16777215", "255.255.255.255"),
        ("4294967295", "255.255.255.255"),
        ("1.2.65535", "1.2.255.255"),
    ],
)
def test_address_is_compared_without_the_spelling_that_hides_it(text: str, address: str) -> None:
    assert parse_address(text) == ipaddress.ip_address(address)


@pytest.mark.parametrize(
    "name",
    [
        *("localhost", "a.example.com", "", "127.0.0.1 x", "1.2.3.4.5", "1..2", "08"),
        *("256.1", "1.256.1", "1.16777216", "1.2.65536", "1.2.3.256", "4294967296"),
    ],
)
def test_name_is_not_an_address(name: str) -> None:
    assert parse_address(name) is None
