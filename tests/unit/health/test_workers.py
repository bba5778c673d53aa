"""Workers: real processes that answer, hang, die and end."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from genplug.hardware.host import Host
from genplug.health.workers.pools import MAX_HUNG, CallPool, ReadPool, WorkerPool
from genplug.health.workers.protocol import ProbeResponse
from genplug.testing.node.hanging_files import HangingFiles

SOON = 0.2
"""Seconds after which a look hangs in these tests."""
AMPLE = 20.0


class Changes:
    """Hears when a crew's status changed."""

    def __init__(self) -> None:
        self.crew: WorkerPool | None = None
        self._news = asyncio.Event()

    def __call__(self) -> None:
        self._news.set()

    async def until_hung(self, number: int) -> None:
        async with asyncio.timeout(20):
            while self.crew is None or self.crew.status.hung != number:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def crew(kind: type[ReadPool] | type[CallPool], root: Path) -> AsyncIterator[tuple[WorkerPool, Changes]]:
    changes = Changes()
    changes.crew = one = kind(Host(root), changes)
    try:
        yield one, changes
    finally:
        one.close()


def text(path: str, content: str) -> ProbeResponse:
    return ProbeResponse(((path, ((path, content),)),))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(f"{name}\n")
    return tmp_path


async def test_answers_come_in_the_order_of_the_questions(root: Path) -> None:
    async with crew(ReadPool, root) as (readers, _):
        questions = [(("file", "", f"/{name}"), AMPLE) for name in ("b", "a", "nosuch", "c")]
        assert await readers.ask(questions) == [
            text("/b", "b"), text("/a", "a"), ProbeResponse((("/nosuch", ()),)), text("/c", "c"),
        ]  # fmt: skip
        assert (readers.status.workers, readers.status.hung) == (1, 0)
        (root / "a").write_text("A")
        assert await readers.ask([(("file", "", "/a"), AMPLE)]) == [text("/a", "A")]
        assert readers.status.workers == 1


async def test_a_read_that_hangs_is_an_error_of_its_own_and_is_not_begun_again(root: Path) -> None:
    os.mkfifo(root / "pipe")
    async with crew(ReadPool, root) as (readers, changes):
        hangs, sound = (("file", "", "/pipe"), SOON), (("file", "", "/a"), AMPLE)
        first = await readers.ask([sound, hangs, (("file", "", "/b"), AMPLE)])
        assert first == [text("/a", "a"), ProbeResponse(error="did not answer within 0.2 s"), text("/b", "b")]
        assert (readers.status.workers, readers.status.hung) == (2, 1)
        again = await readers.ask([hangs, sound])
        assert again == [ProbeResponse(error="does not answer, and is not asked again before it does"), text("/a", "a")]
        assert (readers.status.workers, readers.status.hung) == (2, 1)
        # Somebody writes at last: who hung on it is done, and it is asked again.
        writer = await asyncio.to_thread(os.open, root / "pipe", os.O_RDWR)
        os.write(writer, b"well\n")
        await changes.until_hung(0)
        os.write(writer, b"well\n")
        assert await readers.ask([(("file", "", "/pipe"), AMPLE)]) == [text("/pipe", "well")]
        os.close(writer)


@pytest.mark.fuse
async def test_a_file_system_that_hangs_costs_one_worker_and_heals(root: Path) -> None:
    with HangingFiles(root / "sick", {"state": "ok\n", "other": "ok\n"}) as files:
        async with crew(ReadPool, root) as (readers, changes):
            hangs, sound = (("file", "", "/sick/state"), SOON), (("file", "", "/sick/other"), AMPLE)
            assert await readers.ask([hangs, sound]) == [text("/sick/state", "ok"), text("/sick/other", "ok")]
            files.hang("state")
            for _ in range(3):
                replies = await readers.ask([hangs, sound])
                assert replies[0].error
                assert replies[1] == text("/sick/other", "ok")
            assert readers.status.hung == 1
            files.release("state")
            await changes.until_hung(0)
            assert await readers.ask([hangs]) == [text("/sick/state", "ok")]


