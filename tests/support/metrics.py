"""The metrics that an agent serves."""

import asyncio
import urllib.request

from genplug.agent import Agent


async def read_metrics(agent: Agent) -> dict[str, float]:
    """Return the value of each sample of ``/metrics`` by its name with its labels."""
    url = f"http://127.0.0.1:{agent.http_port}/metrics"
    page = (await asyncio.to_thread(urllib.request.urlopen, url)).read().decode()
    samples = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}
