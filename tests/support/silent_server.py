"""A server in place of a gRPC server that listens and does not respond."""

import socket


class SilentServer:
    """A server that listens, and accepts no connection."""

    def __init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)

    def add_insecure_port(self, address: str) -> None:
        self._listener.bind(address.removeprefix("unix:"))

    async def start(self) -> None:
        self._listener.listen()

    async def stop(self, _grace: float) -> None:
        self._listener.close()
