"""Register at the kubelet (contract 2.1): one call per resource, a few of them at a time."""

import asyncio
from pathlib import Path

from genplug.allocation.results import PluginOptions
from genplug.kubelet import wire
from genplug.kubelet.api.services import REGISTRATION, method_path
from genplug.kubelet.client import call
from genplug.kubelet.plugin_dir import KUBELET_SOCKET

DEADLINE_SECONDS = 25.0
"""Seconds for Register: the kubelet dials us back inside it, with 10 s of its own, and must not be cut short."""
MAX_CONCURRENT = 16
"""Registrations under way at the same time."""


class Registrar:
    """Registers resources with the kubelet of a device-plugins directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._turns = asyncio.Semaphore(MAX_CONCURRENT)

    async def register(self, resource: str, socket: str, options: PluginOptions = PluginOptions()) -> None:  # noqa: B008 - frozen
        """Register a resource whose endpoint listens on the given socket name in the directory.

        Raises:
            CallError: it was refused, timed out, or nobody listens.
        """
        request = wire.encode_register_request(resource, socket, options)
        async with self._turns:
            await call(
                self.directory / KUBELET_SOCKET,
                method_path(REGISTRATION, "Register"),
                request,
                deadline=DEADLINE_SECONDS,
            )
