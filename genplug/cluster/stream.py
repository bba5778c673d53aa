"""Byte streams to the API server, with and without TLS, and with a limit for each wait.

TLS is driven by :class:`ssl.MemoryBIO` and not by asyncio, because the agent imports asyncio without OpenSSL.
"""

import asyncio
import socket
import ssl
from contextlib import suppress

from genplug.cluster.account import Credentials
from genplug.cluster.errors import NotConnectedError, UnreachableError

CONNECT_SECONDS = 5.0
"""Seconds for the connection and the TLS handshake."""
READ_BYTES = 1 << 16
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""A watch is silent for minutes. The kernel ends the connection if the server does not respond for a minute."""


class ByteStream:
    """A connection without TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def is_closing(self) -> bool:
        """Whether the server has closed the connection."""
        return self._writer.is_closing() or self._reader.at_eof()

    async def read(self) -> bytes:
        """Return the next bytes, or no bytes at the end of the connection."""
        return await self._reader.read(READ_BYTES)

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        """Close the connection at once."""
        self._writer.transport.abort()


class TlsStream(ByteStream):
    """A connection with TLS."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext, host: str
    ) -> None:
        super().__init__(reader, writer)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    async def shake_hands(self) -> None:
        """Run the TLS handshake.

        Raises:
            OSError: the server closed the connection, or its certificate cannot be verified.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._receive():
                    raise ConnectionResetError("it closed the connection during the TLS handshake") from None
            except ssl.SSLError:
                # The alert for the server.
                with suppress(OSError):
                    await self._flush()
                raise
            else:
                await self._flush()
                return

    async def read(self) -> bytes:
        """Return the next bytes, or no bytes at the end of the connection."""
        while True:
            try:
                return self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                # TLS answers some messages of the server, for example a new key.
                await self._flush()
                if not await self._receive():
                    return b""
            except ssl.SSLZeroReturnError:
                return b""

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        self._tls.write(data)
        await self._flush()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await super().write(data)

    async def _receive(self) -> bool:
        data = await super().read()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return bool(data)


class Connector:
    """Opens connections, and keeps the TLS settings until the certificates change."""

    def __init__(self) -> None:
        self._context: ssl.SSLContext | None = None
        self._certificates = ""

    async def connect(self, credentials: Credentials) -> ByteStream:
        """Open a connection.

        Raises:
            NotConnectedError: there is no connection within the limit.
            UnreachableError: TLS or its settings failed, for example the certificate cannot be verified.
        """
        failure = UnreachableError
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._connect(credentials)
        except TimeoutError:
            failure, reason = NotConnectedError, f"no connection within {CONNECT_SECONDS:g} s"
        except ssl.SSLCertVerificationError as error:
            reason = f"its certificate cannot be verified: {error.verify_message}; check ca.crt of the service account"
        except ssl.SSLError as error:
            reason = error.strerror or str(error)
        except OSError as error:
            failure, reason = NotConnectedError, error.strerror or str(error)
        except (ValueError, TypeError) as error:
            # OpenSSL cannot use the name of the host or the certificates.
            reason = str(error)
        raise failure(f"cannot connect to the API server at {credentials.authority}: {reason}")

    async def _connect(self, credentials: Credentials) -> ByteStream:
        reader, writer = await asyncio.open_connection(credentials.host, credentials.port)
        try:
            _keep_alive(writer.get_extra_info("socket"))
            if not credentials.has_tls:
                return ByteStream(reader, writer)
            stream = TlsStream(reader, writer, self._get_context(credentials.certificates), credentials.host)
            await stream.shake_hands()
        except BaseException:
            writer.transport.abort()
            raise
        return stream

    def _get_context(self, certificates: str) -> ssl.SSLContext:
        if self._context is None or certificates != self._certificates:
            self._context, self._certificates = build_context(certificates), certificates
        return self._context


def build_context(certificates: str) -> ssl.SSLContext:
    """Return TLS settings that accept certificates of the given authorities only.

    Python 3.13 sets VERIFY_X509_STRICT, which rejects the authorities of many clusters, because these have no key
    identifiers. The flag is removed; the chain, the dates and the name are verified. Each certificate of the text is
    trusted, also that of an intermediate authority whose root is not in the text, as by Go (crypto/x509).

    Raises:
        OSError: the text contains no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["http/1.1"])
    context.load_verify_locations(cadata=certificates)
    return context


def _keep_alive(connected: socket.socket) -> None:
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
