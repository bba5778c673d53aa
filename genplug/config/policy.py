"""Reads the policy file (docs/reference/policy.md) into a :class:`genplug.spec.policy.Policy`."""

from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from genplug.config.decode.values import ValueDecoder
from genplug.config.diagnostics import ConfigInvalidError, Diagnostics, ErrorCode
from genplug.config.file_kind import FileKind, check_kind
from genplug.config.files import ConfigFile, read_files
from genplug.config.merge import drop_nulls
from genplug.config.schema import POLICY_SCHEMA, check_schema
from genplug.config.yaml_tree import ListNode, MapNode, Node, ScalarNode, attach_source_lines, parse_document
from genplug.spec.globs import Glob, GlobError, expand_braces
from genplug.spec.location import SourceLocation
from genplug.spec.policy import DEFAULT_POLICY, Policy


@frozen
class LoadedPolicy:
    """A policy, and the directories to watch for changes of its file."""

    policy: Policy
    directories: frozenset[Path] = frozenset()


def load_policy(path: Path | None) -> LoadedPolicy:
    """Load a policy file, or return the default policy for None.

    Raises:
        ConfigInvalidError: with every mistake found, and the directories to watch for a corrected file.
    """
    if path is None:
        return LoadedPolicy(DEFAULT_POLICY)
    problems = Diagnostics()
    files = read_files((path,), None, problems)
    # A name that differs from the given path means that the path is a directory.
    if any(text.name != str(path) for text in files.texts):
        message, hint = "expected a policy file, found a directory", f"name the file: {files.texts[0].name}"
        problems.add(ErrorCode.UNREADABLE, SourceLocation(str(path), 1, 1), message, hint=hint)
    if problems.found:
        raise ConfigInvalidError(problems.found, files.directories)
    try:
        return LoadedPolicy(decode_policy(files.texts[0]), files.directories)
    except ConfigInvalidError as error:
        raise ConfigInvalidError(error.problems, files.directories) from None


def decode_policy(text: ConfigFile) -> Policy:
    """Decode the text of a policy file.

    Raises:
        ConfigInvalidError: with every mistake found.
    """
    problems = Diagnostics()
    tree = parse_document(text.text, text.name, problems)
    policy = None
    if isinstance(tree, MapNode):
        if check_kind([tree], FileKind.POLICY, problems):
            tree = drop_nulls(tree)
            check_schema(tree, problems, POLICY_SCHEMA)
            policy = _decode(tree, text.name, problems)
    elif not problems.found:
        location = tree.location if tree is not None else SourceLocation(text.name, 1, 1)
        message, expected = (
            "the top level is not a mapping",
            "a mapping with apiVersion, kind and what the policy allows",
        )
        hint = "for the default policy, write apiVersion and kind only"
        problems.add(ErrorCode.WRONG_TYPE, location, message, expected=expected, hint=hint)
    if policy is None or problems.found:
        raise ConfigInvalidError(attach_source_lines(problems, {text.name: text.text}))
    return policy


def is_policy(text: str) -> bool:
    """Return whether the text of a file declares the kind of a policy."""
    tree = parse_document(text, "", Diagnostics()) if FileKind.POLICY in text else None
    kind = tree.get("kind") if isinstance(tree, MapNode) else None
    return isinstance(kind, ScalarNode) and kind.text == FileKind.POLICY


def _decode(tree: MapNode, file: str, problems: Diagnostics) -> Policy:
    values = ValueDecoder(problems)

    def globs(part: str, key: str) -> tuple[Glob, ...] | None:
        inner = tree.get(part)
        written = inner.get(key) if isinstance(inner, MapNode) else None
        return values.globs(written, f"{part}.{key}") if isinstance(written, ListNode) else None

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


def _names(node: Node, where: str, problems: Diagnostics) -> Iterator[str]:
    for item in node.items if isinstance(node, ListNode) else ():
        if isinstance(item, ScalarNode) and isinstance(item.value, str):
            try:
                yield from expand_braces(item.text)
            except GlobError as error:
                location, message = item.at(error.offset), f"{item.text!r}: {error}"
                problems.add(ErrorCode.GLOB, location, message, key_path=where, hint=error.hint)


def _is_true(node: Node | None, key: str) -> bool:
    value = node.get(key) if isinstance(node, MapNode) else None
    return isinstance(value, ScalarNode) and value.value is True
