"""Reads facts of the kubelet: its directories, its sockets, its configuration and what plugins have registered."""

import fcntl
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from genplug.doctor.facts import Kubelet, Machine, PluginsDirectory, Socket, UnknownFactError
from genplug.doctor.machine import read_text
from genplug.kubelet.plugin_dir import KUBELET_SOCKET, PluginDirUnusableError, new_socket_name
from genplug.record.agent_process import is_trusted
from genplug.spec.json_text import parse_json
from genplug.spec.limits import MAX_CHECKPOINT_BYTES, MAX_PLUGIN_SOCKETS, MAX_SEARCHED_PROCESSES

CONNECT_SECONDS = 2.0
CHECKPOINT = "kubelet_internal_checkpoint"
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
"""The booleans of YAML 1.1, which the kubelet reads."""
DEFAULT_CONFIG = "/var/lib/kubelet/config.yaml"
"""The configuration file of a kubelet of kubeadm."""


def read_plugins_directory(machine: Machine) -> PluginsDirectory:
    """Return the state of the directory of the device plugin sockets."""
    path = machine.settings.plugins_dir
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return PluginsDirectory(f"{path}: {error.strerror}")
    try:
        sockets = _list_sockets(path)
        is_locked = _is_locked(descriptor)
    except OSError as error:
        return PluginsDirectory(f"{path}: {error.strerror}")
    finally:
        os.close(descriptor)
    error_text = ""
    if not os.access(path, os.W_OK | os.X_OK):
        error_text = f"this process (user ID {os.geteuid()}) may not create sockets in {path}, or it is read-only"
    else:
        try:
            new_socket_name("example.com/a", path)
        except PluginDirUnusableError as error:
            error_text = str(error)
    return PluginsDirectory(error_text, sockets, is_locked)


def _list_sockets(path: Path) -> tuple[str, ...]:
    names = []
    with os.scandir(path) as entries:
        for entry in entries:
            if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                names.append(entry.name)
            if len(names) >= MAX_PLUGIN_SOCKETS:
                break
    return tuple(sorted(names))


def _is_locked(descriptor: int) -> bool:
    """Return whether an agent has locked the directory. The lock of this process is released at once."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def read_kubelet_socket(machine: Machine) -> Socket:
    """Return whether the socket for registrations accepts a connection."""
    return _try_socket(machine.settings.plugins_dir / KUBELET_SOCKET)


def read_pod_resources_socket(machine: Machine) -> Socket:
    """Return whether the socket of the pod-resources API accepts a connection."""
    return _try_socket(machine.settings.pod_resources)


def _try_socket(path: Path) -> Socket:
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return Socket(path, "is not a socket")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(CONNECT_SECONDS)
            client.connect(os.fspath(path))
    except FileNotFoundError:
        return Socket(path, "does not exist")
    except ConnectionRefusedError:
        return Socket(path, "refuses connections: no kubelet listens on it")
    except TimeoutError:
        return Socket(path, f"does not accept a connection within {CONNECT_SECONDS:g} s")
    except OSError as error:
        return Socket(path, f"cannot be used: {error.strerror or error}")
    return Socket(path)


def read_kubelet(machine: Machine) -> Kubelet:
    """Return the options of the kubelet process, if it is visible, and the features of its configuration file."""
    import yaml  # noqa: PLC0415 - only this function needs it

    options = {} if machine.is_archive else _find_options(machine.proc)
    file = options.get("--config", DEFAULT_CONFIG)
    found = Path(f"{os.fspath(machine.settings.root).rstrip('/')}{file}")
    try:
        # Without types: the constructors of PyYAML raise any exception for a broken number or time.
        document = yaml.load(read_text(found), yaml.BaseLoader)  # noqa: S506 - it constructs texts, lists and mappings
    except (OSError, yaml.YAMLError, RecursionError):
        document = None
    gates = document.get("featureGates") if isinstance(document, dict) else None
    written = gates.items() if isinstance(gates, dict) else ()
    features = {name: _BOOLEANS[value.lower()] for name, value in written if _is_boolean(value)}
    return Kubelet(options.get("--root-dir", ""), str(found) if document is not None else "", features)


def _is_boolean(value: object) -> bool:
    return isinstance(value, str) and value.lower() in _BOOLEANS


def _find_options(proc: Path) -> dict[str, str]:
    """Return the options of the first process of root with the name kubelet; empty without such a process."""
    for number, entry in enumerate(os.scandir(proc)):
        if number >= MAX_SEARCHED_PROCESSES:
            break
        with suppress(OSError):
            process = Path(entry.path)
            is_kubelet = entry.name.isdecimal() and read_text(process / "comm").strip() == "kubelet"
            if is_kubelet and is_trusted(process):
                arguments = read_text(process / "cmdline").split("\0")
                return dict(_parse_options(arguments[1:]))
    return {}


def _parse_options(arguments: list[str]) -> Iterator[tuple[str, str]]:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            yield name, value if equals else following


def read_registered(machine: Machine) -> Mapping[str, frozenset[str]]:
    """Return the device IDs of each resource in the checkpoint of the kubelet.

    The format is ``checkpointData`` of pkg/kubelet/cm/devicemanager/checkpoint in Kubernetes.
    """
    path = machine.settings.plugins_dir / CHECKPOINT
    text = read_text(path, MAX_CHECKPOINT_BYTES)
    try:
        devices = parse_json(text)["Data"]["RegisteredDevices"]
        return {str(name): frozenset(map(str, ids or ())) for name, ids in (devices or {}).items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UnknownFactError(f"{path} does not have the format that genplug knows") from None
