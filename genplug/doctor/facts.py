"""The facts that :mod:`genplug.doctor.gather` reads from a machine: frozen values, the only input of the checks."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar

from msgspec import Struct

from genplug.agent.settings import Settings

Fact = TypeVar("Fact")


class Unknown(Struct, frozen=True):
    """A fact that could not be determined, with the reason."""

    reason: str


class UnknownFactError(Exception):
    """A fact is not known; the text is the reason."""


Known: TypeAlias = Fact | Unknown


def require(fact: Known[Fact]) -> Fact:
    """Return a fact.

    Raises:
        UnknownFactError: it is not known.
    """
    if isinstance(fact, Unknown):
        raise UnknownFactError(fact.reason)
    return fact


class Machine(Struct, frozen=True):
    """The examined machine: the settings of the agent, and where this process sees the file systems of its own kernel.

    ``is_archive`` is whether ``--root`` is an archive of ``genplug capture``, which has neither a kernel nor processes.
    """

    settings: Settings
    is_archive: bool = False
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")


class PluginsDirectory(Struct, frozen=True):
    """The directory of the device plugin sockets.

    ``error`` is why the agent cannot use it, empty if it can. ``sockets`` are the names of all sockets in it, and
    ``is_locked`` is whether an agent of genplug serves it.
    """

    error: str = ""
    sockets: tuple[str, ...] = ()
    is_locked: bool = False


class Socket(Struct, frozen=True):
    """A socket of the kubelet: its path, and why it cannot be used, empty if it accepts a connection."""

    path: Path
    error: str = ""


class Kubelet(Struct, frozen=True):
    """The configuration of the kubelet, as far as it is readable.

    ``root_dir`` is the ``--root-dir`` of the process, empty if the process is not visible. ``features`` are the feature
    gates of its configuration file, and ``config_file`` is that file, empty if it cannot be read.
    """

    root_dir: str = ""
    config_file: str = ""
    features: Mapping[str, bool] = {}


class Driver(Struct, frozen=True):
    """The directories and the account of a driver of Dynamic Resource Allocation (DRA).

    ``directory_errors`` are why it cannot use its directories, and ``account_error`` is why it cannot connect to the
    API server; both are empty if it can.
    """

    directory_errors: tuple[str, ...] = ()
    account_error: str = ""


class Process(Struct, frozen=True):
    """The identity and the limits of this process.

    ``capabilities`` are the numbers of its effective capabilities (linux/capability.h). ``open_files`` is the soft
    limit of file descriptors, None without a limit.
    """

    user: int
    capabilities: frozenset[int]
    is_in_initial_user_namespace: bool
    uid_map: str
    open_files: int | None
    label: str = ""
    """The SELinux context or the AppArmor profile, empty without either."""


class SecurityModules(Struct, frozen=True):
    """The active security modules: SELinux is ``enforcing``, ``permissive`` or empty."""

    selinux: str = ""
    has_apparmor: bool = False


class Inotify(Struct, frozen=True):
    """The limits of inotify for the user of this process, and their use by the visible processes of that user.

    ``error`` is why a watch cannot be created now, empty if it can. ``is_complete`` is whether all visible processes
    were counted.
    """

    max_watches: int
    max_instances: int
    watches: int
    instances: int
    is_complete: bool = True
    error: str = ""


class Mount(Struct, frozen=True):
    """A mount of this process (proc_pid_mountinfo(5)): where, of which type, its options and its propagation."""

    target: str
    type: str
    options: frozenset[str] = frozenset()
    receives_mounts: bool = False
    """Whether a mount that is made later on the host appears below it: it is shared or a slave."""


class CgroupLimit(Struct, frozen=True):
    """A limit of the cgroup of this process or of a cgroup above it, and the use; None without a limit."""

    limit: int | None
    used: int | None = None
    file: str = ""


class Clock(Struct, frozen=True):
    """The clock: seconds since the epoch, and what it is compared with.

    ``built_at`` is the newest file of genplug, and ``newest_file`` the newest of the files of the kubelet and of the
    configuration, with its time. ``is_synchronized`` is what the kernel reports (adjtimex(2)), None if it may not be
    read.
    """

    now: float
    built_at: float
    newest_file: tuple[str, float] | None = None
    is_synchronized: bool | None = None


class Runtime(Struct, frozen=True):
    """The container runtime.

    ``name`` is ``containerd``, ``CRI-O`` or empty. ``has_cdi`` is whether it injects CDI devices, None if its
    configuration does not decide that. ``cdi_dirs`` are the directories of its CDI files, and ``files`` the
    configuration files that were read.
    """

    name: str
    has_cdi: bool | None = None
    cdi_dirs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    """Configuration files that cannot be read, each with the reason."""


class ConfiguredResource(Struct, frozen=True):
    """A resource of the configuration and what this machine has for it. ``reasons`` are those for missing devices."""

    name: str
    devices: int
    healthy: int
    expected: int | None = None
    ids: frozenset[str] = frozenset()
    reasons: tuple[str, ...] = ()


class Needs(Struct, frozen=True):
    """The needs of a configuration. ``programs`` are those that probes and ``preStart`` run."""

    kernel_log: bool = False
    open_probes: bool = False
    """Whether a probe of the kind ``open`` opens device nodes."""
    cdi: bool = False
    cdi_files: bool = False
    """Whether the agent writes CDI files (``inject: cdi`` or ``serve: dra``)."""
    dra: bool = False
    """Whether Dynamic Resource Allocation serves a resource."""
    programs: tuple[str, ...] = ()
    read_probes: int = 0
    """Probes that read files or open device nodes, counted for each device."""
    call_probes: int = 0
    """Probes that run programs or connect to servers, counted for each device."""
    resource_names: int = 0
    """Resource names with aliases."""
    directories: int = 0
    """Directories to watch."""
    devices: int = 0


class Configuration(Struct, frozen=True):
    """The configuration on this machine. With ``errors``, nothing else is known.

    ``stalls`` are operations that hang, and ``program_errors`` why programs cannot be run.
    """

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    resources: tuple[ConfiguredResource, ...] = ()
    stalls: tuple[str, ...] = ()
    program_errors: tuple[str, ...] = ()
    needs: Needs = Needs()


class Facts(Struct, frozen=True):
    """All facts. ``registered`` are the device IDs of each resource that the kubelet has recorded in its checkpoint."""

    machine: Machine
    plugins: Known[PluginsDirectory]
    kubelet_socket: Known[Socket]
    pod_resources: Known[Socket]
    kubelet: Known[Kubelet]
    driver: Known[Driver]
    registered: Known[Mapping[str, frozenset[str]]]
    process: Known[Process]
    security: Known[SecurityModules]
    inotify: Known[Inotify]
    mounts: Known[tuple[Mount, ...]]
    kernel_log_error: Known[str]
    uevents_error: Known[str]
    memory: Known[CgroupLimit]
    pids: Known[CgroupLimit]
    clock: Known[Clock]
    runtime: Known[Runtime]
    configuration: Known[Configuration]


def needs_of(facts: Facts) -> Needs:
    """Return the needs of the configuration; none if it is not known."""
    return Needs() if isinstance(facts.configuration, Unknown) else facts.configuration.needs
