import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node import FakeNode


@pytest.fixture
def kubelet_dir() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="gp", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
async def kubelet(kubelet_dir: Path) -> AsyncIterator[KubeletStandIn]:
    async with KubeletStandIn(kubelet_dir) as kubelet:
        yield kubelet


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    async with FakeNode() as node:
        yield node
