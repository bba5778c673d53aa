"""A model of a node, its kubelet and its agent, which checks that no hardware is given under two IDs.

A history is a sequence of random events: links appear, move and disappear, disks are unplugged and plugged in again
with other numbers, drivers are bound, the configuration changes, pods start and end, the kubelet reports, the agent
restarts.
After each event, the agent decides with :mod:`genplug.hardware.identities` and :mod:`genplug.health.presence`.
"""

from collections.abc import Iterator
from random import Random

from msgspec import Struct, field
from msgspec.structs import replace

from genplug.hardware.conflicts import resolve_conflicts
from genplug.hardware.device_ids import device_id
from genplug.hardware.inventory import Device, DeviceNode, Inventory, Kind, PathInfo, ResourceScan
from genplug.hardware.ledger import RELEASE_SECONDS, AllocatedGrants, Ledger
from genplug.health.presence import evaluate_health
from genplug.health.verdict import HealthSnapshot
from genplug.spec.location import SourceLocation
from genplug.spec.model import Resource

LOCATION = SourceLocation("devices.yaml", 1, 1)
RESOURCES = ("a.example/x", "b.example/y", "c.example/z")
LINKS = tuple(f"/dev/disk/by-id/{name}" for name in "abcdef")
NODES = tuple(f"/dev/sd{letter}" for letter in "abc")
FUNCTIONS = tuple(f"/sys/devices/0000:00:0{number}.0" for number in (1, 2))
GRACE_SECONDS = 60.0
MISSING_SCANS = 0.3
"""How often scans are missing in a mixed history, and which part of them is."""


class Thing(Struct, frozen=True):
    """A disk by its numbers, or a PCI function by its directory. A disk with other numbers is another thing."""

    name: object


class Pod(Struct, frozen=True):
    """A pod that uses a device: what it was given, and whether the agent can know that after its last restart."""

    resource: str
    id: str
    things: frozenset[Thing]
    is_known: bool = True


