"""The kinds of objects that the stand-in serves, and the paths of requests."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct


class Kind(Struct, frozen=True):
    """A kind of objects."""

    group: str
    version: str
    plural: str
    kind: str
    is_namespaced: bool = False
    selectable: tuple[str, ...] = ()
    """The field selectors that the API server knows beside ``metadata.name``."""

    @property
    def api_version(self) -> str:
        """The ``apiVersion`` of objects of this kind."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified_name(self) -> str:
        """The name in errors."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


SLICES = Kind(
    "resource.k8s.io",
    "v1",
    "resourceslices",
    "ResourceSlice",
    selectable=("spec.nodeName", "spec.driver", "spec.pool.name"),
)
CLAIMS = Kind("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim", is_namespaced=True)
NODES = Kind("", "v1", "nodes", "Node")
KINDS = (SLICES, CLAIMS, NODES)


class Target(Struct, frozen=True):
    """The objects that a request is about: a collection if ``name`` is empty."""

    kind: Kind
    namespace: str = ""
    name: str = ""


def find_target(path: str) -> Target | None:
    """Return the target of a path, or None for a path that the stand-in does not serve."""
    parts = path.strip("/").split("/")
    for kind in KINDS:
        root = ["apis", kind.group, kind.version] if kind.group else ["api", kind.version]
        if parts[: len(root)] != root:
            continue
        match parts[len(root) :]:
            case [kind.plural]:
                return Target(kind)
            case [kind.plural, name] if not kind.is_namespaced:
                return Target(kind, name=name)
            case ["namespaces", namespace, kind.plural] if kind.is_namespaced:
                return Target(kind, namespace)
            case ["namespaces", namespace, kind.plural, name] if kind.is_namespaced:
                return Target(kind, namespace, name)
    return None


def read_field(document: Mapping[str, Any], path: str) -> str:
    """Return the value of a field for a field selector, an empty string if it is not set."""
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return "" if value is None else str(value)
