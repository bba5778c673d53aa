"""Loads configurations from ConfigMap manifests, as kubectl and ``helm template`` print them.

Each ``data`` key with the name of a configuration file is one file; a ConfigMap of policies is decoded as policies.
Errors are reported at their location in the manifest: exactly in a literal block (``|``), otherwise at the value.
"""

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from genplug.config.diagnostics import ConfigInvalidError, Diagnostics
from genplug.config.files import ConfigFile, ignored_file_warning, is_config_file, is_ignored_config, node_of
from genplug.config.foreign_files import find_foreign_file
from genplug.config.load import load_texts
from genplug.config.policy import LoadedPolicy, decode_policy, is_policy
from genplug.config.yaml_tree import ListNode, MapNode, Node, ScalarNode, attach_source_lines, lines_of, parse_documents
from genplug.spec.diagnostic import Diagnostic, ErrorCode
from genplug.spec.location import SourceLocation
from genplug.spec.model import Config
from genplug.spec.names import DRIVER_DOMAIN
from genplug.spec.policy import DEFAULT_POLICY, Policy

MAX_BYTES = 16 << 20
"""Enough for the output of ``helm template`` of a large chart, including custom resource definitions."""
_MAX_VALUES = 200_000
_ALL = 1 << 30
_KIND = re.compile(r"""^["']?kind["']?[ \t]*:[ \t]*["']?(ConfigMap|ConfigMapList|List)\b""", re.MULTILINE)
_JSON_KIND = re.compile(r'"kind"\s*:\s*"(ConfigMap|ConfigMapList|List)"')
_OURS = ("DevicePluginConfig", "genplug.io/")


class ObjectName(Struct, frozen=True):
    """The namespace and the name of an object; the namespace is empty if the manifest has none."""

    namespace: str
    name: str


class Manifest(Struct, frozen=True):
    """A ConfigMap: its files by their names in messages, those for all nodes first, and the node that a file is for.

    ``pool`` and ``release`` are labels that the chart sets; they are empty without the chart. ``ignored`` are warnings
    about keys with a configuration that the agent ignores.
    """

    file: str
    lines: tuple[str, ...]
    scalars: Mapping[str, ScalarNode]
    nodes: Mapping[str, str]
    object_name: ObjectName
    pool: str = ""
    release: str = ""
    ignored: tuple[Diagnostic, ...] = ()

    @property
    def policies(self) -> tuple[str, ...]:
        """The files if all of them are policies, else nothing; ``load`` reports a policy among configuration files."""
        return tuple(self.scalars) if all(is_policy(scalar.text) for scalar in self.scalars.values()) else ()

    def policy(self, name: str) -> LoadedPolicy:
        """Decode a policy.

        Raises:
            ConfigInvalidError: with every error found, at its location in the manifest.
        """
        diagnostics = Diagnostics()
        try:
            policy = decode_policy(ConfigFile(name, self.scalars[name].text), diagnostics)
        except ConfigInvalidError as error:
            raise ConfigInvalidError(map(self._relocate_diagnostic, error.diagnostics)) from None
        return LoadedPolicy(policy, warnings=tuple(map(self._relocate_diagnostic, diagnostics.warnings)))

    def load(
        self, node_name: str | None, policy: Policy | None = DEFAULT_POLICY, driver: str = DRIVER_DOMAIN
    ) -> Config:
        """Decode the configuration of a node, as :func:`~genplug.config.load.load_texts` does.

        Raises:
            ConfigInvalidError: with every error found, at its location in the manifest.
        """
        names = [name for name in self.scalars if self.nodes.get(name) in (None, node_name)]
        try:
            config = load_texts([ConfigFile(name, self.scalars[name].text) for name in names], policy, driver)
        except ConfigInvalidError as error:
            raise ConfigInvalidError(map(self._relocate_diagnostic, error.diagnostics)) from None
        warnings = (*map(self._relocate_diagnostic, config.warnings), *self.ignored)
        return replace(config, warnings=warnings)

    def _relocate_diagnostic(self, diagnostic: Diagnostic) -> Diagnostic:
        location = self._relocate(diagnostic.location)
        first = self._relocate(diagnostic.related_location) if diagnostic.related_location else None
        is_exact = self.scalars[diagnostic.location.file].start is not None
        width = diagnostic.width if is_exact else 1
        return replace(
            diagnostic, location=location, related_location=first, width=width, line=self.lines[location.line - 1]
        )

    def _relocate(self, location: SourceLocation) -> SourceLocation:
        scalar = self.scalars[location.file]
        if scalar.start is None:
            return scalar.location
        start = scalar.start
        return SourceLocation(self.file, start.line + location.line - 1, start.column + location.column - 1)


