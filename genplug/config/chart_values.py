"""Reads values files of genplug's chart: the configuration and the policy of each pool, as the chart renders them.

The merge is that of ``templates/_pools.tpl`` and ``_merge.tpl`` in deploy/helm/genplug; a test compares both. Every key
keeps its location in the values file, so that an error is shown where its author wrote it.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from genplug.config.chart_requirements import check_requirements
from genplug.config.diagnostics import ConfigInvalidError, Diagnostics, TooManyErrorsError, sort_unique
from genplug.config.file_kind import VERSION, FileKind
from genplug.config.files import ConfigFile
from genplug.config.foreign_files import find_foreign_file, is_chart_values
from genplug.config.helm_yaml import format_helm_scalar, resolve_helm_scalar, sort_keys
from genplug.config.load import decode_trees
from genplug.config.merge import drop_nulls, is_null, merge
from genplug.config.policy import LoadedPolicy, decode_policy_tree
from genplug.config.schema import check_values_schema
from genplug.config.yaml_tree import (
    Dialect,
    ListNode,
    MapEntry,
    MapNode,
    Node,
    ScalarNode,
    attach_source_lines,
    parse_documents,
)
from genplug.spec.diagnostic import Diagnostic, ErrorCode
from genplug.spec.limits import MAX_VALUES_FILE_BYTES
from genplug.spec.location import SourceLocation
from genplug.spec.model import Config
from genplug.spec.names import DRIVER_DOMAIN
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.struct_values import hide_in_repr

DEFAULT_POOL = "default"
_CHART_NAME = "genplug"
_HELM = Dialect(resolve_helm_scalar, format_helm_scalar, merge_keys=True)
_CHECKED_AFTER_MERGE = re.compile(
    r"(?:pools\.[^.]+\.)?(?:policy|config\.(?:nodes\..+\.)?(?:defaults|resources))(?P<rest>[.\[].*|\Z)", re.DOTALL
)
"""Parts of the values and of a pool that are checked as a configuration or policy, not with the chart's schema."""


@hide_in_repr("values", "policy_tree", "daemonset", "dra")
class Pool(Struct, frozen=True):
    """A pool of the chart: the settings of its agents, merged; ``nodes`` are the configurations of single nodes.

    ``existing_config_map`` is the name of the ConfigMap that the agents read instead, or empty.
    """

    name: str
    values: "ChartValues"
    config: MapNode
    nodes: Mapping[str, MapNode]
    policy_tree: MapNode | None
    daemonset: MapNode
    dra: MapNode
    existing_config_map: str

    @property
    def has_policy(self) -> bool:
        """Whether the pool has a policy of its own, not the default policy."""
        return self.policy_tree is not None

    @property
    def policy_name(self) -> str:
        """The name of the policy in messages."""
        return f"{self.values.name} (policy of pool {self.name})"

    def policy(self) -> LoadedPolicy:
        """Return the policy of the pool.

        Raises:
            ConfigInvalidError: with every error found, at its location in the values files.
        """
        if self.policy_tree is None:
            return LoadedPolicy(DEFAULT_POLICY)
        diagnostics = Diagnostics()
        policy = decode_policy_tree(self.policy_tree, self.policy_name, diagnostics, self.values.lines)
        return LoadedPolicy(policy, warnings=sort_unique(diagnostics.warnings))

    def load(self, node_name: str | None, policy: Policy | None, driver: str | None = None) -> Config:
        """Return the configuration of a node of the pool, or of a node without values of its own.

        ``driver`` is the name of the driver of Dynamic Resource Allocation, None for that of the values.

        Raises:
            ConfigInvalidError: with every error found, at its location in the values files.
        """
        trees = [self.config, *(tree for name, tree in self.nodes.items() if name == node_name)]
        names = [f"{self.values.name}[{self.name}/genplug.yaml]"]
        names += [f"{self.values.name}[{self.name}/node.{node_name}.yaml]"] if len(trees) > 1 else []
        diagnostics = Diagnostics()
        # A part that the policy forbids has requirements, too. Other errors are found again below.
        with suppress(ConfigInvalidError, TooManyErrorsError):
            prefix = "" if self.name == DEFAULT_POOL else f"pools.{self.name}."
            unlimited = decode_trees(trees, names, Diagnostics(), None, self.values.lines)
            check_requirements(unlimited, self.daemonset, self.dra, prefix, diagnostics)
        return decode_trees(trees, names, diagnostics, policy, self.values.lines, driver or self.values.driver)


