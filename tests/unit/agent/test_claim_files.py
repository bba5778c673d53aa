"""The files of claims: the boot ID, errors of the system, and any content of a record."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.agent.claim_files import (
    RECORD_VERSION,
    ClaimRecord,
    ClaimStorageError,
    RecordedDevice,
    encode_record,
    read_boot_id,
)
from tests.support.allocation import DeviceTree
from tests.support.claim_node import BOOT, ClaimNode
from tests.support.claims import POOL, refer
from tests.support.hardware import open_tree

ONE = refer(1)
RECORD = ClaimRecord(
    RECORD_VERSION, BOOT, ONE, (RecordedDevice("gpu", POOL, "x0", "a.example/x", ("genplug.io/claim=a",)),), "{}\n"
)


@pytest.fixture(scope="module")
def node() -> Iterator[ClaimNode]:
    with open_tree(DeviceTree) as tree:
        yield ClaimNode(tree)


@pytest.fixture(autouse=True)
def _clear(node: ClaimNode) -> Iterator[None]:
    yield
    for directory in (node.records, node.cdi):
        if directory.is_dir():
            shutil.rmtree(directory)
        else:
            directory.unlink(missing_ok=True)


def test_boot_id_is_that_of_the_kernel() -> None:
    assert read_boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert len(read_boot_id()) == 36


def test_boot_id_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClaimStorageError, match="the boot ID cannot be read from"):
        read_boot_id(tmp_path / "missing")


def test_record_has_the_names_of_fields_in_the_style_of_kubernetes() -> None:
    assert msgspec.json.decode(encode_record(RECORD)) == {
        "version": 1,
        "bootId": BOOT,
        "claim": {"namespace": "default", "name": "claim-1", "uid": ONE.uid},
        "devices": [
            {
                "request": "gpu",
                "pool": POOL,
                "device": "x0",
                "resource": "a.example/x",
                "cdiDevices": ["genplug.io/claim=a"],
                "adminAccess": False,
            }
        ],
        "cdi": "{}\n",
    }


def test_directory_of_records_is_created_for_its_owner_only(node: ClaimNode) -> None:
    files = node.make_files()
    assert files.restore().records == {}
    assert node.records.stat().st_mode & 0o777 == 0o700


def test_directory_that_cannot_be_created_is_an_error_with_the_path(node: ClaimNode) -> None:
    node.records.write_text("")
    with pytest.raises(ClaimStorageError, match=f"in {node.records} cannot be restored: File exists .*; let genplug"):
        node.make_files().restore()


def test_record_without_devices_for_a_file_removes_the_cdi_file(node: ClaimNode) -> None:
    files = node.make_files()
    files.restore()
    files.write(RECORD)
    files.write(msgspec.structs.replace(RECORD, cdi=None))
    assert node.files == [str(node.record(ONE).relative_to(node.tree.root))]


def test_directories_of_a_claim_may_be_missing_at_its_removal(node: ClaimNode) -> None:
    node.make_files().remove(ONE.uid)
    assert node.files == []


_DAMAGE = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 400), st.just(b"")),
    st.tuples(st.just("change"), st.integers(0, 400), st.binary(min_size=1, max_size=3)),
    st.tuples(st.just("content"), st.just(0), st.binary(max_size=50)),
)


@settings(deadline=None)
@given(damage=_DAMAGE)
def test_record_with_any_damage_is_read_or_put_aside(node: ClaimNode, damage: tuple[str, int, bytes]) -> None:
    files = node.make_files()
    files.restore()
    files.write(RECORD)
    kind, position, content = damage
    whole = encode_record(RECORD)
    changed = {
        "cut": whole[:position],
        "change": whole[:position] + content + whole[position + len(content) :],
        "content": content,
    }[kind]
    node.record(ONE).write_bytes(changed)
    stored = node.make_files().restore()
    found = {**stored.records, **stored.stale}
    assert sorted([*found, *(record.uid for record in stored.damaged)]) == [ONE.uid]
    assert os.path.lexists(node.record(ONE, bad=bool(stored.damaged)))
    if changed == whole:
        assert found == {ONE.uid: RECORD}
