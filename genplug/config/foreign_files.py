"""Recognizes files of other programs, so that one error names the program instead of many that name unknown keys.

The formats are those of docs/how-to/migrate; a file is recognized by keys that genplug does not have.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct

from genplug.config.diagnostics import Diagnostics
from genplug.config.yaml_tree import ListNode, MapNode, Node, ScalarNode, parse_documents
from genplug.spec.diagnostic import Diagnostic, ErrorCode
from genplug.spec.location import SourceLocation

DOCS_URL = "https://github.com/genplug/genplug/blob/main/docs"
"""The documentation: a path of a page below ``docs`` follows."""
OUR_GROUP = "genplug.io/"

_HELM_TEMPLATE = re.compile(
    r"^[ \t]*(?:[\w./-]+:[ \t]*|-[ \t]+)?"
    r"\{\{-?[ \t]*(?:\.|\$|/\*|include|range|if|with|define|end|toYaml|template|printf|default)",
    re.MULTILINE,
)
"""An action of a template that is not quoted, so that the line is not YAML."""


class ForeignFile(Struct, frozen=True):
    """A file of another program: its name, a hint, and the location and width of the key that shows it."""

    name: str
    hint: str
    location: SourceLocation
    width: int = 1


class _Format(Struct, frozen=True):
    """A file format of another program: its name, the guide for its users, and the keys that show it.

    ``is_values`` is whether values of genplug's chart can have the keys, too.
    """

    name: str
    guide: str
    find_key: Callable[[MapNode], str | None]
    is_values: bool = False


def find_foreign_file(tree: Node, *, are_values: bool = False) -> ForeignFile | None:
    """Return what a file is if another program reads it, or None if genplug may read it.

    With ``are_values``, the file is expected to contain values of genplug's chart.
    """
    if isinstance(tree, ListNode):
        return _find_in_list(tree)
    if not isinstance(tree, MapNode) or _text(tree, "apiVersion").startswith(OUR_GROUP):
        return None
    if "apiVersion" in tree.entries and "kind" in tree.entries:
        return _find_object(tree)
    is_kustomization = _is_list_of_texts(tree.get("resources"))
    if "resources" in tree.entries and "version" not in tree.entries and not is_kustomization:
        return None
    for format_ in _FORMATS:
        if not (are_values and format_.is_values) and (key := format_.find_key(tree)) is not None:
            return ForeignFile(format_.name, format_.guide, tree.entries[key].key, len(key))
    return None


def foreign_file_diagnostic(text: str, file: str, tree: Node | None) -> Diagnostic | None:
    """Return the error about a file of another program, or None; ``tree`` is the only document of the text.

    The error replaces all other errors of the file.
    """
    if tree is not None:
        found = find_foreign_file(tree)
    elif is_helm_template(text):
        name, hint = "a template of a Helm chart", "render it: helm template RELEASE CHART | genplug validate -"
        found = ForeignFile(name, hint, SourceLocation(file, 1, 1))
    else:
        documents = parse_documents(text, file, Diagnostics()) or []
        found = next(filter(None, map(find_foreign_file, documents)), None)
    if found is None:
        return None
    message = f"expected a configuration or policy of genplug, found {found.name}"
    return Diagnostic(ErrorCode.WRONG_VERSION, found.location, message, hint=found.hint, width=found.width)


def is_helm_template(text: str) -> bool:
    """Return whether a text is a template of a Helm chart, which is not YAML before it is rendered."""
    return _HELM_TEMPLATE.search(text) is not None


def is_chart_values(tree: Node) -> bool:
    """Return whether a file contains values of genplug's chart."""
    return isinstance(tree, MapNode) and _find_values_key(tree) is not None


def migration_hint(guide: str) -> str:
    """Return the hint that names a guide in docs/how-to/migrate."""
    return f"{DOCS_URL}/how-to/migrate/{guide}.md shows how to write it for genplug"


def conversion_hint(plugin: str, guide: str) -> str:
    """Return the hint that names the command for a format of ``genplug convert``, and the guide."""
    return f"run 'genplug convert --from {plugin} FILE'; {DOCS_URL}/how-to/migrate/{guide}.md shows the migration"


def _has_items_with(*keys: str) -> Callable[[Node | None], bool]:
    """Return a predicate for lists with an item that has one of these keys."""
    return lambda node: (
        isinstance(node, ListNode)
        and any(isinstance(item, MapNode) and any(key in item.entries for key in keys) for item in node.items)
    )


def _is_list_of_texts(node: Node | None) -> bool:
    return isinstance(node, ListNode) and bool(node.items) and all(isinstance(item, ScalarNode) for item in node.items)


def _key_with(key: str, is_expected: Callable[[Node | None], bool]) -> Callable[[MapNode], str | None]:
    return lambda tree: key if is_expected(tree.get(key)) else None


