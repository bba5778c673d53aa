"""The policy: what a configuration may do at most, written by those who have the node and not by its editors.

The value answers for names and paths; by which numbers a device node is refused whatever a policy says,
``genplug.hardware.protected`` knows. docs/reference/configuration.md: The policy.
"""

import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from attrs import frozen

from genplug.config.document import ListNode, MapNode, Node, ScalarNode, read, with_lines
from genplug.config.globs import Glob, GlobError, patterns
from genplug.config.kinds import FileKind, is_of_kind
from genplug.config.merge import without_nulls
from genplug.config.place import Place
from genplug.config.problem import Code, ConfigInvalidError, Problems
from genplug.config.schema import POLICY_SCHEMA, check_shape
from genplug.config.sources import Text, read_files
from genplug.config.texts import Texts


@frozen
class Policy:
    """What may be offered, handed out and mounted; as it is made without arguments, it holds where no file says more.

    ``resources`` are globs without braces over whole names, ``file`` is what messages call it, empty without a file. A
    path of a mount is allowed by a glob that matches it or a folder that it lies in. ``programs`` may be run, ``cdi``
    are globs over qualified names of CDI devices that others define. With ``open_probe`` probes may open device nodes.
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

    def resource_fault(self, name: str) -> str:
        """Say which rule refuses a resource of this name; empty if it may be offered."""
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.resources):
            return ""
        return self._refused("resources", _listed(self.resources))

    def device_fault(self, path: str) -> str:
        """Say which rule refuses a device node at this path (symlinks followed); empty if it may be handed out."""
        for glob in self.deny:
            if glob.matches(path):
                return f"refused by 'devices.deny' of {self.name}: {glob.text!r}"
        if any(glob.matches(path) for glob in self.allow):
            return ""
        return self._refused("devices.allow", _listed([glob.text for glob in self.allow]))

    def mount_fault(self, path: str, *, read_only: bool) -> str:
        """Say which rule refuses a mount of this path of the host; empty if it may be mounted."""
        folders = [path, *map(str, PurePosixPath(path).parents)]
        if any(glob.matches(folder) for glob in self.writable for folder in folders):
            return ""
        if not any(glob.matches(folder) for glob in self.mounts for folder in folders):
            return self._refused("mounts.allow", _listed([glob.text for glob in (*self.mounts, *self.writable)]))
        return "" if read_only else self._refused("mounts.writable", _listed([glob.text for glob in self.writable]))

    def exec_fault(self, program: str) -> str:
        """Say which rule refuses to run a program of this path; empty if it may be run."""
        if any(glob.matches(program) for glob in self.programs):
            return ""
        return self._refused("exec.allow", _listed([glob.text for glob in self.programs]))

    def open_fault(self) -> str:
        """Say which rule refuses to open device nodes; empty if probes may."""
        return "" if self.open_probe else f"refused by 'openProbe' of {self.name}, which is false"

    def cdi_fault(self, name: str) -> str:
        """Say which rule refuses a CDI device of this qualified name; empty if it may be handed out."""
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.cdi):
            return ""
        return self._refused("cdi.allow", _listed(self.cdi))

    def _refused(self, rule: str, allowed: str) -> str:
        return f"refused by '{rule}' of {self.name}, which allows {allowed}"


DEFAULT_POLICY = Policy()


@frozen
class LoadedPolicy:
    """A policy, and the folders to watch for changes of its file."""

    policy: Policy
    folders: frozenset[Path] = frozenset()


def load_policy(path: Path | None) -> LoadedPolicy:
    """Read and decode a policy's file; the default without one.

    Raises:
        ConfigInvalidError: with every mistake found, and the folders to watch for a better file.
    """
    if path is None:
        return LoadedPolicy(DEFAULT_POLICY)
    problems = Problems()
    reading = read_files((path,), None, problems)
    # What is found in a folder is called otherwise than the folder.
    if any(text.name != str(path) for text in reading.texts):
        message, hint = "this is a folder, and a policy is one file", f"name the file: {reading.texts[0].name}"
        problems.add(Code.UNREADABLE, Place(str(path), 1, 1), message, hint=hint)
    if problems.found:
        raise ConfigInvalidError(problems.found, reading.folders)
    try:
        return LoadedPolicy(decoded_policy(reading.texts[0]), reading.folders)
    except ConfigInvalidError as error:
        raise ConfigInvalidError(error.problems, reading.folders) from None


def decoded_policy(text: Text) -> Policy:
    """Decode a policy's text.

    Raises:
        ConfigInvalidError: with every mistake found.
    """
    problems = Problems()
    tree = read(text.text, text.name, problems)
    policy = None
    if isinstance(tree, MapNode):
        if is_of_kind([tree], FileKind.POLICY, problems):
            tree = without_nulls(tree)
            check_shape(tree, problems, POLICY_SCHEMA)
            policy = _decoded(tree, text.name, problems)
    elif not problems.found:
        place = tree.place if tree is not None else Place(text.name, 1, 1)
        message, expected = "the file is no map", "a map with apiVersion, kind and what the policy allows"
        hint = "an empty policy allows what no policy does: write apiVersion and kind"
        problems.add(Code.WRONG_TYPE, place, message, expected=expected, hint=hint)
    if policy is None or problems.found:
        raise ConfigInvalidError(with_lines(problems, {text.name: text.text}))
    return policy


def is_policy(text: str) -> bool:
    """Say whether a file's text calls itself a policy."""
    tree = read(text, "", Problems()) if FileKind.POLICY in text else None
    kind = tree.get("kind") if isinstance(tree, MapNode) else None
    return isinstance(kind, ScalarNode) and kind.text == FileKind.POLICY


def _decoded(tree: MapNode, file: str, problems: Problems) -> Policy:
    texts = Texts(problems)

    def globs(part: str, key: str) -> tuple[Glob, ...] | None:
        inner = tree.get(part)
        written = inner.get(key) if isinstance(inner, MapNode) else None
        return texts.globs(written, f"{part}.{key}") if isinstance(written, ListNode) else None

    cdi = tree.get("cdi")
    cdi_names = cdi.get("allow") if isinstance(cdi, MapNode) else None
    names, allow = tree.get("resources"), globs("devices", "allow")
    return Policy(
        file=file,
        resources=DEFAULT_POLICY.resources if names is None else tuple(_names(names, "resources", problems)),
        allow=DEFAULT_POLICY.allow if allow is None else allow,
        deny=globs("devices", "deny") or (),
        block=_is_true(tree.get("devices"), "block"),
        mounts=globs("mounts", "allow") or (),
        writable=globs("mounts", "writable") or (),
        programs=globs("exec", "allow") or (),
        cdi=DEFAULT_POLICY.cdi if cdi_names is None else tuple(_names(cdi_names, "cdi.allow", problems)),
        open_probe=_is_true(tree, "openProbe"),
    )


def _names(node: Node, where: str, problems: Problems) -> Iterator[str]:
    for one in node.items if isinstance(node, ListNode) else ():
        if isinstance(one, ScalarNode) and isinstance(one.value, str):
            try:
                yield from patterns(one.text)
            except GlobError as error:
                place, message = one.at(error.offset), f"{one.text!r}: {error}"
                problems.add(Code.GLOB, place, message, tree=where, hint=error.hint)


def _is_true(node: Node | None, key: str) -> bool:
    value = node.get(key) if isinstance(node, MapNode) else None
    return isinstance(value, ScalarNode) and value.value is True


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(texts) or "nothing"
