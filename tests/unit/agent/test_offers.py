"""Offers of a snapshot: a change of a resource has no effect on the others."""

from pathlib import Path

from genplug.agent.offers import Offers
from genplug.agent.settings import Settings
from genplug.agent.snapshot import NodeScan, Snapshot
from genplug.hardware.host import Host
from genplug.hardware.hung_paths import HungPaths
from genplug.hardware.inventory import Device, Inventory
from genplug.health.presence import evaluate_health
from genplug.health.verdict import HealthSnapshot
from genplug.observe.events import EventLog, LogEvent
from genplug.spec.limits import MAX_GRANTS
from genplug.spec.model import Config, Resource
from tests.support.hardware import LOCATION
from tests.support.work import count_lines

CHANGED = "a.io/x0"


def make_devices(resource: int, count: int) -> tuple[Device, ...]:
    names = [f"x{resource}-{number}" for number in range(count)]
    return tuple(Device(name, name, f"a.io/x{resource}", LOCATION, (f"/dev/{name}",), (), (), {}) for name in names)


class Node:
    """A node with resources of three devices, and what the agent offers of them to no kubelet."""

    def __init__(self, root: Path, resources: int, replicas: int = 1) -> None:
        self.events: list[LogEvent] = []
        event_log = EventLog()
        event_log.listen(self.events.append)
        settings = Settings(config=(root,), root=root, kubelet_dir=root)
        self.offers = Offers(settings, Host.at(root), HungPaths(), event_log)
        names = [f"a.io/x{number}" for number in range(resources)]
        self._resources = {name: Resource(name, LOCATION, (), replicas=replicas) for name in names}
        self._devices = {name: make_devices(number, 3) for number, name in enumerate(self._resources)}
        self._health: HealthSnapshot | None = None

    def publish(self, changed: tuple[Device, ...]) -> None:
        """Publish a snapshot in which a resource has other devices."""
        self._devices = {**self._devices, CHANGED: changed}
        found = Inventory(self._devices, (), (), frozenset(), resources=self._resources)
        self._health = evaluate_health(found, self._health, {}, 1.0)
        self.offers.update(Snapshot(NodeScan(Config(self._resources, (), ""), found), self._health))


async def test_change_of_a_resource_leaves_the_offers_of_the_others(tmp_path: Path) -> None:
    node = Node(tmp_path, 20)
    node.publish(make_devices(0, 3))
    before = dict(node.offers.endpoints.offers)
    node.events.clear()
    node.publish(make_devices(0, 4))
    after = node.offers.endpoints.offers
    assert [name for name in before if after[name] is not before[name]] == [CHANGED]
    assert [event.facts["resource"] for event in node.events] == [CHANGED]


async def test_work_of_a_change_is_small_for_each_unchanged_resource(tmp_path: Path) -> None:
    def count(resources: int) -> int:
        node = Node(tmp_path, resources)
        node.publish(make_devices(0, 3))
        return count_lines(lambda: node.publish(make_devices(0, 4)))[0]

    assert count(301) - count(1) < 300 * 80


async def test_offer_is_made_again_when_another_resource_leaves_a_part_of_the_limit(tmp_path: Path) -> None:
    node = Node(tmp_path, 2, replicas=MAX_GRANTS // 5)
    node.publish(make_devices(0, 3))
    assert [offer.omitted for offer in node.offers.endpoints.offers.values()] == [1, 1]
    node.publish(make_devices(0, 1))
    assert [offer.omitted for offer in node.offers.endpoints.offers.values()] == [0, 0]
    node.publish(make_devices(0, 3))
    assert [offer.omitted for offer in node.offers.endpoints.offers.values()] == [1, 1]
