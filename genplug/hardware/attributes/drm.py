"""Attributes of graphics devices: the card and the render node in the ``drm`` directory of a device.

Documentation/gpu/drm-uapi.rst, "Render nodes".
"""

from collections.abc import Mapping

from genplug.hardware.attributes.reader import Reader
from genplug.hardware.attributes.sysfs_device import AttributeValue, SysfsDevice


def _sibling(kind: str) -> Reader:
    def read(sysfs_device: SysfsDevice) -> AttributeValue | None:
        for at in sysfs_device.ancestors:
            directory = at if at.rpartition("/")[2] == "drm" else f"{at}/drm"
            if sysfs_device.host.resolve(directory) is not None:
                # Connectors lie there too on some kernels: card0-DP-1.
                names = [name for name in sysfs_device.names(directory) if name.removeprefix(kind).isdigit()]
                return AttributeValue(tuple(names), directory) if names else None
        return None

    return read


READERS: Mapping[str, Reader] = {
    "drm.card": _sibling("card"),
    "drm.render": _sibling("renderD"),
}
