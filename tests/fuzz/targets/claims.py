"""Calls of the kubelet to the driver of Dynamic Resource Allocation, and the records of claims on the disk."""

import asyncio
import re
import shutil
from collections import Counter
from functools import cache
from typing import Any

import grpc
import msgspec
from google.protobuf.message import DecodeError

from genplug.agent.claim_files import RECORD_VERSION, ClaimRecord, RecordedDevice, encode_record
from genplug.agent.claims import Claims
from genplug.agent.driver_service import _build_claim
from genplug.allocation.claims import find_former_holdings
from genplug.cluster.http import build_path
from genplug.kubelet import driver_wire as wire
from genplug.kubelet.api import genplug_dra_v1_pb2 as pb
from genplug.kubelet.api import genplug_pluginregistration_v1_pb2 as registration_pb
from genplug.kubelet.driver import MAX_ERROR_CHARACTERS, Driver
from genplug.kubelet.reports import ClaimAnswered, DriverReport, InternalErrorCaught
from tests.fuzz.documents import document_mutator
from tests.fuzz.scratch import scratch_directory
from tests.fuzz.target import Target
from tests.support.allocation import DeviceTree
from tests.support.claim_node import BOOT, ClaimNode
from tests.support.claims import DRIVER, POOL, allocate_device, refer

_METHODS = ("NodePrepareResources", "NodeUnprepareResources", "GetInfo", "NotifyRegistrationStatus")
_CLAIMS = [refer(number) for number in range(4)]


class _Context:
    """The context of a call, whose only use is to end it."""

    async def abort(self, code: grpc.StatusCode, message: str) -> None:
        raise AssertionError(f"{code}: {message}")


@cache
def _make_runner() -> asyncio.Runner:
    return asyncio.Runner()


@cache
def _make_node() -> ClaimNode:
    """Return a node with three devices."""
    node = ClaimNode(DeviceTree(scratch_directory("claims")))
    node.tree.make_healthy("x0", "x1", "x2")
    node.scan()
    return node


def _allocate_claims(node: ClaimNode) -> None:
    node.documents = {}
    node.allocate(_CLAIMS[0], "x0")
    node.allocate(_CLAIMS[1], "x0", "x1")
    node.allocate(_CLAIMS[2], allocate_device("x0", admin=True), "x2")
    node.allocate(_CLAIMS[3])


def run_message(content: bytes) -> None:
    """Call a method of the driver; the first byte selects it, and the others are the message.

    A claim is prepared before the call. From the selector 4 on, the API server has each claim that the message names.
    """
    selector = content[0] if content else 0
    method = _METHODS[selector % len(_METHODS)]
    _make_runner().run(_call(method, content[1:], is_known=selector >= len(_METHODS)))


async def _call(method: str, content: bytes, *, is_known: bool) -> None:
    node = _make_node()
    _allocate_claims(node)
    for directory in (node.records, node.cdi):
        shutil.rmtree(directory, ignore_errors=True)
    claims = await node.start()
    await claims.prepare(_CLAIMS[0])
    reports: list[DriverReport] = []
    driver = Driver(DRIVER, scratch_directory("driver"), claims, reports.append)
    # Without sockets, whose bytes are read by the same library as those of a device plugin.
    methods = {**driver._service_methods(), **driver._registration_methods()}  # noqa: SLF001
    handler: Any = methods[method]
    request: Any = handler.request_deserializer(content) if handler.request_deserializer else content
    if method in _METHODS[:2]:
        assert len({claim.uid for claim in request}) == len(request)
        for number, claim in enumerate(request if is_known else ()):
            node.allocate(claim, f"x{2 - number % 3}")
    response: bytes = await handler.unary_unary(request, _Context())
    for report in reports:
        if isinstance(report, InternalErrorCaught):
            raise report.error
    match method:
        case "GetInfo":
            assert registration_pb.PluginInfo.FromString(response).name == DRIVER
        case "NotifyRegistrationStatus":
            assert response == b""
        case "NodePrepareResources":
            prepared = pb.NodePrepareResourcesResponse.FromString(response).claims
            assert set(prepared) == {claim.uid for claim in request}
            for uid, result in prepared.items():
                # A UID becomes a part of file names.
                assert result.error or re.fullmatch(r"[-A-Za-z0-9]{1,63}", uid)
                assert not (result.error and result.devices)
                assert len(result.error) <= MAX_ERROR_CHARACTERS
        case "NodeUnprepareResources":
            unprepared = pb.NodeUnprepareResourcesResponse.FromString(response).claims
            assert set(unprepared) == {claim.uid for claim in request}
            # Nothing prevents the removal of files, and a claim that is unknown has none.
            assert not any(result.error for result in unprepared.values())
    _check_files(node, claims)
    if method.startswith("Node"):
        assert sum(isinstance(report, ClaimAnswered) for report in reports) == len(request)


