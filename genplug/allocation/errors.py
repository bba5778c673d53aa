"""Refusals: why a request gets no answer, as a text for the person whose pod it is and a code for the wire."""

from enum import StrEnum


class AllocationErrorCode(StrEnum):
    """gRPC status names (kubelet-contract 10: 49, 50, 56)."""

    NOT_FOUND = "NOT_FOUND"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"


class AllocationError(Exception):
    """A request that cannot be answered; ``code`` goes on the wire, the text names device and reason.

    The kubelet puts the text into the pod's status (kubelet-contract 5.3), so it holds no secrets.
    """

    def __init__(self, code: AllocationErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
