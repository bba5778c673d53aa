"""The read pool with real worker processes that answer, hang, die and end."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from genplug.health.probes import file
from genplug.health.workers.kept_batch import KeptBatch
from genplug.health.workers.protocol import PoolRequest, ProbeResponse
from genplug.health.workers.read_pool import ReadPool
from genplug.spec.limits import MAX_HUNG_WORKERS, MAX_HUNG_WORKERS_PER_RESOURCE
from genplug.spec.policy import Policy
from genplug.spec.read_rules import parse_read_rules
from genplug.testing.node.hanging_files import HangingFiles
from genplug.testing.node.held_files import hold_file
from tests.support.workers import AMPLE, SHORT, open_pool, read, text, wait_until_awaited

TIMED_OUT = ProbeResponse(error="timed out after 0.2 s")
STILL_HUNG = ProbeResponse(error="still hung from a previous run; not run again until that returns")
CRASHED = ProbeResponse(error="the probe worker crashed")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "c", "held"):
        (tmp_path / name).write_text(f"{name}\n")
    return tmp_path


async def test_responses_have_the_order_of_the_requests(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, _):
        responses = await pool.run([read("/b"), read("/a"), read("/missing"), read("/c")])
        assert responses == [text("/b", "b"), text("/a", "a"), ProbeResponse((("/missing", ()),)), text("/c", "c")]
        assert repr(pool) == "<ReadPool [workers: 1 idle, 0 working, 0 hung]>"
        (root / "a").write_text("A")
        assert await pool.run([read("/a")]) == [text("/a", "A")]
        assert pool.status.workers == 1


async def test_hung_read_fails_alone_and_is_not_run_again_until_it_returns(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, changes):
        with hold_file(root / "held") as held:
            responses = await pool.run([read("/a"), read("/held", SHORT), read("/b")])
            assert responses == [text("/a", "a"), TIMED_OUT, text("/b", "b")]
            assert repr(pool) == "<ReadPool [workers: 1 idle, 0 working, 1 hung]>"
            assert await pool.run([read("/held", SHORT), read("/a")]) == [STILL_HUNG, text("/a", "a")]
            assert repr(pool) == "<ReadPool [workers: 1 idle, 0 working, 1 hung]>"
            held.release()
            await changes.wait_for(lambda status: status.hung == 0)
            assert await pool.run([read("/held")]) == [text("/held", "held")]


async def test_working_worker_is_counted_until_its_batch_ends(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, _):
        with hold_file(root / "held") as held:
            running = asyncio.ensure_future(pool.run([read("/held")]))
            await wait_until_awaited(held)
            assert repr(pool) == "<ReadPool [workers: 0 idle, 1 working, 0 hung]>"
            held.release()
            assert await running == [text("/held", "held")]
        assert repr(pool) == "<ReadPool [workers: 1 idle, 0 working, 0 hung]>"


@pytest.mark.fuse
async def test_hung_file_system_costs_one_worker_and_recovers(root: Path) -> None:
    with HangingFiles(root / "fuse", {"state": "ok\n", "other": "ok\n"}) as files:
        async with open_pool(ReadPool, root) as (pool, changes):
            requests = [read("/fuse/state", SHORT), read("/fuse/other")]
            assert await pool.run(requests) == [text("/fuse/state", "ok"), text("/fuse/other", "ok")]
            files.hang("state")
            for _ in range(3):
                responses = await pool.run(requests)
                assert responses[0].error
                assert responses[1] == text("/fuse/other", "ok")
            assert pool.status.hung == 1
            files.release("state")
            await changes.wait_for(lambda status: status.hung == 0)
            assert await pool.run(requests[:1]) == [text("/fuse/state", "ok")]


async def test_pool_with_all_workers_hung_is_exhausted_until_a_read_returns(root: Path) -> None:
    for number in range(MAX_HUNG_WORKERS):
        (root / f"held{number}").touch()
    async with open_pool(ReadPool, root) as (pool, changes):
        with ExitStack() as stack:
            held = [stack.enter_context(hold_file(root / f"held{number}")) for number in range(MAX_HUNG_WORKERS)]
            responses = await pool.run(
                [read(f"/held{number}", 0.05, resource=f"a.io/{number}") for number in range(MAX_HUNG_WORKERS)]
            )
            assert {response.error for response in responses} == {"timed out after 0.05 s"}
            assert pool.status.is_exhausted
            assert len(pool.processes) == MAX_HUNG_WORKERS
            (response,) = await pool.run([read("/a")])
            assert response.error == "8 reads of other files hang; not run until one of them returns"
            assert len(pool.processes) == MAX_HUNG_WORKERS
            held[3].release()
            await changes.wait_for(lambda status: status.hung == MAX_HUNG_WORKERS - 1)
            assert not pool.status.is_exhausted
            assert await pool.run([read("/a")]) == [text("/a", "a")]


async def test_worker_that_dies_fails_only_the_request_that_it_ran(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, _):
        with hold_file(root / "held") as held:
            running = asyncio.ensure_future(pool.run([read("/a"), read("/held"), read("/b")]))
            await wait_until_awaited(held)
            os.kill(pool.processes[0], signal.SIGKILL)
            assert await running == [text("/a", "a"), CRASHED, text("/b", "b")]
        assert (pool.status.hung, pool.status.failed_starts) == (0, 0)


async def test_cancelled_batch_leaves_no_worker_that_counts_as_working(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, _):
        with hold_file(root / "held") as held:
            running = asyncio.ensure_future(pool.run([read("/held")]))
            await wait_until_awaited(held)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert repr(pool) == "<ReadPool [workers: 0 idle, 0 working, 0 hung]>"
            # Two workers may work at the same time, and both can.
            first, second = await asyncio.gather(pool.run([read("/a")]), pool.run([read("/b")]))
            assert (first, second) == ([text("/a", "a")], [text("/b", "b")])


async def test_closing_does_not_wait_for_hung_workers(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, _):
        with hold_file(root / "held"):
            await pool.run([read("/held", SHORT), read("/a")])
            processes = pool.processes
            assert len(processes) == 2
            pool.close()
            # They are children of this process, and remain until they are waited for.
            for process in processes:
                assert await asyncio.to_thread(os.waitpid, process, 0)


async def test_only_regular_files_are_read(root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "directory").mkdir()
    (root / "link").symlink_to("/a")
    async with open_pool(ReadPool, root) as (pool, _):
        responses = await pool.run([read(path, AMPLE) for path in ("/pipe", "/directory", "/link", "/a/below")])
        assert responses == [
            ProbeResponse((("/pipe", (("/pipe", -1),)),)),
            ProbeResponse((("/directory", (("/directory", -1),)),)),
            text("/link", "a"),
            ProbeResponse((("/a/below", ()),)),
        ]


async def test_worker_contains_neither_grpc_nor_an_event_loop(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, _):
        await pool.run([read("/a")])
        maps = await asyncio.to_thread(Path(f"/proc/{pool.processes[0]}/maps").read_text)
        assert "cygrpc" not in maps
        assert "_asyncio" not in maps


async def test_slow_read_delays_neither_later_reads_nor_its_own_response(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, _):
        with hold_file(root / "held") as held:
            delivered: asyncio.Queue[tuple[int, ProbeResponse]] = asyncio.Queue()

            def deliver(responses: Mapping[int, ProbeResponse]) -> None:
                for item in responses.items():
                    delivered.put_nowait(item)

            requests = [read("/held", resource="a.io/slow"), read("/a", resource="a.io/other")]
            running = asyncio.ensure_future(pool.run_each(requests, deliver))
            async with asyncio.timeout(AMPLE):
                assert await delivered.get() == (1, text("/a", "a"))
                assert not running.done()
                assert await pool.run([read("/b", resource="a.io/other")]) == [text("/b", "b")]
                held.release()
                assert await delivered.get() == (0, text("/held", "held"))
                await running
        assert pool.status.hung == 0
        assert await pool.run([read("/held")]) == [text("/held", "held")]


async def test_hung_reads_of_a_resource_leave_places_for_others(root: Path) -> None:
    count = MAX_HUNG_WORKERS_PER_RESOURCE + 2
    for number in range(count):
        (root / f"held{number}").touch()
    async with open_pool(ReadPool, root) as (pool, changes):
        with ExitStack() as stack:
            held = [stack.enter_context(hold_file(root / f"held{number}")) for number in range(count)]
            responses = await pool.run([read(f"/held{number}", SHORT, "a.io/hung") for number in range(count)])
            errors = [response.error for response in responses]
            assert errors[:-2] == ["timed out after 0.2 s"] * MAX_HUNG_WORKERS_PER_RESOURCE
            assert errors[-2:] == ["not run: 4 other slow reads of a.io/hung use all places of a resource"] * 2
            assert not pool.status.is_exhausted
            (response,) = await pool.run([read("/a", resource="a.io/hung")])
            assert response.error == errors[-1]
            assert await pool.run([read("/a", resource="a.io/other")]) == [text("/a", "a")]
            for file in held:
                file.release()
            await changes.wait_for(lambda status: status.hung == 0)
            assert await pool.run([read("/a", resource="a.io/hung")]) == [text("/a", "a")]


class KeptRuns:
    """Runs of the same requests as a batch that a worker keeps, and the last response to each request."""

    def __init__(self, pool: ReadPool, requests: Sequence[PoolRequest]) -> None:
        self._pool, self._requests = pool, requests
        self.batch = KeptBatch(1)
        self.responses: dict[int, ProbeResponse] = {}
        self.delivered: list[int] = []
        self.confirmed: list[int] = []
        self.has_delivered = asyncio.Event()

    async def run(self) -> list[ProbeResponse]:
        self.delivered, self.confirmed = [], []
        self.has_delivered.clear()
        await self._pool.run_kept(self.batch, self._requests, self._deliver, self.confirmed.extend)
        assert sorted([*self.delivered, *self.confirmed]) == list(range(len(self._requests)))
        return [self.responses[index] for index in range(len(self._requests))]

    def _deliver(self, responses: Mapping[int, ProbeResponse]) -> None:
        self.responses |= responses
        self.delivered.extend(responses)
        if responses:
            self.has_delivered.set()


async def test_worker_reports_only_changed_responses_of_a_batch_that_it_keeps(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, _):
        runs = KeptRuns(pool, [read("/a"), read("/missing"), read("/b")])
        responses = [text("/a", "a"), ProbeResponse((("/missing", ()),)), text("/b", "b")]
        assert await runs.run() == responses
        assert runs.delivered == [0, 1, 2]
        assert await runs.run() == responses
        assert runs.delivered == []
        (root / "b").write_text("B")
        (root / "missing").write_text("here")
        assert await runs.run() == [text("/a", "a"), text("/missing", "here"), text("/b", "B")]
        assert (runs.delivered, runs.confirmed) == ([1, 2], [0])


async def test_batch_contains_reads_of_resources_in_turns(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, _):
        requests = [*(read("/a", resource="a.io/many") for _ in range(3)), read("/b", resource="a.io/few")]
        runs = KeptRuns(pool, requests)
        await runs.run()
        assert runs.batch.order == [0, 3, 1, 2]
        (root / "b").write_text("B")
        assert await runs.run() == [*[text("/a", "a")] * 3, text("/b", "B")]
        assert (runs.delivered, sorted(runs.confirmed)) == ([3], [0, 1, 2])


async def test_worker_reports_a_new_error_of_a_batch_that_it_keeps(root: Path) -> None:
    denied = PoolRequest(file.KIND.restrict(("file", "", "/c"), Policy("p", read=parse_read_rules(("/a",)))), AMPLE)
    async with open_pool(ReadPool, root) as (pool, _):
        runs = KeptRuns(pool, [read("/a"), denied])
        (_, refused) = await runs.run()
        assert refused.error
        assert (await runs.run())[1] == refused
        assert runs.delivered == []


async def test_hung_read_of_a_kept_batch_fails_alone(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, changes):
        runs = KeptRuns(pool, [read("/a"), read("/held", SHORT), read("/b")])
        responses = [text("/a", "a"), text("/held", "held"), text("/b", "b")]
        await runs.run()
        with hold_file(root / "held") as held:
            assert await runs.run() == [responses[0], TIMED_OUT, responses[2]]
            assert await runs.run() == [responses[0], STILL_HUNG, responses[2]]
            assert runs.batch.holder is None
            held.release()
            await changes.wait_for(lambda status: status.hung == 0)
        # The worker reported the same text before the read hung: it must report the text again.
        assert await runs.run() == responses
        assert await runs.run() == responses
        assert runs.delivered == []


async def test_slow_read_of_a_kept_batch_is_delivered_without_a_change(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, _):
        runs = KeptRuns(pool, [read("/a"), read("/held")])
        await runs.run()
        with hold_file(root / "held") as held:
            running = asyncio.ensure_future(runs.run())
            await wait_until_awaited(held)
            # The response of the other request shows that the pool has noticed the slow request.
            async with asyncio.timeout(AMPLE):
                await runs.has_delivered.wait()
            assert runs.delivered == [0]
            held.release()
            assert await running == [text("/a", "a"), text("/held", "held")]


async def test_worker_that_replaces_a_dead_worker_gets_the_requests_of_a_batch(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, _):
        runs = KeptRuns(pool, [read("/a"), read("/held")])
        await runs.run()
        with hold_file(root / "held") as held:
            running = asyncio.ensure_future(runs.run())
            await wait_until_awaited(held)
            os.kill(pool.processes[0], signal.SIGKILL)
            assert await running == [text("/a", "a"), CRASHED]
        assert await runs.run() == [text("/a", "a"), text("/held", "held")]


async def test_another_worker_runs_a_batch_while_its_worker_is_busy(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, _):
        runs = KeptRuns(pool, [read("/a"), read("/b")])
        await runs.run()
        with hold_file(root / "held") as held:
            running = asyncio.ensure_future(pool.run([read("/held")]))
            await wait_until_awaited(held)
            assert await runs.run() == [text("/a", "a"), text("/b", "b")]
            assert runs.delivered == [0, 1]
            held.release()
            await running
        # Both workers are idle now, and the batch is run by the worker that ran it last.
        await runs.run()
        assert runs.delivered == []


async def test_batch_with_changed_requests_replaces_the_previous_batch(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, _):
        first = KeptRuns(pool, [read("/a"), read("/b")])
        await first.run()
        second = KeptRuns(pool, [read("/b"), read("/c")])
        assert await second.run() == [text("/b", "b"), text("/c", "c")]
        assert second.delivered == [0, 1]
        await second.run()
        assert second.delivered == []


async def test_reads_of_resources_take_turns(root: Path) -> None:
    async with open_pool(ReadPool, root) as (pool, _):
        delivered: list[int] = []
        requests = [read("/a", resource="a.io/many")] * 900 + [read("/b", resource="a.io/few")]
        await pool.run_each(requests, delivered.extend)
        assert sorted(delivered) == list(range(901))
        assert delivered.index(900) <= pool.batch_size
