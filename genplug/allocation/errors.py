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
