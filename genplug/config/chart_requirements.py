"""Checks that the pods of a pool provide what its configuration requires, as the chart does when Helm renders it.

The chart makes these checks in ``templates/_pools.tpl``. The requirements of the policy are not repeated here: a
configuration is decoded under the policy of its pool.
"""

from collections.abc import Iterator

from attrs import frozen

from genplug.config.decode.values import entries, is_set, items
from genplug.config.diagnostics import Diagnostics
from genplug.config.merge import apply_defaults, drop_nulls
from genplug.config.yaml_tree import MapEntry, MapNode, Node, ScalarNode
from genplug.spec.diagnostic import ErrorCode

_VISIBLE_DIRECTORIES = ("/dev", "/sys")
"""Directories of the host that every pod of the chart mounts."""
_PRIVILEGED_PROBES = {
    "open": "opens device nodes, which only a privileged container can do",
    "kernelLog": "reads /dev/kmsg, which only a privileged container can do",
}


def check_requirements(tree: MapNode, daemonset: MapNode, prefix: str, diagnostics: Diagnostics) -> None:
    """Record what a merged configuration requires and ``daemonset``, the settings of the pods, does not provide.

    ``prefix`` is that of the values of the pool: empty or ``pools.lab.``.
    """
    checker = _Checker(daemonset, prefix, diagnostics)
    for name, entry in entries(drop_nulls(apply_defaults(tree)).get("resources")):
        if isinstance(entry.value, MapNode):
            checker.check_probes(entry.value, name)
            checker.check_allocate(entry.value.get("allocate"), name)


@frozen
class _Checker:
    daemonset: MapNode
    prefix: str
    diagnostics: Diagnostics

    def check_probes(self, resource: MapNode, name: str) -> None:
        health = resource.get("health")
        probes = health.get("probes") if isinstance(health, MapNode) else None
        for index, probe in enumerate(items(probes)):
            for kind, entry in entries(probe):
                if kind in _PRIVILEGED_PROBES and not is_set(self.daemonset, "privileged", value=True):
                    message = f"the probe {_PRIVILEGED_PROBES[kind]}"
                    self._add(entry, len(kind), message, "privileged: true", f"{name}.health.probes[{index}]")

    def check_allocate(self, allocate: Node | None, name: str) -> None:
        for key, entry in entries(allocate):
            where = f"{name}.allocate"
            value = entry.value
            is_cdi = key == "inject" and isinstance(value, ScalarNode) and value.text == "cdi"
            if is_cdi and not self._has("cdiSpecDir"):
                message = "'inject: cdi' writes CDI files, and the pods mount no directory for them"
                self._add(entry, len(key), message, "cdiSpecDir: /var/run/cdi", where)
            if key == "cdiDevices" and items(value) and not self._has("cdiSearchDirs"):
                message = "'cdiDevices' names CDI devices, and the pods mount no directory of CDI files"
                self._add(entry, len(key), message, "cdiSearchDirs: [/etc/cdi, /var/run/cdi]", where)
            if key == "mounts":
                for mount in items(value):
                    self._check_mount(mount, where)

    def _check_mount(self, mount: Node, where: str) -> None:
        path = mount.get("hostPath") if isinstance(mount, MapNode) else None
        if not isinstance(path, ScalarNode) or path.text.startswith("$"):
            return
        directories = (*_VISIBLE_DIRECTORIES, *self._list_host_mounts())
        if not any(f"{path.text}/".startswith(f"{directory.removesuffix('/')}/") for directory in directories):
            message = f"the pods do not mount {path.text!r}, so that the agent cannot verify it"
            hint = f"set '{self.prefix}daemonset.hostMounts: [{path.text}]', or list a directory above it"
            location = path.at(0)
            self.diagnostics.add(
                ErrorCode.CHART,
                location,
                message,
                key_path=f"resources.{where}.mounts",
                hint=hint,
                width=len(path.text),
            )

    def _list_host_mounts(self) -> Iterator[str]:
        written = self.daemonset.get("hostMounts")
        yield from (item.text for item in items(written) if isinstance(item, ScalarNode))

    def _has(self, key: str) -> bool:
        written = self.daemonset.get(key)
        return bool(items(written) or (isinstance(written, ScalarNode) and written.text))

    def _add(self, entry: MapEntry, width: int, message: str, setting: str, where: str) -> None:
        hint = f"set '{self.prefix}daemonset.{setting}' in the values"
        self.diagnostics.add(ErrorCode.CHART, entry.key, message, key_path=f"resources.{where}", hint=hint, width=width)