@hide_in_repr("lines", "tree")
class ChartValues(Struct, frozen=True):
    """Values files, merged: their names, their texts by name, and the tree of values that Helm passes to the chart."""

    files: tuple[str, ...]
    lines: Mapping[str, str]
    tree: MapNode

    @property
    def name(self) -> str:
        """The name of the values in messages."""
        return ",".join(self.files)

    @property
    def driver(self) -> str:
        """The name of the driver of Dynamic Resource Allocation (``dra.driverName``), which all pools have."""
        return _text(_map(self.tree.get("dra")).get("driverName")) or DRIVER_DOMAIN

    def pools(self) -> tuple[Pool, ...]:
        """Return the enabled pools in the order of their names.

        Raises:
            ConfigInvalidError: no pool is enabled, or two pools claim the same nodes.
        """
        diagnostics = Diagnostics()
        written = _map(self.tree.get("pools"))
        pools = []
        claimed: dict[str, tuple[str, SourceLocation]] = {}
        for name in sorted({*written.entries, DEFAULT_POOL}):
            own = written.get(name)
            if name != DEFAULT_POOL and not isinstance(own, MapNode):
                continue
            settings = _map(own)
            if _text(settings.get("enabled")) == "false":
                continue
            pools.append(pool := self._pool(name, settings))
            self._check_resources(pool, written.entries.get(name), settings, diagnostics)
            if name != DEFAULT_POOL:
                _claim_labels(name, settings, written.entries[name].key, claimed, diagnostics)
        if not pools:
            entry = self.tree.entries["pools"]
            message, hint = "every pool is disabled, so that no node has an agent", "enable a pool: 'enabled: true'"
            diagnostics.add(ErrorCode.CONFLICT, entry.key, message, key_path="pools", hint=hint, width=len("pools"))
        if diagnostics.found:
            raise ConfigInvalidError(attach_source_lines(diagnostics.found, self.lines))
        return tuple(pools)

    def _check_resources(self, pool: Pool, entry: MapEntry | None, own: MapNode, diagnostics: Diagnostics) -> None:
        """Record an error if a pool has no resources, or both an existing ConfigMap and resources."""
        location = entry.key if entry is not None else self.tree.location
        width = len(pool.name) if entry is not None else 1
        if pool.existing_config_map:
            # The level that names the ConfigMap, or that describes anything of its own, must not have both.
            config = _map(own.get("config"))
            level = config if any(map(_is_set, config.entries.values())) else _map(self.tree.get("config"))
            keys = [key for key in ("defaults", "resources", "nodes") if _map(level.get(key)).entries]
            if keys:
                message = f"the pool reads the ConfigMap {pool.existing_config_map!r}, and {keys[0]!r} has no effect"
                hint = f"move {keys[0]!r} into the ConfigMap, or set 'existingConfigMap: \"\"'"
                key = level.entries[keys[0]].key
                diagnostics.add(ErrorCode.CONFLICT, key, message, hint=hint, width=len(keys[0]))
        elif not any(_map(tree.get("resources")).entries for tree in (pool.config, *pool.nodes.values())):
            message = f"the pool {pool.name!r} has no resources, so that its agents offer no devices"
            hint = f"describe resources under 'config.resources', or set 'pools.{pool.name}.enabled: false'"
            diagnostics.add(ErrorCode.NO_RESOURCES, location, message, hint=hint, width=width)

    def _pool(self, name: str, own: MapNode) -> Pool:
        shared = _map(self.tree.get("config"))
        own_config = _map(own.get("config"))
        merged = _merge_dropping_nulls(_without(shared, "nodes"), _without(own_config, "nodes"))
        policy = _merge_dropping_nulls(_map(self.tree.get("policy")), _map(own.get("policy")))
        start = self.tree.entries["config"].key if "config" in self.tree.entries else self.tree.location
        nodes: dict[str, MapNode] = {}
        for level in (shared, own_config):
            for node_name, entry in _map(level.get("nodes")).entries.items():
                if is_null(entry.value):
                    nodes.pop(node_name, None)
                elif isinstance(entry.value, MapNode):
                    nodes[node_name] = merge([nodes.get(node_name, MapNode(entry.key, {})), entry.value])
        config = _config_file(start, merged, has_resources=True)
        overlays = {
            node_name: _config_file(tree.location, tree, has_resources=False)
            for node_name, tree in sorted(nodes.items())
        }
        existing = _text(merged.get("existingConfigMap"))
        return Pool(
            name,
            self,
            config,
            overlays,
            _policy_file(self.tree.location, policy) if policy.entries else None,
            _merge_dropping_nulls(_map(self.tree.get("daemonset")), _map(own.get("daemonset"))),
            _merge_dropping_nulls(_map(self.tree.get("dra")), _map(own.get("dra"))),
            existing,
        )


