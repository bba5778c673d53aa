"""From paths to a configuration: reading, merging, checking and decoding in one go, with every mistake at once."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from genplug.config.decode import decode
from genplug.config.document import MapNode, Node, ScalarNode, read, with_lines
from genplug.config.merge import is_null, merged, with_defaults
from genplug.config.model import Config
from genplug.config.place import Place
from genplug.config.problem import Code, ConfigInvalidError, Problems
from genplug.config.schema import check_shape
from genplug.config.sources import Text, read_files


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
    return _decoded((Text(name, text),), Problems())


def load_texts(texts: Sequence[Text], shown: Mapping[str, str]) -> Config:
    """Decode several texts, which merge in this order; ``shown`` are the files whose lines messages show.

    Raises:
        ConfigInvalidError: with every mistake found.
    """
    return _decoded(texts, Problems(), shown)


def _decoded(texts: Sequence[Text], problems: Problems, shown: Mapping[str, str] | None = None) -> Config:
    lines = shown or {one.name: one.text for one in texts}
    trees = [read(one.text, one.name, problems) for one in texts]
    # After a file that is no YAML, what the others lack would be reported as missing: only an echo.
    if problems.found:
        raise ConfigInvalidError(with_lines(problems, lines))
    maps = list(_maps(trees, texts, problems))
    if maps and not problems.found:
        _check_version(maps, problems)
        tree = merged(maps)
        _check_resources(tree, maps, problems)
        check_shape(tree, problems)
        config = decode(with_defaults(tree), tuple(lines), problems)
    if problems.found:
        raise ConfigInvalidError(with_lines(problems, lines))
    return config


def _maps(trees: Iterable[Node | None], texts: Sequence[Text], problems: Problems) -> Iterable[MapNode]:
    for tree, text in zip(trees, texts, strict=True):
        place = tree.place if tree is not None else Place(text.name, 1, 1)
        if tree is None or is_null(tree):
            hint = "to offer nothing on purpose, write 'resources: {}'"
            problems.add(Code.NO_RESOURCES, place, "the file is empty", hint=hint)
        elif isinstance(tree, MapNode):
            yield tree
        else:
            expected = "a map with apiVersion, kind and resources"
            problems.add(Code.WRONG_TYPE, place, "the file is no map", expected=expected)


def _check_version(maps: Sequence[MapNode], problems: Problems) -> None:
    """Look at the files that a later file would cover: a foreign file among them must not go unnoticed."""
    for tree in maps[:-1]:
        for key, value in (("apiVersion", "genplug.io/v1alpha1"), ("kind", "DevicePluginConfig")):
            written = tree.get(key)
            if isinstance(written, ScalarNode) and written.value != value:
                message = f"{written.text!r} is not what genplug reads"
                width = len(written.text)
                problems.add(Code.WRONG_VERSION, written.place, message, tree=key, expected=value, width=width)


def _check_resources(tree: MapNode, maps: Sequence[MapNode], problems: Problems) -> None:
    if "resources" in tree.entries:
        return
    written = next((one.entries["resources"].key for one in maps if "resources" in one.entries), None)
    if written is not None:
        hint = "to offer nothing on purpose, write 'resources: {}'"
        problems.add(Code.NO_RESOURCES, written, "'resources' is empty", tree="resources", hint=hint, width=9)