def is_manifest(text: str) -> bool:
    """Return whether a text looks like Kubernetes manifests with a ConfigMap among them."""
    return (_JSON_KIND if text.lstrip().startswith("{") else _KIND).search(text) is not None


class Manifests(Struct, frozen=True):
    """The ConfigMaps of a text that contain configurations and policies.

    ``mounted`` are the ConfigMaps that the pods of a DaemonSet mount, for each DaemonSet in the text.
    """

    configurations: tuple[Manifest, ...]
    policies: tuple[Manifest, ...]
    mounted: tuple[frozenset[ObjectName], ...] = ()

    def policy_of(self, configuration: Manifest) -> Manifest | None:
        """Return the policy of the agents that read a configuration, or None for the default policy.

        A DaemonSet mounts both. Without it, the labels of the chart and then the names of the objects decide.
        """
        for mounted in self.mounted:
            if configuration.object_name in mounted:
                return next((policy for policy in self.policies if policy.object_name in mounted), None)
        if configuration.pool:
            pool = (configuration.pool, configuration.release, configuration.object_name.namespace)
            return next((p for p in self.policies if (p.pool, p.release, p.object_name.namespace) == pool), None)
        namespace, name = configuration.object_name.namespace, configuration.object_name.name
        names = {ObjectName(namespace, f"{stem}-policy") for stem in (name, name.removesuffix("-config"))}
        named = next((policy for policy in self.policies if policy.object_name in names), None)
        is_only_pair = len(self.configurations) == len(self.policies) == 1
        return named or (self.policies[0] if is_only_pair else None)


def find_manifests(text: str, file: str) -> Manifests:
    """Return the ConfigMaps of a text that contain configurations or policies; skip other objects.

    Raises:
        ConfigInvalidError: the text is not YAML, no ConfigMap in it contains a configuration, or a key is duplicated.
    """
    # Other objects may have any number of errors.
    diagnostics = Diagnostics(limit=_ALL)
    trees = parse_documents(text, file, diagnostics, MAX_BYTES, _MAX_VALUES)
    lines = tuple(lines_of(text))
    if trees is None:
        # Earlier errors may concern other objects.
        raise ConfigInvalidError(attach_source_lines(diagnostics.found[-1:], {file: text}))
    config_maps = [config_map for tree in trees for config_map in _config_maps(tree)]
    manifests = [_read_manifest(config_map, file, lines) for config_map in config_maps]
    ours = [manifest for manifest in manifests if _mentions_genplug(manifest)]
    # Check a single ConfigMap in any case; among several, the others may be dashboards or scripts.
    selected = tuple(ours or (manifest for manifest in manifests if len(manifests) == 1 and manifest.scalars))
    if not selected and not config_maps:
        foreign = next(filter(None, map(find_foreign_file, trees)), None)
        if foreign is not None:
            message = f"expected a ConfigMap with a configuration, found {foreign.name}"
            found = Diagnostic(ErrorCode.WRONG_VERSION, foreign.location, message, hint=foreign.hint)
            raise ConfigInvalidError(attach_source_lines([found], {file: text}))
    if not selected:
        message = "no ConfigMap in the file contains a configuration"
        hint = "'data' needs a key that ends in .yaml, .yml or .json, with a configuration as its value"
        raise ConfigInvalidError(
            [Diagnostic(ErrorCode.NO_RESOURCES, SourceLocation(file, 1, 1), message, hint=hint, line=lines[0])]
        )
    pairs = zip(manifests, config_maps, strict=True)
    keys = {key for manifest, config_map in pairs if manifest in selected for key in _key_locations(config_map)}
    if duplicates := [diagnostic for diagnostic in diagnostics.found if diagnostic.related_location in keys]:
        raise ConfigInvalidError(attach_source_lines(duplicates, {file: text}))
    policies = tuple(manifest for manifest in selected if manifest.policies)
    mounted = tuple(names for tree in trees for names in _mounted_config_maps(tree))
    return Manifests(tuple(manifest for manifest in selected if not manifest.policies), policies, mounted)


