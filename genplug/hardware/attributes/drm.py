"""Direct rendering: the card and the render node of one device, which lie side by side in its ``drm`` folder."""

from collections.abc import Mapping

from genplug.hardware.attributes.reader import Reader
from genplug.hardware.attributes.sysfs_device import Fact, Place


def _sibling(kind: str) -> Reader:
    def read(place: Place) -> Fact | None:
        for at in place.ancestors:
            folder = at if at.rpartition("/")[2] == "drm" else f"{at}/drm"
            if place.host.resolved(folder) is not None:
                # Connectors lie there too on some kernels: card0-DP-1.
                names = [name for name in place.names(folder) if name.removeprefix(kind).isdigit()]
                return Fact(tuple(names), folder) if names else None
        return None

    return read


READERS: Mapping[str, Reader] = {
    "drm.card": _sibling("card"),
    "drm.render": _sibling("renderD"),
}
