"""``genplug status``, asked of an agent that runs."""

import argparse
import asyncio
import json
import socket
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from genplug.agent import Agent
from genplug.cli.main import main
from genplug.cli.status import configure
from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.outputs import check_output

CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x: {devices: [{glob: /dev/x*}]}
  a.io/none: {devices: [{glob: /dev/none*}]}
"""
LISTEN = ("127.0.0.1", 0)


async def status(agent: Agent, *arguments: str) -> int:
    """Run the command in a thread: the agent's loop must be free to answer."""
    return await asyncio.to_thread(main, ["status", "--address", f"127.0.0.1:{agent.listens_on}", *arguments])


async def registered(agent: Agent) -> None:
    """Wait until an agent that just began has told that the kubelet listens to both resources."""
    await next_event(record_events(agent), Event.REGISTERED, times=2)


@pytest.fixture
def plugged(node: FakeNode) -> FakeNode:
    node.plug("/dev/x0")
    node.plug("/dev/x1")
    return node


@pytest.fixture
def outer() -> str:
    """An address of this machine that is not loopback."""
    found = subprocess.run(["hostname", "-I"], check=True, capture_output=True, text=True).stdout.split()
    if not found:
        pytest.skip("this machine has no address but loopback")
    return f"[{found[0]}]" if ":" in found[0] else found[0]


async def test_a_ready_agent_tells_its_counts_and_why_one_is_zero(
    plugged: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN, node_name="node-7") as agent:
        await registered(agent)
        assert await status(agent) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" on node-7: ready")
    assert lines[1].startswith("configuration ")
    rows = {line.split()[0]: line.split() for line in lines[3:]}
    assert rows["RESOURCE"] == ["RESOURCE", "HEALTHY", "UNHEALTHY", "REGISTERED", "STREAMS", "REMARKS"]
    assert rows["a.io/x"] == ["a.io/x", "2", "0", "yes", "1"]
    assert rows["a.io/none"][:5] == ["a.io/none", "0", "0", "yes", "1"]
    assert "/dev/none*" in " ".join(rows["a.io/none"][5:])


async def test_in_brief_there_is_no_table(plugged: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await registered(agent)
        assert await status(agent, "--brief", "-o", "wide") == 0
    ready, configuration = capsys.readouterr().out.splitlines()
    assert ready.endswith(": ready")
    assert configuration.startswith("configuration ")


async def test_it_asks_where_the_environment_says_that_the_agent_listens(
    plugged: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with plugged.run_agent(CONFIG, listen=("", 0)) as agent:
        await registered(agent)
        for host in ("", "0.0.0.0", "[::]", "[::1]", "localhost"):
            monkeypatch.setenv("GENPLUG_LISTEN", f"{host}:{agent.listens_on}")
            assert await asyncio.to_thread(main, ["status"]) == 0


async def test_asked_by_an_address_that_is_not_loopback_it_says_which_is(
    plugged: FakeNode, outer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with plugged.run_agent(CONFIG, listen=("", 0)) as agent:
        await registered(agent)
        port = agent.listens_on
        assert await asyncio.to_thread(main, ["status", "--address", f"{outer}:{port}"]) == 1
    error = capsys.readouterr().err
    assert f"http://{outer}:{port}/statusz tells callers by the loopback address only" in error
    assert f"ask at 127.0.0.1:{port}" in error


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--address", "9808"], "'9808': write HOST:PORT"),
        (["--address", "node:99999"], "'node:99999': write HOST:PORT"),
        (["--timeout", "soon"], "'soon': write a length of time"),
        (["--timeout", "-1"], "'-1': write a length of time"),
    ],
)
def test_a_wrong_flag_is_told_with_a_right_one(wrong: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["status", *wrong])
    assert exit_.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("2", 2), ("0.5", 0.5), ("90s", 90), ("1m30s", 90), ("1h", 3600), ("250ms", 0.25)]
)
def test_lengths_of_time_are_written_as_for_kubectl(text: str, seconds: float) -> None:
    parser = argparse.ArgumentParser()
    configure(parser)
    assert parser.parse_args(["--timeout", text]).timeout == seconds
    assert parser.parse_args([]).timeout == 60


