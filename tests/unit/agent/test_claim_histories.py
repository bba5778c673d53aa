"""Random histories of claims, processes and boots: what is on the disk never gives a device to two claims."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.agent.claims import Claims
from genplug.allocation.errors import ClaimError
from tests.support.allocation import DeviceTree
from tests.support.claim_node import ClaimNode, answer
from tests.support.claims import refer
from tests.support.killed_claims import MEMORY

NUMBERS = st.integers(0, 3)
DEVICES = st.lists(st.sampled_from(("x0", "x1", "x2")), min_size=1, max_size=2, unique=True)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("allocate"), NUMBERS, DEVICES),
        st.tuples(st.just("prepare"), st.lists(NUMBERS, min_size=1, max_size=3)),
        st.tuples(st.just("unprepare"), NUMBERS),
        st.tuples(st.just("restart")),
        st.tuples(st.just("reboot")),
    ),
    min_size=5,
    max_size=15,
)


def list_recorded(node: ClaimNode) -> Iterator[tuple[str, str]]:
    """Yield the UID and the device of each entry of the records of this boot."""
    for path in node.records.glob("*.json"):
        record = json.loads(path.read_text())
        if record["bootId"] == node.boot:
            for device in record["devices"]:
                yield path.stem, device["device"]


async def prepare(node: ClaimNode, claims: Claims, number: int, allocated: dict[int, list[str]]) -> None:
    """Prepare a claim; a success has to be the answer of its record."""
    claim = refer(number)
    try:
        devices = await claims.prepare(claim)
    except ClaimError:
        return
    recorded = [device for uid, device in list_recorded(node) if uid == claim.uid]
    assert devices == answer(claim, *recorded)
    assert recorded
    assert node.cdi_file(claim).exists()
    assert number in allocated


async def run_history(root: Path, steps: list[tuple[Any, ...]]) -> None:
    node = ClaimNode(DeviceTree(root))
    claims = await node.start()
    allocated = {0: ["x0"], 1: ["x0"], 2: ["x1", "x0"]}
    for number, devices in allocated.items():
        node.allocate(refer(number), *devices)
    for step in steps:
        match step:
            case ("allocate", number, devices):
                allocated[number] = devices
                node.allocate(refer(number), *devices)
            case ("prepare", numbers):
                await asyncio.gather(*(prepare(node, claims, number, allocated) for number in numbers))
            case ("unprepare", number):
                await claims.unprepare(refer(number))
                assert not node.record(refer(number)).exists()
            case (kind,):
                node.boot += "x" if kind == "reboot" else ""
                claims = await node.start()
        recorded = list(list_recorded(node))
        assert max(Counter(device for _, device in recorded).values(), default=0) <= 1, recorded
        assert sorted((holding.claim.uid, holding.device) for holding in claims.holdings) == sorted(recorded)
        uids = {uid for uid, _ in recorded}
        assert {path.name for path in node.cdi.glob("*.json")} == {f"dra_genplug.io_{uid}.json" for uid in uids}


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_no_two_records_of_a_boot_hold_a_device(steps: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory(prefix="gp", dir=MEMORY if Path(MEMORY).is_dir() else None) as root:
        asyncio.run(run_history(Path(root), steps))
