"""Measures the time until the kubelet's list is the truth again, under flaps, reloads, restarts and losses at once.

``python -m benchmarks.convergence [ROUNDS]`` prints the median, the 95th percentile and the largest time. Each round
makes some changes in random order within a second. The time counts from the last change of the round.
"""

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from genplug.kubelet.plugin_dir import SOCKET_PREFIX
from genplug.testing.node.fake_node import FakeNode

ROUNDS = 60
MAX_CHANGES = 5
MAX_SECONDS = 30.0
SETTLED_SECONDS = 2.5
DEVICES = 8
_HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n"
_X, _Y = "example.com/x", "example.com/y"
_MS = 1000


class Round:
    """The changes of a node, and what its kubelet has to list."""

    def __init__(self, node: FakeNode, seed: int) -> None:
        self._node = node
        self._random = random.Random(seed)
        self._present = set(range(DEVICES))
        self._excluded = 0
        for number in self._present:
            node.plug(f"/dev/x{number}")
        node.plug("/dev/y0")

    @property
    def config(self) -> str:
        """The present configuration."""
        exclude = f"exclude: [/dev/x{self._excluded}]"
        return f"{_HEAD}  {_X}: {{devices: [{{glob: /dev/x*, {exclude}}}]}}\n  {_Y}: {{devices: [{{glob: /dev/y*}}]}}\n"

    def is_true(self) -> bool:
        """Return whether the kubelet lists the devices that are present and configured as healthy, and no others."""
        kubelet = self._node.kubelet
        expected = {f"x{number}" for number in self._present - {self._excluded}}
        return kubelet.devices(_X).healthy == expected and kubelet.devices(_Y).healthy == {"y0"}

    async def change(self) -> str:
        """Make a random change, and return its name."""
        changes: dict[str, Callable[[], Awaitable[None]]] = {
            "flap": self._flap,
            "reload": self._reload,
            "restart": self._node.kubelet.restart,
            "lost socket": self._lose_socket,
            "lost stream": self._lose_stream,
        }
        name = self._random.choices(list(changes), (8, 3, 1, 1, 1))[0]
        await changes[name]()
        return name

    def pause(self) -> float:
        """Return the seconds until the next change."""
        return self._random.uniform(0.0, 0.3)

    def number(self) -> int:
        """Return the number of changes of a round."""
        return self._random.randint(1, MAX_CHANGES)

    async def _flap(self) -> None:
        number = self._random.randrange(DEVICES)
        if number in self._present:
            self._node.unplug(f"/dev/x{number}")
        else:
            self._node.plug(f"/dev/x{number}")
        self._present ^= {number}

    async def _reload(self) -> None:
        self._excluded = (self._excluded + 1) % DEVICES
        self._node.write_config(self.config, how="rename")

    async def _lose_socket(self) -> None:
        for path in self._node.kubelet.plugins_dir.glob(f"{SOCKET_PREFIX}*"):
            path.unlink(missing_ok=True)

    async def _lose_stream(self) -> None:
        # No plugin is connected between a restart and the next registration.
        with suppress(LookupError):
            self._node.kubelet.cancel_stream(_X)


async def measure(rounds: int, seed: int = 1) -> tuple[list[float], dict[str, float]]:
    """Return the milliseconds of each round, and the largest time after each kind of change."""
    times: list[float] = []
    worst: dict[str, float] = {}
    async with FakeNode() as node:
        changes = Round(node, seed)
        async with node.run_agent(changes.config):
            await node.kubelet.wait_for(changes.is_true, timeout=MAX_SECONDS)
            for _ in range(rounds):
                name = ""
                for _ in range(changes.number()):
                    await asyncio.sleep(changes.pause())
                    name = await changes.change()
                last = time.monotonic()
                times.append(_MS * (await _wait_until_settled(node, changes) - last))
                worst[name] = max(worst.get(name, 0.0), times[-1])
    return times, worst


async def _wait_until_settled(node: FakeNode, changes: Round) -> float:
    """Return the time since which the list is the truth: a lost socket ends the stream only after some time."""
    while True:
        await node.kubelet.wait_for(changes.is_true, timeout=MAX_SECONDS)
        settled = time.monotonic()
        try:
            await node.kubelet.wait_for(lambda: not changes.is_true(), timeout=SETTLED_SECONDS)
        except TimeoutError:
            return settled


def main() -> None:
    """Print the figures."""
    times, worst = asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
    percentile = statistics.quantiles(times, n=20)[-1]
    print(f"median {statistics.median(times):.0f} ms, p95 {percentile:.0f} ms, most {max(times):.0f} ms")
    for name, milliseconds in sorted(worst.items()):
        print(f"most after {name}: {milliseconds:.0f} ms")


if __name__ == "__main__":
    main()
