"""CDI files of other programs: the devices that a container runtime would find, and files with errors."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import field

from genplug.hardware import cdi_files
from genplug.hardware.cdi_files import CdiDevices, parse_cdi_file, read_cdi_devices, reduce_cdi_file
from genplug.hardware.dependencies import Dependencies
from genplug.hardware.host import Host
from genplug.spec.limits import MAX_CDI_FILE_BYTES

EDITS = {"env": ["A=b"]}


def build_spec(*devices: str, kind: str = "vendor.example/gpu", **fields: Any) -> dict[str, Any]:
    listed = [{"name": name, "containerEdits": EDITS} for name in devices]
    return {"cdiVersion": "0.6.0", "kind": kind, "devices": listed, **fields}


def read(tmp_path: Path, files: Mapping[str, Any]) -> CdiDevices:
    """Return the CDI devices of a node with these files: a text, bytes, or the content of a JSON file."""
    for path, content in files.items():
        location = tmp_path / path
        location.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            location.write_bytes(content)
        else:
            location.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_cdi_devices(Host(tmp_path), Dependencies())


class ReadingHost(Host, frozen=True):
    """A host with the contents that were read from its files."""

    contents: list[bytes] = field(default_factory=list)

    def read_bytes(self, resolved: str, max_bytes: int, *, may_block: bool = False) -> bytes:
        self.contents.append(super().read_bytes(resolved, max_bytes, may_block=may_block))
        return self.contents[-1]


YAML = """
# nvidia-ctk writes such a file.
---
cdiVersion: "0.5.0"
kind: nvidia.com/gpu
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
devices:
- name: "0"
  containerEdits:
    deviceNodes: [{path: /dev/nvidia0}]
- name: all
  containerEdits: &edits
    deviceNodes:
    - path: /dev/nvidia0
- name: GPU-1aa2
  containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}
