"""The attributes that follow from the path and stat of a candidate."""

import pytest

from genplug.hardware.candidate_attributes import PathAttributes
from genplug.hardware.inventory import Kind, PathInfo
from genplug.spec.template import distinct_values

NODE = PathAttributes("/dev/x12", PathInfo.of("/dev/x12", Kind.CHAR, 240, 7))
LINK = PathAttributes("/dev/by/x", PathInfo.of("/dev/x12", Kind.BLOCK, 8, 1))
SOCKET = PathAttributes("/run/3", PathInfo.of("/run/3", Kind.SOCKET))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (
            NODE,
            {"path": "/dev/x12", "name": "x12", "type": "char", "index": "12", "major": "240", "minor": "7"},
        ),
        (
            LINK,
            {"path": "/dev/by/x", "name": "x", "type": "block", "major": "8", "minor": "1", "target": "/dev/x12"},
        ),
        (SOCKET, {"path": "/run/3", "name": "3", "type": "socket", "index": "3"}),
    ],
    ids=["node", "link", "socket"],
)
def test_path_has_attributes(attributes: PathAttributes, expected: dict[str, str]) -> None:
    values = {name: (text,) for name, text in expected.items()}
    assert list(attributes.items()) == list(values.items())
    assert attributes == values
    assert len(attributes) == len(values)
    assert all(name in attributes for name in expected)


def test_attribute_that_does_not_exist_is_missing() -> None:
    assert "target" not in NODE
    assert "index" not in LINK
    assert "serial" not in NODE
    assert SOCKET.get("major") is None
    with pytest.raises(KeyError, match="minor"):
        SOCKET["minor"]


def test_attributes_of_equal_paths_are_equal() -> None:
    assert PathAttributes("/dev/x12", PathInfo.of("/dev/x12", Kind.CHAR, 240, 7)) == NODE
    assert PathAttributes("/dev/x12", PathInfo.of("/dev/x12", Kind.CHAR, 240, 8)) != NODE
    assert PathAttributes("/dev/x1", PathInfo.of("/dev/x12", Kind.CHAR, 240, 7)) != NODE
    assert NODE != {**NODE, "index": ("1",)}


def test_attributes_of_a_path_are_distinct() -> None:
    assert distinct_values(NODE) is NODE