def _has(*keys: str) -> Callable[[MapNode], str | None]:
    """Return a function that finds the first key if the file has all of these keys."""
    return lambda tree: keys[0] if all(key in tree.entries for key in keys) else None


def _find_nvidia_key(tree: MapNode) -> str | None:
    sharing = tree.get("sharing")
    if isinstance(sharing, MapNode) and not {"timeSlicing", "mps"}.isdisjoint(sharing.entries):
        return "sharing"
    if "version" not in tree.entries or "apiVersion" in tree.entries:
        return None
    return next((key for key in ("flags", "sharing", "resources", "imex") if key in tree.entries), None)


def _find_nvidia_values_key(tree: MapNode) -> str | None:
    config = tree.get("config")
    if isinstance(config, MapNode) and "map" in config.entries:
        return "config"
    return next((key for key in ("migStrategy", "gfd", "devicePlugin", "dcgmExporter") if key in tree.entries), None)


def _find_kubevirt_key(tree: MapNode) -> str | None:
    spec = tree.get("spec")
    configuration = spec.get("configuration") if isinstance(spec, MapNode) else None
    is_part = isinstance(configuration, MapNode) and "permittedHostDevices" in configuration.entries
    return "spec" if is_part else "permittedHostDevices" if "permittedHostDevices" in tree.entries else None


def _find_generic_device_key(tree: MapNode) -> str | None:
    is_group_list = _has_items_with("paths", "usb")(tree.get("groups"))
    return "groups" if is_group_list and "apiVersion" not in tree.entries else None


def _find_values_key(tree: MapNode) -> str | None:
    if "apiVersion" in tree.entries or "kind" in tree.entries:
        return None
    config = tree.get("config")
    if isinstance(config, MapNode) and not {"resources", "defaults", "nodes", "existingConfigMap"}.isdisjoint(
        config.entries
    ):
        return "config"
    return next((key for key in ("pools", "daemonset") if isinstance(tree.get(key), MapNode)), None)


_GENERIC_DEVICE_PLUGIN = "a configuration of generic-device-plugin"
_GENERIC_DEVICE_PLUGIN_DEVICE = "a value of '--device' of generic-device-plugin"
_POD_HINT = (
    "a pod requests devices in 'resources.limits' of a container; a configuration of genplug describes which devices "
    "exist"
)
_FORMATS: Sequence[_Format] = (
    _Format(
        "a values file of genplug's chart",
        "validate it with 'genplug validate --values FILE'; pass it to Helm with 'helm install --values FILE'",
        _find_values_key,
        is_values=True,
    ),
    _Format("a values file of NVIDIA's chart", conversion_hint("nvidia", "nvidia"), _find_nvidia_values_key),
    _Format(
        "a values file of another chart",
        "render the chart: helm template RELEASE CHART --values FILE | genplug validate -",
        lambda tree: next((key for key in ("image", "images") if isinstance(tree.get(key), MapNode)), None),
        is_values=True,
    ),
    _Format("a configuration of the NVIDIA device plugin", conversion_hint("nvidia", "nvidia"), _find_nvidia_key),
    _Format(
        _GENERIC_DEVICE_PLUGIN,
        conversion_hint("generic-device-plugin", "generic-device-plugin"),
        _key_with("devices", _has_items_with("groups")),
    ),
    _Format(
        _GENERIC_DEVICE_PLUGIN_DEVICE,
        conversion_hint("generic-device-plugin", "generic-device-plugin"),
        _find_generic_device_key,
    ),
    _Format(
        "a configuration of the SR-IOV network device plugin",
        conversion_hint("sriov", "sriov"),
        _key_with("resourceList", lambda node: isinstance(node, ListNode)),
    ),
    _Format(
        "a configuration of the RDMA shared device plugin",
        conversion_hint("rdma-shared", "rdma-shared"),
        _key_with("configList", lambda node: isinstance(node, ListNode)),
    ),
    _Format("a configuration of k8s-host-device-plugin", migration_hint("other-plugins"), _has("hostDevices")),
    _Format(
        "a configuration of k8s-hostpath-device-plugin",
        migration_hint("other-plugins"),
        _has("volumeMount", "hostPath"),
    ),
    _Format("a configuration of k8s-hostdevice-plugin", migration_hint("other-plugins"), _has("socketPrefix")),
    _Format("part of a KubeVirt object", conversion_hint("kubevirt", "kubevirt"), _find_kubevirt_key),
    _Format(
        "arguments of the Intel device plugins",
        conversion_hint("intel", "intel"),
        lambda tree: next((key for key in tree.entries if key.endswith("-plugin")), None),
    ),
    _Format(
        "part of a pod",
        f"{_POD_HINT}; {DOCS_URL}/how-to/migrate/index.md lists guides for other device plugins",
        lambda tree: next((key for key in ("containers", "template", "spec") if key in tree.entries), None),
    ),
    _Format(
        "the Chart.yaml of a Helm chart",
        "render the chart: helm template RELEASE CHART | genplug validate -",
        _has("name", "version", "apiVersion"),
    ),
    _Format(
        "a kustomization",
        "render it: kubectl kustomize DIRECTORY | genplug validate -",
        _key_with("resources", _is_list_of_texts),
    ),
    _Format(
        "a CDI file",
        "name its devices in 'allocate.cdiDevices' of a resource: [vendor.example/class=name]",
        _has("cdiVersion"),
    ),
    _Format(
        "a Compose file",
        "in Kubernetes, a configuration of genplug describes which devices exist, and a pod requests them",
        _has("services"),
    ),
)