async def test_a_device_that_vanished_is_told_with_its_reason(
    plugged: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await registered(agent)
        plugged.unplug("/dev/x1")
        await plugged.kubelet.wait_for_list("a.io/x", healthy={"x0"}, unhealthy={"x1"})
        assert await status(agent, "-o", "wide", "a.io/x") == 0
    out = capsys.readouterr().out
    assert "a.io/none" not in out
    [device] = [line for line in out.splitlines() if line.startswith("x1")]
    assert device.split()[1] == "UNHEALTHY"
    assert device.endswith("/dev/x1 is gone")


async def test_an_agent_without_a_kubelet_is_not_ready_and_says_so(
    plugged: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await registered(agent)
        entries = record_events(agent)
        await plugged.kubelet.crash()
        await next_event(entries, Event.DISCONNECTED, times=2)
        assert await status(agent) == 4
        out = capsys.readouterr().out
        assert "NOT READY" in out.splitlines()[0]
        assert "a.io/x: not registered" in out


async def test_waiting_ends_with_the_time_given_or_when_the_kubelet_is_there(
    plugged: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await registered(agent)
        entries = record_events(agent)
        await plugged.kubelet.crash()
        await next_event(entries, Event.DISCONNECTED, times=2)
        assert await status(agent, "--wait", "--timeout", "100ms") == 4
        said = capsys.readouterr()
        assert said.err.count("waiting: ") == 1
        assert "a.io/x: not registered" in said.err
        await plugged.kubelet.start()
        assert await status(agent, "--wait") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(": ready")


async def test_a_refused_configuration_is_shown_and_leaves_it_ready(
    plugged: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await registered(agent)
        entries = record_events(agent)
        plugged.write_config(CONFIG.replace("glob: /dev/x*", "golb: /dev/x*"))
        await next_event(entries, Event.CONFIG_INVALID)
        assert await status(agent) == 0
    out = capsys.readouterr().out
    assert "the newest files were refused" in out
    assert "did you mean 'glob'?" in out


async def test_programs_read_json_or_yaml_or_names(plugged: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await registered(agent)
        assert await status(agent, "-o", "json") == 0
        answer = json.loads(capsys.readouterr().out)
        assert await status(agent, "-o", "yaml") == 0
        assert yaml.safe_load(capsys.readouterr().out) == answer
        assert await status(agent, "-o", "name") == 0
        assert capsys.readouterr().out.split() == ["a.io/x", "a.io/none"]
    check_output(answer)
    device = answer["resources"][0]["devices"][0]
    for time in (device.pop("since"), answer["config"]["loadedAt"]):
        assert timedelta() <= datetime.now(UTC) - datetime.fromisoformat(time) < timedelta(minutes=1)
    assert device == {"id": "x0", "paths": ["/dev/x0"], "healthy": True, "reason": "", "probe": ""}


async def test_a_resource_that_is_not_there_is_a_mistake_of_the_caller(
    plugged: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    async with plugged.run_agent(CONFIG, listen=LISTEN) as agent:
        await registered(agent)
        assert await status(agent, "a.io/y") == 2
    assert "no resource a.io/y; it has a.io/x, a.io/none" in capsys.readouterr().err


def test_without_an_agent_it_says_where_it_looked(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert main(["status", "--address", f":{port}"]) == 1
    error = capsys.readouterr().err
    assert f"http://127.0.0.1:{port}/statusz" in error
    assert "--listen" in error


async def test_something_else_that_answers_is_no_agent(capsys: pytest.CaptureFixture[str]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 404 Not Found\r\n\r\nnothing here")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await asyncio.to_thread(main, ["status", "--address", f"127.0.0.1:{port}"]) == 1
    assert "is no genplug: 404 nothing here" in capsys.readouterr().err