def _mentions_genplug(manifest: Manifest) -> bool:
    return any(word in scalar.text for scalar in manifest.scalars.values() for word in _OURS)


def _key_locations(config_map: MapNode) -> Iterator[SourceLocation]:
    for part in (config_map, config_map.get("data")):
        if isinstance(part, MapNode):
            yield from (entry.key for entry in part.entries.values())


def _objects(tree: Node | None) -> Iterator[MapNode]:
    """Yield an object, or the objects of a list."""
    if isinstance(tree, MapNode):
        items = tree.get("items")
        for item in items.items if isinstance(items, ListNode) else ():
            yield from _objects(item)
        yield tree


def _config_maps(tree: Node | None) -> Iterator[MapNode]:
    yield from (found for found in _objects(tree) if _text(found.get("kind")) == "ConfigMap")


def _mounted_config_maps(tree: Node | None) -> Iterator[frozenset[ObjectName]]:
    for found in _objects(tree):
        if _text(found.get("kind")) == "DaemonSet":
            volumes = _find(found, "spec", "template", "spec", "volumes")
            names = [
                _text(_find(volume, "configMap", "name"))
                for volume in (volumes.items if isinstance(volumes, ListNode) else ())
            ]
            namespace = _text(_find(found, "metadata", "namespace"))
            yield frozenset(ObjectName(namespace, name) for name in names if name)


def _find(tree: Node | None, *path: str) -> Node | None:
    """Return the node at a path of keys, or None."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, MapNode) else None
    return tree


def _read_manifest(tree: MapNode, file: str, lines: tuple[str, ...]) -> Manifest:
    metadata, data = tree.get("metadata"), tree.get("data")
    config_map = _text(metadata.get("name")) if isinstance(metadata, MapNode) else ""
    entries = sorted(data.entries.items()) if isinstance(data, MapNode) else []
    # The kubelet creates files with the names of the keys.
    keys = [key for key, entry in entries if is_config_file(key) and isinstance(entry.value, ScalarNode)]
    keys.sort(key=lambda key: node_of(key) is not None)
    names = {f"{file}[{config_map}/{key}]": key for key in keys}
    scalars = {name: entry.value for name, key in names.items() for entry_key, entry in entries if entry_key == key}
    nodes = {name: node for name, key in names.items() if (node := node_of(key)) is not None}
    labels = _find(tree, "metadata", "labels")
    ignored = [
        replace(ignored_file_warning(key, entry.key, len(key)), line=lines[entry.key.line - 1])
        for key, entry in entries
        if isinstance(entry.value, ScalarNode) and is_ignored_config(key, entry.value.text)
    ]
    return Manifest(
        file,
        lines,
        scalars,  # type: ignore[arg-type] # only keys with scalars were taken
        nodes,
        ObjectName(_text(_find(tree, "metadata", "namespace")), config_map),
        pool=_text(_find(labels, "genplug.io/pool")),
        release=_text(_find(labels, "app.kubernetes.io/instance")),
        ignored=tuple(ignored),
    )


def _text(node: Node | None) -> str:
    return node.text if isinstance(node, ScalarNode) else ""