_OBJECTS: Mapping[str, tuple[str, str]] = {
    "akri.sh": ("Akri", conversion_hint("akri", "akri")),
    "kubevirt.io": ("KubeVirt", conversion_hint("kubevirt", "kubevirt")),
    "hco.kubevirt.io": ("KubeVirt", conversion_hint("kubevirt", "kubevirt")),
    "nvidia.com": ("the NVIDIA GPU Operator", migration_hint("nvidia")),
    "mellanox.com": ("the NVIDIA Network Operator", conversion_hint("rdma-shared", "rdma-shared")),
    "sriovnetwork.openshift.io": ("the SR-IOV Network Operator", migration_hint("sriov")),
    "deviceplugin.intel.com": ("the Intel Device Plugins Operator", conversion_hint("intel", "intel")),
    "amd.com": ("the AMD GPU Operator", migration_hint("amd")),
}
"""The program and the hint by the API group of an object."""
_IMAGES: Mapping[str, str] = {
    "generic-device-plugin": conversion_hint("generic-device-plugin", "generic-device-plugin"),
    "nvidia/k8s-device-plugin": conversion_hint("nvidia", "nvidia"),
    r"intel-(?:gpu|qat|sgx|dsa|iaa|npu|fpga|dlb)-plugin": conversion_hint("intel", "intel"),
}
"""The hint by a regular expression for the image of a plugin whose configuration is its arguments."""
_OBJECT_HINT = "genplug reads configurations (kind DevicePluginConfig), policies, and ConfigMaps that contain them"


def _find_object(tree: MapNode) -> ForeignFile | None:
    kind, version = _text(tree, "kind"), _text(tree, "apiVersion")
    group = version.rpartition("/")[0]
    location = tree.entries["kind"].value.location
    if group in _OBJECTS:
        program, hint = _OBJECTS[group]
        return ForeignFile(f"a {kind} of {program}", hint, location, len(kind))
    # A misspelt version or kind of genplug, and ConfigMaps, have hints of their own.
    is_core = bool(re.fullmatch(r"v\d+", version)) and kind.isalpha() and kind[0].isupper()
    if kind == "ConfigMap" or kind.startswith("DevicePlugin") or not (is_core or "." in group or group == "apps"):
        return None
    hint = _POD_HINT if isinstance(tree.get("spec"), MapNode) and _has_containers(tree) else _OBJECT_HINT
    hint = _find_workload_hint(tree) or hint
    return ForeignFile(f"a Kubernetes object of kind {kind}", hint, location, len(kind))


def _has_containers(tree: MapNode) -> bool:
    return any("containers" in part.entries for part in _pod_specs(tree))


def _pod_specs(tree: MapNode) -> Iterator[MapNode]:
    """Yield the mappings of an object that can be the specification of a pod."""
    spec = tree.get("spec")
    template = spec.get("template") if isinstance(spec, MapNode) else None
    inner = template.get("spec") if isinstance(template, MapNode) else None
    yield from (part for part in (spec, inner) if isinstance(part, MapNode))


def _find_workload_hint(tree: MapNode) -> str:
    """Return the hint for a workload of another device plugin, which its image shows, or an empty text."""
    for part in _pod_specs(tree):
        containers = part.get("containers")
        for container in containers.items if isinstance(containers, ListNode) else ():
            image = _text(container, "image") if isinstance(container, MapNode) else ""
            for name, hint in _IMAGES.items():
                if re.search(name, image):
                    return hint
    return ""


def _find_in_list(tree: ListNode) -> ForeignFile | None:
    for item in tree.items:
        if isinstance(item, MapNode) and (found := _find_generic_device_key(item)) is not None:
            hint, location = conversion_hint("generic-device-plugin", "generic-device-plugin"), item.entries[found].key
            return ForeignFile(_GENERIC_DEVICE_PLUGIN, hint, location, len(found))
        for key, entry in item.entries.items() if isinstance(item, MapNode) else ():
            if key.lower() in ("devicematch", "nummaxdevices"):
                name, hint = (
                    "a configuration of smarter-device-manager",
                    conversion_hint("smarter", "smarter-device-manager"),
                )
                return ForeignFile(name, hint, entry.key, len(key))
    return None


def _text(tree: MapNode, key: str) -> str:
    node = tree.get(key)
    return node.text if isinstance(node, ScalarNode) else ""
