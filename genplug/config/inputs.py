"""Finds the configurations and policies in what an operator has in hand, each configuration with its own policy.

These are files and directories, values of the chart, manifests, a policy alone, a directory of pools, and the standard
input. The agent reads files and directories only (:mod:`genplug.config.load`).
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

from msgspec import Struct, field

from genplug.config.chart_values import Pool, read_values
from genplug.config.diagnostics import ConfigInvalidError, Diagnostics
from genplug.config.files import ConfigFile, decode_utf8, is_config_file, node_of, nodes_of
from genplug.config.load import load_files, load_text
from genplug.config.manifest import MAX_BYTES, find_manifests, is_manifest
from genplug.config.policy import LoadedPolicy, decode_policy, is_policy, load_policy
from genplug.spec.diagnostic import Diagnostic, ErrorCode
from genplug.spec.location import SourceLocation
from genplug.spec.model import Config
from genplug.spec.names import DRIVER_DOMAIN
from genplug.spec.policy import DEFAULT_POLICY, Policy

STDIN = "-"
STDIN_NAME = "<stdin>"

LoadPolicy: TypeAlias = Callable[[], LoadedPolicy]
"""Returns a policy, or raises ConfigInvalidError."""


class LoadConfig(Protocol):
    """Loads a configuration."""

    def __call__(self, policy: Policy | None, *, driver: str) -> Config:
        """Return the configuration under a policy, or without limits for None; ``driver`` is the name of the driver.

        Raises:
            ConfigInvalidError: with every error found.
        """
        ...


class ConfigInput(Struct, frozen=True):
    """A configuration: a function that loads it or raises ConfigInvalidError, and the pool and node that it is for.

    ``pool`` and ``node_name`` are empty for a configuration of all pools and nodes. ``driver`` is the name of the
    driver of Dynamic Resource Allocation.
    """

    load: Callable[[], Config]
    pool: str = ""
    node_name: str = ""
    driver: str = DRIVER_DOMAIN


class PolicyInput(Struct, frozen=True):
    """A policy: a function that loads it or raises ConfigInvalidError, and the pool that it is for, or empty."""

    load: LoadPolicy
    pool: str = ""


class InputRequest(Struct, frozen=True):
    """The arguments of a command that select its input.

    ``paths`` are files and directories, ``values`` values files, and each of them and ``policy`` can be ``-``, the
    standard input. ``policy`` replaces the policy of every pool. With ``has_all_nodes``, each node with a configuration
    of its own is a separate input. With ``is_unlimited``, a configuration without a policy is loaded without limits
    instead of under the default policy. ``driver`` is the name of the driver of Dynamic Resource Allocation; with None,
    it is that of the values of the chart, and ``default_driver`` for other input.
    """

    paths: Sequence[str] = ()
    values: Sequence[str] = ()
    pool: str | None = None
    node_name: str | None = None
    policy: str | None = None
    has_all_nodes: bool = False
    is_unlimited: bool = False
    driver: str | None = None
    default_driver: str = DRIVER_DOMAIN

    @property
    def has_repeated_stdin(self) -> bool:
        """Whether several arguments are the standard input, which can be read once."""
        return [*self.paths, *self.values, self.policy].count(STDIN) > 1


class Inputs(Struct, frozen=True):
    """The configurations and policies, and the errors of a source in which neither can be found.

    ``notes`` describe configurations that a source refers to and does not contain.
    """

    configurations: list[ConfigInput] = []
    policies: list[PolicyInput] = []
    diagnostics: list[Diagnostic] = []
    notes: list[str] = []


def find_inputs(request: InputRequest) -> Inputs:
    """Return the configurations and policies that the arguments of a command name."""
    finder = _Finder(request)
    finder.find()
    return finder.inputs


class _Finder(Struct):
    """Adds inputs; ``option`` loads the policy of the request, which replaces all others."""

    request: InputRequest
    inputs: Inputs = field(default_factory=Inputs)
    option: LoadPolicy | None = None

    def find(self) -> None:
        self._add_policy_option()
        files: list[Path] = []
        texts: list[ConfigFile] = []
        policies: list[LoadPolicy] = []
        for path in self.request.paths:
            if _is_directory_of_pools(path):
                self._add_directory_of_pools(Path(path))
                continue
            text = self._read(path)
            if text is None:
                files += [] if _is_stream(path) else [Path(path)]
            elif is_policy(text.text):
                policies.append(partial(_decode_policy, text))
            elif is_manifest(text.text):
                self._guard(partial(self._add_manifests, text))
            elif _is_stream(path):
                texts.append(text)
            else:
                files.append(Path(path))
        self.inputs.policies.extend(map(PolicyInput, policies))
        # A policy beside the files of a configuration is its policy.
        policy = policies[0] if len(policies) == 1 else None
        if self.request.pool is not None and (files or texts):
            self._add_unknown_pool([], texts[0].name if texts else str(files[0]))
        for text in texts:
            self._add(_bind_text(text), policy, driver=self._driver)
        if files:
            self._add_files(files, policy)
        if self.request.values:
            self._guard(self._add_values)

    def _add_policy_option(self) -> None:
        path = self.request.policy
        if path is None:
            return
        self.option = partial(load_policy, Path(path))
        if _is_stream(path):
            text = self._read(path)
            # An error has been recorded; the default policy would add unrelated errors.
            self.option = partial(_decode_policy, text) if text is not None else _raise_unreadable
        if self.option is not _raise_unreadable:
            self.inputs.policies.append(PolicyInput(self.option))

    def _add_values(self) -> None:
        diagnostics = Diagnostics()
        files = [read_text(path, diagnostics) for path in self.request.values]
        if diagnostics.found:
            raise ConfigInvalidError(diagnostics.found)
        pools = read_values([file for file in files if file is not None]).pools()
        selected = [pool for pool in pools if self._is_selected(pool.name)]
        if not selected:
            self._add_unknown_pool([pool.name for pool in pools], self.request.values[0])
        for pool in selected:
            self._add_pool(pool)

    def _add_pool(self, pool: Pool) -> None:
        if pool.has_policy:
            self.inputs.policies.append(PolicyInput(pool.policy, pool.name))
        if pool.existing_config_map:
            self.inputs.notes.append(
                f"{pool.values.name}: not checked: pool {pool.name} reads the ConfigMap {pool.existing_config_map}; "
                f"check it with 'kubectl get configmap {pool.existing_config_map} -o yaml | genplug validate -'"
            )
            return
        for node in self._nodes(pool.nodes):
            driver = self.request.driver or pool.values.driver
            self._add(partial(pool.load, node), pool.policy, pool.name, node, driver=driver)

    def _add_manifests(self, text: ConfigFile) -> None:
        manifests = find_manifests(text.text, text.name)
        found = (*manifests.configurations, *manifests.policies)
        if not any(self._is_selected(manifest.pool) for manifest in found):
            self._add_unknown_pool(sorted({manifest.pool for manifest in found if manifest.pool}), text.name)
        for manifest in manifests.policies:
            if self._is_selected(manifest.pool):
                loads = [partial(manifest.policy, name) for name in manifest.policies]
                self.inputs.policies.extend(PolicyInput(load, manifest.pool) for load in loads)
        for manifest in manifests.configurations:
            if self._is_selected(manifest.pool):
                limits = manifests.policy_of(manifest)
                policy = partial(limits.policy, limits.policies[0]) if limits is not None else None
                for node in self._nodes(manifest.nodes.values()):
                    self._add(partial(manifest.load, node), policy, manifest.pool, node, driver=self._driver)

    def _add_directory_of_pools(self, path: Path) -> None:
        directories = [directory for directory in sorted(path.iterdir()) if _has_config_files(directory)]
        selected = [directory for directory in directories if self._is_selected(directory.name)]
        if not selected:
            self._add_unknown_pool([directory.name for directory in directories], str(path))
        for directory in selected:
            files: list[Path] = []
            policies: list[Path] = []
            for file in sorted(file for file in directory.iterdir() if is_config_file(file.name)):
                text = read_text(str(file), Diagnostics())
                (policies if text is not None and is_policy(text.text) else files).append(file)
            loads: list[LoadPolicy] = [partial(load_policy, file) for file in policies]
            self.inputs.policies.extend(PolicyInput(load, directory.name) for load in loads)
            for file in policies[1:]:
                message = f"the pool {directory.name!r} has several policies"
                self._add_error(ErrorCode.CONFLICT, str(file), message, "keep one policy in the directory of a pool")
            if files:
                self._add_files(files, loads[0] if loads else None, directory.name)

    def _add_files(self, files: Sequence[Path], policy: LoadPolicy | None, pool: str = "") -> None:
        own = {node for file in files if pool and (node := node_of(file.name)) is not None}
        for node in self._nodes({*nodes_of(files), *own}):
            selected = [file for file in files if not pool or node_of(file.name) in (None, node)]
            self._add(_bind_files(selected, node), policy, pool, node, driver=self._driver)

    def _add(
        self, load: LoadConfig, policy: LoadPolicy | None, pool: str = "", node: str | None = None, *, driver: str
    ) -> None:
        default = None if self.request.is_unlimited else DEFAULT_POLICY
        load_limited = partial(_load_limited, partial(load, driver=driver), self.option or policy, default)
        self.inputs.configurations.append(ConfigInput(load_limited, pool, node or "", driver))

    @property
    def _driver(self) -> str:
        """The name of the driver for input without values of the chart."""
        return self.request.driver or self.request.default_driver

    def _nodes(self, names: Iterable[str]) -> list[str | None]:
        """Return the nodes to check: that of the request, or all nodes; None is a node without a file of its own."""
        if self.request.node_name is not None or not self.request.has_all_nodes:
            return [self.request.node_name]
        return [None, *sorted(set(names))]

    def _is_selected(self, pool: str) -> bool:
        return self.request.pool in (None, pool)

    def _add_unknown_pool(self, pools: Sequence[str], file: str) -> None:
        hint = f"the pools are {', '.join(pools)}" if pools else "omit --pool"
        self._add_error(ErrorCode.WRONG_VALUE, file, f"there is no pool {self.request.pool!r}", hint)

    def _add_error(self, code: ErrorCode, file: str, message: str, hint: str) -> None:
        self.inputs.diagnostics.append(Diagnostic(code, SourceLocation(file, 1, 1), message, hint=hint))

    def _read(self, path: str) -> ConfigFile | None:
        """Return the text of a file or stream, or None; an error of a stream is recorded.

        The loader of files reports the errors of directories and regular files.
        """
        if not _is_stream(path) and not Path(path).is_file():
            return None
        diagnostics = Diagnostics()
        text = read_text(path, diagnostics)
        if _is_stream(path):
            self.inputs.diagnostics.extend(diagnostics.found)
        return text

    def _guard(self, add: Callable[[], None]) -> None:
        try:
            add()
        except ConfigInvalidError as error:
            self.inputs.diagnostics.extend(error.diagnostics)


def read_text(path: str, diagnostics: Diagnostics) -> ConfigFile | None:
    """Return the text of a file or of the standard input, of which at most 16 MiB are read; record an error."""
    name = STDIN_NAME if path == STDIN else path
    try:
        if path == STDIN:
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        is_missing = isinstance(error, FileNotFoundError)
        message = "no such file or directory" if is_missing else f"cannot read the file: {reason}"
        hint = "check the path; '-' is the standard input" if is_missing else ""
        diagnostics.add(ErrorCode.UNREADABLE, SourceLocation(name, 1, 1), message, hint=hint)
        return None
    return decode_utf8(content, name, diagnostics)


def _raise_unreadable() -> LoadedPolicy:
    raise ConfigInvalidError(())


def _load_limited(load: Callable[[Policy | None], Config], policy: LoadPolicy | None, default: Policy | None) -> Config:
    if policy is None:
        return load(default)
    try:
        limits = policy().policy
    except ConfigInvalidError:
        # The input of the policy reports its errors.
        return load(None)
    return load(limits)


def _bind_text(text: ConfigFile) -> LoadConfig:
    return lambda policy, *, driver: load_text(text.text, text.name, policy, driver)


def _bind_files(files: Sequence[Path], node: str | None) -> LoadConfig:
    return lambda policy, *, driver: load_files(files, node, policy, driver).config


def _decode_policy(text: ConfigFile) -> LoadedPolicy:
    diagnostics = Diagnostics()
    policy = decode_policy(text, diagnostics)
    return LoadedPolicy(policy, warnings=tuple(diagnostics.warnings))


def _is_stream(path: str) -> bool:
    """Return whether a path can be read once only: the standard input, a pipe or a device."""
    return path == STDIN or (Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir())


def _is_directory_of_pools(path: str) -> bool:
    """Return whether a directory contains directories with configuration files, and no such file itself."""
    directory = Path(path)
    if path == STDIN or not directory.is_dir() or _has_config_files(directory):
        return False
    try:
        return any(map(_has_config_files, directory.iterdir()))
    except OSError:
        return False


def _has_config_files(directory: Path) -> bool:
    try:
        is_hidden = directory.name.startswith("..")
        return not is_hidden and directory.is_dir() and any(is_config_file(file.name) for file in directory.iterdir())
    except OSError:
        return False
