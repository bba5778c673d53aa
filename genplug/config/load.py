"""From paths to a configuration: reading, merging, checking and decoding in one go, with every mistake at once."""

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from genplug.config.decode import decode
from genplug.config.document import MapNode, ScalarNode, read, with_lines
from genplug.config.merge import is_null, merged, with_defaults, without_nulls
from genplug.config.model import Config
from genplug.config.place import Place
from genplug.config.problem import Code, ConfigInvalidError, Problems
from genplug.config.schema import check_shape, closest
from genplug.config.sources import Text, read_files

_VERSION = {"apiVersion": "genplug.io/v1alpha1", "kind": "DevicePluginConfig"}
_NOTHING = "to offer nothing on purpose, write 'resources: {}'"
_FOREIGN = {
    "ConfigMap": "the files in it are the configuration: 'genplug validate' reads it so, 'run' its mounted volume",
    "DevicePluginPolicy": "policies are not supported yet",
}


@frozen
class Loaded:
    """A configuration, and the folders to watch for changes of its files."""

    config: Config
    folders: frozenset[Path]


def load(paths: Sequence[Path], node_name: str | None = None) -> Loaded:
    """Read, merge and decode files and directories.

    Raises:
        ConfigInvalidError: with every mistake found, and the folders to watch for a better one.
    """
    problems = Problems()
    reading = read_files(paths, node_name, problems)
    if not paths:
        problems.add(Code.UNREADABLE, Place("--config", 1, 1), "no file or folder was given")
    try:
        return Loaded(_decoded(reading.texts, problems), reading.folders)
    except ConfigInvalidError as error:
        raise ConfigInvalidError(error.problems, reading.folders) from None


def load_text(text: str, name: str) -> Config:
    """Decode one file's text; ``name`` is what messages call it.

    Raises:
        ConfigInvalidError: with every mistake found.
    """
    return load_texts((Text(name, text),))


def load_texts(texts: Sequence[Text]) -> Config:
    """Decode the texts of several files, which merge in this order.

    Raises:
        ConfigInvalidError: with every mistake found.
    """
    return _decoded(texts, Problems())


def _decoded(texts: Sequence[Text], problems: Problems) -> Config:
    lines = {one.name: one.text for one in texts}
    config = None
    # After a file that is none, what the others lack would be reported as missing: only an echo.
    if (maps := _maps(texts, problems)) and _is_ours(maps, problems):
        tree = merged(maps)
        _check_resources(tree, maps, problems)
        check_shape(without_nulls(tree), problems)
        config = decode(without_nulls(with_defaults(tree)), tuple(lines), problems)
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


def _is_ours(maps: Sequence[MapNode], problems: Problems) -> bool:
    """Note wrong versions, in every file: one that a later file covers must not go unnoticed; say whether to go on."""
    is_ours = True
    for tree in maps:
        for key, value in _VERSION.items():
            written = tree.get(key)
            if isinstance(written, ScalarNode) and isinstance(written.value, str) and written.value != value:
                foreign = _FOREIGN.get(written.text, "")
                slip = "" if foreign else closest(written.text, (value,))
                hint = foreign or slip
                message, width = f"{written.text!r} is not what genplug reads", len(written.text)
                problems.add(
                    Code.WRONG_VERSION, written.place, message, tree=key, expected=value, hint=hint, width=width
                )
                # Another kind altogether: each of its keys would be called unknown.
                is_ours = is_ours and (key == "apiVersion" or bool(slip))
    return is_ours


def _check_resources(tree: MapNode, maps: Sequence[MapNode], problems: Problems) -> None:
    written = tree.entries.get("resources")
    if written is not None and is_null(written.value):
        problems.add(Code.NO_RESOURCES, written.key, "'resources' is empty", tree="resources", hint=_NOTHING, width=9)
    elif written is None and not closest("resources", [key for one in maps for key in one.entries]):
        problems.add(Code.NO_RESOURCES, maps[0].place, "'resources' is missing", hint=_NOTHING)
