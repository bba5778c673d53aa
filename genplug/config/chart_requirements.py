"""Checks that the pods of a pool provide what its configuration needs, as the chart does when Helm renders it.

The chart makes these checks in ``templates/_pools.tpl``. The requirements of the policy are not repeated here: a
configuration is decoded under the policy of its pool.
"""

from collections.abc import Iterator
from contextlib import suppress

from genplug.config.decode.values import is_set, items
from genplug.config.diagnostics import Diagnostics
from genplug.config.privileges import find_needs
from genplug.config.yaml_tree import MapNode, ScalarNode
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.model import Config
from genplug.spec.privileges import Need, NeedKind, is_below
from genplug.spec.root_paths import OutsideRootError, strip_root

_HOST = "/host"
"""The directory of the container below which the chart mounts directories of the host."""


def check_requirements(config: Config, daemonset: MapNode, dra: MapNode, prefix: str, diagnostics: Diagnostics) -> None:
    """Record what a configuration needs and its pool does not provide.

    ``daemonset`` are the settings of the pods, and ``dra`` those of Dynamic Resource Allocation. ``prefix`` is that of
    the values of the pool: empty or ``pools.lab.``.
    """
    needs = find_needs(config)
    has_driver = any(need.kind is NeedKind.DRA_DRIVER for need in needs)
    for need in needs:
        # The chart mounts a directory for CDI files into the agents that run a driver.
        if need.kind is NeedKind.CDI_SPEC_DIR and has_driver:
            continue
        if missing := _find_missing(need, daemonset, dra):
            consequence, setting = missing
            hint = f"set '{prefix}{setting}"
            message = f"{need.reason}{consequence}"
            diagnostics.add(
                ErrorCode.CHART, need.location, message, key_path=need.key_path, hint=hint, width=need.width
            )


def _find_missing(need: Need, daemonset: MapNode, dra: MapNode) -> tuple[str, str] | None:
    """Return what is missing, as the end of the message, and the setting that provides it, as the end of the hint."""
    is_privileged = is_set(daemonset, "privileged", value=True)
    match need.kind:
        case NeedKind.DEVICE_ACCESS if not is_privileged:
            return "", "daemonset.privileged: true' in the values"
        case NeedKind.KERNEL_LOG if not is_privileged and is_set(daemonset, "kernelLog", value="never"):
            return ", and 'kernelLog: never' withholds it", "daemonset.kernelLog: auto' in the values"
        case NeedKind.CDI_SPEC_DIR if not _has(daemonset, "cdiSpecDir"):
            return ", and the pods mount no directory for them", "daemonset.cdiSpecDir: /var/run/cdi' in the values"
        case NeedKind.DRA_DRIVER if is_set(dra, "enabled", value="never"):
            return ", and 'dra.enabled: never' withholds what it needs", "dra.enabled: auto' in the values"
        case NeedKind.CDI_SEARCH_DIRS if not _has(daemonset, "cdiSearchDirs"):
            setting = "daemonset.cdiSearchDirs: [/etc/cdi, /var/run/cdi]' in the values"
            return ", and the pods mount no directory of CDI files", setting
        case NeedKind.HOST_PATH if not is_below(need.subject, tuple(_list_host_mounts(daemonset))):
            consequence = f", and the pods do not mount {need.subject!r}"
            return consequence, f"daemonset.hostMounts: [{need.subject}]', or list a directory above it"
        case _:
            return None


def _list_host_mounts(daemonset: MapNode) -> Iterator[str]:
    """Yield the paths of the host that the pods mount, including those of additional volumes."""
    for item in items(daemonset.get("hostMounts")):
        if isinstance(item, ScalarNode):
            yield item.text
    for item in items(daemonset.get("extraVolumeMounts")):
        path = item.get("mountPath") if isinstance(item, MapNode) else None
        if isinstance(path, ScalarNode) and path.text.rstrip("/") != _HOST:
            with suppress(OutsideRootError):
                yield strip_root(path.text, _HOST)
    for key in ("cdiSpecDir", "cdiSearchDirs"):
        written = daemonset.get(key)
        yield from (item.text for item in (written, *items(written)) if isinstance(item, ScalarNode) and item.text)


def _has(daemonset: MapNode, key: str) -> bool:
    written = daemonset.get(key)
    return bool(items(written) or (isinstance(written, ScalarNode) and written.text))
