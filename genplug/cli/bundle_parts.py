"""Collects the parts of a bundle: requests to the agent and the kubelet, outputs of commands, and files.

Each part has a time limit, and its failure is its reason for being missing.
"""

import asyncio
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from msgspec import Struct

from genplug import __version__
from genplug.bundle.contents import Kind, Part
from genplug.cli.options import NODE_NAME_VARIABLES, Address, format_address
from genplug.config.diagnostics import Diagnostics
from genplug.config.files import read_files
from genplug.kubelet.pod_resources import DEADLINE_SECONDS, list_device_uses
from genplug.observe.text import format_time
from genplug.record.agent_process import AgentProcess, describe_method
from genplug.record.facts import Unknown, build_document
from genplug.spec.json_text import parse_json
from genplug.spec.limits import MAX_BUNDLE_FILE_BYTES, MAX_BUNDLE_LOG_BYTES

_PART_SECONDS = 60.0
_CAPTURE_SECONDS = 300.0
"""A capture without a configuration reads what all recipes read."""
_REQUEST_SECONDS = 5.0
_MAX_CAPTURE_BYTES = 256 << 20
_MAX_ENTRIES = 1000
"""Entries of a directory of the kubelet that are listed."""
_MAX_PROC_BYTES = 1 << 20
_VARIABLE_PREFIX = "GENPLUG_"
_SYSTEM_FILES = (
    "/proc/version",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/pid_max",
    "/proc/sys/fs/file-nr",
    "/proc/sys/fs/inotify/max_queued_events",
    "/proc/sys/fs/inotify/max_user_instances",
    "/proc/sys/fs/inotify/max_user_watches",
    "/proc/sys/user/max_user_namespaces",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory.current",
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/pids.max",
)
_MOUNTS = ("/dev", "/sys", "/proc", "/run", "/var/lib/kubelet", "/etc/genplug", "/etc/cdi", "/var/run/cdi", "/host")
"""Mounts whose options a report needs; others can contain names of volumes."""


class PartError(Exception):
    """A part cannot be collected; the text is the reason."""


class BundleSources(Struct, frozen=True):
    """Where the parts of a bundle are.

    ``agent`` is the process of the agent or why it is not known, and ``log`` is the content of the log, if the operator
    passed it.
    """

    config: Sequence[str]
    policy: Path | None
    root: str
    node_name: str | None
    cdi_search_dirs: Sequence[str]
    address: Address
    plugin_dir: Path
    pod_resources_dir: Path
    agent: AgentProcess | Unknown
    log: bytes | None = None
    has_capture: bool = True

    def options(self) -> list[str]:
        """Return the options that select configuration, policy, node and root of a command."""
        options = ["--config", *self.config] if self.config else []
        options += ["--policy", os.fspath(self.policy)] if self.policy is not None else []
        options += ["--node-name", self.node_name] if self.node_name else []
        return [*options, "--root", self.root, "--cdi-search-dirs", ":".join(self.cdi_search_dirs)]


def collect_parts(sources: BundleSources) -> Iterator[Part]:
    """Yield the parts of a bundle in their order."""
    yield _collect("version.json", "versions of genplug and its libraries", Kind.DOCUMENT, _read_versions)
    yield _collect("agent.json", "process of the agent", Kind.DOCUMENT, lambda: _describe_agent(sources.agent))
    yield from _read_configuration(sources)
    yield _collect("status.json", "status of the agent", Kind.DOCUMENT, lambda: _request(sources.address, "/statusz"))
    yield _collect(
        "readyz.txt", "readiness of the agent", Kind.TEXT, lambda: _request(sources.address, "/readyz?verbose")
    )
    yield _collect("metrics.txt", "metrics of the agent", Kind.TEXT, lambda: _request(sources.address, "/metrics"))
    yield from _run_commands(sources)
    yield _collect("pod-resources.json", "containers with devices", Kind.DOCUMENT, lambda: _list_uses(sources))
    yield _collect("kubelet.json", "sockets of the kubelet", Kind.DOCUMENT, lambda: _list_sockets(sources))
    yield _collect("system.json", "kernel, limits and mounts", Kind.DOCUMENT, lambda: _describe_system(sources))
    if sources.log is not None:
        yield Part("log.txt", "log of the agent", Kind.LOG, cut_log(sources.log))
    if sources.has_capture:
        arguments = ["capture", "-o", "-", *sources.options()]
        yield _collect(
            "node.tar.gz",
            "what the configuration reads from the node",
            Kind.CAPTURE,
            lambda: _run(arguments, _CAPTURE_SECONDS, _MAX_CAPTURE_BYTES, {0}),
            _CAPTURE_SECONDS,
        )