def read_values(files: Sequence[ConfigFile]) -> ChartValues:
    """Parse values files and merge them as Helm does: later files override earlier files.

    Raises:
        ConfigInvalidError: a file is not a values file, or violates the schema of the chart.
    """
    lines = {file.name: file.text for file in files}
    diagnostics = Diagnostics()
    trees = [tree for file in files if (tree := _parse_values(file, diagnostics)) is not None]
    tree = _select_subchart(merge([*trees, MapNode(SourceLocation(files[0].name, 1, 1), {})]))
    if len(trees) == len(files) and not diagnostics.found:
        shaped = Diagnostics()
        with suppress(TooManyErrorsError):
            check_values_schema(drop_nulls(tree), shaped)
        diagnostics.found.extend(found for found in shaped.found if not _is_checked_after_merge(found))
    if diagnostics.found:
        raise ConfigInvalidError(attach_source_lines(diagnostics.found, lines))
    return ChartValues(tuple(lines), lines, tree)


def _select_subchart(tree: MapNode) -> MapNode:
    """Return the values that a parent chart passes to genplug's chart, or the values themselves."""
    own = tree.get(_CHART_NAME)
    return own if isinstance(own, MapNode) and not is_chart_values(tree) else tree


def _parse_values(file: ConfigFile, diagnostics: Diagnostics) -> MapNode | None:
    start = SourceLocation(file.name, 1, 1)
    documents = parse_documents(file.text, file.name, diagnostics, MAX_VALUES_FILE_BYTES, dialect=_HELM)
    if documents is None:
        return None
    # Helm reads the first document.
    tree = documents[0] if documents else MapNode(start, {})
    if isinstance(tree, ScalarNode) and is_null(tree):
        return MapNode(start, {})
    foreign = None if is_chart_values(tree) else find_foreign_file(tree, are_values=True)
    is_ours = isinstance(tree, MapNode) and _text(tree.get("apiVersion")) == VERSION
    if foreign is not None or is_ours or not isinstance(tree, MapNode):
        name = foreign.name if foreign else "a configuration or policy of genplug" if is_ours else "no mapping"
        hint = "validate it without --values" if is_ours else foreign.hint if foreign else ""
        location = foreign.location if foreign else tree.location
        message = f"expected values of genplug's chart, found {name}"
        diagnostics.add(ErrorCode.WRONG_VERSION, location, message, hint=hint, width=foreign.width if foreign else 1)
        return None
    return tree


