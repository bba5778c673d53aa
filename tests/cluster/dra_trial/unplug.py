"""Devices that are unplugged and plugged: the delay and the number of writes at the API server."""

import time

from tests.cluster.claims import TAINTS_MINOR
from tests.cluster.dra_trial.figures import Figure, spread
from tests.cluster.dra_trial.trial import Trial, list_devices
from tests.cluster.dra_trial.watch import Objects

_DEVICE = "thing5"
_NUMBER = (240 << 8) + 5
_PAUSE_SECONDS = 12.0
"""The pause between two replugs: a slice that is written ten times in a minute is written more rarely."""


def unplug_device(trial: Trial, repeats: int = 10, pause: float = _PAUSE_SECONDS) -> list[Figure]:
    """Unplug and plug a device, and measure the delay until a watch of the API server shows it."""
    has_taints = trial.cluster.minor >= TAINTS_MINOR
    removals, returns = list[float](), list[float]()

    def is_available(objects: Objects) -> bool:
        device = list_devices(objects.values(), "thing").get(_DEVICE)
        return device is not None and not device.get("taints")

    def is_unavailable(objects: Objects) -> bool:
        device = list_devices(objects.values(), "thing").get(_DEVICE)
        return bool(device and device.get("taints")) if has_taints else device is None

    with trial.watch_slices() as slices:
        slices.wait(is_available)
        for _ in range(repeats):
            time.sleep(pause)
            started = time.monotonic()
            trial.machine.unplug(f"/dev/{_DEVICE}")
            removals.append(slices.wait(is_unavailable, since=len(slices.changes)) - started)
            time.sleep(2)
            started = time.monotonic()
            trial.machine.plug(f"/dev/{_DEVICE}", _NUMBER)
            returns.append(slices.wait(is_available, since=len(slices.changes)) - started)
    what = "taint" if has_taints else "removal from the slice"
    return [
        *spread(f"Unplugged device to its {what}", removals, 0.5),
        *spread("Plugged device to the device without taint", returns, 1.5),
    ]


def flap_device(trial: Trial, flaps: int = 100, seconds: float = 10, settle: float = 15) -> list[Figure]:
    """Unplug and plug a device many times within ``seconds``, and count the writes of its slice.

    ``settle`` is the time without a change before and after the flaps.
    """
    with trial.watch_slices() as slices:
        slices.wait(lambda objects: _DEVICE in list_devices(objects.values(), "thing"))
        # The limit of writes within a minute starts again.
        time.sleep(settle)
        seen, started = len(slices.changes), time.monotonic()
        for number in range(flaps):
            trial.machine.unplug(f"/dev/{_DEVICE}")
            time.sleep(max(0, started + (number + 0.5) * seconds / flaps - time.monotonic()))
            trial.machine.plug(f"/dev/{_DEVICE}", _NUMBER)
            time.sleep(max(0, started + (number + 1) * seconds / flaps - time.monotonic()))
        ended = time.monotonic()
        time.sleep(settle)
        writes = len(slices.changes) - seen
        device = list_devices(slices.objects.values(), "thing").get(_DEVICE, {"taints": "absent"})
    return [
        Figure("Flaps", flaps),
        Figure("Seconds of the flaps", ended - started),
        Figure("Writes of slices for the flaps", writes, maximum=12, minimum=1),
        Figure("Taints of the device afterwards", len(device.get("taints", ())), maximum=0),
    ]
