"""Allocation errors: a message for the owner of the pod and a code for the gRPC status."""

from enum import StrEnum


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


def failed_precondition(message: str) -> AllocationError:
    """Return an error about the state of a device, a mount source, a program or the policy."""
    return AllocationError(AllocationErrorCode.FAILED_PRECONDITION, message)


def unknown_device_error(resource: str, device_id: str) -> AllocationError:
    """Return an error about an ID that the resource does not have, for example after the device was removed."""
    text = f"{resource} has no device {device_id!r} on this node: it was removed from the hardware or the configuration"
    return AllocationError(AllocationErrorCode.NOT_FOUND, text)
