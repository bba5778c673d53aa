"""Fault injection for the stand-in of the API server. Without a call of a test, the stand-in has no fault."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

from msgspec import Struct

from genplug.testing.api_server.statuses import ApiStatusError
from genplug.testing.gate import Gate

ALL = "*"
"""All verbs, or all resources."""


class DroppedConnectionError(Exception):
    """The connection ends without an answer, or after some bytes that are not an answer."""

    def __init__(self, raw: bytes = b"") -> None:
        super().__init__(raw)
        self.raw = raw


class _Fault(Struct):
    verb: str
    resource: str
    name: str
    times: float
    is_late: bool = False
    error: ApiStatusError | DroppedConnectionError | None = None
    seconds: float = 0.0
    gate: Gate | None = None


class ApiFaults:
    """The faults of an API server; they continue after a restart of the server.

    ``verb`` is as in a Role, ``resource`` is ``resourceslices``, ``resourceclaims`` or ``nodes``, and ``name`` the name
    of an object; ``*`` stands for all. ``times`` is the number of requests that a fault affects.
    """

    def __init__(self) -> None:
        self._faults: list[_Fault] = []

    def refuse(  # noqa: PLR0913 - the fields of an answer, and the requests that get it
        self,
        code: int,
        message: str = "",
        *,
        verb: str = ALL,
        resource: str = ALL,
        name: str = ALL,
        reason: str = "",
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        times: float = float("inf"),
    ) -> None:
        """Answer requests with an error; ``retry_after`` is in seconds."""
        fields = dict(headers or {})
        details: dict[str, object] = {}
        if retry_after is not None:
            fields["Retry-After"] = f"{retry_after:g}"
            details = {"retryAfterSeconds": int(retry_after)}
        error = ApiStatusError(
            code, message or HTTPStatus(code).phrase, reason=reason, details=details or None, headers=fields
        )
        self._faults.append(_Fault(verb, resource, name, times, error=error))

    def delay(self, seconds: float, *, verb: str = ALL, resource: str = ALL, times: float = float("inf")) -> None:
        """Wait before requests are processed."""
        self._faults.append(_Fault(verb, resource, ALL, times, seconds=seconds))

    def hang(self, *, verb: str = ALL, resource: str = ALL, is_late: bool = False, times: float = float("inf")) -> Gate:
        """Block requests at a gate before they are processed, or before they are answered if ``is_late``."""
        gate = Gate()
        self._faults.append(_Fault(verb, resource, ALL, times, is_late, gate=gate))
        return gate

    def drop(
        self,
        *,
        verb: str = ALL,
        resource: str = ALL,
        is_late: bool = False,
        raw: bytes = b"",
        times: float = float("inf"),
    ) -> None:
        """Close the connection instead of an answer; with ``is_late``, after the request has had its effect.

        ``raw`` is sent before the connection is closed, for example half of an answer.
        """
        self._faults.append(_Fault(verb, resource, ALL, times, is_late, error=DroppedConnectionError(raw)))

    def clear(self) -> None:
        """Remove all faults, and open their gates."""
        faults, self._faults = self._faults, []
        for fault in faults:
            if fault.gate is not None:
                fault.gate.open()

    async def apply(self, verb: str, resource: str, name: str, *, is_late: bool = False) -> None:
        """Delay, block or refuse a request, before it is processed or, if ``is_late``, before it is answered.

        Raises:
            ApiStatusError: the request is to be refused.
            DroppedConnectionError: the connection is to be closed.
        """
        for fault in list(self._faults):
            is_affected = (
                fault.is_late == is_late
                and fault.verb in (ALL, verb)
                and fault.resource in (ALL, resource)
                and fault.name in (ALL, name)
            )
            if not is_affected or fault.times <= 0:
                continue
            fault.times -= 1
            if fault.seconds:
                await asyncio.sleep(fault.seconds)
            if fault.gate is not None:
                await fault.gate.pass_through()
            if fault.error is not None:
                raise fault.error