def cut_log(content: bytes) -> bytes:
    """Return the end of a log, from the start of a line."""
    if len(content) <= MAX_BUNDLE_LOG_BYTES:
        return content
    return content[-MAX_BUNDLE_LOG_BYTES:].partition(b"\n")[2]


def _collect(
    file: str, description: str, kind: Kind, read: Callable[[], bytes], seconds: float = _PART_SECONDS
) -> Part:
    """Return a part that a function reads within a time limit (seconds)."""
    results: list[Part] = []

    def collect() -> None:
        try:
            part = Part(file, description, kind, read())
        except PartError as error:
            part = Part(file, description, kind, error=str(error))
        except Exception as error:  # noqa: BLE001 - a failed part must not end the others
            part = Part(file, description, kind, error=f"{type(error).__name__}: {error}")
        results.append(part)

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(seconds + _REQUEST_SECONDS)
    reason = f"expected an end within {seconds:g} seconds: a file or a program does not respond"
    return results[0] if results else Part(file, description, kind, error=reason)


def _to_json(document: object) -> bytes:
    return json.dumps(document).encode()


def _read_versions() -> bytes:
    from importlib.metadata import PackageNotFoundError, requires, version  # noqa: PLC0415 - for a bundle only

    libraries = {}
    with suppress(PackageNotFoundError):
        for requirement in requires("genplug") or ():
            if "extra" in requirement:
                continue
            name = requirement.partition(";")[0].strip().split("[")[0].split(">")[0].split("=")[0].split("<")[0].strip()
            with suppress(PackageNotFoundError):
                libraries[name] = version(name)
    return _to_json(
        {
            "genplug": __version__,
            "python": sys.version.split()[0],
            "implementation": platform.python_implementation(),
            "machine": platform.machine(),
            "kernel": platform.release(),
            "libc": " ".join(platform.libc_ver()),
            "libraries": libraries,
        }
    )


def _describe_agent(agent: AgentProcess | Unknown) -> bytes:
    if isinstance(agent, Unknown):
        raise PartError(agent.reason)
    environment = {
        name: value
        for name, value in agent.environment.items()
        if name.startswith(_VARIABLE_PREFIX) or name in NODE_NAME_VARIABLES
    }
    return _to_json(
        {
            "pid": agent.pid,
            "command": ["genplug", "run", *agent.arguments],
            "environment": environment,
            "method": build_document(describe_method(agent)),
            "limits": _read_text(agent.directory / "limits"),
            "fileDescriptors": _count(agent.directory / "fd"),
            "inotifyWatches": _count_watches(agent.directory / "fdinfo"),
        }
    )


def _read_configuration(sources: BundleSources) -> Iterator[Part]:
    description = "configuration file"
    if not sources.config:
        reason = "no configuration is known: pass --config PATH, or run this command in the container of the agent"
        yield Part("configuration", description, Kind.CONFIGURATION, error=reason)
    diagnostics = Diagnostics()
    try:
        files = (
            read_files([Path(path) for path in sources.config], sources.node_name, diagnostics)
            if sources.config
            else None
        )
    except Exception as error:  # noqa: BLE001 - a failed part must not end the others
        yield Part("configuration", description, Kind.CONFIGURATION, error=f"{type(error).__name__}: {error}")
        files = None
    for number, found in enumerate(files.texts if files is not None else (), 1):
        name = f"configuration/{number:02d}-{Path(found.name).name}"
        yield Part(name, f"{description} {found.name}", Kind.CONFIGURATION, found.text.encode())
    for number, diagnostic in enumerate(diagnostics.found, 1):
        reason = f"{diagnostic.location.file}: {diagnostic.message}"
        yield Part(f"configuration/unread-{number:02d}", description, Kind.CONFIGURATION, error=reason)
    if sources.policy is not None:
        path = sources.policy
        yield _collect("policy.yaml", f"policy {path}", Kind.CONFIGURATION, lambda: _read_bytes(path))


