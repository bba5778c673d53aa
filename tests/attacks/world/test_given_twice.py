"""No history of hardware, pods, reloads and restarts gives a device node to two containers.

The kubelet's device manager chooses devices from the list that it read last, and the agent answers with the offers of
its newest scan. Resources that share on purpose (``replicas`` and ``overlap``) are exempt, within their own limits.
"""

import contextlib
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from msgspec.structs import replace

from genplug.allocation.alias_pool import Pool, record_allocation, record_usage, without_held
from genplug.allocation.errors import AllocationError
from genplug.allocation.offer import ResourceOffer, build_offer
from genplug.allocation.resource_state import ResourceState
from genplug.config.load import load_text
from genplug.hardware.discovery import build_inventory, scan_resource
from genplug.hardware.inventory import Inventory
from genplug.hardware.ledger import AllocatedGrants, Ledger
from genplug.health.presence import evaluate_health
from genplug.health.verdict import HealthSnapshot
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.spec.model import Config
from genplug.spec.policy import Policy
from genplug.testing.kubelet.device_manager import DeviceManager, DeviceManagerError, Request
from genplug.testing.kubelet.records import Allocation, ListedDevice
from tests.support.configs import CONFIG_HEADER
from tests.support.hardware import NodeTree, open_tree

PLAIN, OLD, LATE, SHARED, FIRST, SECOND = (f"a.example/{name}" for name in ("x", "old", "y", "r", "o", "p"))
NAMES = (PLAIN, OLD, LATE, SHARED, FIRST, SECOND)
END_SHARE = 0.5
REPLUG_SHARE = 0.7
SEEDS, STEPS = 40, 60
LINES = (
    f"  {PLAIN}: {{aliases: [{OLD}], devices: [{{glob: '/dev/x*'}}]}}\n",
    f"  {LATE}: {{devices: [{{glob: '/dev/by/*'}}, {{glob: '/dev/x[12]'}}]}}\n",
    f"  {SHARED}: {{replicas: 2, devices: [{{glob: '/dev/r*'}}]}}\n",
    f"  {FIRST}: {{devices: [{{glob: '/dev/o*'}}], share: {{overlap: true}}}}\n",
    f"  {SECOND}: {{devices: [{{glob: '/dev/o*'}}, {{glob: '/dev/by/o*'}}], share: {{overlap: true}}}}\n",
)
CONFIGS = [
    load_text(f"{CONFIG_HEADER}resources:\n{''.join(lines)}", "c.yaml", Policy())
    for lines in (LINES, LINES[::-1], LINES[1:], (LINES[0], *LINES[2:]))
]
NODES = ("/dev/x0", "/dev/x1", "/dev/x2", "/dev/r0", "/dev/o0")
LINKS = ("/dev/by/a", "/dev/by/b", "/dev/by/o")
GRACE_SECONDS = 60.0
POOL_GRACE_SECONDS = 30.0
LIST_SECONDS = 1.0
"""Seconds within which the kubelet reads a list."""
PAUSES = (None, None, 0.01, 2.0, 2.0, 70.0)
"""Seconds after a change until it is scanned; None if it is not scanned before the next step."""


