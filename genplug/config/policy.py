"""Reads the policy file (docs/reference/configuration.md, "The policy") into a :class:`genplug.spec.policy.Policy`."""

from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from genplug.config.decode.values import Texts
from genplug.config.diagnostics import Code, ConfigInvalidError, Problems
from genplug.config.file_kind import FileKind, is_of_kind
from genplug.config.files import Text, read_files
from genplug.config.merge import without_nulls
from genplug.config.schema import POLICY_SCHEMA, check_shape
from genplug.config.yaml_tree import ListNode, MapNode, Node, ScalarNode, read, with_lines
from genplug.spec.globs import Glob, GlobError, patterns
from genplug.spec.location import Place
from genplug.spec.policy import DEFAULT_POLICY, Policy


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
