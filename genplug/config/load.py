"""From paths to a configuration: reading, merging, checking and decoding in one go, with every mistake at once."""

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from genplug.config.decode.config import decode
from genplug.config.diagnostics import Code, ConfigInvalidError, Problem, Problems
from genplug.config.file_kind import FileKind, is_of_kind
from genplug.config.files import Text, read_files
from genplug.config.merge import is_null, merged, with_defaults, without_nulls
from genplug.config.policy import LoadedPolicy, load_policy
from genplug.config.schema import check_shape, closest
from genplug.config.yaml_tree import MapNode, read, with_lines
from genplug.spec.location import Place
from genplug.spec.model import Config
from genplug.spec.policy import DEFAULT_POLICY, Policy

_NOTHING = "to offer nothing on purpose, write 'resources: {}'"


@frozen
class Loaded:
    """A configuration, and the folders to watch for changes of its files and its policy."""

    config: Config
    folders: frozenset[Path]


def load(paths: Sequence[Path], node_name: str | None = None, policy: Path | None = None) -> Loaded:
    """Read, merge and decode files and directories under the policy in a file, or under the default one.

    Raises:
        ConfigInvalidError: with every mistake found, and the folders to watch for a better one.
    """
    bounds, wrong = _bounds(policy)
    try:
        loaded = load_files(paths, node_name, None if wrong else bounds.policy)
    except ConfigInvalidError as error:
        raise ConfigInvalidError((*wrong, *error.problems), error.folders | bounds.folders) from None
    folders = loaded.folders | bounds.folders
    if wrong:
        raise ConfigInvalidError(wrong, folders)
    return Loaded(loaded.config, folders)


def load_files(paths: Sequence[Path], node_name: str | None, policy: Policy | None) -> Loaded:
    """Read, merge and decode files and directories under a policy.

    With None for a policy nobody is asked what is allowed: to find the mistakes beside those of a wrong policy.

    Raises:
        ConfigInvalidError: with every mistake found, and the folders to watch for a better one.
    """
    problems = Problems()
    reading = read_files(paths, node_name, problems)
    if not paths:
        problems.add(Code.UNREADABLE, Place("--config", 1, 1), "no file or folder was given")
    try:
        return Loaded(_decoded(reading.texts, problems, policy), reading.folders)
    except ConfigInvalidError as error:
        raise ConfigInvalidError(error.problems, reading.folders) from None


def load_text(text: str, name: str, policy: Policy | None = DEFAULT_POLICY) -> Config:
    """Decode one file's text; ``name`` is what messages call it.

    Raises:
        ConfigInvalidError: with every mistake found.
    """
    return load_texts((Text(name, text),), policy)


def load_texts(texts: Sequence[Text], policy: Policy | None = DEFAULT_POLICY) -> Config:
    """Decode the texts of several files, which merge in this order; for the policy see :func:`load_files`.

    Raises:
        ConfigInvalidError: with every mistake found.
    """
    return _decoded(texts, Problems(), policy)


def _bounds(path: Path | None) -> tuple[LoadedPolicy, tuple[Problem, ...]]:
    """Return the policy in a file, or what is wrong with it and where to watch for a better one."""
    try:
        return load_policy(path), ()
    except ConfigInvalidError as error:
        return LoadedPolicy(DEFAULT_POLICY, error.folders), error.problems


def _decoded(texts: Sequence[Text], problems: Problems, policy: Policy | None) -> Config:
    lines = {one.name: one.text for one in texts}
    config = None
    # After a file that is none, what the others lack would be reported as missing: only an echo.
    if (maps := _maps(texts, problems)) and is_of_kind(maps, FileKind.CONFIG, problems):
        tree = merged(maps)
        _check_resources(tree, maps, problems)
        check_shape(without_nulls(tree), problems)
        config = decode(without_nulls(with_defaults(tree)), tuple(lines), problems, policy)
    if config is None or problems.found:
        raise ConfigInvalidError(with_lines(problems, lines))
    return config


def _maps(texts: Sequence[Text], problems: Problems) -> list[MapNode]:
    """Return a map for each file; none at all where a file is no map, with the problem noted."""
    noted = len(problems.found)
    trees = []
    for text in texts:
        at_start = len(problems.found)
        tree = read(text.text, text.name, problems)
        if isinstance(tree, MapNode):
            trees.append(tree)
        elif tree is not None and not is_null(tree):
            expected = "a map with apiVersion, kind and resources"
            problems.add(Code.WRONG_TYPE, tree.place, "the file is no map", expected=expected)
        elif len(problems.found) == at_start:
            problems.add(Code.NO_RESOURCES, Place(text.name, 1, 1), "the file is empty", hint=_NOTHING)
    return trees if len(trees) == len(texts) and not noted else []


def _check_resources(tree: MapNode, maps: Sequence[MapNode], problems: Problems) -> None:
    written = tree.entries.get("resources")
    if written is not None and is_null(written.value):
        problems.add(Code.NO_RESOURCES, written.key, "'resources' is empty", tree="resources", hint=_NOTHING, width=9)
    elif written is None and not closest("resources", [key for one in maps for key in one.entries]):
        problems.add(Code.NO_RESOURCES, maps[0].place, "'resources' is missing", hint=_NOTHING)
