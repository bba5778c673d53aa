"""The migration of a resource in place between the two APIs, while pods use its devices."""

import signal
import time
from functools import partial
from typing import Any

from tests.cluster.cluster import poll_until
from tests.cluster.dra_trial.figures import Figure, spread
from tests.cluster.dra_trial.holders import build_holder, count_starts
from tests.cluster.dra_trial.trial import COUNTS, MOTOR, Trial, list_devices
from tests.cluster.dra_trial.watch import Watch

_HOLDERS = ("old-0", "old-1")
_CACHE_SECONDS = 360.0
"""A kubelet removes an endpoint that ended from its cache after five minutes."""
_CLOSE_SECONDS = 60.0
"""The longest time between the end of the last holder and the end of the endpoint."""
_BATCH = 4


def migrate_to_dra(trial: Trial, pods: int = 200, seconds: float = _CACHE_SECONDS) -> list[Figure]:
    """Serve a resource by DRA while two pods have devices of it by the device plugin API.

    The kubelet restarts, other pods use the resource for ``seconds`` at least, the two pods end, and pods use the
    resource again, also ``seconds`` after the end of the endpoint.
    """
    cluster = trial.cluster
    cluster.wait_allocatable(MOTOR, COUNTS["motor"])
    with trial.watch_pods() as watch, trial.watch_slices() as slices:
        trial.create_holders(watch, *(build_holder(name, "motor") for name in _HOLDERS))
        with trial.check_holders(*_HOLDERS, ended=1) as figures:
            trial.apply_values(motor="dra")
            free = COUNTS["motor"] - len(_HOLDERS)
            started = time.monotonic()
            published = slices.wait(lambda objects: len(list_devices(objects.values(), "motor")) == free) - started
            cluster.wait_allocatable(MOTOR, 0)
            ready = _churn(trial, watch, "first", _BATCH)
            assert cluster.node.kubelet
            cluster.node.kubelet.stop(signal.SIGKILL)
            cluster.node.start_kubelet()
            ready += _churn(trial, watch, "restarted", pods - _BATCH, seconds)
            sockets = _count_sockets(trial)
            trial.delete_pods(watch, _HOLDERS[0])
            slices.wait(lambda objects: len(list_devices(objects.values(), "motor")) == free + 1)
            starts = count_starts(trial.machine)[_HOLDERS[1]]
            trial.kill_container(watch.objects[_HOLDERS[1]])
            # The container restarts with the device of its pod.
            poll_until(lambda: count_starts(trial.machine)[_HOLDERS[1]] > starts)
            trial.delete_pods(watch, _HOLDERS[1])
            deleted, last = time.monotonic(), list[float]()
            while _count_sockets(trial) == sockets and time.monotonic() - deleted < _CLOSE_SECONDS:
                last += _churn(trial, watch, f"draining-{len(last)}", _BATCH)
            ended = time.monotonic() - deleted
            slices.wait(lambda objects: len(list_devices(objects.values(), "motor")) == COUNTS["motor"])
            last += _churn(trial, watch, "last", _BATCH, seconds)
    return [
        Figure("Pods that DRA served", len(ready) + len(last), minimum=pods),
        *figures,
        Figure("Changed values to the published free devices", published, "s"),
        *spread("Pod of the resource by DRA to ready", ready + last, 15),
        Figure("End of the last holder to the closed endpoint", ended, "s", _CLOSE_SECONDS),
    ]


def migrate_to_device_plugin(trial: Trial, pods: int = 100) -> list[Figure]:
    """Serve a resource by the device plugin API while two pods have devices of it by DRA."""
    cluster = trial.cluster
    with trial.watch_pods() as watch, trial.watch_slices() as slices:
        trial.create_holders(watch, *(build_holder(name, "motor") for name in _HOLDERS))
        with trial.check_holders(*_HOLDERS) as figures:
            trial.apply_values(motor="devicePlugin")
            started = time.monotonic()
            slices.wait(lambda objects: not list_devices(objects.values(), "motor"))
            free = COUNTS["motor"] - len(_HOLDERS)
            cluster.wait_allocatable(MOTOR, free)
            changed = time.monotonic() - started
            # The scheduler also subtracts the limits of the pods that DRA serves.
            room = free - len(_HOLDERS)
            ready = trial.churn(watch, partial(_build_numbered, "back"), pods, room)
            trial.delete_pods(watch, *_HOLDERS)
            cluster.wait_allocatable(MOTOR, COUNTS["motor"])
            ready += trial.churn(watch, partial(_build_numbered, "all"), COUNTS["motor"], COUNTS["motor"])
    return [
        Figure("Pods that the device plugin API served", len(ready), minimum=pods),
        *figures,
        Figure("Changed values to the allocatable free devices", changed, "s"),
        *spread("Pod of the resource by the device plugin API to ready", ready, 15),
    ]


def _churn(trial: Trial, watch: Watch, prefix: str, pods: int, seconds: float = 0) -> list[float]:
    """Create and delete pods for a time, at least a number of them; return the seconds until each was ready."""
    ready = list[float]()
    started = time.monotonic()
    while len(ready) < pods or time.monotonic() - started < seconds:
        batch = f"{prefix}-{len(ready)}"
        ready += trial.churn(watch, partial(_build_numbered, batch), _BATCH, _BATCH)
    trial.log(
        f"{prefix}: {len(ready)} pods in {time.monotonic() - started:.0f} s, ready after up to {max(ready):.1f} s"
    )
    return ready


def _count_sockets(trial: Trial) -> int:
    """Return the number of the endpoints of the device plugin API."""
    return len(list((trial.machine.kubelet / "device-plugins").glob("genplug-*.sock")))


def _build_numbered(prefix: str, number: int) -> dict[str, Any]:
    return build_holder(f"{prefix}-{number}", "motor")
