"""Computes the programs to run before a container starts (``preStart``).

The kubelet calls PreStartContainer before each start of a container, including restarts (docs/internals/
kubelet-contract.md §5.5).
"""

from collections.abc import Sequence

from genplug.allocation.errors import failed_precondition, unknown_device_error
from genplug.allocation.offer import ResourceOffer
from genplug.allocation.results import ProgramRun
from genplug.hardware.inventory import Device, sort_devices
from genplug.hardware.rendered_values import with_resource
from genplug.spec.template import RenderError


def program_runs(offer: ResourceOffer, ids: Sequence[str]) -> tuple[ProgramRun, ...]:
    """Return the programs to run for a container with these devices: once for each device, in their order.

    Raises:
        AllocationError: an ID is unknown, an argument has no value, or the policy forbids the program.
    """
    spec, resource = offer.resource.pre_start, offer.resource
    if spec is None:
        return ()
    if violation := resource.policy.exec_error(spec.command[0].text):
        raise failed_precondition(
            f"{resource.name}: running {spec.command[0].text} before a container starts is {violation}"
        )
    devices: dict[str, Device] = {}
    for grant_id in dict.fromkeys(ids):
        if grant_id not in offer.grants:
            raise unknown_device_error(resource.name, grant_id)
        devices.update((health.device.id, health.device) for health in offer.grants[grant_id].devices)
    runs: dict[tuple[str, ...], ProgramRun] = {}
    for device in sort_devices(devices.values()):
        values = with_resource(device.attributes, resource.name)
        try:
            arguments = tuple(part.render(values) for part in spec.command)
        except RenderError as error:
            text = f"preStart ({spec.location}) {error.describe('the device')}"
            raise failed_precondition(f"{resource.name} device {device.id}: {text}") from None
        runs.setdefault(arguments, ProgramRun(resource.name, device.id, arguments, spec.timeout_seconds))
    return tuple(runs.values())
