"""The simulated node of the demo: its devices, its configurations and the table of its devices."""

from itertools import groupby

from genplug.cli.output import format_table, table_width
from genplug.observe.status import Status
from genplug.observe.text import join_names
from genplug.testing.node.fake_node import FakeNode

SERIAL = "example.com/serial"
FUSE = "example.com/fuse"
CAMERA = "example.com/camera"

CONFIG = """\
# yaml-language-server: $schema=https://genplug.io/schemas/genplug.schema.json
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  example.com/serial:            # what a pod requests
    devices:
    - glob: /dev/ttyUSB*         # each match is a device
    allocate:
      env: {SERIAL_PORTS: "${path}"}
  example.com/fuse:
    devices:
    - glob: /dev/fuse
    tokens: 3                    # three containers can share the device
"""
WITH_CAMERA = (
    CONFIG
    + """\
  example.com/camera:
    devices:
    - glob: /dev/video[0-9]*
"""
)
INVALID = WITH_CAMERA.replace("glob: /dev/video", "golb: /dev/video")


def make_demo_node() -> FakeNode:
    """Return a node with three serial adapters, a camera and FUSE; text files stand for the device nodes."""
    node = FakeNode(stand_ins=True)
    for number in range(3):
        node.plug(f"/dev/ttyUSB{number}", major=188, minor=number)
    node.plug("/dev/video0", major=81, minor=0)
    node.plug("/dev/fuse", major=10, minor=229)
    node.write_config(CONFIG, how="rename")
    return node


def format_devices(status: Status) -> str:
    """Return a table of all devices that the agent offers."""
    rows = []
    for resource in status.resources:
        state = "removed" if resource.is_removed else "registered" if resource.is_registered else resource.phase
        for _, group in groupby(resource.devices, lambda device: (device.paths, device.healthy, device.reason)):
            devices = list(group)
            device, health = devices[0], "healthy" if devices[0].healthy else "UNHEALTHY"
            label = device.id if len(devices) == 1 else f"{len(devices)} × {_name_unit(device.id)}"
            rows.append((resource.name, state, label, health, join_names(device.paths), device.reason))
        if not resource.devices:
            rows.append((resource.name, state, "-", "none", "-", "; ".join(resource.notes)))
    return format_table(("RESOURCE", "KUBELET", "DEVICE", "HEALTH", "PATH", "REASON"), rows, table_width())


def _name_unit(device_id: str) -> str:
    """Return what an entry of the list is, by the suffix of its ID."""
    units = {"r": "replica", "s": "slice", "t": "token"}
    return units.get(device_id.rpartition("-")[2][:1], "token")
