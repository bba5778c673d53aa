"""``http``: a URL answers with the status that means health. Nothing is followed, and no proxy asked.

A question is ``("http", url, ...)``; its answer has for each URL the status and its words.
"""

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from genplug.health.thresholds import Outcome, Result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.probes import HttpCheck
from genplug.spec.template import Values

if TYPE_CHECKING:
    from http import client

Answer: TypeAlias = tuple[tuple[str, int, str], ...]
_MAX_WORDS = 80


def make_request(check: HttpCheck, values: Values) -> ProbeRequest:
    """Return the question for a device with these attributes.

    Raises:
        MissingAttributeError: the URL needs one that it does not have.
    """
    return ("http", *check.url.render_each(values))


def run(question: ProbeRequest, _eyes: CachedFileReader, timeout: float) -> Answer:
    """Ask each URL; runs in a worker.

    Raises:
        OSError: nobody answered, or not in time.
        ValueError: it is no URL.
    """
    return tuple((url, *_asked(url, timeout)) for url in question[1:])


def evaluate(check: HttpCheck, answer: Answer, _memory: None, _now: float) -> tuple[Result, None]:
    """Return what the statuses mean. Pure."""
    for url, status, words in answer:
        if status != check.expect_status:
            said = f"{status} {words[:_MAX_WORDS]}".strip()
            text = f"{url} answers {said}, wanted {check.expect_status}"
            return Result(Outcome.FAILED, text), None
    return Result(Outcome.PASSED), None


def _asked(url: str, timeout: float) -> tuple[int, str]:
    # Imported here, in the worker that asks: it brings TLS with it.
    from http import client  # noqa: PLC0415

    parts = urlsplit(url)
    kinds = {"http": client.HTTPConnection, "https": client.HTTPSConnection}
    connection = kinds[parts.scheme](parts.hostname or "", parts.port, timeout=timeout)
    # A timeout of its own is for each part of an answer, and they may come one by one.
    is_late = threading.Event()
    patience = threading.Timer(timeout, _hang_up, (connection, is_late))
    patience.start()
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        answer = connection.getresponse()
        if is_late.is_set():
            # To hang up looks like the end of the headers.
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
        patience.cancel()
        connection.close()


def _hang_up(connection: "client.HTTPConnection", is_late: threading.Event) -> None:
    is_late.set()
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