def _run_commands(sources: BundleSources) -> Iterator[Part]:
    """Yield the outputs of the commands that describe the configuration on this node."""
    options = sources.options()
    policy = ["--policy", os.fspath(sources.policy)] if sources.policy is not None else []
    commands: dict[str, tuple[str, Kind, list[str]]] = {}
    if sources.config:
        commands["validate.json"] = (
            "errors and warnings", Kind.DOCUMENT, ["validate", "-o", "json", *policy, *sources.config],
        )  # fmt: skip
        commands["plan.txt"] = ("devices, and reasons for each path", Kind.TEXT, ["plan", "--explain", *options])
        address = ["--address", format_address(sources.address)]
        commands["record.json"] = ("governance record", Kind.DOCUMENT, ["record", "-o", "json", *options, *address])
    directories = ["--device-plugins-dir", os.fspath(sources.plugin_dir)]
    directories += ["--pod-resources-dir", os.fspath(sources.pod_resources_dir)]
    commands["doctor.json"] = ("checks of the node", Kind.DOCUMENT, ["doctor", "-o", "json", *options, *directories])
    for file, (description, kind, arguments) in commands.items():
        yield _collect(file, f"{description}: genplug {arguments[0]}", kind, lambda words=arguments: _run(words))  # type: ignore[misc] # mypy does not know the default


def _run(
    arguments: Sequence[str],
    seconds: float = _PART_SECONDS,
    max_bytes: int = MAX_BUNDLE_FILE_BYTES,
    codes: set[int] | None = None,
) -> bytes:
    """Return what a command prints; without ``codes``, any exit code is accepted if the command prints something.

    Raises:
        PartError: the command fails, does not end, or prints too much.
    """
    with TemporaryFile() as output, TemporaryFile() as messages:
        command = [sys.executable, "-m", "genplug", *arguments]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=messages)  # noqa: S603 - our own command
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            message = f"genplug {arguments[0]} does not end within {seconds:g} seconds"
            raise PartError(message) from None
        output.seek(0)
        content = output.read(max_bytes + 1)
        messages.seek(0)
        text = messages.read(4096).decode("utf-8", "replace").strip()
    if len(content) > max_bytes:
        message = f"genplug {arguments[0]} prints more than {max_bytes >> 20} MiB"
        raise PartError(message)
    if not content or (codes is not None and code not in codes):
        message = f"genplug {arguments[0]} ends with exit code {code}: {text[-1000:]}"
        raise PartError(message)
    return content


