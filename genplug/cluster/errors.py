"""The errors of requests to the API server."""

import re
from collections.abc import Mapping
from typing import Any

from genplug.spec.json_text import parse_json

MAX_RETRY_SECONDS = 600.0
"""The longest pause that an answer can request."""
_MAX_MESSAGE_CHARACTERS = 2048
_DENIAL = re.compile(
    r"\bValidatingAdmissionPolicy '.{1,253}' (?:with binding '.{1,253}' )?denied request\b"
    r'|\badmission webhook ".{1,253}" denied the request\b'
)


class UnreachableError(OSError):
    """The API server did not answer: no connection, no certificate that can be verified, no answer in time.

    The text states the address and the reason.
    """


class NotConnectedError(UnreachableError):
    """There is no connection to the API server. The attempt costs the server little."""


class ApiError(Exception):
    """An error that the API server answered.

    ``status`` is the HTTP status, ``reason`` the machine-readable reason, for example ``AlreadyExists``, and
    ``message`` the text of the server, which is untrusted. ``retry_after`` is the pause in seconds that the server
    requests. ``is_path_unknown`` states that the server does not serve the path, for example because the API group does
    not exist in its version.
    """

    def __init__(  # noqa: PLR0913 - the fields of a status
        self,
        action: str,
        status: int,
        *,
        reason: str = "",
        message: str = "",
        retry_after: float | None = None,
        is_path_unknown: bool = False,
    ) -> None:
        super().__init__(action, status, reason, message)
        self.action = action
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.is_path_unknown = is_path_unknown

    @property
    def is_denied(self) -> bool:
        """Whether an admission policy or webhook denied the request; the message names it.

        The status is 422 for a ValidatingAdmissionPolicy, 403 if its validation has ``reason: Forbidden``, and any
        status for a webhook (k8s.io/apiserver, pkg/admission/plugin/policy/validating/dispatcher.go and
        pkg/admission/plugin/webhook/errors/statuserror.go).
        """
        return _DENIAL.search(self.message) is not None

    def __str__(self) -> str:
        text = self.message or self.reason or "no reason"
        return f"the API server answered {self.status} to '{self.action}': {text}"


def read_error(action: str, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """Return the error of an answer; a body that is not a ``Status`` has no reason and no message."""
    try:
        document = parse_json(body)
    except ValueError:
        document = None
    found = document if isinstance(document, dict) and document.get("kind") == "Status" else {}
    return _build_error(action, status, found, read_retry_after(headers.get("retry-after", "")))


def read_status(action: str, document: Mapping[str, Any]) -> ApiError:
    """Return the error of a ``Status`` object in an event of a watch."""
    code = document.get("code")
    return _build_error(action, code if isinstance(code, int) else 500, document, None)


def read_retry_after(text: str) -> float | None:
    """Return the seconds of a ``Retry-After`` header, bounded; None for an empty header and for a date."""
    is_number = text.isascii() and text.isdigit() and len(text) <= 9  # noqa: PLR2004 - longer numbers are errors
    return min(float(text), MAX_RETRY_SECONDS) if is_number else None


def _build_error(action: str, status: int, found: Mapping[str, Any], retry_after: float | None) -> ApiError:
    details = found.get("details")
    has_name = isinstance(details, dict) and bool(details.get("name"))
    return ApiError(
        action,
        status,
        reason=str(found.get("reason") or ""),
        message=str(found.get("message") or "")[:_MAX_MESSAGE_CHARACTERS],
        retry_after=retry_after,
        is_path_unknown=status == 404 and not has_name,  # noqa: PLR2004 - Not Found
    )
