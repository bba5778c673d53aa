"""Allocation errors: a message for the owner of the pod, and a code for the gRPC status or for the metrics."""

from enum import StrEnum

from genplug.allocation.results import ClaimReference


class AllocationErrorCode(StrEnum):
    """gRPC status names (docs/internals/kubelet-contract.md §10, points 49, 50 and 56)."""

    NOT_FOUND = "NOT_FOUND"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    UNAVAILABLE = "UNAVAILABLE"


class AllocationError(Exception):
    """An Allocate or PreStartContainer request that fails; the message names the device and the reason.

    The kubelet copies the message to the status of the pod (docs/internals/kubelet-contract.md §5.3), so it must not
    contain secrets.
    """

    def __init__(self, code: AllocationErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class ClaimErrorCode(StrEnum):
    """Why a ResourceClaim is not prepared or unprepared, for the metrics."""

    UNREADABLE = "unreadable"
    """The claim cannot be read from the API server, or what was read is not a claim."""
    REPLACED = "replaced"
    """The claim does not exist, or another claim has its name."""
    NOT_ALLOCATED = "not_allocated"
    PARAMETERS = "parameters"
    """It has parameters for the driver, which takes none."""
    UNKNOWN_DEVICE = "unknown_device"
    DEVICE_IN_USE = "device_in_use"
    DEVICE_UNHEALTHY = "device_unhealthy"
    EDITS = "edits"
    """The container edits of its devices cannot be made, for example because a device node has disappeared."""
    PRE_START = "pre_start"
    """A program of ``preStart`` failed."""
    STORAGE = "storage"
    """The record or the CDI file of the claim cannot be written or removed."""
    TIMEOUT = "timeout"
    INTERNAL = "internal"
    """A defect in genplug."""


class ClaimError(Exception):
    """A ResourceClaim that cannot be prepared or unprepared; the message names the claim, the device and the reason.

    The kubelet copies the message to an event of the pod, so it must not contain secrets.
    """

    def __init__(self, code: ClaimErrorCode, claim: ClaimReference, reason: str) -> None:
        super().__init__(f"ResourceClaim {claim}: {reason}")
        self.code = code
        self.claim = claim


class DeviceHeldError(ClaimError):
    """A device of a claim that another prepared claim, the ``holder``, has."""

    def __init__(self, claim: ClaimReference, holder: ClaimReference, reason: str) -> None:
        super().__init__(ClaimErrorCode.DEVICE_IN_USE, claim, reason)
        self.holder = holder


def failed_precondition(message: str) -> AllocationError:
    """Return an error about the state of a device, a mount source, a program or the policy."""
    return AllocationError(AllocationErrorCode.FAILED_PRECONDITION, message)


def unknown_device_error(resource: str, device_id: str) -> AllocationError:
    """Return an error about an ID that the resource does not have, for example after the device was removed."""
    text = f"{resource} has no device {device_id!r} on this node: it was removed from the hardware or the configuration"
    return AllocationError(AllocationErrorCode.NOT_FOUND, text)
