"""Reads facts of the kernel and of this process. Each function may raise OSError; :mod:`gather` bounds its time."""

import ctypes
import errno
import os
import resource
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

from msgspec.structs import replace

import genplug
from genplug.doctor.facts import (
    CgroupLimit,
    Clock,
    Inotify,
    Machine,
    Mount,
    Process,
    SecurityModules,
    UnknownFactError,
)
from genplug.doctor.texts import (
    is_initial_uid_map,
    parse_capabilities,
    parse_cgroups,
    parse_limit,
    parse_mounts,
    parse_status,
)
from genplug.health.kernel_log import PATH as KERNEL_LOG
from genplug.health.kernel_log_buffer import is_kernel_log, is_open_denied, read_buffer
from genplug.spec.limits import (
    MAX_EXAMINED_DESCRIPTORS,
    MAX_KERNEL_FILE_BYTES,
    MAX_KERNEL_LOG_POLL_BYTES,
    MAX_MOUNT_LIST_BYTES,
    MAX_SEARCHED_PROCESSES,
)

INOTIFY_SECONDS = 3.0
_UNLIMITED_BYTES = 1 << 60
"""More than any memory: cgroup version 1 writes the largest multiple of the page size for no limit."""
_UNLIMITED_PROCESSES = 1 << 30
_IN_DELETE_SELF = 0x400
_UEVENT_PROTOCOL = 15  # NETLINK_KOBJECT_UEVENT of linux/netlink.h
_TIME_ERROR = 5  # TIME_ERROR of linux/timex.h
_TIMEX_BYTES = 1024
"""More than struct timex has (208 bytes on 64-bit machines)."""
_OLDEST_BUILD = 1_700_000_000.0
"""Reproducible builds set the time of files to a fixed value, often 0, which states nothing."""


def read_text(path: Path, max_bytes: int = MAX_KERNEL_FILE_BYTES) -> str:
    """Return the first bytes of a file as text.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(max_bytes).decode(errors="replace")


def read_process(machine: Machine) -> Process:
    """Return the identity and the limits of this process."""
    self = machine.proc / "self"
    status = parse_status(read_text(self / "status"))
    uid_map = " ".join(read_text(self / "uid_map").split())
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    label = ""
    with suppress(OSError):
        label = read_text(self / "attr/current").strip("\0 \n")
    return Process(
        user=int(status["Uid"].split()[1]),
        capabilities=parse_capabilities(status["CapEff"]),
        is_in_initial_user_namespace=is_initial_uid_map(uid_map),
        uid_map=uid_map,
        open_files=None if soft == resource.RLIM_INFINITY else soft,
        label=label,
    )


def read_security(machine: Machine) -> SecurityModules:
    """Return the active security modules.

    A container does not get selinuxfs in its own /sys; below the root of the host, it is part of the mount of /sys.
    """
    selinux, has_apparmor = "", False
    for sys in (Path(f"{str(machine.settings.root).rstrip('/')}/sys"), machine.sys):
        with suppress(FileNotFoundError, NotADirectoryError):
            is_enforcing = read_text(sys / "fs/selinux/enforce").strip() == "1"
            selinux = selinux or ("enforcing" if is_enforcing else "permissive")
        with suppress(FileNotFoundError, NotADirectoryError):
            has_apparmor |= read_text(sys / "module/apparmor/parameters/enabled").strip() == "Y"
    return SecurityModules(selinux, has_apparmor)


def read_mounts(machine: Machine) -> tuple[Mount, ...]:
    """Return the mounts of this process."""
    return parse_mounts(read_text(machine.proc / "self/mountinfo", MAX_MOUNT_LIST_BYTES))


def read_inotify(machine: Machine) -> Inotify:
    """Return the limits and the use of inotify, and whether a watch can be created now."""
    limits = machine.proc / "sys/fs/inotify"
    deadline = time.monotonic() + INOTIFY_SECONDS
    watches = instances = 0
    is_complete = True
    for number, process in enumerate(_list_own_processes(machine.proc)):
        if number >= MAX_SEARCHED_PROCESSES or time.monotonic() > deadline:
            is_complete = False
            break
        for count in count_watches(process):
            instances += 1
            watches += count
    return Inotify(
        max_watches=int(read_text(limits / "max_user_watches")),
        max_instances=int(read_text(limits / "max_user_instances")),
        watches=watches,
        instances=instances,
        is_complete=is_complete,
        error=_inotify_error(),
    )


def _list_own_processes(proc: Path) -> Iterator[Path]:
    user = os.geteuid()
    for entry in os.scandir(proc):
        if entry.name.isdecimal():
            with suppress(OSError):
                if entry.stat().st_uid == user:
                    yield Path(entry.path)


def count_watches(process: Path) -> Iterator[int]:
    """Yield the number of watches of each inotify instance of a process (proc_pid_fdinfo(5))."""
    try:
        descriptors = list(islice((process / "fd").iterdir(), MAX_EXAMINED_DESCRIPTORS))
    except OSError:
        return
    for descriptor in descriptors:
        with suppress(OSError):
            if str(descriptor.readlink()) == "anon_inode:inotify":
                lines = read_text(process / "fdinfo" / descriptor.name, 64 * MAX_KERNEL_FILE_BYTES).splitlines()
                yield sum(line.startswith("inotify ") for line in lines)


def _inotify_error() -> str:
    """Return why this process cannot create an inotify instance with a watch, empty if it can."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        return _describe_inotify_error(ctypes.get_errno(), "instance", "max_user_instances")
    try:
        if libc.inotify_add_watch(descriptor, b"/", _IN_DELETE_SELF) < 0:
            return _describe_inotify_error(ctypes.get_errno(), "watch", "max_user_watches")
    finally:
        os.close(descriptor)
    return ""


