"""Loads a configuration: reads, merges, validates and decodes files, and reports all errors at once."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from genplug.config.decode.config import decode
from genplug.config.diagnostics import ConfigInvalidError, Diagnostics, TooManyErrorsError, sort_unique
from genplug.config.file_kind import FileKind, check_kind
from genplug.config.files import ConfigFile, ConfigFiles, read_files
from genplug.config.foreign_files import foreign_file_diagnostic
from genplug.config.lint import find_warnings
from genplug.config.merge import apply_defaults, drop_nulls, is_null, merge, shared_defaults
from genplug.config.policy import LoadedPolicy, load_policy
from genplug.config.schema import check_schema, did_you_mean
from genplug.config.yaml_tree import MapNode, attach_source_lines, count_values, parse_document
from genplug.lean_imports import hide_openssl_digests
from genplug.spec.diagnostic import Diagnostic, ErrorCode
from genplug.spec.limits import MAX_CONFIG_VALUES
from genplug.spec.location import SourceLocation
from genplug.spec.model import NO_PUBLISH, Config
from genplug.spec.names import DRIVER_DOMAIN
from genplug.spec.policy import DEFAULT_POLICY, Policy

with hide_openssl_digests():
    import hashlib

_NOTHING = "to offer no resources, write 'resources: {}'"


class LoadedConfig(Struct, frozen=True):
    """A configuration, and the directories to watch for changes of its files and of its policy.

    ``source`` identifies what it was decoded from: a digest of the texts, the policy, and the warnings about both.
    """

    config: Config
    directories: frozenset[Path]
    source: tuple[object, ...] = ()


def load(
    paths: Sequence[Path],
    node_name: str | None = None,
    policy: Path | None = None,
    previous: LoadedConfig | None = None,
    driver: str = DRIVER_DOMAIN,
) -> LoadedConfig:
    """Load files and directories under the policy in a file, or under the default policy.

    If the files have the texts of ``previous``, its configuration is returned, and nothing is decoded. ``driver`` is
    the name of the driver of Dynamic Resource Allocation.

    Raises:
        ConfigInvalidError: with every error found, and the directories to watch for a corrected one.
    """
    loaded_policy, policy_diagnostics = _load_policy(policy)
    files, diagnostics = _read(paths, node_name)
    directories = files.directories | loaded_policy.directories
    source = (_digest(files.texts), tuple(diagnostics.warnings), loaded_policy.policy, loaded_policy.warnings)
    is_readable = not diagnostics.found and not policy_diagnostics
    if previous is not None and is_readable and previous.source == source:
        return replace(previous, directories=directories)
    try:
        config = _decode(files.texts, diagnostics, None if policy_diagnostics else loaded_policy.policy, driver)
    except ConfigInvalidError as error:
        raise ConfigInvalidError((*policy_diagnostics, *error.diagnostics), directories) from None
    if policy_diagnostics:
        raise ConfigInvalidError(policy_diagnostics, directories)
    config = replace(config, warnings=(*loaded_policy.warnings, *config.warnings))
    return LoadedConfig(config, directories, source)


def load_files(
    paths: Sequence[Path], node_name: str | None, policy: Policy | None, driver: str = DRIVER_DOMAIN
) -> LoadedConfig:
    """Load files and directories under a policy.

    With None as policy, everything is allowed: this finds the errors of a configuration whose policy is invalid.
    ``driver`` is the name of the driver of Dynamic Resource Allocation.

    Raises:
        ConfigInvalidError: with every error found, and the directories to watch for a corrected one.
    """
    files, diagnostics = _read(paths, node_name)
    try:
        return LoadedConfig(_decode(files.texts, diagnostics, policy, driver), files.directories)
    except ConfigInvalidError as error:
        raise ConfigInvalidError(error.diagnostics, files.directories) from None


def _read(paths: Sequence[Path], node_name: str | None) -> tuple[ConfigFiles, Diagnostics]:
    diagnostics = Diagnostics()
    files = read_files(paths, node_name, diagnostics)
    if not paths:
        diagnostics.add(ErrorCode.UNREADABLE, SourceLocation("--config", 1, 1), "no file or directory was given")
    return files, diagnostics


def _digest(texts: Sequence[ConfigFile]) -> bytes:
    """Return a digest of the names and texts of files."""
    digest = hashlib.sha256()
    for text in texts:
        for part in (text.name, text.text):
            content = part.encode(errors="surrogateescape")
            digest.update(len(content).to_bytes(8))
            digest.update(content)
    return digest.digest()


def load_text(text: str, name: str, policy: Policy | None = DEFAULT_POLICY, driver: str = DRIVER_DOMAIN) -> Config:
    """Decode the text of a file; ``name`` is its name in messages. For the other arguments see :func:`load_files`.

    Raises:
        ConfigInvalidError: with every error found.
    """
    return load_texts((ConfigFile(name, text),), policy, driver)


def load_texts(
    texts: Sequence[ConfigFile], policy: Policy | None = DEFAULT_POLICY, driver: str = DRIVER_DOMAIN
) -> Config:
    """Decode the texts of several files, merged in this order; for the other arguments see :func:`load_files`.

    Raises:
        ConfigInvalidError: with every error found.
    """
    return _decode(texts, Diagnostics(), policy, driver)


def _load_policy(path: Path | None) -> tuple[LoadedPolicy, tuple[Diagnostic, ...]]:
    """Return the policy in a file, or its errors and the directories to watch for a corrected one."""
    try:
        return load_policy(path), ()
    except ConfigInvalidError as error:
        return LoadedPolicy(DEFAULT_POLICY, error.directories), error.diagnostics


def decode_trees(  # noqa: PLR0913, PLR0917 - the parts of a configuration and its surroundings
    maps: Sequence[MapNode],
    files: Sequence[str],
    diagnostics: Diagnostics,
    policy: Policy | None,
    lines: Mapping[str, str],
    driver: str = DRIVER_DOMAIN,
) -> Config:
    """Decode trees, merged in this order; without trees, only the errors recorded so far are raised.

    ``files`` are the names of the configuration's files, and ``lines`` the texts by name to which locations refer.
    ``driver`` is the name of the driver of Dynamic Resource Allocation.

    Raises:
        ConfigInvalidError: with every error found.
    """
    config = None
    with suppress(TooManyErrorsError):
        if maps and check_kind(maps, FileKind.CONFIG, diagnostics):
            tree = merge(maps)
            _check_resources(tree, maps, diagnostics)
            check_schema(drop_nulls(tree), diagnostics)
            if _check_defaults(tree, diagnostics):
                applied = drop_nulls(apply_defaults(tree))
                config = decode(applied, tuple(files), diagnostics, policy)
                _check_domains(config, driver, diagnostics)
    if config is None or diagnostics.found:
        raise ConfigInvalidError(attach_source_lines(diagnostics.found, lines))
    diagnostics.warnings.extend(islice(find_warnings(config, drop_nulls(tree), applied), diagnostics.limit))
    return replace(config, warnings=sort_unique(attach_source_lines(diagnostics.warnings, lines)))


def _check_domains(config: Config, driver: str, diagnostics: Diagnostics) -> None:
    published = {name: resource for name, resource in config.resources.items() if resource.publish is not NO_PUBLISH}
    if published:
        # Imported here: most configurations have no 'publish'.
        from genplug.config.decode.publish import check_domains  # noqa: PLC0415

        check_domains(published, driver, diagnostics)


def _decode(texts: Sequence[ConfigFile], diagnostics: Diagnostics, policy: Policy | None, driver: str) -> Config:
    lines = {text.name: text.text for text in texts}
    maps: list[MapNode] = []
    with suppress(TooManyErrorsError):
        # Nothing if a file is not a mapping: its missing keys would only produce follow-up errors.
        maps = _maps(texts, diagnostics)
    return decode_trees(maps, tuple(lines), diagnostics, policy, lines, driver)


def _maps(texts: Sequence[ConfigFile], diagnostics: Diagnostics) -> list[MapNode]:
    """Return a mapping for each file; record an error and return nothing if a file is not a mapping of genplug."""
    noted = len(diagnostics.found)
    trees = []
    remaining = MAX_CONFIG_VALUES
    for text in texts:
        at_start = len(diagnostics.found)
        tree = parse_document(text.text, text.name, diagnostics, remaining)
        remaining -= count_values(tree)
        if (foreign := foreign_file_diagnostic(text.text, text.name, tree)) is not None:
            # Errors in the file are errors of a format that genplug does not know.
            del diagnostics.found[at_start:]
            diagnostics.found.append(foreign)
        elif isinstance(tree, MapNode):
            trees.append(tree)
        elif tree is not None and not is_null(tree):
            expected = "a mapping with apiVersion, kind and resources"
            diagnostics.add(ErrorCode.WRONG_TYPE, tree.location, "the top level is not a mapping", expected=expected)
        elif len(diagnostics.found) == at_start:
            diagnostics.add(ErrorCode.NO_RESOURCES, SourceLocation(text.name, 1, 1), "the file is empty", hint=_NOTHING)
    return trees if len(trees) == len(texts) and not noted else []


def _check_defaults(tree: MapNode, diagnostics: Diagnostics) -> bool:
    """Return whether the number of values is within its limit when each resource has the values of ``defaults``."""
    defaults, resources = shared_defaults(tree), tree.get("resources")
    if defaults is None or not isinstance(resources, MapNode):
        return True
    repeated, count = count_values(defaults), len(resources.entries)
    if count_values(tree) + repeated * count <= MAX_CONFIG_VALUES:
        return True
    message = (
        f"{count} resources with the {repeated} keys and values of 'defaults' have more than {MAX_CONFIG_VALUES} keys "
        "and values"
    )
    hint = "move long lists and mappings to the resources that need them"
    diagnostics.add(ErrorCode.LIMIT, tree.entries["defaults"].key, message, hint=hint, width=len("defaults"))
    return False


def _check_resources(tree: MapNode, maps: Sequence[MapNode], diagnostics: Diagnostics) -> None:
    written = tree.entries.get("resources")
    if written is not None and is_null(written.value):
        diagnostics.add(
            ErrorCode.NO_RESOURCES, written.key, "'resources' is empty", key_path="resources", hint=_NOTHING, width=9
        )
    elif written is None and not did_you_mean("resources", [key for map_ in maps for key in map_.entries]):
        diagnostics.add(ErrorCode.NO_RESOURCES, maps[0].location, "'resources' is missing", hint=_NOTHING)
