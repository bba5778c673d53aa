"""Register at the kubelet (contract 2.1): one call per resource, a few at a time, each on its own channel.

A channel of its own means that no back-off of an earlier kubelet's connection delays the next try.
"""

import asyncio
import errno
import os
from pathlib import Path

import grpc

from genplug.kubelet import wire
from genplug.kubelet.api.services import REGISTRATION
from genplug.kubelet.sockets import KUBELET_SOCKET

DEADLINE = 25.0
"""Seconds for Register: the kubelet dials us back inside it, with 10 s of its own, and must not be cut short."""
AT_ONCE = 16
"""Registrations under way at the same time."""

CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))


class RegistrationError(Exception):
    """The kubelet did not take a resource; the text is its own, or says that it could not be reached."""


class Registrar:
    """Registers resources with the kubelet of a device-plugins folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def register(self, resource: str, socket: str) -> None:
        """Register a resource whose endpoint listens on the given socket name in the folder.

        Raises:
            RegistrationError: it was refused, timed out, or nobody listens.
        """
        async with self._turns:
            target = f"unix:{self.folder / KUBELET_SOCKET}"
            async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
                call = channel.unary_unary(f"/{REGISTRATION}/Register")
                try:
                    await call(wire.register_bytes(resource, socket), timeout=DEADLINE)
                except grpc.aio.AioRpcError as error:
                    raise RegistrationError(in_words(error)) from error


def in_words(error: Exception) -> str:
    """Return what an error of gRPC or the system says to a person."""
    if isinstance(error, grpc.aio.AioRpcError):
        details = error.details() or ""
        if os.strerror(errno.ECONNREFUSED) in details:
            return "nobody listens on kubelet.sock (connection refused): the kubelet is not running"
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"no answer within {DEADLINE:.0f} s"
        return f"{details or 'no details'} ({error.code().name})"
    return str(error)
