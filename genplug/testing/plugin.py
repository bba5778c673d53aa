"""Fixtures for pytest with pytest-asyncio.

The top ``conftest.py`` of a project enables them with ``pytest_plugins = ["genplug.testing.plugin"]``.
"""

from collections.abc import AsyncIterator

import pytest_asyncio

from genplug.testing.api_server import ApiServerStandIn
from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.fake_node import FakeNode


@pytest_asyncio.fixture
async def node() -> AsyncIterator[FakeNode]:
    """Return a fake node whose kubelet does not run yet; ``node.run_agent`` starts it."""
    async with FakeNode() as node:
        yield node


@pytest_asyncio.fixture
async def kubelet(node: FakeNode) -> KubeletStandIn:
    """Return the kubelet of ``node``, which runs."""
    await node.kubelet.start()
    return node.kubelet


@pytest_asyncio.fixture
async def api_server() -> AsyncIterator[ApiServerStandIn]:
    """Return an API server, which runs and has no objects; it needs the program ``openssl``."""
    async with ApiServerStandIn() as server:
        yield server
