"""Checks of the rights of the process, of its mounts, of events of the kernel and of the clock."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import PurePosixPath

from genplug.doctor.facts import Facts, Mount, Unknown, needs_of, require
from genplug.doctor.findings import Observation, Registry, error, ok, unknown, warning
from genplug.doctor.texts import find_mount
from genplug.observe.text import format_time
from genplug.spec.root_paths import OutsideRootError, strip_root

REGISTRY = Registry("machine")
_SYS_ADMIN = 21
_CAPABILITIES = {1: "DAC_OVERRIDE", 2: "DAC_READ_SEARCH", _SYS_ADMIN: "SYS_ADMIN", 27: "MKNOD", 34: "SYSLOG"}
"""Capabilities that matter for devices and files (linux/capability.h)."""
_CONFINED_TYPES = frozenset({"container_t", "svirt_lxc_net_t"})
"""SELinux types of ordinary containers, which may not use the sockets of the kubelet."""
_MIN_CONTEXT_COLONS = 3
"""Colons of an SELinux context: user, role, type and level. The name of an AppArmor profile has fewer."""
_CLOCK_SECONDS = 300
FIXED_DIRECTORIES = ("/dev", "/sys", "/proc", "/run/udev")
"""Directories of the host in which no file system appears that a configuration reads from."""


@REGISTRY.add(
    "user",
    title="The process runs as root.",
    why="Only root may use the sockets of the kubelet and read some files of /sys and /proc.",
)
def check_user(facts: Facts) -> Iterator[Observation]:
    """Check the user and show the capabilities."""
    process = require(facts.process)
    names = [name for number, name in _CAPABILITIES.items() if number in process.capabilities]
    text = f"user ID {process.user}, with the capabilities {', '.join(names) or 'none of those for devices'}"
    if process.user != 0:
        yield warning(text, "run the agent as root; the chart does")
    else:
        yield ok(text)


@REGISTRY.add(
    "user-namespace",
    title="The process is in the initial user namespace.",
    why="In another user namespace, root is not root of the host: device nodes cannot be created, those of the host "
    "may only be opened with permissions for other users, and the kernel sends no uevents.",
)
def check_user_namespace(facts: Facts) -> Iterator[Observation]:
    """Check the map of user IDs."""
    process = require(facts.process)
    if process.is_in_initial_user_namespace:
        yield ok("user IDs are those of the host")
    else:
        yield warning(f"user IDs are mapped: {process.uid_map}", "run the pod without 'hostUsers: false'")


@REGISTRY.add(
    "security-modules",
    title="SELinux and AppArmor let the process use the sockets of the kubelet.",
    why="A security module denies access although the user and the mode of a file allow it.",
)
def check_security_modules(facts: Facts) -> Iterator[Observation]:
    """Check the SELinux type and show the modes."""
    security = require(facts.security)
    label = "" if isinstance(facts.process, Unknown) else facts.process.label
    has_context = label.count(":") >= _MIN_CONTEXT_COLONS
    mode = security.selinux or ("active, and its mode is not visible" if has_context else "")
    modules = [f"SELinux is {mode}"] if mode else []
    modules += ["AppArmor is enabled"] if security.has_apparmor else []
    text = " and ".join(modules) or "no SELinux and no AppArmor"
    text += f", the process has {label}" if modules and label else ""
    if mode not in {"", "permissive"} and _CONFINED_TYPES.intersection(label.split(":")):
        report = error if mode == "enforcing" else warning
        yield report(text, "run the container with the SELinux type container_device_plugin_t, as the chart does")
    else:
        yield ok(text)


@REGISTRY.add(
    "uevents",
    title="The kernel sends uevents to the process.",
    why="Uevents report changes below /sys; without them, the agent sees such changes at the next scan.",
)
def check_uevents(facts: Facts) -> Iterator[Observation]:
    """Check the socket for uevents."""
    if reason := require(facts.uevents_error):
        action = "allow netlink sockets in the seccomp profile of the container"
        yield warning(f"the socket for uevents cannot be opened: {reason}", action)
    else:
        yield ok("the socket for uevents can be opened")


@REGISTRY.add(
    "kernel-log",
    title="The kernel log is readable, if a probe of the kind `kernelLog` needs it.",
    why="`kernelLog` probes read the kernel log from /dev/kmsg, or by syslog(2) with the capability SYSLOG.",
)
def check_kernel_log(facts: Facts) -> Iterator[Observation]:
    """Check /dev/kmsg and syslog(2)."""
    reason = require(facts.kernel_log_error)
    if not reason:
        yield ok("the kernel log is readable")
    elif needs_of(facts).kernel_log:
        action = "add the capability SYSLOG to the container (in the chart: daemonset.kernelLog)"
        yield error(f"the kernel log cannot be read: {reason}, and a probe needs it", action)
    else:
        yield ok(f"the kernel log cannot be read ({reason}), and no probe needs it")


@REGISTRY.add(
    "device-access",
    title="The process may open device nodes, if a probe of the kind `open` needs it.",
    why="A container that is not privileged has a device cgroup that refuses to open the device nodes of the host.",
)
def check_device_access(facts: Facts) -> Iterator[Observation]:
    """Check for a capability that a privileged container has, and a container with a device cgroup does not have."""
    capabilities, is_needed = require(facts.process).capabilities, needs_of(facts).open_probes
    if not is_needed:
        yield ok("no probe opens device nodes")
    elif _SYS_ADMIN not in capabilities:
        action = "run the container privileged (in the chart: daemonset.privileged)"
        yield warning("the process is not privileged (no capability SYS_ADMIN), and a probe opens device nodes", action)
    else:
        yield ok("the process is privileged (capability SYS_ADMIN)")


@REGISTRY.add(
    "dev",
    title="/dev is that of the host.",
    why="A container has a /dev of its own, without the devices of the node.",
)
def check_dev(facts: Facts) -> Iterator[Observation]:
    """Check the mount of /dev."""
    yield _check_mount(facts, "/dev", "devtmpfs", "the device nodes of the kernel (devtmpfs)")


@REGISTRY.add(
    "sysfs",
    title="/sys is a sysfs.",
    why="The agent reads attributes of devices, drivers and the topology from /sys.",
)
def check_sysfs(facts: Facts) -> Iterator[Observation]:
    """Check the mount of /sys."""
    yield _check_mount(facts, "/sys", "sysfs", "sysfs")


def _check_mount(facts: Facts, directory: str, type_: str, what: str) -> Observation:
    path = f"{str(facts.machine.settings.root).rstrip('/')}{directory}"
    mount = find_mount(require(facts.mounts), path)
    if mount is None:
        return unknown(f"the list of mounts does not contain {path}")
    if mount.type == type_ and mount.target == path:
        return ok(f"{path} is {what}")
    found = f"{path} is a {mount.type}" if mount.target == path else f"{path} is a directory, not a mount"
    return warning(
        f"{found}, expected {what}",
        f"mount {directory} of the host, and pass the directory above it with --root (in the chart: /host)",
    )


@REGISTRY.add(
    "mount-propagation",
    title="File systems that are mounted on the host later are visible.",
    why="A file system that is mounted later, below a directory that a container has mounted without propagation, is "
    "an empty directory for the agent: sources of mounts are then missing.",
)
def check_propagation(facts: Facts) -> Iterator[Observation]:
    """Check the propagation of the directories that are mounted below the root."""
    root = str(facts.machine.settings.root).rstrip("/")
    if not root:
        yield ok("the process has the file systems of its own root, without --root")
        return
    settings = facts.machine.settings
    fixed = (*FIXED_DIRECTORIES, settings.cdi_dir, *settings.cdi_search_dirs)
    mounts = _list_host_mounts(require(facts.mounts), root, fixed)
    private = [mount for mount in mounts if not mount.receives_mounts]
    if private:
        names = ", ".join(mount.target for mount in private)
        action = "mount them with 'mountPropagation: HostToContainer' (rslave)"
        yield warning(f"later mounts of the host do not appear below {names}", action)
    else:
        yield ok(f"each directory of the host below {root} that can get later mounts receives them")


def _list_host_mounts(mounts: tuple[Mount, ...], root: str, fixed: Sequence[str]) -> Iterator[Mount]:
    """Yield the mounts below a root in which file systems of the host can appear: all but some directories."""
    for mount in mounts:
        with suppress(OutsideRootError):
            path = PurePosixPath(strip_root(mount.target, root))
            if path.name and not any(path.is_relative_to(directory) for directory in fixed):
                yield mount


@REGISTRY.add(
    "clock",
    title="The clock is plausible.",
    why="Times in the log and in the status are those of this clock; certificates and schedules of the node fail, too.",
)
def check_clock(facts: Facts) -> Iterator[Observation]:
    """Compare the clock with the times of files, and report what the kernel knows about its synchronization."""
    clock = require(facts.clock)
    action = "set the clock of the node, and run a time service such as chrony"
    if clock.now < clock.built_at:
        built = format_time(clock.built_at)
        yield error(f"the clock shows {format_time(clock.now)}, before genplug was built ({built})", action)
    elif clock.newest_file is not None and clock.newest_file[1] > clock.now + _CLOCK_SECONDS:
        path, modified = clock.newest_file
        text = f"the clock shows {format_time(clock.now)}, and {path} is of {format_time(modified)}, which is later"
        yield warning(text, action)
    elif clock.is_synchronized is False:
        text = "the kernel reports that no time service synchronizes the clock (adjtimex)"
        yield warning(text, action)
    elif clock.is_synchronized is None:
        yield ok(f"the clock shows {format_time(clock.now)}; the kernel does not report whether it is synchronized")
    else:
        yield ok(f"the clock shows {format_time(clock.now)}, and a time service synchronizes it")
