"""The address of the API server, and the token and certificate authority of a service account.

The kubelet mounts the files from memory (tmpfs) and replaces the token before it expires, after 48 minutes at the
earliest. They are read in the event loop, because a read of a tmpfs does not wait for a device.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

ACCOUNT_DIRECTORY = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""The directory into which the kubelet mounts the account."""
_MAX_TOKEN_BYTES = 1 << 16
_MAX_CA_BYTES = 1 << 20
_TOKEN = re.compile(r"[\x21-\x7e]+")
"""A token is a header field, so that it must have neither spaces nor controls."""
_HINT = "set automountServiceAccountToken: true, or run the agent in a pod"

FileState = tuple[int, int, int]
"""The identity of the content of a file: its inode, time and size."""


class AccountError(Exception):
    """The environment or a file of the account is missing or invalid. The text states what to do."""


class Credentials(Struct, frozen=True):
    """How to connect to the API server: ``certificates`` are authorities in PEM.

    ``has_tls`` is False for tests with HTTP, and is independent of the certificates: a token is never sent without TLS
    because a file is empty.
    """

    host: str
    port: int
    token: str
    certificates: str
    has_tls: bool = True

    @property
    def authority(self) -> str:
        """The host and port, with an IPv6 address in brackets, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def endpoint(self) -> tuple[object, ...]:
        """The fields that a connection depends on. The token is sent with each request."""
        return self.host, self.port, self.certificates, self.has_tls


class Account:
    """Reads the credentials of a pod, and reads a file again if it has changed.

    ``has_tls`` is False for tests with HTTP.
    """

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        directory: Path = ACCOUNT_DIRECTORY,
        *,
        has_tls: bool = True,
    ) -> None:
        self._environment = environment
        self._directory = directory
        self._has_tls = has_tls
        self._files: dict[str, tuple[FileState, str]] = {}

    def read(self) -> Credentials:
        """Return the present credentials.

        Raises:
            AccountError: a variable or file is missing or invalid.
        """
        host = self._environment.get("KUBERNETES_SERVICE_HOST", "")
        port = self._environment.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise AccountError(
                "expected the address of the API server in KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, "
                f"found '{host}' and '{port}': run the agent in a pod, or set both variables"
            )
        token = self._read_file("token", _MAX_TOKEN_BYTES).strip()
        if not _TOKEN.fullmatch(token):
            raise AccountError(f"expected a token in {self._directory / 'token'}, found no token: {_HINT}")
        # Comments in the file can have any characters; the certificates have only those of ASCII.
        certificates = self._read_file("ca.crt", _MAX_CA_BYTES, errors="ignore") if self._has_tls else ""
        if self._has_tls and not certificates.strip():
            path = self._directory / "ca.crt"
            raise AccountError(f"expected the certificates of the API server in {path}, found an empty file: {_HINT}")
        return Credentials(host, int(port), token, certificates, self._has_tls)

    def forget(self) -> None:
        """Read all files again at the next :meth:`read`, because the API server refused the token."""
        self._files.clear()

    def _read_file(self, name: str, max_bytes: int, errors: str = "replace") -> str:
        path = self._directory / name
        try:
            status = path.stat()
            state = (status.st_ino, status.st_mtime_ns, status.st_size)
            known = self._files.get(name)
            if known is not None and known[0] == state:
                return known[1]
            with path.open("rb") as file:
                content = file.read(max_bytes + 1)
        except OSError as error:
            raise AccountError(f"cannot read {path}: {error.strerror or error}: {_HINT}") from error
        if len(content) > max_bytes:
            raise AccountError(f"expected at most {max_bytes} bytes in {path}: mount the account of the pod there")
        text = content.decode("ascii", errors=errors)
        self._files[name] = (state, text)
        return text