def _describe_inotify_error(number: int, what: str, limit: str) -> str:
    reasons = {errno.EMFILE: f"fs.inotify.{limit} is used up", errno.ENOSPC: f"fs.inotify.{limit} is used up"}
    return f"an inotify {what} cannot be created: {reasons.get(number, os.strerror(number))}"


def read_kernel_log_error(machine: Machine) -> str:
    """Return why the kernel log cannot be read, empty if it can."""
    path = Path(f"{str(machine.settings.root).rstrip('/')}{KERNEL_LOG}")
    try:
        if is_kernel_log(path) and is_open_denied(path):
            read_buffer(MAX_KERNEL_LOG_POLL_BYTES)
        else:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def read_uevents_error(_machine: Machine) -> str:
    """Return why a socket for uevents of the kernel cannot be opened, empty if it can."""
    try:
        with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _UEVENT_PROTOCOL)) as uevents:
            uevents.bind((0, 1))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def read_memory_limit(machine: Machine) -> CgroupLimit:
    """Return the lowest memory limit of the cgroups of this process."""
    return _lowest_limit(machine, "memory", "memory.max", "memory.limit_in_bytes", _UNLIMITED_BYTES)


def read_process_limit(machine: Machine) -> CgroupLimit:
    """Return the lowest limit of the number of processes and threads of the cgroups of this process."""
    return _lowest_limit(machine, "pids", "pids.max", "pids.max", _UNLIMITED_PROCESSES)


def _lowest_limit(machine: Machine, controller: str, file: str, file_v1: str, unlimited: int) -> CgroupLimit:
    """Return the lowest limit on the way to the root of the cgroups, of version 1 if it has the controller."""
    paths = parse_cgroups(read_text(machine.proc / "self/cgroup"))
    root = machine.sys / "fs/cgroup"
    if controller in paths:
        root, path, name = root / controller, paths[controller], file_v1
    elif "" in paths:
        path, name = paths[""], file
    else:
        raise UnknownFactError(f"/proc/self/cgroup has no controller {controller}")
    if not root.is_dir():
        raise UnknownFactError(f"{root} does not exist, so the limit cannot be read")
    used_name = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}.get(
        name, "pids.current"
    )
    lowest = CgroupLimit(None)
    for directory in _ancestors(root, path):
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            limit = parse_limit(read_text(directory / name), unlimited)
            if limit is not None and (lowest.limit is None or limit < lowest.limit):
                lowest = CgroupLimit(limit, file=str(directory / name))
                lowest = replace(lowest, used=parse_limit(read_text(directory / used_name), unlimited))
    return lowest


def _ancestors(root: Path, path: str) -> Iterable[Path]:
    """Return the directories of a cgroup and those above it; in a container, the root is its own cgroup."""
    parts = [part for part in path.split("/") if part not in {"", ".."}]
    return [root.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def read_clock(files: Iterable[Path]) -> Clock:
    """Return the clock, and the newest of some files."""
    package = Path(genplug.__file__).parent
    times = [path.stat().st_mtime for path in package.glob("*.py")]
    newest: tuple[str, float] | None = None
    for path in files:
        with suppress(OSError):
            modified = path.lstat().st_mtime
            if newest is None or modified > newest[1]:
                newest = (str(path), modified)
    built_at = max((seconds for seconds in times if seconds > _OLDEST_BUILD), default=0.0)
    return Clock(time.time(), built_at, newest, _is_synchronized())


def _is_synchronized() -> bool | None:
    """Return whether the kernel reports a synchronized clock; None if it does not report it."""
    libc = ctypes.CDLL(None, use_errno=True)
    # All modes are 0: nothing is changed.
    state = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _TIME_ERROR
