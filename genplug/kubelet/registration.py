"""Register resources with the kubelet (docs/internals/kubelet-contract.md §2.1), a limited number at the same time."""

import asyncio
from pathlib import Path

from genplug.allocation.results import PluginOptions
from genplug.kubelet import wire
from genplug.kubelet.api.services import REGISTRATION, method_path
from genplug.kubelet.client import Client
from genplug.kubelet.plugin_dir import KUBELET_SOCKET

DEADLINE_SECONDS = 25.0
"""Deadline of Register. Within it the kubelet dials the plugin, for at most 10 s; §2.1 requires at least 20 s."""
MAX_CONCURRENT = 16
"""Maximum number of Register calls in progress."""


class Registrar:
    """Registers resources with the kubelet of a device-plugins directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._kubelet = Client(directory / KUBELET_SOCKET)
        self._semaphore = asyncio.Semaphore(MAX_CONCURRENT)

    async def register(self, resource: str, socket: str, options: PluginOptions = PluginOptions()) -> None:  # noqa: B008 - frozen
        """Register a resource whose endpoint listens on the socket of that name in the directory.

        Raises:
            CallError: the kubelet refused the registration, did not respond in time, or does not run.
        """
        request = wire.encode_register_request(resource, socket, options)
        async with self._semaphore:
            await self._kubelet.call(method_path(REGISTRATION, "Register"), request, deadline=DEADLINE_SECONDS)
