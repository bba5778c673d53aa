"""``http``: a URL responds with the expected status. Redirects are not followed, and no proxy is used.

A request is ``("http", url, ...)``.
Its answer has for each URL the status and the reason phrase.
"""

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from attrs import frozen

from genplug.hardware.inventory import Device
from genplug.health.probe_kind import Effect, OptionsDecoder, Polling, ProbeKind
from genplug.health.thresholds import Outcome, Result
from genplug.health.value_check import shorten
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.probes import Check
from genplug.spec.template import Template

if TYPE_CHECKING:
    from http import client

Answer: TypeAlias = tuple[tuple[str, int, str], ...]
_MAX_SHOWN_CHARACTERS = 80
_OK = 200


@frozen
class HttpCheck(Check):
    """A URL and the status of a pass."""

    url: Template
    expect_status: int = _OK


def decode(options: OptionsDecoder) -> HttpCheck | None:
    """Return the check that the options describe, or None if the URL is invalid."""
    url = options.template("url")
    return HttpCheck(url, int(options.number("expectStatus", _OK))) if url is not None else None


def make_request(check: HttpCheck, device: Device) -> ProbeRequest:
    """Return the request for a device.

    Raises:
        MissingAttributeError: it lacks an attribute that the URL needs.
    """
    return ("http", *check.url.render_each(device.attributes))


def run(request: ProbeRequest, _reader: CachedFileReader, timeout: float) -> Answer:
    """Send a GET request to each URL; runs in a worker.

    Raises:
        OSError: there is no response from all of them within ``timeout`` seconds.
        ValueError: the URL is invalid.
    """
    deadline = time.monotonic() + timeout
    return tuple((url, *_get(url, deadline, timeout)) for url in request[1:])


def evaluate(check: HttpCheck, answer: Answer, _memory: None, _now: float) -> tuple[Result, None]:
    """Return the first failure of any URL. Pure."""
    for url, status, phrase in answer:
        if status != check.expect_status:
            found = f"{status} {shorten(phrase, _MAX_SHOWN_CHARACTERS)}".strip()
            return Result(Outcome.FAILED, f"{url} answers {found}, expected {check.expect_status}"), None
    return Result(Outcome.PASSED), None


def _get(url: str, deadline: float, timeout: float) -> tuple[int, str]:
    if (remaining := deadline - time.monotonic()) <= 0:
        raise TimeoutError(f"{url} is not requested: earlier URLs of the probe took {timeout:g} s")
    # Imported in the worker that needs it: it imports TLS.
    from http import client  # noqa: PLC0415

    parts = urlsplit(url)
    schemes = {"http": client.HTTPConnection, "https": client.HTTPSConnection}
    connection = schemes[parts.scheme](parts.hostname or "", parts.port, timeout=remaining)
    # The timeout of the connection applies to each part of a response, not to the whole response.
    is_late = threading.Event()
    timer = threading.Timer(remaining, _hang_up, (connection, is_late))
    timer.start()
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        answer = connection.getresponse()
        if is_late.is_set():
            # The shutdown by the timer has the same effect as the end of the headers.
            raise TimeoutError
    except (OSError, client.HTTPException) as error:
        if is_late.is_set() or isinstance(error, TimeoutError):
            raise TimeoutError(f"{url} does not answer within {timeout:g} s") from None
        if isinstance(error, OSError) and not isinstance(error, client.HTTPException):
            raise OSError(f"{url} does not answer: {error.strerror or error}") from error
        raise OSError(f"{url} does not answer in HTTP: {error!r}") from error
    else:
        return answer.status, answer.reason
    finally:
        timer.cancel()
        connection.close()


def _hang_up(connection: "client.HTTPConnection", is_late: threading.Event) -> None:
    is_late.set()
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


KIND = ProbeKind("http", HttpCheck, decode, Polling(make_request, run, evaluate, Effect.CALL))
