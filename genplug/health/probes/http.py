"""``http``: a URL responds with the expected status. Redirects are not followed, and no proxy is used.

A request is ``("http", url, ...)``; :func:`restrict` adds the addresses that the policy allows.
Its answer has for each URL the status. Reasons contain nothing else of a response, which may be confidential.
"""

import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from genplug.hardware.inventory import Device
from genplug.health.probe_kind import Denial, Effect, OptionsDecoder, Polling, ProbeKind
from genplug.health.request_rules import RequestRules, add_rules, split_rules
from genplug.health.thresholds import Outcome, Result
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.protocol import ProbeRequest
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.privileges import NeedKind, ProbeNeed
from genplug.spec.probes import Check
from genplug.spec.template import Template

if TYPE_CHECKING:
    from http import client

Answer: TypeAlias = tuple[tuple[str, int], ...]
_OK = 200
_PORTS = {"http": 80, "https": 443}
_DEFAULT_RULES = RequestRules(DEFAULT_POLICY.name, DEFAULT_POLICY.http)


class HttpCheck(Check, frozen=True):
    """A URL and the status of a pass."""

    url: Template
    expect_status: int = _OK


def decode(options: OptionsDecoder) -> HttpCheck | None:
    """Return the check that the options describe, or None if the URL is invalid."""
    url = options.template("url")
    if url is None:
        return None
    # A URL with templates is checked when the probe runs.
    if not url.names and (error := _url_error(url.render({}))):
        options.reject("url", error, "write http://HOST:PORT/PATH, with a port up to 65535")
        return None
    return HttpCheck(url, int(options.number("expectStatus", _OK)))


def _url_error(url: str) -> str:
    """Return why a probe cannot request a URL, or an empty string."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        return "the URL has an invalid host or port"
    return "the URL has a user name or a password, which the probe does not send" if "@" in parts.netloc else ""


def describe_url(url: str) -> str:
    """Return a URL for messages: without credentials, query and fragment, which can be secret."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    end = min(index for mark in "/?#" if (index := f"{rest}{mark}".index(mark)) >= 0)
    authority, path = rest[:end], rest[end:]
    path = path.partition("#")[0].partition("?")[0]
    return f"{scheme}://{authority.rpartition('@')[2]}{path}"


def make_request(check: HttpCheck, device: Device) -> ProbeRequest:
    """Return the request for a device.

    Raises:
        MissingAttributeError: it lacks an attribute that the URL needs.
    """
    return ("http", *check.url.render_each(device.attributes))


def run(request: ProbeRequest, _reader: CachedFileReader, timeout: float) -> Answer:
    """Send a GET request to each URL; runs in a worker.

    Raises:
        PermissionError: the policy does not allow the address to which a URL leads.
        OSError: there is no response from all of them within ``timeout`` seconds.
        ValueError: the URL is invalid.
    """
    deadline = time.monotonic() + timeout
    rules, urls = split_rules(request, _DEFAULT_RULES)
    return tuple((describe_url(url), _get(url, rules, deadline, timeout)) for url in urls)


def restrict(request: ProbeRequest, policy: Policy) -> ProbeRequest:
    """Return a request with the addresses to which a policy allows to connect."""
    return add_rules(request, policy.name, policy.http)


def evaluate(check: HttpCheck, answer: Answer, _memory: None, _now: float) -> tuple[Result, None]:
    """Return the first failure of any URL. Pure."""
    for url, status in answer:
        if status != check.expect_status:
            return Result(Outcome.FAILED, f"{url} answers {status}, expected {check.expect_status}"), None
    return Result(Outcome.PASSED), None


def _get(url: str, rules: RequestRules, deadline: float, timeout: float) -> int:
    shown = describe_url(url)
    if (remaining := deadline - time.monotonic()) <= 0:
        raise TimeoutError(f"{shown} is not requested: earlier URLs of the probe took {timeout:g} s")
    # Imported in the worker that needs it: it imports TLS.
    from http import client  # noqa: PLC0415

    parts = urlsplit(url)
    schemes = {"http": client.HTTPConnection, "https": client.HTTPSConnection}
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"{shown} is not an http or https URL")
    port = parts.port or _PORTS[parts.scheme]
    addresses = _resolve(shown, parts.hostname, port, rules)
    connection = schemes[parts.scheme](parts.hostname, port, timeout=remaining)
    # Connect to the addresses that were checked: the name could resolve to others now.
    connection._create_connection = partial(_connect, addresses)  # noqa: SLF001
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
            raise TimeoutError(f"{shown} does not answer within {timeout:g} s") from None
        if isinstance(error, OSError) and not isinstance(error, client.HTTPException):
            raise OSError(f"{shown} does not answer: {error.strerror or error}") from error
        raise OSError(f"{shown} does not answer in HTTP: {type(error).__name__}") from error
    else:
        return int(answer.status)
    finally:
        timer.cancel()
        connection.close()


def _resolve(url: str, host: str, port: int, rules: RequestRules) -> list[str]:
    """Return the addresses of a host to which the policy allows to connect.

    Raises:
        OSError: the name cannot be resolved; a PermissionError if the policy allows none of the addresses.
    """
    from genplug.spec.connect_rules import parse_address, parse_connect_rules  # noqa: PLC0415 - see client

    connect_rules = parse_connect_rules(rules.entries)
    if parse_address(host) is None and not connect_rules.may_allow_name(host, port):
        raise PermissionError(f"{url}: connecting to {host} port {port} is {rules.describe_refusal('http.allow')}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the name is not valid"
        raise OSError(f"{url} does not answer: {host} cannot be resolved: {reason}") from error
    texts = list(dict.fromkeys(str(address[4][0]) for address in found))
    allowed = [
        text
        for text in texts
        if (address := parse_address(text)) is not None and connect_rules.allows(host, address, port)
    ]
    if not allowed:
        where = f"{', '.join(texts)} port {port}"
        raise PermissionError(f"{url}: connecting to {where} is {rules.describe_refusal('http.allow')}")
    return allowed


def _connect(
    addresses: Sequence[str], target: tuple[str, int], timeout: float | None, _source: object = None
) -> socket.socket:
    """Connect to the first address that accepts the connection, in place of ``socket.create_connection``."""
    for address in addresses[:-1]:
        with suppress(OSError):
            return socket.create_connection((address, target[1]), timeout)
    return socket.create_connection((addresses[-1], target[1]), timeout)


def _hang_up(connection: "client.HTTPConnection", is_late: threading.Event) -> None:
    is_late.set()
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def _denial(check: HttpCheck, policy: Policy) -> Denial | None:
    # A URL with templates is checked when the probe runs.
    if check.url.names:
        return None
    url = check.url.render({})
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    error = policy.connect_error(host, port) if host else ""
    return Denial(f"connecting to {url!r} is {error}", "url") if error else None


def _needs(check: HttpCheck) -> tuple[ProbeNeed, ...]:
    url = describe_url(check.url.text)
    return (ProbeNeed(NeedKind.NETWORK, f"connects to {url} from the network namespace of the agent", url),)


KIND = ProbeKind(
    "http",
    HttpCheck,
    decode,
    Polling(make_request, run, evaluate, Effect.CALL),
    denial=_denial,
    restrict=restrict,
    needs=_needs,
)
