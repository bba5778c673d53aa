"""Runs every probe once, for ``genplug plan --probe``."""

import asyncio
from typing import TypeAlias

from genplug.hardware.host import Host
from genplug.hardware.inventory import Inventory
from genplug.health.status import ProbeError, ProbeWarning
from genplug.health.verdict import ProbeResults

_GRACE_SECONDS = 1.0
"""Time after the longest timeout of a probe, for the start of a worker."""

FirstResults: TypeAlias = tuple[ProbeResults, tuple[ProbeError, ...], tuple[ProbeWarning, ...]]


def run_probes_once(inventory: Inventory, host: Host) -> FirstResults:
    """Return the first results of the probes of an inventory, and the errors and the warnings of probes."""
    if not any(resource.health.probes for resource in inventory.resources.values()):
        return ProbeResults(), (), ()
    return asyncio.run(_run_once(inventory, host))


async def _run_once(inventory: Inventory, host: Host) -> FirstResults:
    # Imported here, because a configuration without probes does not need it.
    from genplug.health.monitor import ProbeMonitor  # noqa: PLC0415

    monitor = ProbeMonitor(host, lambda: None, lambda _: None, lambda: "")
    monitor.update_devices(inventory)
    running = asyncio.create_task(monitor.run())
    probes = (probe for resource in inventory.resources.values() for probe in resource.health.probes)
    longest = max(probe.timing.timeout for probe in probes)
    try:
        results = await monitor.wait_first_results(longest + _GRACE_SECONDS)
        return results, monitor.status.errors, monitor.status.warnings
    finally:
        running.cancel()
        await asyncio.wait([running])
