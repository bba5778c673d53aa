"""The policy: the limits of a configuration on a node, set by the node's administrators.

:class:`Policy` decides by name and path. ``genplug.hardware.denied_nodes`` decides by what a device node is
(docs/reference/policy.md).
"""

import fnmatch
from collections.abc import Sequence
from pathlib import PurePosixPath

from msgspec import Struct
from msgspec.structs import force_setattr

from genplug.spec.denied_variables import RUNTIME_DEVICES, denied_value_effect, denied_variable_effect
from genplug.spec.globs import Glob
from genplug.spec.read_rules import DEFAULT_READ_RULES, ReadRules, list_trees, literal_path
from genplug.struct_values import compare_without, hide_in_repr

DEFAULT_READ_VARIABLES = ("NODE_NAME", "NODE_IP", "HOST_IP", "POD_NAME", "POD_NAMESPACE", "POD_UID", "POD_IP")
"""The usual names of what the downward API gives to the pod of an agent. Other variables may contain secrets."""


@compare_without("_device_trees")
@hide_in_repr("_device_trees")
class Policy(Struct, frozen=True):
    """Limits on what a configuration may offer, hand out, mount and run. The defaults apply without a policy file.

    - ``file``: the name of the policy file for messages; empty without a file.
    - ``resources``: globs (without braces) over complete resource names.
    - ``allow``, ``deny``: globs over the resolved paths of device nodes; ``deny`` wins. ``block`` allows block devices.
    - ``unsafe``: names of entries of the built-in list of denied device nodes that are allowed nevertheless.
    - ``mounts``, ``writable``: globs over host paths; a path is also allowed if a glob matches one of its parents.
    - ``mount_targets``: globs over paths of a container in directories of programs, at which mounts may be.
    - ``programs``: globs over the paths of programs that probes and ``preStart`` may run.
    - ``cdi``: globs over the qualified names of other programs' CDI devices.
    - ``read``: which files attributes and probes may read.
    - ``read_env``: globs over the names of environment variables of the genplug process that ``env.NAME`` may read.
    - ``http``: the addresses to which ``http`` and ``tcpSocket`` probes may connect (``genplug.spec.connect_rules``).
    - ``unix_sockets``: globs over the paths of sockets to which ``unixSocket`` probes may connect.
    - ``annotations``: globs over the keys of annotations.
    - ``env``: globs over the names of environment variables, or over ``NAME=VALUE``, that are allowed although they are
      in the built-in list (``genplug.spec.denied_variables``).
    - ``groups``: group IDs that the processes of a container may get in addition.
    - ``open_probe``: whether probes may open device nodes.
    """

    file: str = ""
    resources: tuple[str, ...] = ("*",)
    allow: tuple[Glob, ...] = (Glob.parse("/dev/**"),)
    deny: tuple[Glob, ...] = ()
    block: bool = False
    unsafe: tuple[str, ...] = ()
    mounts: tuple[Glob, ...] = ()
    writable: tuple[Glob, ...] = ()
    mount_targets: tuple[Glob, ...] = ()
    programs: tuple[Glob, ...] = ()
    cdi: tuple[str, ...] = ()
    read: ReadRules = DEFAULT_READ_RULES
    read_env: tuple[str, ...] = DEFAULT_READ_VARIABLES
    http: tuple[str, ...] = ("127.0.0.0/8", "::1")
    unix_sockets: tuple[Glob, ...] = ()
    annotations: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    open_probe: bool = False
    _device_trees: tuple[str, ...] = ()
    """The directories below which ``allow`` matches everything, with a slash at the end: a fast path."""

    def __post_init__(self) -> None:
        force_setattr(self, "_device_trees", list_trees(self.allow))

    @property
    def name(self) -> str:
        """The name of this policy in messages."""
        return self.file or "the default policy"

    @property
    def help(self) -> str:
        """The hint of messages about a forbidden thing: who can allow it."""
        if self.file:
            return f"ask the node administrators to allow it in {self.file}"
        return (
            "only a policy can allow it: ask the node administrators; to validate with their policy, pass --policy FILE"
        )

    @property
    def allows_mounts(self) -> bool:
        """Whether any path may be mounted."""
        return bool(self.mounts or self.writable)

    def resource_error(self, name: str) -> str:
        """Return which rule forbids a resource name, or an empty string."""
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.resources):
            return ""
        return self._refuse("resources", _format_list(self.resources))

    def device_error(self, path: str) -> str:
        """Return which rule forbids a device node at this resolved path, or an empty string."""
        for glob in self.deny:
            if glob.matches(path):
                return f"refused by 'devices.deny' of {self.name}: {glob.text!r}"
        if path.startswith(self._device_trees) or any(glob.matches(path) for glob in self.allow):
            return ""
        return self._refuse("devices.allow", _format_list([glob.text for glob in self.allow]))

    def mount_error(self, path: str, *, read_only: bool) -> str:
        """Return which rule forbids a mount of this host path, or an empty string."""
        directories = [path, *map(str, PurePosixPath(path).parents)]
        if any(glob.matches(directory) for glob in self.writable for directory in directories):
            return ""
        if not any(glob.matches(directory) for glob in self.mounts for directory in directories):
            return self._refuse("mounts.allow", _format_list([glob.text for glob in (*self.mounts, *self.writable)]))
        return "" if read_only else self._refuse("mounts.writable", _format_list([glob.text for glob in self.writable]))

    def exec_error(self, program: str) -> str:
        """Return which rule forbids running the program at this path, or an empty string."""
        if any(glob.matches(program) for glob in self.programs):
            return ""
        return self._refuse("exec.allow", _format_list([glob.text for glob in self.programs]))

    def open_error(self) -> str:
        """Return which rule forbids probes to open device nodes, or an empty string."""
        return "" if self.open_probe else f"refused by 'openProbe' of {self.name}, which is false"

    def cdi_error(self, name: str) -> str:
        """Return which rule forbids a CDI device of this qualified name, or an empty string."""
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.cdi):
            return ""
        return self._refuse("cdi.allow", _format_list(self.cdi))

    def read_error(self, path: str) -> str:
        """Return which rule forbids attributes and probes to read the file at a path, or an empty string."""
        return "" if self.read.allows(path) else self._refuse_read()

    def read_below_error(self, directory: str) -> str:
        """Return which rule forbids to read any file below a directory, or an empty string."""
        return "" if self.read.may_allow_below(directory) else self._refuse_read()

    def read_glob_error(self, glob: Glob) -> str:
        """Return which rule forbids to search for a glob of files to read, or an empty string."""
        return "" if self.read.may_allow_match(glob) else self._refuse_read()

    def read_env_error(self, name: str) -> str:
        """Return which rule forbids to read an environment variable of the genplug process, or an empty string."""
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.read_env):
            return ""
        return self._refuse("read.env", _format_list(self.read_env))

    def candidate_error(self, path: str) -> str:
        """Return which rule forbids that a glob of ``devices`` names a path, or an empty string.

        A path may be named if it is in ``/dev``, or if a container may get it.
        """
        if path.startswith("/dev/") or self.read.allows(path) or not self.mount_error(path, read_only=True):
            return ""
        return self._refuse_read() if self.device_error(path) else ""

    def candidate_below_error(self, directory: str) -> str:
        """Return which rule forbids that a glob of ``devices`` names a path below a directory, or an empty string."""
        if f"{directory}/".startswith("/dev/"):
            return ""
        globs = (*self.mounts, *self.writable, *self.allow)
        is_possible = self.read.may_allow_below(directory) or any(glob.may_match_below(directory) for glob in globs)
        # A mount of a directory includes everything below it.
        return "" if is_possible or not self.mount_error(directory, read_only=True) else self._refuse_read()

    def node_glob_error(self, glob: Glob) -> str:
        """Return which rule forbids to search for a glob of device nodes, or an empty string.

        Each alternative must lead to paths that may be named: a search elsewhere would reveal which paths exist.
        """
        errors = (
            self.candidate_error(path) if is_literal else self.candidate_below_error(path)
            for path, is_literal in map(literal_path, glob.alternatives)
        )
        return next(filter(None, errors), "")

    def _refuse_read(self) -> str:
        return self._refuse("read.allow", _format_list([glob.text for glob in self.read.globs]))

    def connect_error(self, host: str, port: int) -> str:
        """Return which rule forbids probes to connect to a port of a host, or an empty string.

        A name is allowed if it may resolve to an allowed address: the addresses count when a probe runs.
        """
        # Imported here: most configurations have no probe that connects.
        from genplug.spec.connect_rules import CLUSTER_PORTS, parse_address, parse_connect_rules  # noqa: PLC0415

        rules, address = parse_connect_rules(self.http), parse_address(host)
        is_allowed = rules.may_allow_name(host, port) if address is None else rules.allows(host, address, port)
        if is_allowed:
            return ""
        error = self._refuse("http.allow", _format_list(self.http))
        is_reserved = port in CLUSTER_PORTS
        return f"{error}; only an entry with the port allows {port}, a port of the cluster" if is_reserved else error

    def unix_socket_error(self, path: str) -> str:
        """Return which rule forbids probes to connect to the socket at a path, or an empty string."""
        if any(glob.matches(path) for glob in self.unix_sockets):
            return ""
        return self._refuse("unixSocket.allow", _format_list([glob.text for glob in self.unix_sockets]))

    def annotation_error(self, key: str) -> str:
        """Return which rule forbids an annotation with this key, or an empty string."""
        if any(fnmatch.fnmatchcase(key, pattern) for pattern in self.annotations):
            return ""
        return self._refuse("annotations.allow", _format_list(self.annotations))

    def env_error(self, name: str, value: str | None = None) -> str:
        """Return which rule forbids an environment variable, or an empty string; None is a value that is not known."""
        effect = denied_variable_effect(name) or self._runtime_devices_effect(name)
        effect = effect or (denied_value_effect(name, value) if value is not None else "")
        if not effect:
            return ""
        texts = (name,) if value is None else (name, f"{name}={value}")
        if any(fnmatch.fnmatchcase(text, pattern) for pattern in self.env for text in texts):
            return ""
        if value is None and any(pattern.startswith(f"{name}=") for pattern in self.env):
            return ""
        return f"refused by 'env.allow' of {self.name}: it {effect}"

    def _runtime_devices_effect(self, name: str) -> str:
        """Return which denied device nodes a container runtime adds for a variable, as a clause that follows "it"."""
        alternatives = RUNTIME_DEVICES.get(name, ())
        denied = [next((path for path in nodes if self.device_error(path)), "") for nodes in alternatives]
        if not denied or not all(denied):
            return ""
        return f"makes a container runtime add the devices of its value, and 'devices' of the policy denies {denied[0]}"

    def mount_target_error(self, path: str) -> str:
        """Return which rule forbids a mount at a path in a directory of programs, or an empty string."""
        if any(glob.matches(path) for glob in self.mount_targets):
            return ""
        return self._refuse("mounts.targets", _format_list([glob.text for glob in self.mount_targets]))

    def group_error(self, group: int) -> str:
        """Return which rule forbids an additional group for the processes of a container, or an empty string."""
        if group in self.groups:
            return ""
        return self._refuse("supplementalGroups.allow", _format_list([str(allowed) for allowed in self.groups]))

    def _refuse(self, rule: str, allowed: str) -> str:
        return f"refused by '{rule}' of {self.name}, which allows {allowed}"


DEFAULT_POLICY = Policy()


def _format_list(texts: Sequence[str]) -> str:
    return ", ".join(texts) or "nothing"
