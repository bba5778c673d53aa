"""Fixtures for pytest with pytest-asyncio; ``pytest_plugins = ["genplug.testing.plugin"]`` in the top conftest.py."""

from collections.abc import AsyncIterator

import pytest_asyncio

from genplug.testing.kubelet.stand_in import KubeletStandIn
from genplug.testing.node.fake_node import FakeNode


@pytest_asyncio.fixture
async def node() -> AsyncIterator[FakeNode]:
    """Give a fake node whose kubelet does not run yet; ``node.running`` starts it."""
    async with FakeNode() as node:
        yield node


@pytest_asyncio.fixture
async def kubelet(node: FakeNode) -> KubeletStandIn:
    """Give the kubelet of ``node``, running."""
    await node.kubelet.start()
    return node.kubelet