async def test_when_as_many_hang_as_may_nobody_is_left_and_the_first_answer_ends_that(root: Path) -> None:
    for number in range(MAX_HUNG + 1):
        os.mkfifo(root / f"pipe{number}")
    async with crew(ReadPool, root) as (readers, changes):
        asked = [(("file", "", f"/pipe{number}"), 0.05) for number in range(MAX_HUNG)]
        assert {reply.error for reply in await readers.ask(asked)} == {"did not answer within 0.05 s"}
        assert readers.status.is_exhausted
        assert len(readers.processes) == MAX_HUNG
        (reply,) = await readers.ask([(("file", "", "/a"), AMPLE)])
        assert "nobody is left to look: 8 workers hang" in reply.error
        assert len(readers.processes) == MAX_HUNG
        writer = await asyncio.to_thread(os.open, root / "pipe3", os.O_RDWR)
        os.write(writer, b"x")
        await changes.until_hung(MAX_HUNG - 1)
        os.close(writer)
        assert not readers.status.is_exhausted
        assert await readers.ask([(("file", "", "/a"), AMPLE)]) == [text("/a", "a")]


async def test_a_worker_that_dies_costs_the_question_that_it_was_at(root: Path) -> None:
    os.mkfifo(root / "pipe")
    async with crew(ReadPool, root) as (readers, _):
        asking = asyncio.ensure_future(
            readers.ask([(("file", "", "/a"), AMPLE), (("file", "", "/pipe"), AMPLE), (("file", "", "/b"), AMPLE)])
        )
        # Once the pipe has a reader, that is the worker.
        writer = await asyncio.to_thread(os.open, root / "pipe", os.O_WRONLY)
        os.kill(readers.processes[0], signal.SIGKILL)
        assert await asking == [text("/a", "a"), ProbeResponse(error="the worker that looked died"), text("/b", "b")]
        os.close(writer)
        assert readers.status.hung == 0


async def test_to_end_does_not_wait_for_what_hangs(root: Path) -> None:
    os.mkfifo(root / "pipe")
    async with crew(ReadPool, root) as (readers, _):
        await readers.ask([(("file", "", "/pipe"), SOON), (("file", "", "/a"), AMPLE)])
        processes = readers.processes
        assert len(processes) == 2
    for process in processes:
        # They are this process's children, and gone as soon as they are waited for.
        assert await asyncio.to_thread(os.waitpid, process, 0)


async def test_no_worker_has_grpc_or_the_loop_in_it(root: Path) -> None:
    async with crew(ReadPool, root) as (readers, _):
        await readers.ask([(("file", "", "/a"), AMPLE)])
        maps = await asyncio.to_thread(Path(f"/proc/{readers.processes[0]}/maps").read_text)
        assert "cygrpc" not in maps
        assert "_asyncio" not in maps


async def test_calls_wait_side_by_side(root: Path) -> None:
    # Each waits for the other: one after the other they would never end.
    for name in ("one", "two"):
        os.mkfifo(root / name)
    scripts = ('echo here >"$1"; read line <"$2"', 'read line <"$1"; echo here >"$2"')
    async with crew(CallPool, root) as (callers, _):
        pipes = (str(root / "one"), str(root / "two"))
        questions = [(("exec", "/bin/sh", "-c", script, "sh", *pipes), AMPLE) for script in scripts]
        assert await callers.ask(questions) == [ProbeResponse((0, "")), ProbeResponse((0, ""))]
        assert callers.status.workers == 1


async def test_a_call_that_takes_too_long_is_an_error(root: Path) -> None:
    async with crew(CallPool, root) as (callers, _):
        (reply,) = await callers.ask([(("exec", "/bin/sh", "-c", "echo so far; sleep 60"), SOON)])
        assert reply.error == "/bin/sh took longer than 0.2 s: so far"
        assert callers.status.hung == 0


async def test_a_worker_of_calls_that_dies_is_replaced(root: Path) -> None:
    async with crew(CallPool, root) as (callers, _):
        (reply,) = await callers.ask([(("exec", "/bin/sh", "-c", "kill -9 $PPID; sleep 60"), AMPLE)])
        assert reply.error == "the worker that looked died"
        assert await callers.ask([(("exec", "/bin/true"), AMPLE)]) == [ProbeResponse((0, ""))]
