"""Hostile names of devices, texts of files and responses of servers: no command prints their control characters."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from genplug.cli.main import main
from genplug.cli.output import escape_output, format_json, format_table, format_yaml
from genplug.testing.node.fake_node import FakeNode

HOSTILE = "\x1b[31m\x07\n\u202e\u2066\x9b\u200b\x85\u2028"
CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x:
    devices:
    - glob: /dev/x*
      exclude: [/dev/x9*]
      attributes: {serial: {path: /sys/serial}}
    allocate: {env: {XS: "${path}"}}
    replicas: 1
  a.io/y: {devices: [{glob: "/dev/none*"}]}
"""


def check_printable(text: str, lines: int | None = None) -> None:
    """Check that a text has printable characters only, and at most a number of lines."""
    for line in text.split("\n"):
        assert line.isprintable(), line
    if lines is not None:
        assert text.count("\n") <= lines


@pytest.fixture
def hostile_node(node: FakeNode) -> FakeNode:
    """Give a node with devices whose names have control characters, and a file with such a text."""
    for number, path in enumerate((f"/dev/x0{HOSTILE}", f"/dev/x9{HOSTILE}", "/dev/x1")):
        node.plug(path, minor=number)
    node.write("/sys/serial", f"a{HOSTILE}b")
    return node


@pytest.mark.parametrize("flags", [(), ("--explain",), ("-o", "json"), ("-o", "yaml"), ("--allocate", "a.io/x=1")])
async def test_plan_escapes_names_and_texts(
    hostile_node: FakeNode, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    path = hostile_node.write_config(CONFIG.replace("    replicas: 1\n", ""))
    main(["plan", "--config", str(path), "--root", str(hostile_node.root), *flags])
    output = capsys.readouterr()
    check_printable(output.out)
    check_printable(output.err)
    if "json" in flags:
        assert f"/dev/x0{HOSTILE}" in _texts(json.loads(output.out))
    if not flags:
        assert "/dev/x1" in output.out
        rows = [line for line in output.out.splitlines() if line.startswith("a.io/x ")]
        assert len(rows) == 3


def _texts(document: Any) -> list[str]:
    if isinstance(document, dict):
        return [text for value in document.values() for text in _texts(value)]
    if isinstance(document, list):
        return [text for value in document for text in _texts(value)]
    return [str(document)]


@pytest.mark.parametrize("output", ["text", "json"])
async def test_validate_escapes_texts_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str) -> None:
    quoted = json.dumps(HOSTILE)[1:-1]
    path = tmp_path / "a\x1b\u202e.yaml"
    path.write_text(CONFIG.replace("glob: /dev/x*", f'glob: "/dev/{quoted}["') + "  # \u202e\u2066 \u200b\n  golb: 1\n")
    assert main(["validate", str(path), "-o", output]) == 78
    found = capsys.readouterr()
    check_printable(found.out)
    check_printable(found.err.replace("\t", ""))


@pytest.mark.parametrize("flags", [(), ("-o", "wide"), ("-o", "json"), ("-o", "yaml"), ("-o", "name"), ("--brief",)])
async def test_status_escapes_what_a_server_returns(capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]) -> None:
    device = {"id": HOSTILE, "paths": [HOSTILE], "healthy": False, "reason": HOSTILE, "probe": "", "since": None}
    workers = {"workers": 1, "hung": 0, "exhausted": False, "failedStarts": 1, "startError": HOSTILE}
    document = {
        "version": HOSTILE,
        "node": HOSTILE,
        "ready": False,
        "unready": [HOSTILE],
        "kubelet": HOSTILE,
        "config": {
            "files": [HOSTILE],
            "sha256": HOSTILE,
            "loadedAt": "2026-11-27T17:12:17Z",
            "error": "first\nsecond" + HOSTILE,
            "withdrawn": [HOSTILE],
            "warnings": [HOSTILE],
        },
        "resources": [
            {
                "name": HOSTILE,
                "phase": HOSTILE,
                "generation": 1,
                "streams": 0,
                "registered": False,
                "removed": False,
                "hasNoInstances": False,
                "reason": HOSTILE,
                "healthy": 0,
                "unhealthy": 1,
                "devices": [device],
                "notes": [HOSTILE],
                "expected": 2,
                "healthyDevices": 1,
                "inUse": [{"namespace": HOSTILE, "pod": HOSTILE, "container": HOSTILE, "devices": [HOSTILE]}],
                "lastRefusal": {"time": "2026-11-27T17:12:17Z", "message": HOSTILE},
            }
        ],
        "health": {
            "probes": 1,
            "targets": 1,
            "runs": 1,
            "minRuns": 1,
            "cpuSeconds": 1.0,
            "readWorkers": workers,
            "callWorkers": workers,
            "errors": [{"resource": HOSTILE, "probe": HOSTILE, "error": HOSTILE, "devices": [HOSTILE]}],
            "warnings": [{"resource": HOSTILE, "probe": HOSTILE, "reason": HOSTILE, "devices": [HOSTILE]}],
        },
        "scans": [],
        "failures": [HOSTILE],
        "unwatched": [HOSTILE],
    }

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(document).encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.to_thread(main, ["status", "--address", f"127.0.0.1:{port}", *flags])
    output = capsys.readouterr()
    check_printable(output.out)
    check_printable(output.err)
    if "json" in flags:
        assert json.loads(output.out) == document
    elif "yaml" in flags:
        assert yaml.safe_load(output.out) == document
    elif "name" in flags:
        assert output.out.count("\n") == 1


async def test_status_escapes_the_text_of_another_server(capsys: pytest.CaptureFixture[str]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 404 Not Found\r\n\r\n" + HOSTILE.encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.to_thread(main, ["status", "--address", f"127.0.0.1:{port}"])
    check_printable(capsys.readouterr().err, lines=1)


def test_usage_error_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["init", "--bad\x1b\u202e"])
    check_printable(capsys.readouterr().err)
    assert main(["init", "kind\x1b\n\u202e"]) == 2
    check_printable(capsys.readouterr().err, lines=1)


def test_cell_of_a_table_is_one_line() -> None:
    check_printable(format_table(("A", "B"), [(HOSTILE, "b")]), lines=1)


def test_documents_keep_their_values() -> None:
    assert json.loads(format_json({HOSTILE: [HOSTILE]})) == {HOSTILE: [HOSTILE]}
    assert yaml.safe_load(format_yaml({HOSTILE: [HOSTILE]})) == {HOSTILE: [HOSTILE]}
    check_printable(format_yaml({HOSTILE: [HOSTILE]}))
    assert "é" in format_yaml({"a": "é"})


def test_print_is_escaped_inside_the_context(capsys: pytest.CaptureFixture[str]) -> None:
    with escape_output():
        print(HOSTILE, "\ta")
    assert capsys.readouterr().out == "\\x1b[31m\\x07\n\\u202e\\u2066\\x9b\\u200b\\x85\\u2028 \ta\n"
