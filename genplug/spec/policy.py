"""The policy: the most that a configuration may do on a node, set by the node's administrators.

:class:`Policy` decides by name and path. ``genplug.hardware.denied_nodes`` decides by device number, which no policy
can override (docs/reference/configuration.md, "The policy").
"""

import fnmatch
from collections.abc import Sequence
from pathlib import PurePosixPath

from attrs import frozen

from genplug.spec.globs import Glob


@frozen
class Policy:
    """What may be offered, handed out and mounted; as it is made without arguments, it holds where no file says more.

    ``resources`` are globs without braces over whole names, ``file`` is what messages call it, empty without a file. A
    path of a mount is allowed by a glob that matches it or a directory that it lies in. ``programs`` may be run,
    ``cdi`` are globs over qualified names of CDI devices that others define. With ``open_probe`` probes may open device
    nodes.
    """

    file: str = ""
    resources: tuple[str, ...] = ("*",)
    allow: tuple[Glob, ...] = (Glob.parse("/dev/**"),)
    deny: tuple[Glob, ...] = ()
    block: bool = False
    mounts: tuple[Glob, ...] = ()
    writable: tuple[Glob, ...] = ()
    programs: tuple[Glob, ...] = ()
    cdi: tuple[str, ...] = ("*",)
    open_probe: bool = False

    @property
    def name(self) -> str:
        """The policy in a sentence."""
        return self.file or "the default policy"

    @property
    def help(self) -> str:
        """Who can allow what is not allowed."""
        if self.file:
            return f"ask those who administer the nodes to allow it in {self.file}"
        return (
            "only a policy can allow it: ask those who administer the nodes; to check with theirs, pass --policy FILE"
        )

    @property
    def allows_mounts(self) -> bool:
        """Whether anything at all may be mounted."""
        return bool(self.mounts or self.writable)

    def resource_error(self, name: str) -> str:
        """Say which rule refuses a resource of this name; empty if it may be offered."""
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.resources):
            return ""
        return self._refused("resources", _listed(self.resources))

    def device_error(self, path: str) -> str:
        """Say which rule refuses a device node at this path (symlinks followed); empty if it may be handed out."""
        for glob in self.deny:
            if glob.matches(path):
                return f"refused by 'devices.deny' of {self.name}: {glob.text!r}"
        if any(glob.matches(path) for glob in self.allow):
            return ""
        return self._refused("devices.allow", _listed([glob.text for glob in self.allow]))

    def mount_error(self, path: str, *, read_only: bool) -> str:
        """Say which rule refuses a mount of this path of the host; empty if it may be mounted."""
        directories = [path, *map(str, PurePosixPath(path).parents)]
        if any(glob.matches(directory) for glob in self.writable for directory in directories):
            return ""
        if not any(glob.matches(directory) for glob in self.mounts for directory in directories):
            return self._refused("mounts.allow", _listed([glob.text for glob in (*self.mounts, *self.writable)]))
        return "" if read_only else self._refused("mounts.writable", _listed([glob.text for glob in self.writable]))

    def exec_error(self, program: str) -> str:
        """Say which rule refuses to run a program of this path; empty if it may be run."""
        if any(glob.matches(program) for glob in self.programs):
            return ""
        return self._refused("exec.allow", _listed([glob.text for glob in self.programs]))

    def open_error(self) -> str:
        """Say which rule refuses to open device nodes; empty if probes may."""
        return "" if self.open_probe else f"refused by 'openProbe' of {self.name}, which is false"

    def cdi_error(self, name: str) -> str:
        """Say which rule refuses a CDI device of this qualified name; empty if it may be handed out."""
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.cdi):
            return ""
        return self._refused("cdi.allow", _listed(self.cdi))

    def _refused(self, rule: str, allowed: str) -> str:
        return f"refused by '{rule}' of {self.name}, which allows {allowed}"


DEFAULT_POLICY = Policy()


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(texts) or "nothing"