def _check_files(node: ClaimNode, claims: Claims) -> None:
    """Assert that the files are those of the prepared claims, and that no two claims have a device."""
    assert node.files == node.paths(*(record.claim for record in claims.records.values()))
    held = Counter((holding.pool, holding.device) for holding in claims.holdings)
    assert max(held.values(), default=0) <= 1


def list_messages() -> list[bytes]:
    def encode(*numbers: int, **fields: str) -> bytes:
        claims = [
            pb.Claim(**{"namespace": claim.namespace, "name": claim.name, "uid": claim.uid, **fields})
            for claim in (_CLAIMS[number] for number in numbers)
        ]
        return pb.NodePrepareResourcesRequest(claims=claims).SerializeToString()

    requests = [
        encode(0),
        encode(1),
        encode(2, 3),
        encode(0, 1, 2, 3),
        encode(0, 0),
        encode(2, 2, namespace="other"),
        encode(2, uid="../x"),
        encode(2, uid=""),
        encode(2, uid="a" * 300),
        encode(2, uid="another"),
        encode(2, name="\0\n\x1b[31m"),
    ]
    statuses = [
        registration_pb.RegistrationStatus(plugin_registered=True),
        registration_pb.RegistrationStatus(error="no handler registered"),
    ]
    return [
        *(bytes([selector]) + request for selector in (0, 1, 4) for request in requests),
        b"\2",
        *(b"\3" + status.SerializeToString() for status in statuses),
    ]


_UID = _CLAIMS[0].uid
_RECORDS = [
    ClaimRecord(
        RECORD_VERSION,
        boot,
        claim,
        (
            RecordedDevice("gpu", POOL, "x0", "a.example/x", (f"{DRIVER}/claim={_UID}-gpu-x0",)),
            RecordedDevice("first/small", POOL, "x0-r1", "a.example/x", (), admin_access=is_admin),
        ),
        cdi,
    )
    for claim, boot, is_admin, cdi in (
        (_CLAIMS[0], BOOT, True, "{}\n"),
        (_CLAIMS[0], BOOT, False, None),
        (_CLAIMS[0], "another boot", False, "{}\n"),
        (_CLAIMS[1], BOOT, False, "{}\n"),
    )
]


def run_record(content: bytes) -> None:
    """Start with a record of any content, and use the claim in every way in which the agent uses a record."""
    node = _make_node()
    for directory in (node.records, node.cdi):
        shutil.rmtree(directory, ignore_errors=True)
    node.records.mkdir()
    node.record(_CLAIMS[0]).write_bytes(content)
    _make_runner().run(_use_record(node, content))


async def _use_record(node: ClaimNode, content: bytes) -> None:
    stored = node.make_files().restore()
    # The record is read or put aside, never both and never removed.
    assert len(stored.records) + len(stored.stale) + len(stored.damaged) == 1
    if stored.damaged:
        assert node.record(_CLAIMS[0], bad=True).read_bytes() == content
        return
    (record,) = {**stored.records, **stored.stale}.values()
    assert record.claim.uid == _UID
    assert (record.boot_id == BOOT) == bool(stored.records)
    claims = await node.start()
    assert dict(claims.records) == dict(stored.records)
    assert msgspec.json.decode(encode_record(record), type=ClaimRecord) == record
    response = pb.NodePrepareResourcesResponse.FromString(wire.encode_prepared({_UID: record.answer}))
    assert len(response.claims[_UID].devices) == len(record.devices)
    find_former_holdings(node.pools[POOL].offer, POOL, ["node-1/old"], record.holdings)
    assert build_path(record.claim.namespace, record.claim.name).isascii()
    assert _build_claim(record).as_json()["uid"] == _UID
    if claims.records:
        assert claims.holdings == record.holdings
        assert await claims.prepare(record.claim) == record.answer
        if record.cdi is None:
            assert not node.cdi_file(record.claim).exists()
        else:
            assert node.cdi_file(record.claim).read_bytes() == record.cdi.encode()
        restarted = await node.start()
        assert dict(restarted.records) == dict(claims.records)
    else:
        assert claims.holdings == ()
    await claims.unprepare(record.claim)
    assert node.files == []


TARGETS = (
    Target(
        "driver-message",
        "messages of the kubelet for the driver",
        run_message,
        list_messages,
        allowed=(DecodeError,),
        words=(*(claim.uid for claim in _CLAIMS), "default", "claim-1", "\x0a\x03", "\x12\x01", "\x1a\x24"),
        max_bytes=1024,
        short_runs=200,
    ),
    Target(
        "claim-record",
        "records of prepared claims",
        run_record,
        lambda: [encode_record(record) for record in _RECORDS],
        words=('"bootId":', BOOT, '"devices":[', '"cdi":', "null", "\\ud800", "1e400", '"version":1'),
        mutate=document_mutator(values=[msgspec.json.decode(encode_record(record)) for record in _RECORDS]),
        short_runs=200,
    ),
)