class Node:
    """A node with files in a directory, an agent without sockets, and the device manager of a kubelet."""

    def __init__(self) -> None:
        self._closing = contextlib.ExitStack()
        self.tree = self._closing.enter_context(open_tree(NodeTree))
        self.now = 1000.0
        self.config: Config = CONFIGS[0]
        self.manager = DeviceManager()
        self.pods = self.given = 0
        self.numbers: dict[tuple[str, str, str], frozenset[str]] = {}
        """The device nodes (numbers) that each container has got."""
        self.unknown: set[tuple[str, str, str]] = set()
        """The containers of which the agent cannot know the devices since its restart."""
        self.minors = iter(range(1, 10**6))
        self._forget()

    def close(self) -> None:
        self._closing.close()

    def _forget(self) -> None:
        self.ledger = Ledger()
        self.inventory: Inventory | None = None
        self.health: HealthSnapshot | None = None
        self.pools: dict[str, Pool] = {}
        self.offers: dict[str, ResourceOffer] = {}

    # Hardware

    def begin(self) -> None:
        for path in NODES:
            self.tree.plug(path, f"240:{next(self.minors)}")
        self.tree.link("/dev/by/a", "../x0")
        self.report()
        self.read_lists()

    def replug(self, path: str, pause: float | None, *, is_new: bool) -> None:
        """Unplug a device, or plug in another."""
        if self.tree.at(path).exists():
            self.tree.unplug(path)
        if is_new:
            self.tree.plug(path, f"240:{next(self.minors)}")
        self.scan(pause)

    def swap(self, first: str, second: str, pause: float | None) -> None:
        """Give two device nodes the names of each other, as udev can at the next boot of a bus."""
        one, other = self.tree.at(first), self.tree.at(second)
        if first != second and one.exists() and other.exists():
            one_text, other_text = one.read_text(), other.read_text()
            one.write_text(other_text)
            other.write_text(one_text)
        self.scan(pause)

    def link(self, link: str, to: str, pause: float | None) -> None:
        """Create, move or remove a link."""
        self.tree.at(link).unlink(missing_ok=True)
        if to:
            self.tree.link(link, to)
        self.scan(pause)

    # The agent

    def reload(self, config: Config, pause: float) -> None:
        self.config = config
        self.ledger = self.ledger.after_reload(self.now)
        self.pools = {name: pool for name, pool in self.pools.items() if name in config.resources}
        self.scan(LIST_SECONDS)
        self.scan(pause)

    def agent_restarts(self, config: Config, *, swaps: bool) -> None:
        """Restart the agent, possibly with another configuration and other hardware; the kubelet reports then."""
        if swaps:
            self.swap("/dev/x0", "/dev/x1", None)
        self._forget()
        self.config = config
        self.scan(0.0)
        self.report()
        found = {
            (name, device.id): frozenset(node.info.describe_numbers() for node in device.nodes)
            for name, devices in (self.inventory.devices if self.inventory else {}).items()
            for device in devices
        }
        for key, allocation in self.manager.allocations.items():
            configured = PLAIN if allocation.resource == OLD else allocation.resource
            ids = [device_id.partition("-r")[0] for device_id in allocation.ids]
            if any(not self.numbers[key] <= found.get((configured, device_id), frozenset()) for device_id in ids):
                self.unknown.add(key)

    def scan(self, pause: float | None) -> None:
        """Scan, decide and offer."""
        if pause is None:
            return
        self.now += pause
        host = self.tree.host.cached()
        scans = {name: scan_resource(resource, host) for name, resource in self.config.resources.items()}
        self.inventory, self.ledger = build_inventory(self.config, scans, self.inventory, self.ledger, self.now)
        grace = dict.fromkeys(self.config.resources, GRACE_SECONDS)
        self.health = evaluate_health(self.inventory, self.health, grace, self.now)
        self._offer()
        if pause >= LIST_SECONDS:
            self.read_lists()

    def _offer(self) -> None:
        assert self.health is not None
        self.offers = {}
        for name, resource in self.health.resources.items():
            for offered in (name, *resource.aliases):
                spec = resource if offered == name else replace(resource, name=offered, aliases=())
                offer = build_offer(spec, self.health.devices[name])
                self.offers[offered] = without_held(offer, self.pools.get(name)) if resource.aliases else offer

    # The kubelet

    def read_lists(self) -> None:
        """Read the newest lists as the kubelet, which otherwise chooses from older lists."""
        for name in self.manager.resources:
            if name not in self.offers:
                self.manager.disconnect(name, self.now)
        for name, offer in self.offers.items():
            self.manager.connect(name)
            self.manager.set_list(name, [(device.id, ListedDevice(device.healthy)) for device in offer.listed])

    def kubelet_restarts(self) -> None:
        """Restart the kubelet, which keeps its allocations and reads the lists again."""
        allocations = list(self.manager.allocations.values())
        self.manager = DeviceManager()
        self.manager.restore({allocation.resource for allocation in allocations}, allocations, self.now)
        self.read_lists()

    def start_pods(self, choice: Random) -> None:
        """Start a pod with each resource, in any order."""
        for name in choice.sample(NAMES, len(NAMES)):
            self._start_pod(name, choice)

    def _start_pod(self, name: str, choice: Random) -> None:
        self.pods += 1
        request = Request(f"pod{self.pods}", "main", name, 1, None)
        try:
            ids = choice.sample(self.manager.list_available(request), 1)
        except DeviceManagerError:
            return
        if name not in self.offers:
            return
        try:
            edits = ResourceState(self.offers[name], self.tree.host).allocate(ids)
        except AllocationError:
            return
        self.manager.add_allocation(Allocation(*request.key, tuple(ids), ((),), pb.ContainerAllocateResponse()))
        self.numbers[request.key] = frozenset(self.tree.at(node.host_path).read_text() for node in edits.nodes)
        assert self.numbers[request.key]
        self.given += 1
        self.ledger = self.ledger.with_allocations([AllocatedGrants(name, ids, self.now)])
        if name in {PLAIN, OLD} and PLAIN in self.pools:
            self.pools[PLAIN] = record_allocation(self.pools[PLAIN], name, ids, self.now)
            self._offer()

    def end_pods(self, choice: Random) -> None:
        """End about half of the pods."""
        for key in sorted(self.manager.allocations):
            if choice.random() < END_SHARE:
                self.manager.release(key[0])
                del self.numbers[key]
                self.unknown.discard(key)

    def report(self) -> None:
        """Report to the agent which devices pods use."""
        used: dict[str, set[str]] = {}
        for allocation in self.manager.allocations.values():
            used.setdefault(allocation.resource, set()).update(allocation.ids)
        self.ledger = self.ledger.with_report(used, self.now)
        if PLAIN in self.config.resources:
            pool = self.pools.get(PLAIN, {})
            self.pools[PLAIN] = record_usage(pool, (PLAIN, OLD), used, self.now, POOL_GRACE_SECONDS, 1)
        self.scan(LIST_SECONDS)

    def check_devices(self) -> None:
        holders: dict[str, list[str]] = {}
        for key, numbers in self.numbers.items():
            if key not in self.unknown:
                for number in numbers:
                    holders.setdefault(number, []).append(self.manager.allocations[key].resource)
        for number, names in holders.items():
            counts = Counter(names)
            assert counts[SHARED] <= 2, f"{number.strip()} is given {counts[SHARED]} times by replicas of 2"
            is_shared = counts.keys() <= {FIRST, SECOND} and max(counts.values()) == 1
            is_replica = counts.keys() == {SHARED}
            assert len(names) == 1 or is_shared or is_replica, f"{number.strip()} is given to {names}"


