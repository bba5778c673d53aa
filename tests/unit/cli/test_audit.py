"""``genplug audit``: both questions, the listing of records, and logs that are damaged or have several nodes."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from genplug.audit.records import (
    Assignment,
    Container,
    EndReason,
    Fields,
    Hardware,
    Origin,
    RecordType,
    complete_line,
    encode_record,
    format_time,
    parse_time,
)
from genplug.cli import audit
from genplug.cli.main import main
from tests.support.golden import check_golden
from tests.support.outputs import check_output

GOLDEN = Path(__file__).parent / "golden"
START = parse_time("2026-11-27T17:00:00Z")
SHA256 = "cd21c7131904d8ed809b348196177bcb2eb1f4e4f8e4eef9fff49edc2f797d47"
SERIAL = Hardware("ttyusb0-klb6nx", ("/dev/ttyUSB0",), ("char 188:0",), {"usb.serial": ("FT4Q1A2B",)})
GPU = Hardware("gpu0", ("/dev/nvidia0",), ("char 195:0",), {"pci.address": ("0000:3b:00.0",), "driver": ("nvidia",)})
Entry = tuple[float, RecordType, Fields]


def write_log(directory: Path, entries: list[Entry], node: str = "node-1", first: int = 1) -> Path:
    """Write a file of a log; the times of the entries are minutes after 17:00."""
    directory.mkdir(exist_ok=True)
    origin = Origin(node, "0.1.0", SHA256)
    lines = (
        complete_line(sequence, encode_record(origin, START + 60 * minute, type_, fields))
        for sequence, (minute, type_, fields) in enumerate(entries, first)
    )
    file = directory / f"audit-{first:016d}.jsonl"
    file.write_bytes(b"".join(lines))
    return file


def use(
    key: str, pod: str, begin: float, hardware: Hardware, resource: str = "devices.example.com/serial"
) -> Assignment:
    return Assignment(
        key,
        resource,
        (hardware.device,),
        Container("lab", pod, "main"),
        START + 60 * begin,
        START + 60 * begin + 1,
        START + 60 * begin + 1,
        SHA256,
        (hardware,),
    )


def seen(assignment: Assignment) -> Entry:
    assert assignment.first_seen is not None
    return ((assignment.first_seen - START) / 60, RecordType.ASSIGNED, {"assignment": assignment.as_json()})


def ended(assignment: Assignment, minute: float, reason: EndReason = EndReason.POD_ENDED) -> Entry:
    fields = {
        "assignment": {**assignment.as_json(), "lastSeenAt": format_time(START + 60 * minute - 10)},
        "endedBy": format_time(START + 60 * minute),
        "reason": reason.value,
    }
    return (minute, RecordType.RELEASED, fields)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the log of a node with two users of an adapter, one after the other, and a user of a GPU."""
    first, second = use("a-1", "measurement-7", 22, SERIAL), use("a-2", "measurement-8", 45, SERIAL)
    gpu = use("a-3", "training-1", 30, GPU, "nvidia.com/gpu")
    unhealthy = {"resource": "nvidia.com/gpu", "device": "gpu0", "reason": "too \x1b[31m\nhot", "probe": "heat"}
    entries: list[Entry] = [
        (0, RecordType.STARTED, {"kernel": "6.1.0", "root": "/host"}),
        seen(first),
        seen(gpu),
        ended(first, 41),
        seen(second),
        (50, RecordType.DEVICE_UNHEALTHY, unhealthy),
        (55, RecordType.HEARTBEAT, {"seenAt": format_time(START + 55 * 60), "assignments": 2}),
    ]
    write_log(tmp_path / "log", entries)
    return tmp_path / "log"


Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return a function that runs the command and returns the document that it prints."""

    def run(*arguments: object) -> dict[str, Any]:
        assert main(["audit", *map(str, arguments), "-o", "json"]) == 0
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        check_output(document)
        for record in document["records"]:
            check_output(record)
        return document

    return run


def list_pods(document: dict[str, Any]) -> list[str]:
    return [assignment["pod"] for assignment in document["assignments"]]


@pytest.mark.parametrize("name", ["ttyusb0-klb6nx", "/dev/ttyUSB0", "FT4Q1A2B", "ft4q1a2b"])
def test_device_can_be_named_by_id_path_or_serial_number(log: Path, ask: Ask, name: str) -> None:
    assert list_pods(ask(log, "--device", name)) == ["measurement-7", "measurement-8"]


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [
        ("17:00Z", "17:21Z", {}),
        ("17:00Z", "17:22Z", {"measurement-7": True}),
        ("17:30Z", "17:31Z", {"measurement-7": True}),
        ("17:40:55Z", "17:44Z", {"measurement-7": False}),
        ("17:41:01Z", "17:44Z", {}),
        ("17:40Z", "17:50Z", {"measurement-7": True, "measurement-8": True}),
        ("17:56Z", "17:59Z", {"measurement-8": False}),
    ],
)
def test_range_of_time_selects_assignments_that_are_certain_or_possible(
    log: Path, ask: Ask, start: str, end: str, found: dict[str, bool]
) -> None:
    document = ask(log, "--device", "FT4Q1A2B", "--from", f"2026-11-27T{start}", "--to", f"2026-11-27T{end}")
    assert {assignment["pod"]: assignment["certain"] for assignment in document["assignments"]} == found


def test_pod_has_its_devices_with_their_hardware_and_configuration(log: Path, ask: Ask) -> None:
    [assignment] = ask(log, "--pod", "lab/training-1")["assignments"]
    assert assignment["hardware"][0]["attributes"]["pci.address"] == ["0000:3b:00.0"]
    assert assignment["configSha256"] == SHA256
    assert (assignment["state"], assignment["endedBy"]) == ("open", None)
    # The heartbeat confirms it.
    assert assignment["lastSeenAt"] == "2026-11-27T17:55:00.000Z"


def test_driver_does_not_name_a_device(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(log), "--device", "nvidia"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(["--device", "FT4Q1A2C"], "did you mean 'FT4Q1A2B'?"), (["--pod", "lab/trainin-1"], "'lab/training-1'")],
)
def test_unknown_device_or_pod_is_an_error_with_a_suggestion(
    log: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], hint: str
) -> None:
    assert main(["audit", str(log), *arguments, "-o", "json"]) == 2
    printed = capsys.readouterr()
    assert hint in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--resource", "nvidia.com/gpus"],
        ["--type", "deviceUnhealthy", "--device", "gpu1"],
        ["--type", "assigned", "--pod", "lab/training-2"],
    ],
)
def test_unknown_name_in_a_listing_is_an_error_after_a_valid_document(
    log: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(["audit", str(log), *arguments, "-o", "json"]) == 2
    printed = capsys.readouterr()
    assert arguments[-1] in printed.err
    assert "did you mean" in printed.err
    document = json.loads(printed.out)
    check_output(document)
    assert document["records"] == []


def test_known_name_without_a_selected_record_is_no_error(log: Path, ask: Ask) -> None:
    for arguments in (["--resource", "nvidia.com/gpu"], ["--device", "gpu0"], ["--pod", "lab/training-1"]):
        assert ask(log, *arguments, "--type", "gap")["records"] == []


def test_time_that_no_output_can_contain_is_refused_or_reported(log: Path, ask: Ask) -> None:
    last = "9999-12-31T23:59:59-23:00"
    with pytest.raises(SystemExit) as caught:
        main(["audit", str(log), "--to", last])
    assert caught.value.code == 2
    assert ask(log, "--since", "999999999d")["query"]["from"] == "1970-01-01T00:00:00.000Z"
    file = next(log.iterdir())
    file.write_text(file.read_text().replace("2026-11-27T17:22:00.000Z", last))
    document = ask(log, "--device", "FT4Q1A2B")
    assert last in document["problems"][0]["message"]
    assert list_pods(document) == ["measurement-8"]


def test_table_has_the_documented_form(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(log), "--device", "FT4Q1A2B", "--from", "2026-11-27T17:41Z"]) == 0
    check_golden(GOLDEN / "audit.txt", capsys.readouterr().out)


def test_listing_filters_by_type_resource_device_and_time(log: Path, ask: Ask) -> None:
    def list_types(*arguments: str) -> list[str]:
        return [record["type"] for record in ask(log, *arguments)["records"]]

    assert len(list_types()) == 7
    assert list_types("--type", "started", "--type", "heartbeat") == ["started", "heartbeat"]
    assert list_types("--resource", "nvidia.com/gpu") == ["assigned", "deviceUnhealthy"]
    assert list_types("--device", "gpu0", "--type", "deviceUnhealthy") == ["deviceUnhealthy"]
    assert list_types("--from", "2026-11-27T17:50Z") == ["deviceUnhealthy", "heartbeat"]
    assert list_types("--since", "1s") == []


def test_listing_escapes_texts_of_devices(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(log), "--type", "deviceUnhealthy"]) == 0
    printed = capsys.readouterr().out
    assert "too \\x1b[31m\\nhot" in printed
    assert printed.count("\n") == 1


def test_yaml_and_json_are_the_same_document(log: Path, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--since", "1s"], [], ["--pod", "lab/training-1"]):
        document = ask(log, *arguments)
        assert main(["audit", str(log), *arguments, "-o", "yaml"]) == 0
        parsed = yaml.safe_load(capsys.readouterr().out)
        del parsed["query"], document["query"]
        assert parsed == document


def test_torn_and_foreign_lines_are_reported_and_skipped(
    log: Path, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    [file] = log.iterdir()
    content = file.read_bytes()
    file.write_bytes(b'{"a": 1}\nx\n' + content[:-20])
    document = ask(log)
    assert [problem["line"] for problem in document["problems"]] == [1, 2, 9]
    assert len(document["records"]) == 6
    assert main(["audit", str(log)]) == 0
    assert f"skipped: {file}:9: the last line is incomplete" in capsys.readouterr().err


def test_missing_records_are_reported_and_open_assignments_are_doubtful(tmp_path: Path, ask: Ask) -> None:
    write_log(tmp_path / "log", [seen(use("a-1", "web-0", 1, SERIAL))])
    write_log(tmp_path / "log", [(9, RecordType.STARTED, {"kernel": "6.1.0", "root": "/"})], first=5)
    document = ask(tmp_path / "log", "--device", "FT4Q1A2B")
    [loss] = document["losses"]
    assert (loss["records"], loss["deleted"]) == (3, True)
    assert document["assignments"][0]["state"] == "unknown"


def test_second_log_of_a_node_is_not_taken_for_the_first(
    tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The disk of the node was replaced, and its records are in one stream.
    first = write_log(tmp_path / "first", [seen(use("a-1", "web-0", 1, SERIAL)), seen(use("a-2", "web-1", 2, GPU))])
    second = write_log(tmp_path / "second", [seen(use("b-1", "web-2", 9, SERIAL))])
    content = first.read_bytes() + first.read_bytes() + second.read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    document = ask("-", "--device", "FT4Q1A2B")
    assert [(use["pod"], use["state"]) for use in document["assignments"]] == [("web-0", "unknown"), ("web-2", "open")]
    [loss] = document["losses"]
    assert loss["records"] == 0


def test_log_that_is_passed_twice_is_answered_once(log: Path, ask: Ask) -> None:
    assert list_pods(ask(log, log, "--device", "FT4Q1A2B")) == ["measurement-7", "measurement-8"]


def test_device_without_an_assignment_is_known(tmp_path: Path, ask: Ask) -> None:
    entry = {
        "resource": "nvidia.com/gpu",
        "healthy": True,
        "reason": "",
        "probe": "",
        "isReplacement": False,
        "hardware": GPU.as_json(),
    }
    write_log(tmp_path / "log", [(0, RecordType.DEVICES_ADDED, {"devices": [entry]})])
    assert ask(tmp_path / "log", "--device", "0000:3b:00.0")["assignments"] == []


def test_assignment_that_is_not_repeated_after_a_gap_ended_in_it(tmp_path: Path, ask: Ask) -> None:
    kept, gone = use("a-1", "web-0", 1, SERIAL), use("a-2", "web-1", 1, GPU)
    gap: Fields = {"lost": 7, "lostFrom": format_time(START + 120)}
    entries: list[Entry] = [
        seen(gone),
        seen(kept),
        (5, RecordType.GAP, gap),
        (5, RecordType.ASSIGNED, {"isContinued": True, "assignment": kept.as_json()}),
        (6, RecordType.STOPPED, {"seenAt": None}),
    ]
    write_log(tmp_path / "log", entries)
    [assignment] = ask(tmp_path / "log", "--pod", "lab/web-1")["assignments"]
    assert (assignment["endReason"], assignment["endedBy"]) == ("recordsLost", "2026-11-27T17:05:00.000Z")
    assert ask(tmp_path / "log", "--pod", "lab/web-0")["assignments"][0]["state"] == "open"


def test_logs_of_several_nodes_are_read_from_one_directory_or_from_stdin(
    tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_log(tmp_path / "node-1", [seen(use("a-1", "web-0", 1, SERIAL))], "node-1")
    second = write_log(tmp_path / "node-2", [seen(use("b-1", "web-1", 2, SERIAL))], "node-2")
    found = [("node-1", "web-0"), ("node-2", "web-1")]

    def list_nodes(document: dict[str, Any]) -> list[tuple[str, str]]:
        return [(assignment["node"], assignment["pod"]) for assignment in document["assignments"]]

    assert list_nodes(ask(tmp_path, "--device", "FT4Q1A2B")) == found
    assert list_nodes(ask(second, first, "--device", "FT4Q1A2B")) == found
    stream = io.TextIOWrapper(io.BytesIO(second.read_bytes() + first.read_bytes()))
    monkeypatch.setattr("sys.stdin", stream)
    assert list_nodes(ask("-", "--device", "FT4Q1A2B")) == found


def test_directory_of_the_agent_is_the_default(
    log: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["audit"])
    assert caught.value.code == 2
    assert "PATH is required, because GENPLUG_AUDIT_DIR is not set" in capsys.readouterr().err
    monkeypatch.setenv("GENPLUG_AUDIT_DIR", str(log))
    assert len(ask()["records"]) == 7


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_path_without_a_log_is_a_runtime_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["audit", str(tmp_path / name), "--pod", "a/b"]) == 1
    assert str(tmp_path / name) in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--pod", "web-0"], ["--from", "yesterday"], ["--since", "2"], ["--since", "2h", "--from", "2026-11-27"]],
)
def test_wrong_argument_is_a_usage_error(log: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["audit", str(log), *arguments])
    assert caught.value.code == 2


def test_types_of_the_option_are_those_of_records() -> None:
    assert list(audit.TYPES) == [type_.value for type_ in RecordType]
