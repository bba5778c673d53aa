"""Reads the policy file (docs/reference/policy.md) into a :class:`genplug.spec.policy.Policy`."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

from msgspec import Struct

from genplug.config.decode.values import ValueDecoder, integer, is_set, items
from genplug.config.diagnostics import ConfigInvalidError, Diagnostics, TooManyErrorsError, sort_unique
from genplug.config.file_kind import FileKind, check_kind
from genplug.config.files import ConfigFile, read_files
from genplug.config.foreign_files import foreign_file_diagnostic
from genplug.config.lint import find_policy_warnings
from genplug.config.merge import drop_nulls
from genplug.config.schema import POLICY_SCHEMA, check_schema
from genplug.config.yaml_tree import ListNode, MapNode, ScalarNode, attach_source_lines, parse_document
from genplug.spec.diagnostic import Diagnostic, ErrorCode, WarningCode
from genplug.spec.globs import Glob
from genplug.spec.location import SourceLocation
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.read_rules import ReadRules


class LoadedPolicy(Struct, frozen=True):
    """A policy, the directories to watch for changes of its file, and the warnings about it."""

    policy: Policy
    directories: frozenset[Path] = frozenset()
    warnings: tuple[Diagnostic, ...] = ()


def load_policy(path: Path | None) -> LoadedPolicy:
    """Load a policy file, or return the default policy for None.

    Raises:
        ConfigInvalidError: with every error found, and the directories to watch for a corrected file.
    """
    if path is None:
        return LoadedPolicy(DEFAULT_POLICY)
    diagnostics = Diagnostics()
    files = read_files((path,), None, diagnostics)
    # A name that differs from the given path means that the path is a directory.
    if any(text.name != str(path) for text in files.texts):
        message, hint = "expected a policy file, found a directory", f"name the file: {files.texts[0].name}"
        diagnostics.add(ErrorCode.UNREADABLE, SourceLocation(str(path), 1, 1), message, hint=hint)
    if diagnostics.found:
        raise ConfigInvalidError(diagnostics.found, files.directories)
    try:
        policy = decode_policy(files.texts[0], diagnostics)
    except ConfigInvalidError as error:
        raise ConfigInvalidError(error.diagnostics, files.directories) from None
    return LoadedPolicy(policy, files.directories, sort_unique(diagnostics.warnings))


def decode_policy(text: ConfigFile, diagnostics: Diagnostics | None = None) -> Policy:
    """Decode the text of a policy file; ``diagnostics`` gets the warnings.

    Raises:
        ConfigInvalidError: with every error found.
    """
    diagnostics = Diagnostics() if diagnostics is None else diagnostics
    tree = parse_document(text.text, text.name, diagnostics)
    lines = {text.name: text.text}
    if (foreign := foreign_file_diagnostic(text.text, text.name, tree)) is not None:
        raise ConfigInvalidError(attach_source_lines([foreign], lines))
    if isinstance(tree, MapNode):
        return decode_policy_tree(tree, text.name, diagnostics, lines)
    if not diagnostics.found:
        location = tree.location if tree is not None else SourceLocation(text.name, 1, 1)
        message, expected = (
            "the top level is not a mapping",
            "a mapping with apiVersion, kind and what the policy allows",
        )
        hint = "for the default policy, write apiVersion and kind only"
        diagnostics.add(ErrorCode.WRONG_TYPE, location, message, expected=expected, hint=hint)
    raise ConfigInvalidError(attach_source_lines(diagnostics.found, lines))


def decode_policy_tree(tree: MapNode, name: str, diagnostics: Diagnostics, lines: Mapping[str, str]) -> Policy:
    """Decode the tree of a policy; ``lines`` are the texts by name to which its locations refer.

    Raises:
        ConfigInvalidError: with every error found.
    """
    if check_kind([tree], FileKind.POLICY, diagnostics):
        tree = drop_nulls(tree)
        with suppress(TooManyErrorsError):
            check_schema(tree, diagnostics, POLICY_SCHEMA)
            policy = _decode(tree, name, diagnostics)
            if not diagnostics.found:
                diagnostics.warnings.extend(islice(find_policy_warnings(tree), diagnostics.limit))
                diagnostics.warnings[:] = attach_source_lines(diagnostics.warnings, lines)
                return policy
    raise ConfigInvalidError(attach_source_lines(diagnostics.found, lines))


def is_policy(text: str) -> bool:
    """Return whether the text of a file declares the kind of a policy."""
    tree = parse_document(text, "", Diagnostics()) if FileKind.POLICY in text else None
    kind = tree.get("kind") if isinstance(tree, MapNode) else None
    return isinstance(kind, ScalarNode) and kind.text == FileKind.POLICY


def _decode(tree: MapNode, file: str, diagnostics: Diagnostics) -> Policy:
    values = ValueDecoder(diagnostics)

    def globs(part: str, key: str) -> tuple[Glob, ...] | None:
        inner = tree.get(part)
        written = inner.get(key) if isinstance(inner, MapNode) else None
        return values.globs(written, f"{part}.{key}") if isinstance(written, ListNode) else None

    def name_globs(part: str) -> tuple[str, ...]:
        inner = tree.get(part)
        return values.name_globs(inner.get("allow") if isinstance(inner, MapNode) else None, f"{part}.allow")

    names, allow = tree.get("resources"), globs("devices", "allow")
    read = tree.get("read")
    variables = read.get("env") if isinstance(read, MapNode) else None
    return Policy(
        file=file,
        resources=DEFAULT_POLICY.resources if names is None else values.name_globs(names, "resources"),
        allow=DEFAULT_POLICY.allow if allow is None else allow,
        deny=globs("devices", "deny") or (),
        block=is_set(tree.get("devices"), "block", value=True),
        unsafe=_decode_unsafe(tree, diagnostics),
        mounts=globs("mounts", "allow") or (),
        writable=globs("mounts", "writable") or (),
        mount_targets=globs("mounts", "targets") or (),
        programs=globs("exec", "allow") or (),
        read=DEFAULT_POLICY.read if (files := globs("read", "allow")) is None else ReadRules(files),
        read_env=DEFAULT_POLICY.read_env if variables is None else values.name_globs(variables, "read.env"),
        http=_decode_http(tree, diagnostics),
        unix_sockets=globs("unixSocket", "allow") or (),
        cdi=name_globs("cdi"),
        annotations=name_globs("annotations"),
        env=name_globs("env"),
        groups=tuple(_decode_groups(tree)),
        open_probe=is_set(tree, "openProbe", value=True),
    )


def _decode_groups(tree: MapNode) -> Iterator[int]:
    written = tree.get("supplementalGroups")
    for item in items(written.get("allow") if isinstance(written, MapNode) else None):
        if (group := integer(item)) is not None:
            yield group


def _decode_unsafe(tree: MapNode, diagnostics: Diagnostics) -> tuple[str, ...]:
    """Return the entries of the built-in list that are allowed, and record a warning for each."""
    devices = tree.get("devices")
    written = items(devices.get("unsafe") if isinstance(devices, MapNode) else None)
    # The schema check has reported other values.
    scalars = [item for item in written if isinstance(item, ScalarNode)]
    for scalar in scalars:
        diagnostics.warn(
            WarningCode.UNSAFE_POLICY,
            scalar.at(0),
            f"the policy allows {scalar.text}, with which a container can gain control of the node",
            key_path="devices.unsafe",
            hint="remove the entry, unless each pod that can request the device is trusted with the node",
            width=len(scalar.text),
        )
    return tuple(scalar.text for scalar in scalars)


def _decode_http(tree: MapNode, diagnostics: Diagnostics) -> tuple[str, ...]:
    """Return the entries of ``http.allow``, and record those that are not valid."""
    # Imported here: most policies do not have the key.
    from genplug.spec.connect_rules import ConnectEntry  # noqa: PLC0415

    http = tree.get("http")
    written = http.get("allow") if isinstance(http, MapNode) else None
    if not isinstance(written, ListNode):
        return DEFAULT_POLICY.http
    # The schema check has reported other values.
    scalars = [item for item in written.items if isinstance(item, ScalarNode) and isinstance(item.value, str)]
    for scalar in scalars:
        try:
            ConnectEntry.parse(scalar.text)
        except ValueError as error:
            diagnostics.add(
                ErrorCode.WRONG_VALUE,
                scalar.at(0),
                f"{scalar.text!r} is not an address to connect to: {error}",
                key_path="http.allow",
                hint="write an address, a network or a name, and optionally a port: 10.0.0.0/8, exporter.example:9400",
                width=max(len(scalar.text), 1),
            )
    return tuple(scalar.text for scalar in scalars)