def play(seed: int) -> int:
    """Play a random history, and return the number of containers that got devices."""
    choice, node = Random(seed), Node()
    steps: tuple[Callable[[], object], ...] = (
        lambda: node.replug(choice.choice(NODES), choice.choice(PAUSES), is_new=choice.random() < REPLUG_SHARE),
        lambda: node.swap(choice.choice(NODES[:3]), choice.choice(NODES[:3]), choice.choice(PAUSES)),
        lambda: node.link(choice.choice(LINKS), choice.choice([*NODES, ""]), choice.choice(PAUSES)),
        lambda: node.reload(choice.choice(CONFIGS), choice.choice((LIST_SECONDS, GRACE_SECONDS + LIST_SECONDS))),
        lambda: node.agent_restarts(choice.choice(CONFIGS), swaps=choice.random() < END_SHARE),
        node.read_lists,
        node.kubelet_restarts,
        lambda: node.start_pods(choice),
        lambda: node.start_pods(choice),
        lambda: node.end_pods(choice),
        node.report,
    )
    with contextlib.closing(node):
        node.begin()
        for _ in range(STEPS):
            choice.choice(steps)()
            node.check_devices()
    return node.given


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS // 4))
def test_no_history_gives_a_device_to_two_containers(first: int) -> None:
    assert sum(map(play, range(first, first + SEEDS // 4))) > SEEDS
