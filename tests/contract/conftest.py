"""Fixtures of the contract tests."""

import pytest

from genplug.testing.node.fake_node import FakeNode
from tests.support.resources import plug_devices


@pytest.fixture
def xy_node(node: FakeNode) -> FakeNode:
    """Give ``node`` with the devices ``/dev/x0`` and ``/dev/y0``."""
    plug_devices(node, "x0", "y0")
    return node
