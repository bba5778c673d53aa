"""Renders the edits of a ResourceClaim as a CDI file, and the names of the CDI devices for the kubelet. Pure.

There is one file for each claim, with a CDI device for each result of its allocation. Such a file exists while the
claim is prepared and does not change. Earlier releases of genplug remove files in the directory whose names begin with
``genplug-``; the names of these files therefore differ.
"""

from collections.abc import Sequence

from msgspec import Struct

from genplug.allocation.cdi_spec import cdi_kind, join_devices, render_device
from genplug.allocation.claims import DeviceEdits

_PREFIX, _SUFFIX = "dra_", ".json"


class ClaimCdi(Struct, frozen=True):
    """The CDI file of a claim: its text, None without devices, and the names of the CDI devices of each result.

    The first name of a result is defined by the file; the others are those that ``allocate.cdiDevices`` adds.
    """

    text: str | None
    names: tuple[tuple[str, ...], ...]


def render_claim(driver: str, uid: str, devices: Sequence[DeviceEdits]) -> ClaimCdi:
    """Return the CDI file of the claim with a UID."""
    resource = f"{driver}/claim"
    kind, labels = cdi_kind(resource), _label_devices(uid, devices)
    rendered = [
        render_device(resource, label, device.edits, has_environment=True)
        for label, device in zip(labels, devices, strict=True)
    ]
    names = tuple(
        tuple(dict.fromkeys((f"{kind}={label}", *device.edits.cdi_devices)))
        for label, device in zip(labels, devices, strict=True)
    )
    return ClaimCdi(join_devices(resource, rendered), names)


def claim_file_name(driver: str, uid: str) -> str:
    """Return the name of the CDI file of a claim; names are unique because a driver's name has no ``_``."""
    return f"{_PREFIX}{driver}_{uid}{_SUFFIX}"


def parse_claim_file_name(driver: str, name: str) -> str | None:
    """Return the UID of the claim of a file in the CDI directory; None for another file."""
    prefix = f"{_PREFIX}{driver}_"
    if not (name.startswith(prefix) and name.endswith(_SUFFIX)):
        return None
    return name.removeprefix(prefix).removesuffix(_SUFFIX)


def _label_devices(uid: str, devices: Sequence[DeviceEdits]) -> tuple[str, ...]:
    """Return the name of each CDI device, ``UID-REQUEST-DEVICE``, with a number where that is not unique."""
    labels: dict[str, None] = {}
    for device in devices:
        result = device.grant.result
        label = first = f"{uid}-{result.request.replace('/', '-')}-{result.device}"
        number = 1
        while label in labels:
            number += 1
            label = f"{first}-{number}"
        labels[label] = None
    return tuple(labels)