def _is_checked_after_merge(found: Diagnostic) -> bool:
    """Return whether an error is inside a part that is decoded as a configuration or policy, which reports it better.

    A part of the wrong type is not decoded.
    """
    is_inside = _CHECKED_AFTER_MERGE.match(found.key_path)
    return is_inside is not None and (bool(is_inside["rest"]) or found.code is not ErrorCode.WRONG_TYPE)


def _claim_labels(
    name: str,
    settings: MapNode,
    key: SourceLocation,
    claimed: dict[str, tuple[str, SourceLocation]],
    diagnostics: Diagnostics,
) -> None:
    """Record an error for each label value that another pool has claimed."""
    written = settings.get("labelValues")
    items = written.items if isinstance(written, ListNode) else (ScalarNode(key, name, name, None),)
    for item in items:
        value = _text(item)
        previous, location = claimed.setdefault(value, (name, item.location))
        if previous != name:
            message = f"the pools {previous!r} and {name!r} both claim the nodes with the label value {value!r}"
            hint = "an agent per node: set different 'labelValues', or 'enabled: false' for one of the pools"
            diagnostics.add(
                ErrorCode.CONFLICT,
                item.location,
                message,
                key_path=f"pools.{name}",
                hint=hint,
                width=len(value),
                related_location=location,
            )


def _merge_dropping_nulls(*maps: MapNode) -> MapNode:
    """Merge mappings as ``genplug.merge`` of the chart: null removes a key, and mappings merge key by key."""
    entries: dict[str, MapEntry] = {}
    for map_ in maps:
        for key, entry in map_.entries.items():
            if is_null(entry.value):
                entries.pop(key, None)
            elif isinstance(entry.value, MapNode):
                base = _map(entries[key].value) if key in entries else MapNode(entry.value.location, {})
                entries[key] = MapEntry(entry.key, _merge_dropping_nulls(base, entry.value))
            else:
                entries[key] = entry
    return MapNode(maps[-1].location, entries)


def _config_file(start: SourceLocation, settings: MapNode, *, has_resources: bool) -> MapNode:
    """Return a configuration file as the template ``genplug.configFile`` writes it."""
    entries = _header(start, FileKind.CONFIG)
    defaults = settings.entries.get("defaults")
    if defaults is not None and _map(defaults.value).entries:
        entries["defaults"] = MapEntry(defaults.key, sort_keys(defaults.value))
    resources = settings.entries.get("resources")
    if resources is not None:
        entries["resources"] = MapEntry(resources.key, sort_keys(resources.value))
    elif has_resources:
        entries["resources"] = MapEntry(start, MapNode(start, {}))
    return MapNode(start, entries)


def _policy_file(start: SourceLocation, policy: MapNode) -> MapNode:
    """Return a policy file as the template ``genplug.policyFile`` writes it."""
    return MapNode(start, {**_header(start, FileKind.POLICY), **policy.entries})


def _header(start: SourceLocation, kind: FileKind) -> dict[str, MapEntry]:
    return {
        key: MapEntry(start, ScalarNode(start, text, text, None))
        for key, text in (("apiVersion", VERSION), ("kind", kind.value))
    }


def _is_set(entry: MapEntry) -> bool:
    """Return whether a value is not empty, as a condition of a template of Helm."""
    return bool(_map(entry.value).entries or _text(entry.value))


def _without(map_: MapNode, key: str) -> MapNode:
    return replace(map_, entries={name: entry for name, entry in map_.entries.items() if name != key})


def _map(node: Node | None) -> MapNode:
    return node if isinstance(node, MapNode) else MapNode(SourceLocation("", 1, 1), {})


def _text(node: Node | None) -> str:
    return node.text if isinstance(node, ScalarNode) and not is_null(node) else ""
