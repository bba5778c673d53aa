"""Measures Dynamic Resource Allocation (DRA): memory, ResourceSlices, claims, and an API server that is away.

The stand-ins of the kubelet and of the API server run in this process, and the agent is a process of its own.
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import mean

from msgspec import Struct

from benchmarks.agent import SETTLED, Agent, Node, agent, node
from benchmarks.figures import Samples
from benchmarks.latency import add_percentiles
from benchmarks.load import time_in_process
from benchmarks.runs import Runs
from genplug.allocation.slices import DEVICES_PER_SLICE, pool_name
from genplug.testing.api_server import ApiRequest, ApiServerStandIn
from genplug.testing.dra import DraKubelet, DraRegistration, PodClaim
from tests.support.claims import DRIVER, allocate_device, build_claim, refer

_MS = 1000
_NODE = "node-1"
_LOOP_SECONDS = 0.01
"""The period of the loop of the kubelet that registers drivers, which is a second in a kubelet."""
_LONG = 180.0
_QUIET_SECONDS = 1.0
"""The time after a publication in which further requests would arrive."""
_PODS = 100
"""The claims that are prepared at the same time; a node has at most 110 pods by default."""
_BOOKMARK_SECONDS = 10.0
"""The time between two bookmarks of a watch; an API server sends one in a minute (k8s.io/apiserver, storage/cacher)."""
_RESTART_SECONDS = 7.0
"""The time between two restarts of the kubelet: a slice that is written ten times in a minute is written less often."""
_FLAPS = 100
_FLAP_SECONDS = 0.1
_AFTER_FLAPS_SECONDS = 12.0
"""The time after which a slice that was written often has its last state (``SLOW_WRITE_SECONDS``)."""
_WRITES = frozenset({"create", "update", "delete"})


class DraNode(Struct, frozen=True):
    """A node with the DRA half of a kubelet, and an API server. DRA serves the first ``served`` resources."""

    node: Node
    kubelet: DraKubelet
    server: ApiServerStandIn
    account: Path
    served: int

    @property
    def slices(self) -> int:
        """The number of slices of all devices."""
        return self.served * math.ceil(self.node.each / DEVICES_PER_SLICE)

    @asynccontextmanager
    async def start_agent(self) -> AsyncIterator[Agent]:
        """Run an agent with the account of a pod."""
        flags = ("--node-name", _NODE, "--service-account-dir", str(self.account))
        async with agent(self.node, *flags, environment=self.server.environment) as process:
            yield process

    @asynccontextmanager
    async def start_published(self) -> AsyncIterator[Agent]:
        """Run an agent; enter the context when all devices are published, and the changes that follow have ended."""
        first = len(self.server.requests)
        async with self.start_agent() as process:
            await self.wait_published(first)
            await self.wait_listed()
            await asyncio.sleep(SETTLED)
            yield process

    async def wait_registered(self, times: int = 1) -> DraRegistration:
        """Wait until the driver was registered a number of times; return the last registration."""
        return await self.kubelet.wait_registered(DRIVER, times, _LONG)

    async def wait_published(self, first: int) -> float:
        """Wait until the slices of all devices were created from request ``first`` on; return the monotonic time."""
        created = await self.wait_writes(first, "create", self.slices)
        devices = sum(len(document["spec"]["devices"]) for document in self.server.slices())
        if devices != self.served * self.node.each:
            raise RuntimeError(f"expected {self.served * self.node.each} devices in the slices, found {devices}")
        return created[-1].at

    async def wait_writes(self, first: int, verb: str, number: int = 1) -> tuple[ApiRequest, ...]:
        """Wait for a number of successful writes from request ``first`` on; return them."""
        await self.server.wait_for(lambda: len(self.find_writes(first, verb)) >= number, _LONG)
        return self.find_writes(first, verb)

    def find_writes(self, first: int, *verbs: str) -> tuple[ApiRequest, ...]:
        """Return the successful writes of the agent from request ``first`` on."""
        return tuple(
            request
            for request in self.server.requests[first:]
            if request.verb in verbs and request.resource == "resourceslices" and 200 <= request.code < 300
        )

    async def wait_taint(self, first: int, resource: int, number: int, *, present: bool) -> float:
        """Wait until a device has a taint, or has none; return the time of the update, from request ``first`` on."""
        updates: tuple[ApiRequest, ...] = ()
        while not updates or self.has_taint(resource, number) != present:
            updates = await self.wait_writes(first, "update", len(updates) + 1)
        return updates[-1].at

    def has_taint(self, resource: int, number: int) -> bool:
        """Return whether a device has a taint at the API server."""
        pool, name = pool_name(_NODE, self.node.resources[resource]), Path(self.node.device(resource, number)).name
        [device] = [
            device
            for document in self.server.slices()
            if document["spec"]["pool"]["name"] == pool
            for device in document["spec"]["devices"]
            if device["name"] == name
        ]
        return bool(device.get("taints"))

    async def wait_listed(self) -> None:
        """Wait for the complete lists of the resources that the device plugin API serves."""
        kubelet, resources = self.node.fake.kubelet, self.node.resources[self.served :]
        await kubelet.wait_for(
            lambda: all(len(kubelet.devices(resource)) == self.node.each for resource in resources), _LONG
        )

    def count_log_lines(self) -> int:
        """Return the number of lines in the log of the agents of this node."""
        return (self.node.fake.directory / "log").read_bytes().count(b"\n")


@asynccontextmanager
async def dra_node(resources: int = 10, each: int = 100, by_device_plugin: int = 0) -> AsyncIterator[DraNode]:
    """Make a node whose resources are served by DRA, the last ``by_device_plugin`` by the device plugin API."""
    async with node(resources, each) as made, ApiServerStandIn() as server:
        _configure(made, resources - by_device_plugin)
        server.add_node(_NODE)

        async def wipe(driver: str | None) -> None:
            server.wipe_slices(_NODE, driver or "")

        account = server.write_account(made.fake.directory / "account")
        async with DraKubelet(made.fake.kubelet_dir, loop_seconds=_LOOP_SECONDS, wipe=wipe) as kubelet:
            made.fake.kubelet.list_claims = lambda: kubelet.claim_uses
            yield DraNode(made, kubelet, server, account, resources - by_device_plugin)


def _configure(made: Node, served: int) -> None:
    lines = ["apiVersion: genplug.io/v1alpha1", "kind: DevicePluginConfig", "resources:"]
    for number, name in enumerate(made.resources):
        lines += [f"  {name}:", f"    devices: [{{glob: '/dev/acc{number}-*'}}]"]
        lines += ['    allocate: {env: {ACCELERATORS: "${path}"}}', "    health: {removalGracePeriodSeconds: 3600}"]
        if number < served:
            lines += ["    serve: dra", "    publish: {attributes: {model: accelerator}}"]
    made.fake.write_config("\n".join(lines) + "\n", how="configmap")


async def memory(runs: Runs) -> Samples:
    """10 resources with 1 000 devices: all of them served by DRA, and in turn by the device plugin API."""
    samples: dict[str, list[float]] = {}
    async with dra_node() as by_dra, node() as by_device_plugin:
        for _ in range(runs.footprints):
            async with agent(by_device_plugin) as process:
                await by_device_plugin.listed(process.started)
                await asyncio.sleep(runs.settle)
                without = process.footprint()
            await by_device_plugin.fake.kubelet.restart()
            async with by_dra.start_published() as process:
                await asyncio.sleep(runs.settle)
                held = process.footprint()
            by_dra.server.wipe_slices(_NODE)
            for name, value in held.items():
                samples.setdefault(f"DRA: {name}", []).append(value)
                samples.setdefault(f"DRA: {name} more than of the device plugin API", []).append(value - without[name])
    return samples


async def publish(runs: Runs) -> Samples:
    """From the registration of the driver to the last slice: 10 resources with 1 000 devices, and 10 000 devices."""
    samples: dict[str, list[float]] = {}
    async with dra_node() as made:
        for number in range(1, runs.starts + 1):
            first = len(made.server.requests)
            seconds = await _publish(made, number)
            found = {
                "DRA: registered to published, 10 resources, 1000 devices": _MS * seconds,
                "DRA: slices of 10 resources, 1000 devices": len(made.server.slices()),
                "DRA: requests of their publication": len(made.server.requests) - first,
            }
            for name, value in found.items():
                samples.setdefault(name, []).append(value)
            made.server.wipe_slices(_NODE)
    async with dra_node(1, 10_000) as made:
        for number in range(1, runs.large_starts + 1):
            seconds = await _publish(made, number)
            samples.setdefault("DRA: registered to published, 10000 devices", []).append(_MS * seconds)
            samples.setdefault("DRA: slices of 10000 devices", []).append(len(made.server.slices()))
            made.server.wipe_slices(_NODE)
    return samples


async def _publish(made: DraNode, number: int) -> float:
    """Run an agent until it has published; return the seconds from registration ``number`` to the last slice."""
    first = len(made.server.requests)
    async with made.start_agent():
        registration = await made.wait_registered(number)
        published = await made.wait_published(first)
        await asyncio.sleep(_QUIET_SECONDS)
    return published - registration.time


async def prepare(runs: Runs) -> Samples:
    """The claims of pods with one of 1 000 devices each, prepared one after the other, and unprepared."""
    samples: dict[str, list[float]] = {}
    async with dra_node(1, 1000) as made, made.start_published():
        for repeat in range(runs.repeats):
            prepared, unprepared = list[float](), list[float]()
            numbers = random.Random(repeat).sample(range(made.node.each), runs.claims)
            for start in range(0, len(numbers), _PODS):
                batch = numbers[start : start + _PODS]
                claims = [_allocate(made, repeat * made.node.each + number, number) for number in batch]
                prepared += [await _time(made.kubelet.prepare(f"pod-{claim.name}", claim)) for claim in claims]
                if not all(map(made.kubelet.cdi_devices, claims)):
                    raise RuntimeError("a claim has no CDI device")
                unprepared += [await _time(made.kubelet.unprepare(f"pod-{claim.name}")) for claim in claims]
            for name, seconds in (("prepare", prepared), ("unprepare", unprepared)):
                title = f"DRA: {name} a claim of 1 of 1000 devices"
                samples.setdefault(f"{title}, mean", []).append(_MS * mean(seconds))
                add_percentiles(samples, title, seconds)
    return samples


async def _time(call: Awaitable[None]) -> float:
    """Return the seconds of a call."""
    started = time.perf_counter()
    await call
    return time.perf_counter() - started


def _allocate(made: DraNode, number: int, device: int) -> PodClaim:
    """Write claim ``number`` with a device of the first resource to the API server; return it as a pod uses it."""
    name, pool = Path(made.node.device(0, device)).name, pool_name(_NODE, made.node.resources[0])
    document = made.server.put_claim(build_claim(refer(number), allocate_device(name, pool=pool)))
    return PodClaim(document["metadata"]["name"], document["metadata"]["uid"], drivers=(DRIVER,))


async def idle(runs: Runs) -> Samples:
    """Processor time of an idle agent whose watch gets bookmarks, over a minute: the devices are scanned once in it."""
    async with dra_node() as made, made.start_published() as process:
        await asyncio.sleep(runs.settle)
        return {"DRA: idle CPU": [await _measure_cpu(made, process, 3 * runs.idle) for _ in range(runs.footprints)]}


async def _measure_cpu(made: DraNode, process: Agent, seconds: float) -> float:
    """Return the processor time of an agent in percent of a core."""
    used, started = process.cpu_seconds(), time.monotonic()
    while (rest := started + seconds - time.monotonic()) > 0:
        await asyncio.sleep(min(rest, _BOOKMARK_SECONDS))
        made.server.send_bookmarks()
    return 100 * (process.cpu_seconds() - used) / (time.monotonic() - started)


async def away(runs: Runs) -> Samples:
    """The API server stops, and a device vanishes before it returns; the last of ten resources is not served by DRA."""
    samples: dict[str, list[float]] = {}
    async with dra_node(by_device_plugin=1) as made, made.start_published() as process:
        await asyncio.sleep(runs.settle)
        for number in range(runs.outages):
            before: dict[str, list[float]] = {}
            during: dict[str, list[float]] = {}
            add_percentiles(before, "Allocate", await time_in_process(made.node, runs.calls))
            await asyncio.sleep(SETTLED)
            await made.server.stop()
            lines = made.count_log_lines()
            cpu = await _measure_cpu(made, process, runs.outage)
            lines = made.count_log_lines() - lines
            add_percentiles(during, "Allocate", await time_in_process(made.node, runs.calls))
            made.node.fake.unplug(made.node.device(number, 0))
            await asyncio.sleep(SETTLED)
            first, returned = len(made.server.requests), time.monotonic()
            await made.server.start()
            published = await made.wait_taint(first, number, 0, present=True)
            found = {
                "DRA: Allocate by the device plugin API, p99": before["Allocate, p99"][0],
                "API server away: Allocate by the device plugin API, p99": during["Allocate, p99"][0],
                "API server away: Allocate, p99, over that before": during["Allocate, p99"][0]
                - before["Allocate, p99"][0],
                "API server away: idle CPU": cpu,
                "API server away: log lines": lines / max(runs.outage / 60, 1),
                "API server returned to published": _MS * (published - returned),
            }
            for name, value in found.items():
                samples.setdefault(name, []).append(value)
            await asyncio.sleep(SETTLED)
    return samples


async def changes(runs: Runs) -> Samples:
    """A device vanishes, and appears again as soon as it has a taint; then a device that does so 100 times."""
    gone, back, writes = list[float](), list[float](), list[float]()
    async with dra_node() as made, made.start_published():
        # Another slice in each turn: the times between writes of a slice have a lower limit.
        for turn in range(runs.changes):
            resource = turn % made.served
            for change, values, present in ((made.node.fake.unplug, gone, True), (made.node.fake.plug, back, False)):
                first, changed = len(made.server.requests), time.monotonic()
                change(made.node.device(resource, turn))
                values.append(_MS * (await made.wait_taint(first, resource, turn, present=present) - changed))
            await asyncio.sleep(SETTLED)
        for turn in range(runs.repeats):
            # The last devices of a resource are in another slice than the first.
            writes.append(await _flap(made, turn, made.node.each - 1))
    return {
        "DRA: node vanishes to taint": gone,
        "DRA: node appears to taint removed": back,
        "DRA: writes of 100 flaps in 10 s": writes,
    }


async def _flap(made: DraNode, resource: int, number: int) -> int:
    """Unplug and plug a device repeatedly; return the number of writes until its last state is published."""
    first, started, path = len(made.server.requests), time.monotonic(), made.node.device(resource, number)
    for half in range(2 * _FLAPS):
        (made.node.fake.plug if half % 2 else made.node.fake.unplug)(path)
        await asyncio.sleep(started + (half + 1) * _FLAP_SECONDS / 2 - time.monotonic())
    await asyncio.sleep(_AFTER_FLAPS_SECONDS)
    if made.has_taint(resource, number):
        raise RuntimeError(f"{path} has a taint {_AFTER_FLAPS_SECONDS:g} s after its last change")
    return len(made.find_writes(first, *_WRITES))


async def deletions(runs: Runs) -> Samples:
    """Another client deletes a slice; the kubelet starts again and deletes all slices, as kubelets do."""
    deleted, restarted = list[float](), list[float]()
    async with dra_node() as made, made.start_published() as process:
        names = [document["metadata"]["name"] for document in made.server.slices()]
        for name in names[: runs.losses]:
            first, started = len(made.server.requests), time.monotonic()
            made.server.delete_slice(name)
            [created] = await made.wait_writes(first, "create")
            deleted.append(_MS * (created.at - started))
            await asyncio.sleep(SETTLED)
        await asyncio.sleep(_RESTART_SECONDS)
        before: dict[str, float] = {}
        for number in range(runs.kubelet_restarts + 1):
            # The first restart imports modules and opens files that are kept.
            if number == 1:
                before = process.footprint()
            await made.kubelet.stop()
            first, started = len(made.server.requests), time.monotonic()
            await made.kubelet.start()
            restarted += [_MS * (await made.wait_published(first) - started)]
            await asyncio.sleep(max(started + _RESTART_SECONDS - time.monotonic(), 0.0))
        after = process.footprint()
    return {
        "DRA: slice deleted to created": deleted,
        "DRA: kubelet started to 20 slices created": restarted,
        **{
            f"DRA: 20 kubelet restarts: {name} gained": [after[name] - before[name]]
            for name in ("RSS", "anonymous memory")
        },
    }


async def restart(runs: Runs) -> Samples:
    """The agent ends and starts again: to the registration of the driver, and the writes that follow."""
    registered, writes = list[float](), list[float]()
    async with dra_node() as made:
        async with made.start_published():
            documents = made.server.slices()
        for number in range(runs.starts):
            first = len(made.server.requests)
            async with made.start_agent() as process:
                registration = await made.wait_registered(number + 2)
                await made.server.wait_for(lambda: bool(made.server.watches), _LONG)
                await asyncio.sleep(SETTLED)
            registered.append(_MS * (registration.time - process.started))
            writes.append(len(made.find_writes(first, *_WRITES)))
            if made.server.slices() != documents:
                raise RuntimeError("a slice has changed")
    return {"DRA: agent started to registered again": registered, "DRA: writes of a restart of the agent": writes}
