"""Have every probe look once, for commands: what it says, and what keeps it from looking."""

import asyncio

from genplug.hardware.host import Host
from genplug.hardware.inventory import Inventory
from genplug.health.status import Trouble
from genplug.health.verdict import Findings


def first_findings(inventory: Inventory, host: Host) -> tuple[Findings, tuple[Trouble, ...]]:
    """Return what the probes of an inventory say at their first look; each has as long as its timeout."""
    if not any(resource.health.probes for resource in inventory.resources.values()):
        return Findings(), ()
    return asyncio.run(_looked(inventory, host))


async def _looked(inventory: Inventory, host: Host) -> tuple[Findings, tuple[Trouble, ...]]:
    # Imported here: who has no probes does not pay for what they need.
    from genplug.health.monitor import Monitor  # noqa: PLC0415

    monitor = Monitor(host, lambda: None, lambda _: None, lambda: "")
    monitor.watch(inventory, frozenset())
    looking = asyncio.create_task(monitor.run())
    patience = max(probe.numbers.timeout for one in inventory.resources.values() for probe in one.health.probes)
    try:
        return await monitor.first_looks(patience + 1), monitor.status.troubles
    finally:
        looking.cancel()
        await asyncio.wait([looking])
