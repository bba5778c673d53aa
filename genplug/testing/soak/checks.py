"""Compare the agent with the model: device lists of the kubelet, status, and results of Allocate."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final

from msgspec import Struct

from genplug.testing.soak.configuration import CONFIGURATION_VARIABLE
from genplug.testing.soak.machine import CallError, Machine, SoakError
from genplug.testing.soak.model import ExpectedList, World, expected_lists

_POLL_SECONDS: Final = 0.2
_MAX_SHOWN: Final = 12
_REQUEST_SECONDS: Final = 10
UNKNOWN_ID: Final = "soak-unknown"


class ListTimes(Struct):
    """When the lists of the kubelet had the right healthy devices, and what differed before (monotonic seconds).

    ``true_since`` has no value while a list differs. ``were_false`` states that a list differed. ``awaited`` are the
    differences that the last list removed.
    """

    true_since: float | None = None
    were_false: bool = False
    awaited: str = ""

    def record(self, differences: Collection[str], now: float) -> None:
        """Record the differences at a time."""
        if differences:
            self.true_since, self.were_false, self.awaited = None, True, "; ".join(differences)
        elif self.true_since is None:
            self.true_since = now


class Checker:
    """Checks a machine; ``counts`` are the checks that passed, by name. ``limit`` is in seconds."""

    def __init__(self, machine: Machine, limit: float) -> None:
        self.counts: Counter[str] = Counter()
        self._machine = machine
        self._kubelet = machine.node.kubelet
        self._limit = limit

    async def wait_for_lists(self, world: World, without: Collection[str] = (), limit: float = 0) -> None:
        """Wait until all device lists are as expected.

        The lists of the families ``without`` are not compared. ``limit`` replaces the limit of all checks.

        Raises:
            SoakError: a list is not as expected within the limit.
        """
        limit = limit or self._limit
        ignored = {family.resource for family in world.families if family.name in without}
        expected = {name: devices for name, devices in expected_lists(world).items() if name not in ignored}
        try:
            await self._kubelet.wait_for(lambda: not self._list_differences(expected), limit)
        except TimeoutError:
            found = self._list_differences(expected)
            raise SoakError(f"device lists of the kubelet after {limit:.0f} s: {'; '.join(found)}") from None
        self.counts["device lists"] += len(expected)

    def _list_differences(self, expected: Mapping[str, ExpectedList], *, healthy_only: bool = False) -> list[str]:
        found = []
        for resource, devices in expected.items():
            known = self._kubelet.devices(resource)
            if known.healthy != devices.healthy or (not healthy_only and known.unhealthy != devices.unhealthy):
                unhealthy = devices.unhealthy if healthy_only else known.unhealthy
                found.append(_describe(resource, devices, known.healthy, unhealthy))
        return found

    async def check_all(self, world: World, limit: float = 0) -> ListTimes | None:
        """Check the lists, the status and the allocations; return when the lists were true, None without a kubelet.

        The check is repeated until the limit, or ``limit`` seconds, because a busy machine delays the agent. Only an
        allocation with other device nodes is an error at once.

        Raises:
            SoakError: a check failed.
        """
        if not world.kubelet_runs:
            await self._check_until_passed(world, limit)
            return None
        times = ListTimes()
        observer = asyncio.create_task(self._observe_lists(expected_lists(world), times), name="device lists")
        try:
            await self._check_until_passed(world, limit)
        finally:
            observer.cancel()
            await asyncio.wait([observer])
        return times

    async def _observe_lists(self, expected: Mapping[str, ExpectedList], times: ListTimes) -> None:
        """Record each time at which the lists become true or false, until cancelled."""
        differences: list[str] = []

        def is_changed() -> bool:
            return self._list_differences(expected, healthy_only=True) != differences

        while True:
            differences = self._list_differences(expected, healthy_only=True)
            times.record(differences, time.monotonic())
            await self._kubelet.wait_for(is_changed, None)

    async def _check_until_passed(self, world: World, limit: float) -> None:
        deadline = time.monotonic() + (limit or self._limit)
        while True:
            if world.kubelet_runs:
                await self.wait_for_lists(world, limit=limit)
            self.raise_violations()
            problems = await self._check_status(world)
            if world.kubelet_runs and not problems:
                problems = await self._check_allocations(world)
            self.raise_violations()
            if not problems:
                return
            if time.monotonic() > deadline:
                raise SoakError("; ".join(problems[:_MAX_SHOWN]))
            await asyncio.sleep(_POLL_SECONDS)

    def raise_violations(self) -> None:
        """Raise an error if a call had a wrong result, the agent reported a defect, or it ended.

        Raises:
            SoakError: one of these happened.
        """
        if self._machine.violations:
            raise SoakError("; ".join(self._machine.violations[:_MAX_SHOWN]))
        if self._machine.log.defects:
            raise SoakError(f"the log of the agent has an internal error: {self._machine.log.defects[0]}")
        if self._machine.exit_code is not None:
            raise SoakError(f"the agent ended with exit code {self._machine.exit_code}")

    async def _check_status(self, world: World) -> list[str]:
        try:
            status = await asyncio.to_thread(_get_status, self._machine.port)
        except (OSError, ValueError) as error:
            return [f"status: {error}"]
        problems = []
        if status["failures"]:
            problems.append(f"status: failures: {status['failures']}")
        if bool(status["config"]["error"]) != bool(world.config_error):
            expected = f"an error ({world.config_error})" if world.config_error else "no error"
            problems.append(f"status: configuration: expected {expected}, found {status['config']['error']!r}")
        if world.kubelet_runs != status["ready"]:
            problems.append(f"status: expected ready {world.kubelet_runs}, found {status['unready'] or 'ready'}")
        lists = {resource["name"]: resource for resource in status["resources"] if not resource["removed"]}
        # Without a kubelet, a device that another resource had is withheld: a pod may use it.
        withheld = {f.resource for f in world.families if f.claims or any(o.claims == f.name for o in world.families)}
        for name, expected_list in expected_lists(world).items():
            if name in withheld and not world.kubelet_runs:
                continue
            devices = lists.get(name, {}).get("devices", [])
            healthy = frozenset(device["id"] for device in devices if device["healthy"])
            unhealthy = frozenset(device["id"] for device in devices if not device["healthy"])
            if (healthy, unhealthy) != (expected_list.healthy, expected_list.unhealthy):
                problems.append(f"status: {_describe(name, expected_list, healthy, unhealthy)}")
        self.counts["status documents"] += not problems
        return problems

    async def _check_allocations(self, world: World) -> list[str]:
        expected = expected_lists(world)
        calls = [
            self._check_id(world, family.resource, expected[family.resource], device_id)
            for family in world.families
            if world.configuration.has_resource(family)
            for device_id in sorted(expected[family.resource].devices.keys() | {UNKNOWN_ID})
        ]
        results = await asyncio.gather(*calls)
        owners: dict[str, str] = {}
        problems = []
        for resource, nodes, problem in results:
            problems += [problem] if problem else []
            for node in nodes:
                if owners.setdefault(node, resource) != resource:
                    raise SoakError(f"the device node {node} is given by {owners[node]} and by {resource}")
        self.counts["allocations"] += len(results) - len(problems)
        return problems

    async def _check_id(
        self, world: World, resource: str, expected: ExpectedList, device_id: str
    ) -> tuple[str, list[str], str]:
        """Return the resource, the device nodes that an ID gives, and why the result is not as expected."""
        try:
            container = await self._machine.allocate(resource, [device_id])
            nodes = self._machine.device_nodes(container)
        except CallError as error:
            if device_id in expected.healthy:
                return resource, [], f"Allocate of {resource} {device_id}: expected success, found: {error}"
            return resource, [], ""
        if device_id not in expected.healthy:
            return resource, nodes, f"Allocate of {resource} {device_id}: expected a refusal, found {nodes}"
        if nodes != [f"/dev/{expected.devices[device_id]}"]:
            raise SoakError(f"Allocate of {resource} {device_id}: found {nodes}")
        number = container.envs.get(CONFIGURATION_VARIABLE)
        if number != str(world.configuration.number):
            return resource, nodes, f"{resource}: expected configuration {world.configuration.number}, found {number}"
        return resource, nodes, ""


def _get_status(port: int) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}/statusz"
    with urllib.request.urlopen(url, timeout=_REQUEST_SECONDS) as response:
        document = json.loads(response.read())
    if not isinstance(document, dict):
        raise ValueError(f"expected an object from {url}")  # noqa: TRY004 - reported like other invalid documents
    return document


def _describe(name: str, expected: ExpectedList, healthy: frozenset[str], unhealthy: frozenset[str]) -> str:
    parts = [
        *_differences("healthy", expected.healthy, healthy),
        *_differences("unhealthy", expected.unhealthy, unhealthy),
    ]
    return f"{name}: {', '.join(parts)}"


def _differences(health: str, expected: frozenset[str], found: frozenset[str]) -> list[str]:
    missing, extra = sorted(expected - found), sorted(found - expected)
    parts = [f"{' '.join(missing[:_MAX_SHOWN])} must be listed as {health}"] if missing else []
    return parts + ([f"{' '.join(extra[:_MAX_SHOWN])} must not be listed as {health}"] if extra else [])
