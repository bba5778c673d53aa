"""Have every probe look once, for commands: what it says, and what keeps it from looking."""

import asyncio

from genplug.hardware.host import Host
from genplug.hardware.inventory import Inventory
from genplug.health.status import ProbeError
from genplug.health.verdict import ProbeResults


def run_probes_once(inventory: Inventory, host: Host) -> tuple[ProbeResults, tuple[ProbeError, ...]]:
    """Return what the probes of an inventory say at their first look; each has as long as its timeout."""
    if not any(resource.health.probes for resource in inventory.resources.values()):
        return ProbeResults(), ()
    return asyncio.run(_looked(inventory, host))


async def _looked(inventory: Inventory, host: Host) -> tuple[ProbeResults, tuple[ProbeError, ...]]:
    # Imported here: who has no probes does not pay for what they need.
    from genplug.health.monitor import ProbeMonitor  # noqa: PLC0415

    monitor = ProbeMonitor(host, lambda: None, lambda _: None, lambda: "")
    monitor.update_devices(inventory, frozenset())
    looking = asyncio.create_task(monitor.run())
    patience = max(probe.timing.timeout for one in inventory.resources.values() for probe in one.health.probes)
    try:
        return await monitor.wait_first_results(patience + 1), monitor.status.errors
    finally:
        looking.cancel()
        await asyncio.wait([looking])