def _request(address: Address, path: str) -> bytes:
    """Return the response of the agent to a request.

    Raises:
        PartError: the agent does not respond, or refuses the request.
    """
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415 - takes 20 ms, and --help does not need it

    host, port = address
    host = "127.0.0.1" if host in {"", "0.0.0.0", "::"} else host  # noqa: S104 - hosts to replace, nothing is bound
    url = f"http://{format_address((host, port))}{path}"
    try:
        with closing(HTTPConnection(host, port, timeout=_REQUEST_SECONDS)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            content = response.read(MAX_BUNDLE_FILE_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        message = f"no response from {url}: {error}"
        raise PartError(message) from None
    # An agent that is not ready responds to /readyz with 503.
    if response.status >= 400 and not path.startswith("/readyz"):  # noqa: PLR2004 - the first status of an error
        message = f"{url} responds with {response.status} {content[:200].decode('utf-8', 'replace').strip()}"
        raise PartError(message)
    return content


def _list_uses(sources: BundleSources) -> bytes:
    socket = sources.pod_resources_dir / "kubelet.sock"
    uses = asyncio.run(list_device_uses(socket, DEADLINE_SECONDS))
    return _to_json(
        [
            {
                "resource": use.resource,
                "namespace": use.namespace,
                "pod": use.pod,
                "container": use.container,
                "ids": list(use.ids),
            }
            for use in uses
        ]
    )


def _list_sockets(sources: BundleSources) -> bytes:
    return _to_json({os.fspath(path): _list_entries(path) for path in (sources.plugin_dir, sources.pod_resources_dir)})


def _list_entries(directory: Path) -> object:
    try:
        with os.scandir(directory) as entries:
            found = sorted(islice(entries, _MAX_ENTRIES), key=lambda entry: entry.name)
            return [_describe_entry(entry) for entry in found]
    except OSError as error:
        return {"error": error.strerror}


def _describe_entry(entry: "os.DirEntry[str]") -> Mapping[str, object]:
    import stat  # noqa: PLC0415 - for a bundle only

    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return {"name": entry.name, "error": error.strerror}
    return {"name": entry.name, "mode": stat.filemode(status.st_mode), "uid": status.st_uid, "bytes": status.st_size}


def _describe_system(sources: BundleSources) -> bytes:
    directory = Path("/proc/self") if isinstance(sources.agent, Unknown) else sources.agent.directory
    mounts = [line for line in (_read_text(directory / "mountinfo") or "").splitlines() if _is_relevant_mount(line)]
    release = Path(sources.root) / "etc/os-release"
    return _to_json(
        {
            "time": format_time(time.time()),
            "system": _read_text(release) if release.is_file() else None,
            "files": {path: _read_text(Path(path)) for path in _SYSTEM_FILES},
            "mounts": mounts,
        }
    )


def _is_relevant_mount(line: str) -> bool:
    fields = line.split(" ")
    point = fields[4] if len(fields) > 4 else ""  # noqa: PLR2004 - the mount point in proc_pid_mountinfo(5)
    return point == "/" or (point.startswith(_MOUNTS) and "/pods/" not in point)


def _read_text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_PROC_BYTES).decode("utf-8", "replace")
    except OSError:
        return None


def _read_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BUNDLE_FILE_BYTES + 1)


def _count(directory: Path) -> int | None:
    try:
        return sum(1 for _ in os.scandir(directory))
    except OSError:
        return None


def _count_watches(directory: Path) -> int | None:
    """Return the number of inotify watches of a process (proc_pid_fdinfo(5)), or None if it may not be read."""
    try:
        names = [entry.name for entry in os.scandir(directory)]
    except OSError:
        return None
    return sum((_read_text(directory / name) or "").count("\ninotify wd") for name in names)


def find_environment_secrets(texts: Sequence[str], environments: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yield the values of environment variables that a configuration refers to, or that have the name of a secret."""
    import re  # noqa: PLC0415 - for a bundle only

    from genplug.bundle.redaction import is_secret_name  # noqa: PLC0415 - see above

    names: set[str] = set()
    for text in texts:
        names |= set(re.findall(r"\$\{env\.(\w+)", text))
    names -= set(NODE_NAME_VARIABLES)
    for environment in environments:
        for name, value in environment.items():
            if name in names or is_secret_name(name):
                yield value


def describe_pods(parts: Sequence[Part]) -> Mapping[str, str]:
    """Return what replaces the names of pods and of their namespaces: numbers in the order of the names."""
    pods: set[tuple[str, str]] = set()
    for part in parts:
        if part.kind is Kind.DOCUMENT and part.content:
            with suppress(ValueError):
                pods |= set(_find_pods(parse_json(part.content)))
    namespaces = {name: f"namespace-{number}" for number, name in enumerate(sorted({pod[0] for pod in pods}), 1)}
    replaced = {}
    for number, (namespace, pod) in enumerate(sorted(pods), 1):
        replaced[f"{namespace}/{pod}"] = f"{namespaces[namespace]}/pod-{number}"
        replaced[pod] = f"pod-{number}"
    return replaced | {name: text for name, text in namespaces.items() if name not in {"default", ""}}


def _find_pods(value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - a value of JSON
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            namespace, pod = item.get("namespace"), item.get("pod")
            if isinstance(namespace, str) and isinstance(pod, str) and pod:
                yield namespace, pod
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
