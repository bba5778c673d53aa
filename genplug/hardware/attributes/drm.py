"""Attributes of graphics devices: the card and the render node in the ``drm`` directory of a device.

Documentation/gpu/drm-uapi.rst, "Render nodes".
"""

from genplug.hardware.attributes.family import Attribute, AttributeFamily, Reader
from genplug.hardware.attributes.sysfs_device import AttributeValue, SysfsDevice


def _node_reader(prefix: str) -> Reader:
    def read(device: SysfsDevice) -> AttributeValue | None:
        for directory in device.ancestors:
            parent = directory if directory.rpartition("/")[2] == "drm" else f"{directory}/drm"
            if device.host.resolve(parent) is not None:
                # Some kernels list connectors there, too: card0-DP-1.
                names = [name for name in device.names(parent) if name.removeprefix(prefix).isdigit()]
                return AttributeValue(tuple(names), parent) if names else None
        return None

    return read


FAMILY = AttributeFamily(
    "drm",
    {
        "drm.card": Attribute(_node_reader("card"), "name of the DRM card, for example `card0`", "drm"),
        "drm.render": Attribute(_node_reader("renderD"), "name of the render node, for example `renderD128`", "drm"),
    },
)