class Node(Struct):
    """The state of the model. ``resources`` maps a resource to the prefixes of the paths that it selects."""

    random: Random
    now: float = 1000.0
    disks: dict[str, int] = {}
    """The minor number behind each node in /dev."""
    links: dict[str, str] = {}
    functions: dict[str, str | None] = {}
    """The driver of each PCI function."""
    resources: dict[str, tuple[str, ...]] = {}
    grouped: frozenset[str] = frozenset()
    """Resources whose disks are one device by number (groupBy), named after the lowest letter."""
    pods: list[Pod] = []
    ledger: Ledger = field(default_factory=Ledger)
    inventory: Inventory | None = None
    health: HealthSnapshot | None = None
    offered: dict[tuple[str, str], frozenset[Thing]] = {}
    """The healthy devices of the newest list, with what they lead to."""

    scans: dict[str, ResourceScan] = {}
    """The previous scans: unchanged devices are the identical objects, as in an agent."""
    is_mixed: bool = False
    """Whether resources overlap or are pools, and scans are missing; then hardware may be given twice."""

    error: str = ""
    """Why the last step was wrong, empty if it was not."""
    difference: str = ""
    """The scan whose assignment differs from that of an agent that examines all devices, empty if there is none."""

    def step(self) -> str:
        """Apply a random event; return its name."""
        event, before = self.random.choice(EVENTS), self.offered
        self.now += self.random.choice((0.01, 0.2, 1.0, 20.0, 70.0))
        getattr(self, event)()
        self.scan()
        self.error = self._find_error()
        if event != "restart" and not self.error:
            self.error = self._find_moved_id(before)
        is_settled = self.ledger.usage is not None and event not in {"reload", "report", "restart"}
        if is_settled and not self.error:
            self.error = self._find_changed_id(before)
        return event

    def plug(self) -> None:
        """Plug a disk in, with numbers that no disk has at the moment."""
        if free := [path for path in NODES if path not in self.disks]:
            minors = set(range(5)) - set(self.disks.values())
            self.disks[self.random.choice(free)] = self.random.choice(sorted(minors))

    def unplug(self) -> None:
        if self.disks:
            path = self.random.choice(sorted(self.disks))
            del self.disks[path]
            self.links = {link: target for link, target in self.links.items() if target != path}

    def replug(self) -> None:
        """Plug a disk out and in between two scans."""
        self.unplug()
        self.plug()

    def link(self) -> None:
        """Create a link, or point it at another disk."""
        if self.disks:
            self.links[self.random.choice(LINKS)] = self.random.choice(sorted(self.disks))

    def unlink(self) -> None:
        if self.links:
            del self.links[self.random.choice(sorted(self.links))]

    def rename_link(self) -> None:
        if self.links:
            target = self.links.pop(self.random.choice(sorted(self.links)))
            self.links[self.random.choice(LINKS)] = target

    def swap_links(self) -> None:
        if len(self.links) > 1:
            first, second = self.random.sample(sorted(self.links), 2)
            self.links[first], self.links[second] = self.links[second], self.links[first]

    def bind(self) -> None:
        """Bind a function to a driver; with ``vfio`` it has a device node."""
        self.functions[self.random.choice(FUNCTIONS)] = self.random.choice(("net", "vfio", None))

    def reload(self) -> None:
        """Change what the resources select, and their order."""
        names = self.random.sample(RESOURCES, self.random.randint(1, len(RESOURCES)))
        self.resources = {
            name: tuple(self.random.sample(("/dev/disk", "/dev/sd", "net", "vfio"), self.random.randint(1, 3)))
            for name in names
        }
        self.grouped = frozenset(name for name in names if self.random.random() < 0.2)
        self.ledger = self.ledger.after_reload(self.now)
        if self.is_mixed and self.random.random() < 0.5:
            self.scans = {}

    def start_pod(self) -> None:
        """Allocate a device that the kubelet has in its list and that no pod has."""
        used = {(pod.resource, pod.id) for pod in self.pods}
        if free := sorted(self.offered.keys() - used):
            resource, id_ = self.random.choice(free)
            self.pods.append(Pod(resource, id_, self.offered[resource, id_]))
            self.ledger = self.ledger.with_allocations([AllocatedGrants(resource, [id_], self.now)])

    def end_pod(self) -> None:
        if self.pods:
            self.pods.pop(self.random.randrange(len(self.pods)))

    def report(self) -> None:
        """Answer a request for the IDs in use. A pod in admission is missing from it at times."""
        used: dict[str, set[str]] = {}
        for pod in self.pods:
            allocated = (self.ledger.usage.allocations if self.ledger.usage else {}).get((pod.resource, pod.id))
            if allocated is None or self.now > allocated + 10 or self.random.random() < 0.5:
                used.setdefault(pod.resource, set()).add(pod.id)
        self.ledger = self.ledger.with_report(used, self.now)

    def restart(self) -> None:
        """Restart the agent: it forgets everything."""
        self.ledger, self.inventory, self.health, self.offered = Ledger(), None, None, {}

    def scan(self) -> None:
        """Scan, decide and send the list."""
        scans: dict[str, ResourceScan] = {}
        devices = list(self.find_devices())
        for name in self.resources:
            own = sorted((device for device, _ in devices if device.resource == name), key=lambda device: device.key)
            scans[name] = self._keep_unchanged(name, own)
        self.scans = scans
        resources = {name: scan.resource for name, scan in scans.items()}
        if self.is_mixed and self.random.random() < MISSING_SCANS:
            scans = {name: scan for name, scan in scans.items() if self.random.random() < MISSING_SCANS}
        resolution = resolve_conflicts(resources, scans, self.ledger, self.now)
        full = resolve_conflicts(resources, scans, replace(self.ledger, assigned=None), self.now)
        if resolution != full:
            self.difference = self.difference or f"{resolution} instead of {full}"
        self.ledger = resolution.ledger
        self.inventory = Inventory(resolution.devices, (), (), frozenset(), resources=resources, scans=scans)
        grace = dict.fromkeys(RESOURCES, GRACE_SECONDS)
        self.health = evaluate_health(self.inventory, self.health, grace, self.now)
        things = {(device.resource, device.id): found for device, found in devices}
        if self.ledger.usage is None:
            # After a restart, the agent only knows of pods whose IDs lead to their things until its first report. If
            # the IDs of two pods lead to a thing, it does not know which of the pods has it.
            leading = [thing for pod in self.pods for thing in things.get((pod.resource, pod.id), frozenset())]
            self.pods = [
                replace(
                    pod,
                    is_known=pod.is_known
                    and things.get((pod.resource, pod.id)) == pod.things
                    and all(leading.count(thing) == 1 for thing in pod.things),
                )
                for pod in self.pods
            ]
        self.offered = {
            (name, entry.device.id): things[name, entry.device.id]
            for name, entries in self.health.devices.items()
            for entry in entries
            if entry.verdict.healthy
        }

    def _keep_unchanged(self, name: str, devices: list[Device]) -> ResourceScan:
        """Return the scan of a resource with the devices of the previous scan that have not changed."""
        previous = self.scans.get(name)
        if previous is None:
            resource = Resource(name, LOCATION, ())
            if self.is_mixed:
                resource = replace(resource, overlap=self.random.random() < 0.5, tokens=self.random.choice((None, 4)))
            return ResourceScan(resource, tuple(devices), (), (), {}, ())
        known = {device.id: device for device in previous.devices}
        kept = tuple(known[device.id] if known.get(device.id) == device else device for device in devices)
        return previous if kept == previous.devices else replace(previous, devices=kept)

    @property
    def existing(self) -> frozenset[Thing]:
        """The things that exist at the moment."""
        return frozenset(Thing(minor) for minor in self.disks.values()) | frozenset(map(Thing, self.functions))

    def _find_changed_id(self, before: dict[tuple[str, str], frozenset[Thing]]) -> str:
        """Return which device lost its ID although its key leads to what it led to before, or an empty string."""
        found = {(device.resource, device.id): things for device, things in self.find_devices()}
        used = {(pod.resource, pod.id) for pod in self.pods}
        # A free device gives way to an ID of the same hardware that a pod has had since before the restart.
        returned = {thing for owner, things in found.items() if owner in used for thing in things}
        lost = [
            owner
            for owner, things in before.items()
            if owner not in self.offered and found.get(owner) == things and (owner in used or not things & returned)
        ]
        return f"{lost} were offered, and their keys lead to the same hardware" if lost else ""

    def _find_moved_id(self, before: dict[tuple[str, str], frozenset[Thing]]) -> str:
        """Return which ID in use leads to other hardware although the first is still found, or an empty string."""
        used = {(pod.resource, pod.id) for pod in self.pods}
        found = [((device.resource, device.id), things) for device, things in self.find_devices()]
        for owner in used & before.keys() & self.offered.keys():
            if before[owner].isdisjoint(self.offered[owner]):
                others = {thing for other, things in found if other != owner for thing in things}
                if before[owner] & others:
                    return f"{owner} led to {before[owner]}, and leads to {self.offered[owner]}"
        return ""

    def _find_error(self) -> str:
        """Return what is given twice, or an empty string."""
        listed = [
            (name, entry.device.id)
            for name, entries in (self.health.devices if self.health else {}).items()
            for entry in entries
        ]
        if len(listed) != len(set(listed)):
            return f"an ID is listed twice: {listed}"
        for thing in self.existing:
            users = {owner for owner, things in self.offered.items() if thing in things}
            users |= {(pod.resource, pod.id) for pod in self.pods if pod.is_known and thing in pod.things}
            if len(users) > 1:
                return f"{thing} is given as {sorted(users)}"
        return ""

    def find_devices(self) -> Iterator[tuple[Device, frozenset[Thing]]]:
        """Yield the devices that a scan finds, before conflicts, with what they lead to."""
        for name, prefixes in self.resources.items():
            paths = {**{path: path for path in self.disks}, **self.links}
            selected = {path: node for path, node in paths.items() if path.startswith(prefixes)}
            if name in self.grouped and selected:
                minors = {self.disks[node]: path for path, node in sorted(selected.items(), reverse=True)}
                yield self._build(name, "group", {path: minor for minor, path in minors.items()})
            else:
                for path, node in selected.items():
                    yield self._build(name, path.removeprefix("/dev/"), {path: self.disks[node]})
            for path, driver in self.functions.items():
                number = FUNCTIONS.index(path)
                if driver is not None and driver in prefixes:
                    numbers = {f"/dev/vfio/{number}": 100 + number} if driver == "vfio" else {}
                    device, _ = self._build(name, path, numbers, (path,))
                    yield device, frozenset({Thing(path)})

    def _build(
        self, name: str, key: str, minors: dict[str, int], identities: tuple[str, ...] = ()
    ) -> tuple[Device, frozenset[Thing]]:
        nodes = tuple(
            DeviceNode(path, path, "rw", PathInfo.of(path, Kind.BLOCK, 8, minor))
            for path, minor in sorted(minors.items())
        )
        device = Device(
            id=device_id(name, key, is_node_name=key in {path.removeprefix("/dev/") for path in minors}),
            key=key,
            resource=name,
            location=LOCATION,
            candidates=identities or tuple(sorted(minors)),
            nodes=nodes,
            companions=(),
            attributes={},
            identities=identities or tuple(node.info.numbers for node in nodes),
            is_via_link=any(path in self.links for path in minors),
        )
        return device, frozenset(map(Thing, minors.values()))


EVENTS = (
    *("plug", "plug", "unplug", "replug", "link", "link", "unlink", "rename_link", "swap_links", "bind"),
    *("reload", "start_pod", "start_pod", "start_pod", "end_pod", "report", "report", "report", "restart"),
)


def play_history(seed: int, steps: int = 60, *, is_mixed: bool = False) -> tuple[Node, list[str]]:
    """Play a random history; return the node at its end, and the events up to the first error, which is the last."""
    node, events = Node(Random(seed), is_mixed=is_mixed), []
    node.reload()
    for _ in range(steps):
        events.append(node.step())
        if node.difference or (node.error and not is_mixed):
            break
    return node, events


def settle(node: Node) -> None:
    """End all pods, and let the kubelet report until nothing depends on another report."""
    node.pods.clear()
    for _ in range(6):
        node.now += GRACE_SECONDS + RELEASE_SECONDS
        node.report()
        node.scan()
