"""The errors of an API server: ``Status`` objects, with the texts of k8s.io/apimachinery, pkg/api/errors/errors.go."""

import json
from collections.abc import Mapping
from typing import Any

from genplug.testing.api_server.kinds import Kind

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class ApiStatusError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.headers = dict(headers or {})
        self.document: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason or REASONS.get(code, ""),
            "code": code,
        }
        if details is not None:
            self.document["details"] = dict(details)

    @property
    def content_type(self) -> str:
        """The content type of the body."""
        return "application/json"

    @property
    def body(self) -> bytes:
        """The body of the answer."""
        return json.dumps(self.document).encode()


class UnknownPathError(ApiStatusError):
    """A path that the server does not serve, such as that of a group that is off; the body is not a ``Status``."""

    def __init__(self) -> None:
        super().__init__(404, "404 page not found")

    @property
    def content_type(self) -> str:
        """The content type of the body."""
        return "text/plain; charset=utf-8"

    @property
    def body(self) -> bytes:
        """The body of the answer."""
        return b"404 page not found\n"


def not_found(kind: Kind, name: str) -> ApiStatusError:
    """Return the error for an object that does not exist."""
    return ApiStatusError(404, f'{kind.qualified_name} "{name}" not found', details=_details(kind, name))


def already_exists(kind: Kind, name: str) -> ApiStatusError:
    """Return the error for the creation of an object that exists."""
    message = f'{kind.qualified_name} "{name}" already exists'
    return ApiStatusError(409, message, reason="AlreadyExists", details=_details(kind, name))


def conflict(kind: Kind, name: str, text: str = "") -> ApiStatusError:
    """Return the error for a write with an outdated UID or resource version."""
    text = text or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {kind.qualified_name} "{name}": {text}'
    return ApiStatusError(409, message, details=_details(kind, name))


def invalid(kind: Kind, name: str, causes: list[tuple[str, str]]) -> ApiStatusError:
    """Return the error for an object with invalid fields; ``causes`` has a path and a message for each error."""
    texts = [f"{path}: {message}" for path, message in causes]
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = _details(kind, name) | {
        "kind": kind.kind,
        "causes": [{"reason": "FieldValueInvalid", "message": message, "field": path} for path, message in causes],
    }
    return ApiStatusError(422, f'{kind.kind}.{kind.group} "{name}" is invalid: {joined}', details=details)


def forbidden_option(verb: str) -> ApiStatusError:
    """Return the error for ``sendInitialEvents`` of a server without WatchList; client-go then lists and watches."""
    text = "Forbidden: sendInitialEvents is forbidden for list"
    if verb == "watch":
        text = "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
    return invalid(Kind("meta.k8s.io", "v1", "", "ListOptions"), "", [("sendInitialEvents", text)])


def expired(requested: int, oldest: int) -> ApiStatusError:
    """Return the error for a resource version from which the server cannot continue."""
    return ApiStatusError(410, f"too old resource version: {requested} ({oldest})")


def _details(kind: Kind, name: str) -> dict[str, Any]:
    return {"name": name, "group": kind.group, "kind": kind.plural}
