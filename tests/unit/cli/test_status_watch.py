"""``genplug status --watch``: on a terminal and in a pipe, with an agent that ends and returns."""

import asyncio
import fcntl
import json
import os
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct

from genplug.agent import Agent
from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.outputs import check_output
from tests.unit.cli.test_status import CONFIG, LISTEN, wait_registered

SECONDS = 20.0
SIZE = (30, 100)


def watch_command(address: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "genplug", "status", "--watch", "--interval", "100ms"]
    return [*command, "--address", address, *arguments]


def address_of(agent: Agent) -> str:
    return f"127.0.0.1:{agent.http_port}"


class Terminal(Struct):
    """A terminal in which the command runs."""

    descriptor: int
    process: asyncio.subprocess.Process
    text: str = ""

    async def read_until(self, pattern: str) -> str:
        """Read until the text since the last call matches a pattern; return that text."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(SECONDS):
            while (found := re.search(pattern, self.text, re.DOTALL)) is None:
                readable = loop.create_future()
                loop.add_reader(self.descriptor, readable.set_result, None)
                try:
                    await readable
                finally:
                    loop.remove_reader(self.descriptor)
                self.text += os.read(self.descriptor, 1 << 16).decode()
        text, self.text = self.text[: found.end()], self.text[found.end() :]
        return text

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)


@asynccontextmanager
async def open_terminal(address: str, *arguments: str) -> AsyncIterator[Terminal]:
    """Run the command in a terminal."""
    descriptor, other = os.openpty()
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        environment.pop(name, None)
    process = await asyncio.create_subprocess_exec(
        *watch_command(address, *arguments), stdin=other, stdout=other, stderr=other, env=environment
    )
    os.close(other)
    try:
        yield Terminal(descriptor, process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(descriptor)


@asynccontextmanager
async def open_pipe(address: str, *arguments: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamReader]]:
    """Run the command, yield its stdout and stderr, and end it by Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        *watch_command(address, *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield process.stdout, process.stderr
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), SECONDS) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def read_table(lines: asyncio.StreamReader) -> list[str]:
    """Return the lines of the next table, after the line with the time."""
    async with asyncio.timeout(SECONDS):
        first = (await lines.readline()).decode()
        assert re.fullmatch(r"--- \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n", first)
        table = []
        # Two paragraphs: the summary, and the table.
        for _ in range(2):
            while line := (await lines.readline()).decode().strip("\n"):
                table.append(line)
        return table


async def test_terminal_is_redrawn_for_a_change_and_restored_by_ctrl_c(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        async with open_terminal(address_of(agent), "x") as terminal:
            first = await terminal.read_until(r"a\.io/x +1 +0 .*\x1b\[J")
            assert first.startswith("\x1b[?1049h\x1b[?25l")
            assert "\x1b[2J" not in first
            node.unplug("/dev/x0")
            await terminal.read_until(r"a\.io/x +0 +\x1b\[31m1\x1b\[0m .*/dev/x0 is gone")
            terminal.process.send_signal(signal.SIGINT)
            last = await terminal.read_until(r"\x1b\[\?1049l.*a\.io/x +0 .*is gone[^\n]*\n")
            assert "\x1b[?25h" in last
            assert await asyncio.wait_for(terminal.process.wait(), SECONDS) == 0


async def test_screen_is_drawn_again_in_another_size(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        async with open_terminal(address_of(agent), "--interval", "1h") as terminal:
            await terminal.read_until(r"a\.io/none.*\x1b\[J")
            terminal.resize(5, 40)
            screen = await terminal.read_until(r"\x1b\[J")
            assert len(screen.splitlines()) == 5
            assert "more lines; the terminal is too small" in screen


async def test_terminal_is_restored_by_sigterm(node: FakeNode) -> None:
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        async with open_terminal(address_of(agent)) as terminal:
            await terminal.read_until(r"\x1b\[J")
            terminal.process.terminate()
            await terminal.read_until(r"\x1b\[\?1049l")
            assert await asyncio.wait_for(terminal.process.wait(), SECONDS) == 128 + signal.SIGTERM


async def test_header_states_that_the_agent_does_not_respond_until_it_returns(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with AsyncExitStack() as stack:
        async with node.run_agent(CONFIG, listen=LISTEN) as agent:
            await wait_registered(agent)
            port = agent.http_port
            assert port is not None
            terminal = await stack.enter_async_context(open_terminal(address_of(agent)))
            await terminal.read_until(r"updated at .*a\.io/x +1 ")
        away = await terminal.read_until(r"no response since \d\d:\d\d:\d\d.*a\.io/x +1 .*\x1b\[J")
        assert "The status below is that of" in " ".join(away.replace("\x1b[K", "").split())
        async with node.run_agent(CONFIG, listen=("127.0.0.1", port)):
            await terminal.read_until(r"updated at .*a\.io/x +1 ")


async def test_pipe_gets_a_table_for_each_change_and_no_other(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        async with open_pipe(address_of(agent), "x") as (out, _):
            table = await read_table(out)
            assert table[-1].split()[:5] == ["a.io/x", "1", "0", "0", "1"]
            node.plug("/dev/none0")
            await node.kubelet.wait_for_list("a.io/none", healthy={"none0"})
            node.unplug("/dev/x0")
            table = await read_table(out)
            assert any(line.split()[:5] == ["a.io/x", "0", "1", "0", "0"] for line in table)


async def test_json_is_one_document_per_line_and_change(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        async with open_pipe(address_of(agent), "-o", "json") as (out, _):
            first = json.loads(await asyncio.wait_for(out.readline(), SECONDS))
            check_output(first)
            entries = record_events(agent)
            node.plug("/dev/x1")
            await next_event(entries, Event.DEVICES_CHANGED)
            async with asyncio.timeout(SECONDS):
                while json.loads(await out.readline())["resources"][0]["healthy"] != 2:
                    pass


async def test_missing_agent_is_reported_once_and_requested_again(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        port = agent.http_port
        assert port is not None
    async with open_pipe(f"127.0.0.1:{port}") as (out, errors):
        error = (await asyncio.wait_for(errors.readline(), SECONDS)).decode()
        assert "no response from" in error
        assert "--watch continues to request the status" in error
        async with node.run_agent(CONFIG, listen=("127.0.0.1", port)):
            assert b"the agent responds again" in await asyncio.wait_for(errors.readline(), SECONDS)
            assert (await read_table(out))[0].startswith("genplug ")


async def test_watch_ends_when_the_reader_of_the_pipe_has_exited(node: FakeNode) -> None:
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        reader, writer = os.pipe()
        process = await asyncio.create_subprocess_exec(*watch_command(address_of(agent)), stdout=writer)
        os.close(writer)
        await asyncio.to_thread(os.read, reader, 10)
        os.close(reader)
        assert await asyncio.wait_for(process.wait(), SECONDS) == 0


async def test_unknown_resource_ends_the_watch(node: FakeNode) -> None:
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await wait_registered(agent)
        process = await asyncio.create_subprocess_exec(
            *watch_command(address_of(agent), "gpu"), stderr=asyncio.subprocess.PIPE
        )
        _, error = await asyncio.wait_for(process.communicate(), SECONDS)
        assert process.returncode == 2
        assert b"no resource has 'gpu' in its name" in error
