"""From paths to a configuration: reading, merging, checking and decoding in one go, with every mistake at once."""

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from genplug.config.decode.config import decode
from genplug.config.diagnostics import ConfigInvalidError, Diagnostic, Diagnostics, ErrorCode
from genplug.config.file_kind import FileKind, check_kind
from genplug.config.files import ConfigFile, read_files
from genplug.config.merge import apply_defaults, drop_nulls, is_null, merge
from genplug.config.policy import LoadedPolicy, load_policy
from genplug.config.schema import check_schema, did_you_mean
from genplug.config.yaml_tree import MapNode, attach_source_lines, parse_document
from genplug.spec.location import SourceLocation
from genplug.spec.model import Config
from genplug.spec.policy import DEFAULT_POLICY, Policy

_NOTHING = "to offer nothing on purpose, write 'resources: {}'"


@frozen
class LoadedConfig:
    """A configuration, and the directories to watch for changes of its files and its policy."""

    config: Config
    directories: frozenset[Path]


def load(paths: Sequence[Path], node_name: str | None = None, policy: Path | None = None) -> LoadedConfig:
    """Read, merge and decode files and directories under the policy in a file, or under the default one.

    Raises:
        ConfigInvalidError: with every mistake found, and the directories to watch for a better one.
    """
    bounds, wrong = _bounds(policy)
    try:
        loaded = load_files(paths, node_name, None if wrong else bounds.policy)
    except ConfigInvalidError as error:
        raise ConfigInvalidError((*wrong, *error.problems), error.directories | bounds.directories) from None
    directories = loaded.directories | bounds.directories
    if wrong:
        raise ConfigInvalidError(wrong, directories)
    return LoadedConfig(loaded.config, directories)


def load_files(paths: Sequence[Path], node_name: str | None, policy: Policy | None) -> LoadedConfig:
    """Read, merge and decode files and directories under a policy.

    With None for a policy nobody is asked what is allowed: to find the mistakes beside those of a wrong policy.

    Raises:
        ConfigInvalidError: with every mistake found, and the directories to watch for a better one.
    """
    problems = Diagnostics()
    reading = read_files(paths, node_name, problems)
    if not paths:
        problems.add(ErrorCode.UNREADABLE, SourceLocation("--config", 1, 1), "no file or directory was given")
    try:
        return LoadedConfig(_decode(reading.texts, problems, policy), reading.directories)
    except ConfigInvalidError as error:
        raise ConfigInvalidError(error.problems, reading.directories) from None


def load_text(text: str, name: str, policy: Policy | None = DEFAULT_POLICY) -> Config:
    """Decode one file's text; ``name`` is what messages call it.

    Raises:
        ConfigInvalidError: with every mistake found.
    """
    return load_texts((ConfigFile(name, text),), policy)


def load_texts(texts: Sequence[ConfigFile], policy: Policy | None = DEFAULT_POLICY) -> Config:
    """Decode the texts of several files, which merge in this order; for the policy see :func:`load_files`.

    Raises:
        ConfigInvalidError: with every mistake found.
    """
    return _decode(texts, Diagnostics(), policy)


def _bounds(path: Path | None) -> tuple[LoadedPolicy, tuple[Diagnostic, ...]]:
    """Return the policy in a file, or what is wrong with it and where to watch for a better one."""
    try:
        return load_policy(path), ()
    except ConfigInvalidError as error:
        return LoadedPolicy(DEFAULT_POLICY, error.directories), error.problems


def _decode(texts: Sequence[ConfigFile], problems: Diagnostics, policy: Policy | None) -> Config:
    lines = {one.name: one.text for one in texts}
    config = None
    # After a file that is none, what the others lack would be reported as missing: only an echo.
    if (maps := _maps(texts, problems)) and check_kind(maps, FileKind.CONFIG, problems):
        tree = merge(maps)
        _check_resources(tree, maps, problems)
        check_schema(drop_nulls(tree), problems)
        config = decode(drop_nulls(apply_defaults(tree)), tuple(lines), problems, policy)
    if config is None or problems.found:
        raise ConfigInvalidError(attach_source_lines(problems, lines))
    return config


def _maps(texts: Sequence[ConfigFile], problems: Diagnostics) -> list[MapNode]:
    """Return a map for each file; none at all where a file is no map, with the problem noted."""
    noted = len(problems.found)
    trees = []
    for text in texts:
        at_start = len(problems.found)
        tree = parse_document(text.text, text.name, problems)
        if isinstance(tree, MapNode):
            trees.append(tree)
        elif tree is not None and not is_null(tree):
            expected = "a map with apiVersion, kind and resources"
            problems.add(ErrorCode.WRONG_TYPE, tree.location, "the file is no map", expected=expected)
        elif len(problems.found) == at_start:
            problems.add(ErrorCode.NO_RESOURCES, SourceLocation(text.name, 1, 1), "the file is empty", hint=_NOTHING)
    return trees if len(trees) == len(texts) and not noted else []


def _check_resources(tree: MapNode, maps: Sequence[MapNode], problems: Diagnostics) -> None:
    written = tree.entries.get("resources")
    if written is not None and is_null(written.value):
        problems.add(
            ErrorCode.NO_RESOURCES, written.key, "'resources' is empty", key_path="resources", hint=_NOTHING, width=9
        )
    elif written is None and not did_you_mean("resources", [key for one in maps for key in one.entries]):
        problems.add(ErrorCode.NO_RESOURCES, maps[0].location, "'resources' is missing", hint=_NOTHING)
