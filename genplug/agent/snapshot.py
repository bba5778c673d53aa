"""The values that the tasks of the agent exchange. Frozen, so that no task sees another's work half done."""

from msgspec import Struct

from genplug.hardware.inventory import Inventory
from genplug.health.verdict import HealthSnapshot
from genplug.spec.model import Config


class NodeScan(Struct, frozen=True):
    """The devices of a configuration. A resource whose first scan has not finished is left out."""

    config: Config
    inventory: Inventory

    @property
    def unscanned(self) -> tuple[str, ...]:
        """The configured names of the resources whose first scan has not finished."""
        return tuple(name for name in self.config.resources if name not in self.inventory.scans)

    def __repr__(self) -> str:
        parts = [f"{name}: {len(devices)} devices" for name, devices in self.inventory.devices.items()]
        parts += [f"{name}: not scanned" for name in self.unscanned]
        parts += [
            f"{stall.resource}: {stall.reason}; {'kept' if stall.is_known else 'left out'}: "
            f"{stall.candidate or 'all devices'}"
            for stall in self.inventory.stalls
        ]
        return f"<NodeScan {self.config.sha256[:12]} [{' | '.join(parts)}]>"


class Snapshot(Struct, frozen=True):
    """The newest state of the node that is published. All parts belong to one configuration."""

    scan: NodeScan
    health: HealthSnapshot

    @property
    def config(self) -> Config:
        """The active configuration."""
        return self.scan.config

    @property
    def inventory(self) -> Inventory:
        """The newest inventory."""
        return self.scan.inventory

    @property
    def resources_without_instances(self) -> tuple[str, ...]:
        """The configured names of scanned resources whose name is a template that no device fills in."""
        named = {resource.configured_name for resource in self.health.resources.values()}
        return tuple(name for name in self.config.resources if name not in named and name not in self.scan.unscanned)

    def __repr__(self) -> str:
        parts = []
        for name, devices in self.health.devices.items():
            healthy = sum(device.verdict.healthy for device in devices)
            parts.append(f"{name}: {healthy} healthy, {len(devices) - healthy} unhealthy")
        return f"<Snapshot of {self.scan!r} [{' | '.join(parts)}]>"
