"""Requests to the HTTP endpoints of an agent that runs in this process."""

import asyncio
import urllib.error
import urllib.request

from genplug.agent import Agent


async def get(agent: Agent, page: str, host: str = "127.0.0.1") -> tuple[int, str]:
    """Return status and text of a page, requested from a thread: the loop must be free to respond."""
    assert agent.http_port is not None
    return await get_from_port(agent.http_port, page, host)


async def get_from_port(port: int, page: str, host: str = "127.0.0.1") -> tuple[int, str]:
    """Return status and text of a page of an agent, which may run in another process."""

    def request() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{host}:{port}{page}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(request)


async def get_text(port: int, page: str) -> str:
    """Return the text of a page of an agent that runs in another process."""

    def request() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=10) as response:
            return str(response.read().decode())

    return await asyncio.to_thread(request)