"""


def test_devices_of_json_and_yaml_files_of_both_directories_are_found(tmp_path: Path) -> None:
    found = read(tmp_path, {"etc/cdi/nvidia.yaml": YAML, "var/run/cdi/a.json": build_spec("x0", "x:1")})
    assert found.files == {
        "nvidia.com/gpu=0": "/etc/cdi/nvidia.yaml",
        "nvidia.com/gpu=all": "/etc/cdi/nvidia.yaml",
        "nvidia.com/gpu=GPU-1aa2": "/etc/cdi/nvidia.yaml",
        "vendor.example/gpu=x0": "/var/run/cdi/a.json",
        "vendor.example/gpu=x:1": "/var/run/cdi/a.json",
    }
    assert found.undefined_reason("nvidia.com/gpu=all") == ""


def test_undefined_device_has_the_directories_and_the_devices_of_its_kind(tmp_path: Path) -> None:
    found = read(tmp_path, {"etc/cdi/a.json": build_spec("0", "1", "2", "3", "all")})
    assert found.undefined_reason("vendor.example/gpu=nope") == (
        "no CDI file in /etc/cdi and /var/run/cdi defines vendor.example/gpu=nope; "
        "the devices of vendor.example/gpu are 0, 1, 2 and 2 more"
    )
    assert found.undefined_reason("other.example/gpu=0") == (
        "no CDI file in /etc/cdi and /var/run/cdi defines other.example/gpu=0"
    )


def test_node_without_directories_has_a_hint_to_mount_them(tmp_path: Path) -> None:
    reason = read(tmp_path, {}).undefined_reason("vendor.example/gpu=0")
    assert "genplug does not see /etc/cdi and /var/run/cdi" in reason
    assert "daemonset.cdiSearchDirs" in reason


def test_definition_in_a_later_directory_counts(tmp_path: Path) -> None:
    found = read(tmp_path, {"etc/cdi/a.json": build_spec("0"), "var/run/cdi/a.json": build_spec("0")})
    assert found.files == {"vendor.example/gpu=0": "/var/run/cdi/a.json"}
    assert found.undefined_reason("vendor.example/gpu=0") == ""


@pytest.mark.parametrize("has_later", [False, True])
def test_two_definitions_in_one_directory_are_a_conflict(tmp_path: Path, *, has_later: bool) -> None:
    files = {"etc/cdi/a.json": build_spec("0", "1"), "etc/cdi/b.yaml": build_spec("0")}
    found = read(tmp_path, files | ({"var/run/cdi/a.json": build_spec("0")} if has_later else {}))
    assert found.undefined_reason("vendor.example/gpu=0") == (
        "/etc/cdi/a.json and /etc/cdi/b.yaml both define the CDI device vendor.example/gpu=0; "
        "remove it from one of the files"
    )
    assert found.undefined_reason("vendor.example/gpu=1") == ""


def test_files_that_the_runtime_ignores_define_nothing(tmp_path: Path) -> None:
    (tmp_path / "etc/cdi/directory.json").mkdir(parents=True)
    spec = build_spec("0")
    found = read(tmp_path, {f"etc/cdi/{name}": spec for name in ("a.yml", "a.json.new", "json", "sub/a.json")})
    assert (found.files, found.errors) == ({}, {})


def test_link_in_a_directory_is_followed(tmp_path: Path) -> None:
    read(tmp_path, {"opt/vendor/a.json": build_spec("0")})
    (tmp_path / "etc/cdi").mkdir(parents=True)
    (tmp_path / "etc/cdi/a.json").symlink_to("/opt/vendor/a.json")
    assert read(tmp_path, {}).files == {"vendor.example/gpu=0": "/etc/cdi/a.json"}


DEEP = "[" * 500 + "]" * 500
INVALID = {
    "empty": (b"", "is empty"),
    "list": (b"[]", "is not a mapping"),
    "broken JSON": (b'{"cdiVersion": "0.6.0"', "is neither JSON nor YAML"),
    "tab": (b"a:\n\t- b", "is neither JSON nor YAML: found character that cannot start any token in line 2"),
    "binary": (b"\xff\xfe\x00", "is not a text in UTF-8"),
    "control character": (b"a: \x01", "is neither JSON nor YAML"),
    "no version": (b'{"kind": "a.b/c", "devices": []}', "has no valid 'cdiVersion'"),
    "version": ({**build_spec("0"), "cdiVersion": "one"}, "has no valid 'cdiVersion'"),
    "no kind": ({"cdiVersion": "0.6.0", "devices": []}, "has no 'kind'"),
    "kind": (build_spec("0", kind="gpu"), "has the invalid name 'gpu=0'"),
    "kind of another type": ({**build_spec("0"), "kind": ["a.b/c"]}, "has no 'kind'"),
    "no devices": (build_spec(), "has no devices"),
    "devices of another type": ({**build_spec(), "devices": {"name": "0"}}, "has no devices"),
    "device of another type": ({**build_spec(), "devices": ["0"]}, "has an entry of 'devices' that is not a mapping"),
    "device name": (build_spec("a b"), "has the invalid name 'vendor.example/gpu=a b'"),
    "name of another type": (
        {**build_spec(), "devices": [{"name": {}, "containerEdits": EDITS}]},
        "has the invalid name 'vendor.example/gpu='",
    ),
    "no edits": ({**build_spec(), "devices": [{"name": "0"}]}, "has the device '0' without 'containerEdits'"),
    "empty edits": (
        {**build_spec(), "devices": [{"name": "0", "containerEdits": {}}]},
        "has the device '0' without 'containerEdits'",
    ),
    "device twice": (build_spec("0", "1", "0"), "has the device '0' twice"),
    "key twice": (b'{"kind": "a.b/c", "kind": "a.b/d"}', "has the key 'kind' twice"),
    "key of another type": (b"{[a]: b}", "has a key that is not a string"),
    "deep": (f'{{"x": {DEEP}, {json.dumps(build_spec("0"))[1:]}'.encode(), "is nested more than 100 levels deep"),
    "large": (b" " * (MAX_CDI_FILE_BYTES + 1), "is larger than 4 MiB, the maximum"),
}


@pytest.mark.parametrize(("content", "reason"), INVALID.values(), ids=INVALID.keys())
def test_invalid_file_defines_nothing_and_has_its_reason(tmp_path: Path, content: Any, reason: str) -> None:
    found = read(tmp_path, {"etc/cdi/bad.json": content, "etc/cdi/good.json": build_spec("1")})
    assert found.files == {"vendor.example/gpu=1": "/etc/cdi/good.json"}
    assert reason in found.errors["/etc/cdi/bad.json"]
    assert f"; invalid files: /etc/cdi/bad.json {found.errors['/etc/cdi/bad.json']}" in found.undefined_reason(
        "a.b/c=0"
    )


def test_unreadable_file_is_an_error_of_this_file(tmp_path: Path) -> None:
    read(tmp_path, {"etc/cdi/good.json": build_spec("1")})
    os.mkfifo(tmp_path / "etc/cdi/pipe.json")
    (tmp_path / "etc/cdi/loop.json").symlink_to("loop.json")
    (tmp_path / "etc/cdi/gone.json").symlink_to("gone")
    found = read(tmp_path, {})
    assert found.files.keys() == {"vendor.example/gpu=1"}
    assert found.errors == {
        "/etc/cdi/loop.json": "cannot be read: Too many levels of symbolic links",
        "/etc/cdi/pipe.json": "cannot be read: No such device or address",
    }


def test_number_and_size_of_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cdi_files, "MAX_CDI_FILES", 3)
    size = len(json.dumps(build_spec("0")))
    monkeypatch.setattr(cdi_files, "MAX_CDI_BYTES", 2 * size)
    found = read(tmp_path, {f"etc/cdi/{number}.json": build_spec(str(number)) for number in range(5)})
    assert sorted(found.files) == ["vendor.example/gpu=0", "vendor.example/gpu=1"]
    assert found.errors["/etc/cdi/2.json"].startswith("is not read: with it, the CDI files exceed")
    assert found.errors["/etc/cdi/3.json"] == "is not read: the directory has more than 3 files"


def test_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cdi_files, "_SETTLED_SECONDS", 0)
    first = read(tmp_path, {"etc/cdi/a.json": build_spec("0"), "etc/cdi/b.json": build_spec("1")})
    host = ReadingHost(tmp_path)
    assert read_cdi_devices(host, Dependencies()) is first
    assert host.contents == []
    (tmp_path / "etc/cdi/b.json").write_text(json.dumps(build_spec("12")))
    assert sorted(read_cdi_devices(host, Dependencies()).files) == ["vendor.example/gpu=0", "vendor.example/gpu=12"]
    assert host.contents == [json.dumps(build_spec("12")).encode()]
    (tmp_path / "etc/cdi/b.json").unlink()
    assert sorted(read_cdi_devices(host, Dependencies()).files) == ["vendor.example/gpu=0"]


def test_file_that_was_found_a_moment_ago_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A later content can have the same times.
    read(tmp_path, {"etc/cdi/a.json": build_spec("0")})
    host = ReadingHost(tmp_path)
    for count in (1, 2):
        read_cdi_devices(host, Dependencies())
        assert len(host.contents) == count
    # The content of the first read after the time is final.
    monkeypatch.setattr(cdi_files, "_SETTLED_SECONDS", 0)
    for _ in range(2):
        read_cdi_devices(host, Dependencies())
        assert len(host.contents) == 3


def test_limit_of_all_files_counts_files_that_were_read_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cdi_files, "_SETTLED_SECONDS", 0)
    spec = json.dumps(build_spec("0"))
    files = {f"etc/cdi/{name}.json": spec.replace('"0"', f'"{name}"') for name in "abc"}
    read(tmp_path, files)
    monkeypatch.setattr(cdi_files, "MAX_CDI_BYTES", 2 * len(spec))
    devices = read_cdi_devices(Host(tmp_path), Dependencies())
    assert len(devices.files) == 2
    assert "is not read" in devices.errors["/etc/cdi/c.json"]


def test_aliases_are_not_expanded() -> None:
    levels = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 12)]
    bomb = "\n".join(
        ["a0: &a0 [x]", *levels, *(f"{key}: {json.dumps(value)}" for key, value in build_spec("0").items())]
    )
    started = time.thread_time()
    assert parse_cdi_file(bomb.encode()).devices == {"vendor.example/gpu=0"}
    assert time.thread_time() - started < 1


@given(st.binary(max_size=200))
def test_any_content_is_a_file_with_or_without_an_error(content: bytes) -> None:
    file = parse_cdi_file(content)
    assert bool(file.error) != bool(file.devices)


@given(st.integers(0, len(YAML) - 1), st.binary(max_size=3))
def test_changed_file_is_a_file_with_or_without_an_error(offset: int, inserted: bytes) -> None:
    file = parse_cdi_file(YAML.encode()[:offset] + inserted + YAML.encode()[offset + len(inserted) :])
    assert bool(file.error) != bool(file.devices)


def test_reduced_file_defines_the_same_devices_and_has_nothing_else() -> None:
    reduced = reduce_cdi_file(YAML.encode())
    assert parse_cdi_file(reduced) == parse_cdi_file(YAML.encode())
    assert b"/dev" not in reduced
    assert reduce_cdi_file(reduced) == reduced
    assert reduce_cdi_file(b"[]") == b""


def test_result_depends_on_the_directories(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "run/cdi").mkdir(parents=True)
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    read_cdi_devices(Host(tmp_path), dependencies := Dependencies())
    assert dependencies.names["/etc"] == {"cdi"}
    assert dependencies.anything == {"/run/cdi"}
