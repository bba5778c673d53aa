"""The process of the agent as procfs shows it: its options, its rights, its mounts and what started it.

proc(5) describes the files. A command in the container of the agent finds the agent in the same process namespace.
Sources of facts name the directory of the agent ``/proc/PID``, so that the records of two days are equal.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

from msgspec import Struct

from genplug.record.facts import Fact, Known, Unknown
from genplug.spec.limits import MAX_RECORDED_MOUNTS, MAX_SEARCHED_PROCESSES

_MAX_PROC_BYTES = 1 << 20
"""Bytes of a file of procfs that are read: a command line and an environment have at most a few hundred KiB."""
_CONTAINER_ID = re.compile(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?:/|$)", re.MULTILINE)
_SERVICE = re.compile(r"/([^/\n]+\.service)(?:/|$)", re.MULTILINE)
_EFFECTIVE_USER = re.compile(r"^Uid:\s+\d+\s+(\d+)", re.MULTILINE)
_SECCOMP = {"0": "disabled", "1": "strict", "2": "filter"}
"""Modes of seccomp in proc_pid_status(5)."""
_OWN_FILE_SYSTEMS = ("/proc", "/sys", "/dev")
"""Where a container runtime mounts file systems of the container itself."""
_RUNTIME_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
"""Files that a container runtime and the kubelet mount into every container."""
_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
"""The names of capabilities by their number, include/uapi/linux/capability.h."""


class AgentProcess(Struct, frozen=True):
    """The process of ``genplug run``: its PID, the arguments after ``run``, and its environment.

    ``directory`` is its directory in procfs. ``environment`` is empty if it may not be read.
    """

    directory: Path
    pid: int
    arguments: tuple[str, ...]
    environment: Mapping[str, str]


class Security(Struct, frozen=True):
    """The rights of the agent."""

    user: Fact
    capabilities: Fact
    no_new_privileges: Fact
    seccomp: Fact
    security_module: Fact
    privileged: Fact
    host_namespaces: Fact


def find_agent(proc: Path = Path("/proc")) -> AgentProcess | Unknown:
    """Return the process of ``genplug run`` that procfs shows, or why there is not exactly one."""
    found: list[AgentProcess] = []
    try:
        names = (entry.name for entry in proc.iterdir() if entry.name.isdecimal())
        pids = sorted(map(int, islice(names, MAX_SEARCHED_PROCESSES)))
    except OSError as error:
        return Unknown(f"{proc} cannot be listed: {error.strerror}")
    for pid in pids:
        directory = proc / str(pid)
        arguments = _agent_arguments((_read(directory / "cmdline") or "").split("\0"))
        if arguments is not None and is_trusted(directory):
            variables = (line.partition("=") for line in (_read(directory / "environ") or "").split("\0"))
            environment = {name: value for name, _, value in variables if name}
            found.append(AgentProcess(directory, pid, arguments, environment))
    if len(found) == 1:
        return found[0]
    if not found:
        return Unknown("no process of 'genplug run' is visible from here")
    return Unknown(
        f"several processes of 'genplug run' are visible: PID {', '.join(str(agent.pid) for agent in found)}"
    )


def is_trusted(directory: Path) -> bool:
    """Return whether a process in procfs belongs to root or to this user.

    A process of another user can have any command line, whose files a command of root must not read.
    """
    match = _EFFECTIVE_USER.search(_read(directory / "status") or "")
    return match is None or int(match[1]) in {0, os.geteuid()}


def describe_method(agent: AgentProcess | Unknown) -> Fact:
    """Return what started the agent: a pod, a systemd unit, a container of unknown origin, or a plain process."""
    if isinstance(agent, Unknown):
        return agent
    groups = _read(agent.directory / "cgroup") or ""
    source = "/proc/PID/cgroup"
    if "kubepods" in groups:
        return Known("pod", source)
    if "KUBERNETES_SERVICE_HOST" in agent.environment:
        return Known("pod", "the variable KUBERNETES_SERVICE_HOST, which the kubelet sets in every container")
    if _CONTAINER_ID.search(groups) is not None:
        return Known("container of unknown origin", source)
    if agent.pid == 1:
        return Known("container of unknown origin", "the agent is process 1 of its process namespace")
    if (service := _SERVICE.search(groups)) is not None:
        return Known(f"systemd unit {service[1]}", source)
    return Known("process", f"{source}, which has neither a container nor a systemd service")


def shares_files(agent: AgentProcess, method: Fact) -> bool:
    """Return whether paths mean the same for the agent and for this process.

    They do outside of a container, where a systemd unit may have mounts of its own, and in the container of the agent.
    """
    if not is_in_container(method):
        return True
    try:
        own, other = (path.readlink() for path in (agent.directory.parent / "self/ns/mnt", agent.directory / "ns/mnt"))
    except OSError:
        return agent.pid == 1
    return own == other


def is_in_container(method: Fact) -> bool:
    """Return whether the result of :func:`describe_method` is a container."""
    return isinstance(method, Known) and method.value.startswith(("pod", "container"))


def describe_command(agent: AgentProcess | Unknown) -> Fact:
    """Return the command line of the agent, of which no option is a secret."""
    if isinstance(agent, Unknown):
        return agent
    return Known(" ".join(("genplug", "run", *agent.arguments)), "/proc/PID/cmdline")


def describe_mounts(agent: AgentProcess | Unknown, method: Fact) -> Fact:
    """Return the mounts that a container of the agent has besides those of the container runtime."""
    if isinstance(agent, Unknown):
        return agent
    if not is_in_container(method):
        return Known((), "the agent runs outside of a container and uses the files of the host directly")
    source = "/proc/PID/mountinfo"
    text = _read(agent.directory / "mountinfo")
    if text is None:
        return Unknown(f"{source} cannot be read")
    mounts = sorted(_parse_mounts(text), key=lambda mount: str(mount["path"]))
    if len(mounts) > MAX_RECORDED_MOUNTS:
        return Unknown(f"{source} has more than {MAX_RECORDED_MOUNTS} mounts")
    return Known(tuple(mounts), source)


def describe_security(agent: AgentProcess | Unknown, method: Fact) -> Security:
    """Return the rights that the kernel grants to the process of the agent."""
    if isinstance(agent, Unknown):
        return Security(*(agent,) * 7)
    source = "/proc/PID/status"
    text = _read(agent.directory / "status")
    if text is None:
        return Security(*(Unknown(f"{source} cannot be read"),) * 7)
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
    return Security(
        user=_describe_user(status, source),
        capabilities=_describe_capabilities(status, source),
        no_new_privileges=_describe_number(status, "NoNewPrivs", {"0": False, "1": True}, source),
        seccomp=_describe_number(status, "Seccomp", _SECCOMP, source),
        security_module=_describe_label(agent),
        privileged=Unknown(
            "'privileged' is a setting of the pod, of which the capabilities are the effect; 'kubectl genplug record' "
            "reads it"
        )
        if is_in_container(method)
        else Known(value=False, source="the agent runs outside of a container, where the setting does not exist"),
        host_namespaces=_describe_namespaces(agent, method),
    )


def _agent_arguments(words: Sequence[str]) -> tuple[str, ...] | None:
    """Return the arguments after ``genplug run`` in a command line, or None if it is another program.

    The interpreter with options, of which the last can be ``-m``, may precede the path of the script.
    """
    is_python = PurePosixPath(words[0]).name.startswith("python")
    for index, word in enumerate(words[:-1]):
        if PurePosixPath(word).name == "genplug" and words[index + 1] == "run":
            return tuple(words[index + 2 :]) if words[-1] else tuple(words[index + 2 : -1])
        if not (is_python and (index == 0 or word.startswith("-"))):
            break
    return None


def _parse_mounts(text: str) -> Iterator[dict[str, object]]:
    """Yield the mounts of mountinfo that make a part of the host or of a volume visible, proc_pid_mountinfo(5)."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        words, types = before.split(" "), after.split(" ")
        if len(words) < 6 or len(types) < 2:  # noqa: PLR2004 - the fields of the format
            continue
        path = _unescape(words[4])
        is_own = any(path == top or path.startswith(f"{top}/") for top in _OWN_FILE_SYSTEMS)
        if path == "/" or path in _RUNTIME_FILES or is_own:
            continue
        yield {"path": path, "readOnly": "ro" in words[5].split(","), "fileSystem": types[0]}


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _describe_user(status: Mapping[str, str], source: str) -> Fact:
    try:
        user, group = status["Uid"].split()[1], status["Gid"].split()[1]
    except (KeyError, IndexError):
        return Unknown(f"{source} has no user and group")
    return Known({"uid": int(user), "gid": int(group)}, source)


