"""What runs before a container starts (``preStart``): device IDs in, programs with their arguments out, or a refusal.

The kubelet asks before each start of the container, restarts included (contract 5.5).
"""

from collections.abc import Sequence

from genplug.allocation.errors import AllocationError, AllocationErrorCode
from genplug.allocation.offer import ResourceOffer
from genplug.allocation.results import ProgramRun
from genplug.spec.template import MissingAttributeError


def program_runs(offer: ResourceOffer, ids: Sequence[str]) -> tuple[ProgramRun, ...]:
    """Return what to run for a container with these devices: once for each device, whatever its grants are.

    Raises:
        Refusal: an ID is unknown, an argument has no value, or the policy does not allow the program (any more).
    """
    spec, resource = offer.resource.pre_start, offer.resource
    if spec is None:
        return ()
    if fault := resource.policy.exec_error(spec.command[0].text):
        raise _failed_precondition(
            f"{resource.name}: to run {spec.command[0].text} before a container starts is {fault}"
        )
    runs: dict[tuple[str, ...], ProgramRun] = {}
    for one in dict.fromkeys(ids):
        if one not in offer.grants:
            text = f"{resource.name} has no device {one!r} on this node: it left the hardware or the configuration"
            raise AllocationError(AllocationErrorCode.NOT_FOUND, text)
        for device in (judged.device for judged in offer.grants[one].devices):
            try:
                arguments = tuple(part.render(device.attributes) for part in spec.command)
            except MissingAttributeError as error:
                text = f"preStart ({spec.location}) needs '{error.name}', which it does not have"
                raise _failed_precondition(f"{resource.name} device {device.id}: {text}") from None
            runs.setdefault(arguments, ProgramRun(resource.name, device.id, arguments, spec.timeout_seconds))
    return tuple(runs.values())


def _failed_precondition(text: str) -> AllocationError:
    return AllocationError(AllocationErrorCode.FAILED_PRECONDITION, text)
