"""Reads all facts of a machine at the same time, each within a deadline."""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from genplug.doctor.bounded import BoundedRead
from genplug.doctor.configuration import read_configuration
from genplug.doctor.driver import read_driver
from genplug.doctor.facts import Clock, Facts, Known, Machine, Unknown
from genplug.doctor.kubelet import (
    read_kubelet,
    read_kubelet_socket,
    read_plugins_directory,
    read_pod_resources_socket,
    read_registered,
)
from genplug.doctor.machine import (
    read_clock,
    read_inotify,
    read_kernel_log_error,
    read_memory_limit,
    read_mounts,
    read_process,
    read_process_limit,
    read_security,
    read_uevents_error,
)
from genplug.doctor.runtime import read_runtime
from genplug.hardware.hung_paths import HungPaths
from genplug.kubelet.plugin_dir import KUBELET_SOCKET
from genplug.spec.limits import MAX_SCAN_SECONDS

FACT_SECONDS = 5.0
"""Seconds after which a fact counts as unknown."""
SCAN_SECONDS = MAX_SCAN_SECONDS + 1.0
"""Seconds after which the scan of the devices counts as hanging; it ends by itself a second before."""
_ARCHIVE = "an archive of 'genplug capture' does not contain it"

Fact = TypeVar("Fact")


def gather_facts(machine: Machine, seconds: float = FACT_SECONDS, scan_seconds: float = SCAN_SECONDS) -> Facts:
    """Return the facts of a machine; those of the kernel and its processes are unknown for an archive.

    A fact that takes longer than ``seconds``, or ``scan_seconds`` for the configuration with its devices, is unknown.
    """
    started = time.monotonic()
    paths = HungPaths()
    configuration = BoundedRead("the configuration", partial(read_configuration, machine, paths), paths)
    deadline = started + seconds

    def start(what: str, read: Callable[[Machine], Fact]) -> Callable[[], Known[Fact]]:
        if machine.is_archive:
            return lambda: Unknown(f"{what}: {_ARCHIVE}")
        return partial(BoundedRead(what, partial(read, machine)).wait, deadline)

    plugins = start("the directory of the device plugins", read_plugins_directory)
    kubelet_socket = start("the socket of the kubelet", read_kubelet_socket)
    pod_resources = start("the pod-resources socket", read_pod_resources_socket)
    driver = start("the directories of DRA drivers", read_driver)
    registered = start("the checkpoint of the kubelet", read_registered)
    process = start("the identity of this process", read_process)
    security = start("the security modules", read_security)
    inotify = start("the use of inotify", read_inotify)
    mounts = start("the list of mounts", read_mounts)
    kernel_log = start("/dev/kmsg", read_kernel_log_error)
    uevents = start("the socket for uevents", read_uevents_error)
    memory = start("the memory limit", read_memory_limit)
    pids = start("the limit of processes", read_process_limit)
    clock = start("the clock", _read_clock)
    kubelet = partial(BoundedRead("the configuration of the kubelet", partial(read_kubelet, machine)).wait, deadline)
    runtime = partial(BoundedRead("the container runtime", partial(read_runtime, machine)).wait, deadline)
    return Facts(
        machine=machine,
        plugins=plugins(),
        kubelet_socket=kubelet_socket(),
        pod_resources=pod_resources(),
        kubelet=kubelet(),
        driver=driver(),
        registered=registered(),
        process=process(),
        security=security(),
        inotify=inotify(),
        mounts=mounts(),
        kernel_log_error=kernel_log(),
        uevents_error=uevents(),
        memory=memory(),
        pids=pids(),
        clock=clock(),
        runtime=runtime(),
        configuration=configuration.wait(started + scan_seconds),
    )


def _read_clock(machine: Machine) -> Clock:
    settings = machine.settings
    return read_clock((settings.plugins_dir / KUBELET_SOCKET, settings.pod_resources, *settings.config))
