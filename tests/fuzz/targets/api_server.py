"""Answers of the API server to the agent: HTTP, lists and watches of ResourceSlices, and ResourceClaims."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from genplug.agent.claim_inputs import ClaimReadError
from genplug.agent.claim_source import ApiClaimSource
from genplug.allocation.claim_cdi import render_claim
from genplug.allocation.claims import (
    ClaimPool,
    DeviceHolding,
    build_claim_edits,
    list_claim_programs,
    list_holdings,
    parse_results,
    select_grants,
)
from genplug.allocation.errors import ClaimError
from genplug.allocation.offer import build_offer
from genplug.allocation.slice_plan import (
    MAX_GENERATION,
    CreateSlice,
    DeleteSlice,
    Write,
    find_dropped_fields,
    plan_writes,
)
from genplug.allocation.slices import ActualSlice, SliceScope, slice_document
from genplug.cluster import http as http_module
from genplug.cluster.account import Account, Credentials
from genplug.cluster.errors import MAX_RETRY_SECONDS, ApiError, UnreachableError
from genplug.cluster.http import HttpClient, Request
from genplug.cluster.slices import SliceClient
from genplug.cluster.stream import ByteStream, Connector
from genplug.hardware.cdi_files import parse_cdi_file
from genplug.spec.json_text import check_depth
from genplug.spec.limits import MAX_CLAIM_DEVICES
from tests.fuzz.documents import document_mutator
from tests.fuzz.parts import join_parts, parts_mutator, split_parts
from tests.fuzz.scratch import scratch_directory
from tests.fuzz.target import Target
from tests.support.allocation import DeviceTree, build_resource, mark_unhealthy
from tests.support.api_server import DRIVER, NODE, build_wanted, publish
from tests.support.claims import POOL, allocate_device, build_claim, build_pool, refer

_LIMIT_BYTES = 512
"""The limit of an answer and of an event during the target of HTTP, so that inputs can reach it."""
_LIST = Request("list", "resourceslices", "GET", "/apis")


class _AnswerStream(ByteStream):
    """A connection to a server that answers with given bytes, in pieces of at most ``size`` bytes, and then ends."""

    def __init__(self, content: bytes, size: int) -> None:
        self._content = content
        self._size = size

    @property
    def is_closing(self) -> bool:
        return not self._content

    async def read(self) -> bytes:
        piece, self._content = self._content[: self._size], self._content[self._size :]
        return piece

    async def write(self, data: bytes) -> None:
        assert data

    def close(self) -> None:
        self._content = b""


class _AnswerConnector(Connector):
    """Opens connections to a server that has an answer for each of them, and then refuses connections."""

    def __init__(self, answers: Sequence[bytes], size: int) -> None:
        super().__init__()
        self._answers = list(answers)
        self._size = size

    async def connect(self, credentials: Credentials) -> ByteStream:
        if not self._answers:
            raise UnreachableError(f"cannot connect to {credentials.authority}")
        return _AnswerStream(self._answers.pop(0), self._size)


@cache
def _make_account() -> Account:
    directory = scratch_directory("account")
    (directory / "token").write_text("token")
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
    return Account(environment, directory, has_tls=False)


@cache
def _make_runner() -> asyncio.Runner:
    return asyncio.Runner()


def make_client(*answers: bytes, size: int = 1 << 16) -> HttpClient:
    """Return a client whose connections have these answers, which are bytes of HTTP."""
    client = HttpClient(_make_account(), "fuzz")
    client._connector = _AnswerConnector(answers, size)  # noqa: SLF001 - what is below is the network
    return client


def format_answer(body: bytes) -> bytes:
    """Return an answer with a body, after which the server closes the connection."""
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def run_http(content: bytes) -> None:
    """Read an answer as that of a request and as that of a watch, as a whole and in pieces."""
    with _limit_bytes():
        run = _make_runner().run
        outcomes = [run(_read_answer(make_client(content, size=size))) for size in (1 << 16, 1, 7)]
        assert outcomes[0] == outcomes[1] == outcomes[2]
        watches = [run(_read_watch(make_client(content, size=size))) for size in (1 << 16, 1, 7)]
        assert len({is_lost for _, is_lost in watches}) == 1
        # An error of a piece can hide the events of the same piece.
        longest = max((events for events, _ in watches), key=len)
        assert all(events == longest[: len(events)] if is_lost else events == longest for events, is_lost in watches)


@contextmanager
def _limit_bytes() -> Iterator[None]:
    names = ("MAX_API_BODY_BYTES", "MAX_API_EVENT_BYTES")
    previous = {name: getattr(http_module, name) for name in names}
    for name in names:
        setattr(http_module, name, _LIMIT_BYTES)
    try:
        yield
    finally:
        for name, limit in previous.items():
            setattr(http_module, name, limit)


async def _read_answer(client: HttpClient) -> str:
    """Return the document of an answer, or its error."""
    try:
        document = await client.request(_LIST)
    except ApiError as error:
        assert not 200 <= error.status < 300
        assert error.retry_after is None or 0 <= error.retry_after <= MAX_RETRY_SECONDS
        return str(error)
    except UnreachableError:
        return "unreachable"
    check_depth(document)
    text = json.dumps(document)
    # The escapes of a character have at most six characters for a byte.
    assert len(text) <= 6 * _LIMIT_BYTES
    return text


async def _read_watch(client: HttpClient) -> tuple[list[str], bool]:
    """Return the events of a watch, and whether it ends with an error."""
    events: list[str] = []
    try:
        async with client.watch(_LIST, 60.0) as documents:
            async for document in documents:
                check_depth(document)
                events.append(json.dumps(document))
                assert len(events[-1]) <= 6 * _LIMIT_BYTES
    except (ApiError, UnreachableError) as error:
        assert str(error)
        return events, True
    return events, False


def list_answers() -> list[bytes]:
    status = json.dumps({"kind": "Status", "code": 404, "reason": "NotFound", "message": "gone", "details": {}})
    events = [json.dumps({"type": "ADDED", "object": {"a": number}}).encode() for number in range(3)]
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (events[0] + b"\n" + events[1], b"\n", events[2] + b"\n")]
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    nested = b'{"a":' + b"[" * 150 + b"]" * 150 + b"}"
    large = b'{"a": "%s"}' % (b"x" * 6 * _LIMIT_BYTES)
    return [
        format_answer(b'{"items": [], "metadata": {"resourceVersion": "1"}}'),
        format_answer(nested),
        format_answer(b'{"a": 1e400, "b": %s}' % (b"9" * 400)),
        format_answer(b'{"a": "\xff\\ud800"}'),
        format_answer(large),
        format_answer(events[0] + b"\n" + large + b"\n"),
        b"HTTP/1.1 404 Not Found\r\nRetry-After: 5\r\nContent-Length: %d\r\n\r\n%s" % (len(status), status.encode()),
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + format_answer(b"{}"),
        chunked + b"".join(chunks) + b"0\r\n\r\n",
        chunked + b"".join(chunks),
        chunked + b"800;a=b\r\n" + b"x" * 0x800,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"\n".join(events),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000,
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"",
    ]


_SCOPE = SliceScope(DRIVER, NODE, "node-uid")
_WRITES = 3
"""The writes of a plan that are sent."""


def _build_slices() -> list[dict[str, Any]]:
    """Return slices as the API server returns them."""
    slices = []
    for resource, count in (("example.com/x", 2), ("example.com/y", 70)):
        pool = build_wanted(_SCOPE, count, resource=resource, tainted=frozenset({0}))
        for part in pool.slices:
            document = slice_document(_SCOPE, pool, part, 1, uid=f"uid-{part.name}", resource_version="7")
            document["spec"]["devices"] = document["spec"]["devices"][:3]
            document["spec"]["devices"][0]["capacity"] = {"memory": {"value": "16Gi"}}
            document["metadata"]["managedFields"] = [{"manager": "genplug", "time": "2026-01-01T00:00:00Z"}]
            slices.append(document)
    return slices


_SLICES = _build_slices()
_PAGES = [{"metadata": {"resourceVersion": "7", "continue": "next"}, "items": _SLICES[:2]}]
_LAST_PAGE = {"metadata": {"resourceVersion": "8"}, "items": _SLICES[2:]}
_EVENTS = [
    {"type": "ADDED", "object": _SLICES[0]},
    {"type": "MODIFIED", "object": _SLICES[1]},
    {"type": "DELETED", "object": _SLICES[0]},
    {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
    {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}},
]


def run_slices(content: bytes) -> None:
    """Read two pages of a list, a watch and the answer to a write, and plan the writes for what was read."""
    first, second, watch, answer = split_parts(content, 4)
    _make_runner().run(_read_slices([first, second], watch, answer))


async def _read_slices(pages: Sequence[bytes], watch: bytes, answer: bytes) -> None:
    client = SliceClient(make_client(*map(format_answer, pages)), DRIVER, NODE)
    found: dict[str, ActualSlice] = {}
    version = "1"
    try:
        listed = await client.list()
        found, version = dict(listed.slices), listed.resource_version
    except (ApiError, UnreachableError) as error:
        assert str(error)
    client = SliceClient(make_client(format_answer(watch)), DRIVER, NODE)
    try:
        async with client.watch(version) as events:
            async for event in events:
                assert isinstance(event.resource_version, str)
                if event.found is not None:
                    assert event.found.name == event.name
                    found[event.name] = event.found
                else:
                    found.pop(event.name, None)
    except (ApiError, UnreachableError) as error:
        assert str(error)
    for write in check_plan(found)[:_WRITES]:
        await _write(write, answer)
    client = SliceClient(make_client(format_answer(answer)), DRIVER, NODE)
    try:
        assert isinstance(await client.has_taints(_SCOPE), bool)
    except (ApiError, UnreachableError) as error:
        assert str(error)


def check_plan(found: dict[str, ActualSlice]) -> Sequence[Write]:
    """Return the writes for any slices, after what has to be true: writes of known slices, and valid generations."""
    for part in found.values():
        assert isinstance(part.generation, int)
        assert isinstance(part.count, int)
        assert 0 <= part.tainted <= part.devices
    wanted = [build_wanted(_SCOPE, count, resource=f"example.com/{name}") for name, count in (("x", 2), ("y", 70))]
    writes = plan_writes(wanted, found.values(), _SCOPE)
    for write in writes:
        if isinstance(write, CreateSlice):
            assert write.name not in found or found[write.name].pool != write.pool.name
        else:
            assert (write.uid, write.resource_version) == (found[write.name].uid, found[write.name].resource_version)
        assert isinstance(write, DeleteSlice) or write.generation <= MAX_GENERATION
    return writes


async def _write(write: Write, answer: bytes) -> None:
    """Send a write whose answer is any document."""
    client = SliceClient(make_client(format_answer(answer)), DRIVER, NODE)
    try:
        document = await client.write(write, _SCOPE)
    except (ApiError, UnreachableError) as error:
        assert str(error)
        return
    assert (document is None) == isinstance(write, DeleteSlice)
    if document is not None:
        assert set(find_dropped_fields(publish(2).devices, document)) <= {"attributes", "capacity", "taints"}


def list_slices() -> list[bytes]:
    pages = [json.dumps(page).encode() for page in (*_PAGES, _LAST_PAGE)]
    lines = b"\n".join(json.dumps(event).encode() for event in _EVENTS)
    return [join_parts(*pages, lines, json.dumps(_SLICES[0]).encode()), join_parts(pages[1], b"", lines), pages[0]]


_CLAIM = refer(1)
_CLAIMS = [
    build_claim(_CLAIM, allocate_device("x0"), allocate_device("x1", "first/small", admin=True)),
    build_claim(
        _CLAIM,
        allocate_device("x2", tolerations=[{"key": "genplug.io/unhealthy", "operator": "Exists"}]),
        allocate_device("y0", driver="other.example"),
        config=[{"source": "FromClass", "opaque": {"driver": "other.example", "parameters": {}}}],
    ),
    build_claim(_CLAIM, *(allocate_device(device) for device in ("x0", "x1"))),
]


@cache
def _make_pools() -> tuple[DeviceTree, dict[str, ClaimPool]]:
    """Return a node with three devices, of which the last is unhealthy."""
    tree = DeviceTree(scratch_directory("resource-claim"))
    devices = [*tree.make_healthy("x0", "x1"), mark_unhealthy(tree.make_device("x2"), "its node is gone")]
    return tree, {POOL: build_pool(build_offer(build_resource(env={"DEVICES": "${name}"}), devices))}


def run_claim(content: bytes) -> None:
    """Prepare a claim from the answer of the API server, as far as that writes no files."""
    document = _make_runner().run(ApiClaimSource(make_client(format_answer(content)))("default", "claim-1"))
    assert document is not None
    results = parse_results(document, _CLAIM, DRIVER)
    assert len(results) <= MAX_CLAIM_DEVICES
    tree, pools = _make_pools()
    holder = refer(2)
    grants = select_grants(_CLAIM, results, pools, [DeviceHolding(holder, POOL, "x1")])
    held = [(holding.pool, holding.device) for holding in list_holdings(_CLAIM, results)]
    assert len(set(held)) == len(held)
    assert (POOL, "x1") not in held
    assert list_claim_programs(_CLAIM, grants) == ()
    edits = build_claim_edits(_CLAIM, grants, tree.host)
    rendered = render_claim(DRIVER, _CLAIM.uid, edits)
    defined = parse_cdi_file(rendered.text.encode()).devices if rendered.text is not None else ()
    # Each result has a device of its own in a file that a container runtime accepts.
    assert sorted(names[0] for names in rendered.names) == sorted(defined)


_WORDS = (
    *("HTTP/1.1 200 OK\r\n", "HTTP/1.1 404 Not Found\r\n", "HTTP/1.1 103 \r\n", "Transfer-Encoding: chunked\r\n"),
    *(
        "Content-Length: ",
        "Connection: close\r\n",
        "Retry-After: ",
        "\r\n\r\n",
        "\n",
        "0\r\n\r\n",
        "ffffffffffffffff\r\n",
    ),
    *('{"kind": "Status", "code": ', '"details": {"name": "a"}', '{"type": "ADDED", "object": {}}', "1e400", "NaN"),
)

TARGETS = (
    Target(
        "api-http",
        "HTTP answers of the API server",
        run_http,
        list_answers,
        words=_WORDS,
        max_bytes=4096,
        short_runs=500,
    ),
    Target(
        "resource-slices",
        "lists and watches of ResourceSlices",
        run_slices,
        list_slices,
        words=('"generation": ', '"resourceSliceCount": ', '"continue": ', "1e400", "NaN", "null", "9" * 30),
        max_bytes=16384,
        mutate=parts_mutator(
            document_mutator(values=_PAGES),
            document_mutator(values=[_LAST_PAGE]),
            document_mutator(values=_EVENTS),
            document_mutator(values=_SLICES),
        ),
        short_runs=300,
    ),
    Target(
        "resource-claim",
        "ResourceClaims",
        run_claim,
        lambda: [json.dumps(claim).encode() for claim in _CLAIMS],
        allowed=(ClaimReadError, ClaimError),
        words=('"results": [', '"adminAccess": true', '"tolerations": [', '"config": [', "null", "1e400"),
        max_bytes=4096,
        mutate=document_mutator(values=_CLAIMS),
        short_runs=300,
    ),
)
