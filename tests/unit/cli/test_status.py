"""``genplug status``: it requests and prints the status of a running agent."""

import argparse
import asyncio
import json
import re
import socket
import sys
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from genplug import __version__
from genplug.agent import Agent
from genplug.cli.main import main
from genplug.cli.status import configure, find_names
from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import POLICY_HEADER
from tests.support.network import outside_addresses
from tests.support.outputs import check_output

CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x: {devices: [{glob: /dev/x*}]}
  a.io/none: {devices: [{glob: /dev/none*}]}
"""
LISTEN = ("127.0.0.1", 0)


async def run_status(agent: Agent, *arguments: str) -> int:
    """Run the command in a thread, because the event loop must be free to respond."""
    return await asyncio.to_thread(main, ["status", "--address", f"127.0.0.1:{agent.http_port}", *arguments])


async def wait_registered(agent: Agent) -> None:
    """Wait until a new agent has registered both resources."""
    await next_event(record_events(agent), Event.REGISTERED, times=2)


@pytest.fixture
def plugged(node: FakeNode) -> FakeNode:
    node.plug("/dev/x0")
    node.plug("/dev/x1")
    return node


async def test_ready_agent_is_shown_with_counts_and_the_reason_for_a_zero(
    plugged: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN, node_name="node-7") as agent:
        await wait_registered(agent)
        assert await run_status(agent) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" on node-7: ready")
    assert lines[1].startswith("configuration ")
    rows = {line.split()[0]: line.split() for line in lines[3:]}
    assert rows["RESOURCE"] == ["RESOURCE", "HEALTHY", "UNHEALTHY", "IN-USE", "FREE", "REMARKS"]
    assert rows["a.io/x"] == ["a.io/x", "2", "0", "0", "2"]
    assert rows["a.io/none"][:5] == ["a.io/none", "0", "0", "0", "0"]
    assert "/dev/none*" in " ".join(rows["a.io/none"][5:])


async def test_brief_prints_no_table(plugged: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        assert await run_status(agent, "--brief", "-o", "wide") == 0
    ready, configuration = capsys.readouterr().out.splitlines()
    assert ready.endswith(": ready")
    assert configuration.startswith("configuration ")


async def test_address_defaults_to_the_variable_of_the_agent(
    plugged: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with plugged.run_agent(CONFIG, listen=("", 0)) as agent:
        await wait_registered(agent)
        for host in ("", "0.0.0.0", "[::]", "localhost"):
            monkeypatch.setenv("GENPLUG_LISTEN", f"{host}:{agent.http_port}")
            assert await asyncio.to_thread(main, ["status"]) == 0


@pytest.mark.ipv6
async def test_address_can_be_an_ipv6_address(plugged: FakeNode) -> None:
    async with plugged.run_agent(CONFIG, listen=("::1", 0)) as agent:
        await wait_registered(agent)
        assert await asyncio.to_thread(main, ["status", "--address", f"[::1]:{agent.http_port}"]) == 0


@pytest.mark.network
async def test_address_outside_loopback_is_refused_with_the_address_to_use(
    plugged: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    address = outside_addresses()[0]
    async with plugged.run_agent(CONFIG, listen=("", 0)) as agent:
        await wait_registered(agent)
        port = agent.http_port
        assert await asyncio.to_thread(main, ["status", "--address", f"{address}:{port}"]) == 1
    error = capsys.readouterr().err
    assert f"http://{address}:{port}/statusz responds only to requests from the loopback address" in error
    assert f"--address 127.0.0.1:{port}" in error


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--address", "9808"], "expected HOST:PORT, for example 127.0.0.1:9808, found '9808'"),
        (["--address", "node:99999"], "expected HOST:PORT, for example 127.0.0.1:9808, found 'node:99999'"),
        (
            ["--address", "http://127.0.0.1:9808/statusz"],
            "expected HOST:PORT without scheme and path, found 'http://127.0.0.1:9808/statusz': write 127.0.0.1:9808",
        ),
        (["--timeout", "soon"], "expected a duration, for example 90s or 1m30s, found 'soon'"),
        (["--interval", "50ms"], "expected a duration of at least 100ms, found '50ms'"),
        (["--watch", "--wait"], "not allowed with argument"),
        (["--watch", "-o", "name"], "expected -o table, wide, json or yaml, found -o name"),
        (["--timeout", "-1"], "expected a duration, for example 90s or 1m30s, found '-1'"),
    ],
)
def test_invalid_option_is_a_usage_error_with_an_example(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["status", *arguments])
    assert exit_.value.code == 2
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("2", 2), ("0.5", 0.5), ("90s", 90), ("1m30s", 90), ("1h", 3600), ("250ms", 0.25)]
)
def test_durations_have_the_format_of_kubectl(text: str, seconds: float) -> None:
    parser = argparse.ArgumentParser()
    configure(parser)
    assert parser.parse_args(["--timeout", text]).timeout == seconds
    assert parser.parse_args([]).timeout == 60


async def test_unhealthy_device_is_shown_with_its_reason(plugged: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        plugged.unplug("/dev/x1")
        await plugged.kubelet.wait_for_list("a.io/x", healthy={"x0"}, unhealthy={"x1"})
        assert await run_status(agent, "-o", "wide", "a.io/x") == 0
    out = capsys.readouterr().out
    assert "a.io/none" not in out
    [device] = [line for line in out.splitlines() if line.startswith("x1")]
    assert device.split()[1] == "UNHEALTHY"
    assert device.endswith("/dev/x1 is gone")


async def test_agent_without_a_kubelet_is_not_ready(plugged: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        entries = record_events(agent)
        await plugged.kubelet.crash()
        await next_event(entries, Event.DISCONNECTED, times=2)
        assert await run_status(agent) == 4
        out = capsys.readouterr().out
        assert "NOT READY" in out.splitlines()[0]
        assert "a.io/x, a.io/none: not registered" in out


async def test_wait_ends_when_the_agent_is_ready_or_the_time_is_over(
    plugged: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        entries = record_events(agent)
        await plugged.kubelet.crash()
        await next_event(entries, Event.DISCONNECTED, times=2)
        assert await run_status(agent, "--wait", "--timeout", "100ms") == 4
        printed = capsys.readouterr()
        assert printed.err.count("waiting: ") == 1
        assert "a.io/x, a.io/none: not registered" in printed.err
        await plugged.kubelet.start()
        assert await run_status(agent, "--wait") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(": ready")


async def test_error_of_an_invalid_configuration_is_shown_while_the_agent_is_ready(
    plugged: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        entries = record_events(agent)
        plugged.write_config(CONFIG.replace("glob: /dev/x*", "golb: /dev/x*"))
        await next_event(entries, Event.CONFIG_INVALID)
        assert await run_status(agent) == 0
    out = capsys.readouterr().out
    assert "the newest files are invalid, so the configuration above remains active" in out
    assert "did you mean 'glob'?" in out


async def test_output_can_be_json_or_yaml_or_names(plugged: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        assert await run_status(agent, "-o", "json") == 0
        answer = json.loads(capsys.readouterr().out)
        assert await run_status(agent, "-o", "yaml") == 0
        assert yaml.safe_load(capsys.readouterr().out) == answer
        assert await run_status(agent, "-o", "name") == 0
        assert capsys.readouterr().out.split() == ["a.io/x", "a.io/none"]
    check_output(answer)
    device = answer["resources"][0]["devices"][0]
    for time in (device.pop("since"), answer["config"]["loadedAt"]):
        assert timedelta() <= datetime.now(UTC) - datetime.fromisoformat(time) < timedelta(minutes=1)
    assert device == {
        "id": "x0",
        "paths": ["/dev/x0"],
        "healthy": True,
        "reason": "",
        "probe": "",
        "numaNodes": [],
    }


async def test_unknown_resource_is_a_usage_error(plugged: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        assert await run_status(agent, "a.io/y") == 2
    error = capsys.readouterr().err
    assert "no resource has 'a.io/y' in its name; did you mean 'a.io/x'?; the agent has a.io/x, a.io/none" in error


@pytest.mark.parametrize(
    ("words", "selected"),
    [
        (["X"], ["a.io/x"]),
        (["none", "x"], ["a.io/x", "a.io/none"]),
        (["a.io"], ["a.io/x", "a.io/none"]),
        ([], ["a.io/x", "a.io/none"]),
    ],
)
async def test_word_selects_the_resources_whose_names_contain_it(
    words: list[str], selected: list[str], plugged: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        assert await run_status(agent, "-o", "name", *words) == 0
    assert capsys.readouterr().out.split() == selected


def test_exact_name_selects_only_that_resource() -> None:
    names = ["a.io/gpu", "a.io/gpu-shared", "b.io/GPU"]
    assert find_names("a.io/gpu", names) == ["a.io/gpu"]
    assert find_names("gpu", names) == names


async def test_word_with_a_typing_error_gets_a_suggestion(
    plugged: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        assert await run_status(agent, "x", "nnoe") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no resource has 'nnoe' in its name; did you mean 'none'?" in printed.err


async def test_last_change_of_the_list_names_the_devices(plugged: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        assert await run_status(agent, "x") == 0
        assert "changed" not in capsys.readouterr().out
        assert await run_status(agent, "x", "-o", "json") == 0
        change = json.loads(capsys.readouterr().out)["resources"][0]["lastChange"]
        assert change["message"] == "first list: 2 healthy, 0 unhealthy"
        plugged.unplug("/dev/x1")
        await plugged.kubelet.wait_for_list("a.io/x", healthy={"x0"}, unhealthy={"x1"})
        assert await run_status(agent, "x", "-o", "json") == 0
        change = json.loads(capsys.readouterr().out)["resources"][0]["lastChange"]
        assert change["message"] == "x1: unhealthy: /dev/x1 is gone"
        assert await run_status(agent, "x") == 0
        assert re.search(r"changed \d+s ago: x1: unhealthy$", capsys.readouterr().out, re.MULTILINE)
        plugged.plug("/dev/x1")
        plugged.plug("/dev/x2")
        await plugged.kubelet.wait_for_list("a.io/x", healthy={"x0", "x1", "x2"})
        assert await run_status(agent, "x") == 0
        assert re.search(r"changed \d+s ago: (x1: healthy again; )?x2: added", capsys.readouterr().out)


async def test_reason_of_a_listed_device_that_the_policy_refuses_is_shown_once(
    plugged: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = plugged.directory / "policy" / "policy.yaml"
    policy.parent.mkdir()
    policy.write_text(POLICY_HEADER)
    async with plugged.run_agent(CONFIG, policy=policy, listen=LISTEN) as agent:
        await wait_registered(agent)
        policy.write_text(POLICY_HEADER + "devices: {deny: [/dev/x1]}\n")
        await plugged.kubelet.wait_for_list("a.io/x", healthy={"x0"}, unhealthy={"x1"})
        assert await run_status(agent, "x", "-o", "wide") == 0
        table, devices = capsys.readouterr().out.split("DEVICE ")
    assert table.count("refused by 'devices.deny'") == 1
    assert devices.count("refused by 'devices.deny'") == 1


async def test_not_ready_is_red_with_color(plugged: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        assert await run_status(agent, "--color", "always") == 0
        assert "\x1b[" not in capsys.readouterr().out
        plugged.unplug("/dev/x1")
        await plugged.kubelet.wait_for_list("a.io/x", healthy={"x0"}, unhealthy={"x1"})
        assert await run_status(agent, "--color", "always", "x", "-o", "wide") == 0
        out = capsys.readouterr().out
        assert "\x1b[31mUNHEALTHY\x1b[0m" in out
        assert "\x1b[31m1\x1b[0m " in out


def test_missing_agent_is_an_error_with_the_address_and_advice(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert main(["status", "--address", f":{port}"]) == 1
    error = capsys.readouterr().err
    assert f"http://127.0.0.1:{port}/statusz" in error
    assert "--listen" in error


async def test_response_of_another_server_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 404 Not Found\r\n\r\nnothing here")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await asyncio.to_thread(main, ["status", "--address", f"127.0.0.1:{port}"]) == 1
    assert "which is not a genplug agent: 404 nothing here" in capsys.readouterr().err


@pytest.mark.parametrize("document", ['{"resources": [], "version": "9.0"}', '{"resources": 5, "version": "9.0"}'])
@pytest.mark.parametrize("arguments", [(), ("-o", "wide"), ("--wait", "--timeout=0"), ("--watch",), ("x",)])
async def test_status_of_another_version_is_an_error_with_both_versions(
    capsys: pytest.CaptureFixture[str], document: str, arguments: tuple[str, ...]
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.0 200 OK\r\n\r\n{document}".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        command = [sys.executable, "-m", "genplug", "status", "--address", f"127.0.0.1:{port}", *arguments]
        if "--watch" not in arguments:
            code = await asyncio.to_thread(main, command[3:])
            error = capsys.readouterr().err
        else:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
            assert process.stderr is not None
            error = (await asyncio.wait_for(process.stderr.readline(), 20)).decode()
            process.terminate()
            code = 1
            assert b"Traceback" not in (await process.communicate())[1]
    if arguments == ("x",) and document.startswith('{"resources": []'):
        # No document of any version has such a resource.
        assert code == 2
        return
    assert code == 1
    assert f"the agent has version 9.0, and this command has version {__version__}" in error


async def test_worker_that_cannot_be_started_is_shown_with_its_reason(
    node: FakeNode, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    node.plug("/dev/x0")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    probed = (
        "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"
        "  a.io/x: {devices: [{glob: /dev/x0}], health: {probes: [{file: {path: /sys/x0}}]}}\n"
    )
    async with node.run_agent(probed, listen=LISTEN) as agent:
        await next_event(record_events(agent), Event.REGISTERED)
        assert await run_status(agent) == 0
    reason = "No such file or directory: /nonexistent/python"
    # The worker is started before its first probe is due, and again for the probe.
    text = capsys.readouterr().out
    assert re.search(rf"probe workers cannot be started \(failed attempts: [1-9]\d*\): {reason}", text)
