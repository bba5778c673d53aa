from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from genplug.cluster.http import HttpClient
from genplug.testing.api_server import ApiServerStandIn
from tests.support.api_server import connect


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ApiServerStandIn]:
    """Return an API server without TLS, which needs no openssl."""
    async with ApiServerStandIn(tls=False) as server:
        yield server


@pytest_asyncio.fixture
async def http(server: ApiServerStandIn, tmp_path: Path) -> AsyncIterator[HttpClient]:
    """Return a client of the server."""
    client = connect(server, tmp_path)
    yield client
    client.close()
