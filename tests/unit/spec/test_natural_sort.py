"""Natural order: decimal numbers, and PCI addresses as hexadecimal numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.spec.natural_sort import natural_sort_key

SORTED = {
    "names": ["nvidia", "nvidia0", "nvidia2", "nvidia10", "x"],
    "ports": ["1-1", "1-1.2", "1-1.10", "1-2", "10-1"],
    "addresses": ["0000:0a:00.0", "0000:10:00.0", "0000:3b:00.0", "0000:3b:00.1", "0000:af:00.0", "0001:02:00.0"],
    "slots": ["0000:09:10", "0000:0f:02", "0000:10:00", "0000:9a:00", "0000:a0:00"],
    "host bridges": [
        "/sys/devices/pci0000:09/0000:09:01.0",
        "/sys/devices/pci0000:3a/0000:3a:00.0",
        "/sys/devices/pci0000:80",
    ],
    "links": ["pci-0000:0a:1f.2-card", "pci-0000:0a:1f.2-render", "pci-0000:10:00.0-card"],
    "domains": ["0000:01:00.0", "fffe:01:00.0", "10000:01:00.0"],
    "letters": ["0000:3B:00.0", "0000:AF:00.0"],
    "mac addresses": ["2:0c", "10:0a"],
}


@pytest.mark.parametrize("texts", SORTED.values(), ids=SORTED)
def test_texts_are_in_natural_order(texts: list[str]) -> None:
    shuffled = texts[::-1]
    assert sorted(shuffled, key=natural_sort_key) == texts


@given(
    st.tuples(*[st.integers(0, high) for high in (0xFFFFF, 0xFF, 0x1F, 7)]),
    st.tuples(*[st.integers(0, high) for high in (0xFFFFF, 0xFF, 0x1F, 7)]),
)
def test_pci_addresses_compare_as_numbers(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    keys = [natural_sort_key("{:04x}:{:02x}:{:02x}.{}".format(*address)) for address in (first, second)]
    assert (keys[0] < keys[1]) == (first < second)


@given(st.text("0a:.9", max_size=14), st.text("0a:.9", max_size=14))
def test_equal_keys_mean_equal_texts(first: str, second: str) -> None:
    assert (natural_sort_key(first) == natural_sort_key(second)) == (first == second)