def _describe_capabilities(status: Mapping[str, str], source: str) -> Fact:
    try:
        effective, bounding = (int(status[name], 16) for name in ("CapEff", "CapBnd"))
    except (KeyError, ValueError):
        return Unknown(f"{source} has no capabilities")
    return Known({"effective": _list_capabilities(effective), "bounding": _list_capabilities(bounding)}, source)


def _list_capabilities(mask: int) -> tuple[str, ...]:
    numbers = [number for number in range(mask.bit_length()) if mask >> number & 1]
    return tuple(_CAPABILITIES[number] if number < len(_CAPABILITIES) else f"capability {number}" for number in numbers)


def _describe_number(status: Mapping[str, str], name: str, words: Mapping[str, object], source: str) -> Fact:
    value = words.get(status.get(name, ""))
    return Unknown(f"{source} has no field '{name}' with a known value") if value is None else Known(value, source)


def _describe_label(agent: AgentProcess) -> Fact:
    """Return the label of SELinux or the profile of AppArmor, proc_pid_attr(5)."""
    source = "/proc/PID/attr/current"
    label = _read(agent.directory / "attr/current")
    if label is None:
        return Unknown(f"{source} cannot be read: the kernel has no active security module, or forbids it")
    label = label.rstrip("\n\0")
    return Known(label, source) if label else Unknown(f"{source} is empty: the kernel has no active security module")


def _describe_namespaces(agent: AgentProcess, method: Fact) -> Fact:
    if is_in_container(method):
        return Unknown(
            "a process cannot compare its namespaces with those of the host; 'kubectl genplug record' reads hostPID, "
            "hostNetwork and hostIPC of the pod"
        )
    shared = []
    for name in ("ipc", "mnt", "net", "pid", "user", "uts"):
        try:
            own, first = ((agent.directory.parent / pid / "ns" / name).readlink() for pid in (str(agent.pid), "1"))
        except OSError as error:
            return Unknown(f"/proc/1/ns/{name} cannot be read: {error.strerror}")
        if own == first:
            shared.append(name)
    return Known(tuple(shared), "/proc/PID/ns and /proc/1/ns")


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return os.fsdecode(file.read(_MAX_PROC_BYTES))
    except OSError:
        return None
